//! Answers that are lost, and a database that is away.

use std::time::Duration;

use jiscord_store::{
    Error, Messages, Result, Users,
    scylla::{Options, ScyllaStore},
};
use tokio::time::{sleep, timeout};

use crate::{
    channel,
    cql::Keyspace,
    keyspace, message, new_user,
    proxy::{BATCH, EXECUTE, Proxy},
    silent, tell,
};

/// Longer than a database that is back is looked for again.
const PATIENCE: Duration = Duration::from_secs(60);

async fn behind_a_proxy(keyspace: &Keyspace) -> (Proxy, Options) {
    let proxy = Proxy::before(keyspace.address.clone()).await;
    let options = Options::new([proxy.address.clone()], keyspace.name.clone()).timeout(Duration::from_secs(10));
    (proxy, options)
}

/// I1, I2.
#[tokio::test]
async fn an_answer_that_is_lost_is_no_second_message() {
    let keyspace = keyspace!("lost answers");
    let (proxy, options) = behind_a_proxy(&keyspace).await;
    ScyllaStore::migrate(options.clone()).await.unwrap();
    let store = ScyllaStore::open(options.timeout(Duration::from_secs(3))).await.unwrap();

    // That of the batch: nobody knows, and the repeat finds it.
    let new = message(channel(), "the batch's answer is lost");
    proxy.lose_answer(BATCH, "the batch's answer is lost");
    let unknown = Messages::create(&*store, new.clone(), tell()).await;
    assert!(matches!(unknown, Err(Error::Unknown(_))), "{unknown:?}");
    let page = store.page_before(new.channel_id, None, 9).await.unwrap();
    let repeat = Messages::create(&*store, new, tell()).await.unwrap();
    assert!(repeat.repeated);
    assert_eq!(page, [repeat.row]);

    // That of the claim: what was decided is read, and all goes on.
    let mut new = message(channel(), "hi");
    new.nonce = Some(jiscord_core::text::Nonce::new("the claim's answer is lost").unwrap());
    proxy.lose_answer(EXECUTE, "the claim's answer is lost");
    let first = Messages::create(&*store, new.clone(), tell()).await.unwrap();
    assert!(!first.repeated);
    let repeat = Messages::create(&*store, new.clone(), tell()).await.unwrap();
    assert!(repeat.repeated);
    assert_eq!(store.page_before(new.channel_id, None, 9).await.unwrap(), [repeat.row]);

    // That of an address: the account is there, and nobody else gets it.
    let ada = new_user();
    proxy.lose_answer(EXECUTE, ada.email.as_str());
    let account = Users::create(&*store, ada.clone()).await.unwrap();
    assert!(store.by_email(&ada.email).await.unwrap() == Some(account.clone()));
    assert!(matches!(Users::create(&*store, ada).await, Err(Error::Taken("email"))));
    assert_eq!(keyspace.number("SELECT count(*) FROM {}.users").await, 1, "the loser's row is deleted");
    assert_eq!(proxy.lost(), 3);
    keyspace.drop().await;
}

#[tokio::test]
async fn a_database_that_is_away_is_told_and_comes_back_by_itself() {
    let keyspace = keyspace!("a database that is away");
    let (proxy, options) = behind_a_proxy(&keyspace).await;
    ScyllaStore::migrate(options.clone()).await.unwrap();
    let store = ScyllaStore::open(options.timeout(Duration::from_secs(3)).lease(Duration::from_secs(6))).await.unwrap();
    let channel = channel();
    Messages::create(&*store, message(channel, "before"), tell()).await.unwrap();

    proxy.shut();
    let away = |answer: Result<()>| matches!(answer, Err(Error::Unavailable(_)));
    // What is under way when the connection breaks may be unknown; what comes later is not begun.
    let told = async {
        while !away(Messages::create(&*store, message(channel, "away"), tell()).await.map(drop)) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("told");
    assert!(away(Messages::create(&*store, message(channel, "away"), silent()).await.map(drop)));
    assert!(away(store.page_before(channel, None, 9).await.map(drop)));
    assert!(away(Users::get(&*store, crate::user()).await.map(drop)));
    assert!(away(store.check().await));
    let minted = async {
        while jiscord_core::mint::IdSource::next(&*store) != uuid::Uuid::nil() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, minted).await.expect("no ids once the number may be somebody else's");

    proxy.open();
    let back = async {
        while store.check().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, back).await.expect("back");
    Messages::create(&*store, message(channel, "after"), tell()).await.unwrap();
    let page = store.page_before(channel, None, 9).await.unwrap();
    assert_eq!(page.iter().map(|message| message.content.as_str()).collect::<Vec<_>>(), ["after", "before"]);
    keyspace.drop().await;
}

//! How tables come to be, and which are refused.

use jiscord_store::scylla::{OpenError, Options, ScyllaStore};

use crate::keyspace;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_one_migrates() {
    let keyspace = keyspace!("migrations");
    let runs: tokio::task::JoinSet<_> = (0..4).map(|_| ScyllaStore::migrate(keyspace.options())).collect();
    let mut done: Vec<_> = runs.join_all().await.into_iter().map(Result::unwrap).collect();
    done.sort();
    assert_eq!(done, [vec![], vec![], vec![], vec!["start", "logins", "late nonces"]]);
    assert!(ScyllaStore::migrate(keyspace.options()).await.unwrap().is_empty());

    // A runner that died in the middle: the next one waits for its lock to expire, and does the rest.
    keyspace.run("TRUNCATE {}.migrations").await;
    keyspace.run("DROP TABLE {}.workers").await;
    keyspace.run("UPDATE {}.migration_lock USING TTL 2 SET owner = uuid() WHERE name = 'lock'").await;
    assert_eq!(ScyllaStore::migrate(keyspace.options()).await.unwrap(), ["start", "logins", "late nonces"]);
    keyspace.open().await.close().await;

    for (change, says) in [
        (
            "INSERT INTO {}.migrations (version, name) VALUES (4, 'from the future')",
            "the database is of a newer Jiscord: its schema has version 4, and this one knows 3",
        ),
        (
            "UPDATE {}.migrations SET checksum = 0x00 WHERE version = 1",
            "migration 1 (start) is not the one that the database was made with",
        ),
        ("DROP TABLE {}.migrations", "is not Jiscord's"),
    ] {
        keyspace.run(change).await;
        let refused = ScyllaStore::open(keyspace.options()).await.unwrap_err().to_string();
        assert!(refused.ends_with(says), "{refused}");
    }
    keyspace.drop().await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_told_in_words() {
    let keyspace = keyspace!("what cannot be opened");
    for name in ["", "Jiscord", "1st", "a-b", "x;DROP", &"a".repeat(49)] {
        let refused = ScyllaStore::open(Options::new([keyspace.address.clone()], name)).await;
        assert!(matches!(refused, Err(OpenError::BadKeyspace(_))), "{name}");
    }
    let far = ScyllaStore::open(keyspace.options().local_dc("mars")).await.unwrap_err().to_string();
    assert!(far.starts_with("there is no data centre mars; there are "), "{far}");
    let nobody = Options::new(["127.0.0.1:1"], keyspace.name.clone()).credentials("ada", "secret-42");
    assert!(!format!("{nobody:?}").contains("secret-42"));
    let away = ScyllaStore::open(nobody).await.unwrap_err();
    assert_eq!(away.to_string(), "no database at 127.0.0.1:1");
    assert!(!format!("{away:?}").contains("secret-42"));
}

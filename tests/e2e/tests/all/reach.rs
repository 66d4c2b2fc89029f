//! Who is reached by what: events reach whom the permission function lets read, and nobody else.

use std::collections::BTreeMap;

use jiscord_e2e::{Deployment, Person, Socket};
use serde_json::json;

/// Somebody who listens, in the guild of the test or not.
struct Ear {
    name: &'static str,
    person: Person,
    socket: Socket,
}

impl Ear {
    /// The ops of all that it is told, up to a message of this content.
    async fn until(&mut self, content: &str) -> Vec<String> {
        let mut ops = Vec::new();
        loop {
            let frame = self.socket.next().await.unwrap_or_else(|end| panic!("{}: {end:?}", self.name));
            if frame["d"]["content"] == content {
                return ops;
            }
            ops.push(frame["op"].as_str().unwrap().to_owned());
        }
    }
}

/// What each of them was told since the last time; who was told nothing is left out.
async fn told(ears: &mut [Ear], fence: &str, round: usize) -> BTreeMap<&'static str, Vec<String>> {
    // All of them hear it, and after all that went before it.
    let content = format!("round {round}");
    ears[0].socket.send(fence, &content).await;
    let mut told = BTreeMap::new();
    for ear in ears {
        told.insert(ear.name, ear.until(&content).await);
    }
    told.retain(|_, ops| !ops.is_empty());
    told
}

#[tokio::test]
async fn every_event_reaches_whom_it_may_and_nobody_else() {
    let server = Deployment::start().await;
    let mut people = Vec::new();
    for name in ["owner", "member", "joiner", "gone", "stranger"] {
        people.push((name, server.register(name).await));
    }
    let owner = people[0].1.clone();
    let common = owner.create_guild("Common").await;
    let fence = owner.create_channel(&common, "fence").await;
    let guild = owner.create_guild("Computing").await;
    let channel = owner.create_channel(&guild, "engines").await;
    let mut ears = Vec::new();
    for (name, person) in people {
        if name != "owner" {
            person.join(&common).await;
        }
        if ["member", "gone"].contains(&name) {
            person.join(&guild).await;
        }
        if name == "gone" {
            person.leave(&guild).await;
        }
        let socket = person.connect().await;
        ears.push(Ear { name, person, socket });
    }
    told(&mut ears, &fence, 0).await;

    let ops = |ops: &[&str]| ops.iter().map(|op| (*op).to_owned()).collect::<Vec<_>>();
    let members = format!("/guilds/{guild}/members");
    for (round, change) in ["nothing", "joiner joins", "joiner leaves", "member is removed"].into_iter().enumerate() {
        let round = round * 2 + 1;
        let (member, joiner) = (ears[1].person.clone(), ears[2].person.clone());
        let expected = match change {
            "joiner joins" => {
                joiner.join(&guild).await;
                vec![("joiner", &["GUILD_CREATE"]), ("member", &["MEMBER_ADD"]), ("owner", &["MEMBER_ADD"])]
            }
            "joiner leaves" => {
                joiner.leave(&guild).await;
                vec![("joiner", &["GUILD_DELETE"]), ("member", &["MEMBER_REMOVE"]), ("owner", &["MEMBER_REMOVE"])]
            }
            "member is removed" => {
                owner.data.delete(&format!("{members}/{}", member.id)).await.is(204);
                vec![("member", &["GUILD_DELETE"]), ("owner", &["MEMBER_REMOVE"])]
            }
            _ => vec![],
        };
        let expected = expected.into_iter().map(|(name, all)| (name, ops(all))).collect();
        assert_eq!(told(&mut ears, &fence, round).await, expected, "{change}");

        // Whom the API lets read is told of what happens, and nobody else is.
        let mut readers = BTreeMap::new();
        for ear in &ears {
            let status = ear.person.data.get(&format!("/channels/{channel}/messages")).await.status;
            assert!([200, 404].contains(&status), "{}: {status}", ear.name);
            if status == 200 {
                readers.insert(ear.name, ops(&["TYPING", "MESSAGE_CREATE", "CHANNEL_CREATE"]));
            }
        }
        assert_eq!(readers.len(), [2, 3, 2, 1][round / 2], "{change}");
        // Typing has no place among the others, so it is heard before they happen.
        ears[0].socket.say("TYPING_START", json!({"channelId": channel})).await;
        for ear in ears.iter_mut().filter(|ear| readers.contains_key(ear.name)) {
            ear.socket.hear("TYPING").await;
        }
        owner.post(&channel, json!({"content": "for your eyes"})).await;
        owner.create_channel(&guild, "another").await;
        let mut heard = told(&mut ears, &fence, round + 1).await;
        heard.values_mut().for_each(|ops| ops.insert(0, "TYPING".into()));
        assert_eq!(heard, readers, "{change}");
    }
}

//! What a user sees, against a gateway and an HTTP API that follow a script.

use std::time::Duration;

use axum::http::StatusCode;
use futures_util::FutureExt;
use jiscord_client::{
    Change, Client, Connection, Endpoints, Error, View,
    core::{ClientFrame, Code, Position, ServerFrame, Timestamp, frame::*, model::*},
};
use tokio::sync::mpsc;

use crate::common::{
    PATIENCE, Peer, SLOW, Server,
    api::{Api, guild, room, said},
    channel, message_id, soon, user,
};

/// A view, what it tells, and what a program makes of that.
struct Seen {
    view: View,
    changes: mpsc::UnboundedReceiver<Change>,
    /// The messages of channel 1, by splices alone.
    messages: Vec<String>,
    has_older: bool,
}

impl Seen {
    fn begin(server: &str, api: &str) -> Self {
        let endpoints = Endpoints::services(api, api, server).unwrap();
        let builder = Client::builder(endpoints).backoff(Duration::from_millis(2), Duration::from_millis(20));
        let (sender, changes) = mpsc::unbounded_channel();
        let listener = Box::new(move |change| {
            let _ = sender.send(change);
        });
        let view = View::begin(builder, "a token", listener).unwrap();
        Self { view, changes, messages: Vec::new(), has_older: false }
    }

    /// A session that is ready.
    async fn ready(server: &Server, api: &str) -> (Self, Peer) {
        let mut seen = Self::begin(&server.url, api);
        let peer = server.session(SLOW).await;
        seen.until(|change| matches!(change, Change::Connection(Connection::Ready))).await;
        (seen, peer)
    }

    /// The next change that fits. Those before it are taken in.
    async fn until(&mut self, fits: impl Fn(&Change) -> bool) -> Change {
        soon(async {
            loop {
                let change = self.changes.recv().await.expect("it will never happen");
                if let Change::Messages { channel: of, splices, has_older } = &change {
                    assert_eq!(*of, channel(1));
                    self.has_older = *has_older;
                    for splice in splices {
                        let insert = splice.insert.iter().map(|message| message.content.clone());
                        self.messages.splice(splice.at..splice.at + splice.remove, insert);
                    }
                }
                if fits(&change) {
                    return change;
                }
            }
        })
        .await
    }

    /// Waits until channel 1 is shown up to that message, and checks that nothing else is.
    async fn shows(&mut self, numbers: impl IntoIterator<Item = u32>) {
        let want: Vec<_> = numbers.into_iter().map(|number| number.to_string()).collect();
        let last = tokio::time::timeout(PATIENCE, async {
            while self.messages != want {
                self.until(|change| matches!(change, Change::Messages { .. })).await;
            }
        })
        .await;
        assert!(last.is_ok(), "{:?}", self.messages);
        let shown = self.view.timeline(channel(1));
        assert_eq!(shown.messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>(), want);
        assert_eq!(shown.has_older, self.has_older);
        assert!(shown.loaded);
    }

    fn names(&self) -> Vec<String> {
        self.view.guilds().into_iter().map(|guild| guild.name).collect()
    }

    fn rooms(&self) -> Vec<String> {
        self.view.channels(guild(1).guild_id).into_iter().map(|channel| channel.name).collect()
    }
}

fn is_guilds(change: &Change) -> bool {
    matches!(change, Change::Guilds)
}

fn is_channels(change: &Change) -> bool {
    matches!(change, Change::Channels(_))
}

#[tokio::test]
async fn it_tries_until_there_is_a_server() {
    let (_api, url) = Api::start().await;
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut seen = Seen::begin(&format!("http://{address}"), &url);
    for _ in 0..3 {
        seen.until(|change| matches!(change, Change::Connection(Connection::Connecting))).await;
        let Change::Connection(Connection::Waiting(wait)) =
            seen.until(|change| matches!(change, Change::Connection(Connection::Waiting(_)))).await
        else {
            unreachable!()
        };
        assert!(wait <= Duration::from_millis(20));
    }
    assert_eq!(seen.view.user(), None);
    // What is sent meanwhile waits.
    let view = seen.view.clone();
    let sending = tokio::spawn(async move {
        let message = SendMessage { channel_id: channel(1), content: "hi".into(), nonce: Some("n".into()), reply_to: None };
        view.send(message).await
    });
    let server = Server::start_at(address).await;
    let mut peer = server.session(SLOW).await;
    seen.until(|change| matches!(change, Change::Connection(Connection::Ready))).await;
    assert_eq!(seen.view.user(), Some(user()));
    let send = peer.hear_message().await;
    assert_eq!(send.nonce.as_deref(), Some("n"));
    peer.acknowledge(&send, 1).await;
    assert_eq!(soon(sending).await.unwrap().unwrap().message_id, message_id(1));
}

#[tokio::test]
async fn a_channel_is_whole_over_a_cut() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    api.write(1..=150);
    let (mut seen, mut peer) = Seen::ready(&server, &url).await;
    soon(seen.view.open(channel(1))).await.unwrap();
    seen.shows(51..=150).await;
    assert!(seen.has_older);
    soon(seen.view.open(channel(1))).await.unwrap();
    assert_eq!(api.count("newest"), 1, "it is open already");
    soon(seen.view.load_older(channel(1))).await.unwrap();
    seen.shows(1..=150).await;
    assert!(!seen.has_older);
    soon(seen.view.load_older(channel(1))).await.unwrap();
    assert_eq!(api.count("before"), 1, "there are none");

    peer.say_at(10, ServerFrame::MessageCreate(said(151))).await;
    seen.shows(1..=151).await;
    seen.until(|change| matches!(change, Change::Activity { .. })).await;
    // Cut. Three are written meanwhile, and others while the next session begins to read.
    drop(peer);
    api.write(151..=154);
    api.hold("after");
    let mut peer = server.session(SLOW).await;
    api.asked("after", 1).await;
    api.write([155, 156]);
    peer.say_at(20, ServerFrame::MessageCreate(said(155))).await;
    peer.say_at(21, ServerFrame::MessageCreate(said(156))).await;
    peer.say_at(22, ServerFrame::MessageCreate(said(157))).await;
    for number in [155, 156, 157] {
        let told = seen.until(|change| matches!(change, Change::Activity { .. })).await;
        assert!(matches!(told, Change::Activity { message, .. } if message == message_id(number)));
    }
    assert_eq!(seen.messages.len(), 151, "nothing is shown behind a gap");
    api.release();
    seen.shows(1..=157).await;
    // Once more, while it is being read.
    peer.say_at(23, ServerFrame::MessageCreate(said(158))).await;
    seen.shows(1..=158).await;
}

#[tokio::test]
async fn a_read_that_is_cut_off_is_begun_again() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    api.write(1..=5);
    let (mut seen, peer) = Seen::ready(&server, &url).await;
    api.hold("newest");
    let view = seen.view.clone();
    let opening = tokio::spawn(async move { view.open(channel(1)).await });
    api.asked("newest", 1).await;
    drop(peer);
    seen.until(|change| matches!(change, Change::Connection(Connection::Waiting(_)))).await;
    api.write([6]);
    let _peer = server.session(SLOW).await;
    api.asked("newest", 2).await;
    api.release();
    soon(opening).await.unwrap().unwrap();
    seen.shows(1..=6).await;
}

#[tokio::test]
async fn a_session_that_goes_on_has_nothing_to_read_again() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    api.write(1..=3);
    let (mut seen, peer) = Seen::ready(&server, &url).await;
    soon(seen.view.open(channel(1))).await.unwrap();
    seen.shows(1..=3).await;
    drop(peer);
    let (mut peer, _) = server.resumes(SLOW).await;
    peer.say_at(50, ServerFrame::MessageCreate(said(4))).await;
    peer.say_at(60, ServerFrame::Resumed(Resumed { replayed: 1 })).await;
    seen.until(|change| matches!(change, Change::Connection(Connection::Ready))).await;
    seen.shows(1..=4).await;
    assert_eq!(api.kept().asked.len(), 1, "{:?}", api.kept().asked);

    // Unless it says that something may be stale, before or after it goes on.
    drop(peer);
    api.write(4..=5);
    let (mut peer, _) = server.resumes(SLOW).await;
    peer.say_at(70, ServerFrame::Resync(Resync { topics: None, epoch: "e".into(), spread: None })).await;
    peer.say_at(80, ServerFrame::Resumed(Resumed { replayed: 0 })).await;
    seen.shows(1..=5).await;
    api.asked("guilds", 1).await;
    api.write(6..=7);
    peer.say_at(90, ServerFrame::Resync(Resync { topics: None, epoch: "e".into(), spread: None })).await;
    seen.shows(1..=7).await;
    api.asked("guilds", 2).await;
}

#[tokio::test]
async fn after_a_long_time_a_channel_begins_with_its_newest_page() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    api.write(1..=3);
    let (mut seen, peer) = Seen::ready(&server, &url).await;
    soon(seen.view.open(channel(1))).await.unwrap();
    seen.shows(1..=3).await;
    drop(peer);
    // As many as ten pages hold, with those before the last known one, which are read again.
    api.write(4..=1_000);
    let peer = server.session(SLOW).await;
    seen.shows(1..=1_000).await;
    drop(peer);
    api.write(1_001..=3_000);
    let _peer = server.session(SLOW).await;
    seen.shows(2_901..=3_000).await;
    soon(seen.view.load_older(channel(1))).await.unwrap();
    seen.shows(2_801..=3_000).await;
}

#[tokio::test]
async fn what_is_not_there_cannot_be_opened_and_what_goes_is_shown_no_longer() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    api.write(1..=3);
    let (mut seen, mut peer) = Seen::ready(&server, &url).await;
    api.kept().refusals.push_back((StatusCode::NOT_FOUND, Code::NOT_FOUND));
    let error = soon(seen.view.open(channel(1))).await.unwrap_err();
    assert!(matches!(error, Error::Refused(refusal) if refusal.code == Code::NOT_FOUND));
    assert!(!seen.view.timeline(channel(1)).loaded);
    // A server that is busy is asked again.
    for code in [Code::BUSY, Code::RATE_LIMITED, Code::INTERNAL] {
        api.kept().refusals.push_back((StatusCode::SERVICE_UNAVAILABLE, code));
    }
    soon(seen.view.open(channel(1))).await.unwrap();
    seen.shows(1..=3).await;
    api.kept().refusals.push_back((StatusCode::FORBIDDEN, Code::FORBIDDEN));
    // The guilds are read first, and take the refusal unless they are there.
    api.kept().refusals.push_front((StatusCode::SERVICE_UNAVAILABLE, Code::BUSY));
    peer.say_at(10, ServerFrame::Resync(Resync { topics: None, epoch: "e".into(), spread: None })).await;
    seen.shows([]).await;
}

#[tokio::test]
async fn guilds_and_their_channels_are_kept_up_to_date() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    let mut seen = Seen::begin(&server.url, &url);
    let (mut peer, _) = server.identified(SLOW).await;
    peer.ready_with(1, vec![guild(2), guild(1)]).await;
    seen.until(is_guilds).await;
    assert_eq!(seen.names(), ["Guild 1", "Guild 2"]);

    api.kept().channels.extend([room(2), room(1)]);
    assert!(seen.rooms().is_empty());
    seen.until(is_channels).await;
    assert_eq!(seen.rooms(), ["room 1", "room 2"]);
    assert_eq!(api.count("channels"), 1, "they are asked for once");
    peer.say_at(2, ServerFrame::ChannelCreate(room(3))).await;
    seen.until(is_channels).await;
    assert_eq!(seen.rooms(), ["room 1", "room 2", "room 3"]);
    let gone = ChannelDelete { channel_id: channel(1), guild_id: guild(1).guild_id, rev: 9 };
    peer.say_at(3, ServerFrame::ChannelDelete(gone)).await;
    seen.until(is_channels).await;
    assert_eq!(seen.rooms(), ["room 2", "room 3"]);

    peer.say_at(4, ServerFrame::GuildCreate(GuildCreate { guild: guild(3), channels: vec![] })).await;
    seen.until(is_guilds).await;
    peer.say_at(5, ServerFrame::GuildDelete(GuildDelete { guild_id: guild(2).guild_id, rev: 9 })).await;
    seen.until(is_guilds).await;
    assert_eq!(seen.names(), ["Guild 1", "Guild 3"]);
    // It comes back after it was left.
    peer.say_at(6, ServerFrame::GuildCreate(GuildCreate { guild: guild(2), channels: vec![] })).await;
    seen.until(is_guilds).await;
    assert_eq!(seen.names(), ["Guild 1", "Guild 2", "Guild 3"]);

    // Another session says what there is, and the channels are read again.
    drop(peer);
    api.kept().channels = vec![room(4), room(1)];
    let (mut peer, _) = server.identified(SLOW).await;
    peer.ready_with(7, vec![guild(1)]).await;
    seen.until(is_guilds).await;
    assert_eq!(seen.names(), ["Guild 1"]);
    seen.until(is_channels).await;
    while seen.rooms() != ["room 4"] {
        seen.until(is_channels).await;
    }
    assert_eq!(seen.rooms(), ["room 4"], "what was removed does not come back by a page that is late");
}

#[tokio::test]
async fn what_one_does_is_shown_when_it_is_done() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    let (mut seen, _peer) = Seen::ready(&server, &url).await;
    assert_eq!(soon(seen.view.create_guild("x")).await.unwrap(), guild(9));
    assert_eq!(seen.names(), ["Guild 9"]);
    api.kept().guilds.extend([guild(1), guild(9)]);
    soon(seen.view.join(guild(1).guild_id)).await.unwrap();
    assert_eq!(seen.names(), ["Guild 1", "Guild 9"]);
    api.kept().channels.push(room(1));
    seen.rooms();
    seen.until(|change| matches!(change, Change::Channels(of) if *of == guild(1).guild_id)).await;
    assert_eq!(soon(seen.view.create_channel(guild(1).guild_id, "x")).await.unwrap(), room(9));
    assert_eq!(seen.rooms(), ["room 1", "room 9"]);
    soon(seen.view.leave(guild(9).guild_id)).await.unwrap();
    assert_eq!(seen.names(), ["Guild 1"]);
}

#[tokio::test]
async fn a_list_that_was_read_late_undoes_nothing() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    let (mut seen, mut peer) = Seen::ready(&server, &url).await;
    api.kept().channels.extend([room(1), room(2)]);
    // Both are asked for, and wait; then things happen of which they do not know.
    api.hold("channels");
    api.hold("guilds");
    let view = seen.view.clone();
    seen.rooms();
    api.asked("channels", 1).await;
    let joining = tokio::spawn(async move { view.join(guild(1).guild_id).await });
    api.asked("guilds", 1).await;
    peer.say_at(2, ServerFrame::ChannelCreate(room(3))).await;
    let gone = ChannelDelete { channel_id: channel(2), guild_id: guild(1).guild_id, rev: 9 };
    peer.say_at(3, ServerFrame::ChannelDelete(gone)).await;
    peer.say_at(4, ServerFrame::GuildCreate(GuildCreate { guild: guild(3), channels: vec![] })).await;
    seen.until(is_guilds).await;
    api.release();
    soon(joining).await.unwrap().unwrap();
    assert_eq!(seen.names(), ["Guild 3"]);
    while seen.rooms() != ["room 1", "room 3"] {
        seen.until(is_channels).await;
    }
}

#[tokio::test]
async fn a_name_is_asked_for_once() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    let (mut seen, mut peer) = Seen::ready(&server, &url).await;
    assert_eq!(soon(seen.view.username(user().user_id)).await.unwrap(), "Ada", "READY has told it");
    let bob = "b00c0580-e748-11f1-8000-010000000000".parse().unwrap();
    let (a, b) = soon(async { tokio::join!(seen.view.username(bob), seen.view.username(bob)) }).await;
    assert_eq!((a.unwrap(), b.unwrap()), ("Bob".into(), "Bob".into()));
    assert_eq!(soon(seen.view.username(bob)).await.unwrap(), "Bob");
    assert_eq!(api.count("name"), 1);
    let eve = "c00c0580-e748-11f1-8000-010000000000".parse().unwrap();
    api.kept().refusals.push_back((StatusCode::NOT_FOUND, Code::NOT_FOUND));
    assert!(matches!(soon(seen.view.username(eve)).await, Err(Error::Refused(_))));
    // And it is heard.
    let member = Member {
        guild_id: guild(1).guild_id,
        user_id: eve,
        username: Some("Eve".into()),
        joined_at: Timestamp::from_ms(0),
        rev: 1,
    };
    peer.say_at(2, ServerFrame::MemberAdd(member)).await;
    peer.say(ServerFrame::Typing(Typing { channel_id: channel(1), user_id: eve, timestamp: 7 })).await;
    seen.until(|change| matches!(change, Change::Typing(_))).await;
    assert_eq!(soon(seen.view.username(eve)).await.unwrap(), "Eve");
}

#[tokio::test]
async fn what_happens_beside_is_told() {
    let (server, (_api, url)) = (Server::start().await, Api::start().await);
    let (mut seen, mut peer) = Seen::ready(&server, &url).await;
    seen.view.typing(channel(1)).unwrap();
    assert_eq!(peer.hear().await, ClientFrame::TypingStart(TypingStart { channel_id: channel(1) }));
    let typing = Typing { channel_id: channel(1), user_id: user().user_id, timestamp: 7 };
    peer.say(ServerFrame::Typing(typing.clone())).await;
    let told = seen.until(|change| matches!(change, Change::Typing(_))).await;
    assert!(matches!(told, Change::Typing(told) if told == typing));
    peer.say_at(Position(9).0, ServerFrame::MessageCreate(said(1))).await;
    seen.until(|change| matches!(change, Change::Activity { .. })).await;
    assert_eq!(seen.view.timeline(channel(1)), Default::default(), "it is not open");
    let (code, message) = (Code::NOT_FOUND, "no".into());
    peer.say(ServerFrame::Error(ErrorFrame { code, message, op: None, nonce: None, retry_after: None })).await;
    let told = seen.until(|change| matches!(change, Change::Failed(_))).await;
    assert!(matches!(told, Change::Failed(Error::Refused(refusal)) if refusal.code == Code::NOT_FOUND));
}

#[tokio::test]
async fn a_closed_channel_is_let_go_of() {
    let (server, (api, url)) = (Server::start().await, Api::start().await);
    api.write(1..=3);
    let (mut seen, mut peer) = Seen::ready(&server, &url).await;
    soon(seen.view.open(channel(1))).await.unwrap();
    seen.shows(1..=3).await;
    seen.view.close(channel(1));
    peer.say_at(2, ServerFrame::MessageCreate(said(4))).await;
    seen.until(|change| matches!(change, Change::Activity { .. })).await;
    assert!(!seen.view.timeline(channel(1)).loaded);
    // A read from before it was closed is not believed when it is open again.
    seen.messages.clear();
    api.hold("newest");
    let view = seen.view.clone();
    let first = tokio::spawn(async move { view.open(channel(1)).await });
    api.asked("newest", 2).await;
    seen.view.close(channel(1));
    assert!(matches!(soon(first).await.unwrap(), Err(Error::Closed)));
    let view = seen.view.clone();
    let second = tokio::spawn(async move { view.open(channel(1)).await });
    api.asked("newest", 3).await;
    api.write([4]);
    api.release();
    soon(second).await.unwrap().unwrap();
    seen.shows(1..=4).await;
}

#[tokio::test]
async fn the_end_is_told_with_its_reason() {
    let (server, (_api, url)) = (Server::start().await, Api::start().await);
    for (code, is_right) in [
        (4004, (|error| matches!(error, Error::Unauthorized(_))) as fn(&Error) -> bool),
        (4010, |error| matches!(error, Error::Evicted)),
    ] {
        let (mut seen, peer) = Seen::ready(&server, &url).await;
        peer.close(code).await;
        let ended = seen.until(|change| matches!(change, Change::Connection(Connection::Ended(_)))).await;
        assert!(matches!(&ended, Change::Connection(Connection::Ended(error)) if is_right(error)), "{ended:?}");
        assert!(matches!(soon(seen.view.open(channel(1))).await, Err(Error::Closed)));
        soon(seen.view.end()).await;
    }
    // Before the first session, too.
    let mut seen = Seen::begin(&server.url, &url);
    let (peer, _) = server.identified(SLOW).await;
    peer.close(4004).await;
    seen.until(|change| matches!(change, Change::Connection(Connection::Ended(Error::Unauthorized(_))))).await;

    let (mut seen, peer) = Seen::ready(&server, &url).await;
    let ((), ()) = soon(async { tokio::join!(seen.view.end(), peer.gone()) }).await;
    seen.until(|change| matches!(change, Change::Connection(Connection::Ended(Error::Closed)))).await;
    assert!(soon(seen.changes.recv()).await.is_none(), "it is the last thing that is told");
}

#[tokio::test]
async fn the_last_clone_dropped_ends_it() {
    let (server, (_api, url)) = (Server::start().await, Api::start().await);
    let (mut seen, peer) = Seen::ready(&server, &url).await;
    let other = seen.view.clone();
    let Seen { view, changes, .. } = &mut seen;
    assert!(changes.recv().now_or_never().is_none());
    drop(std::mem::replace(view, other));
    assert!(changes.recv().now_or_never().is_none());
    let Seen { view, mut changes, .. } = seen;
    drop(view);
    peer.gone().await;
    assert!(soon(changes.recv()).await.is_none());
}

//! What was missed, read of an HTTP API and told by the stream of events.

use std::{collections::BTreeSet, time::Duration};

use axum::http::StatusCode;
use jiscord_client::{
    Client, Error, Event, Events, ResumePoint, Resynced,
    core::{
        ChannelId, Code, Position, ServerFrame, Topic,
        frame::*,
        model::{Channel, Guild},
    },
};

use crate::common::{
    Peer, SLOW, Server,
    api::{guild, room, said_in},
    channel, message_id, soon, user,
};

/// The message that is so many seconds old, counted from the first there can be.
const fn sec(seconds: u32) -> u32 {
    seconds * 10_000_000
}

/// The position of that time.
fn at(seconds: u32) -> u64 {
    message_id(sec(seconds)).micros().unwrap()
}

fn room_of(guild: &Guild, number: u32) -> Channel {
    Channel { guild_id: guild.guild_id, ..room(number) }
}

fn say(channel_id: ChannelId, number: u32) -> ServerFrame {
    ServerFrame::MessageCreate(said_in(channel_id, number))
}

fn resync(topics: Option<Vec<Topic>>) -> ServerFrame {
    ServerFrame::Resync(Resync { topics, epoch: "e".into(), spread: None })
}

const BUSY: (StatusCode, Code) = (StatusCode::SERVICE_UNAVAILABLE, Code::BUSY);

/// A bot in guild 1, which has channels 1 and 2, since second 100.
async fn bot(server: &Server) -> (Client, Peer) {
    server.api.kept().guilds.push(guild(1));
    server.api.kept().channels.extend([room(1), room(2)]);
    let (client, peer) = tokio::join!(server.builder().connect("token"), begin(server, 100));
    (client.unwrap(), peer)
}

/// A session that begins at that second.
async fn begin(server: &Server, seconds: u32) -> Peer {
    let (mut peer, _) = server.identified(SLOW).await;
    peer.ready_with(at(seconds), vec![guild(1)]).await;
    peer
}

/// The messages up to what fits.
async fn until<T>(events: &mut Events, fits: impl Fn(&Event) -> Option<T>) -> (Vec<u32>, T) {
    let mut told = Vec::new();
    loop {
        let event = soon(events.next()).await.unwrap().unwrap();
        if let Some(found) = fits(&event) {
            return (told, found);
        }
        if let Event::MessageCreate(message) = event {
            told.push(message.content.parse().unwrap());
        }
    }
}

async fn resynced(events: &mut Events) -> (Vec<u32>, Resynced) {
    until(events, |event| match event {
        Event::Resynced(resynced) => Some(resynced.clone()),
        _ => None,
    })
    .await
}

/// The messages up to that one, which is live.
async fn up_to(events: &mut Events, number: u32) -> Vec<u32> {
    let (mut told, ()) = until(events, |event| match event {
        Event::MessageCreate(message) if message.message_id == message_id(number) => Some(()),
        _ => None,
    })
    .await;
    told.push(number);
    told
}

#[tokio::test]
async fn what_was_missed_is_told_once_and_then_what_has_changed() {
    let server = Server::start().await;
    let api = &server.api;
    let (client, mut peer) = bot(&server).await;
    let mut events = client.events();
    let left = GuildCreate { guild: guild(2), channels: vec![] };
    peer.say_at(at(101), ServerFrame::GuildCreate(left)).await;
    peer.say_at(at(102), say(channel(1), sec(102))).await;
    assert_eq!(up_to(&mut events, sec(102)).await, [sec(102)]);

    // Its id is old, since it was stored late; another one is as old as nothing that was missed can be.
    api.write([sec(5), sec(60), sec(102), sec(103), sec(104)]);
    api.write_in(channel(2), [sec(5)]);
    let joined = room_of(&guild(3), 3);
    api.kept().guilds.push(guild(3));
    api.kept().channels.push(joined.clone());
    api.write_in(channel(3), [sec(106)]);
    api.hold("guilds");
    peer.say_at(at(104), resync(None)).await;
    // What happens meanwhile waits, and is not told again where it was read.
    peer.say_at(at(105), say(channel(1), sec(104))).await;
    peer.say_at(at(106), say(channel(3), sec(106))).await;
    peer.say_at(at(107), say(channel(3), sec(107))).await;
    assert!(tokio::time::timeout(Duration::from_millis(20), events.next()).await.is_err());
    api.asked("guilds", 1).await;
    api.release();
    let (told, resynced) = resynced(&mut events).await;
    assert_eq!(told, [sec(60), sec(103), sec(104), sec(106)]);
    assert_eq!((resynced.topics, resynced.gone, resynced.missing), (None, vec![guild(2).guild_id], vec![]));
    let mut guilds = resynced.guilds.iter();
    let first = guilds.next().unwrap();
    assert_eq!((&first.guild, first.channels.len()), (&guild(1), 2));
    let second = guilds.next().unwrap();
    assert_eq!((&second.guild, second.channels[0].channel_id), (&guild(3), joined.channel_id));
    assert_eq!(guilds.next(), None);
    assert_eq!(up_to(&mut events, sec(107)).await, [sec(107)]);
    // Where nothing is new, no messages are asked for.
    let asked: Vec<_> = api.kept().asked.iter().filter(|asked| asked.starts_with("after")).cloned().collect();
    assert_eq!(asked, [1, 3].map(|number| format!("after {}", channel(number))));

    // What was read comes live minutes later: a server had kept it for the time that the bus was away.
    peer.say_at(at(400), say(channel(1), sec(400))).await;
    peer.say_at(at(401), say(channel(1), sec(60))).await;
    peer.say_at(at(402), say(channel(1), sec(402))).await;
    assert_eq!(up_to(&mut events, sec(402)).await, [sec(400), sec(402)]);
}

#[tokio::test]
async fn a_session_that_could_not_go_on_is_no_gap() {
    let server = Server::start().await;
    let (client, mut peer) = bot(&server).await;
    let mut events = client.events();
    peer.say_at(at(102), say(channel(1), sec(102))).await;
    up_to(&mut events, sec(102)).await;
    let before = events.resume_point();
    server.api.write([sec(102), sec(103), sec(104)]);
    server.api.write_in(channel(2), [sec(105)]);
    peer.close(4012).await;
    let mut peer = begin(&server, 106).await;
    peer.say_at(at(107), say(channel(1), sec(107))).await;
    until(&mut events, |event| matches!(event, Event::Ready(_)).then_some(())).await;
    assert_eq!(events.resume_point(), before, "not yet");
    let (told, resynced) = resynced(&mut events).await;
    assert_eq!((told, resynced.missing), (vec![sec(103), sec(104), sec(105)], vec![]));
    assert_eq!(up_to(&mut events, sec(107)).await, [sec(107)]);
    drop(peer);
    let (_, resume) = server.resumes(SLOW).await;
    assert_eq!(resume.after, Position(at(106)));
}

#[tokio::test]
async fn a_program_that_ends_within_a_gap_hears_the_rest_when_it_starts_again() {
    let server = Server::start().await;
    let (client, mut peer) = bot(&server).await;
    let mut events = client.events();
    peer.say_at(at(102), say(channel(1), sec(102))).await;
    up_to(&mut events, sec(102)).await;
    server.api.write([sec(102), sec(103), sec(200)]);
    server.api.write_in(channel(2), [sec(104), sec(105)]);
    peer.say_at(at(201), resync(None)).await;
    assert_eq!(up_to(&mut events, sec(200)).await, [sec(103), sec(200)]);
    let point = serde_json::to_string(&events.resume_point().unwrap()).unwrap();
    client.close().await;
    drop((client, events, peer));

    let again = async |refused: bool| {
        let point: ResumePoint = serde_json::from_str(&point).unwrap();
        let device = if refused { "refused" } else { "sdk" };
        let (client, peer) = tokio::join!(server.builder().device(device).resume(point).connect("token"), async {
            let (mut peer, resume) = server.resumes(SLOW).await;
            assert_eq!(resume.after, Position(at(100)), "where it was before the gap, and a little more");
            if refused {
                peer.close(4012).await;
                return begin(&server, 202).await;
            }
            peer.say_at(at(102), say(channel(1), sec(102))).await;
            peer.say_at(at(103), say(channel(1), sec(103))).await;
            peer.say_at(at(104), say(channel(2), sec(104))).await;
            peer.say_at(at(202), resync(None)).await;
            peer.say_at(at(202), ServerFrame::Resumed(Resumed { replayed: 3 })).await;
            peer
        });
        let client = client.unwrap();
        let mut events = client.events();
        let (told, resynced) = resynced(&mut events).await;
        assert_eq!((told, resynced.missing), (vec![sec(104), sec(105)], vec![]));
        drop(peer);
    };
    again(false).await;
    again(true).await;
}

#[tokio::test]
async fn only_what_is_stale_is_read() {
    let server = Server::start().await;
    let api = &server.api;
    let (client, mut peer) = bot(&server).await;
    let mut events = client.events();
    api.kept().guilds.push(guild(2));
    api.kept().channels.push(room_of(&guild(2), 3));
    let known = GuildCreate { guild: guild(2), channels: vec![] };
    peer.say_at(at(101), ServerFrame::GuildCreate(known)).await;
    api.write([sec(102)]);
    api.write_in(channel(3), [sec(103)]);
    let topics = vec![Topic::Guild(guild(2).guild_id)];
    peer.say_at(at(104), resync(Some(topics.clone()))).await;
    let (told, found) = resynced(&mut events).await;
    assert_eq!((told, found.topics, found.guilds.len()), (vec![sec(103)], Some(topics), 1));
    assert_eq!(api.count("channels"), 1);
    // Of the user's own topic: the guilds that were joined and left.
    api.kept().guilds.remove(0);
    api.kept().guilds.push(guild(4));
    peer.say_at(at(105), resync(Some(vec![Topic::User(user().user_id)]))).await;
    let (told, found) = resynced(&mut events).await;
    assert_eq!((told, found.gone, found.guilds[0].guild.clone()), (vec![], vec![guild(1).guild_id], guild(4)));
    assert_eq!((found.guilds.len(), api.count("channels")), (1, 2));
}

#[tokio::test]
async fn who_wants_no_messages_reads_none() {
    let server = Server::start().await;
    server.api.kept().guilds.push(guild(1));
    server.api.kept().channels.push(room(1));
    server.api.write([sec(101)]);
    let connecting = server.builder().intents(Intents::GUILDS).connect("token");
    let (client, mut peer) = tokio::join!(connecting, begin(&server, 100));
    let mut events = client.as_ref().unwrap().events();
    peer.say_at(at(102), resync(None)).await;
    let (told, resynced) = resynced(&mut events).await;
    assert_eq!((told, resynced.guilds.len(), server.api.count("after")), (vec![], 1, 0));
}

#[tokio::test]
async fn what_is_too_much_is_told_to_be_missing() {
    let server = Server::start().await;
    let (client, mut peer) = bot(&server).await;
    let mut events = client.events();
    server.api.write(sec(101)..sec(101) + 1_500);
    server.api.write_in(channel(2), [sec(102)]);
    peer.say_at(at(103), resync(None)).await;
    peer.say_at(at(103) + 1, say(channel(1), sec(101) + 1_499)).await;
    let (told, resynced) = resynced(&mut events).await;
    assert!(told.into_iter().eq((sec(101)..sec(101) + 1_000).chain([sec(102)])));
    let [missing] = &resynced.missing[..] else { panic!("{:?}", resynced.missing) };
    assert_eq!((missing.guild, missing.channel), (Some(guild(1).guild_id), Some(channel(1))));
    assert_eq!(missing.after, message_id(sec(101) + 999));
    // What comes live was not read.
    assert_eq!(up_to(&mut events, sec(101) + 1_499).await.len(), 1);

    // In all, too.
    let rooms: Vec<_> = (10..30).map(room).collect();
    for (number, room) in (0..).zip(&rooms) {
        server.api.write_in(room.channel_id, sec(200) + 1_000 * number..sec(200) + 1_000 * number + 800);
    }
    server.api.kept().channels = rooms;
    peer.say_at(at(201), resync(None)).await;
    let (told, resynced) = self::resynced(&mut events).await;
    assert_eq!(told.len(), 10_000);
    let missing: BTreeSet<_> = resynced.missing.iter().filter_map(|missing| missing.channel).collect();
    assert_eq!(missing, (22..30).map(channel).collect());
}

#[tokio::test]
async fn what_is_known_does_not_count_as_too_much() {
    let server = Server::start().await;
    let (client, mut peer) = bot(&server).await;
    let mut events = client.events();
    server.api.write(sec(101)..sec(101) + 1_500);
    for n in 0..1_500 {
        peer.say_at(at(101) + n, say(channel(1), sec(101) + u32::try_from(n).unwrap())).await;
    }
    assert_eq!(up_to(&mut events, sec(101) + 1_499).await.len(), 1_500);
    server.api.write(sec(102)..sec(102) + 5);
    peer.say_at(at(103), resync(None)).await;
    let (told, resynced) = resynced(&mut events).await;
    assert_eq!((told.len(), &resynced.missing[..]), (5, &[][..]));
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    let server = Server::start().await;
    let (client, mut peer) = bot(&server).await;
    let mut events = client.events();
    let refuse = |refusals: &[(StatusCode, Code)]| server.api.kept().refusals.extend(refusals.iter().cloned());
    server.api.write([sec(101)]);
    server.api.write_in(channel(2), [sec(102)]);
    refuse(&[BUSY, BUSY]);
    peer.say_at(at(102), resync(None)).await;
    let (told, found) = resynced(&mut events).await;
    assert_eq!((told, found.missing), (vec![sec(101), sec(102)], vec![]));

    // What the server knows nothing of is not missed; what it makes nothing of is.
    server.api.write([sec(103)]);
    server.api.write_in(channel(2), [sec(104)]);
    server.api.kept().asked.clear();
    // The next two answers are those to what is asked behind this.
    server.api.hold("channels");
    peer.say_at(at(104), resync(None)).await;
    let (reading, ()) = tokio::join!(resynced(&mut events), async {
        server.api.asked("channels", 1).await;
        refuse(&[(StatusCode::NOT_FOUND, Code::NOT_FOUND), (StatusCode::BAD_REQUEST, Code::MALFORMED)]);
        server.api.release();
    });
    let (told, found) = reading;
    assert_eq!(told, [0_u32; 0]);
    assert_eq!((found.missing.len(), found.missing[0].channel), (1, Some(channel(2))));
}

#[tokio::test]
async fn a_server_that_is_busy_for_long_is_given_up() {
    let server = Server::start().await;
    let brief = server.builder().resync_timeout(Duration::from_secs(1));
    let (client, mut peer) = tokio::join!(brief.connect("token"), begin(&server, 100));
    let client = client.unwrap();
    let mut events = client.events();
    server.api.kept().refusals.extend(vec![BUSY; 1_000]);
    // All of it may be missing, and what happens goes on.
    peer.say_at(at(105), resync(None)).await;
    peer.say_at(at(106), say(channel(1), sec(106))).await;
    let (told, found) = resynced(&mut events).await;
    assert_eq!((told.len(), found.missing.len(), found.missing[0].guild), (0, 1, None));
    assert!(found.missing[0].why.contains("busy"), "{}", found.missing[0].why);
    assert_eq!(up_to(&mut events, sec(106)).await, [sec(106)]);
}

#[tokio::test]
async fn a_client_that_is_closed_or_evicted_stops_at_once() {
    let server = Server::start().await;
    server.api.hold("guilds");
    for evicted in [false, true] {
        let (client, mut peer) = tokio::join!(server.builder().connect("token"), begin(&server, 100));
        let client = client.unwrap();
        let mut events = client.events();
        peer.say_at(at(101), resync(None)).await;
        peer.say_at(at(102), say(channel(1), sec(102))).await;
        assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
        let before = events.resume_point();
        let ending = async {
            server.api.asked("guilds", 1).await;
            if evicted { peer.close(4010).await } else { client.close().await }
        };
        let (next, ()) = tokio::join!(soon(events.next()), ending);
        // What came behind the gap would hide it.
        match evicted {
            true => assert!(matches!(next, Some(Err(Error::Evicted))), "{next:?}"),
            false => assert!(next.is_none(), "{next:?}"),
        }
        assert!(soon(events.next()).await.is_none());
        assert_eq!(events.resume_point(), before);
        server.api.kept().asked.clear();
    }
}

#[tokio::test]
async fn a_stream_that_takes_over_fills_the_gap_and_one_that_comes_late_does_not() {
    let server = Server::start().await;
    let (client, mut peer) = bot(&server).await;
    let mut first = client.events();
    server.api.write([sec(101), sec(102)]);
    server.api.write_in(channel(2), [sec(103)]);
    peer.say_at(at(104), resync(None)).await;
    assert_eq!(up_to(&mut first, sec(101)).await, [sec(101)]);
    let mut second = client.events();
    assert!(soon(first.next()).await.is_none());
    assert_eq!(resynced(&mut second).await.0, [sec(102), sec(103)]);
    drop((first, second));
    // Nobody listens, and what happens is not missed.
    peer.say_at(at(300), say(channel(1), sec(300))).await;
    let sending = tokio::spawn(std::future::IntoFuture::into_future(client.send(channel(1), "all is heard")));
    let send = peer.hear_message().await;
    peer.acknowledge(&send, 1).await;
    soon(sending).await.unwrap().unwrap();
    server.api.write([sec(150), sec(300)]);
    let mut third = client.events();
    peer.say_at(at(300) + 1, resync(None)).await;
    assert_eq!(resynced(&mut third).await.0, [sec(300)]);
}

#[tokio::test]
async fn a_quiet_session_s_place_does_not_grow_old() {
    let server = Server::start().await;
    let (client, mut peer) = tokio::join!(server.builder().connect("token"), async {
        let (mut peer, _) = server.identified(20).await;
        peer.ready_with(at(100), vec![]).await;
        peer
    });
    let client = client.unwrap();
    let mut events = client.events();
    assert!(matches!(soon(events.next()).await, Some(Ok(Event::Ready(_)))));
    let before = events.resume_point();
    peer.hear().await;
    peer.say_at(at(200), ServerFrame::HeartbeatAck(())).await;
    peer.hear().await;
    peer.say_at(at(201), ServerFrame::HeartbeatAck(())).await;
    peer.hear().await;
    let point = events.resume_point();
    assert_ne!(point, before);
    drop((client, events, peer));
    let again = server.builder().resume(point.unwrap()).connect("token");
    let (_, (mut peer, resume)) = tokio::join!(async { soon(again).await.unwrap() }, async {
        let (mut peer, resume) = server.resumes(SLOW).await;
        peer.say_at(at(202), ServerFrame::Resumed(Resumed { replayed: 0 })).await;
        (peer, resume)
    });
    assert_eq!(resume.after, Position(at(201) - 5_000_000));
    assert!(peer.try_hear().await.is_none());
}

#[tokio::test]
async fn what_is_told_again_says_nothing_of_what_is_not() {
    let server = Server::start().await;
    let (client, mut peer) = bot(&server).await;
    let mut events = client.events();
    peer.say_at(at(102), say(channel(1), sec(102))).await;
    up_to(&mut events, sec(102)).await;
    drop(peer);
    // Much was missed. Of the one guild all is told again, up to now; the other one is to be read.
    server.api.write([sec(102), sec(110), sec(399)]);
    let (mut peer, _) = server.resumes(SLOW).await;
    for seconds in [300, 350, 400] {
        peer.say_at(at(seconds), say(channel(3), sec(seconds))).await;
    }
    let topics = vec![Topic::Guild(guild(1).guild_id)];
    peer.say_at(at(401), resync(Some(topics))).await;
    peer.say_at(at(401), ServerFrame::Resumed(Resumed { replayed: 3 })).await;
    let (told, resynced) = resynced(&mut events).await;
    assert_eq!((told, resynced.missing), ([300, 350, 400, 110, 399].map(sec).to_vec(), vec![]));
    assert_eq!(soon(events.next()).await.unwrap().unwrap(), Event::Resumed);
}

//! The harness itself: it turns red where a push is lost, comes twice, or a log has forgotten what it holds.

use std::time::Duration;

use jiscord_chaos::{
    record::{Counts, Record},
    stage::{Shape, Stage},
};
use jiscord_e2e::has_database;
use rand::{SeedableRng, rngs::StdRng};

async fn stage(shape: Shape) -> Stage {
    let mut stage = Stage::set(shape, StdRng::seed_from_u64(1), None, false).await;
    // What is lost on purpose never comes.
    stage.patience = Duration::from_secs(15);
    stage
}

/// The end of a run, and only these kinds of defects in it.
fn only(record: &Record, is_planted: impl Fn(&Counts) -> usize) {
    let counts = record.check();
    assert!(is_planted(&counts) > 0, "it was not found: {counts}");
    assert_eq!(counts.defects(), is_planted(&counts), "{counts}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_push_is_an_unnoticed_gap() {
    let mut stage = stage(Shape::One).await;
    stage.traps.pushes.lose.set();
    assert!(stage.more_acknowledged(20).await);
    assert!(!stage.traps.pushes.lose.is_set());
    assert!(stage.is_well().await);
    only(&stage.end().await, |counts| counts.gaps);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_comes_twice_is_seen_twice() {
    let mut stage = stage(Shape::One).await;
    stage.traps.pushes.repeat.set();
    assert!(stage.more_acknowledged(20).await);
    assert!(!stage.traps.pushes.repeat.is_set());
    assert!(stage.is_well().await);
    // Its place comes twice as well, where it has one.
    only(&stage.end().await, |counts| if counts.seen_twice > 0 { counts.seen_twice + counts.disorder } else { 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_forgot_without_a_new_epoch_is_an_unnoticed_gap() {
    if !has_database("a_log_that_forgot_without_a_new_epoch_is_an_unnoticed_gap") {
        return;
    }
    let mut stage = stage(Shape::Services).await;
    // Nobody is there while messages are stored and published.
    for wire in &mut stage.wires {
        wire.cut();
    }
    // Those on HTTP go on.
    assert!(stage.more_acknowledged(20).await);
    let mut redis = stage.server.beneath().redis();
    // What happened, and where; but not that it was published, or a relay would publish it again. As one thing, or whoever
    // publishes in between opens the log anew.
    let forget = "for _, key in ipairs(redis.call('KEYS', 'log:*')) do redis.call('DEL', key) end redis.call('DEL', 'active')";
    let () = redis::cmd("EVAL").arg(forget).arg(0).query(&mut redis).unwrap();
    for wire in &mut stage.wires {
        wire.mend().await;
    }
    // Some may even miss what is said next.
    stage.is_well().await;
    let counts = stage.end().await.check();
    assert!(counts.gaps > 0, "{counts}");
}

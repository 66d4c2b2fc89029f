//! One session a device: who holds the place of a user's device, wherever the gateways are.
//!
//! A claim gets a fence, which is larger than that of the claim before it. The larger fence lives; only of one client's attempts
//! it is the last, as the client counts them. Whoever held the place before is told so by [`Claimed::evicted`], by
//! [`Heard::Evict`](crate::bus::Heard::Evict) or, at the latest, by [`Claims::refresh`].

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiscord_core::{
    SessionId, UserId,
    fault::Result,
    frame::Attempt,
    text::Device,
    time::{Clock, SystemClock},
};
use tokio::time::Instant;

/// The session that is to have the one place of its user's device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The user.
    pub user: UserId,
    /// The device; `None` is the nameless one.
    pub device: Option<Device>,
    /// The session.
    pub session: SessionId,
    /// Which attempt of its client. Where that does not say, it is a client of its own each time.
    pub attempt: Attempt,
}

/// A session's claim to its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose.
    pub holder: Holder,
    /// What [`Claims::claim`] gave it.
    pub fence: u64,
    /// How long the client has been silent.
    pub silent: Duration,
}

/// A place was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Claimed {
    /// Larger than that of every claim to the same device before.
    pub fence: u64,
    /// Whose sessions are over now; the first is the claimed device's own entry. Other instances hear the same over the bus.
    pub evicted: Vec<Eviction>,
}

/// Sessions of a device that were there before are over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// The device; `None` is the nameless one.
    pub device: Option<Device>,
    /// The session that has this fence, or a larger one, lives.
    pub fence: u64,
    /// The attempt of a client that has the place now. Its other attempts are in the order of their numbers, whatever their fences
    /// are: a Redis that forgot its claims may give an old attempt a large one.
    pub attempt: Option<Attempt>,
}

impl Eviction {
    /// Whether it ends the session of an attempt that has this fence.
    pub fn ends(&self, fence: u64, attempt: Attempt) -> bool {
        match self.attempt {
            Some(by) if by.client == attempt.client && by.number != attempt.number => attempt.is_before(by),
            _ => fence < self.fence,
        }
    }
}

/// Keeps the places of all users' devices.
#[async_trait]
pub trait Claims: Send + Sync {
    /// Claims the place of a user's device for a session of this instance. One device too many evicts the longest silent one.
    /// A session that `resumes` gets a new fence, wherever it was before.
    ///
    /// None, and nothing changes, if another session has the place of the one that resumes, or a later attempt of the same client
    /// has it: a claim may be made long after its client gave it up.
    ///
    /// Two claims that run at once may return in either order: a session that finds a larger fence than its own in its place
    /// is the one that is over.
    async fn claim(&self, holder: &Holder, resumes: bool) -> Result<Option<Claimed>>;

    /// Gives a place back. Nothing happens if a later claim has it.
    async fn release(&self, user: UserId, device: Option<&Device>, fence: u64) -> Result<()>;

    /// Says that these sessions of this instance are still there, once in each heartbeat period, and claims again, with their
    /// own fences, those places that were forgotten. Returns the indices of those that are over.
    async fn refresh(&self, own: &[Claim]) -> Result<Vec<usize>>;
}

/// The claims of a single process.
pub struct LocalClaims {
    most: usize,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// The largest fence so far.
    fence: u64,
    users: HashMap<UserId, HashMap<Option<Device>, Place>>,
}

struct Place {
    session: SessionId,
    attempt: Attempt,
    fence: u64,
    heard: Instant,
}

impl LocalClaims {
    /// No claims yet. `most` is how many devices of a user may have a session at a time.
    pub fn new(most: usize) -> Self {
        Self { most, places: Mutex::default() }
    }
}

#[async_trait]
impl Claims for LocalClaims {
    async fn claim(&self, holder: &Holder, resumes: bool) -> Result<Option<Claimed>> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Holder { user, device, session, attempt } = holder.clone();
        let there = places.users.get(&user).and_then(|devices| devices.get(&device));
        if there.is_some_and(|place| attempt.is_before(place.attempt) || resumes && place.session != session) {
            return Ok(None);
        }
        let fence = SystemClock.now_micros().max(places.fence + 1);
        places.fence = fence;
        let devices = places.users.entry(user).or_default();
        devices.insert(device.clone(), Place { session, attempt, fence, heard: Instant::now() });
        let mut evicted = vec![Eviction { device, fence, attempt: Some(attempt) }];
        while devices.len() > self.most.max(1) {
            let others = devices.iter().filter(|(_, place)| place.fence != fence);
            let Some(silent) = others.min_by_key(|(_, place)| (place.heard, place.fence)).map(|(device, _)| device.clone())
            else {
                break;
            };
            if let Some(place) = devices.remove(&silent) {
                evicted.push(Eviction { device: silent, fence: place.fence + 1, attempt: None });
            }
        }
        Ok(Some(Claimed { fence, evicted }))
    }

    async fn release(&self, user: UserId, device: Option<&Device>, fence: u64) -> Result<()> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(devices) = places.users.get_mut(&user) {
            devices.retain(|name, place| name.as_ref() != device || place.fence != fence);
            if devices.is_empty() {
                places.users.remove(&user);
            }
        }
        Ok(())
    }

    async fn refresh(&self, own: &[Claim]) -> Result<Vec<usize>> {
        let now = Instant::now();
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = Vec::new();
        for (index, claim) in own.iter().enumerate() {
            // In one process nothing is forgotten: what is not there was evicted or released.
            let place = places.users.get_mut(&claim.holder.user).and_then(|devices| devices.get_mut(&claim.holder.device));
            match place.filter(|place| place.fence == claim.fence) {
                Some(place) => place.heard = now.checked_sub(claim.silent).unwrap_or(now),
                None => lost.push(index),
            }
        }
        Ok(lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> UserId {
        "0f8fad5b-d9cb-469f-a165-70867728950e".parse().unwrap()
    }

    fn session() -> SessionId {
        "7c9e6679-7425-40de-944b-e07fc1f90ae7".parse().unwrap()
    }

    fn holder(device: Option<&Device>) -> Holder {
        Holder { user: user(), device: device.cloned(), session: session(), attempt: Attempt { client: 0, number: 0 } }
    }

    fn own(device: Option<&Device>, fence: u64, silent: u64) -> Claim {
        Claim { holder: holder(device), fence, silent: Duration::from_secs(silent) }
    }

    /// I16, I17.
    #[tokio::test]
    async fn the_later_claim_lives_and_a_late_release_changes_nothing() {
        let claims = LocalClaims::new(8);
        let first = claims.claim(&holder(None), false).await.unwrap().unwrap();
        let second = claims.claim(&holder(None), false).await.unwrap().unwrap();
        assert!(second.fence > first.fence);
        assert_eq!(second.evicted, [Eviction { device: None, fence: second.fence, attempt: Some(holder(None).attempt) }]);
        claims.release(user(), None, first.fence).await.unwrap();
        let own = [own(None, first.fence, 0), own(None, second.fence, 0)];
        assert_eq!(claims.refresh(&own).await.unwrap(), [0]);
        claims.release(user(), None, second.fence).await.unwrap();
        assert_eq!(claims.refresh(&own).await.unwrap(), [0, 1]);
    }

    #[tokio::test]
    async fn a_session_resumes_unless_another_one_has_its_place() {
        let claims = LocalClaims::new(8);
        let other: SessionId = "0e984725-c51c-4bf4-9960-e1c80e27aba0".parse().unwrap();
        let resume = async |session| claims.claim(&Holder { session, ..holder(None) }, true).await.unwrap();
        let first = resume(session()).await.expect("nobody has the place");
        let again = resume(session()).await.expect("it is its own");
        assert!(again.fence > first.fence);
        let over = Eviction { device: None, fence: again.fence, attempt: Some(holder(None).attempt) };
        assert_eq!(again.evicted, [over], "its socket of before is over");
        assert_eq!(resume(other).await, None);
        claims.claim(&Holder { session: other, ..holder(None) }, false).await.unwrap().unwrap();
        assert_eq!(resume(session()).await, None);
    }

    #[test]
    fn attempts_of_one_client_are_in_order_and_others_by_fence() {
        let over = Eviction { device: None, fence: 10, attempt: Some(Attempt { client: 1, number: 5 }) };
        for (fence, client, number, ends) in [
            (9, 1, 4, true),
            (99, 1, 4, true),
            (9, 1, 6, false),
            (9, 1, 5, true),
            (10, 1, 5, false),
            (9, 2, 6, true),
            (11, 2, 4, false),
        ] {
            assert_eq!(over.ends(fence, Attempt { client, number }), ends, "{fence} {client} {number}");
        }
        assert!(Eviction { attempt: None, ..over.clone() }.ends(9, Attempt { client: 1, number: 6 }));
    }

    #[tokio::test]
    async fn an_attempt_that_was_given_up_takes_no_place() {
        let claims = LocalClaims::new(8);
        let attempt = |client, number| Holder { attempt: Attempt { client, number }, ..holder(None) };
        for resumes in [true, false] {
            let later = claims.claim(&attempt(1, 2), resumes).await.unwrap().expect("nobody has the place");
            assert_eq!(claims.claim(&attempt(1, 1), resumes).await.unwrap(), None);
            let kept = [Claim { fence: later.fence, ..own(None, 0, 0) }];
            assert!(claims.refresh(&kept).await.unwrap().is_empty());
            // The same one again, another client's, and one that came after that.
            for next in [attempt(1, 2), attempt(2, 0), attempt(1, 1)] {
                assert!(claims.claim(&next, resumes).await.unwrap().is_some());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_device_too_many_evicts_the_longest_silent() {
        tokio::time::advance(Duration::from_secs(60)).await;
        let claims = LocalClaims::new(2);
        let [phone, laptop, tablet] = ["phone", "laptop", "tablet"].map(|name| Device::new(name).unwrap());
        let first = claims.claim(&holder(Some(&phone)), false).await.unwrap().unwrap();
        let second = claims.claim(&holder(Some(&laptop)), false).await.unwrap().unwrap();
        claims.refresh(&[own(Some(&phone), first.fence, 1), own(Some(&laptop), second.fence, 9)]).await.unwrap();
        let third = claims.claim(&holder(Some(&tablet)), false).await.unwrap().unwrap();
        assert_eq!(third.evicted[1..], [Eviction { device: Some(laptop.clone()), fence: second.fence + 1, attempt: None }]);
        assert_eq!(claims.refresh(&[own(Some(&laptop), second.fence, 0)]).await.unwrap(), [0]);
    }
}

//! How often the password of one account may be guessed.
//!
//! Failed log-ins are counted by the address that was tried, whether or not there is such an account: in each network that
//! tries it, and in all together. The second bound does not hold in a network where the account's owner has logged in before,
//! so that nobody can lock the owner out from elsewhere.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiscord_core::{Code, Fault, fault::Result, text::Email};
use tokio::time::Instant;

use crate::limits::Limits;

/// For how long a failure counts, at most.
const WINDOW: Duration = Duration::from_secs(60 * 60);

/// The failures of all accounts.
///
/// As in a [`Limiter`](crate::limits::Limiter), keys are hashed into tables of a fixed size, which bounds the memory.
pub(crate) struct Guesses {
    hasher: RandomState,
    places: u64,
    most: u32,
    most_in_network: u32,
    tallies: Mutex<Tallies>,
}

#[derive(Default)]
struct Tallies {
    accounts: HashMap<u64, Tally>,
    /// By account and network.
    networks: HashMap<u64, Tally>,
}

struct Tally {
    since: Instant,
    failed: u32,
    /// Those whose end is not known count as well, or many at once would get past.
    under_way: u32,
    /// The key that has succeeded here.
    succeeded: Option<u64>,
}

/// A log-in under way. Dropped, it counts for nothing: whoever did not wait for the answer has learned nothing.
pub(crate) struct Guess {
    guesses: Arc<Guesses>,
    account: u64,
    network: Option<u64>,
}

impl Guesses {
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            hasher: RandomState::new(),
            places: u64::from(limits.rate_keys.max(1)),
            most: limits.failed_logins,
            most_in_network: limits.failed_logins_in_network,
            tallies: Mutex::default(),
        })
    }

    /// Begins a log-in; [`Code::RATE_LIMITED`] if too many have failed.
    pub(crate) fn begin(self: &Arc<Self>, email: &Email, from: Option<IpAddr>) -> Result<Guess> {
        let account = self.hasher.hash_one(email.as_str());
        let network = from.map(|addr| self.hasher.hash_one((email.as_str(), neighbourhood(addr))));
        let admitted: Result<()> = self.with(|tallies| {
            let now = Instant::now();
            let mut known = false;
            if let Some(key) = network {
                let tally = tallies.networks.entry(key % self.places).or_insert_with(|| Tally::new(now));
                tally.admits(self.most_in_network, now)?;
                known = tally.succeeded == Some(key);
            }
            let tally = tallies.accounts.entry(account % self.places).or_insert_with(|| Tally::new(now));
            let admitted = tally.admits(self.most, now);
            if !known {
                admitted?;
            }
            tallies.of(self.places, account, network).for_each(|tally| tally.under_way += 1);
            Ok(())
        });
        admitted?;
        Ok(Guess { guesses: self.clone(), account, network })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Tallies) -> T) -> T {
        act(&mut self.tallies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tallies {
    fn of(&mut self, places: u64, account: u64, network: Option<u64>) -> impl Iterator<Item = &mut Tally> {
        let network = network.and_then(|key| self.networks.get_mut(&(key % places)));
        self.accounts.get_mut(&(account % places)).into_iter().chain(network)
    }
}

impl Tally {
    fn new(now: Instant) -> Self {
        Self { since: now, failed: 0, under_way: 0, succeeded: None }
    }

    fn admits(&mut self, most: u32, now: Instant) -> Result<()> {
        let end = self.since + WINDOW;
        if end <= now {
            (self.since, self.failed) = (now, 0);
        }
        let wait = match () {
            () if self.failed >= most => end - now,
            () if self.failed.saturating_add(self.under_way) >= most => Duration::from_secs(1),
            () => return Ok(()),
        };
        Err(Fault::new(Code::RATE_LIMITED, "too many failed log-ins; wait a while").retry_after(wait))
    }
}

impl Guess {
    /// The password was wrong, or nobody has this address.
    pub(crate) fn failed(self) {
        self.end(|tally| tally.failed = tally.failed.saturating_add(1));
    }

    /// The password was right.
    pub(crate) fn succeeded(self) {
        let Some(key) = self.network else { return };
        self.guesses.with(|tallies| {
            if let Some(tally) = tallies.networks.get_mut(&(key % self.guesses.places)) {
                tally.succeeded = Some(key);
            }
        });
    }

    fn end(&self, act: impl Fn(&mut Tally)) {
        self.guesses.with(|tallies| tallies.of(self.guesses.places, self.account, self.network).for_each(act));
    }
}

impl Drop for Guess {
    fn drop(&mut self) {
        self.end(|tally| tally.under_way = tally.under_way.saturating_sub(1));
    }
}

/// The network of an address that its neighbours are likely to be in, too: 24 bits of IPv4, 48 of IPv6.
fn neighbourhood(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 48)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn email(name: &str) -> Email {
        Email::new(&format!("{name}@example.com")).unwrap()
    }

    fn guesses(most: u32, most_in_network: u32, places: u32) -> Arc<Guesses> {
        let limits =
            Limits { failed_logins: most, failed_logins_in_network: most_in_network, rate_keys: places, ..Limits::default() };
        Guesses::new(&limits)
    }

    fn addr(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_can_be_guessed_so_often_and_no_oftener() {
        let (guesses, ada) = (guesses(100, 10, u32::MAX), email("ada"));
        let guess = |from: &str| guesses.begin(&ada, addr(from));
        // Ten in a network, of whatever hosts.
        for host in 0..10 {
            guess(&format!("192.0.2.{host}")).unwrap().failed();
        }
        let refused = guess("192.0.2.77").err().unwrap();
        assert_eq!((refused.code, refused.retry_after), (Code::RATE_LIMITED, Some(WINDOW)));
        guess("::ffff:192.0.2.77").err().unwrap();
        guesses.begin(&email("bea"), addr("192.0.2.77")).unwrap().failed();
        // A hundred in all, of whatever networks.
        for net in 0..90 {
            guess(&format!("2001:db8:{net}:1::1")).unwrap().failed();
        }
        guess("2001:db8:100::1").err().unwrap();
        guesses.begin(&ada, None).err().unwrap();
        tokio::time::advance(WINDOW).await;
        guess("192.0.2.77").unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn many_at_once_count_before_they_have_failed() {
        let (guesses, ada) = (guesses(100, 10, u32::MAX), email("ada"));
        let guess = || guesses.begin(&ada, addr("192.0.2.1"));
        let at_once: Vec<_> = (0..10).map(|_| guess().unwrap()).collect();
        assert_eq!(guess().err().unwrap().retry_after, Some(Duration::from_secs(1)));
        // They were right, or nobody waited for their answer.
        for (n, under_way) in at_once.into_iter().enumerate() {
            if n % 2 == 0 {
                under_way.succeeded();
            }
        }
        for _ in 0..1_000 {
            guess().unwrap().succeeded();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_locks_the_owner_out_from_elsewhere() {
        let (guesses, ada) = (guesses(100, 10, u32::MAX), email("ada"));
        let guess = |from: &str| guesses.begin(&ada, addr(from));
        guess("192.0.2.1").unwrap().succeeded();
        for net in 0..100 {
            guess(&format!("2001:db8:{net}::1")).unwrap().failed();
        }
        guess("198.51.100.1").err().unwrap();
        // Where she has been before she still has her ten, and no more.
        for _ in 0..10 {
            guess("192.0.2.2").unwrap().failed();
        }
        guess("192.0.2.1").err().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_whatever_is_tried() {
        let guesses = guesses(1_000_000, 1_000_000, 100);
        for n in 0..100_000_u32 {
            guesses.begin(&email(&format!("a{n}")), Some(IpAddr::V4(n.into()))).unwrap().failed();
        }
        guesses.with(|tallies| assert!(tallies.accounts.len() <= 100 && tallies.networks.len() <= 100));
    }

    #[test]
    fn neighbours_are_in_one_network() {
        for (a, b, same) in [
            ("192.0.2.1", "192.0.2.255", true),
            ("192.0.2.1", "192.0.3.1", false),
            ("192.0.2.1", "::ffff:192.0.2.9", true),
            ("2001:db8:1:2::1", "2001:db8:1:ffff::9", true),
            ("2001:db8:1::1", "2001:db8:2::1", false),
        ] {
            assert_eq!(neighbourhood(a.parse().unwrap()) == neighbourhood(b.parse().unwrap()), same, "{a} {b}");
        }
    }
}

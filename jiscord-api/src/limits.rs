//! The numbers that bound what callers may do, and the rate limiters.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    time::Duration,
};

use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use jiscord_core::{Code, Fault, fault::Result};

/// So many a second, and so many at once after a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How many a second in the long run.
    pub per_second: NonZeroU32,
    /// How many at once.
    pub burst: NonZeroU32,
}

impl Rate {
    /// Both; 0 is taken for 1.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let at_least_one = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        Self { per_second: at_least_one(per_second), burst: at_least_one(burst) }
    }
}

/// All numbers that bound a caller. The defaults are the protocol's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// An HTTP body in bytes; 413 above it.
    pub body: usize,
    /// How long a body may take to arrive; 408 after it.
    pub body_time: Duration,
    /// Requests of one caller: a user, else an address.
    pub caller: Rate,
    /// Register and login from one address.
    pub login: Rate,
    /// Log-ins of one account that may fail in an hour, counted over all networks but those where its owner has logged in before.
    pub failed_logins: u32,
    /// The same from one network: 24 bits of IPv4, 48 of IPv6.
    pub failed_logins_in_network: u32,
    /// How many callers a rate limiter tells apart.
    pub rate_keys: u32,
    /// Guilds that a user can be in. Calls that run at once may pass it by a few.
    pub guilds_of_user: usize,
    /// Channels that a guild can have. Calls that run at once may pass it by a few.
    pub channels_of_guild: usize,
    /// Messages in a page that asks for no number.
    pub page: usize,
    /// Messages in a page at most; who asks for more gets these.
    pub page_max: usize,
    /// Guilds in a page at most, and in one that asks for no number; who asks for more gets these.
    pub guild_page_max: usize,
    /// argon2 jobs at once.
    pub password_jobs: usize,
    /// argon2 jobs that wait; 503 above it.
    pub password_queue: usize,
    /// No answer to register comes sooner after its request, so that its time says nothing about the address.
    pub register_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 256 * 1024,
            body_time: Duration::from_secs(30),
            caller: Rate::new(50, 200),
            login: Rate::new(5, 50),
            failed_logins: 100,
            failed_logins_in_network: 10,
            rate_keys: 1 << 17,
            guilds_of_user: 200,
            channels_of_guild: 500,
            page: 50,
            page_max: 100,
            guild_page_max: 200,
            password_jobs: std::thread::available_parallelism().map_or(1, usize::from),
            password_queue: 64,
            register_time: Duration::from_millis(100),
        }
    }
}

/// One rate for each of many callers.
///
/// Callers are told apart by a keyed hash into a table of fixed size: memory is bounded whatever keys come, no sweeping is
/// needed, and who floods it with new keys takes a little from everybody instead of shutting anybody out.
pub(crate) struct Limiter {
    rates: DefaultKeyedRateLimiter<u32>,
    clock: DefaultClock,
    hasher: RandomState,
    places: u32,
}

impl Limiter {
    pub(crate) fn new(rate: Rate, places: u32) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            rates: DefaultKeyedRateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            hasher: RandomState::new(),
            places: places.max(1),
        }
    }

    /// Counts one call of this caller; [`Code::RATE_LIMITED`] if it is one too many.
    pub(crate) fn count(&self, caller: impl Hash) -> Result<()> {
        let place = (self.hasher.hash_one(caller) % u64::from(self.places)) as u32;
        self.rates.check_key(&place).map_err(|until| {
            Fault::new(Code::RATE_LIMITED, "too many requests; wait a little").retry_after(until.wait_time_from(self.clock.now()))
        })
    }
}

/// What stands for an address in rate limits: an IPv6 network of 64 bits is one caller, since its holder has all of it.
pub(crate) fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_next_one_is_told_when_to_come_back() {
        let limiter = Limiter::new(Rate::new(1, 3), 1 << 10);
        for _ in 0..3 {
            limiter.count("ada").unwrap();
        }
        let fault = limiter.count("ada").unwrap_err();
        assert_eq!(fault.code, Code::RATE_LIMITED);
        assert!(fault.retry_after.unwrap() > Duration::ZERO);
    }

    #[test]
    fn memory_is_bounded_whatever_keys_come() {
        let limiter = Limiter::new(Rate::new(1, 1), 100);
        for address in 0..1_000_000u32 {
            let _ = limiter.count(address);
        }
        assert!(limiter.rates.len() <= 100, "{}", limiter.rates.len());
    }

    #[test]
    fn one_network_is_one_caller() {
        for (a, b, same) in [
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
        ] {
            assert_eq!(network(a.parse().unwrap()) == network(b.parse().unwrap()), same, "{a} {b}");
        }
    }
}

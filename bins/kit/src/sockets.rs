//! How many sockets are open, in all and by address.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Counts open sockets and says when it is enough.
#[derive(Debug)]
pub(crate) struct Sockets {
    total: usize,
    per_address: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    seats: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why there is no seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The server has as many as it takes.
    Server,
    /// This address has.
    Address,
}

impl Sockets {
    pub(crate) fn new(total: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { total, per_address, open: Mutex::default() })
    }

    /// Takes a seat for one socket; `None` counts it for the server only.
    pub(crate) fn take(self: &Arc<Self>, address: Option<IpAddr>) -> Result<Seat, Full> {
        let address = address.map(network);
        let mut open = self.open();
        if open.seats >= self.total {
            return Err(Full::Server);
        }
        if let Some(address) = address {
            let count = open.by_address.entry(address).or_default();
            if *count >= self.per_address {
                return Err(Full::Address);
            }
            *count += 1;
        }
        open.seats += 1;
        Ok(Seat { sockets: self.clone(), address, counted: true })
    }

    /// Counts an open socket for an address as well, since its client became known only now.
    pub(crate) fn name(self: &Arc<Self>, address: IpAddr) -> Result<Seat, Full> {
        let address = network(address);
        let mut open = self.open();
        let count = open.by_address.entry(address).or_default();
        if *count >= self.per_address {
            return Err(Full::Address);
        }
        *count += 1;
        Ok(Seat { sockets: self.clone(), address: Some(address), counted: false })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket's place; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    sockets: Arc<Sockets>,
    address: Option<IpAddr>,
    counted: bool,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.sockets.open();
        open.seats -= usize::from(self.counted);
        let Some(address) = self.address else { return };
        if let Some(count) = open.by_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&address);
            }
        }
    }
}

/// One customer usually has a whole /64 of IPv6 addresses, so that is counted as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn seats_are_counted_in_all_and_by_address() {
        let sockets = Sockets::new(5, 2);
        let a = [sockets.take(ip("192.0.2.1")).unwrap(), sockets.take(ip("::ffff:192.0.2.1")).unwrap()];
        assert_eq!(sockets.take(ip("192.0.2.1")).unwrap_err(), Full::Address);
        let _b = [sockets.take(ip("2001:db8::1")).unwrap(), sockets.take(ip("2001:db8::2")).unwrap()];
        assert_eq!(sockets.take(ip("2001:db8::3")).unwrap_err(), Full::Address);
        let c = sockets.take(ip("2001:db8:0:1::1")).unwrap();
        assert_eq!(sockets.take(ip("192.0.2.9")).unwrap_err(), Full::Server);
        drop(a);
        drop(c);
        let _a = sockets.take(ip("192.0.2.1")).unwrap();
        assert_eq!(sockets.open().by_address.len(), 2, "nothing is kept of who has left");
    }

    #[test]
    fn a_proxys_socket_counts_for_its_client_too() {
        let sockets = Sockets::new(9, 1);
        let first = (sockets.take(None).unwrap(), sockets.name(ip("192.0.2.1").unwrap()).unwrap());
        let _second = sockets.take(None).unwrap();
        assert_eq!(sockets.name(ip("192.0.2.1").unwrap()).unwrap_err(), Full::Address);
        drop(first);
        assert_eq!(sockets.open().seats, 1);
        assert!(sockets.name(ip("192.0.2.1").unwrap()).is_ok());
    }
}

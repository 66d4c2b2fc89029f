//! Which front proxies are believed about who a client is.

use std::net::IpAddr;

use axum::http::HeaderMap;
use ipnet::IpNet;

/// The networks of the operator's own front proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Addresses and networks with commas between, such as `127.0.0.1, 10.0.0.0/8`; empty: none.
    pub fn parse(text: &str) -> Option<Self> {
        let nets = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        nets.map(|part| part.parse().ok().or_else(|| part.parse::<IpAddr>().ok().map(IpNet::from)))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// Whether what this address says in `X-Forwarded-For` is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&address.to_canonical()))
    }

    /// Who is behind a request: the peer itself, or where that is a trusted proxy, the right-most hop that is none. Hops
    /// further left were written by whoever sits there, so nothing to the left of an untrusted or unreadable one is read.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all("x-forwarded-for").into_iter().rev();
        for hop in lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(',')) {
            if !self.trusts(client) {
                break;
            }
            match address(hop.trim()) {
                Some(hop) => client = hop.to_canonical(),
                None => break,
            }
        }
        client
    }
}

/// A hop as proxies write it: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:80`.
fn address(hop: &str) -> Option<IpAddr> {
    let plain = hop.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(hop);
    plain.parse().ok().or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|both| both.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_most_untrusted_hop_is_the_client() {
        let proxies = Proxies::parse("127.0.0.1, 10.0.0.0/8,2001:db8::/32").unwrap();
        for (peer, lines, want) in [
            // Nobody in front.
            ("203.0.113.7", &[][..], "203.0.113.7"),
            // A stranger's header changes nothing.
            ("203.0.113.7", &["198.51.100.1"], "203.0.113.7"),
            ("203.0.113.7", &["127.0.0.1"], "203.0.113.7"),
            // One proxy, two, three lines of header.
            ("127.0.0.1", &["203.0.113.7"], "203.0.113.7"),
            ("127.0.0.1", &["203.0.113.7, 10.1.2.3"], "203.0.113.7"),
            ("127.0.0.1", &["203.0.113.7", "10.9.9.9, 10.1.2.3"], "203.0.113.7"),
            // What the client wrote itself stands further left and is not read.
            ("127.0.0.1", &["1.1.1.1, 127.0.0.1, 203.0.113.7"], "203.0.113.7"),
            ("127.0.0.1", &["1.1.1.1", "203.0.113.7, 10.1.2.3"], "203.0.113.7"),
            // Proxies alone: the left-most of them asked.
            ("127.0.0.1", &["10.0.0.1, 10.0.0.2"], "10.0.0.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            // Not readable: the last one who could be read.
            ("127.0.0.1", &["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", &["203.0.113.7, "], "127.0.0.1"),
            ("127.0.0.1", &["\u{e9}"], "127.0.0.1"),
            // Other ways to write it.
            ("127.0.0.1", &["203.0.113.7:4711"], "203.0.113.7"),
            ("127.0.0.1", &["[2001:db9::7]:4711"], "2001:db9::7"),
            ("127.0.0.1", &["[2001:db9::7]"], "2001:db9::7"),
            ("2001:db8::1", &["2001:db9::7"], "2001:db9::7"),
            ("::ffff:127.0.0.1", &["::ffff:203.0.113.7"], "203.0.113.7"),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", axum::http::HeaderValue::from_bytes(line.as_bytes()).unwrap());
            }
            let got = proxies.client(peer.parse().unwrap(), &headers);
            assert_eq!(got, want.parse::<IpAddr>().unwrap(), "{peer} {lines:?}");
        }
    }

    #[test]
    fn without_proxies_nobody_is_believed() {
        let headers = HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), "203.0.113.7".parse().unwrap())]);
        let peer = "127.0.0.1".parse().unwrap();
        assert_eq!(Proxies::parse("").unwrap().client(peer, &headers), peer);
        for bad in ["localhost", "10.0.0.0/33", "10.0.0.0/8 10.1.0.0/16", "*"] {
            assert_eq!(Proxies::parse(bad), None, "{bad}");
        }
    }
}

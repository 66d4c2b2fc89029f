//! Where a server is.

use crate::{
    error::{Error, Result},
    sys::Url,
};

/// The addresses of a server's three parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    pub(crate) auth: Url,
    pub(crate) data: Url,
    pub(crate) gateway: Url,
}

impl Endpoints {
    /// A server that has everything at one address, such as `http://localhost:3000`: `/api/auth`, `/api/data` and `/ws` under it.
    pub fn at(base: &str) -> Result<Self> {
        let base = parse(base)?;
        Ok(Self { auth: under(&base, "/api/auth"), data: under(&base, "/api/data"), gateway: under(&base, "/ws") })
    }

    /// Three services, each at its own address: `http://localhost:3003`, `http://localhost:3001`, `ws://localhost:3002`.
    pub fn services(auth: &str, data: &str, gateway: &str) -> Result<Self> {
        Ok(Self { auth: parse(auth)?, data: parse(data)?, gateway: parse(gateway)? })
    }
}

/// `base` with more path behind its own.
pub(crate) fn under(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}{path}", base.path().trim_end_matches('/')));
    url
}

fn parse(text: &str) -> Result<Url> {
    // An address is not repeated in the error where it could hold a password.
    let bad = |why: &str| Error::Address(format!("{why}; one such as http://localhost:3000 is wanted"));
    let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
    let scheme = match url.scheme() {
        "http" | "ws" => "http",
        "https" | "wss" => "https",
        other => return Err(bad(&format!("{other:?} is no scheme of a server's"))),
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(bad("an address has no credentials, query or fragment"));
    }
    let rest = url.as_str().split_once(':').map_or("", |(_, rest)| rest);
    // `set_scheme` does not go between ws and http in all versions of the standard; the text does.
    Url::parse(&format!("{scheme}:{rest}")).map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_three_parts() {
        for base in ["http://localhost:3000", "http://localhost:3000/", "ws://localhost:3000"] {
            let at = Endpoints::at(base).unwrap();
            assert_eq!(at.auth.as_str(), "http://localhost:3000/api/auth");
            assert_eq!(at.data.as_str(), "http://localhost:3000/api/data");
            assert_eq!(at.gateway.as_str(), "http://localhost:3000/ws");
        }
        assert_eq!(Endpoints::at("https://chat.example/jiscord/").unwrap().gateway.as_str(), "https://chat.example/jiscord/ws");
    }

    #[test]
    fn services_have_their_own_addresses() {
        let at = Endpoints::services("http://a:3003", "http://d:3001", "wss://g").unwrap();
        assert_eq!((at.auth.as_str(), at.data.as_str(), at.gateway.as_str()), ("http://a:3003/", "http://d:3001/", "https://g/"));
        assert_eq!(under(&at.data, "/guilds").as_str(), "http://d:3001/guilds");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "localhost", "localhost:3000", "ftp://localhost", "http://me:secret@localhost", "http://localhost/?a=b"] {
            let error = Endpoints::at(bad).unwrap_err();
            assert!(matches!(error, Error::Address(_)), "{bad:?}");
            assert!(!error.to_string().contains("secret"));
        }
    }
}

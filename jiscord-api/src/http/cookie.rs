//! The cookie in which a browser keeps a refresh token. Only `/refresh` and `/logout` read it.

use axum::{
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE},
    },
    response::AppendHeaders,
};
use jiscord_core::{Code, Fault, fault::Result, http::is_own_origin};
use jiscord_store::repository::LOGIN_KEPT;

use super::{Settings, is_json, single, unsupported_media_type};

/// Over https browsers hold a cookie of this name to what it says: from this host, for all of it, and never without TLS.
const SECURE: &str = "__Host-jiscord_refresh";
const PLAIN: &str = "jiscord_refresh";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The refresh tokens that a browser sent, one of each name.
pub(super) struct Shown<'a> {
    secure: Option<&'a str>,
    plain: Option<&'a str>,
    is_secure: bool,
}

impl<'a> Shown<'a> {
    /// The one to go on with. Over https a plain one counts for nothing: it may be of the time before, or planted by another host
    /// of the same domain.
    pub(super) fn token(&self) -> Option<&'a str> {
        self.secure.or(self.plain.filter(|_| !self.is_secure))
    }

    /// All, for who wants to be logged out.
    pub(super) fn all(&self) -> Vec<&'a str> {
        [self.secure, self.plain].into_iter().flatten().collect()
    }
}

/// What a browser sent. Only a page of ours may let it speak, and no form.
pub(super) fn read<'a>(headers: &'a HeaderMap, settings: &Settings) -> Result<Shown<'a>> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs: Vec<_> = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('=')).collect();
    let named = |wanted| pairs.iter().find(|(name, _)| *name == wanted).map(|(_, token)| *token);
    let shown = Shown { secure: named(SECURE), plain: named(PLAIN), is_secure: is_secure(headers) };
    if shown.all().is_empty() {
        return Ok(shown);
    }
    if !is_from_our_page(headers, settings)? {
        return Err(Fault::new(Code::FORBIDDEN, "only a page of this server may do that"));
    }
    if headers.contains_key(CONTENT_TYPE) && !is_json(headers) {
        return Err(unsupported_media_type());
    }
    Ok(shown)
}

fn is_from_our_page(headers: &HeaderMap, settings: &Settings) -> Result<bool> {
    let host = single(headers, &HOST)?;
    Ok(match headers.get(ORIGIN) {
        Some(origin) => settings.lists_origin(origin) || origin.to_str().is_ok_and(|origin| is_own_origin(origin, host)),
        None => single(headers, &FETCH_SITE)? == Some("same-origin"),
    })
}

/// Whether the page was loaded over https only its `Origin` tells, as TLS may have ended before us. A browser says the truth
/// there, and whoever is no browser keeps the cookie as he likes anyway.
fn is_secure(headers: &HeaderMap) -> bool {
    headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"))
}

/// Gives a browser a token to keep.
pub(super) fn keep(headers: &HeaderMap, token: &str) -> Result<AppendHeaders<Vec<(HeaderName, HeaderValue)>>> {
    let name = if is_secure(headers) { SECURE } else { PLAIN };
    Ok(AppendHeaders(vec![(SET_COOKIE, cookie(name, token, LOGIN_KEPT.as_secs())?)]))
}

/// Takes away what it may have: over https also a plain one, which is of the time before. The other one never comes without TLS.
pub(super) fn forget(headers: &HeaderMap) -> Result<AppendHeaders<Vec<(HeaderName, HeaderValue)>>> {
    let names: &[_] = if is_secure(headers) { &[SECURE, PLAIN] } else { &[PLAIN] };
    let lines = names.iter().map(|name| Ok((SET_COOKIE, cookie(name, "", 0)?)));
    Ok(AppendHeaders(lines.collect::<Result<_>>()?))
}

fn cookie(name: &str, token: &str, seconds: u64) -> Result<HeaderValue> {
    let secure = if name == SECURE { "; Secure" } else { "" };
    let text = format!("{name}={token}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(text).map_err(|error| Fault::new(Code::INTERNAL, "internal error").because(error))
}

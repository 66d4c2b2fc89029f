//! The cookie in which a browser keeps a refresh token. Only `/refresh` and `/logout` read it.

use axum::http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN},
};
use jiscord_core::{Code, Fault, fault::Result, http::is_own_origin};
use jiscord_store::repository::LOGIN_KEPT;

use super::{Settings, is_json, single, unsupported_media_type};

/// Over https browsers hold a cookie of this name to what it says: from this host, for all of it, and never without TLS.
const SECURE: &str = "__Host-jiscord_refresh";
const PLAIN: &str = "jiscord_refresh";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The refresh token that a browser sent. Only a page of ours may let it speak, and no form.
pub(super) fn read<'a>(headers: &'a HeaderMap, settings: &Settings) -> Result<Option<&'a str>> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    // The stricter one counts where there are both.
    let named: Vec<_> = pairs.filter(|(name, _)| *name == SECURE || *name == PLAIN).collect();
    let Some((_, token)) = named.iter().find(|(name, _)| *name == SECURE).or(named.first()) else { return Ok(None) };
    if !is_from_our_page(headers, settings)? {
        return Err(Fault::new(Code::FORBIDDEN, "only a page of this server may do that"));
    }
    if headers.contains_key(CONTENT_TYPE) && !is_json(headers) {
        return Err(unsupported_media_type());
    }
    Ok(Some(token))
}

fn is_from_our_page(headers: &HeaderMap, settings: &Settings) -> Result<bool> {
    let host = single(headers, &HOST)?;
    Ok(match headers.get(ORIGIN) {
        Some(origin) => settings.lists_origin(origin) || origin.to_str().is_ok_and(|origin| is_own_origin(origin, host)),
        None => single(headers, &FETCH_SITE)? == Some("same-origin"),
    })
}

/// Gives a browser a token to keep.
pub(super) fn keep(headers: &HeaderMap, token: &str) -> Result<HeaderValue> {
    cookie(headers, token, LOGIN_KEPT.as_secs())
}

/// Takes it away.
pub(super) fn forget(headers: &HeaderMap) -> Result<HeaderValue> {
    cookie(headers, "", 0)
}

/// Whether the page was loaded over https only its `Origin` tells, as TLS may have ended before us. A browser says the truth
/// there, and whoever is no browser keeps the cookie as he likes anyway.
fn cookie(headers: &HeaderMap, token: &str, seconds: u64) -> Result<HeaderValue> {
    let is_secure = headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let (name, secure) = if is_secure { (SECURE, "; Secure") } else { (PLAIN, "") };
    let text = format!("{name}={token}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(text).map_err(|error| Fault::new(Code::INTERNAL, "internal error").because(error))
}

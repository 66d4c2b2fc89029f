//! The web app, built before this program (apps/web) and carried inside it. Without it, a page that tells how to chat.

use axum::{
    Router,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{
            ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
        },
    },
    response::{Html, IntoResponse, Response},
    routing::get,
};
use jiscord_bin_kit::service;
use rust_embed::{EmbeddedFile, RustEmbed};

/// What `npm run build` makes, text files also as `<name>.br` and `<name>.gz`.
#[derive(RustEmbed)]
#[folder = "../../apps/web/dist"]
#[allow_missing = true]
struct Built;

const INDEX: &str = "index.html";
/// Names in this folder change with what is in the file.
const HASHED: &str = "assets/";
/// What the page may do: run and fetch what comes from here, and nothing else. WebAssembly needs the word of its own.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; img-src 'self' blob:; \
    style-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";
/// The encodings that files may be there in, the best first.
const ENCODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

const HOW_TO: &str = include_str!("../assets/index.html");
const STYLE: &str = include_str!("../assets/style.css");

/// The page, for a server at `url`, and a 404 for what is neither it nor one of its files.
pub(crate) fn router(url: &str) -> Router {
    if Built::get(INDEX).is_some() {
        return Router::new().fallback(page);
    }
    let how_to = HOW_TO.replace("{url}", url);
    Router::new()
        .route("/", get(|| async { Html(how_to) }))
        .route("/style.css", get(|| async { ([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE) }))
        .fallback(service::nothing_here)
}

async fn page(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path().trim_start_matches('/');
    if !matches!(method, Method::GET | Method::HEAD) || path == "api" || path.starts_with("api/") {
        return service::nothing_here().await;
    }
    // Files have an ending; whatever has none is a place within the page, such as /login.
    let is_place = !path.starts_with(HASHED) && path.rsplit('/').next().is_some_and(|name| !name.contains('.'));
    match file(if is_place { INDEX } else { path }, &headers) {
        Some(answer) => answer,
        None => service::nothing_here().await,
    }
}

fn file(name: &str, headers: &HeaderMap) -> Option<Response> {
    let is_encoded = ENCODINGS.iter().any(|(_, ending)| name.ends_with(ending));
    let plain = Built::get(name).filter(|_| !is_encoded)?;
    let tag = tag(&plain);
    let mut answer = if headers.get_all(IF_NONE_MATCH).iter().any(|known| is_among(&tag, known)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let encoded = ENCODINGS
            .iter()
            .filter(|(encoding, _)| accepts(headers, encoding))
            .find_map(|(encoding, ending)| Some((*encoding, Built::get(&format!("{name}{ending}"))?)));
        match encoded {
            Some((encoding, file)) => ([(CONTENT_ENCODING, encoding)], file.data).into_response(),
            None => plain.data.into_response(),
        }
    };
    let cache = if name.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static(media_type(name))),
        (CACHE_CONTROL, HeaderValue::from_static(cache)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (VARY, HeaderValue::from_static("accept-encoding")),
        (ETAG, HeaderValue::try_from(tag).ok()?),
    ];
    // `extend` would keep the media type that bytes have by themselves beside ours.
    for (name, value) in headers {
        answer.headers_mut().insert(name, value);
    }
    Some(answer)
}

/// Weak, since it is the same for a file in all its encodings.
fn tag(file: &EmbeddedFile) -> String {
    let hash: String = file.metadata.sha256_hash()[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("W/\"{hash}\"")
}

fn is_among(tag: &str, known: &HeaderValue) -> bool {
    known.to_str().is_ok_and(|known| known.split(',').any(|known| known.trim() == tag))
}

/// Whether a client takes an encoding: it names it, and does not give it the weight zero.
fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|choice| {
        let mut parts = choice.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
        let refused = parts
            .any(|weight| weight.strip_prefix("q=").is_some_and(|weight| weight.parse().is_ok_and(|weight: f32| weight <= 0.0)));
        named && !refused
    })
}

/// By the file's ending; those that a build of the web app has.
fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, ending)| ending) {
        "css" => "text/css; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "ico" => "image/x-icon",
        "js" => "text/javascript; charset=utf-8",
        "json" | "webmanifest" => "application/json",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        "wasm" => "application/wasm",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_taken_by_who_names_it() {
        for (line, br, gzip) in [
            ("gzip, deflate, br", true, true),
            ("gzip;q=1.0, br;q=0", false, true),
            ("GZIP", false, true),
            ("identity", false, false),
            ("brotli, x-gzip", false, false),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(line))]);
            assert_eq!((accepts(&headers, "br"), accepts(&headers, "gzip")), (br, gzip), "{line}");
        }
        assert!(!accepts(&HeaderMap::new(), "gzip"));
    }
}

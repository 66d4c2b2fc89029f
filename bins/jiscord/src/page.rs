//! What `/` shows until there is a web app: how to chat.

use axum::{
    Router,
    http::header::CONTENT_TYPE,
    response::{Html, IntoResponse},
    routing::get,
};

const PAGE: &str = include_str!("../assets/index.html");
const STYLE: &str = include_str!("../assets/style.css");

/// The page, with commands that work for a server at `url`.
pub(crate) fn router(url: &str) -> Router {
    let page = PAGE.replace("{url}", url);
    Router::new()
        .route("/", get(|| async { Html(page) }))
        .route("/style.css", get(|| async { ([(CONTENT_TYPE, "text/css; charset=utf-8")], STYLE).into_response() }))
}

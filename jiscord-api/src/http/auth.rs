//! auth-service: register, login, refresh, logout, and whose a token is.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{FromRef, FromRequest, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::MethodRouter,
};
use jiscord_core::{
    Code, Fault,
    backend::{Identity, TokenVerifier},
    http::{ClientAddr, LoggedIn, RegisterBody, Registered, UserRow, Verified},
    text::Email,
};
use serde::Deserialize;

use super::{
    Access, Answer, Body, Failed, MaybeBody, Settings, alive, authorization, cookie, count_address, finish, health, unauthorized,
};
use crate::{accounts::Accounts, guesses::Guesses, limits::Limiter};

#[derive(Clone)]
struct App {
    accounts: Arc<Accounts>,
    callers: Arc<Limiter>,
    logins: Arc<Limiter>,
    guesses: Arc<Guesses>,
    settings: Arc<Settings>,
}

impl FromRef<App> for Arc<Settings> {
    fn from_ref(app: &App) -> Self {
        app.settings.clone()
    }
}

routes! {
    App;
    GET "/health" Open => ready;
    GET "/health/live" Open => alive;
    GET "/health/ready" Open => ready;
    POST "/register" Open => register;
    POST "/login" Open => login;
    GET "/me" Credentials => me;
    POST "/verify-token" Credentials => verify_token;
    POST "/refresh" Open => refresh;
    POST "/logout" Open => logout;
}

/// The router of auth-service. Rate limits by address work where the host puts
/// [`ClientAddr`] into requests.
pub fn router(accounts: Arc<Accounts>, settings: Settings) -> Router {
    let limits = &settings.limits;
    let callers = Arc::new(Limiter::new(limits.caller, limits.rate_keys));
    let logins = Arc::new(Limiter::new(limits.login, limits.rate_keys));
    let guesses = Guesses::new(limits);
    let app = App { accounts, callers, logins, guesses, settings: Arc::new(settings) };
    finish(routes(&app), app)
}

fn guarded(app: &App, access: Access, route: MethodRouter<App>) -> MethodRouter<App> {
    match access {
        Access::Open => route,
        Access::Credentials | Access::Service => route.route_layer(from_fn_with_state(app.clone(), admit)),
    }
}

/// Lets in whoever has a good token, and tells the handler who it is.
async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Answer<Response> {
    let who = match authorization(request.headers())? {
        Some((scheme, token)) if scheme == "bearer" => app.accounts.verify_token(token).await,
        _ => Err(unauthorized()),
    };
    match &who {
        Ok(who) => app.callers.count(who.user_id)?,
        Err(_) => count_address(&app.callers, request.extensions().get())?,
    }
    request.extensions_mut().insert(who?);
    Ok(next.run(request).await)
}

async fn ready(State(app): State<App>) -> Answer<Json<serde_json::Value>> {
    health(app.accounts.ready()).await
}

async fn register(State(app): State<App>, request: Request) -> Answer<(StatusCode, Json<Registered>)> {
    count_address(&app.logins, request.extensions().get())?;
    let answer = async {
        let Body(body) = Body::<RegisterBody>::from_request(request, &app).await?;
        Ok((StatusCode::CREATED, Json(app.accounts.register(body).await?)))
    };
    app.accounts.not_sooner(answer).await
}

/// A missing field is no other answer than a wrong one.
#[derive(Deserialize)]
struct Login {
    #[serde(default)]
    email: Option<String>,
    #[serde(default)]
    password: Option<String>,
    /// For a page: with the cookie that `/refresh` and `/logout` read.
    #[serde(default)]
    remember: bool,
}

async fn login(State(app): State<App>, request: Request) -> Answer<Response> {
    count_address(&app.logins, request.extensions().get())?;
    let headers = request.headers().clone();
    let from = request.extensions().get().map(|ClientAddr(addr)| *addr);
    let Body(body) = Body::<Login>::from_request(request, &app).await?;
    // What is no address is nobody's, and cannot be guessed.
    let email = body.email.as_deref().and_then(|text| Email::new(text).ok());
    let guess = email.map(|email| app.guesses.begin(&email, from)).transpose()?;
    let answer = log_in(&app, &body).await;
    match (guess, &answer) {
        (Some(guess), Ok(_)) => guess.succeeded(),
        (Some(guess), Err(fault)) if fault.code == Code::UNAUTHORIZED => guess.failed(),
        _ => {}
    }
    let (answer, token) = answer?;
    match token {
        Some(token) => Ok((cookie::keep(&headers, &token)?, Json(answer)).into_response()),
        None => Ok(Json(answer).into_response()),
    }
}

async fn log_in(app: &App, body: &Login) -> Result<(LoggedIn, Option<String>), Fault> {
    let (email, password) = (body.email.as_deref(), body.password.as_deref());
    if !body.remember {
        return Ok((app.accounts.login(email, password).await?, None));
    }
    let (answer, token) = app.accounts.login_remembered(email, password).await?;
    Ok((answer, Some(token)))
}

/// A body of which nothing is wanted.
#[derive(Default, Deserialize)]
struct Nothing {}

/// A new token for a page that has lost the one it had. Nothing but the cookie is asked for.
async fn refresh(State(app): State<App>, request: Request) -> Answer<Response> {
    count_address(&app.callers, request.extensions().get())?;
    let headers = request.headers().clone();
    let MaybeBody(Nothing {}) = MaybeBody::from_request(request, &app).await?;
    let token = cookie::read(&headers, &app.settings)?.token().ok_or_else(unauthorized)?;
    match app.accounts.refresh(token).await {
        Ok((answer, token)) => Ok((cookie::keep(&headers, &token)?, Json(answer)).into_response()),
        // It will never be good again.
        Err(fault) if fault.code == Code::UNAUTHORIZED => Ok((cookie::forget(&headers)?, Failed(fault)).into_response()),
        Err(fault) => Err(fault.into()),
    }
}

#[derive(Default, Deserialize)]
struct Logout {
    /// All logins of the user, not only this one.
    #[serde(default)]
    everywhere: bool,
}

/// Ends the login of the token, or of the cookie, or both. One that has ended already is no error.
async fn logout(State(app): State<App>, request: Request) -> Answer<Response> {
    count_address(&app.callers, request.extensions().get())?;
    let headers = request.headers().clone();
    let MaybeBody(body) = MaybeBody::<Logout>::from_request(request, &app).await?;
    let shown = cookie::read(&headers, &app.settings)?;
    let who = match authorization(&headers)? {
        Some((scheme, token)) if scheme == "bearer" => match app.accounts.verify_token(token).await {
            Ok(who) => Some(who),
            Err(fault) if fault.code == Code::UNAUTHORIZED => None,
            Err(fault) => return Err(fault.into()),
        },
        _ => None,
    };
    app.accounts.logout(who.as_ref(), &shown.all(), body.everywhere).await?;
    Ok((StatusCode::NO_CONTENT, cookie::forget(&headers)?).into_response())
}

async fn me(State(app): State<App>, Extension(who): Extension<Identity>) -> Answer<Json<UserRow>> {
    Ok(Json(app.accounts.me(&who).await?))
}

async fn verify_token(Extension(who): Extension<Identity>) -> Json<Verified> {
    Json(Verified { sub: who.user_id, username: who.username, login: who.login })
}

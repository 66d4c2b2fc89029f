//! What services alone may call: neither users nor whoever is believed without credentials.

use axum::{Json, extract::State};
use jiscord_core::{
    Code, Fault,
    backend::{Actor, Backend, Login, Revoked},
    http::{BeginLoginBody, GuildStateRow, MembershipRow, RefreshLoginBody, RefreshedRow, RevokedRow, UserRow},
};
use jiscord_store::{NewLogin, Refreshed};

use super::{
    super::{Answer, Body, Path, Query, id, malformed},
    App, Caller, guarded, ready,
};
use crate::accounts::Logins;

routes! {
    pub(super) App;
    GET "/internal/health" Service => ready;
    GET "/internal/users/{user_id}" Service => user;
    GET "/internal/users/{user_id}/memberships" Service => memberships;
    GET "/internal/users/{user_id}/revocations" Service => is_revoked;
    POST "/internal/users/{user_id}/revocations" Service => revoke;
    POST "/internal/logins" Service => begin_login;
    POST "/internal/logins/{login_id}/refresh" Service => refresh_login;
    GET "/internal/guilds/{guild_id}" Service => guild;
}

/// Logins are auth-service's, on behalf of nobody.
fn as_service(caller: Caller) -> Result<(), Fault> {
    match caller.actor() {
        Actor::System => Ok(()),
        _ => Err(Fault::new(Code::FORBIDDEN, "logins are no user's to change")),
    }
}

async fn begin_login(State(app): State<App>, caller: Caller, Body(new): Body<BeginLoginBody>) -> Answer<Json<()>> {
    as_service(caller)?;
    let BeginLoginBody { login_id, user_id, begun } = new;
    Ok(Json(app.chat.begin_login(NewLogin { login_id, user_id, begun }).await?))
}

async fn refresh_login(
    State(app): State<App>,
    caller: Caller,
    Path(login): Path<String>,
    Body(shown): Body<RefreshLoginBody>,
) -> Answer<Json<RefreshedRow>> {
    as_service(caller)?;
    let login = login.parse().map_err(|_| malformed("a login's id is a UUID"))?;
    Ok(Json(match app.chat.refresh_login(login, shown.generation).await? {
        Refreshed::Current { user_id, begun, generation } => RefreshedRow::Current { user_id, begun, generation },
        Refreshed::Replayed { user_id } => RefreshedRow::Replayed { user_id },
        Refreshed::Gone => RefreshedRow::Gone,
    }))
}

async fn revoke(State(app): State<App>, caller: Caller, Path(user): Path<String>, Body(what): Body<Revoked>) -> Answer<Json<()>> {
    as_service(caller)?;
    Ok(Json(app.chat.revoke_login(id(&user)?, what).await?))
}

async fn is_revoked(
    State(app): State<App>,
    caller: Caller,
    Path(user): Path<String>,
    Query(login): Query<Login>,
) -> Answer<Json<RevokedRow>> {
    as_service(caller)?;
    Ok(Json(RevokedRow { revoked: app.chat.is_login_revoked(id(&user)?, login).await? }))
}

/// A user as whoever the service acts for may see it, and never its password's hash.
async fn user(State(app): State<App>, caller: Caller, Path(user): Path<String>) -> Answer<Json<UserRow>> {
    Ok(Json(app.chat.user(caller.actor(), id(&user)?).await?.into()))
}

async fn memberships(State(app): State<App>, caller: Caller, Path(user): Path<String>) -> Answer<Json<Vec<MembershipRow>>> {
    let memberships = app.chat.memberships(caller.actor(), id(&user)?).await?;
    Ok(Json(memberships.into_iter().map(Into::into).collect()))
}

async fn guild(State(app): State<App>, caller: Caller, Path(guild): Path<String>) -> Answer<Json<GuildStateRow>> {
    let state = app.chat.load_guild(caller.actor(), id(&guild)?).await?;
    Ok(Json(state.ok_or_else(|| Fault::not_found("Guild"))?.into()))
}

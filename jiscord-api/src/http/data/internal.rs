//! What services alone may call: neither users nor whoever is believed without credentials.

use axum::{Json, extract::State};
use jiscord_core::{
    Fault,
    backend::Backend,
    http::{GuildStateRow, MembershipRow, UserRow},
};

use super::{
    super::{Answer, Path, id},
    App, Caller, guarded, ready,
};

routes! {
    pub(super) App;
    GET "/internal/health" Service => ready;
    GET "/internal/users/{user_id}" Service => user;
    GET "/internal/users/{user_id}/memberships" Service => memberships;
    GET "/internal/guilds/{guild_id}" Service => guild;
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

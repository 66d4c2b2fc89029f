//! `jiscord user …`: accounts, while the server is stopped.

use std::{
    io::{self, BufRead, IsTerminal, Read},
    sync::Arc,
};

use anyhow::bail;
use jiscord_api::{
    accounts::Accounts,
    limits::Limits,
    passwords::{Cost, Passwords},
};
use jiscord_bin_kit::{Config, service};
use jiscord_core::http::RegisterBody;

use crate::{cli::NewUser, data::Data};

/// Makes an account and says what to do next.
pub(crate) async fn create(config: &Config, new: NewUser) -> anyhow::Result<()> {
    let password = tokio::task::spawn_blocking(move || password(new.password_stdin)).await??;
    let data = Data::open(config).await?;
    let limits = Limits::default();
    let tokens = Arc::new(service::tokens(&data.jwt_secret)?);
    let accounts = Accounts::new(data.store.clone(), Passwords::new(Cost::default(), &limits), tokens, &limits);
    let made = accounts.register(RegisterBody { username: new.username, email: new.email, password }).await;
    data.store.close().await;
    let made = made?;
    println!("Made {}, user id {}.", made.username, made.user_id);
    println!("Start the server (jiscord), then log in: POST /api/auth/login with the address and the password.");
    Ok(())
}

/// Asks twice at a terminal; reads a line where there is none.
fn password(from_stdin: bool) -> anyhow::Result<String> {
    if !from_stdin && io::stdin().is_terminal() {
        let password = rpassword::prompt_password("Password (8 to 128 characters): ")?;
        if rpassword::prompt_password("The same again: ")? != password {
            bail!("the two passwords differ; nothing was made");
        }
        return Ok(password);
    }
    let mut line = String::new();
    // No password is longer; what is, is refused by its length.
    io::stdin().lock().take(4096).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

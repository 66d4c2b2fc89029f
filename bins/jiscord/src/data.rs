//! The data folder: the database, and the secrets that the first start makes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use jiscord_bin_kit::{Config, Refused, config::is_strong};
use jiscord_store::sqlite::{OpenError, Options, SqliteStore};
use rand::{TryRngCore, rngs::OsRng};
use secrecy::SecretString;
use tokio::task::spawn_blocking;

/// An open data folder. The store holds its lock.
pub(crate) struct Data {
    pub(crate) store: Arc<SqliteStore>,
    pub(crate) jwt_secret: SecretString,
    pub(crate) service_token: SecretString,
}

impl Data {
    /// Opens the configured folder, and makes what is missing in it.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        let config = config.clone();
        spawn_blocking(move || {
            let folder = &config.data_dir;
            let store = SqliteStore::open(folder, Options::default()).map_err(refused)?;
            // Only now: whoever has the store is alone in the folder.
            let jwt_secret = secret(config.jwt_secret, &folder.join("jwt.secret"))?;
            let service_token = secret(config.service_token, &folder.join("service.token"))?;
            Ok(Self { store, jwt_secret, service_token })
        })
        .await?
    }
}

/// Brings the database up to date.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<()> {
    let folder = config.data_dir.clone();
    let applied = spawn_blocking(move || SqliteStore::migrate(folder)).await?.map_err(refused)?;
    match &applied[..] {
        [] => println!("The database is up to date."),
        names => println!("Applied: {}", names.join(", ")),
    }
    Ok(())
}

/// What to do about it, for whoever started the program.
fn refused(error: OpenError) -> anyhow::Error {
    let mend = match &error {
        OpenError::Locked { .. } => "stop it, or set JISCORD_DATA_DIR to another folder",
        OpenError::Folder { .. } => "set JISCORD_DATA_DIR to a folder that this user may write",
        OpenError::Symlink { .. } | OpenError::Foreign => "set JISCORD_DATA_DIR to another folder",
        OpenError::FromTheFuture { .. } | OpenError::Changed { .. } => "run the version of Jiscord that made it",
        _ => return anyhow::Error::new(error),
    };
    let cause = std::error::Error::source(&error).map(|cause| format!(" ({cause})")).unwrap_or_default();
    Refused::because(format!("{error}{cause}; {mend}")).into()
}

/// The configured secret, else the file's, else a new one that the file keeps.
fn secret(configured: Option<SecretString>, file: &Path) -> anyhow::Result<SecretString> {
    if let Some(secret) = configured {
        return Ok(secret);
    }
    match fs::symlink_metadata(file) {
        Ok(found) if !found.is_file() => Err(Refused::because(format!("{} is no file; remove it", file.display())).into()),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            Err(Refused::because(format!("others may read {0}; run: chmod 600 {0}", file.display())).into())
        }
        Ok(_) => {
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            let text = text.trim_end();
            if !is_strong(text) {
                let line = format!("{0} holds no secret of 32 bytes or more; remove it, and a new one is made", file.display());
                return Err(Refused::because(line).into());
            }
            Ok(text.into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(file).with_context(|| file.display().to_string()),
        Err(error) => Err(error).with_context(|| file.display().to_string()),
    }
}

/// A new secret, on disk before it is used: 32 random bytes in hex.
fn make(file: &Path) -> io::Result<SecretString> {
    let mut bytes = [0; 32];
    OsRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    let secret: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    // Under another name until it is whole, so that a crash leaves no half of it.
    let half = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    writeln!(out, "{secret}")?;
    out.sync_all()?;
    fs::rename(&half, file)?;
    if let Some(folder) = file.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(secret.into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwt.secret");
        let first = secret(None, &file).unwrap();
        assert_eq!(first.expose_secret().len(), 64);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(secret(None, &file).unwrap().expose_secret(), first.expose_secret());
        let other = secret(None, &folder.path().join("other")).unwrap();
        assert_ne!(other.expose_secret(), first.expose_secret());
        let configured = secret(Some("configured".into()), &file).unwrap();
        assert_eq!(configured.expose_secret(), "configured");
    }

    #[test]
    fn a_secret_that_others_may_read_or_guess_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("jwt.secret");
        let made = secret(None, &file).unwrap();
        for (break_it, want) in [
            (
                Box::new(|| fs::set_permissions(&file, fs::Permissions::from_mode(0o640))) as Box<dyn Fn() -> io::Result<()>>,
                "chmod 600",
            ),
            (
                Box::new(|| fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).and(fs::write(&file, "hunter2"))),
                "remove it",
            ),
            (Box::new(|| fs::write(&file, "")), "remove it"),
            (Box::new(|| fs::remove_file(&file).and(std::os::unix::fs::symlink("/etc/passwd", &file))), "is no file"),
        ] {
            break_it().unwrap();
            let error = secret(None, &file).unwrap_err().downcast::<Refused>().unwrap().to_string();
            assert!(error.contains(want) && error.contains("jwt.secret"), "{error}");
            assert!(!error.contains("hunter2") && !error.contains(made.expose_secret()), "{error}");
        }
    }
}

//! The TypeScript types of all that crosses to the page or goes over the wire, and the golden files as they see them.
//!
//! `JISCORD_WRITE_TYPES=1 cargo test -p jiscord-web` writes both files anew.

use std::{any::TypeId, collections::BTreeMap, env, fs, path::PathBuf};

use jiscord_core::{Code, frame, http, model};
use ts_rs::{Config, TS, TypeVisitor};

use crate::wire;

/// Bodies that services send each other. No page meets them.
const BETWEEN_SERVICES: [&str; 15] = [
    "account",
    "begin_login",
    "create_user",
    "event",
    "guild_state",
    "memberships",
    "refresh_login",
    "refreshed",
    "refreshed_gone",
    "refreshed_replayed",
    "revoked",
    "sent",
    "sent_again",
    "verified",
    "verified_login",
];

/// What goes into the file: by name, so that its order is stable.
struct Types {
    config: Config,
    texts: BTreeMap<String, String>,
}

impl TypeVisitor for Types {
    fn visit<T: TS + 'static + ?Sized>(&mut self) {
        // What has no place of its own is written where it is used.
        if T::output_path().is_none() || TypeId::of::<T>() == TypeId::of::<Code>() {
            return;
        }
        let docs: String = T::docs().unwrap_or_default();
        let text = format!("{docs}export {}\n", T::decl(&self.config));
        if self.texts.insert(T::ident(&self.config), text).is_none() {
            T::visit_dependencies(self);
            T::visit_generics(self);
        }
    }
}

fn types() -> String {
    let config = Config::new().with_large_int("number");
    let mut types = Types { config, texts: BTreeMap::new() };
    types.visit::<frame::Placed>();
    types.visit::<frame::ClientFrame>();
    types.visit::<wire::Change>();
    types.visit::<wire::Timeline>();
    types.visit::<wire::GuildPage>();
    types.visit::<model::User>();
    types.visit::<http::UserRow>();
    types.visit::<http::RegisterBody>();
    types.visit::<http::Registered>();
    types.visit::<http::LoginBody>();
    types.visit::<http::LoggedIn>();
    types.visit::<http::CreateMessageBody>();
    types.visit::<http::MessagePage>();
    types.visit::<http::CreateGuildBody>();
    types.visit::<http::GuildRow>();
    types.visit::<http::JoinBody>();
    types.visit::<http::MemberRow>();
    types.visit::<http::CreateChannelBody>();
    types.visit::<http::ChannelRow>();
    types.visit::<jiscord_core::fault::ErrorBody>();
    let words: Vec<_> = Code::ALL.iter().map(|code| format!("{:?}", code.as_str())).collect();
    let code = "/** What went wrong, as a word that programs match on. Newer servers may have more of them. */";
    types.texts.insert("Code".into(), format!("{code}\nexport type Code = {} | (string & {{}});\n", words.join(" | ")));
    let texts: Vec<_> = types.texts.into_values().collect();
    format!("// Written by `JISCORD_WRITE_TYPES=1 cargo test -p jiscord-web`.\n\n{}", texts.join("\n"))
}

/// Each golden file as a value of its type: the compiler refuses a field that the type lacks, and one that it has too much.
fn golden() -> String {
    let mut lines = Vec::new();
    for kind in ["frames", "bodies"] {
        let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../../jiscord-core/tests/golden", kind].iter().collect();
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let files: BTreeMap<_, _> = files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect();
        for (name, path) in files.iter().filter(|(name, _)| !BETWEEN_SERVICES.contains(&name.as_str())) {
            let text = fs::read_to_string(path).unwrap();
            lines.push(format!("// {kind}/{name}\n({}) satisfies {};\n", text.trim_end(), type_of(kind, name, &text)));
        }
    }
    let imports = "import type * as T from \"./types\";";
    format!(
        "// Written by `JISCORD_WRITE_TYPES=1 cargo test -p jiscord-web`, from the golden files.\n{imports}\n\n{}",
        lines.join("\n")
    )
}

fn type_of(kind: &str, name: &str, text: &str) -> &'static str {
    if kind == "frames" {
        return if frame::Placed::read(text).is_ok() { "T.Placed" } else { "T.ClientFrame" };
    }
    match name {
        "channel" | "channel_plain" => "T.ChannelRow",
        "channels" => "T.ChannelRow[]",
        "create_channel" => "T.CreateChannelBody",
        "create_guild" | "create_guild_plain" => "T.CreateGuildBody",
        "create_message" | "create_message_plain" => "T.CreateMessageBody",
        "error" => "T.ErrorBody",
        "guild" | "guild_plain" | "guild_private" => "T.GuildRow",
        "guilds" => "T.GuildRow[]",
        "join" | "join_self" => "T.JoinBody",
        "logged_in" => "T.LoggedIn",
        "login" => "T.LoginBody",
        "member" | "member_plain" => "T.MemberRow",
        "message" | "message_plain" => "T.MessageRow",
        "message_page" | "message_page_last" => "T.MessagePage",
        "register" => "T.RegisterBody",
        "registered" => "T.Registered",
        "user" | "user_public" => "T.UserRow",
        other => panic!("of which type is {other}?"),
    }
}

fn check(file: &str, want: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../src/sdk", file].iter().collect();
    if env::var_os("JISCORD_WRITE_TYPES").is_some() {
        fs::write(&path, want).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(there == want, "{file} is stale: JISCORD_WRITE_TYPES=1 cargo test -p jiscord-web");
}

#[test]
fn types_are_as_in_rust() {
    check("types.ts", &types());
}

#[test]
fn golden_files_are_checked_by_the_compiler() {
    check("golden.test-d.ts", &golden());
}

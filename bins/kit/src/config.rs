//! Configuration from environment variables: one table, from which reading, help and documentation come.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU32,
    ops::RangeInclusive,
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use jiscord_core::model::Visibility;
use secrecy::SecretString;
use tracing_subscriber::EnvFilter;
use url::{Host, Url};

use crate::{exit::Refused, proxies::Proxies};

/// Writes the settings once: a doc line for people, the field, the variable, the default as it would be written, and what
/// it may be.
macro_rules! settings {
    ($($(#[doc = $help:literal])+ $field:ident: $type:ty = $name:literal, $default:literal, $form:expr;)+) => {
        /// What can be set. The services share one table, so that they can share one file of settings.
        #[derive(Clone, Debug)]
        #[non_exhaustive]
        pub struct Config {
            $($(#[doc = $help])+ pub $field: $type,)+
        }

        /// All settings, for help and documentation.
        pub fn table() -> Vec<Setting> {
            vec![$(Setting::new($name, $default, &$form, concat!($($help),+)),)+]
        }

        fn read_all(from: &mut Reader) -> Option<Config> {
            // All are read before the first that is missing is noticed, so that every problem is told.
            $(let $field = from.read($name, $default, &$form);)+
            Some(Config { $($field: $field?,)+ })
        }
    };
}

settings! {
    /// The port to listen on; 0: any free one.
    /// Without it: jiscord 3000, data-service 3001, gateway 3002, auth-service 3003.
    port: Option<u16> = "PORT", "", Optional(Number(0..=65_535));
    /// The address to listen on. 0.0.0.0 listens on all, for containers and machines behind a firewall.
    listen: IpAddr = "JISCORD_LISTEN", "127.0.0.1", Address;
    /// Where the all-in-one keeps its database and secrets. Made on first start, for its owner alone.
    data_dir: PathBuf = "JISCORD_DATA_DIR", "data", Folder;
    /// Signs and verifies users' tokens. The all-in-one makes its own and keeps it in its data folder.
    jwt_secret: Option<SecretString> = "JWT_SECRET", "", Secret;
    /// What services show each other: whoever has it is the server. The all-in-one makes its own.
    service_token: Option<SecretString> = "JISCORD_SERVICE_TOKEN", "", Secret;
    /// Where the all-in-one keeps what it stores. With sqlite it is the only process; with scylla it speaks to the database
    /// and to Redis as the services do, and several may run beside each other.
    store: StoreKind = "JISCORD_STORE", "sqlite", OneOf(&[("sqlite", StoreKind::Sqlite), ("scylla", StoreKind::Scylla)]);
    /// Nodes of ScyllaDB or Cassandra; one that answers is enough.
    scylla_contact_points: Vec<String> = "SCYLLA_CONTACT_POINTS", "127.0.0.1:9042", Nodes;
    /// The data centre whose quorum is asked. Needed only where there are several.
    scylla_local_dc: Option<String> = "SCYLLA_LOCAL_DC", "", Optional(Word(48));
    /// The keyspace. It is created if it is not there, with three replicas or as many as there are nodes.
    scylla_keyspace: String = "SCYLLA_KEYSPACE", "jiscord", Word(48);
    /// The user of the database. Meant where SCYLLA_PASSWORD is set.
    scylla_user: String = "SCYLLA_USER", "cassandra", Word(128);
    /// The password of the database's user. Without one nobody logs in there.
    scylla_password: Option<SecretString> = "SCYLLA_PASSWORD", "", Optional(Password);
    /// Whether TLS is spoken to the database. The nodes' certificates must name the addresses by which they are reached, and be
    /// vouched for by the system's certificates, or those that SSL_CERT_FILE names.
    scylla_tls: bool = "SCYLLA_TLS", "false", OneOf(&[("false", false), ("true", true)]);
    /// Redis 6.2 or newer with maxmemory-policy noeviction; rediss:// speaks TLS to it, trusting as SCYLLA_TLS does. It may have a
    /// password in it, so it is never printed.
    redis_url: SecretString = "REDIS_URL", "redis://127.0.0.1:6379", RedisAddress;
    /// Where data-service is. Without it: http://127.0.0.1:3001.
    data_service_url: Option<String> = "DATA_SERVICE_URL", "", Optional(ServiceAddress);
    /// Where auth-service is. Without it: http://127.0.0.1:3003.
    auth_service_url: Option<String> = "AUTH_SERVICE_URL", "", Optional(ServiceAddress);
    /// Where the gateway is, for `jiscord` alone: with this and the two above set it stores nothing and is the entry in front of
    /// the three.
    gateway_url: Option<String> = "GATEWAY_URL", "", Optional(ServiceAddress);
    /// How often a client is to send HEARTBEAT, in milliseconds; silent for 1.5 times as long, it is closed.
    heartbeat: Duration = "JISCORD_HEARTBEAT_MS", "45000", Millis(100..=600_000);
    /// Front proxies that are believed about a client's address (X-Forwarded-For).
    trusted_proxies: Proxies = "JISCORD_TRUSTED_PROXIES", "", Networks;
    /// Web pages that may call the API and open sockets, beside the server's own.
    web_origins: Vec<String> = "JISCORD_WEB_ORIGINS", "http://localhost:5173", Origins;
    /// New guilds: public ones are listed and any account may join; private ones are by invitation.
    default_guild_visibility: Visibility = "JISCORD_DEFAULT_GUILD_VISIBILITY", "public",
        OneOf(&[("public", Visibility::Public), ("private", Visibility::Private)]);
    /// Believes X-User-ID from callers without credentials, as in a closed development network. `true`: on a loopback
    /// address only; `everywhere`: on any address.
    trust_user_header: TrustUserHeader = "JISCORD_TRUST_USER_HEADER", "false", OneOf(&[
        ("false", TrustUserHeader::No), ("true", TrustUserHeader::Loopback), ("everywhere", TrustUserHeader::Everywhere)]);
    /// Which logs are written to stderr: a level, or one by module (info,jiscord_gateway=debug).
    log: String = "JISCORD_LOG", "info", Filter;

    /// The most sockets at once; more are answered with 503. Also bounded by the limit of open files (ulimit -n).
    limit_sockets: usize = "JISCORD_LIMIT_SOCKETS", "10000", Number(1..=1_000_000);
    /// The most sockets of one address (IPv6: of one /64).
    limit_sockets_per_address: usize = "JISCORD_LIMIT_SOCKETS_PER_ADDRESS", "1000", Number(1..=1_000_000);
    /// The most requests under way at once; more are answered with 503.
    limit_requests: usize = "JISCORD_LIMIT_REQUESTS", "1024", Number(1..=1_000_000);
    /// How long a request's head may take, and how long a connection may idle between requests, in milliseconds.
    limit_head: Duration = "JISCORD_LIMIT_HEAD_MS", "10000", Millis(100..=120_000);
    /// How long a request's body may take, in milliseconds.
    limit_body: Duration = "JISCORD_LIMIT_BODY_MS", "30000", Millis(100..=600_000);
    /// The most bytes of a request's body.
    limit_body_bytes: usize = "JISCORD_LIMIT_BODY_BYTES", "262144", Number(4_096..=16_777_216);
    /// Requests a second of one caller.
    limit_http: NonZeroU32 = "JISCORD_LIMIT_HTTP_PER_SECOND", "50", Number(least(1)..=least(1_000_000));
    /// Requests of one caller at once.
    limit_http_burst: NonZeroU32 = "JISCORD_LIMIT_HTTP_BURST", "200", Number(least(1)..=least(1_000_000));
    /// Registrations and log-ins a second of one address.
    limit_login: NonZeroU32 = "JISCORD_LIMIT_LOGIN_PER_SECOND", "5", Number(least(1)..=least(100_000));
    /// Registrations and log-ins of one address at once.
    limit_login_burst: NonZeroU32 = "JISCORD_LIMIT_LOGIN_BURST", "50", Number(least(1)..=least(100_000));
    /// Log-ins of one account that may fail in an hour, from all networks but those where its owner has logged in before.
    limit_failed_logins: u32 = "JISCORD_LIMIT_FAILED_LOGINS", "100", Number(1..=1_000_000);
    /// Log-ins of one account that may fail in an hour from one network (24 bits of IPv4, 48 of IPv6).
    limit_failed_logins_in_network: u32 = "JISCORD_LIMIT_FAILED_LOGINS_IN_NETWORK", "10", Number(1..=1_000_000);
    /// The most guilds that a user can be in.
    limit_guilds: usize = "JISCORD_LIMIT_GUILDS", "200", Number(1..=10_000);
    /// The most channels that a guild can have.
    limit_channels: usize = "JISCORD_LIMIT_CHANNELS", "500", Number(1..=10_000);
    /// How long a connection may wait with IDENTIFY, in milliseconds.
    limit_identify: Duration = "JISCORD_LIMIT_IDENTIFY_MS", "30000", Millis(100..=300_000);
    /// The most bytes of a message to the gateway.
    limit_frame_bytes: usize = "JISCORD_LIMIT_FRAME_BYTES", "65536", Number(4_096..=1_048_576);
    /// The most connections that become sessions at once. The others wait for their turn, 5 s at most.
    limit_entering: usize = "JISCORD_LIMIT_ENTERING", "64", Number(1..=100_000);
    /// The most messages of all sessions that are being stored at once; more are told to try again.
    limit_sends: usize = "JISCORD_LIMIT_SENDS", "1024", Number(1..=1_000_000);
    /// Commands a second of one session.
    limit_commands: NonZeroU32 = "JISCORD_LIMIT_COMMANDS_PER_SECOND", "20", Number(least(1)..=least(100_000));
    /// Commands of one session at once.
    limit_commands_burst: NonZeroU32 = "JISCORD_LIMIT_COMMANDS_BURST", "100", Number(least(1)..=least(100_000));
    /// The most bytes that wait for a client that does not read.
    limit_queue_bytes: usize = "JISCORD_LIMIT_QUEUE_BYTES", "1048576", Number(65_536..=67_108_864);
    /// The most events that wait to be published while Redis is away. While so many wait, nothing new is written.
    limit_event_queue: usize = "JISCORD_LIMIT_EVENT_QUEUE", "10000", Number(1..=1_000_000);
    /// The most devices of one user that are connected at once.
    limit_devices: usize = "JISCORD_LIMIT_DEVICES", "8", Number(1..=1_000);
}

impl Config {
    /// Reads the process's environment. Every bad setting is told, not only the first.
    pub fn load() -> Result<Self, Refused> {
        Self::read(std::env::vars_os())
    }

    /// Reads these variables. An empty one counts as not set.
    pub fn read(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Self, Refused> {
        let mut from = Reader::new(vars);
        let config = read_all(&mut from);
        from.refuse_unknown();
        if let Some(config) = &config {
            from.problems.extend(config.contradictions());
        }
        match config {
            Some(config) if from.problems.is_empty() => Ok(config),
            _ => Err(Refused(from.problems)),
        }
    }

    /// Where to listen, on `port` if none is set.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.listen, self.port.unwrap_or(port))
    }

    /// `JWT_SECRET` and `JISCORD_SERVICE_TOKEN`, where neither may be left out.
    pub fn shared_secrets(&self) -> Result<(&SecretString, &SecretString), Refused> {
        let signs = needed("JWT_SECRET", self.jwt_secret.as_ref());
        match (signs, needed("JISCORD_SERVICE_TOKEN", self.service_token.as_ref())) {
            (Ok(signs), Ok(token)) => Ok((signs, token)),
            (signs, token) => Err(Refused(signs.err().into_iter().chain(token.err()).flat_map(|Refused(lines)| lines).collect())),
        }
    }

    /// Where data-service is.
    pub fn data_service(&self) -> &str {
        self.data_service_url.as_deref().unwrap_or("http://127.0.0.1:3001")
    }

    /// Where auth-service is.
    pub fn auth_service(&self) -> &str {
        self.auth_service_url.as_deref().unwrap_or("http://127.0.0.1:3003")
    }

    /// The three services that the all-in-one is to stand in front of; `None`: it is to be all of them itself. Refused where
    /// some are set and others are not, and where one is not plain HTTP, which is all that it speaks to them.
    pub fn services(&self) -> Result<Option<Services>, Refused> {
        let urls = [
            ("AUTH_SERVICE_URL", &self.auth_service_url),
            ("DATA_SERVICE_URL", &self.data_service_url),
            ("GATEWAY_URL", &self.gateway_url),
        ];
        if let Some((name, _)) = urls.iter().find(|(_, url)| url.as_ref().is_some_and(|url| !url.starts_with("http://"))) {
            return Err(Refused::because(format!(
                "{name} must begin with http:// where jiscord stands in front of the services"
            )));
        }
        match urls.map(|(_, url)| url.clone()) {
            [None, None, None] => Ok(None),
            [Some(auth), Some(data), Some(gateway)] => Ok(Some(Services { auth, data, gateway })),
            _ => {
                let missing: Vec<_> = urls.iter().filter(|(_, url)| url.is_none()).map(|(name, _)| *name).collect();
                let missing = missing.join(" and ");
                Err(Refused::because(format!(
                    "{missing} not set; jiscord stands in front of three services or of none: set AUTH_SERVICE_URL, \
                     DATA_SERVICE_URL and GATEWAY_URL, or unset them"
                )))
            }
        }
    }

    fn contradictions(&self) -> Option<String> {
        (self.trust_user_header == TrustUserHeader::Loopback && !self.listen.is_loopback()).then(|| {
            format!(
                "JISCORD_TRUST_USER_HEADER=true lets anybody who reaches {} act as any user; listen on 127.0.0.1, \
                 or say JISCORD_TRUST_USER_HEADER=everywhere if the network is closed",
                self.listen
            )
        })
    }
}

/// Where the three services are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Services {
    /// auth-service.
    pub auth: String,
    /// data-service.
    pub data: String,
    /// The gateway.
    pub gateway: String,
}

/// Whether callers without credentials are believed about who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustUserHeader {
    /// Never.
    No,
    /// As long as the server listens on a loopback address.
    Loopback,
    /// Wherever it listens.
    Everywhere,
}

/// What the all-in-one stores on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// SQLite in its data folder, and a bus within the process.
    Sqlite,
    /// ScyllaDB or Cassandra, and Redis.
    Scylla,
}

/// A secret that has to be configured, since several services share it.
pub fn needed<'a>(name: &str, secret: Option<&'a SecretString>) -> Result<&'a SecretString, Refused> {
    secret.ok_or_else(|| {
        Refused::because(format!("{name} is not set; make one with: openssl rand -hex 32, and give all services the same"))
    })
}

/// A line of the table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Setting {
    /// The variable's name.
    pub name: &'static str,
    /// As it would be written; empty: none.
    pub default: &'static str,
    /// What it may be.
    pub form: String,
    /// What it is for.
    pub help: String,
    /// It can also be read from a file that `<name>_FILE` names, and is never printed.
    pub secret: bool,
}

impl Setting {
    fn new<F: Form>(name: &'static str, default: &'static str, form: &F, help: &str) -> Self {
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { name, default, form: form.to_string(), help, secret: F::SECRET }
    }
}

/// The table as text for `--help`.
pub fn help() -> String {
    let mut text = String::from("Settings (environment variables):\n");
    for Setting { name, default, form, help, secret } in table() {
        let default = if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
        let file = if secret { format!(" or {name}_FILE=<path>") } else { String::new() };
        text.push_str(&format!("\n  {name}{file}{default}\n      {help}\n      It is {form}.\n"));
    }
    text
}

/// The table as Markdown, for the documentation.
pub fn reference() -> String {
    let mut text = String::from("| name | default | what it is for |\n| --- | --- | --- |\n");
    for Setting { name, default, form, help, secret } in table() {
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let file = if secret { format!(" or `{name}_FILE`") } else { String::new() };
        text.push_str(&format!("| `{name}`{file} | {default} | {help} It is {form}. |\n"));
    }
    text
}

/// What a setting may be. Displayed, it follows "must be".
trait Form: fmt::Display {
    /// What is read.
    type Value;
    /// Whether its text must not be shown.
    const SECRET: bool = false;

    /// Reads a text, or the empty default.
    fn read(&self, text: &str) -> Option<Self::Value>;
}

/// What bots and examples read; whoever writes one has them in the same shell.
const BOTS: [&str; 4] = ["JISCORD_URL", "JISCORD_TOKEN", "JISCORD_EMAIL", "JISCORD_PASSWORD"];

struct Reader {
    vars: BTreeMap<String, OsString>,
    known: Vec<String>,
    problems: Vec<String>,
}

impl Reader {
    fn new(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let vars = vars.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self { vars: vars.filter(|(_, value)| !value.is_empty()).collect(), known: Vec::new(), problems: Vec::new() }
    }

    fn read<F: Form>(&mut self, name: &str, default: &str, form: &F) -> Option<F::Value> {
        let text = match self.text(name, F::SECRET) {
            Ok(text) => text,
            Err(problem) => {
                self.problems.push(problem);
                return None;
            }
        };
        let value = form.read(text.as_deref().unwrap_or(default));
        if value.is_none() {
            let shown = match text {
                Some(text) if !F::SECRET => format!(", not {:?}", text.chars().take(80).collect::<String>()),
                _ => String::new(),
            };
            self.problems.push(format!("{name} must be {form}{shown}"));
        }
        value
    }

    fn text(&mut self, name: &str, secret: bool) -> Result<Option<String>, String> {
        let value = self.take(name)?;
        if !secret {
            return Ok(value);
        }
        let file = format!("{name}_FILE");
        match (value, self.take(&file)?) {
            (Some(_), Some(_)) => Err(format!("{name} and {file} are both set; unset one")),
            (value, None) => Ok(value),
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
                Err(error) => Err(format!("{file}: {path:?} cannot be read ({error}); name a file with the secret in it")),
            },
        }
    }

    fn take(&mut self, name: &str) -> Result<Option<String>, String> {
        self.known.push(name.to_owned());
        let value = self.vars.remove(name).map(OsString::into_string).transpose();
        value.map_err(|_| format!("{name} must be text in UTF-8"))
    }

    fn refuse_unknown(&mut self) {
        let ours = |name: &&String| name.starts_with("JISCORD_") && !BOTS.contains(&name.as_str());
        for name in self.vars.keys().filter(ours) {
            let near = self.known.iter().map(|known| (strsim::jaro_winkler(name, known), known));
            let mend = match near.max_by(|a, b| a.0.total_cmp(&b.0)) {
                Some((likeness, known)) if likeness > 0.9 => format!("did you mean {known}?"),
                _ => "unset it, or see --help for those there are".to_owned(),
            };
            self.problems.push(format!("{name} is no setting; {mend}"));
        }
    }
}

/// A number within bounds.
struct Number<T>(RangeInclusive<T>);

impl<T: fmt::Display> fmt::Display for Number<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number from {} to {}", self.0.start(), self.0.end())
    }
}

impl<T: fmt::Display + FromStr + PartialOrd> Form for Number<T> {
    type Value = T;

    fn read(&self, text: &str) -> Option<T> {
        text.parse().ok().filter(|number| self.0.contains(number))
    }
}

/// A bound of a [`Number`] that is not zero.
fn least(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// A time in milliseconds within bounds.
struct Millis(RangeInclusive<u64>);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number of milliseconds from {} to {}", self.0.start(), self.0.end())
    }
}

impl Form for Millis {
    type Value = Duration;

    fn read(&self, text: &str) -> Option<Duration> {
        text.parse().ok().filter(|number| self.0.contains(number)).map(Duration::from_millis)
    }
}

/// A name of letters, digits, `_`, `-` and `.`, up to this long.
struct Word(usize);

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a name of at most {} letters, digits, _, - and .", self.0)
    }
}

impl Form for Word {
    type Value = String;

    fn read(&self, text: &str) -> Option<String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        ((1..=self.0).contains(&text.len()) && text.chars().all(fits)).then(|| text.to_owned())
    }
}

/// What may be left out.
struct Optional<F>(F);

impl<F: fmt::Display> fmt::Display for Optional<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<F: Form> Form for Optional<F> {
    type Value = Option<F::Value>;
    const SECRET: bool = F::SECRET;

    fn read(&self, text: &str) -> Option<Option<F::Value>> {
        if text.is_empty() { Some(None) } else { self.0.read(text).map(Some) }
    }
}

/// One of a few words.
struct OneOf<T: 'static>(&'static [(&'static str, T)]);

impl<T> fmt::Display for OneOf<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|(word, _)| *word).collect();
        write!(f, "one of {}", words.join(", "))
    }
}

impl<T: Copy> Form for OneOf<T> {
    type Value = T;

    fn read(&self, text: &str) -> Option<T> {
        self.0.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }
}

/// A form without parameters: what it is called, what it reads, and how.
macro_rules! forms {
    ($($(#[$doc:meta])* $name:ident($text:ident) -> $value:ty, $says:literal, $read:expr $(, $secret:ident)?;)+) => {$(
        $(#[$doc])*
        struct $name;

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($says)
            }
        }

        impl Form for $name {
            type Value = $value;
            $(const SECRET: bool = stringify!($secret).len() > 0;)?

            fn read(&self, $text: &str) -> Option<$value> {
                $read
            }
        }
    )+};
}

forms! {
    /// An address of this machine.
    Address(text) -> IpAddr, "an IP address of this machine, such as 127.0.0.1 or 0.0.0.0",
        if text == "localhost" { Some(Ipv4Addr::LOCALHOST.into()) } else { text.parse().ok() };
    /// A folder, which need not be there yet.
    Folder(text) -> PathBuf, "the path of a folder", Some(PathBuf::from(text));
    /// Trusted proxies.
    Networks(text) -> Proxies, "addresses or networks with commas between, such as 127.0.0.1, 10.0.0.0/8", Proxies::parse(text);
    /// Origins of web pages.
    Origins(text) -> Vec<String>, "origins with commas between, such as https://chat.example.org",
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(origin).collect();
    /// Nodes of a database.
    Nodes(text) -> Vec<String>, "hosts with commas between, each with a port or without, such as db1,db2:9042",
        text.split(',').map(|node| host_and_port(node.trim())).collect();
    /// Where a service is, without a path of its own.
    ServiceAddress(text) -> String, "an address such as http://data-service:3001, without user, password or query",
        service_address(text);
    /// Where Redis is. What it says may be a password.
    RedisAddress(text) -> SecretString, "an address such as redis://localhost:6379 or redis://user:password@host:6379/0",
        redis_address(text), secret;
    /// A password that somebody else made.
    Password(text) -> SecretString, "a text of at most 1024 bytes", (text.len() <= 1024).then(|| text.into()), secret;
    /// A log filter.
    Filter(text) -> String, "a log filter, such as info or info,jiscord_gateway=debug",
        EnvFilter::try_new(text).is_ok().then(|| text.to_owned());
    /// A secret that may be left out.
    Secret(text) -> Option<SecretString>,
        "32 to 1024 bytes of your own that nobody can guess; make them with: openssl rand -hex 32",
        if text.is_empty() { Some(None) } else { is_strong(text).then(|| Some(SecretString::from(text))) }, secret;
}

/// The origin as browsers write it: lower case, without a default port. A path or anything else beside it is a mistake.
fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let host = matches!(url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_))) || url.domain().is_some_and(|name| !name.contains('*'));
    (bare && host && url.password().is_none()).then(|| url.origin().ascii_serialization())
}

fn host_and_port(node: &str) -> Option<String> {
    let url = Url::parse(&format!("cql://{node}")).ok()?;
    let bare = url.path().is_empty() && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
    let host = url.host_str().is_some_and(|host| !host.is_empty()) && url.password().is_none() && url.port() != Some(0);
    (bare && host).then(|| node.to_owned())
}

fn service_address(text: &str) -> Option<String> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    let bare = url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
    (bare && url.has_host() && url.port() != Some(0)).then(|| text.trim_end_matches('/').to_owned())
}

fn redis_address(text: &str) -> Option<SecretString> {
    let url = Url::parse(text).ok()?;
    let there = match url.scheme() {
        "redis" | "rediss" => url.host_str().is_some_and(|host| !host.is_empty()) && url.port() != Some(0),
        "unix" => url.path().len() > 1,
        _ => false,
    };
    there.then(|| text.into())
}

/// Whether a secret is long enough and no placeholder out of an example.
pub fn is_strong(secret: &str) -> bool {
    let mut bytes: Vec<_> = secret.bytes().collect();
    bytes.sort_unstable();
    bytes.dedup();
    let lower = secret.to_lowercase();
    let placeholder = ["change", "example", "secret", "password", "your-", "your_"].iter().any(|word| lower.contains(word));
    (32..=1024).contains(&secret.len()) && bytes.len() >= 8 && !placeholder
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use secrecy::ExposeSecret;

    use super::*;

    const STRONG: &str = "4b1c0ffee5d9a2b37f6e80917263544d4b1c0ffee5d9a2b37f6e80917263544d";

    fn read(vars: &[(&str, &str)]) -> Result<Config, Vec<String>> {
        Config::read(vars.iter().map(|(name, value)| (name.into(), value.into()))).map_err(|Refused(lines)| lines)
    }

    #[test]
    fn every_default_is_valid() {
        let config = read(&[("PATH", "/bin"), ("PORT", ""), ("JISCORD_LISTEN", ""), ("JISCORD_URL", "a bot's")]).unwrap();
        assert_eq!(config.address(3000), "127.0.0.1:3000".parse().unwrap());
        assert_eq!(config.heartbeat, Duration::from_secs(45));
        assert_eq!(config.web_origins, ["http://localhost:5173"]);
        assert!(config.jwt_secret.is_none() && config.service_token.is_none());
        assert_eq!((config.store, &*config.scylla_contact_points), (StoreKind::Sqlite, &["127.0.0.1:9042".to_owned()][..]));
        assert_eq!((config.data_service(), config.auth_service()), ("http://127.0.0.1:3001", "http://127.0.0.1:3003"));
    }

    #[test]
    fn settings_are_read() {
        let config = read(&[
            ("PORT", "0"),
            ("JISCORD_LISTEN", "::1"),
            ("JISCORD_TRUST_USER_HEADER", "true"),
            ("JISCORD_WEB_ORIGINS", "https://Chat.example.org:443/, http://localhost:8080"),
            ("JISCORD_LIMIT_FRAME_BYTES", "4096"),
            ("JWT_SECRET", STRONG),
        ])
        .unwrap();
        assert_eq!(config.address(3000), "[::1]:0".parse().unwrap());
        assert_eq!(config.trust_user_header, TrustUserHeader::Loopback);
        assert_eq!(config.web_origins, ["https://chat.example.org", "http://localhost:8080"]);
        assert_eq!(config.limit_frame_bytes, 4096);
        assert_eq!(config.jwt_secret.as_ref().unwrap().expose_secret(), STRONG);
        assert!(!format!("{config:?}").contains(STRONG));
    }

    #[test]
    fn a_bad_setting_is_named_with_its_mend() {
        for (name, value, wants) in [
            ("PORT", "65536", "a number from 0 to 65535, not \"65536\""),
            ("PORT", "-1", "a number"),
            ("PORT", "1\n2", "not \"1\\n2\""),
            ("JISCORD_LISTEN", "example.org", "an IP address"),
            ("JISCORD_HEARTBEAT_MS", "0", "from 100 to 600000"),
            ("JISCORD_HEARTBEAT_MS", "45s", "a number of milliseconds"),
            ("JISCORD_TRUSTED_PROXIES", "nginx", "addresses or networks"),
            ("JISCORD_WEB_ORIGINS", "*", "origins"),
            ("JISCORD_WEB_ORIGINS", "https://*.example.org", "origins"),
            ("JISCORD_WEB_ORIGINS", "https://example.org/chat", "origins"),
            ("JISCORD_WEB_ORIGINS", "ftp://example.org", "origins"),
            ("JISCORD_WEB_ORIGINS", "null", "origins"),
            ("JISCORD_DEFAULT_GUILD_VISIBILITY", "secret", "one of public, private"),
            ("JISCORD_TRUST_USER_HEADER", "yes", "one of false, true, everywhere"),
            ("JISCORD_LOG", "jiscord=loud", "a log filter"),
            ("JISCORD_LIMIT_FRAME_BYTES", "1048577", "from 4096 to 1048576"),
            ("JISCORD_LIMIT_HTTP_BURST", "0", "from 1 to"),
            ("JISCORD_STORE", "postgres", "one of sqlite, scylla"),
            ("SCYLLA_CONTACT_POINTS", "db1,,db2", "hosts with commas"),
            ("SCYLLA_CONTACT_POINTS", "http://db1", "hosts with commas"),
            ("SCYLLA_CONTACT_POINTS", "db1:70000", "hosts with commas"),
            ("SCYLLA_KEYSPACE", "chat; drop", "a name of at most 48"),
            ("REDIS_URL", "localhost:6379", "an address such as redis://"),
            ("REDIS_URL", "http://localhost", "an address such as redis://"),
            ("DATA_SERVICE_URL", "localhost:3001", "an address such as http://"),
            ("DATA_SERVICE_URL", "http://a:b@localhost", "without user, password"),
            ("AUTH_SERVICE_URL", "http://", "an address such as http://"),
            ("JISCORD_LIMIT_EVENT_QUEUE", "0", "from 1 to 1000000"),
            ("JISCORD_LIMIT_FRAME_BYTE", "5000", "did you mean JISCORD_LIMIT_FRAME_BYTES?"),
            ("JISCORD_XYZ", "1", "see --help"),
            ("JWT_SECRET_FILE", "/nowhere", "name a file"),
        ] {
            let lines = read(&[(name, value)]).unwrap_err();
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(lines[0].starts_with(name) && lines[0].contains(wants) && !lines[0].contains('\n'), "{lines:?}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let lines = read(&[("PORT", "x"), ("JISCORD_LISTEN", "y"), ("JISCORD_NO", "z"), ("JWT_SECRET", "short")]).unwrap_err();
        assert_eq!(lines.len(), 4, "{lines:?}");
    }

    #[test]
    fn no_secret_is_printed() {
        let weak = [
            "hunter2",
            "correct horse battery staple, change me",
            "my-example-value-of-some-length-0123456789",
            &"ab".repeat(32),
        ];
        for secret in weak {
            for name in ["JWT_SECRET", "JISCORD_SERVICE_TOKEN"] {
                let lines = read(&[(name, secret), ("PORT", "x")]).unwrap_err();
                assert!(lines.iter().any(|line| line.starts_with(name)), "{lines:?}");
                assert!(!lines.concat().contains(secret), "{lines:?}");
            }
        }
        let redis = read(&[("REDIS_URL", "http://:hunter2@localhost")]).unwrap_err();
        assert!(redis[0].starts_with("REDIS_URL") && !redis[0].contains("hunter2"), "{redis:?}");
        let good = read(&[("REDIS_URL", "redis://:hunter2@localhost:7000/1")]).unwrap();
        assert!(!format!("{good:?}").contains("hunter2"));
        let not_utf8 = Config::read([("JWT_SECRET".into(), OsString::from_vec(vec![0xff; 40]))]).unwrap_err();
        assert_eq!(not_utf8.to_string(), "JWT_SECRET must be text in UTF-8");
    }

    #[test]
    fn a_secret_may_lie_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), format!("{STRONG}\n")).unwrap();
        let path = file.path().to_str().unwrap();
        let config = read(&[("JWT_SECRET_FILE", path)]).unwrap();
        assert_eq!(config.jwt_secret.unwrap().expose_secret(), STRONG);
        let both = read(&[("JWT_SECRET_FILE", path), ("JWT_SECRET", STRONG)]).unwrap_err();
        assert_eq!(both, ["JWT_SECRET and JWT_SECRET_FILE are both set; unset one"]);
        std::fs::write(file.path(), "too-short").unwrap();
        let short = read(&[("JWT_SECRET_FILE", path)]).unwrap_err();
        assert!(short[0].starts_with("JWT_SECRET must be 32") && !short[0].contains("too-short"), "{short:?}");
    }

    #[test]
    fn trusted_mode_stays_on_loopback_unless_told_twice() {
        let beyond = [("JISCORD_LISTEN", "0.0.0.0"), ("JISCORD_TRUST_USER_HEADER", "true")];
        assert!(read(&beyond).unwrap_err()[0].contains("JISCORD_TRUST_USER_HEADER=everywhere"));
        assert!(read(&[beyond[0], ("JISCORD_TRUST_USER_HEADER", "everywhere")]).is_ok());
    }

    #[test]
    fn the_entry_stands_in_front_of_three_services_or_none() {
        let [auth, data, gateway] = ["auth", "data", "gateway"].map(|name| format!("http://{name}"));
        let urls = [("AUTH_SERVICE_URL", &*auth), ("DATA_SERVICE_URL", &*data), ("GATEWAY_URL", &*gateway)];
        assert_eq!(read(&[]).unwrap().services().unwrap(), None);
        for left_out in 0..3 {
            let some: Vec<_> = (0..3).filter(|n| *n != left_out).map(|n| urls[n]).collect();
            let Refused(lines) = read(&some).unwrap().services().unwrap_err();
            assert_eq!(lines.len(), 1);
            assert!(lines[0].starts_with(&format!("{} not set; ", urls[left_out].0)), "{lines:?}");
        }
        let Refused(lines) = read(&urls[..1]).unwrap().services().unwrap_err();
        assert!(lines[0].starts_with("DATA_SERVICE_URL and GATEWAY_URL not set"), "{lines:?}");
        let Refused(lines) = read(&[urls[0], urls[1], ("GATEWAY_URL", "https://gateway")]).unwrap().services().unwrap_err();
        assert!(lines[0].starts_with("GATEWAY_URL must begin with http://"), "{lines:?}");
        assert_eq!(read(&urls).unwrap().services().unwrap(), Some(Services { auth, data, gateway }));
    }

    #[test]
    fn help_has_every_setting() {
        let text = help();
        for setting in table() {
            assert!(text.contains(&format!("\n  {}", setting.name)), "{}", setting.name);
            assert!(!setting.help.is_empty());
        }
        assert!(text.contains("JWT_SECRET or JWT_SECRET_FILE=<path>"));
    }
}

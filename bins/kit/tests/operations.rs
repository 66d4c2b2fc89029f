//! What operators read agrees with what the programs do.
#![expect(clippy::unwrap_used, reason = "a test's helpers may fail as tests do")]

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use jiscord_bin_kit::config::{self, Config};
use serde_yaml_ng::Value;

const BEGIN: &str = "<!-- settings -->\n";
const END: &str = "<!-- /settings -->\n";

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "../..", name].iter().collect()
}

#[test]
fn the_reference_is_the_table() {
    let file = path("docs/operations.md");
    let page = fs::read_to_string(&file).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (there, after) = rest.split_once(END).unwrap();
    let wanted = config::reference();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(there, wanted, "run it with UPDATE_DOCS=1");
    }
}

fn compose() -> Value {
    let text = fs::read_to_string(path("deploy/compose.yaml")).unwrap();
    let mut compose: Value = serde_yaml_ng::from_str(&text).unwrap();
    compose.apply_merge().unwrap();
    compose
}

/// The environment of each of our services, with a strong secret where one comes from outside.
fn environments() -> Vec<(String, Vec<(String, String)>)> {
    let compose = compose();
    let services = compose["services"].as_mapping().unwrap();
    let ours = services.iter().filter(|(_, service)| service.get("environment").is_some());
    ours.map(|(name, service)| {
        let settings = service["environment"].as_mapping().unwrap().iter().map(|(name, value)| {
            let value = value.as_str().unwrap();
            let value = if value.starts_with("${") { "c3a1f86b5e0d97423f1c8ab6d5e9047281f63b0ac9d4e75f" } else { value };
            (name.as_str().unwrap().to_owned(), value.to_owned())
        });
        (name.as_str().unwrap().to_owned(), settings.collect())
    })
    .collect()
}

#[test]
fn compose_sets_what_there_is_to_set() {
    let known: BTreeSet<_> = config::table().into_iter().map(|setting| setting.name.to_owned()).collect();
    let services = environments();
    assert_eq!(
        services.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
        ["data-service", "auth-service", "gateway", "jiscord"]
    );
    for (service, settings) in services {
        for (name, _) in &settings {
            assert!(known.contains(name), "{service} sets {name}, which is no setting");
        }
        let config = Config::read(settings.iter().map(|(name, value)| (name.into(), value.into()))).unwrap();
        let entry = service == "jiscord";
        assert!(config.listen.is_unspecified(), "{service}");
        assert_eq!(config.service_token.is_some(), !entry, "{service}");
        assert_eq!(config.jwt_secret.is_some(), !entry && service != "gateway", "{service}");
        // The entry says who asks, and the three believe it.
        let address = compose()["services"]["jiscord"]["networks"]["default"]["ipv4_address"].as_str().unwrap().parse().unwrap();
        assert_eq!(config.trusted_proxies.trusts(address), !entry, "{service}");
        if entry {
            assert_eq!(config.services().unwrap().unwrap().gateway, "http://gateway:3002");
        }
        assert_eq!((config.data_service(), config.auth_service()), ("http://data-service:3001", "http://auth-service:3003"));
    }
}

#[test]
fn services_run_without_root_and_write_nothing() {
    let image = fs::read_to_string(path("deploy/Dockerfile")).unwrap();
    let user = image.lines().filter_map(|line| line.strip_prefix("USER ")).next_back();
    assert!(user.is_some_and(|user| !["root", "0"].contains(&user)), "{user:?}");
    let compose = compose();
    for (name, _) in environments() {
        let service = &compose["services"][&*name];
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(service["cap_drop"][0], "ALL", "{name}");
        assert_eq!(service["security_opt"][0], "no-new-privileges:true", "{name}");
        let more = ["user", "privileged", "cap_add", "volumes", "devices", "pid", "network_mode"];
        assert!(more.iter().all(|key| service.get(key).is_none()), "{name}");
        let (_, port) = service["ports"][0].as_str().unwrap().rsplit_once(':').unwrap();
        assert!(port.parse::<u16>().unwrap() > 1024, "{name}");
    }
}

#[test]
fn compose_has_all_that_services_need() {
    let compose = compose();
    let services = compose["services"].as_mapping().unwrap();
    for (name, port) in [
        ("data-service", Some("3001")),
        ("auth-service", Some("3003")),
        ("gateway", Some("3002")),
        ("jiscord", Some("3000")),
        ("scylla", None),
        ("redis", None),
    ] {
        let service = services.get(name).unwrap_or_else(|| panic!("{name}"));
        match port {
            Some(port) => {
                assert_eq!(service["command"], name);
                assert_eq!(service["ports"][0].as_str().unwrap(), format!("127.0.0.1:{port}:{port}"));
            }
            None => assert!(service.get("ports").is_none(), "{name} is for services alone"),
        }
    }
    assert!(services["redis"]["command"].as_str().unwrap().contains("--maxmemory-policy noeviction"));
}

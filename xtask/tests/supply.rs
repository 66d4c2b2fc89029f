//! What the project is made of is what deny.toml allows. A part of what cargo-deny checks, which everybody can run.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use std::{fs, path::PathBuf, process::Command};

use semver::{Version, VersionReq};
use serde_json::Value as Json;
use spdx::{Expression, Licensee, ParseMode};
use toml::{Table, Value};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn rules() -> Table {
    fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// What deny.toml says.
struct Rules {
    licences: Vec<Licensee>,
    registries: Vec<String>,
    bans: Vec<(String, VersionReq)>,
}

impl Rules {
    fn read() -> Self {
        let rules = rules();
        let licences = texts(&rules["licenses"]["allow"]);
        let banned = |ban: &Value| {
            let ban = ban["crate"].as_str().unwrap();
            let (name, versions) = ban.split_once('@').unwrap_or((ban, "*"));
            (name.to_owned(), versions.parse().unwrap())
        };
        Self {
            licences: licences.into_iter().map(|name| Licensee::parse(name).unwrap()).collect(),
            registries: texts(&rules["sources"]["allow-registry"]).into_iter().map(str::to_owned).collect(),
            bans: rules["bans"]["deny"].as_array().unwrap().iter().map(banned).collect(),
        }
    }

    /// What is wrong with a package, if anything is.
    fn against(&self, package: &Json) -> Option<String> {
        let text = |field: &str| package[field].as_str().unwrap_or_default();
        let (name, version) = (text("name"), Version::parse(text("version")).unwrap());
        let allowed = Expression::parse_mode(text("license"), ParseMode::LAX)
            .is_ok_and(|licence| licence.evaluate(|wanted| self.licences.iter().any(|has| has.satisfies(wanted))));
        if !allowed {
            return Some(format!("{name} {version}: the licence {:?} is not allowed", text("license")));
        }
        // Packages of the workspace have no source.
        let source = text("source");
        if !source.is_empty() && !self.registries.iter().any(|registry| source == format!("registry+{registry}")) {
            return Some(format!("{name} {version}: the source {source:?} is not allowed"));
        }
        let banned = self.bans.iter().find(|(ban, versions)| ban == name && versions.matches(&version));
        banned.map(|(_, versions)| format!("{name} {version}: {versions} is banned"))
    }
}

#[test]
fn what_it_is_made_of_is_allowed() {
    let rules = Rules::read();
    assert!(rules.bans.len() > 30);
    // All that Cargo.lock has, whatever the features: nothing is made of what is not in it.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--all-features", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Json = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let locked = fs::read_to_string(root().join("Cargo.lock")).unwrap().matches("[[package]]").count();
    assert_eq!(packages.len(), locked);
    let problems: Vec<_> = packages.iter().filter_map(|package| rules.against(package)).collect();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn what_is_not_allowed_is_found() {
    let rules = Rules::read();
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    for (name, version, licence, source, allowed) in [
        ("x", "1.0.0", "MIT OR GPL-3.0-only", crates_io, true),
        ("x", "1.0.0", "MIT/Apache-2.0", crates_io, true),
        ("x", "1.0.0", "MIT AND GPL-3.0-only", crates_io, false),
        ("x", "1.0.0", "AGPL-3.0-only", crates_io, false),
        ("x", "1.0.0", "", crates_io, false),
        ("x", "1.0.0", "MIT", "git+https://github.com/x/x#1", false),
        ("x", "1.0.0", "MIT", "registry+https://crates.example/index", false),
        ("openssl", "0.10.75", "MIT", crates_io, false),
        ("tokio", "1.44.1", "MIT", crates_io, false),
        ("tokio", "1.44.2", "MIT", crates_io, true),
        ("rand", "0.9.2", "MIT", crates_io, false),
        ("rand", "0.9.3", "MIT", crates_io, true),
    ] {
        let package = serde_json::json!({ "name": name, "version": version, "license": licence, "source": source });
        assert_eq!(rules.against(&package).is_none(), allowed, "{package}");
    }
}

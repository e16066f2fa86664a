//! Crate edges: which crate may use which, read from the manifests.
//!
//! The arrows are those of the architecture page: proto, storage, broker, cli in one line, proto,
//! client, cli in the other, storage to cli for offline inspection; tests and benches see all. A crate
//! added to the workspace has no edges until it is written down here.

use super::{Finding, tree::Tree};

/// What one crate may use.
struct Room {
    folder: &'static str,
    /// Own crates it may depend on.
    may_use: &'static [&'static str],
    /// Third-party crates that belong to another room, by name or by prefix with `*`.
    never: &'static [&'static str],
}

const ALL: &[&str] = &[
    "riverrun-proto",
    "riverrun-storage",
    "riverrun-broker",
    "riverrun-client",
    "riverrun-cli",
    "riverrun-tests",
];

const ROOMS: [Room; 10] = [
    Room { folder: "proto", may_use: &[], never: &["tokio*", "memmap2", "rustix"] },
    Room {
        folder: "storage",
        may_use: &["riverrun-proto"],
        never: &["tokio*", "tonic*", "prost*", "futures*", "hyper*"],
    },
    Room {
        folder: "broker",
        may_use: &["riverrun-proto", "riverrun-storage"],
        never: &["memmap2", "crc32fast", "clap*", "indicatif"],
    },
    Room {
        folder: "client",
        may_use: &["riverrun-proto"],
        never: &["memmap2", "crc32fast", "clap*"],
    },
    Room {
        folder: "cli",
        may_use: &["riverrun-proto", "riverrun-storage", "riverrun-broker", "riverrun-client"],
        never: &["tonic-*", "prost*", "memmap2"],
    },
    Room { folder: "tests", may_use: ALL, never: &[] },
    Room { folder: "tests/fuzz", may_use: ALL, never: &[] },
    Room { folder: "benches", may_use: ALL, never: &[] },
    Room { folder: "benches/compare", may_use: &["riverrun-proto", "riverrun-client"], never: &[] },
    Room { folder: "xtask", may_use: &[], never: &["*"] },
];

/// One dependency line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    name: String,
    line: usize,
    /// Everything after the name.
    rest: String,
    /// From `[dev-dependencies]`.
    dev: bool,
}

/// The parts of a manifest that the rules look at.
#[derive(Default)]
pub(crate) struct Manifest {
    /// The package's name.
    pub(crate) name: Option<String>,
    dependencies: Vec<Dependency>,
    /// Whether `[lints]` says `workspace = true`.
    workspace_lints: bool,
}

impl Manifest {
    /// Reads a manifest line by line, as far as the rules need it.
    pub(crate) fn parse(text: &str) -> Manifest {
        let mut manifest = Manifest::default();
        let mut section = "";
        for (index, line) in text.lines().enumerate() {
            let line = line.split(" #").next().unwrap_or_default().trim();
            if let Some(header) = line.strip_prefix('[') {
                section = header.trim_matches(['[', ']']);
                manifest.dependency_section(section, index + 1);
            } else if let Some((key, value)) = line.split_once('=') {
                manifest.key(section, (key.trim(), value.trim()), index + 1);
            }
        }
        manifest
    }

    fn key(&mut self, section: &str, (key, value): (&str, &str), line: usize) {
        match (section, key) {
            ("package", "name") => self.name = Some(value.trim_matches('"').to_owned()),
            ("lints", "workspace") => self.workspace_lints = value == "true",
            _ if section.ends_with("dependencies") && !section.starts_with("workspace") => {
                let (name, tail) = key.split_once('.').unwrap_or((key, ""));
                let dev = section.ends_with("dev-dependencies");
                let rest = format!("{tail} = {value}");
                self.dependencies.push(Dependency { name: name.to_owned(), line, rest, dev });
            }
            _ => {
                if let Some(last) = self.dependencies.last_mut()
                    && section.ends_with(&format!("dependencies.{}", last.name))
                {
                    last.rest.push_str(&format!("{key} = {value} "));
                }
            }
        }
    }

    /// `[dependencies.name]` is a dependency too.
    fn dependency_section(&mut self, section: &str, line: usize) {
        let Some((kind, name)) = section.rsplit_once("dependencies.") else { return };
        if !kind.starts_with("workspace") {
            let dev = kind.ends_with("dev-");
            self.dependencies.push(Dependency {
                name: name.to_owned(),
                line,
                rest: String::new(),
                dev,
            });
        }
    }
}

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts("Cargo.toml") {
        let Some(folder) = path.strip_suffix("/Cargo.toml") else { continue };
        match ROOMS.iter().find(|room| room.folder == folder) {
            Some(room) => check_room(room, path, &Manifest::parse(text), &mut findings),
            None => findings.push(Finding::new(
                path,
                0,
                "a new crate: write its edges into xtask/src/tidy/manifest.rs",
            )),
        }
    }
    findings
}

fn check_room(room: &Room, path: &str, manifest: &Manifest, findings: &mut Vec<Finding>) {
    if !manifest.workspace_lints {
        findings.push(Finding::new(path, 0, "needs `[lints] workspace = true`"));
    }
    for dependency in &manifest.dependencies {
        if let Some(message) = room.refuses(dependency) {
            findings.push(Finding::new(path, dependency.line, message));
        }
    }
}

impl Room {
    /// Why the room may not have this dependency.
    fn refuses(&self, dependency: &Dependency) -> Option<String> {
        let name = dependency.name.as_str();
        let own = name.starts_with("riverrun-");
        if own && !self.may_use.contains(&name) {
            return Some(format!(
                "`{}` may not use `{name}`: see docs/architecture.md",
                self.folder
            ));
        }
        if !own && !dependency.dev && self.never.iter().any(|pattern| matches(pattern, name)) {
            return Some(format!(
                "`{name}` has no place in `{}`: see docs/architecture.md",
                self.folder
            ));
        }
        if self.folder == "storage" && own && dependency.rest.contains("\"grpc\"") {
            return Some("`storage` never turns on the feature `grpc`".to_owned());
        }
        if !dependency.rest.contains("workspace = true") {
            return Some(format!(
                "take the version of `{name}` from the workspace: `workspace = true`"
            ));
        }
        None
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINTS: &str = "[lints]\nworkspace = true\n";

    /// Expects a finding about `word` for this manifest, or none when `word` is empty.
    #[track_caller]
    fn finds(folder: &str, text: &str, word: &str) {
        let text = format!("{LINTS}{text}");
        let findings = check(&Tree::of(&[(&format!("{folder}/Cargo.toml"), &text)]));
        match word {
            "" => assert_eq!(findings, []),
            word => assert!(findings.iter().any(|f| f.message.contains(word)), "{findings:?}"),
        }
    }

    #[test]
    fn edges_against_the_arrows_are_found() {
        finds("storage", "[dependencies]\nriverrun-broker.workspace = true\n", "riverrun-broker");
        finds(
            "storage",
            "[dev-dependencies]\nriverrun-client.workspace = true\n",
            "riverrun-client",
        );
        finds(
            "client",
            "[dependencies]\nriverrun-storage = { workspace = true }\n",
            "riverrun-storage",
        );
        finds("client", "[dependencies.riverrun-broker]\nworkspace = true\n", "riverrun-broker");
        finds("proto", "[dependencies]\nriverrun-storage.workspace = true\n", "riverrun-storage");
        finds("broker", "[build-dependencies]\nriverrun-cli.workspace = true\n", "riverrun-cli");
    }

    #[test]
    fn crates_of_another_room_are_found() {
        finds("storage", "[dependencies]\ntokio.workspace = true\n", "tokio");
        finds("storage", "[dependencies]\ntonic-prost.workspace = true\n", "tonic-prost");
        finds("storage", "[target.'cfg(unix)'.dependencies]\ntonic.workspace = true\n", "tonic");
        finds("broker", "[dependencies]\nmemmap2.workspace = true\n", "memmap2");
        finds("xtask", "[dependencies]\nserde.workspace = true\n", "serde");
        finds(
            "storage",
            "[dependencies]\nriverrun-proto = { workspace = true, features = [\"grpc\"] }\n",
            "grpc",
        );
    }

    #[test]
    fn own_versions_missing_lints_and_unknown_crates_are_found() {
        finds("broker", "[dependencies]\nbytes = \"1\"\n", "bytes");
        finds("common", "[package]\nname = \"riverrun-common\"\n", "new crate");
        let bare = Tree::of(&[("broker/Cargo.toml", "[package]\n")]);
        assert_eq!(check(&bare).len(), 1);
    }

    #[test]
    fn the_arrows_themselves_pass() {
        let broker = "[package]\nname = \"riverrun-broker\"\n[features]\nsim = []\n[dependencies]\n\
            riverrun-storage.workspace = true\ntokio = { workspace = true, features = [\"rt\"] }\n\
            [dependencies.riverrun-proto]\nworkspace = true\nfeatures = [\"grpc\"]\n";
        finds("broker", broker, "");
        finds("tests", "[dependencies]\nriverrun-broker.workspace = true\n", "");
    }
}

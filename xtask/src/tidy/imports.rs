//! Who may import whom, from `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Violation;

/// What a crate may import of our own, as `docs/ARCHITECTURE.md` has it: the one place where the
/// table is written as data. A trailing `/*` stands for every crate of that folder.
const IMPORTS: &[(&str, &[&str])] = &[
    ("core/model", &[]),
    ("core/rtp", &["core/model"]),
    ("core/srtp", &["core/model", "core/rtp"]),
    ("core/sdp", &["core/model", "core/rtp"]),
    ("core/congestion", &["core/model", "core/rtp"]),
    ("core/transport", &["core/model"]),
    ("core/turn", &["core/model"]),
    ("core/sfu", &["core/model", "core/rtp", "core/srtp", "core/congestion", "core/transport"]),
    ("core/room", &["core/model"]),
    ("core/agents", &["core/model"]),
    ("core/catalog", &[]),
    ("core/signal", &["core/model", "core/room"]),
    ("core/cluster", &["core/model"]),
    // Of sfu its command and event types only, which a review has to see.
    (
        "core/node",
        &[
            "core/model",
            "core/room",
            "core/agents",
            "core/catalog",
            "core/signal",
            "core/sdp",
            "core/cluster",
            "core/sfu",
        ],
    ),
    (
        "core/client",
        &["core/model", "core/rtp", "core/srtp", "core/sdp", "core/transport", "core/congestion"],
    ),
    ("io/net", &["core/model"]),
    ("io/ring", &[]),
    ("io/workers", &["core/model", "core/sfu", "io/net", "io/ring"]),
    (
        "io/gateway",
        &[
            "core/model",
            "core/node",
            "core/room",
            "core/signal",
            "core/sfu",
            "io/config",
            "io/ring",
        ],
    ),
    ("io/config", &["core/model"]),
    (
        "io/load",
        &[
            "core/model",
            "core/rtp",
            "core/client",
            "core/signal",
            "core/transport",
            "io/net",
            "io/ring",
        ],
    ),
    ("io/metrics", &[]),
    ("io/storage", &[]),
    ("io/webhook", &["core/model", "core/signal", "io/storage"]),
    ("apps/parlor", &["core/*", "io/*"]),
    ("test/bench", &["core/*", "io/*"]),
    ("test/checker", &["core/model", "core/rtp", "core/srtp", "core/sdp", "core/sfu"]),
    ("test/netem", &["core/model"]),
    ("test/player", &["core/*", "test/checker"]),
    ("test/fuzz", &["core/*", "io/*"]),
    ("test/simulator", &["core/*", "test/*"]),
    ("xtask", &[]),
];

/// What `core/` may not name as a dependency, of whatever kind.
const FORBIDDEN_IN_CORE: &[(&str, &str)] = &[
    ("tokio", "core/ never awaits"),
    ("async-std", "core/ never awaits"),
    ("smol", "core/ never awaits"),
    ("mio", "core/ has no sockets"),
    ("socket2", "core/ has no sockets"),
    ("libc", "core/ makes no system calls"),
    ("nix", "core/ makes no system calls"),
    ("rustix", "core/ makes no system calls"),
    ("getrandom", "randomness is an argument"),
    ("fastrand", "randomness is an argument"),
    ("rayon", "core/ starts no threads"),
    ("crossbeam", "core/ starts no threads"),
    ("crossbeam-channel", "core/ starts no threads"),
    ("parking_lot", "core/ has no locks"),
    ("chrono", "time is an argument"),
];

/// LiveKit's messages stop at the signal sessions, the API and the client: rooms and media know
/// their own nouns only. The catalog keeps such messages as they are.
const PROTOBUF: &[&str] = &["livekit-protocol", "prost", "prost-types", "pbjson", "pbjson-types"];
const PROTOBUF_ROOMS: &[&str] = &["core/signal", "core/node", "core/client", "core/catalog"];

/// What may not be reached from `core/` through other dependencies either.
const FORBIDDEN_BELOW_CORE: &[&str] = &["tokio", "async-std", "smol", "mio", "socket2"];

/// One dependency of a package.
#[derive(Clone, Debug)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// Is it only for tests, benches and examples?
    pub dev: bool,
}

/// One package of ours.
#[derive(Clone, Debug)]
pub struct Package {
    /// Its name, such as `parlor-rtp`.
    pub name: String,
    /// Its folder, such as `core/rtp`.
    pub room: String,
    /// What its manifest names.
    pub dependencies: Vec<Dependency>,
    /// Names of all packages that a build of it links, its own left out.
    pub links: BTreeSet<String>,
    /// The roots of its libraries and binaries, as paths in the repository.
    pub roots: Vec<String>,
}

/// The packages of the workspace.
#[derive(Clone, Debug, Default)]
pub struct Workspace {
    /// In the order of `cargo metadata`.
    pub packages: Vec<Package>,
}

impl Workspace {
    /// Reads what `cargo metadata --format-version 1` prints.
    pub fn from_metadata(metadata: &Value) -> Result<Workspace, String> {
        let root = text(metadata, "workspace_root")?;
        let members: BTreeSet<&str> = strings(&metadata["workspace_members"]).collect();
        let names: BTreeMap<&str, &str> = list(&metadata["packages"])
            .map(|p| Ok((text(p, "id")?, text(p, "name")?)))
            .collect::<Result<_, String>>()?;
        let graph = normal_graph(metadata)?;
        let mut packages = Vec::new();
        for package in list(&metadata["packages"]) {
            let id = text(package, "id")?;
            if !members.contains(id) {
                continue;
            }
            let manifest = text(package, "manifest_path")?;
            let room =
                relative(root, manifest).trim_end_matches("Cargo.toml").trim_end_matches('/');
            let dependencies =
                list(&package["dependencies"]).map(dependency).collect::<Result<_, _>>()?;
            let targets = list(&package["targets"]).filter(|target| is_root(target));
            packages.push(Package {
                name: text(package, "name")?.to_string(),
                room: room.to_string(),
                dependencies,
                links: reachable(id, &graph)
                    .iter()
                    .filter_map(|id| names.get(id))
                    .map(|n| n.to_string())
                    .collect(),
                roots: targets
                    .map(|t| Ok(relative(root, text(t, "src_path")?).to_string()))
                    .collect::<Result<_, String>>()?,
            });
        }
        Ok(Workspace { packages })
    }

    /// The roots of every library and binary.
    pub fn crate_roots(&self) -> Vec<String> {
        self.packages.iter().flat_map(|package| package.roots.iter().cloned()).collect()
    }
}

/// The import table, the dependencies that `core/` may not have, and that nothing imports `apps/`.
pub fn check(workspace: &Workspace) -> Vec<Violation> {
    let rooms: BTreeMap<&str, &str> =
        workspace.packages.iter().map(|p| (p.name.as_str(), p.room.as_str())).collect();
    let mut violations = Vec::new();
    for package in &workspace.packages {
        let Some((_, allowed)) = IMPORTS.iter().find(|(room, _)| *room == package.room) else {
            violations.push(Violation::new(
                "import",
                &package.room,
                "this crate has no row in the import table (xtask/src/tidy/imports.rs)",
            ));
            continue;
        };
        for dependency in &package.dependencies {
            match rooms.get(dependency.name.as_str()) {
                Some(target) => violations.extend(own(package, target, dependency.dev, allowed)),
                None => violations.extend(external(package, dependency)),
            }
        }
        violations.extend(below(package));
    }
    violations
}

fn own(package: &Package, target: &str, dev: bool, allowed: &[&str]) -> Option<Violation> {
    if target.starts_with("apps/") {
        return Some(Violation::new(
            "import",
            &package.room,
            format!("nothing imports apps, not even {target}"),
        ));
    }
    // Tests of a core crate may stand any other core crate, or a test crate, beside it.
    let fits = |pattern: &str| match pattern.strip_suffix("/*") {
        Some(folder) => target.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
        None => target == pattern,
    };
    let for_tests = dev && (fits("core/*") || fits("test/*") || !package.room.starts_with("core/"));
    if for_tests || allowed.iter().any(|pattern| fits(pattern)) {
        return None;
    }
    Some(Violation::new(
        "import",
        &package.room,
        format!("may not import {target} (docs/ARCHITECTURE.md, who may import whom)"),
    ))
}

fn external(package: &Package, dependency: &Dependency) -> Option<Violation> {
    if !package.room.starts_with("core/") {
        return None;
    }
    let protobuf = PROTOBUF.contains(&dependency.name.as_str()) && !dependency.dev;
    if protobuf && !PROTOBUF_ROOMS.contains(&package.room.as_str()) {
        let message =
            format!("depends on {}: protobuf belongs to {PROTOBUF_ROOMS:?}", dependency.name);
        return Some(Violation::new("forbidden-dependency", &package.room, message));
    }
    let (name, why) = FORBIDDEN_IN_CORE.iter().find(|(name, _)| *name == dependency.name)?;
    Some(Violation::new("forbidden-dependency", &package.room, format!("depends on {name}: {why}")))
}

fn below(package: &Package) -> Vec<Violation> {
    let forbidden = FORBIDDEN_BELOW_CORE.iter().filter(|name| package.links.contains(**name));
    if !package.room.starts_with("core/") {
        return Vec::new();
    }
    forbidden
        .map(|name| {
            Violation::new(
                "forbidden-dependency",
                &package.room,
                format!("links {name} through one of its dependencies"),
            )
        })
        .collect()
}

/// For each package id, the ids that it links when it is built, dev-dependencies left out.
fn normal_graph(metadata: &Value) -> Result<BTreeMap<&str, Vec<&str>>, String> {
    let mut graph = BTreeMap::new();
    for node in list(&metadata["resolve"]["nodes"]) {
        let mut linked = Vec::new();
        for dependency in list(&node["deps"]) {
            // `kind` is null for a normal dependency.
            if list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null()) {
                linked.push(text(dependency, "pkg")?);
            }
        }
        graph.insert(text(node, "id")?, linked);
    }
    Ok(graph)
}

fn reachable<'a>(from: &'a str, graph: &BTreeMap<&'a str, Vec<&'a str>>) -> BTreeSet<&'a str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![from];
    while let Some(id) = open.pop() {
        for next in graph.get(id).into_iter().flatten() {
            if seen.insert(*next) {
                open.push(next);
            }
        }
    }
    seen
}

fn dependency(value: &Value) -> Result<Dependency, String> {
    Ok(Dependency { name: text(value, "name")?.to_string(), dev: value["kind"] == "dev" })
}

fn is_root(target: &Value) -> bool {
    strings(&target["kind"])
        .any(|kind| matches!(kind, "lib" | "rlib" | "bin" | "cdylib" | "proc-macro"))
}

fn relative<'a>(root: &str, path: &'a str) -> &'a str {
    path.strip_prefix(root).unwrap_or(path).trim_start_matches('/')
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value[field].as_str().ok_or_else(|| format!("cargo metadata has no {field}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(room: &str, dependencies: &[&str]) -> Package {
        let name = if room == "apps/parlor" {
            "parlor".to_string()
        } else {
            format!("parlor-{}", room.rsplit('/').next().unwrap())
        };
        let dependencies = dependencies
            .iter()
            .map(|name| Dependency { name: name.to_string(), dev: false })
            .collect();
        Package {
            name,
            room: room.to_string(),
            dependencies,
            links: BTreeSet::new(),
            roots: Vec::new(),
        }
    }

    fn all(packages: Vec<Package>) -> Vec<String> {
        check(&Workspace { packages }).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_import_of_the_table_passes_and_one_beside_it_fails() {
        assert!(
            all(vec![package("core/model", &[]), package("core/rtp", &["parlor-model", "bytes"])])
                .is_empty()
        );
        let broken = all(vec![package("core/room", &[]), package("core/sfu", &["parlor-room"])]);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].starts_with("core/sfu: [import] may not import core/room"), "{broken:?}");
    }

    #[test]
    fn a_client_never_sees_the_server() {
        for server in ["node", "room", "sfu"] {
            let server_room = format!("core/{server}");
            let broken = all(vec![
                package(&server_room, &[]),
                package("core/client", &[&format!("parlor-{server}")]),
            ]);
            assert!(broken[0].contains("[import]"), "{broken:?}");
        }
    }

    #[test]
    fn nothing_imports_apps_not_even_a_test() {
        let mut simulator = package("test/simulator", &["parlor"]);
        simulator.dependencies[0].dev = true;
        let broken = all(vec![package("apps/parlor", &[]), simulator]);
        assert!(broken[0].contains("[import] nothing imports apps"), "{broken:?}");
    }

    #[test]
    fn tests_of_core_may_import_core_but_not_io() {
        let mut sfu = package("core/sfu", &["parlor-client", "parlor-gateway"]);
        sfu.dependencies.iter_mut().for_each(|dependency| dependency.dev = true);
        let broken = all(vec![package("core/client", &[]), package("io/gateway", &[]), sfu]);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].contains("may not import io/gateway"), "{broken:?}");
    }

    #[test]
    fn core_may_not_name_a_runtime_a_socket_or_randomness() {
        for (name, _) in FORBIDDEN_IN_CORE {
            let broken = all(vec![package("core/rtp", &[name])]);
            assert!(
                broken[0].contains(&format!("[forbidden-dependency] depends on {name}")),
                "{broken:?}"
            );
            assert!(all(vec![package("io/net", &[name])]).is_empty());
        }
    }

    #[test]
    fn rooms_and_media_never_see_protobuf() {
        for room in ["core/sfu", "core/room", "core/model", "core/sdp"] {
            let broken = all(vec![package(room, &["livekit-protocol"])]);
            assert!(
                broken[0].contains("[forbidden-dependency] depends on livekit-protocol"),
                "{broken:?}"
            );
        }
        assert!(all(vec![package("core/signal", &["livekit-protocol", "prost"])]).is_empty());
    }

    #[test]
    fn core_may_not_reach_a_runtime_through_another_crate() {
        let mut transport = package("core/transport", &["innocent"]);
        transport.links.insert("tokio".to_string());
        let broken = all(vec![transport]);
        assert!(broken[0].contains("[forbidden-dependency] links tokio"), "{broken:?}");
    }

    #[test]
    fn a_crate_without_a_row_fails() {
        let broken = all(vec![package("core/whatever", &[])]);
        assert!(broken[0].contains("[import] this crate has no row"), "{broken:?}");
    }

    #[test]
    fn metadata_is_read_dev_dependencies_apart() {
        let metadata = serde_json::json!({
            "workspace_root": "/w",
            "workspace_members": ["a"],
            "packages": [
                {"id": "a", "name": "parlor-rtp", "manifest_path": "/w/core/rtp/Cargo.toml",
                 "targets": [{"kind": ["lib"], "src_path": "/w/core/rtp/src/lib.rs"},
                             {"kind": ["test"], "src_path": "/w/core/rtp/tests/t.rs"}],
                 "dependencies": [{"name": "middle", "kind": null}, {"name": "dev", "kind": "dev"}]},
                {"id": "m", "name": "middle"}, {"id": "t", "name": "tokio"}, {"id": "d", "name": "mio"},
            ],
            "resolve": {"nodes": [
                {"id": "a", "deps": [{"pkg": "m", "dep_kinds": [{"kind": null}]},
                                     {"pkg": "d", "dep_kinds": [{"kind": "dev"}]}]},
                {"id": "m", "deps": [{"pkg": "t", "dep_kinds": [{"kind": null}]}]},
            ]},
        });
        let workspace = Workspace::from_metadata(&metadata).unwrap();
        assert_eq!(workspace.crate_roots(), ["core/rtp/src/lib.rs"]);
        let broken = check(&workspace);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert!(broken[0].message.contains("links tokio"), "{broken:?}");
    }
}

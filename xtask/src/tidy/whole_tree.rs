//! A small workspace that breaks every rule at once, so that the wiring from `cargo metadata` and
//! git to each rule is proven as well, not only the rules.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::check;

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str, files: &[(&str, &str)]) -> Tree {
        let root = std::env::temp_dir().join(format!("parlor-tidy-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        run(&root, "git", &["init", "--quiet"]);
        run(&root, "cargo", &["generate-lockfile", "--offline", "--quiet"]);
        Tree(root.canonicalize().unwrap())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(root: &Path, program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).current_dir(root).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}

fn manifest(name: &str, licence: &str, dependencies: &str) -> String {
    format!(
        "[package]\nname = {name:?}\nversion = \"0.1.0\"\nedition = \"2024\"\nlicense = {licence:?}\n\
         [dependencies]\n{dependencies}"
    )
}

const WORKSPACE: &str =
    "[workspace]\nresolver = \"2\"\nmembers = [\"core/*\", \"apps/*\"]\nexclude = [\"outside\"]\n";
const DENY: &str = "[licenses]\nallow = [\"Apache-2.0\"]\n";

#[test]
fn a_tree_that_breaks_every_rule_is_told_each_by_name() {
    let rtp = manifest(
        "parlor-rtp",
        "Apache-2.0",
        "parlor-room = { path = \"../room\" }\nparlor = { path = \"../../apps/parlor\" }\ntokio = { path = \"../../outside/tokio\" }\n",
    );
    let room =
        manifest("parlor-room", "Apache-2.0", "middle = { path = \"../../outside/middle\" }\n");
    let parlor = manifest("parlor", "Apache-2.0", "");
    let tokio = manifest("tokio", "AGPL-3.0-only", "");
    let middle = manifest("middle", "Apache-2.0", "tokio = { path = \"../tokio\" }\n");
    let tree = Tree::new(
        "broken",
        &[
            ("Cargo.toml", WORKSPACE),
            ("deny.toml", DENY),
            ("docs/ARCHITECTURE.md", "`core/rtp/src/lib.rs::a`, then `core/rtp/src/gone.rs`\n"),
            ("core/rtp/Cargo.toml", &rtp),
            (
                "core/rtp/src/lib.rs",
                "fn a() { unsafe {} }\nfn b() { std::time::Instant::now(); }\n",
            ),
            ("core/room/Cargo.toml", &room),
            ("core/room/src/lib.rs", "#![forbid(unsafe_code)]\n"),
            ("apps/parlor/Cargo.toml", &parlor),
            ("apps/parlor/src/lib.rs", "#![forbid(unsafe_code)]\n"),
            ("outside/tokio/Cargo.toml", &tokio),
            ("outside/tokio/src/lib.rs", ""),
            ("outside/middle/Cargo.toml", &middle),
            ("outside/middle/src/lib.rs", ""),
            ("web/package-lock.json", "{\n\"resolved\": \"https://npm.example/a.tgz\"\n}\n"),
        ],
    );
    let found: Vec<String> = check(&tree.0).unwrap().iter().map(ToString::to_string).collect();
    let expected = [
        "core/rtp: [import] may not import core/room",
        "core/rtp: [import] nothing imports apps",
        "core/rtp: [forbidden-dependency] depends on tokio",
        "core/room: [forbidden-dependency] links tokio",
        "core/rtp/src/lib.rs:1: [unsafe]",
        "core/rtp/src/lib.rs: [forbid-unsafe]",
        "core/rtp/src/lib.rs:2: [banned-call] std::time::Instant::now",
        "docs/ARCHITECTURE.md:1: [page] core/rtp/src/gone.rs does not exist",
        "tokio 0.1.0: [licence] AGPL-3.0-only is not allowed",
        "web/package-lock.json:2: [registry-host]",
    ];
    for start in expected {
        assert!(found.iter().any(|line| line.starts_with(start)), "{start}\nfound: {found:#?}");
    }
}

#[test]
fn a_tree_that_keeps_the_rules_is_left_alone() {
    let rtp = manifest("parlor-rtp", "Apache-2.0", "parlor-model = { path = \"../model\" }\n");
    let model = manifest("parlor-model", "Apache-2.0", "");
    let tree = Tree::new(
        "kept",
        &[
            ("Cargo.toml", "[workspace]\nresolver = \"2\"\nmembers = [\"core/*\"]\n"),
            ("deny.toml", DENY),
            ("core/rtp/Cargo.toml", &rtp),
            ("core/rtp/src/lib.rs", "#![forbid(unsafe_code)]\n"),
            ("core/model/Cargo.toml", &model),
            ("core/model/src/lib.rs", "#![forbid(unsafe_code)]\n"),
        ],
    );
    assert_eq!(check(&tree.0).unwrap(), []);
}

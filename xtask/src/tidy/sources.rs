//! What a Rust source may say: `unsafe`, and the calls that `core/` may not make.

use std::collections::BTreeSet;

use super::Violation;
use super::source::{Mention, blank, line, mentions, tests};

/// The only crates with `unsafe`.
const UNSAFE_ROOMS: &[&str] = &["io/net/", "io/ring/"];

/// Paths that `core/` may not mention: consecutive segments, the reason, and whether its tests may.
const BANNED_IN_CORE: &[(&[&str], &str, bool)] = &[
    // As the base of a test's virtual time.
    (&["Instant", "now"], "time is an argument: take `now`", true),
    (&["SystemTime"], "time is an argument: take `now`", false),
    (&["std", "thread"], "core/ starts no threads", false),
    (&["UdpSocket"], "core/ has no sockets", false),
    (&["TcpStream"], "core/ has no sockets", false),
    (&["TcpListener"], "core/ has no sockets", false),
    (&["rand", "rng"], "randomness is an argument: take a seed or an rng", false),
    (&["rand", "random"], "randomness is an argument: take a seed or an rng", false),
    (&["thread_rng"], "randomness is an argument: take a seed or an rng", false),
    (&["ThreadRng"], "randomness is an argument: take a seed or an rng", false),
    (&["OsRng"], "randomness is an argument: take a seed or an rng", false),
    (&["SysRng"], "randomness is an argument: take a seed or an rng", false),
    (&["getrandom"], "randomness is an argument: take a seed or an rng", false),
    (&["fastrand"], "randomness is an argument: take a seed or an rng", false),
    (&["RandomState"], "randomness is an argument: take a seed or an rng", false),
    (&["tokio"], "core/ never awaits", false),
    (&["std", "fs"], "core/ reads no files", true),
    (&["std", "env"], "configuration is an argument", true),
    (&["println!"], "core/ prints nothing", true),
    (&["eprintln!"], "core/ prints nothing", true),
    (&["print!"], "core/ prints nothing", true),
    (&["eprint!"], "core/ prints nothing", true),
    (&["dbg!"], "core/ prints nothing", false),
];

/// Methods that `core/` may not call: the same number comes out on every machine only of `libm`.
const BANNED_METHODS_IN_CORE: &[&str] = &[
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "cos", "cosh", "exp",
    "exp2", "exp_m1", "hypot", "ln", "ln_1p", "log", "log10", "log2", "powf", "powi", "sin",
    "sin_cos", "sinh", "tan", "tanh",
];

/// A Rust source of ours.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Its path in the repository.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// `unsafe` where it may not be, crate roots that do not forbid it, and banned calls in `core/`.
pub fn check(sources: &[SourceFile], crate_roots: &[String]) -> Vec<Violation> {
    let test_files: BTreeSet<String> = sources.iter().flat_map(test_modules).collect();
    let mut violations = Vec::new();
    for source in sources {
        let blanked = blank(&source.text);
        let mentions = mentions(&blanked);
        if !UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room)) {
            violations.extend(unsafe_code(source, &mentions));
            if crate_roots.contains(&source.path) {
                violations.extend(missing_forbid(source, &blanked));
            }
        }
        if source.path.starts_with("core/") {
            let is_test = is_test_path(&source.path) || test_files.contains(&source.path);
            violations.extend(banned_calls(source, &blanked, &mentions, is_test));
            if !is_test {
                violations.extend(banned_methods(source, &blanked));
            }
        }
    }
    violations
}

fn unsafe_code(source: &SourceFile, mentions: &[Mention]) -> Vec<Violation> {
    let found = mentions.iter().filter(|mention| mention.segments == ["unsafe"]);
    found
        .map(|mention| {
            Violation::new(
                "unsafe",
                place(source, mention.offset),
                "`unsafe` lives in io/net and io/ring only",
            )
        })
        .collect()
}

fn missing_forbid(source: &SourceFile, blanked: &str) -> Option<Violation> {
    let compact: String = blanked.split_whitespace().collect();
    let forbids = compact.split("#![forbid(").skip(1).any(|rest| {
        rest.split(')')
            .next()
            .is_some_and(|lints| lints.split(',').any(|lint| lint == "unsafe_code"))
    });
    if forbids {
        return None;
    }
    Some(Violation::new(
        "forbid-unsafe",
        &source.path,
        "a crate root begins with #![forbid(unsafe_code)]",
    ))
}

fn banned_calls(
    source: &SourceFile,
    blanked: &str,
    mentions: &[Mention],
    is_test: bool,
) -> Vec<Violation> {
    let (test_ranges, _) = tests(blanked);
    let mut violations = Vec::new();
    for mention in mentions {
        let in_test = is_test || test_ranges.iter().any(|range| range.contains(&mention.offset));
        let written = mention.segments.join("::");
        for (path, why, allowed_in_tests) in BANNED_IN_CORE {
            if contains(&mention.segments, path) && !(in_test && *allowed_in_tests) {
                violations.push(Violation::new(
                    "banned-call",
                    place(source, mention.offset),
                    format!("{written}: {why}"),
                ));
            }
        }
        if mention.segments.last().is_some_and(|last| last == "Instant")
            && mention.renamed.is_some()
        {
            let message = format!("{written}: a renamed Instant hides the clock");
            violations.push(Violation::new("banned-call", place(source, mention.offset), message));
        }
    }
    violations
}

fn banned_methods(source: &SourceFile, blanked: &str) -> Vec<Violation> {
    let (test_ranges, _) = tests(blanked);
    let mut violations = Vec::new();
    for name in BANNED_METHODS_IN_CORE {
        for (offset, found) in blanked.match_indices(&format!(".{name}(")) {
            if !test_ranges.iter().any(|range| range.contains(&offset)) {
                let message = format!("{found}): differs from machine to machine: take `libm`");
                violations.push(Violation::new("banned-call", place(source, offset), message));
            }
        }
    }
    violations
}

/// Does `path` occur in `segments`? A path that starts at a crate's name has to start there.
fn contains(segments: &[String], path: &[&str]) -> bool {
    let starts = matches!(path[0], "std" | "rand" | "tokio" | "getrandom" | "fastrand");
    let mut windows = segments.windows(path.len());
    if starts && segments.len() == 1 {
        // A field or variable of that name: a crate's name alone does nothing.
        return false;
    }
    if starts {
        windows.next().is_some_and(|window| window == path)
    } else {
        windows.any(|window| window == path)
    }
}

fn is_test_path(path: &str) -> bool {
    ["/tests/", "/benches/", "/examples/"].iter().any(|folder| path.contains(folder))
}

/// The files that a source declares as modules for tests only.
fn test_modules(source: &SourceFile) -> Vec<String> {
    let (_, modules) = tests(&blank(&source.text));
    let (folder, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let stem = name.trim_end_matches(".rs");
    let folder = match stem {
        "lib" | "main" | "mod" => folder.to_string(),
        _ => format!("{folder}/{stem}"),
    };
    modules
        .iter()
        .flat_map(|module| [format!("{folder}/{module}.rs"), format!("{folder}/{module}/mod.rs")])
        .collect()
}

fn place(source: &SourceFile, offset: usize) -> String {
    format!("{}:{}", source.path, line(&source.text, offset))
}

#[cfg(test)]
mod unit {
    use super::*;

    fn broken(path: &str, text: &str) -> Vec<String> {
        let source = SourceFile { path: path.to_string(), text: text.to_string() };
        check(&[source], &[]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unsafe_is_found_outside_its_two_crates() {
        let code = "fn a() {}\nfn b() { unsafe { a() } }";
        assert_eq!(
            broken("core/rtp/src/a.rs", code),
            ["core/rtp/src/a.rs:2: [unsafe] `unsafe` lives in io/net and io/ring only"]
        );
        assert_eq!(broken("apps/parlor/src/main.rs", "unsafe impl Send for A {}").len(), 1);
        assert!(broken("io/net/src/lib.rs", code).is_empty());
        assert!(broken("io/ring/src/lib.rs", code).is_empty());
        assert!(broken("core/rtp/src/a.rs", "// unsafe\nconst A: &str = \"unsafe\";").is_empty());
    }

    #[test]
    fn a_crate_root_forbids_unsafe_code() {
        let roots = ["core/rtp/src/lib.rs".to_string(), "io/net/src/lib.rs".to_string()];
        let with = |path: &str, text: &str| {
            check(&[SourceFile { path: path.to_string(), text: text.to_string() }], &roots)
        };
        assert_eq!(
            with("core/rtp/src/lib.rs", "//! #![forbid(unsafe_code)]")[0].rule,
            "forbid-unsafe"
        );
        assert_eq!(with("core/rtp/src/lib.rs", "#![deny(unsafe_code)]")[0].rule, "forbid-unsafe");
        assert!(with("core/rtp/src/lib.rs", "//! A.\n#![forbid(unsafe_code)]").is_empty());
        assert!(with("core/rtp/src/lib.rs", "#![forbid(missing_docs, unsafe_code)]").is_empty());
        assert!(with("core/rtp/src/other.rs", "").is_empty());
        assert!(with("io/net/src/lib.rs", "").is_empty());
    }

    #[test]
    fn each_banned_call_is_found_in_core_and_nowhere_else() {
        let snippets = [
            "let now = Instant::now();",
            "let now = std::time::Instant::now();",
            "use std::time::SystemTime;",
            "use std::{thread, time::Duration};",
            "std::thread::spawn(f);",
            "use std::net::{IpAddr, UdpSocket};",
            "std::net::TcpStream::connect(a);",
            "use std::net::TcpListener;",
            "let mut rng = rand::rng();",
            "use rand::{rng, Rng};",
            "let x: u8 = rand::random();",
            "rand::thread_rng();",
            "use rand::rngs::ThreadRng;",
            "use rand::rngs::OsRng;",
            "getrandom::fill(&mut a);",
            "fastrand::u8(..);",
            "use tokio::net::UdpSocket as S;",
            "tokio::spawn(f);",
            "std::fs::read(a);",
            "use std::env;",
            "println!(\"a\");",
            "eprintln!(\"a\");",
            "dbg!(a);",
            "use std::time::Instant as Clock;",
        ];
        for snippet in snippets {
            let code = format!("fn a() {{\n{snippet}\n}}");
            let found = broken("core/sfu/src/a.rs", &code);
            assert!(
                found.iter().any(|f| f.starts_with("core/sfu/src/a.rs:2: [banned-call]")),
                "{snippet}: {found:?}"
            );
            assert!(broken("io/workers/src/a.rs", &code).is_empty(), "{snippet}");
        }
    }

    #[test]
    fn what_the_platform_computes_in_its_own_way_is_found_in_core() {
        let code = "fn a(b: f64) { b.ln(); b.powf(2.0); libm::log(b); b.sqrt(); c.explain(); }";
        let found = broken("core/sfu/src/a.rs", code);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(broken("io/net/src/a.rs", code).is_empty());
        assert!(broken("core/sfu/tests/a.rs", code).is_empty());
    }

    #[test]
    fn what_looks_like_a_banned_call_but_is_none_passes() {
        let fine = [
            "//! let now = Instant::now();",
            "/// use std::fs;\nfn a() {}",
            "const A: &str = \"println!(tokio::spawn)\";",
            "use std::time::Instant; fn a(now: Instant) {}",
            "fn a(rng: &mut impl rand::Rng) { self.rng(); }",
            "const A: &str = env!(\"CARGO_PKG_NAME\");",
            "struct B { tokio: u8 } fn b(b: B) { b.tokio; }",
        ];
        for code in fine {
            assert_eq!(broken("core/sfu/src/a.rs", code), Vec::<String>::new(), "{code}");
        }
    }

    #[test]
    fn a_test_may_take_a_base_for_its_virtual_time_but_not_randomness() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\nfn b() { Instant::now(); println!(); std::fs::read(a); }\n}";
        assert!(broken("core/sfu/src/a.rs", code).is_empty());
        assert_eq!(
            broken("core/sfu/src/a.rs", "#[cfg(test)]\nmod tests { fn b() { rand::rng(); } }")
                .len(),
            1
        );
        assert_eq!(
            broken("core/sfu/src/a.rs", "#[cfg(not(test))]\nfn b() { Instant::now(); }").len(),
            1
        );
        assert!(broken("core/sfu/tests/a.rs", "fn a() { Instant::now(); }").is_empty());
        assert_eq!(broken("core/sfu/tests/a.rs", "fn a() { SystemTime::now(); }").len(), 1);
    }

    #[test]
    fn a_module_that_is_a_file_for_tests_is_a_test() {
        let files = |parent: &str, child: &str| {
            let parent = SourceFile {
                path: parent.to_string(),
                text: "#[cfg(test)]\nmod tests;".to_string(),
            };
            let child = SourceFile {
                path: child.to_string(),
                text: "fn a() { Instant::now(); }".to_string(),
            };
            check(&[parent, child], &[]).len()
        };
        assert_eq!(files("core/sfu/src/lib.rs", "core/sfu/src/tests.rs"), 0);
        assert_eq!(files("core/sfu/src/route.rs", "core/sfu/src/route/tests.rs"), 0);
        assert_eq!(files("core/sfu/src/lib.rs", "core/sfu/src/other.rs"), 1);
    }
}

//! No committed file says where packages are downloaded from: that is a machine's own setting.

use super::Violation;

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Is this a file that a package tool reads?
pub fn concerns(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "package-lock.json" | ".npmrc" | "Cargo.lock" | "pip.conf")
        || path.ends_with(".cargo/config.toml")
        || (name.starts_with("requirements") && name.ends_with(".txt"))
}

/// The lines of `text` that name a registry.
pub fn check(path: &str, text: &str) -> Vec<Violation> {
    let lines = text.lines().enumerate().filter(|(_, line)| names_registry(path, line.trim()));
    lines
        .map(|(index, line)| {
            let place = format!("{path}:{}", index + 1);
            Violation::new("registry-host", place, format!("names a registry: {}", line.trim()))
        })
        .collect()
}

fn names_registry(path: &str, line: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name {
        "package-lock.json" => line.starts_with("\"resolved\"") && line.contains("://"),
        ".npmrc" => line.contains("registry=") || line.contains("_authToken"),
        "Cargo.lock" => line.starts_with("source = ") && !line.contains(CRATES_IO),
        "config.toml" => {
            line.starts_with("[source")
                || line.starts_with("[registries")
                || line.contains("registry =")
        }
        _ => {
            line.contains("index-url")
                || line.contains("find-links")
                || line.contains("trusted-host")
                || line.contains("://")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_registry_fails_in_each_kind_of_file() {
        let broken = [
            (
                "test/interop/package-lock.json",
                "      \"resolved\": \"https://npm.example/a.tgz\",",
            ),
            ("test/interop/.npmrc", "registry=https://npm.example/"),
            ("Cargo.lock", "source = \"registry+https://crates.example/index\""),
            (".cargo/config.toml", "[source.crates-io]"),
            ("test/interop/requirements.txt", "--index-url https://pypi.example/simple"),
        ];
        for (path, line) in broken {
            assert!(concerns(path), "{path}");
            let violations = check(path, &format!("first\n{line}\n"));
            assert_eq!(violations.len(), 1, "{path}");
            assert_eq!(violations[0].rule, "registry-host");
            assert_eq!(violations[0].place, format!("{path}:2"));
        }
    }

    #[test]
    fn plain_files_pass() {
        let fine = [
            ("package-lock.json", "\"url\": \"https://github.com/sponsors/somebody\""),
            (".npmrc", "omit-lockfile-registry-resolved=true"),
            ("Cargo.lock", "source = \"registry+https://github.com/rust-lang/crates.io-index\""),
            ("requirements.txt", "livekit==1.2.0"),
        ];
        for (path, line) in fine {
            assert!(check(path, line).is_empty(), "{path}");
        }
        assert!(!concerns("README.md"));
    }
}

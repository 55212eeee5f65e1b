//! What the pages say is there, is there.

use std::collections::BTreeSet;

use super::Violation;

/// The page that names files and functions, for a newcomer to follow.
pub const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

const FOLDERS: [&str; 6] = ["core/", "io/", "apps/", "test/", "xtask/", "docs/"];
/// On lines that say so, what is named is yet to come.
const PLAN: &str = "*plan*";

/// Checks every `` `path` `` and `` `path::name` `` of a page. `read` gives the text of a file.
pub fn check(
    page: &str,
    text: &str,
    files: &BTreeSet<String>,
    mut read: impl FnMut(&str) -> Result<String, String>,
) -> Result<Vec<Violation>, String> {
    let mut violations = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.contains(PLAN)) {
        let place = || format!("{page}:{}", index + 1);
        for named in line.split('`').skip(1).step_by(2).filter(|named| is_path(named)) {
            let (path, name) = named.split_once("::").unwrap_or((named, ""));
            let folder = format!("{}/", path.trim_end_matches('/'));
            if files.contains(path) {
                if !name.is_empty() && !declares(&read(path)?, name) {
                    let message = format!("{path} declares no `{name}`");
                    violations.push(Violation::new("page", place(), message));
                }
            } else if !name.is_empty() || !files.iter().any(|file| file.starts_with(&folder)) {
                let message = format!("{path} does not exist; if it is yet to come, say {PLAN}");
                violations.push(Violation::new("page", place(), message));
            }
        }
    }
    Ok(violations)
}

fn is_path(named: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    FOLDERS.iter().any(|folder| named.starts_with(folder)) && named.chars().all(plain)
}

/// Whether a source file has a function, type or constant of this name.
fn declares(source: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    ["fn ", "struct ", "enum ", "const ", "trait "].iter().any(|keyword| {
        let declaration = format!("{keyword}{name}");
        let mut places = source.match_indices(&declaration);
        places.any(|(at, _)| source.get(at + declaration.len()..).is_some_and(ends))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let files = ["core/a/src/lib.rs", "docs/x.md"].map(String::from).into();
        let read = |_: &str| Ok("pub(crate) fn forward(x: u8) {}\nstruct Shard;".to_owned());
        let found = check("page", text, &files, read).unwrap();
        found.into_iter().map(|violation| violation.to_string()).collect()
    }

    #[test]
    fn what_exists_may_be_named() {
        let page = "`core/a` `core/a/src` `core/a/src/lib.rs::forward`, `core/a/src/lib.rs::Shard`\n\
                    `docs/x.md` `core/*` `core/ decides` `tokio` `a/b`\n| `core/turn` | *plan* |";
        assert_eq!(faults(page), Vec::<String>::new());
    }

    #[test]
    fn what_does_not_exist_is_told_with_its_line() {
        let page = "fine\n`core/b` `core/a/src/lib.rs::for` `core/a/src/lib.rs::gone`";
        assert_eq!(
            faults(page),
            [
                "page:2: [page] core/b does not exist; if it is yet to come, say *plan*",
                "page:2: [page] core/a/src/lib.rs declares no `for`",
                "page:2: [page] core/a/src/lib.rs declares no `gone`",
            ]
        );
    }
}

//! Every package that `cargo metadata` knows has a licence that `deny.toml` allows.
//!
//! `cargo deny check licenses` reads the same list; this check needs nothing installed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Violation;

/// The `allow` list under `[licenses]` in the text of `deny.toml`.
pub fn allowed(deny: &str) -> Result<BTreeSet<String>, String> {
    let section = deny.split("[licenses]").nth(1).ok_or("deny.toml has no [licenses]")?;
    let section = section.split("\n[").next().unwrap_or(section);
    let list =
        section.split("allow = [").nth(1).ok_or("deny.toml: [licenses] has no allow list")?;
    let list = list.split(']').next().unwrap_or(list);
    Ok(list.split('"').skip(1).step_by(2).map(String::from).collect())
}

/// Packages whose licence expression the allow-list does not satisfy, or that have none.
pub fn check(metadata: &Value, allowed: &BTreeSet<String>) -> Vec<Violation> {
    let packages = metadata["packages"].as_array().into_iter().flatten();
    packages.filter_map(|package| package_violation(package, allowed)).collect()
}

fn package_violation(package: &Value, allowed: &BTreeSet<String>) -> Option<Violation> {
    let name = package["name"].as_str().unwrap_or("?");
    let place = format!("{name} {}", package["version"].as_str().unwrap_or("?"));
    let Some(expression) = package["license"].as_str() else {
        return Some(Violation::new("licence", place, "names no licence"));
    };
    match satisfied(expression, allowed) {
        Ok(true) => None,
        Ok(false) => Some(Violation::new(
            "licence",
            place,
            format!("{expression} is not allowed by deny.toml"),
        )),
        Err(error) => Some(Violation::new("licence", place, format!("{expression}: {error}"))),
    }
}

/// Can `expression` (SPDX, or the older `A/B`) be satisfied with `allowed` licences only?
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> Result<bool, String> {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    let value = alternatives(&mut rest, allowed)?;
    if rest.is_empty() { Ok(value) } else { Err(format!("cannot read from {:?} on", rest[0])) }
}

fn alternatives(words: &mut &[&str], allowed: &BTreeSet<String>) -> Result<bool, String> {
    let mut value = conjunction(words, allowed)?;
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        value |= conjunction(words, allowed)?;
    }
    Ok(value)
}

fn conjunction(words: &mut &[&str], allowed: &BTreeSet<String>) -> Result<bool, String> {
    let mut value = licence(words, allowed)?;
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        value &= licence(words, allowed)?;
    }
    Ok(value)
}

fn licence(words: &mut &[&str], allowed: &BTreeSet<String>) -> Result<bool, String> {
    match **words {
        ["(", ref rest @ ..] => {
            *words = rest;
            let value = alternatives(words, allowed)?;
            let [")", rest @ ..] = *words else { return Err("a parenthesis is open".to_string()) };
            *words = rest;
            Ok(value)
        }
        [id, "WITH", exception, ref rest @ ..] => {
            *words = rest;
            Ok(allowed.contains(&format!("{id} WITH {exception}")))
        }
        [id, ref rest @ ..] => {
            *words = rest;
            Ok(allowed.contains(id))
        }
        [] => Err("a licence is missing".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "[bans]\nallow = [\"no\"]\n[licenses]\nallow = [\n  \"MIT\",\n  \"Apache-2.0\",\n  \"Apache-2.0 WITH LLVM-exception\",\n]\n[sources]\n";

    fn packages(licence: Value) -> Vec<Violation> {
        let metadata = serde_json::json!({"packages": [{"name": "a", "version": "1.0.0", "license": licence}]});
        check(&metadata, &allowed(DENY).unwrap())
    }

    #[test]
    fn the_list_of_deny_toml_is_read() {
        let expected = ["Apache-2.0", "Apache-2.0 WITH LLVM-exception", "MIT"];
        assert_eq!(allowed(DENY).unwrap().iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_licence_that_is_not_allowed_fails() {
        for bad in [
            "AGPL-3.0-only",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND MPL-2.0",
            "GPL-2.0 WITH x",
            "MIT OR",
            "(MIT",
        ] {
            let violations = packages(bad.into());
            assert_eq!(violations.len(), 1, "{bad}");
            assert_eq!(violations[0].rule, "licence");
        }
        assert_eq!(packages(Value::Null)[0].message, "names no licence");
    }

    #[test]
    fn an_expression_that_can_be_satisfied_passes() {
        for good in [
            "MIT",
            "GPL-2.0 OR MIT",
            "MIT/Apache-2.0",
            "(GPL-2.0 OR MIT) AND Apache-2.0",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        ] {
            assert!(packages(good.into()).is_empty(), "{good}");
        }
    }
}

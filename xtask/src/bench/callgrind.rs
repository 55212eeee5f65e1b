//! What callgrind wrote, read back (valgrind manual, "Callgrind Format Specification").

use std::collections::BTreeMap;

/// Names that mean that memory is asked for or given back, by Rust or below it.
const ALLOCATOR: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "free",
    "cfree",
    "memalign",
    "posix_memalign",
    "aligned_alloc",
];
/// How the symbols of AWS-LC begin, which is all the cipher there is; those of its Rust binding have
/// paths.
const CIPHER_PREFIX: &str = "aws_lc_";

/// The instructions of one measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// All of them.
    pub total: u64,
    /// In the cipher, by what Rust code called.
    pub cipher: u64,
    /// In the allocator, Rust's or C's.
    pub allocator: u64,
    /// By function, without what it calls.
    pub functions: BTreeMap<String, u64>,
}

impl Profile {
    /// Reads one part of callgrind's output.
    pub fn parse(text: &str) -> Profile {
        let mut profile = Profile::default();
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let (mut function, mut callee) = (String::new(), String::new());
        let mut is_call = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = named(&mut names, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = named(&mut names, name);
            } else if line.starts_with("calls=") {
                is_call = true;
            } else if let Some(cost) = cost(line) {
                if std::mem::take(&mut is_call) {
                    let is_cipher = callee.starts_with(CIPHER_PREFIX) && !callee.contains("::");
                    if is_cipher && function.contains("::") {
                        profile.cipher += cost;
                    }
                } else {
                    profile.total += cost;
                    *profile.functions.entry(function.clone()).or_default() += cost;
                    if ALLOCATOR.contains(&function.as_str()) {
                        profile.allocator += cost;
                    }
                }
            }
        }
        profile
    }
}

/// `(12) name` names 12; `(12)` alone means what was named so.
fn named(names: &mut BTreeMap<String, String>, text: &str) -> String {
    match text.split_once(' ') {
        Some((id, name)) => {
            names.insert(id.to_string(), name.to_string());
            name.to_string()
        }
        None => names.get(text).cloned().unwrap_or_else(|| text.to_string()),
    }
}

/// The last number of a line `position cost`.
fn cost(line: &str) -> Option<u64> {
    if !line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
        return None;
    }
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_costs_are_summed_and_calls_into_the_cipher_counted_once() {
        let text = "\
version: 1
events: Ir
summary: 65

fl=(1) ???
fn=(1) parlor_sfu::seal
0 10
cfn=(2) aws_lc_seal
calls=3 0
0 50
+3 5

fn=(2)
0 30
cfn=(3) aws_lc_block
calls=9 0
0 20

fn=(3)
0 19
fn=(4) malloc
* 1
";
        let profile = Profile::parse(text);
        assert_eq!((profile.total, profile.cipher, profile.allocator), (65, 50, 1));
        assert_eq!(profile.functions["parlor_sfu::seal"], 15);
        assert_eq!(profile.functions["aws_lc_block"], 19);
    }
}

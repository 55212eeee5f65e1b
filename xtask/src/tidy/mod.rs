//! The rules of docs/ARCHITECTURE.md, by machine.
//!
//! Every rule is a pure function from what it reads to violations, so that each can be shown a
//! tree that breaks it.

mod imports;
mod licences;
mod pages;
mod registries;
mod source;
mod sources;
#[cfg(test)]
mod whole_tree;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use imports::Workspace;
use sources::SourceFile;

/// A file longer than this is printed, as a hint: it is not a failure.
const LONG_FILE_LINES: usize = 700;

/// One broken rule at one place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The rule's name, as printed in brackets.
    pub rule: &'static str,
    /// A path in the repository, with a line where one is known, or a package name.
    pub place: String,
    /// What is wrong and what to do instead.
    pub message: String,
}

impl Violation {
    fn new(rule: &'static str, place: impl Into<String>, message: impl Into<String>) -> Self {
        Violation { rule, place: place.into(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: [{}] {}", self.place, self.rule, self.message)
    }
}

/// Checks every rule, prints what is broken and returns it.
pub fn check(root: &Path) -> Result<Vec<Violation>, String> {
    let metadata = metadata(root)?;
    let workspace = Workspace::from_metadata(&metadata)?;
    let files = tracked_files(root)?;
    let sources = read_sources(root, &files)?;

    let mut violations = imports::check(&workspace);
    violations.extend(sources::check(&sources, &workspace.crate_roots()));
    let allowed = licences::allowed(&read(root, "deny.toml")?)?;
    violations.extend(licences::check(&metadata, &allowed));
    for file in files.iter().filter(|file| registries::concerns(file)) {
        violations.extend(registries::check(file, &read(root, file)?));
    }
    if files.contains(pages::ARCHITECTURE) {
        let page = read(root, pages::ARCHITECTURE)?;
        violations
            .extend(pages::check(pages::ARCHITECTURE, &page, &files, |path| read(root, path))?);
    }
    violations.sort();
    violations.dedup();

    for source in sources.iter().filter(|s| s.text.lines().count() > LONG_FILE_LINES) {
        println!("note: {} has {} lines", source.path, source.text.lines().count());
    }
    for violation in &violations {
        println!("{violation}");
    }
    println!(
        "tidy: {} sources, {} packages, {} violations",
        sources.len(),
        workspace.packages.len(),
        violations.len()
    );
    Ok(violations)
}

fn metadata(root: &Path) -> Result<serde_json::Value, String> {
    let output = Command::new("cargo")
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo metadata: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("cargo metadata: {error}"))
}

/// Every file that git tracks or would track, so that a rule also holds before the first commit.
fn tracked_files(root: &Path) -> Result<BTreeSet<String>, String> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("git ls-files: {error}"))?;
    if !output.status.success() {
        return Err(format!("git ls-files: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let names = String::from_utf8_lossy(&output.stdout);
    Ok(names.lines().map(String::from).filter(|name| root.join(name).is_file()).collect())
}

fn read_sources(root: &Path, files: &BTreeSet<String>) -> Result<Vec<SourceFile>, String> {
    let rust = files.iter().filter(|file| file.ends_with(".rs"));
    rust.map(|path| Ok(SourceFile { path: path.clone(), text: read(root, path)? })).collect()
}

fn read(root: &Path, path: &str) -> Result<String, String> {
    fs::read_to_string(root.join(path)).map_err(|error| format!("{path}: {error}"))
}

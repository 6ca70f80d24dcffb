//! The house rules that no compiler checks: who may depend on whom, and what the tree may hold.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use relight_testkit::repository;
use serde_json::Value;

/// Crates without clock, I/O, async and unsafe.
const PURE: [&str; 3] = ["crates/relight-core", "crates/relight-engine", "detectors"];

/// Longer source files, each with the reason why it is one list.
const LONG_FILES: [(&str, &str); 0] = [];
const MAX_LINES: usize = 500;

/// Guarantee: arrows point strictly down; the pure crates cannot even be reached by I/O.
#[test]
fn dependencies_point_down() {
    let edges = edges();
    assert!(edges.len() > 20, "{} edges: metadata was not understood", edges.len());
    let forbidden: Vec<String> =
        edges.iter().filter(|(from, to)| !may_depend(from, to)).map(|(a, b)| format!("{a} -> {b}")).collect();
    assert_eq!(forbidden, Vec::<String>::new(), "crates/ARCHITECTURE.md says who may see whom");
}

/// By the crates' short names.
fn may_depend(from: &str, to: &str) -> bool {
    match from {
        "relight" => to != "testkit" && to != "benches",
        "testkit" | "benches" => true,
        "runtime" => ["core", "engine", "ingest", "store"].contains(&to),
        "web" => ["core", "engine"].contains(&to),
        "config" | "ingest" | "store" => ["core", "files"].contains(&to),
        "core" | "files" => false,
        _ => to == "core",
    }
}

/// Dependencies between workspace members, of tests and build scripts too.
fn edges() -> Vec<(String, String)> {
    let short = |name: &Value| {
        let name = name.as_str().unwrap_or_default();
        name.strip_prefix("relight-").unwrap_or(name).to_owned()
    };
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("metadata lists packages");
    let of_package = |package: &Value| -> Vec<(String, String)> {
        let dependencies = package["dependencies"].as_array().expect("a package lists its dependencies");
        let own = dependencies.iter().filter(|dependency| dependency["path"].is_string());
        own.map(|dependency| (short(&package["name"]), short(&dependency["name"]))).collect()
    };
    packages.iter().flat_map(of_package).collect()
}

fn metadata() -> Value {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(repository());
    let output = command.output().expect("the cargo that built this test can be run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo writes JSON")
}

/// Guarantee: nothing is compiled into relight without a reason that a reader finds.
#[test]
fn every_dependency_has_its_reason() {
    let manifest = text("Cargo.toml");
    let mut above = "";
    let section = manifest.lines().skip_while(|line| *line != "[workspace.dependencies]").skip(1);
    let mut seen = 0;
    for line in section.take_while(|line| !line.starts_with('[')) {
        let is_entry = line.contains(" = ") && !line.starts_with('#') && !line.starts_with("relight-");
        assert!(!is_entry || above.starts_with("# "), "no reason above `{line}`");
        seen += usize::from(is_entry);
        above = line;
    }
    assert!(seen > 20, "{seen} dependencies: the manifest was not understood");
}

/// Guarantee: YAML readers that are archived or unsound stay out, even by way of others.
#[test]
fn no_abandoned_yaml() {
    let lock = text("Cargo.lock");
    for name in ["serde_yaml", "serde_yml"] {
        assert!(!lock.contains(&format!("name = \"{name}\"")), "{name} is in Cargo.lock");
    }
}

/// Guarantee: what the pure crates promise cannot be taken back in a corner of them.
#[test]
fn pure_crates_are_pure() {
    let rules = text(&format!("{}/clippy.toml", PURE[0]));
    for krate in PURE {
        let own = text(&format!("{krate}/clippy.toml"));
        assert!(own == rules, "{krate}/clippy.toml differs from that of {}", PURE[0]);
    }
    let is_pure = |file: &&String| PURE.iter().any(|krate| file.starts_with(krate));
    for file in sources().iter().filter(is_pure) {
        for (number, line) in (1..).zip(text(file).lines()) {
            let code = line.split("//").next().unwrap_or_default();
            for word in ["async fn", "async move", "unsafe"] {
                assert!(!code.contains(word), "{file}:{number}: `{word}` in a pure crate");
            }
        }
    }
}

/// Guarantee: what is left to do is in the issues, and an exception to a lint has its reason and ends with it.
#[test]
fn nothing_is_left_to_do() {
    // Put together, so that this file passes.
    let words = ["TO-DO", "FIX-ME", "XX-X", "#[al-low(", "#![al-low("].map(|word| word.replace('-', ""));
    for file in sources() {
        for (number, line) in (1..).zip(text(&file).lines()) {
            let found = words.iter().find(|word| line.contains(*word));
            assert_eq!(found, None, "{file}:{number}");
        }
    }
}

/// Guarantee: a file can be read in one sitting, and says first what it is for.
#[test]
fn files_are_short_and_say_what_they_are_for() {
    for file in sources() {
        let (source, is_tests) = (text(&file), file.ends_with("/tests.rs"));
        assert!(is_tests || source.starts_with("//! "), "{file} does not begin with what it is for");
        let lines = source.lines().count();
        let is_listed = LONG_FILES.iter().any(|(long, _)| *long == file);
        assert_eq!(lines > MAX_LINES, is_listed, "{file} has {lines} lines; listed as long: {is_listed}");
    }
    assert!(LONG_FILES.iter().all(|(long, why)| repository().join(long).exists() && !why.is_empty()));
}

fn text(file: &str) -> String {
    fs::read_to_string(repository().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// All Rust sources, as paths from the root, by name.
fn sources() -> Vec<String> {
    let (root, mut found) = (repository(), Vec::new());
    for folder in ["benches", "crates", "detectors", "responders"] {
        collect(&root.join(folder), &mut found);
    }
    let from_root = |path: &PathBuf| path.strip_prefix(&root).ok().map(|path| path.display().to_string());
    let mut sources: Vec<String> = found.iter().filter_map(from_root).collect();
    sources.sort();
    assert!(sources.len() > 100, "{} sources: the tree was not found", sources.len());
    sources
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder of the tree can be listed") {
        let path = entry.expect("an entry of the tree can be read").path();
        if path.is_dir() {
            if !path.ends_with("target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

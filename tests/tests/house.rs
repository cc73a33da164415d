//! The rules of the house that a machine can check: who may depend on whom, how long a file may be, how it begins.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Our crates and those of ours that each may name: the arrows of ARCHITECTURE.md.
const ARROWS: [(&str, &[&str]); 13] = [
    ("api", &[]),
    ("gguf", &[]),
    ("template", &[]),
    ("protocol", &["api"]),
    ("node", &["api"]),
    ("registry", &["api"]),
    ("store", &["gguf", "template", "api"]),
    ("engine", &["gguf", "api"]),
    ("convert", &["engine", "gguf", "api"]),
    ("worker", &["engine", "convert", "store", "template", "protocol", "registry", "node", "api", "gguf"]),
    ("gateway", &["protocol", "registry", "store", "node", "api"]),
    ("cli", &["api", "gguf", "node", "store", "registry", "engine", "worker", "gateway"]),
    ("tests", &["api", "registry", "store"]),
];

/// Outside crates that only some of ours may name.
const OWNERS: [(&str, &[&str]); 7] = [
    ("candle-core", &["engine"]),
    ("candle-nn", &["engine"]),
    ("llguidance", &["engine"]),
    ("etcd-client", &["registry"]),
    ("object_store", &["store"]),
    ("axum", &["gateway", "node"]),
    ("clap", &["cli"]),
];

/// A file is a chapter. Tables and generated code may run on; there is none of these yet.
const MAX_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests live in the workspace").to_owned()
}

/// What each crate of ours names outside of its tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec().unwrap();
    let names = metadata.packages.iter().map(|package| {
        let normal =
            package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal);
        (package.name.to_string(), normal.map(|dependency| dependency.name.clone()).collect())
    });
    names.collect()
}

fn sources() -> Vec<PathBuf> {
    let mut folders = vec![root().join("crates"), root().join("tests")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 50, "the sources are not where this test looks");
    files
}

#[test]
fn the_crates_depend_on_each_other_as_the_architecture_says() {
    let dependencies = dependencies();
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<&str> = dependencies.keys().map(String::as_str).collect();
    assert_eq!(found, ours, "a crate is missing from ARROWS and ARCHITECTURE.md, or is gone");
    for (name, allowed) in ARROWS {
        for dependency in dependencies[name].iter().filter(|dependency| ours.contains(dependency.as_str())) {
            assert!(allowed.contains(&dependency.as_str()), "`{name}` must not depend on `{dependency}`");
        }
    }
}

#[test]
fn outside_crates_have_owners() {
    for (name, dependencies) in dependencies() {
        for (outside, owners) in OWNERS {
            let is_named = dependencies.contains(outside);
            assert!(
                !is_named || owners.contains(&name.as_str()),
                "only {owners:?} may name `{outside}`, not `{name}`"
            );
        }
    }
}

#[test]
fn no_file_is_longer_than_a_chapter() {
    for path in sources() {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines; the bound is {MAX_LINES}", path.display());
    }
}

#[test]
fn every_module_says_what_it_is() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
        assert!(!path.ends_with("mod.rs"), "{}: use name.rs beside name/", path.display());
    }
}

#[test]
fn every_test_runs() {
    for path in sources().into_iter().filter(|path| !path.ends_with("tests/tests/house.rs")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("#[ignore"), "{} has a test that never runs", path.display());
    }
}

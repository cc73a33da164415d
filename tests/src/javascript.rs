//! The packages of the JavaScript clients, pinned by a lock file, installed once and kept under the target folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{process::target, run};

/// Pinned with their hashes, so that a red test means that we changed.
const LOCK: &str = include_str!("../clients/js/package-lock.json");
const PACKAGE: &str = include_str!("../clients/js/package.json");

/// The folder `node_modules`; installs the packages when they are not there or others are.
fn packages() -> Result<PathBuf> {
    let folder = target()?.join("clients-js");
    let stamp = folder.join("installed.json");
    if !std::fs::read_to_string(&stamp).is_ok_and(|installed| installed == LOCK) {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("package.json"), PACKAGE)?;
        std::fs::write(folder.join("package-lock.json"), LOCK)?;
        let install = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        run(Command::new("npm").args(install).current_dir(&folder))?;
        std::fs::write(stamp, LOCK)?;
    }
    Ok(folder.join("node_modules"))
}

/// Runs a script of `tests/clients` with `OLLAMA_HOST` set to `base`; its asserts are the test.
pub fn play(script: &str, base: &str, arguments: &[&str]) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new("node");
    command.arg(path).args(arguments).env("OLLAMA_HOST", base).env("CARAVAN_NODE_MODULES", packages()?);
    run(&mut command)
}

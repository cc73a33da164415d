//! A virtual environment with the official Python clients, pinned, made once and kept under the target folder.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{process::target, run};

/// Pinned, so that a red test means that we changed.
const PACKAGES: &str = concat!(
    include_str!("../clients/requirements.txt"),
    "# What these need in turn.\n",
    include_str!("../clients/constraints.txt")
);

/// The interpreter of the environment; makes the environment when it is not there or has other packages.
pub fn interpreter() -> Result<PathBuf> {
    let folder = target()?.join("clients-venv");
    let (python, stamp) = (folder.join("bin/python"), folder.join("requirements.txt"));
    if std::fs::read_to_string(&stamp).is_ok_and(|made| made == PACKAGES) {
        return Ok(python);
    }
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    let pinned = ["-r", "requirements.txt", "-c", "constraints.txt"];
    run(Command::new(&python).args(install).args(pinned).current_dir(clients))?;
    let freeze = Command::new(&python).args(["-m", "pip", "freeze"]).output().context("run pip freeze")?;
    let loose = unpinned(&String::from_utf8_lossy(&freeze.stdout), PACKAGES);
    ensure!(loose.is_empty(), "tests/clients/constraints.txt must pin these, too: {loose:?}");
    std::fs::write(stamp, PACKAGES)?;
    Ok(python)
}

/// The installed packages that no line pins. Names in any case, with dashes or underscores, are the same.
fn unpinned(installed: &str, pins: &str) -> Vec<String> {
    let plain = |line: &str| line.trim().to_lowercase().replace('_', "-");
    let pins: Vec<String> = pins.lines().map(plain).collect();
    installed.lines().map(plain).filter(|line| line.contains("==") && !pins.contains(line)).collect()
}

/// Runs a script of `tests/clients` with `OLLAMA_HOST` set to `base`; its asserts are the test.
pub fn play(script: &str, base: &str, arguments: &[&str]) -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(script);
    let mut command = Command::new(interpreter()?);
    command
        .arg(path)
        .args(arguments)
        .env("OLLAMA_HOST", base)
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy");
    run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::unpinned;

    #[test]
    fn a_package_that_nothing_pins_is_named() {
        let pins = "Some_Thing==1.0\n# What this needs.\nother==2\n";
        assert!(unpinned("some-thing==1.0\nother==2\npip @ file:///x\n", pins).is_empty());
        assert_eq!(unpinned("some-thing==1.1\nother==2\nthird==3", pins), ["some-thing==1.1", "third==3"]);
    }
}

//! `create`: reads the Modelfile here, uploads the files that it names, lets the server do the rest.

mod gather;

use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, ensure};
use futures::TryStreamExt;
use store::{
    Digest, Modelfile, Name,
    modelfile::{Instruction, Source},
};
use tokio_util::io::ReaderStream;

use self::gather::{Component, gather};
use super::progress::{self, Screen};
use crate::{args::CreateArgs, client::Client};

pub async fn create(client: &Client, arguments: &CreateArgs) -> Result<()> {
    let path = &arguments.file;
    // Before files are read for minutes and uploaded.
    Name::parse(&arguments.model)?;
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("specified Modelfile wasn't found"),
        _ => anyhow!("read {}: {error}", path.display()),
    })?;
    let modelfile = Modelfile::parse_bytes(&bytes)?;
    let folder = path.parent().unwrap_or(Path::new("."));

    let mut screen = Screen::new();
    let mut sources = Vec::new();
    for (instruction, value) in modelfile.references() {
        sources.push(resolve(client, &mut screen, folder, (instruction, value)).await?);
    }
    let mut sources = sources.into_iter();
    let mut prepared = modelfile.into_create_request(&arguments.model, |_, _| -> Result<Source> {
        sources.next().context("every reference was resolved")
    })?;
    prepared.request.quantize = arguments.quantize.clone().unwrap_or_default();
    prepared.request.draft_quantize = arguments.draft_quantize.clone().unwrap_or_default();
    for warning in prepared.warnings {
        screen.say(&warning);
    }
    progress::follow(client, "/api/create", &prepared.request, &mut screen).await
}

/// A value that names a file is uploaded; one that does not is a model.
async fn resolve(
    client: &Client,
    screen: &mut Screen,
    folder: &Path,
    (instruction, value): (Instruction, &str),
) -> Result<Source> {
    let path = expand(folder, value);
    if !path.exists() {
        ensure!(
            instruction == Instruction::From && !looks_like_a_path(value),
            "{} does not exist",
            path.display()
        );
        return Ok(Source::Model(value.to_owned()));
    }
    let mut files = Vec::new();
    for Component { name, path } in gather(&path)? {
        let digest = digest(screen, &path)?;
        if !client.has_blob(&digest.to_string()).await? {
            upload(client, screen, &path, &digest).await?;
        }
        files.push((name, digest));
    }
    Ok(Source::Files(files))
}

fn looks_like_a_path(value: &str) -> bool {
    value.starts_with(['/', '.', '~']) || value.ends_with(".gguf")
}

/// Absolute, below somebody's home folder, or beside the Modelfile.
fn expand(folder: &Path, value: &str) -> PathBuf {
    let Some(rest) = value.strip_prefix('~') else { return folder.join(value) };
    let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let home = if user.is_empty() { std::env::home_dir() } else { home_of(user) };
    home.map_or_else(|| folder.join(value), |home| home.join(rest))
}

/// As the system's list of users has it.
fn home_of(user: &str) -> Option<PathBuf> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields
        .into_iter()
        .find(|fields| fields[0] == user && fields.len() > 5)
        .map(|fields| PathBuf::from(fields[5]))
}

fn digest(screen: &mut Screen, path: &Path) -> Result<Digest> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let bar = screen.bar("gathering model components", file.metadata()?.len());
    let digest =
        Digest::of_reader(bar.wrap_read(file)).with_context(|| format!("read {}", path.display()))?;
    bar.finish_and_clear();
    Ok(digest)
}

async fn upload(client: &Client, screen: &mut Screen, path: &Path, digest: &Digest) -> Result<()> {
    /// Large enough that the system calls do not count, small enough that the bar moves.
    const CHUNK_BYTES: usize = 1 << 20;
    let file = tokio::fs::File::open(path).await?;
    let length = file.metadata().await?.len();
    let bar = screen.bar(&format!("copying file {digest}"), length);
    let moving = bar.clone();
    let chunks = ReaderStream::with_capacity(file, CHUNK_BYTES)
        .inspect_ok(move |chunk| moving.inc(chunk.len() as u64));
    client.upload(&digest.to_string(), length, reqwest::Body::wrap_stream(chunks)).await?;
    bar.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_beside_the_modelfile() {
        assert_eq!(expand(Path::new("/a/b"), "./m.gguf"), Path::new("/a/b/./m.gguf"));
        assert_eq!(expand(Path::new("/a/b"), "/m.gguf"), Path::new("/m.gguf"));
        assert!(!expand(Path::new("/a/b"), "~/m.gguf").starts_with("/a/b"));
        assert_eq!(
            expand(Path::new("/a/b"), "~nobody-has-this-name/m"),
            Path::new("/a/b/~nobody-has-this-name/m")
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_users_name_stands_for_his_home() {
        let root = home_of("root").expect("every Linux has that user");
        assert_eq!(expand(Path::new("/a/b"), "~root/m.gguf"), root.join("m.gguf"));
    }

    #[test]
    fn a_value_without_a_file_is_a_model_unless_it_reads_as_a_path() {
        assert!(looks_like_a_path("./m") && looks_like_a_path("~/m") && looks_like_a_path("m.gguf"));
        assert!(!looks_like_a_path("llama3.2:1b") && !looks_like_a_path("me/model"));
    }

    #[test]
    fn digesting_reads_the_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "hello").unwrap();
        let digest = digest(&mut Screen::new(), &path).unwrap();
        assert_eq!(
            digest.to_string(),
            "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
        );
    }
}

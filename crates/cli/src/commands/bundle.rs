//! `save` and `load`: models as one file on a pipe.

use std::{
    fs::File,
    io::{IsTerminal, Write, stdin, stdout},
    os::fd::AsFd,
};

use anyhow::{Context, Result, ensure};
use api::ollama::SaveRequest;
use futures::TryStreamExt;
use reqwest::{Body, Method};
use tokio_util::io::ReaderStream;

use super::progress::{self, Screen};
use crate::client::Client;

/// Large enough that the system calls do not count, small enough that the bar moves.
const CHUNK_BYTES: usize = 1 << 20;

pub async fn save(client: &Client, models: &[String]) -> Result<()> {
    ensure!(
        !stdout().is_terminal(),
        "a model is not for the eye; send it to a file: caravan save {} > model.tar",
        models.join(" ")
    );
    let request = SaveRequest { models: models.to_vec() };
    let response = client.send(Method::POST, "/api/save", &request).await?;
    let bar =
        Screen::new().bar(&format!("saving {}", models.join(" ")), response.content_length().unwrap_or(0));
    let mut chunks = response.bytes_stream();
    let mut out = stdout().lock();
    while let Some(chunk) = chunks.try_next().await.context("the server broke off, the file is not whole")? {
        out.write_all(&chunk).context("write the file")?;
        bar.inc(chunk.len() as u64);
    }
    out.flush().context("write the file")?;
    bar.finish();
    Ok(())
}

pub async fn load(client: &Client) -> Result<()> {
    ensure!(!stdin().is_terminal(), "a file must come on standard input: caravan load < model.tar");
    // As a file: what reads standard input as such could not be stopped before it has read a line.
    let file = File::from(stdin().as_fd().try_clone_to_owned().context("open standard input")?);
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(file), CHUNK_BYTES);
    progress::follow_upload(client, "/api/load", Body::wrap_stream(chunks), &mut Screen::new()).await
}

//! A model to a registry: its blobs one after the other, then its manifest as it is.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use tokio::time::interval;

use super::download::blocking;
use super::origin::Origin;
use super::pull::MANIFEST_TYPE;
use super::session::Session;
use super::tell::{Bar, Tell};
use super::upload::Upload;
use super::{Shared, Wish};
use crate::pins::Pins;
use crate::{Error, Layer, Manifest, Name, Result};

/// A stored model that nobody can remove meanwhile.
struct Stored {
    name: Name,
    bytes: Vec<u8>,
    manifest: Manifest,
    _pins: Pins,
}

pub(super) async fn push(shared: &Arc<Shared>, wish: &Wish, tell: &Tell) -> Result<()> {
    Origin::of_push(wish)?;
    tell.status("retrieving manifest").await?;
    let stored = match stored(shared, wish).await {
        Ok(stored) => stored,
        Err(error) => {
            tell.status("couldn't retrieve manifest").await?;
            return Err(error);
        }
    };
    // Under the name as it is stored, whatever the case of the letters that were asked for.
    let wish = Wish { name: stored.name, ..wish.clone() };
    let session = shared.session(Origin::of_push(&wish)?)?;
    let mut seen = HashSet::new();
    for layer in stored.manifest.blobs().filter(|layer| seen.insert(&layer.digest)) {
        blob(shared, &session, layer, tell).await?;
    }
    tell.status("pushing manifest").await?;
    let url = session.origin.manifest()?;
    let body = bytes::Bytes::from(stored.bytes);
    session
        .ask(Method::PUT, &url, |request| request.header(CONTENT_TYPE, MANIFEST_TYPE).body(body.clone()))
        .await?;
    Ok(())
}

async fn stored(shared: &Arc<Shared>, wish: &Wish) -> Result<Stored> {
    let (inner, name) = (Arc::clone(&shared.store), wish.name.clone());
    blocking(move || {
        let entry = inner.home.find(&name)?.ok_or_else(|| Error::NotFound(name.shortest()))?;
        let bytes = inner.home.read_manifest(&entry.name)?;
        let manifest = inner.shelf.parse_manifest(&entry.name, &bytes)?;
        let pins = inner.pins.pin(manifest.blobs().map(|layer| layer.digest.clone()));
        Ok(Stored { name: entry.name, bytes, manifest, _pins: pins })
    })
    .await
}

async fn blob(shared: &Arc<Shared>, session: &Session, layer: &Layer, tell: &Tell) -> Result<()> {
    let bar = Bar::new("pushing", &layer.digest, layer.size);
    let (inner, digest) = (Arc::clone(&shared.store), layer.digest.clone());
    match blocking(move || inner.home.size(&digest)).await? {
        Some(length) if length == layer.size => {}
        found => {
            let (digest, expected, got) = (layer.digest.to_string(), layer.size, found.unwrap_or(0));
            return Err(super::Error::Size { digest, expected, got }.into());
        }
    }
    let sent = Arc::new(AtomicU64::new(0));
    let upload = Upload { session, layer, home: Arc::clone(&shared.store.home), sent: Arc::clone(&sent) };
    if !upload.is_there().await? {
        let mut sending = std::pin::pin!(upload.run());
        let mut tick = interval(session.config.tuning.tick);
        loop {
            tokio::select! {
                biased;
                ended = &mut sending => break ended?,
                _ = tick.tick() => tell.tick(bar.at(sent.load(Ordering::Relaxed)))?,
            }
        }
    }
    tell.say(bar.at(layer.size)).await
}

//! A model from a registry: the manifest, then its blobs one after the other, then its name.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reqwest::Method;
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use tokio::time::{interval, timeout};

use super::download::{Download, StopOnDrop, blocking};
use super::origin::Origin;
use super::registry::Registry;
use super::session::{self, Session, stalled};
use super::tell::{Bar, Tell};
use super::{Error, Shared, Wish};
use crate::home::MAX_MANIFEST;
use crate::pins::Pins;
use crate::{Layer, Manifest, Name, Result, remove};

pub(super) const MANIFEST_TYPE: HeaderValue =
    HeaderValue::from_static("application/vnd.docker.distribution.manifest.v2+json");
/// Weights in many small pieces, which only Ollama's other engine reads.
const TENSOR_TYPE: &str = "application/vnd.ollama.image.tensor";
/// Four times the largest model that there is. It bounds the number of parts, each of which is a file.
const MAX_LAYER_BYTES: u64 = 4 << 40;

/// Everything that a model needs is in the store. Until this is dropped, nothing of it is removed.
pub struct Pulled {
    name: Name,
    bytes: Vec<u8>,
    manifest: Manifest,
    _pins: Pins,
}

impl Pulled {
    pub fn name(&self) -> &Name {
        &self.name
    }
}

pub(super) async fn fetch(shared: &Arc<Shared>, wish: &Wish, tell: &Tell) -> Result<Pulled> {
    let origin = Origin::of_pull(wish, &shared.config.mirrors)?;
    tell.status("pulling manifest").await?;
    let session = shared.session(origin)?;
    let (bytes, manifest) = manifest(&session).await.map_err(crate::Error::PullManifest)?;
    let pins = shared.store.pins.pin(manifest.blobs().map(|layer| layer.digest.clone()));
    let mut seen = HashSet::new();
    for layer in manifest.blobs().filter(|layer| seen.insert(&layer.digest)) {
        blob(shared, &session, layer, tell).await?;
    }
    // Each was verified before it got its name; this is the line that clients wait for.
    tell.status("verifying sha256 digest").await?;
    Ok(Pulled { name: wish.name.clone(), bytes, manifest, _pins: pins })
}

pub(super) async fn settle(shared: &Arc<Shared>, pulled: Pulled, tell: &Tell) -> Result<()> {
    tell.status("writing manifest").await?;
    let inner = Arc::clone(&shared.store);
    let (inner, old) = blocking(move || {
        let name = inner.home.spelling(&pulled.name)?;
        // Another process may have removed what only it knows to be unused.
        for layer in pulled.manifest.blobs() {
            if !inner.home.touch(&layer.digest)? {
                let digest = layer.digest.to_string();
                return Err(crate::Error::Incomplete { name: name.shortest(), digest });
            }
        }
        let old = remove::replaced(&inner, &name);
        inner.home.write_manifest(&name, &pulled.bytes)?;
        let kept: HashSet<_> = pulled.manifest.blobs().map(|layer| layer.digest.clone()).collect();
        let old = old.filter(|old| old.blobs().any(|layer| !kept.contains(&layer.digest)));
        Ok((inner, old))
    })
    .await?;
    if old.is_some() && inner.prune {
        tell.status("removing unused layers").await?;
        blocking(move || {
            remove::orphans_of(&inner, old);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn manifest(session: &Session) -> Result<(Vec<u8>, Manifest), Error> {
    let url = session.origin.manifest()?;
    let limit = session.config.tuning.answer;
    let reading = async {
        let headers = HeaderMap::from_iter([(ACCEPT, MANIFEST_TYPE)]);
        let response = session.get(url.clone(), &headers).await?;
        session::body(response, "the registry's manifest", MAX_MANIFEST as usize).await
    };
    let bytes = timeout(limit, reading).await.unwrap_or_else(|_| Err(stalled(&Method::GET, &url, limit)))?;
    let manifest = Manifest::parse(&bytes)
        .map_err(|error| Error::Garbage { what: "the registry's manifest", reason: error.to_string() })?;
    check(&manifest)?;
    Ok((bytes, manifest))
}

/// Before anything is downloaded for it.
fn check(manifest: &Manifest) -> Result<(), Error> {
    if manifest.layers.iter().any(|layer| layer.media_type == TENSOR_TYPE) {
        return Err(Error::Tensors);
    }
    if manifest.layers.is_empty() {
        return Err(Error::Lacking { what: "the registry's manifest", missing: "layers" });
    }
    match manifest.blobs().find(|layer| layer.size > MAX_LAYER_BYTES) {
        Some(layer) => {
            Err(Error::Oversized { what: "a layer", limit: MAX_LAYER_BYTES, got: layer.size.to_string() })
        }
        None => Ok(()),
    }
}

/// One blob; from the store if it is there.
async fn blob(shared: &Arc<Shared>, session: &Arc<Session>, layer: &Layer, tell: &Tell) -> Result<()> {
    let bar = Bar::new("pulling", &layer.digest, layer.size);
    if !is_here(shared, layer).await? {
        let subscription = shared.downloads.join(&layer.digest, |progress| Download {
            folder: shared.store.home.incoming().to_owned(),
            cache: None,
            source: Arc::new(Registry(Arc::clone(session))),
            digest: layer.digest.clone(),
            total: layer.size,
            progress,
            tuning: shared.config.tuning.clone(),
        });
        let mut outcome = subscription.outcome;
        let mut tick = interval(session.config.tuning.tick);
        loop {
            tokio::select! {
                biased;
                ended = &mut outcome => {
                    ended.map_err(crate::Error::Shared)?;
                    break;
                }
                _ = tick.tick() => tell.tick(bar.at(subscription.progress.completed()))?,
            }
        }
        publish(shared, layer, tell).await?;
        // Another manifest may have promised another length for it.
        is_here(shared, layer).await?;
    }
    tell.say(bar.at(layer.size)).await
}

/// Makes a blob last that has come in: where that takes a while, it is told.
async fn publish(shared: &Arc<Shared>, layer: &Layer, tell: &Tell) -> Result<()> {
    let bar = Bar::new("storing", &layer.digest, layer.size);
    let (inner, digest) = (Arc::clone(&shared.store), layer.digest.clone());
    let (progress, canceled) = (Arc::new(AtomicU64::new(0)), StopOnDrop::default());
    let (sent, stop) = (Arc::clone(&progress), Arc::clone(&canceled.0));
    let mut publishing = std::pin::pin!(blocking(move || {
        inner.home.publish(&digest, &mut |bytes| {
            sent.store(bytes, Ordering::Relaxed);
            if stop.load(Ordering::Relaxed) { Err(crate::Error::Canceled) } else { Ok(()) }
        })
    }));
    let mut tick = interval(shared.config.tuning.tick);
    loop {
        tokio::select! {
            biased;
            ended = &mut publishing => return ended,
            _ = tick.tick() => match progress.load(Ordering::Relaxed) {
                0 => {}
                bytes => tell.tick(bar.at(bytes))?,
            },
        }
    }
}

/// Whether a blob is in the store, in the length that the manifest says.
async fn is_here(shared: &Arc<Shared>, layer: &Layer) -> Result<bool> {
    let (inner, digest) = (Arc::clone(&shared.store), layer.digest.clone());
    let there = blocking(move || match inner.home.touch(&digest)? {
        true => inner.home.size(&digest),
        false => Ok(None),
    });
    match there.await? {
        None => Ok(false),
        Some(length) if length == layer.size => Ok(true),
        Some(got) => Err(Error::Size { digest: layer.digest.to_string(), expected: layer.size, got }.into()),
    }
}

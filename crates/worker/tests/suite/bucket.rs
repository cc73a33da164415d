//! Loads whose weights are in a bucket of a real server.

use std::ops::ControlFlow;
use std::time::Duration;

use api::{Code, Error};
use engine::{Device, KvType};
use protocol::v1::{LoadOptions, Model};
use store::testing::S3Server;
use store::transfer::Tuning;
use store::{Digest, Location, Store, StoreConfig};
use tempfile::TempDir;
use worker::{Built, CandleLoader, Loader, Shape};

use crate::{ground::model, tiny};

/// Behind the last tensor, so that bringing the file takes a while.
const PADDING: usize = 48 << 20;

struct Place {
    loader: CandleLoader,
    model: Model,
    blob: Digest,
    cache: TempDir,
    _server: S3Server,
}

impl Place {
    async fn new() -> Place {
        let server = S3Server::start().await.unwrap();
        let mut bytes = tiny::gguf();
        bytes.resize(bytes.len() + PADDING, 7);
        let blob = Digest::of(&bytes);
        server.put(&format!("worker/blobs/{}", blob.file_name()), bytes).await.unwrap();
        let cache = tempfile::tempdir().unwrap();
        let tuning = Tuning { streams: 1, tick: Duration::from_millis(1), ..Tuning::default() };
        let config = StoreConfig {
            cache: cache.path().to_owned(),
            access: server.access(),
            tuning,
            ..StoreConfig::from(Location::parse("s3://models/worker").unwrap())
        };
        let loader = CandleLoader {
            store: Store::connect(config).await.unwrap(),
            threads: 1,
            tier: None,
            kv_type: KvType::F16,
            guesses: None,
            device: Device::Cpu,
        };
        let model = Model { weights: blob.to_string(), ..model("model") };
        Place { loader, model, blob, cache, _server: server }
    }

    /// Loads as a replica does; `tell` hears how far it is.
    async fn load(
        &self,
        mut tell: impl FnMut(f32) -> ControlFlow<()> + Send + 'static,
    ) -> Result<Built, Error> {
        let (loader, model) = (self.loader.clone(), self.model.clone());
        let loading = tokio::task::spawn_blocking(move || {
            let opened = loader.open(&model, &LoadOptions::default())?;
            opened.load(Shape { slots: 1, context_length: 64 }, &mut tell)
        });
        loading.await.unwrap()
    }

    fn is_cached(&self) -> bool {
        self.cache.path().join("blobs").join(self.blob.file_name()).exists()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bringing_the_weights_is_a_part_of_the_load_and_of_its_progress() {
    let place = Place::new().await;
    let (told, heard) = std::sync::mpsc::channel();
    let tell = move |fraction| {
        told.send(fraction).unwrap();
        ControlFlow::Continue(())
    };
    let built = place.load(tell).await.unwrap();
    let told: Vec<f32> = heard.iter().collect();
    assert!(told.is_sorted() && told.last() == Some(&1.0), "{told:?}");
    assert!(told.iter().any(|fraction| (0.1..0.7).contains(fraction)), "{told:?}");
    assert!(place.is_cached());

    // In hand as long as it is loaded, for everybody who shares the cache.
    let path = built.file.as_ref().unwrap().path().to_owned();
    let is_held = || std::fs::File::open(&path).unwrap().try_lock().is_err();
    assert!(is_held());
    drop(built);
    assert!(!is_held());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_given_up_while_its_weights_come_goes_on_there_the_next_time() {
    let place = Place::new().await;
    let give_up = |fraction| if fraction > 0.3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let error = place.load(give_up).await.err().unwrap();
    assert_eq!(error.code, Code::Canceled, "{error}");
    assert!(!place.is_cached());
    let mut least = 1.0_f32;
    let (told, heard) = std::sync::mpsc::channel();
    let tell = move |fraction: f32| {
        if fraction > 0.0 {
            least = least.min(fraction);
        }
        told.send(least).unwrap();
        ControlFlow::Continue(())
    };
    place.load(tell).await.unwrap();
    assert!(heard.iter().last().unwrap() > 0.1, "it began anew");
    assert!(place.is_cached());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_not_in_the_bucket_is_not_found() {
    let mut place = Place::new().await;
    place.model.weights = Digest::of(b"nobody has it").to_string();
    let error = place.load(|_| ControlFlow::Continue(())).await.err().unwrap();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::NotFound, "model \"model:latest\" not found, try pulling it first")
    );
}

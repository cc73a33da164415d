//! Plays every scenario of `tests/scenarios`: against a `caravan serve` of its own, or against any server that speaks
//! Ollama's API when `OLLAMA_HOST` names one. `CARAVAN_TEST_SCENARIOS=20-maxkb` plays the files of that name only.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, btree_map::Entry},
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tests::{
    cluster::{self, Cluster, MINILM, RERANKER, SMOLLM2},
    scenario::{self, Engine, File, Saved},
};

/// All files together have at least so many scenarios: a file that is not found is not silently passed over.
const MIN_SCENARIOS: usize = 500;

fn files() -> Vec<(PathBuf, File)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: PathBuf| scenario::read(&path).map(|file| (path, file)).unwrap();
    paths.into_iter().map(read).collect()
}

/// What a server is started with: an engine, keys, an environment.
type Start = (Engine, Vec<String>, BTreeMap<String, String>);

/// Where the scenarios are played: at one server for each way to start one, started when it is needed.
struct Stage {
    foreign: Option<String>,
    own: BTreeMap<Start, Cluster>,
    folder: TempDir,
}

impl Stage {
    fn new() -> Stage {
        let with_scheme = |host: String| if host.contains("://") { host } else { format!("http://{host}") };
        let foreign = std::env::var("OLLAMA_HOST").ok().map(with_scheme);
        Stage { foreign, own: BTreeMap::new(), folder: TempDir::new().unwrap() }
    }

    /// The base address for a file; `None` where the foreign server was not started for it.
    async fn base(&mut self, file: &File) -> Option<String> {
        if let Some(foreign) = &self.foreign {
            return Some(foreign.clone()).filter(|_| file.is_for_all());
        }
        let folder = self.folder.path();
        let cluster = match self.own.entry((file.engine, file.keys.clone(), file.environment.clone())) {
            Entry::Occupied(occupied) => occupied.into_mut(),
            Entry::Vacant(vacant) => vacant.insert(start(file, folder).await),
        };
        Some(cluster.base(0).unwrap())
    }
}

async fn start(file: &File, folder: &Path) -> Cluster {
    let engine = if file.engine == Engine::Candle { "candle" } else { "scripted" };
    let mut environment = vec![("CARAVAN_ENGINE", engine.to_owned())];
    environment.extend(file.environment.iter().map(|(name, value)| (name.as_str(), value.clone())));
    if file.keys.is_empty() {
        let cluster = Cluster::serve(&environment).await.unwrap();
        prepare(&cluster.base(0).unwrap()).await;
        return cluster;
    }
    let path = folder.join("keys");
    std::fs::write(&path, file.keys.join("\n")).unwrap();
    environment.push(("CARAVAN_KEYS_FILE", path.to_str().unwrap().to_owned()));
    Cluster::serve(&environment).await.unwrap()
}

/// The three models that every file finds, but for those with keys.
async fn prepare(base: &str) {
    cluster::create(base, "minilm", MINILM).await.unwrap();
    cluster::create(base, "smollm2", SMOLLM2).await.unwrap();
    cluster::create(base, "reranker", RERANKER).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_holds() {
    let mut stage = Stage::new();
    if let Some(foreign) = &stage.foreign {
        prepare(foreign).await;
    }
    let http = tests::http();
    let only = std::env::var("CARAVAN_TEST_SCENARIOS").unwrap_or_default();
    let (mut played, mut skipped, mut failures) = (0, 0, Vec::new());
    for (path, file) in files() {
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        let base = if stem.contains(&only) { stage.base(&file).await } else { None };
        let mut saved = Saved::default();
        for scenario in &file.scenarios {
            let Some(base) = base.as_ref().filter(|_| stage.foreign.is_none() || scenario.ours.is_none())
            else {
                skipped += 1;
                continue;
            };
            played += 1;
            let name = format!("{stem}: {}", scenario.name);
            match scenario::play(&http, base, scenario, &mut saved).await {
                Ok(()) => println!("ok    {name}"),
                Err(error) => failures.push(format!("{name}\n      {error:#}")),
            }
        }
    }
    println!("{played} scenarios played, {skipped} skipped, {} failed", failures.len());
    assert!(failures.is_empty(), "{} of {played} scenarios failed:\n{}", failures.len(), failures.join("\n"));
    assert!(played + skipped >= MIN_SCENARIOS, "only {} scenarios were found", played + skipped);
    for cluster in stage.own.values() {
        // A template that does not parse is an inner error to Ollama, and so to its log.
        cluster.check_logs(&[]).unwrap();
    }
}

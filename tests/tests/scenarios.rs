//! Plays every scenario of `tests/scenarios`: against a `caravan serve` of its own, or against any server that speaks
//! Ollama's API when `OLLAMA_HOST` names one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use tests::{
    cluster::{self, Cluster, MINILM, SMOLLM2},
    scenario,
};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn every_scenario_holds() {
    let (own, base) = match std::env::var("OLLAMA_HOST") {
        Ok(host) if host.contains("://") => (None, host),
        Ok(host) => (None, format!("http://{host}")),
        Err(_) => {
            let cluster = Cluster::serve(&[]).await.unwrap();
            let base = cluster.base(0).unwrap();
            (Some(cluster), base)
        }
    };
    cluster::create(&base, "minilm", MINILM).await.unwrap();
    cluster::create(&base, "smollm2", SMOLLM2).await.unwrap();
    let http = tests::http();
    let (mut played, mut failures) = (0, Vec::new());
    for path in files() {
        for scenario in scenario::read(&path).unwrap().scenarios {
            played += 1;
            let name = format!("{}: {}", path.file_stem().unwrap().to_string_lossy(), scenario.name);
            match scenario::play(&http, &base, &scenario).await {
                Ok(()) => println!("ok    {name}"),
                Err(error) => failures.push(format!("{name}\n      {error:#}")),
            }
        }
    }
    println!("{played} scenarios, {} failed", failures.len());
    assert!(failures.is_empty(), "{} of {played} scenarios failed:\n{}", failures.len(), failures.join("\n"));
    assert!(played >= 60, "only {played} scenarios were found");
    if let Some(cluster) = own {
        // A template that does not parse is an inner error to Ollama, and so to its log.
        cluster.check_logs(&["template error"]).unwrap();
    }
}

//! The official Python clients against a single `caravan serve` with a real model.

use tests::{
    cluster::{Cluster, SMOLLM2, models},
    python,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_clients_work() {
    let cluster = Cluster::serve(&[]).await.unwrap();
    cluster.create("smollm2", SMOLLM2).await.unwrap();
    let base = cluster.base(0).unwrap();
    let gguf = models().unwrap().join(SMOLLM2);
    tokio::task::block_in_place(|| {
        python::play("ollama_client.py", &base, &[gguf.to_str().unwrap()]).unwrap();
        python::play("openai_client.py", &base, &[]).unwrap();
    });
    cluster.check_logs(&[]).unwrap();
}

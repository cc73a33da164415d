//! Real clients against two servers: one with real models, and one that wants a key and says what it is told to, for
//! tools and thoughts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::json;
use tempfile::TempDir;
use tests::{
    cluster::{self, Cluster, MINILM, RERANKER, SMOLLM2, models},
    javascript, python,
};

/// Templates of models with tools, and with thoughts.
const TOOLFUL: &str = "\
{{- if .Tools }}<|im_start|>system
Tools: {{ json .Tools }}<|im_end|>
{{ end }}{{ range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}{{ if .ToolCalls }}<tool_call>
{{ range .ToolCalls }}{\"name\": \"{{ .Function.Name }}\", \"arguments\": {{ .Function.Arguments }}}
{{ end }}</tool_call>{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
";
const THINKER: &str = "\
{{- range .Messages }}<|im_start|>{{ .Role }}
{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
";

/// A server that says what it is told to, to those who have the key `sesame`.
async fn scripted(folder: &TempDir) -> Cluster {
    let keys = folder.path().join("keys");
    std::fs::write(&keys, "sesame\n").unwrap();
    let environment = [
        ("CARAVAN_ENGINE", "scripted".to_owned()),
        ("CARAVAN_KEYS_FILE", keys.to_str().unwrap().to_owned()),
        // Slow enough that an answer can be left in its middle.
        ("CARAVAN_SCRIPTED_TOKENS_PER_SECOND", "500".to_owned()),
    ];
    let cluster = Cluster::serve(&environment).await.unwrap();
    let base = format!("{}/k/sesame", cluster.base(0).unwrap());
    cluster::create(&base, "smollm2", SMOLLM2).await.unwrap();
    for (name, template) in [("toolful", TOOLFUL), ("thinker", THINKER)] {
        let body = json!({"model": name, "from": "smollm2", "template": template, "stream": false});
        let made = tests::http().post(format!("{base}/api/create")).json(&body).send().await.unwrap();
        assert!(made.status().is_success(), "{}", made.text().await.unwrap());
    }
    cluster
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_clients_work() {
    let folder = TempDir::new().unwrap();
    let (cluster, scripted) = (Cluster::serve(&[]).await.unwrap(), scripted(&folder).await);
    cluster.create("minilm", MINILM).await.unwrap();
    cluster.create("smollm2", SMOLLM2).await.unwrap();
    cluster.create("reranker", RERANKER).await.unwrap();
    let (base, script) = (cluster.base(0).unwrap(), scripted.base(0).unwrap());
    let gguf = models().unwrap().join(SMOLLM2);
    tokio::task::block_in_place(|| {
        python::play("ollama_client.py", &base, &[gguf.to_str().unwrap(), &script]).unwrap();
        python::play("openai_client.py", &base, &[&script]).unwrap();
        python::play("anthropic_client.py", &base, &[&script]).unwrap();
        python::play("langchain_client.py", &base, &[&script]).unwrap();
        python::play("llama_index_client.py", &base, &[&script]).unwrap();
        javascript::play("ollama_client.mjs", &base, &[&script]).unwrap();
        python::play("cohere_client.py", &base, &[]).unwrap();
    });
    cluster.check_logs(&[]).unwrap();
    scripted.check_logs(&[]).unwrap();
}

//! Models from and to a real registry, over the API and the command line of real processes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use futures::StreamExt;
use serde_json::{Value, json};
use tests::{
    cluster::{Cluster, GEMMA3, Plan, SMOLLM2, digest, models},
    docker_registry::DockerRegistry,
    process::binary,
};

fn mirrored(registry: &DockerRegistry) -> Vec<(&'static str, String)> {
    vec![("CARAVAN_REGISTRY_MIRROR", registry.url())]
}

fn weights(file: &str) -> PathBuf {
    models().unwrap().join(file)
}

/// Runs `caravan ARGUMENTS`; answers what it printed on both ends, and whether it succeeded.
fn caravan(base: &str, arguments: &[&str]) -> (bool, String, String) {
    tokio::task::block_in_place(|| {
        let mut command = Command::new(binary().unwrap());
        command.args(arguments).env("OLLAMA_HOST", base).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    })
}

async fn post(base: &str, path: &str, body: Value) -> (u16, String) {
    let answer = tests::http().post(format!("{base}{path}")).body(body.to_string()).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn lines(text: &str) -> Vec<Value> {
    assert!(text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn blob(cluster: &Cluster, digest: &str) -> PathBuf {
    cluster.folder().join("blobs").join(digest.replace(':', "-"))
}

async fn tags(base: &str) -> Vec<String> {
    let text = tests::http().get(format!("{base}/api/tags")).send().await.unwrap().text().await.unwrap();
    let tags: Value = serde_json::from_str(&text).unwrap();
    tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|model| model["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_pulled_told_and_answers() {
    let registry = DockerRegistry::start().unwrap();
    let manifest = registry.publish("library/m", &weights(SMOLLM2)).await.unwrap();
    let cluster = Cluster::serve(&[]).await.unwrap();
    let base = cluster.base(0).unwrap();
    let name = format!("{}/library/m", registry.address());

    // As clients of old versions do it: `name`, no content type.
    let (status, text) = post(&base, "/api/pull", json!({"name": name, "insecure": true})).await;
    assert_eq!(status, 200, "{text}");
    let told = lines(&text);
    let weights_digest = digest(&weights(SMOLLM2)).unwrap();
    assert_eq!(told[0], json!({"status": "pulling manifest"}));
    let bars: Vec<&Value> = told.iter().filter(|line| line["digest"] == *weights_digest).collect();
    assert!(bars.iter().all(|bar| bar["status"] == format!("pulling {}", &weights_digest[7..19])));
    let last = bars.last().unwrap();
    assert_eq!(last["completed"], last["total"]);
    let statuses: Vec<&str> = told.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert!(statuses.ends_with(&["verifying sha256 digest", "writing manifest", "success"]), "{statuses:?}");

    let stored = cluster.folder().join(format!("manifests/{name}/latest"));
    assert_eq!(std::fs::read_to_string(stored).unwrap(), manifest, "byte for byte");
    assert_eq!(digest(&blob(&cluster, &weights_digest)).unwrap(), weights_digest);
    let said = cluster.chat(0, &name, "What is the capital of France?").await.unwrap();
    assert!(said["eval_count"].as_u64().unwrap() > 0, "{said}");

    let (status, text) =
        post(&base, "/api/pull", json!({"model": name, "insecure": true, "stream": false})).await;
    assert_eq!((status, text.as_str()), (200, r#"{"status":"success"}"#));
    let missing =
        json!({"model": format!("{}/library/n", registry.address()), "insecure": true, "stream": false});
    let (status, text) = post(&base, "/api/pull", missing).await;
    assert_eq!((status, text.as_str()), (500, r#"{"error":"pull model manifest: file does not exist"}"#));
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_pulls_what_it_needs_through_the_mirror() {
    let registry = DockerRegistry::start().unwrap();
    registry.publish("library/m", &weights(SMOLLM2)).await.unwrap();
    registry.publish("library/other", &weights(SMOLLM2)).await.unwrap();
    let cluster = Cluster::serve(&mirrored(&registry)).await.unwrap();
    let base = cluster.base(0).unwrap();

    let (ok, out, err) = caravan(&base, &["pull", "m"]);
    assert!(ok && out.is_empty(), "{out}{err}");
    let parts =
        ["pulling manifest\n", ": 100% 98 MB\n", "verifying sha256 digest\nwriting manifest\nsuccess\n"];
    assert!(parts.iter().all(|part| err.contains(part)), "{err}");
    assert_eq!(tags(&base).await, ["m:latest"], "the name is not the mirror's");

    let (ok, out, err) = caravan(&base, &["run", "other", "What is the capital of France?"]);
    assert!(ok && !out.trim().is_empty() && err.contains("writing manifest"), "{out}{err}");
    // By the registry's own name, which has no certificate here.
    let direct = format!("{}/library/other", registry.address());
    let (ok, _, err) = caravan(&base, &["run", &direct, "Hi"]);
    assert!(!ok && err.contains("Error: pull model manifest: "), "{err}");
    let (ok, out, err) = caravan(&base, &["run", "--insecure", &direct, "What is the capital of France?"]);
    assert!(ok && !out.trim().is_empty() && err.contains("writing manifest"), "{out}{err}");
    let (ok, _, _) = caravan(&base, &["rm", "m", "other", &direct]);
    assert!(ok);

    let modelfile = cluster.folder().join("Modelfile");
    std::fs::write(&modelfile, "FROM m\nSYSTEM Be loud.\n").unwrap();
    let (ok, _, err) = caravan(&base, &["create", "child", "-f", modelfile.to_str().unwrap()]);
    assert!(ok && err.starts_with("pulling manifest\n") && err.ends_with("success\n"), "{err}");
    assert_eq!(err.matches("success").count(), 1, "{err}");
    assert_eq!(caravan(&base, &["show", "--system", "child"]).1, "Be loud.");

    let (ok, _, err) = caravan(&base, &["pull", "nope"]);
    assert!(!ok && err.ends_with("Error: pull model manifest: file does not exist\n"), "{err}");
    let (ok, _, err) = caravan(&base, &["run", "nope", "hi"]);
    assert!(!ok && err.ends_with("Error: pull model manifest: file does not exist\n"), "{err}");
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_was_killed_goes_on_where_it_was() {
    const ENOUGH: u64 = 32 << 20;
    let registry = DockerRegistry::start().unwrap();
    registry.publish("library/m", &weights(GEMMA3)).await.unwrap();
    let mut cluster = Cluster::serve(&mirrored(&registry)).await.unwrap();
    let base = cluster.base(0).unwrap();
    let weights_digest = digest(&weights(GEMMA3)).unwrap();

    let body = json!({"model": "m"}).to_string();
    let answer = tests::http().post(format!("{base}/api/pull")).body(body).send().await.unwrap();
    let mut chunks = answer.bytes_stream();
    let (mut text, mut completed) = (String::new(), 0);
    while completed < ENOUGH {
        text.push_str(std::str::from_utf8(&chunks.next().await.unwrap().unwrap()).unwrap());
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text.drain(..whole).collect::<String>().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_ne!(line["status"], "success", "too fast to be killed");
            completed = completed.max(line["completed"].as_u64().unwrap_or_default());
        }
    }
    // What is not sent yet never comes: the download cannot be over before the kill.
    registry.signal("STOP").unwrap();
    cluster.gateways[0].kill().unwrap();
    registry.signal("CONT").unwrap();
    let partial = PathBuf::from(format!("{}-partial", blob(&cluster, &weights_digest).display()));
    assert!(partial.exists() && !blob(&cluster, &weights_digest).exists());
    let kept = kept_bytes(&partial);
    assert!(kept > 0, "nothing was kept");

    cluster.restart_serve(&mirrored(&registry)).await.unwrap();
    let base = cluster.base(0).unwrap();
    let (status, text) = post(&base, "/api/pull", json!({"model": "m"})).await;
    let told = lines(&text);
    assert_eq!((status, told.last().unwrap()), (200, &json!({"status": "success"})));
    let first = told.iter().find(|line| line["digest"] == *weights_digest && line["completed"].is_u64());
    assert!(first.unwrap()["completed"].as_u64().unwrap() >= kept, "{first:?}, {kept} bytes were kept");
    assert_eq!(digest(&blob(&cluster, &weights_digest)).unwrap(), weights_digest);
    assert!(!partial.exists() && kept_bytes(&partial) == 0, "nothing partial is left");
    cluster.check_logs(&[]).unwrap();
}

/// What the states of a cut download tell, in Ollama's format.
fn kept_bytes(partial: &Path) -> u64 {
    let state = |n: usize| std::fs::read(format!("{}-{n}", partial.display())).ok();
    let parts = (0..).map_while(state).map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    parts.map(|part| part["Completed"].as_u64().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_pull_a_model_once() {
    let registry = DockerRegistry::start().unwrap();
    registry.publish("library/m", &weights(SMOLLM2)).await.unwrap();
    let plan = Plan { workers: 1, gateways: 2, engine: "scripted", environment: mirrored(&registry) };
    let cluster = Cluster::start_on_etcd(&plan).await.unwrap();
    let (first, second) = (cluster.base(0).unwrap(), cluster.base(1).unwrap());
    let body = json!({"model": "m"});
    let (one, two) =
        tokio::join!(post(&first, "/api/pull", body.clone()), post(&second, "/api/pull", body.clone()));
    for (status, text) in [one, two] {
        assert_eq!((status, lines(&text).last().unwrap()), (200, &json!({"status": "success"})), "{text}");
    }
    let weights_digest = digest(&weights(SMOLLM2)).unwrap();
    assert_eq!(registry.answered(&["http.request.method=GET", &weights_digest]), 1, "one part, once");
    assert_eq!(tags(&first).await, ["m:latest"]);
    assert_eq!(tags(&second).await, ["m:latest"]);
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pushed_is_pulled_again_byte_for_byte() {
    let registry = DockerRegistry::start().unwrap();
    let cluster = Cluster::serve(&[]).await.unwrap();
    cluster.create("m", SMOLLM2).await.unwrap();
    let base = cluster.base(0).unwrap();
    let weights_digest = digest(&weights(SMOLLM2)).unwrap();
    let (name, child) =
        (format!("{}/me/m", registry.address()), format!("{}/me/child:v1", registry.address()));
    let copied = post(&base, "/api/copy", json!({"source": "m", "destination": name})).await;
    assert_eq!(copied, (200, String::new()));

    let (status, text) = post(&base, "/api/push", json!({"name": name, "insecure": true})).await;
    let told = lines(&text);
    let statuses: Vec<&str> = told.iter().map(|line| line["status"].as_str().unwrap()).collect();
    assert_eq!((status, statuses[0]), (200, "retrieving manifest"), "{text}");
    assert!(statuses.ends_with(&["pushing manifest", "success"]), "{statuses:?}");
    let label = format!("pushing {}", &weights_digest[7..19]);
    let bar = told.iter().rfind(|line| line["status"] == label).unwrap();
    assert_eq!((&bar["digest"], &bar["completed"]), (&json!(weights_digest), &bar["total"]));
    let stored = cluster.folder().join("manifests").join(&name).join("latest");
    assert_eq!(registry.get("me/m/manifests/latest").await.unwrap(), std::fs::read(stored).unwrap());
    assert!(registry.answered(&["http.request.method=PATCH", "me/m"]) > 0);

    // What the registry has in another repository is mounted, not sent.
    let made = json!({"model": child, "from": name, "system": "Be loud.", "stream": false});
    assert_eq!(post(&base, "/api/create", made).await.0, 200);
    let (ok, out, err) = caravan(&base, &["push", "--insecure", &child]);
    assert!(ok && out == format!("\nYou can find your model at:\n\n\t{child}\n"), "{out}{err}");
    assert!(
        err.starts_with("retrieving manifest\n") && err.ends_with("pushing manifest\nsuccess\n"),
        "{err}"
    );
    let mounted = ["http.request.method=POST", "me/child", &weights_digest[7..], "http.response.status=201"];
    assert_eq!(registry.answered(&mounted), 1);
    let (status, text) =
        post(&base, "/api/push", json!({"model": child, "insecure": true, "stream": false})).await;
    assert_eq!((status, text.as_str()), (200, r#"{"status":"success"}"#), "everything is there");

    let other = Cluster::serve(&[]).await.unwrap();
    let (ok, _, err) = caravan(&other.base(0).unwrap(), &["pull", "--insecure", &child]);
    assert!(ok, "{err}");
    let manifest = |cluster: &Cluster| {
        std::fs::read(cluster.folder().join("manifests").join(child.replace(":v1", "/v1"))).unwrap()
    };
    assert_eq!(manifest(&other), manifest(&cluster));
    assert_eq!(digest(&blob(&other, &weights_digest)).unwrap(), weights_digest);

    let (status, text) = post(&base, "/api/push", json!({"model": "nope", "insecure": true})).await;
    let told = lines(&text);
    assert_eq!((status, &told[1]), (200, &json!({"status": "couldn't retrieve manifest"})));
    assert_eq!(told[2], json!({"error": "model 'nope:latest' not found"}));
    cluster.check_logs(&[]).unwrap();
    other.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_travels_in_a_file() {
    let (from, to) = (Cluster::serve(&[]).await.unwrap(), Cluster::serve(&[]).await.unwrap());
    from.create("m", SMOLLM2).await.unwrap();
    let (there, here) = (from.base(0).unwrap(), to.base(0).unwrap());
    let file = from.folder().join("m.tar");
    let pipe = |base: &str, arguments: &[&str], stdin: Stdio, stdout: Stdio| {
        tokio::task::block_in_place(|| {
            let mut command = Command::new(binary().unwrap());
            command.args(arguments).env("OLLAMA_HOST", base).stdin(stdin).stdout(stdout);
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8(output.stderr).unwrap())
        })
    };
    let saved = std::fs::File::create(&file).unwrap();
    let (ok, err) = pipe(&there, &["save", "m"], Stdio::null(), saved.into());
    assert!(ok && err.starts_with("saving m"), "{err}");
    let loaded = || std::fs::File::open(&file).unwrap();
    let (ok, err) = pipe(&here, &["load"], loaded().into(), Stdio::null());
    assert!(ok && err.contains(": 100% 98 MB\n") && err.ends_with("writing manifest\nsuccess\n"), "{err}");
    let manifest = |cluster: &Cluster| {
        std::fs::read(cluster.folder().join("manifests/registry.ollama.ai/library/m/latest")).unwrap()
    };
    assert_eq!(manifest(&to), manifest(&from));
    let said = to.chat(0, "m", "What is the capital of France?").await.unwrap();
    assert!(said["eval_count"].as_u64().unwrap() > 0, "{said}");

    // Half a file makes no model, and leaves nothing.
    assert_eq!(caravan(&here, &["rm", "m"]).1, "deleted 'm'\n");
    let half = std::fs::metadata(&file).unwrap().len() / 2;
    std::fs::File::options().write(true).open(&file).unwrap().set_len(half).unwrap();
    let (ok, err) = pipe(&here, &["load"], loaded().into(), Stdio::null());
    assert!(!ok && err.contains("Error: the file ends early, after"), "{err}");
    assert!(tags(&here).await.is_empty());
    assert_eq!(std::fs::read_dir(to.folder().join("blobs")).unwrap().count(), 0);
    let (ok, err) = pipe(&there, &["save", "nope"], Stdio::null(), Stdio::null());
    assert!(!ok && err == "Error: model 'nope:latest' not found\n", "{err}");
    from.check_logs(&[]).unwrap();
    to.check_logs(&[]).unwrap();
}

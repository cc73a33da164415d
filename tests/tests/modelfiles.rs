//! Modelfiles as people write them, through the command line to what the model then has, and back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use tests::{
    cluster::{Cluster, SMOLLM2, models},
    process::binary,
    terminal::Terminal,
};

const READY: &str = ">>> Send a message (/? for help)";

async fn server() -> (Cluster, String) {
    let cluster = Cluster::serve(&[("CARAVAN_ENGINE", "scripted".to_owned())]).await.unwrap();
    let base = cluster.base(0).unwrap();
    (cluster, base)
}

/// What the command said, which must have succeeded.
fn create(base: &str, name: &str, modelfile: &Path) -> String {
    let mut command = Command::new(binary().unwrap());
    command.args(["create", name, "-f", modelfile.to_str().unwrap()]).env("OLLAMA_HOST", base);
    let output = tokio::task::block_in_place(|| command.output().unwrap());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    said
}

async fn show(base: &str, name: &str) -> Value {
    let answer = tests::http().post(format!("{base}/api/show")).json(&json!({"model": name})).send().await;
    answer.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instruction_of_a_modelfile_reaches_the_model_and_comes_back() {
    let (cluster, base) = server().await;
    let folder = tempfile::tempdir().unwrap();
    let text = every_instruction(folder.path());
    let plain = folder.path().join("Modelfile");
    fs::write(&plain, &text).unwrap();
    assert!(create(&base, "one", &plain).contains("warning: parameter mirostat is deprecated"));
    // As an editor on Windows saves it: a mark before it, and two bytes at the end of each line.
    let windows = folder.path().join("Modelfile.windows");
    fs::write(&windows, format!("\u{feff}{}", text.replace('\n', "\r\n"))).unwrap();
    create(&base, "two", &windows);

    for (name, end) in [("one", "\n"), ("two", "\r\n")] {
        let shown = show(&base, name).await;
        let expected = json!({
            "system": format!("Be{end}kind."),
            "template": format!("{{{{ .System }}}}{end}# no comment here{end}{{{{ .Prompt }}}}"),
            "license": format!("free\nso{end}free"),
            "messages": [
                {"role": "user", "content": "Is it \"far\"?"},
                {"role": "assistant", "content": format!("It is{end}far.")},
                {"role": "user", "content": "And now?"},
            ],
            "requires": "0.14.0",
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&shown[key], value, "{key} of {name}");
        }
        let mut parameters: Vec<&str> = shown["parameters"].as_str().unwrap().lines().collect();
        parameters.sort_unstable();
        let row = |name: &str, value: &str| format!("{name:<30} {value}");
        let expected = [
            row("num_ctx", "200"),
            row("stop", "\"<|a|>\""),
            row("stop", "\"<|b|> \""),
            row("temperature", "0.25"),
        ];
        assert_eq!(parameters, expected);
        assert!(
            shown["capabilities"].as_array().unwrap().contains(&json!("vision")),
            "{}",
            shown["capabilities"]
        );

        // What show prints makes the same model again.
        let printed = folder.path().join("Modelfile.printed");
        fs::write(&printed, shown["modelfile"].as_str().unwrap()).unwrap();
        create(&base, "again", &printed);
        let again = show(&base, "again").await;
        for key in
            ["system", "template", "license", "messages", "parameters", "requires", "capabilities", "details"]
        {
            let same = |shown: &Value| match key {
                // The blobs' names are the files' names now.
                "details" => shown[key]["family"].clone(),
                _ => shown[key].clone(),
            };
            assert_eq!(same(&again), same(&shown), "{key} of {name}");
        }
    }
    cluster.check_logs(&[]).unwrap();
}

/// A Modelfile with all of them.
fn every_instruction(folder: &Path) -> String {
    format!(
        r#"# A comment, and an empty line.

  FROM {}
from {}
TEMPLATE """{{{{ .System }}}}
# no comment here
{{{{ .Prompt }}}}"""
system "Be
kind."
PARAMETER stop <|a|>
parameter stop "<|b|> "
PARAMETER temperature 0.25
PARAMETER mirostat 1
PARAMETER num_ctx 100
PARAMETER num_ctx 200
MESSAGE user Is it "far"?
MESSAGE assistant """It is
far."""
MESSAGE user And now?
LICENSE free
LICENSE """so
free"""
RENDERER plain
PARSER plain
REQUIRES 0.14.0
"#,
        models().unwrap().join(SMOLLM2).display(),
        projector(folder).display()
    )
}

/// A file that says that it is the eye of a model.
fn projector(folder: &Path) -> std::path::PathBuf {
    let mut writer = gguf::Writer::new();
    for (key, value) in [("general.architecture", "clip"), ("general.type", "projector")] {
        writer.metadata(key, value).unwrap();
    }
    writer.tensor("v.patch_embd.weight", &[32], gguf::TensorType::F32, vec![0; 128]).unwrap();
    let path = folder.join("projector.gguf");
    fs::write(&path, writer.to_bytes().unwrap()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_saved_has_the_parent_of_the_model_that_it_was_said_to() {
    let (cluster, base) = server().await;
    cluster.create("root", SMOLLM2).await.unwrap();
    let http = tests::http();
    let child = json!({
        "model": "child", "from": "root", "system": "Be kind.", "template": "{{ .System }} {{ .Prompt }}\n",
        "parameters": {"top_k": 7, "temperature": 0.9}, "messages": [{"role": "user", "content": "earlier"}], "stream": false,
    });
    let made = http.post(format!("{base}/api/create")).json(&child).send().await.unwrap();
    assert!(made.status().is_success());

    let home = cluster.folder().to_str().unwrap();
    let all = [("HOME", home), ("OLLAMA_HOST", base.as_str()), ("PATH", "/usr/bin:/bin")];
    let terminal =
        Terminal::start((80, 40), &[binary().unwrap().to_str().unwrap(), "run", "child"], &all).unwrap();
    terminal.wait_for(READY).await.unwrap();
    for (line, answer) in [
        ("/set parameter temperature 0.25", "Set parameter 'temperature' to '0.25'"),
        ("[[say hello]]", "hello"),
        ("/save mine", "Created new model 'mine'"),
    ] {
        terminal.enter(line).unwrap();
        let is_said = |screen: &str| screen.lines().any(|line| line == answer) && screen.ends_with(READY);
        terminal.wait_until(answer, is_said).await.unwrap();
    }
    terminal.enter("/bye").unwrap();
    assert_eq!(terminal.exit_code().await.unwrap(), 0);

    let mine = show(&base, "mine").await;
    assert_eq!(mine["details"]["parent_model"], "root:latest");
    assert_eq!((&mine["system"], &mine["template"]), (&child["system"], &child["template"]));
    let parameters = mine["parameters"].as_str().unwrap();
    for expected in [format!("{:<30} 7", "top_k"), format!("{:<30} 0.25", "temperature")] {
        assert!(parameters.lines().any(|line| line == expected), "{parameters}");
    }
    let said: Vec<&str> =
        mine["messages"].as_array().unwrap().iter().map(|said| said["content"].as_str().unwrap()).collect();
    assert_eq!(said, ["earlier", "[[say hello]]", "hello"]);
    cluster.check_logs(&[]).unwrap();
}

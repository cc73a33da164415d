//! The client's commands as people type them, against a `caravan serve` with a real model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use tests::{
    cluster::{Cluster, SMOLLM2, models},
    process::binary,
    python,
};

/// What a command printed, and whether it succeeded.
struct Said {
    out: String,
    err: String,
    code: Option<i32>,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Said { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
    }
}

/// Runs `caravan ARGUMENTS` with `input` on its standard input.
fn caravan(base: &str, arguments: &[&str], input: &str) -> Said {
    let mut command = Command::new(binary().unwrap());
    command.args(arguments).env("OLLAMA_HOST", base);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_lives_its_life_on_the_command_line() {
    let cluster = Cluster::serve(&[]).await.unwrap();
    let base = cluster.base(0).unwrap();
    let modelfile = cluster.folder().join("Modelfile");
    let gguf = models().unwrap().join(SMOLLM2);
    std::fs::write(
        &modelfile,
        format!("FROM {}\nPARAMETER temperature 0\nSYSTEM Be brief.\n", gguf.display()),
    )
    .unwrap();
    let run =
        |arguments: &[&str], input: &str| tokio::task::block_in_place(|| caravan(&base, arguments, input));

    let created = run(&["create", "m", "-f", modelfile.to_str().unwrap()], "");
    assert_eq!(created.code, Some(0), "{}", created.err);
    assert!(
        created.err.contains("gathering model components") && created.err.ends_with("success\n"),
        "{}",
        created.err
    );

    let listed = run(&["list"], "");
    assert!(listed.out.starts_with("NAME        ID              SIZE     MODIFIED"), "{}", listed.out);
    assert!(listed.out.contains("m:latest") && listed.out.contains("98 MB"), "{}", listed.out);

    let answered = run(&["run", "m", "What is the capital of France?", "Answer in one sentence."], "");
    assert!(answered.out.contains("Paris"), "{} {}", answered.out, answered.err);
    let piped = run(&["run", "--verbose", "m"], "What is the capital of France? Answer in one sentence.");
    assert!(piped.out.contains("Paris") && piped.err.contains("eval rate:"), "{} {}", piped.out, piped.err);

    let running = run(&["ps"], "");
    assert!(running.out.contains("m:latest") && running.out.contains("100% CPU"), "{}", running.out);
    assert_eq!(run(&["stop", "m"], "").code, Some(0));
    assert!(run(&["stop", "other"], "").err.contains("couldn't find model \"other\" to stop"));

    let shown = run(&["show", "m"], "");
    assert!(
        shown.out.contains("architecture        llama") && shown.out.contains("Be brief."),
        "{}",
        shown.out
    );
    assert_eq!(run(&["show", "--system", "m"], "").out, "Be brief.");
    assert_eq!(run(&["cp", "m", "me/n:v1"], "").out, "copied 'm' to 'me/n:v1'\n");
    assert_eq!(run(&["rm", "m", "me/n:v1"], "").out, "deleted 'm'\ndeleted 'me/n:v1'\n");
    assert_eq!(run(&["list"], "").out.lines().count(), 1);

    let missing = run(&["run", "m", "hi"], "");
    assert_eq!((missing.code, missing.out.as_str()), (Some(1), ""));
    assert!(missing.err.contains("caravan create m") && missing.err.contains("not found"), "{}", missing.err);
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_goes_on_at_a_terminal() {
    let cluster = Cluster::serve(&[("CARAVAN_ENGINE", "scripted".to_owned())]).await.unwrap();
    cluster.create("m", SMOLLM2).await.unwrap();
    let (base, binary) = (cluster.base(0).unwrap(), binary().unwrap());
    tokio::task::block_in_place(|| python::play("terminal.py", &base, &[binary.to_str().unwrap()]).unwrap());
    cluster.check_logs(&[]).unwrap();
}

#[test]
fn what_is_wrong_with_a_setting_is_said_before_a_port_is_bound() {
    let refused = |arguments: &[&str], variables: &[(&str, &str)]| -> Said {
        let mut command = Command::new(binary().unwrap());
        command.args(arguments).envs(variables.iter().copied()).output().unwrap().into()
    };
    let flag = refused(&["serve", "--threads", "0"], &[]);
    assert_eq!(flag.code, Some(64));
    assert!(
        flag.err.contains("`--threads` must be a number from 1 to 1024, got \"0\" (command line)"),
        "{}",
        flag.err
    );
    let variable = refused(&["worker"], &[("CARAVAN_ETCD", "localhost")]);
    assert_eq!(variable.code, Some(64));
    assert!(variable.err.contains("`CARAVAN_ETCD` must be http(s)://host:port"), "{}", variable.err);
    let missing = refused(&["gateway"], &[]);
    assert_eq!(missing.code, Some(64));
    assert!(missing.err.contains("`--etcd` must be given to a gateway"), "{}", missing.err);
    assert_eq!(refused(&["serve", "--nonsense"], &[]).code, Some(64));
}

#[test]
fn without_a_server_every_command_says_how_to_start_one() {
    // A port that was free a moment ago, and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let said = caravan(&format!("127.0.0.1:{port}"), &["list"], "");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("could not connect") && said.err.contains("caravan serve"), "{}", said.err);
}

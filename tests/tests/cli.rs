//! The client's commands as people type them, against a `caravan serve` with a real model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use tests::{
    cluster::{Cluster, MINILM, SMOLLM2, models},
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
    run(Command::new(binary().unwrap()).args(arguments).env("OLLAMA_HOST", base), input)
}

fn run(command: &mut Command, input: &str) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_lives_its_life_on_the_command_line() {
    // What is not there is looked for in a registry: at a port where nobody listens.
    let nowhere = ("CARAVAN_REGISTRY_MIRROR", "http://127.0.0.1:9".to_owned());
    let cluster = Cluster::serve(&[nowhere]).await.unwrap();
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

    let refused = run(&["create", "m", "-f", "/nowhere/Modelfile"], "");
    assert_eq!((refused.code, refused.err.as_str()), (Some(1), "Error: specified Modelfile wasn't found\n"));

    let listed = run(&["list"], "");
    let found = run(&["ls", "M"], "").out;
    assert!(found.contains("m:latest"), "an alias, and a prefix in any case: {found}");
    assert_eq!(run(&["list", "n"], "").out.lines().count(), 1, "the header alone");
    assert_eq!(run(&["list", "m", "n"], "").out, found, "the first of several prefixes counts");
    assert!(listed.out.starts_with("NAME        ID              SIZE     MODIFIED"), "{}", listed.out);
    assert!(listed.out.contains("m:latest") && listed.out.contains("98 MB"), "{}", listed.out);

    let answered = run(&["run", "m", "What is the capital of France?", "Answer in one sentence."], "");
    assert!(answered.out.contains("Paris"), "{} {}", answered.out, answered.err);
    let piped = run(&["run", "m", "--verbose"], "What is the capital of France? Answer in one sentence.");
    assert!(piped.out.contains("Paris") && piped.err.contains("eval rate:"), "{} {}", piped.out, piped.err);

    let running = run(&["ps"], "");
    assert!(running.out.contains("m:latest") && running.out.contains("100% CPU"), "{}", running.out);
    assert!(run(&["ps", "m", "n"], "").out.contains("m:latest"));
    assert_eq!(run(&["ps", "M"], "").out.lines().count(), 1, "the case of a prefix counts here");
    assert_eq!(run(&["stop", "m"], "").code, Some(0));
    assert!(run(&["stop", "other"], "").err.contains("couldn't find model \"other\" to stop"));

    let shown = run(&["show", "m"], "");
    assert!(
        shown.out.contains("architecture        llama") && shown.out.contains("Be brief."),
        "{}",
        shown.out
    );
    assert!(!shown.out.contains("Metadata"), "{}", shown.out);
    let verbose = run(&["show", "-v", "m"], "").out;
    for line in
        ["    general.architecture  ", "    token_embd.weight    ", "    Q8_0    [576 49152]", " more]  "]
    {
        assert!(verbose.contains(line), "{line}: {verbose}");
    }
    assert_eq!(run(&["show", "--system", "m"], "").out, "Be brief.");
    assert!(run(&["show", "--parameters", "m"], "").out.contains("temperature                    0\n"));
    assert!(run(&["show", "--template", "m"], "").out.contains("<|im_start|>"));
    assert!(run(&["show", "--modelfile", "m"], "").out.contains("\nSYSTEM Be brief.\n"));
    assert_eq!(run(&["show", "--license", "m"], "").code, Some(0));
    let both = run(&["show", "--license", "--system", "m"], "");
    assert!(both.code == Some(1) && both.err.starts_with("Error: only one of '--license'"), "{}", both.err);
    assert_eq!(run(&["cp", "m", "me/n:v1"], "").out, "copied 'm' to 'me/n:v1'\n");
    assert_eq!(run(&["rm", "m", "me/n:v1"], "").out, "deleted 'm'\ndeleted 'me/n:v1'\n");
    assert_eq!(run(&["list"], "").out.lines().count(), 1);
    assert_eq!(run(&["rm", "m"], "").err, "Error: model 'm' not found\n");

    let missing = run(&["run", "m", "hi"], "");
    assert_eq!((missing.code, missing.out.as_str()), (Some(1), ""));
    assert!(missing.err.contains("Error: pull model manifest: GET http://127.0.0.1:9/"), "{}", missing.err);
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
    let foreign = refused(&["gateway", "--threads", "2"], &[]);
    assert_eq!(foreign.code, Some(64));
    assert!(
        foreign.err.contains("'--threads <N>': a gateway runs no model; run worker or serve"),
        "{}",
        foreign.err
    );
}

#[test]
fn without_a_server_every_command_says_how_to_start_one() {
    let said = caravan(&nobody(), &["list"], "");
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("could not connect") && said.err.contains("caravan serve"), "{}", said.err);
    for host in
        ["http://me:secret@127.0.0.1:9", "https://me:secret@127.0.0.1:9", "http://me:secret@127.0.0.1:x"]
    {
        let said = caravan(host, &["list"], "");
        assert!(said.code == Some(1) && !said.err.contains("secret"), "{}", said.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embedding_model_prints_a_vector() {
    let cluster = Cluster::serve(&[]).await.unwrap();
    cluster.create("e", MINILM).await.unwrap();
    let base = cluster.base(0).unwrap();
    let run =
        |arguments: &[&str], input: &str| tokio::task::block_in_place(|| caravan(&base, arguments, input));
    let vector = |said: Said| -> Vec<f32> { serde_json::from_str(&said.out).unwrap() };
    assert_eq!(vector(run(&["run", "e", "a text"], "")).len(), 384);
    assert_eq!(vector(run(&["run", "--dimensions", "8", "e"], "a text")).len(), 8);
    let long = "word ".repeat(2000);
    assert_eq!(vector(run(&["run", "--truncate", "e"], &long)).len(), 384);
    let refused = run(&["run", "--truncate=false", "e"], &long);
    assert!(refused.code == Some(1) && refused.err.contains("context length"), "{}", refused.err);
    let none = run(&["run", "e"], "");
    assert_eq!(
        none.err,
        "Error: embedding models require input text. Usage: caravan run e \"your text here\"\n"
    );
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_named_ollama_is_ollama() {
    let cluster = Cluster::serve(&[("CARAVAN_ENGINE", "scripted".to_owned())]).await.unwrap();
    let base = cluster.base(0).unwrap();
    let ollama = cluster.folder().join("ollama");
    std::os::unix::fs::symlink(binary().unwrap(), &ollama).unwrap();
    let version = |program: &std::path::Path, base: &str| {
        tokio::task::block_in_place(|| run(Command::new(program).arg("-v").env("OLLAMA_HOST", base), ""))
    };
    assert_eq!(version(&ollama, &base).out, "ollama version is 0.33.0\n");
    let ours = version(&binary().unwrap(), &base);
    assert!(ours.out.starts_with("caravan version is ") && ours.out.contains("0.33.0"), "{}", ours.out);

    let alone = version(&ollama, &nobody());
    let lines: Vec<_> = alone.out.lines().collect();
    assert_eq!(
        lines,
        ["Warning: could not connect to a running Ollama instance", "Warning: client version is 0.33.0"]
    );
    let said = run(Command::new(&ollama).arg("list").env("OLLAMA_HOST", nobody()), "");
    let expected = "Error: could not connect to ollama server, run 'ollama serve' to start it";
    assert!(said.code == Some(1) && said.err.starts_with(expected), "{}", said.err);
    let help = run(Command::new(&ollama).args(["serve", "--help"]), "").out;
    assert!(help.contains("Usage: ollama serve") && help.contains("      OLLAMA_MAX_QUEUE "), "{help}");
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_is_asked_for_this_machine() {
    let cluster = Cluster::serve(&[("CARAVAN_ENGINE", "scripted".to_owned())]).await.unwrap();
    let base = cluster.base(0).unwrap();
    let mut command = Command::new(binary().unwrap());
    command.arg("list").env("OLLAMA_HOST", base).env("HTTP_PROXY", nobody()).env("http_proxy", nobody());
    let said = tokio::task::block_in_place(|| run(&mut command, ""));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn a_wrong_call_of_a_client_says_what_is_wrong() {
    for (arguments, text) in [
        (&["show"][..], "Error: the following required arguments were not provided"),
        (&["cp", "a"], "Error: the following required arguments were not provided"),
        (&["rm"], "Error: the following required arguments were not provided"),
        (&["list", "--nonsense"], "Error: unexpected argument '--nonsense' found"),
        (&["run", "m", "hi", "--nonsense"], "Error: unexpected argument '--nonsense' found"),
        (&["show", "--system=maybe", "m"], "Error: invalid value 'maybe' for '--system[=<BOOL>]'"),
        (&["nonsense"], "Error: unrecognized subcommand 'nonsense'"),
        (&["signin"], "Error: there is no account to sign in to"),
        (&["logout"], "Error: there is no account to sign in to"),
    ] {
        let said = caravan(&nobody(), arguments, "");
        assert!(said.code == Some(1) && said.err.starts_with(text), "{arguments:?}: {}", said.err);
    }
    let help = caravan(&nobody(), &[], "");
    assert!(help.code == Some(0) && help.out.contains("Usage: caravan [COMMAND]"), "{}", help.out);
    let limits = caravan(&nobody(), &["limits"], "");
    assert!(limits.code == Some(0) && limits.err.is_empty(), "{}", limits.err);
    assert!(limits.out.contains("Usage: caravan limits <COMMAND>"), "{}", limits.out);
}

#[test]
fn help_comes_by_word_and_by_flag() {
    for (arguments, usage) in [
        (&["help"][..], "Usage: caravan [COMMAND]"),
        (&["-h"], "Usage: caravan [COMMAND]"),
        (&["--help"], "Usage: caravan [COMMAND]"),
        (&["help", "run"], "Usage: caravan run [OPTIONS] <MODEL>"),
        (&["run", "-h"], "Usage: caravan run [OPTIONS] <MODEL>"),
        (&["run", "--help"], "Usage: caravan run [OPTIONS] <MODEL>"),
    ] {
        let help = caravan(&nobody(), arguments, "");
        assert!(help.code == Some(0) && help.out.contains(usage), "{arguments:?}: {} {}", help.out, help.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_of_run_reach_the_answer() {
    let cluster = Cluster::serve(&[("CARAVAN_ENGINE", "scripted".to_owned())]).await.unwrap();
    cluster.create("m", SMOLLM2).await.unwrap();
    let base = cluster.base(0).unwrap();
    let run = |arguments: &[&str]| tokio::task::block_in_place(|| caravan(&base, arguments, ""));
    let said =
        run(&["run", "--nowordwrap", "m", "[[say hello]]", "--hidethinking=true", "--keepalive", "-1m"]);
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(0), "hello\n\n", ""));
    assert!(run(&["ps"]).out.contains("Forever"));
    let timed = run(&["run", "m", "[[say hello]]", "--verbose"]);
    assert_eq!(timed.out, "hello\n\n", "the flag is no word of the prompt");
    assert!(timed.err.contains("eval count:"), "{}", timed.err);
    assert_eq!(run(&["run", "m", "[[say hello]]", "--verbose=false"]).err, "");
    for (flag, text) in [
        ("--keepalive=soon", "Error: `--keepalive` must be a duration such as 5m, got soon"),
        ("--format=nonsense", "Error: `--format` must be json or a JSON schema"),
        (
            "--think=hard",
            "Error: invalid value for --think: \"hard\" (must be true, false, high, medium, low, or max)",
        ),
        ("--think", "Error: \"m\" does not support thinking"),
    ] {
        let refused = run(&["run", flag, "m", "hello"]);
        assert!(refused.code == Some(1) && refused.err.starts_with(text), "{flag}: {}", refused.err);
    }
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test]
async fn what_does_nothing_is_told_once_in_the_log() {
    let environment = [
        ("CARAVAN_ENGINE", "scripted".to_owned()),
        ("OLLAMA_VULKAN", "1".to_owned()),
        ("OLLAMA_MAX_QUEUE", "many".to_owned()),
    ];
    let cluster = Cluster::serve(&environment).await.unwrap();
    let lines = cluster.gateways[0].lines();
    let with =
        |texts: &[&str]| lines.iter().filter(|line| texts.iter().all(|text| line.contains(text))).count();
    assert_eq!(
        with(&["WARN", "has no effect: there is no Vulkan back-end", "OLLAMA_VULKAN"]),
        1,
        "{lines:?}"
    );
    assert_eq!(with(&["WARN", "passed over: must be a number", "OLLAMA_MAX_QUEUE"]), 1, "{lines:?}");
    assert_eq!(with(&["configuration", "keep_alive", "max_queue: 512"]), 1, "{lines:?}");
    cluster.check_logs(&[]).unwrap();
}

#[test]
fn a_key_is_sent_along() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = String::new();
            let mut lines = std::io::BufReader::new(&stream);
            while !head.ends_with("\r\n\r\n") {
                std::io::BufRead::read_line(&mut lines, &mut head).unwrap();
            }
            let body = "{\"models\":[]}";
            let body = if head.starts_with("HEAD") { "" } else { body };
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            )
            .unwrap();
            heads.push(head);
        }
        heads
    });
    let mut command = Command::new(binary().unwrap());
    let said = run(command.arg("list").env("OLLAMA_HOST", base).env("OLLAMA_API_KEY", "secret"), "");
    assert_eq!(said.code, Some(0), "{}", said.err);
    for head in server.join().unwrap() {
        assert!(head.to_lowercase().contains("\r\nauthorization: bearer secret\r\n"), "{head}");
    }
}

/// An address that nobody listens on, a moment ago.
fn nobody() -> String {
    format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

//! Conversations at a real terminal, as a person has them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use tests::{
    cluster::{Cluster, SMOLLM2},
    process::binary,
    terminal::Terminal,
};

const SIZE: (u16, u16) = (80, 40);
const READY: &str = ">>> Send a message (/? for help)";

/// A server with the model `m`, which says what it is told to: `[[say ...]]`.
async fn server(environment: &[(&'static str, String)]) -> Cluster {
    let mut all = vec![("CARAVAN_ENGINE", "scripted".to_owned())];
    all.extend_from_slice(environment);
    let cluster = Cluster::serve(&all).await.unwrap();
    cluster.create("m", SMOLLM2).await.unwrap();
    cluster
}

/// `caravan run m` before a person whose home is the cluster's folder.
async fn converse(cluster: &Cluster, environment: &[(&str, &str)]) -> Terminal {
    let base = cluster.base(0).unwrap();
    let mut all =
        vec![("HOME", cluster.folder().to_str().unwrap()), ("OLLAMA_HOST", &base), ("PATH", "/usr/bin:/bin")];
    all.extend_from_slice(environment);
    let terminal = Terminal::start(SIZE, &[binary().unwrap().to_str().unwrap(), "run", "m"], &all).unwrap();
    terminal.wait_for(READY).await.unwrap();
    terminal
}

/// Enters a line and waits until the next prompt stands below `answer`.
async fn ask(terminal: &Terminal, line: &str, answer: &str) {
    terminal.wipe(READY).await.unwrap();
    terminal.enter(line).unwrap();
    // A long line may go on in the next one of the screen.
    let typed = format!(">>> {}", line.chars().take(10).collect::<String>());
    let is_there =
        |screen: &str| screen.contains(&typed) && screen.lines().any(|line| line.starts_with(answer));
    terminal.wait_until(answer, |screen| is_there(screen) && screen.ends_with(READY)).await.unwrap();
}

async fn leave(terminal: &Terminal) {
    terminal.enter("/bye").unwrap();
    assert_eq!(terminal.exit_code().await.unwrap(), 0);
}

fn history(cluster: &Cluster) -> String {
    std::fs::read_to_string(cluster.folder().join(".ollama/history")).unwrap()
}

#[tokio::test]
async fn what_was_typed_is_there_in_the_next_session() {
    let cluster = server(&[]).await;
    let first = converse(&cluster, &[]).await;
    ask(&first, "[[say alpha]]", "alpha").await;
    leave(&first).await;
    assert_eq!(history(&cluster), "[[say alpha]]\n/bye\n");

    let second = converse(&cluster, &[]).await;
    second.press(&["Up", "Up"]).unwrap();
    second.wait_for(">>> [[say alpha]]").await.unwrap();
    second.press(&["Enter"]).unwrap();
    second.wait_until("alpha", |screen| screen.lines().any(|line| line == "alpha")).await.unwrap();
    second.wait_for(READY).await.unwrap();
    ask(&second, "/set nohistory", "").await;
    ask(&second, "[[say secret]]", "secret").await;
    leave(&second).await;
    assert!(!history(&cluster).contains("secret"), "{}", history(&cluster));

    let third = converse(&cluster, &[("OLLAMA_NOHISTORY", "1")]).await;
    ask(&third, "[[say hidden]]", "hidden").await;
    leave(&third).await;
    assert!(!history(&cluster).contains("hidden"), "{}", history(&cluster));
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test]
async fn several_lines_are_one_message() {
    let cluster = server(&[]).await;
    let terminal = converse(&cluster, &[]).await;
    terminal.enter("\"\"\"[[say first").unwrap();
    terminal.wait_for("... Use \"\"\" to end multi-line input").await.unwrap();
    terminal.enter("second]]\"\"\"").unwrap();
    terminal.wait_until("the answer", |screen| screen.contains("\nfirst\nsecond\n")).await.unwrap();
    terminal.wait_for(READY).await.unwrap();

    terminal.wipe(READY).await.unwrap();
    terminal.paste("[[say third\nfourth]]").unwrap();
    terminal.wait_for("fourth]]").await.unwrap();
    terminal.press(&["Enter"]).unwrap();
    terminal.wait_until("the answer", |screen| screen.contains("\nthird\nfourth\n")).await.unwrap();

    // Keys of the line: to its begin, a word, to its end, delete what is before.
    terminal.wait_for(READY).await.unwrap();
    terminal.wipe(READY).await.unwrap();
    terminal.type_text("[say fifth]]").unwrap();
    terminal.press(&["C-a"]).unwrap();
    terminal.type_text("[").unwrap();
    terminal.press(&["C-e", "Enter"]).unwrap();
    terminal.wait_until("fifth", |screen| screen.lines().any(|line| line == "fifth")).await.unwrap();
    terminal.wait_for(READY).await.unwrap();
    terminal.type_text("rubbish").unwrap();
    terminal.press(&["C-u"]).unwrap();
    terminal.wait_until("an empty line", |screen| screen.ends_with(READY)).await.unwrap();
    terminal.press(&["C-d"]).unwrap();
    assert_eq!(terminal.exit_code().await.unwrap(), 0);
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test]
async fn ctrl_c_ends_the_answer_and_not_the_program() {
    let cluster = server(&[("CARAVAN_SCRIPTED_TOKENS_PER_SECOND", "10".to_owned())]).await;
    let terminal = converse(&cluster, &[]).await;
    let words: Vec<String> = (1..=500).map(|number| format!("w{number}")).collect();
    terminal.enter(&format!("[[say {}]]", words.join(" "))).unwrap();
    terminal
        .wait_until("the answer", |screen| screen.lines().any(|line| line.starts_with("w1 w2")))
        .await
        .unwrap();
    terminal.press(&["C-c"]).unwrap();
    terminal.wait_until("the prompt", |screen| screen.ends_with(READY)).await.unwrap();
    ask(&terminal, "[[say on]]", "on").await;

    terminal.press(&["C-c"]).unwrap();
    terminal.wait_for("Use Ctrl + d or /bye to exit.").await.unwrap();
    terminal.wait_until("the prompt", |screen| screen.ends_with(READY)).await.unwrap();
    terminal.wipe(READY).await.unwrap();
    terminal.type_text("half a line").unwrap();
    terminal.wait_for("half a line").await.unwrap();
    terminal.press(&["C-c"]).unwrap();
    let screen = terminal.wait_until("the prompt", |screen| screen.ends_with(READY)).await.unwrap();
    assert!(!screen.contains("Use Ctrl + d"), "{screen}");
    leave(&terminal).await;
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test]
async fn words_are_wrapped_for_the_screen_as_it_is() {
    let cluster = server(&[]).await;
    let terminal = converse(&cluster, &[]).await;
    let words: Vec<String> = (100..150).map(|number| format!("word{number}")).collect();
    let line = format!("[[say {} end]]", words.join(" "));
    for columns in [80, 33] {
        terminal.resize((columns, 60)).await.unwrap();
        terminal.wipe(READY).await.unwrap();
        terminal.enter(&line).unwrap();
        // What was typed stands above the answer, cut where the screen ends.
        let is_over =
            |screen: &str| screen.ends_with(READY) && screen.lines().any(|line| line.ends_with("end"));
        let screen = terminal.wait_until("the next prompt", is_over).await.unwrap();
        let (_, answer) = screen.rsplit_once(']').unwrap();
        let lines = answer.lines().skip_while(|line| !line.starts_with("word100 "));
        let lines: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
        for line in &lines {
            assert!(line.len() <= columns.into(), "{line}");
            let is_whole = |word: &str| word == "end" || words.iter().any(|known| known == word);
            assert!(line.split(' ').all(is_whole), "{line} of\n{screen}");
        }
        assert_eq!(lines.join(" ").split(' ').count(), words.len() + 1);
        terminal.wait_for(READY).await.unwrap();
    }
    let wide = "模型".repeat(20);
    ask(&terminal, &format!("[[say a {wide}]]"), "a 模型").await;
    let screen = terminal.screen().unwrap();
    // 33 cells: the letter, a space and fifteen signs of two cells; one cell stays free.
    let first = format!("a {}模", "模型".repeat(7));
    assert!(screen.lines().any(|line| line == first), "{screen}");
    leave(&terminal).await;
    cluster.check_logs(&[]).unwrap();
}

#[tokio::test]
async fn every_command_of_the_prompt_does_its_work() {
    let cluster = server(&[]).await;
    cluster.create("other", SMOLLM2).await.unwrap();
    let editor = write_editor(cluster.folder());
    let terminal = converse(&cluster, &[("OLLAMA_EDITOR", &editor)]).await;
    for (line, answer) in [
        ("/?", "  /bye            Exit"),
        ("/help set", "  /set nothink"),
        ("/? shortcuts", "  Ctrl + g "),
        ("/set", "  /set parameter ..."),
        ("/set parameter", "  /set parameter seed <int>"),
        ("/set parameter temperature 0.5", "Set parameter 'temperature' to '0.5'"),
        ("/set parameter top_k many", "Couldn't set parameter: \"invalid int value [many]\""),
        ("/set verbose", "Set 'verbose' mode."),
        ("[[say timed]]", "eval rate: "),
        ("/set quiet", "Set 'quiet' mode."),
        ("/show", "  /show info "),
        ("/show info", "    architecture        llama"),
        ("/show parameters", "  temperature                    0.5"),
        ("/show system", "No system message was specified for this model."),
        ("/show template", "{"),
        ("/show modelfile", "# Modelfile generated by"),
        ("/show nonsense", "Unknown command '/show nonsense'. Type /? for help"),
        ("/set system Be brief.", "Set system message."),
        ("/show system", "Be brief."),
        ("/set think", "Set 'think' mode."),
        ("hello", "error: \"m\" does not support thinking"),
        ("/set nothink", "Set 'nothink' mode."),
        ("[[say again]]", "again"),
        ("/save mine", "Created new model 'mine'"),
        ("/save .", "error: The model name '.' is invalid"),
        ("/save", "Usage:"),
        ("/list mi", "mine:latest "),
        ("/load nothing", "Couldn't find model 'nothing'"),
        ("/load other", "Loading model 'other'"),
        ("/load mine", "again"),
        ("/show system", "Be brief."),
        ("/show parameters", "  temperature                    0.5"),
        ("/clear", "Cleared session context"),
        ("/nonsense", "Unknown command '/nonsense'. Type /? for help"),
        ("/etc/passwd is no command", "Unknown command '/etc/passwd'. Type /? for help"),
    ] {
        ask(&terminal, line, answer).await;
    }
    terminal.wipe(READY).await.unwrap();
    terminal.type_text("[[say one]]").unwrap();
    terminal.press(&["C-g"]).unwrap();
    terminal.wait_for(">>> [[say two]]").await.unwrap();
    terminal.press(&["Enter"]).unwrap();
    terminal.wait_until("two", |screen| screen.lines().any(|line| line == "two")).await.unwrap();
    terminal.wait_for(READY).await.unwrap();
    terminal.enter("/exit").unwrap();
    assert_eq!(terminal.exit_code().await.unwrap(), 0);
    cluster.check_logs(&[]).unwrap();
}

/// A program that writes `two` where `one` was.
fn write_editor(folder: &Path) -> String {
    let path = folder.join("editor");
    std::fs::write(&path, "#!/bin/sh\nexec sed -i s/one/two/ \"$1\"\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

//! `completions` and `man`: both are written from the argument tree, so that they never tell of what is not there.

use std::{ffi::OsStr, io::Write, time::Duration};

use anyhow::{Context, Result, ensure};
use api::ollama::ListResponse;
use clap_complete::{
    CompletionCandidate,
    env::{CompleteEnv, Shells},
};
use node::Sources;

use crate::{
    args::{bare_tree, program, readers, tree},
    client::Client,
    environment, server,
};

/// The variable by which a shell asks for the words that could come next.
const ASKED: &str = "_CARAVAN_COMPLETE";
/// A person has pressed Tab and waits.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bash takes a colon for the end of a word, and names of models have colons: around the script's own function comes one
/// that puts the words together again, and takes from its answers what stands before the last colon, which bash keeps.
const BASH_COLONS: &str = r#"_complete_NAME() {
    local line="${COMP_LINE:0:COMP_POINT}"
    if [[ $line != *:* || $COMP_WORDBREAKS != *:* ]]; then
        _clap_complete_NAME "$@"
        return
    fi
    local words
    read -ra words <<< "$line"
    if [[ $line == *[[:space:]] ]]; then
        words+=("")
    fi
    local COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))
    local word="${words[COMP_CWORD]}"
    _clap_complete_NAME "$1" "$word" "${words[COMP_CWORD - 1]}"
    COMPREPLY=("${COMPREPLY[@]#"${word%"${word##*:}"}"}")
}
complete -o nospace -o bashdefault -o nosort -F _complete_NAME NAME 2> /dev/null ||
    complete -o nospace -o bashdefault -F _complete_NAME NAME
"#;

/// Answers a shell that asks for words, and ends the process; anybody else is let through.
pub fn answer_shell() {
    CompleteEnv::with_factory(|| tree(program())).var(ASKED).complete();
}

/// Prints what makes a shell ask us.
pub fn completions(shell: &str) -> Result<()> {
    let shells = Shells::builtins();
    let known: Vec<_> = shells.names().collect();
    let writer = shells.completer(shell);
    let writer =
        writer.with_context(|| format!("`SHELL` must be one of {}, got {shell:?}", known.join(", ")))?;
    let name = program();
    let mut text = Vec::new();
    writer.write_registration(ASKED, name, name, name, &mut text)?;
    if shell == "bash" {
        text.extend_from_slice(BASH_COLONS.replace("NAME", name).as_bytes());
    }
    std::io::stdout().write_all(&text)?;
    Ok(())
}

/// Prints the manual page of the program, or of one of its commands.
pub fn man(command: Option<&str>) -> Result<()> {
    let mut page = bare_tree(program());
    page.build();
    if let Some(name) = command {
        let found = page.find_subcommand(name).cloned();
        ensure!(
            found.is_some(),
            "`COMMAND` must be one of those that '{} --help' lists, got {name:?}",
            program()
        );
        page = found.unwrap_or(page);
    }
    let readers = if command.is_some() { readers(page.get_name()) } else { &[] };
    let variables = environment::manual(readers);
    let mut text = Vec::new();
    clap_mangen::Man::new(page).render(&mut text)?;
    text.extend_from_slice(variables.as_bytes());
    std::io::stdout().write_all(&text)?;
    Ok(())
}

/// The shells that there is a script for.
pub fn shells() -> Vec<CompletionCandidate> {
    Shells::builtins().names().map(CompletionCandidate::new).collect()
}

/// The models of the server that begin so; none when it does not answer at once.
pub fn models(begin: &OsStr) -> Vec<CompletionCandidate> {
    let begin = begin.to_string_lossy();
    let names = names().unwrap_or_default();
    names.into_iter().filter(|name| name.starts_with(&*begin)).map(CompletionCandidate::new).collect()
}

fn names() -> Result<Vec<String>> {
    let client: Client = server(&Sources::from_environment())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let list = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, client.get::<ListResponse>("/api/tags")).await
    })??;
    Ok(list.models.into_iter().map(|model| model.name).collect())
}

//! Every variable that Ollama knows or has known, and what becomes of it here, and those of ours that no flag stands for: one
//! row each.
//!
//! README's table is made of these rows, and so are the blocks at the end of a command's help.

use std::fmt::Write;

use node::{Sources, config::conceal};

use self::{Fate::*, Reader::*};
use crate::output::remark;

/// One variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    pub name: &'static str,
    pub reader: Reader,
    /// What it holds when nobody sets it; empty where that says nothing.
    pub default: &'static str,
    pub fate: Fate,
    /// What it does, or why it does nothing: a phrase without a full stop.
    pub note: &'static str,
}

/// Whom it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Server,
    Client,
    /// `run` alone.
    Conversation,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Honoured,
    /// What it asks for is so in any case.
    Granted,
    /// Accepted, and warned about when it is set.
    Ignored,
}

const fn row(name: &'static str, reader: Reader, default: &'static str, note: &'static str) -> Variable {
    Variable { name, reader, default, fate: Honoured, note }
}

const fn granted(name: &'static str, reader: Reader, note: &'static str) -> Variable {
    Variable { name, reader, default: "", fate: Granted, note }
}

const fn ignored(name: &'static str, reader: Reader, note: &'static str) -> Variable {
    Variable { name, reader, default: "", fate: Ignored, note }
}

pub const VARIABLES: &[Variable] = &[
    row("OLLAMA_HOST", Both, "127.0.0.1:11434", "address to listen on, or of the server to ask"),
    row("OLLAMA_MODELS", Server, "~/.ollama/models", "folder of the models"),
    row("OLLAMA_KEEP_ALIVE", Server, "5m", "how long an idle model stays loaded; negative is for ever"),
    row("OLLAMA_LOAD_TIMEOUT", Server, "5m", "how long a load may make no progress; 0 is for ever"),
    row("OLLAMA_CONTEXT_LENGTH", Server, "4096", "positions of a sequence where nobody says so"),
    row("OLLAMA_NUM_PARALLEL", Server, "0", "sequences that a replica runs at once; 0 is automatic"),
    row("OLLAMA_MAX_LOADED_MODELS", Server, "0", "replicas in memory over the whole cluster; 0 is automatic"),
    row("OLLAMA_MAX_QUEUE", Server, "512", "requests that may wait"),
    row("OLLAMA_KV_CACHE_TYPE", Server, "f16", "type of the KV cache: f16 or q8_0"),
    row("OLLAMA_GPU_OVERHEAD", Server, "0", "bytes of each GPU that are left free"),
    row("OLLAMA_ORIGINS", Server, "", "origins that browsers may call from, separated by commas"),
    row("OLLAMA_NOPRUNE", Server, "false", "keep blobs that no model uses when the server starts"),
    row("OLLAMA_DEBUG", Server, "false", "log level: true or 1 is debug, 2 is trace, -1 warnings only"),
    row(
        "HTTPS_PROXY",
        Server,
        "",
        "proxy for requests to https addresses, such as a registry's; https_proxy, too",
    ),
    row("HTTP_PROXY", Server, "", "proxy for requests to http addresses; http_proxy, too"),
    row("NO_PROXY", Server, "", "hosts that are asked without a proxy; no_proxy, too"),
    row(
        "CARAVAN_REGISTRY_MIRROR",
        Server,
        "",
        "where pulls go instead: URL for Ollama's registry, HOST=URL for another, separated by commas; names stay, \
         user:password@ in a URL is sent",
    ),
    row("CARAVAN_ETCD_USER", Server, "", "user of etcd; CARAVAN_ETCD_PASSWORD has the password"),
    row("CARAVAN_ETCD_CA", Server, "", "file of etcd's authority; CARAVAN_ETCD_CERT and _KEY have ours"),
    row(
        "CARAVAN_CPU",
        Server,
        "",
        "instructions of the kernels: scalar, neon, avx2, avx-vnni, avx512, avx512-bf16",
    ),
    row("CARAVAN_GUESSES", Server, "", "most tokens guessed ahead in a step; changes speed, never text"),
    row("CARAVAN_LOG", Server, "info", "log level, for each module if need be: info,gateway=debug"),
    row("CARAVAN_LOG_FORMAT", Server, "text", "text, or json for an object a line"),
    row("CUDA_VISIBLE_DEVICES", Server, "", "the GPUs that there are, by the driver, in a build with CUDA"),
    row("OLLAMA_NOHISTORY", Conversation, "false", "do not keep what was typed in ~/.ollama/history"),
    row("OLLAMA_EDITOR", Conversation, "", "editor that Ctrl + g opens; else VISUAL, EDITOR or vi"),
    row("VISUAL", Conversation, "", "editor, where OLLAMA_EDITOR names none"),
    row("EDITOR", Conversation, "vi", "editor, where the two above name none"),
    row(
        "TERM",
        Conversation,
        "",
        "what the terminal can; on dumb, cons25 and emacs lines are read as they are",
    ),
    row("OLLAMA_API_KEY", Client, "", "key that is sent along, for a server that asks for one"),
    granted("OLLAMA_NO_CLOUD", Server, "no request ever goes to ollama.com on its own"),
    granted("OLLAMA_MULTIUSER_CACHE", Server, "what sequences begin with is always shared"),
    ignored(
        "OLLAMA_FLASH_ATTENTION",
        Server,
        "there is one kernel of attention, and it needs no such choice",
    ),
    ignored("OLLAMA_GO_TEMPLATE", Server, "the template that can do more is always the one used"),
    ignored("OLLAMA_SCHED_SPREAD", Server, "a replica is never split over devices; more replicas are spread"),
    ignored("OLLAMA_LLM_LIBRARY", Server, "there is one engine, choose its device by --device"),
    ignored("OLLAMA_VULKAN", Server, "there is no Vulkan back-end"),
    ignored("OLLAMA_IGPU_ENABLE", Server, "integrated GPUs are not used"),
    ignored(
        "OLLAMA_MAX_TRANSFER_STREAMS",
        Server,
        "GGUF blobs have a number of streams of their own in Ollama, too",
    ),
    ignored(
        "OLLAMA_DEBUG_LOG_REQUESTS",
        Server,
        "prompts are never written to disk; _debug_render_only shows one",
    ),
    ignored("OLLAMA_REMOTES", Server, "models that live on other servers are not passed through"),
    ignored("OLLAMA_CLOUD_BASE_URL", Server, "models that live on other servers are not passed through"),
    ignored("OLLAMA_EXPERIMENT", Server, "there are no experiments to choose from"),
    ignored("OLLAMA_LLAMA_CPP_COMPAT", Server, "llama.cpp is not part of this server"),
    ignored("OLLAMA_LIBRARY_PATH", Server, "the engine is inside the binary"),
    ignored("LLAMA_ARG_FIT", Server, "llama.cpp is not part of this server"),
    ignored("LLAMA_ARG_FIT_TARGET", Server, "llama.cpp is not part of this server; see OLLAMA_GPU_OVERHEAD"),
    ignored("HIP_VISIBLE_DEVICES", Server, "there is no back-end for AMD's GPUs"),
    ignored("ROCR_VISIBLE_DEVICES", Server, "there is no back-end for AMD's GPUs"),
    ignored("HSA_OVERRIDE_GFX_VERSION", Server, "there is no back-end for AMD's GPUs"),
    ignored("GPU_DEVICE_ORDINAL", Server, "there is no back-end for AMD's GPUs"),
    ignored("GGML_VK_VISIBLE_DEVICES", Server, "there is no Vulkan back-end"),
    ignored("JETSON_JETPACK", Server, "there is one build for all"),
    ignored("OLLAMA_MAX_VRAM", Server, "gone from Ollama as well; see OLLAMA_GPU_OVERHEAD"),
    ignored("OLLAMA_TMPDIR", Server, "gone from Ollama as well: nothing is unpacked"),
    ignored("OLLAMA_RUNNERS_DIR", Server, "gone from Ollama as well: the engine is inside the binary"),
    ignored("OLLAMA_INTEL_GPU", Server, "gone from Ollama as well: there is no back-end for Intel's GPUs"),
    ignored("OLLAMA_NEW_ENGINE", Server, "gone from Ollama as well: there is one engine"),
    ignored("OLLAMA_AUTH", Client, "requests are not signed; a key goes into OLLAMA_API_KEY"),
    ignored("OLLAMA_SKILLS", Client, "there is no agent on the command line"),
    ignored("OLLAMA_AGENT_DISABLE_SHELL", Client, "there is no agent on the command line"),
    ignored("OLLAMA_AGENT_DISABLE_WEBSEARCH", Client, "there is no agent on the command line"),
];

/// Warns once about each variable that is set and does nothing: in the log of a server, on a client's standard error.
pub fn warn(sources: &Sources, reader: Reader) {
    for (name, value, note) in set_and_ignored(sources, reader) {
        match reader {
            Server => {
                tracing::warn!(variable = name, value = %conceal(value), "has no effect: {note}");
            }
            _ => remark(format_args!("Warning: {name} has no effect: {note}")),
        }
    }
}

fn set_and_ignored(
    sources: &Sources,
    reader: Reader,
) -> impl Iterator<Item = (&'static str, &str, &'static str)> {
    VARIABLES
        .iter()
        .filter(move |variable| variable.fate == Ignored && variable.reader == reader)
        .filter_map(|variable| Some((variable.name, sources.variable(variable.name)?, variable.note)))
}

/// What fits a terminal that nobody has made wider.
const WIDTH: usize = 79;

/// The block at the end of a command's help: a column of names, beside it what they do.
pub fn help(readers: &[Reader]) -> String {
    let variables: Vec<&Variable> = read_by(readers).collect();
    let Some(width) = variables.iter().map(|variable| variable.name.len()).max() else {
        return String::new();
    };
    let indent = format!("\n      {:width$}  ", "");
    let mut text = "Environment Variables:".to_owned();
    for variable in variables {
        let _ = write!(text, "\n      {:width$}  ", variable.name);
        text += &folded(&variable.explained(), WIDTH - indent.len() + 1).join(&indent);
    }
    text
}

/// The same as a section of a manual page, in roff.
pub fn manual(readers: &[Reader]) -> String {
    let plain = |text: &str| text.replace('\\', "\\\\").replace('-', "\\-");
    let items = read_by(readers)
        .map(|variable| format!(".TP\n\\fB{}\\fR\n{}\n", variable.name, plain(&variable.explained())));
    let items: String = items.collect();
    if items.is_empty() { items } else { format!(".SH ENVIRONMENT\n{items}") }
}

fn read_by(readers: &[Reader]) -> impl Iterator<Item = &'static Variable> {
    VARIABLES.iter().filter(|variable| variable.fate == Honoured && readers.contains(&variable.reader))
}

impl Variable {
    fn explained(&self) -> String {
        let Variable { default, note, .. } = self;
        if default.is_empty() { (*note).to_owned() } else { format!("{note} (default {default})") }
    }
}

/// Lines of at most `width` signs, if words allow.
fn folded(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.len() + 1 + word.len() <= width) {
            Some(line) => *line += &format!(" {word}"),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    /// README's part on these variables.
    fn tables() -> String {
        let mut text = "| variable | default | what it does |\n| --- | --- | --- |\n".to_owned();
        for Variable { name, default, note, .. } in of(|fate| fate != Ignored) {
            let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
            let _ = writeln!(text, "| `{name}` | {default} | {note} |");
        }
        text += "\nThese are accepted, have no effect, and are warned about when they are set:\n\n";
        text += "| variable | why |\n| --- | --- |\n";
        for Variable { name, note, .. } in of(|fate| fate == Ignored) {
            let _ = writeln!(text, "| `{name}` | {note} |");
        }
        text
    }

    fn of(wanted: impl Fn(Fate) -> bool) -> impl Iterator<Item = &'static Variable> {
        VARIABLES.iter().filter(move |variable| wanted(variable.fate))
    }

    #[test]
    fn the_readme_tells_of_every_variable() {
        let readme = include_str!("../../../README.md");
        assert!(readme.contains(&tables()), "README.md must have these tables:\n{}", tables());
    }

    #[test]
    fn no_variable_has_two_fates() {
        let mut names: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_set_and_does_nothing_is_told_with_the_reason() {
        let pairs = [
            ("OLLAMA_VULKAN", "1"),
            ("OLLAMA_HOST", "x"),
            ("OLLAMA_AUTH", "1"),
            ("OLLAMA_NEW_ENGINE", " '' "),
        ];
        let sources = Sources::new(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let told: Vec<_> = set_and_ignored(&sources, Server).collect();
        assert_eq!(told, [("OLLAMA_VULKAN", "1", "there is no Vulkan back-end")]);
        assert_eq!(set_and_ignored(&sources, Client).count(), 1);
    }

    #[test]
    fn the_help_has_two_columns_and_fits_a_terminal() {
        let help = help(&[Both, Server]);
        let indent = help.lines().nth(1).unwrap().find("address").unwrap();
        for line in help.lines().skip(1) {
            assert!(line.len() <= WIDTH, "{line}");
            let (name, note) = line.split_at(indent);
            assert!(name.starts_with("      ") && name.ends_with("  ") && !note.starts_with(' '), "{line}");
        }
        assert_eq!(folded("a bc def g", 4), ["a bc", "def", "g"]);
    }

    #[test]
    fn a_manual_page_has_a_paragraph_for_each_variable() {
        let manual = manual(&[Both, Server]);
        assert!(
            manual.starts_with(".SH ENVIRONMENT\n.TP\n\\fBOLLAMA_HOST\\fR\naddress to listen on"),
            "{manual}"
        );
        assert_eq!(manual.matches(".TP\n").count(), read_by(&[Both, Server]).count());
        assert!(manual.contains("2 is trace, \\-1 warnings only"), "{manual}");
    }

    #[test]
    fn the_help_names_what_a_command_reads() {
        let help = help(&[Conversation, Client, Both]);
        assert!(
            help.starts_with("Environment Variables:\n      OLLAMA_HOST       address to listen on"),
            "{help}"
        );
        assert!(
            help.contains("\n      OLLAMA_NOHISTORY  do not keep") && !help.contains("OLLAMA_MODELS"),
            "{help}"
        );
    }
}

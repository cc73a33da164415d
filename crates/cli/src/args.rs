//! The argument tree: roles first, then the client's verbs with `ollama`'s names and flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// An Ollama for a whole cluster.
#[derive(Debug, Parser)]
#[command(name = "caravan", version, about, max_term_width = 100, arg_required_else_help = true)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Role(RoleCommand),
    #[command(flatten)]
    Client(ClientCommand),
}

/// What this process can be.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Run everything in this process: gateway, worker and an in-process registry
    #[command(alias = "start")]
    Serve(RoleArgs),
    /// Speak HTTP to clients and gRPC to workers
    Gateway(RoleArgs),
    /// Run models on this machine's devices
    Worker(RoleArgs),
}

/// What a server can be asked.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Create a model from a Modelfile
    Create(CreateArgs),
    /// Run a model: one answer to a prompt, or a conversation
    Run(RunArgs),
    /// List the models of the store
    #[command(alias = "ls")]
    List(FilterArgs),
    /// List the models that are loaded
    Ps(FilterArgs),
    /// Show what is known about a model
    Show(ShowArgs),
    /// Copy a model
    Cp(CopyArgs),
    /// Remove models
    Rm(RemoveArgs),
    /// Unload a model
    Stop(StopArgs),
}

/// Flags of the roles. Each also comes from the environment; a flag wins.
#[derive(Debug, Default, Args)]
pub struct RoleArgs {
    /// Address to listen on [env: OLLAMA_HOST; worker: CARAVAN_WORKER_LISTEN]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Address under which gateways reach this worker [env: CARAVAN_ADVERTISE]
    #[arg(long, value_name = "ADDR")]
    pub advertise: Option<String>,
    /// Address of /livez, /readyz and /metrics [env: CARAVAN_ADMIN_LISTEN]
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,
    /// etcd endpoints, separated by commas [env: CARAVAN_ETCD]
    #[arg(long, value_name = "URL")]
    pub etcd: Option<String>,
    /// Name of the cluster [env: CARAVAN_CLUSTER] [default: default]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Folder of the models [env: CARAVAN_STORE, OLLAMA_MODELS]
    #[arg(long, value_name = "DIR")]
    pub store: Option<String>,
    /// Name of this process in the cluster [env: CARAVAN_ID]
    #[arg(long, value_name = "NAME")]
    pub id: Option<String>,
    /// Device to run on: cpu, cuda:N (where the build has CUDA) or auto [env: CARAVAN_DEVICE]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
    /// Threads of the engine [env: CARAVAN_THREADS] [default: physical cores]
    #[arg(long, value_name = "N")]
    pub threads: Option<String>,
    /// Engine: candle, or scripted for tests [env: CARAVAN_ENGINE]
    #[arg(long, value_name = "NAME")]
    pub engine: Option<String>,
    /// File of the API keys that every request needs, one a line: NAME:SHA256, or the key [env: CARAVAN_KEYS_FILE]
    #[arg(long, value_name = "FILE")]
    pub keys_file: Option<String>,
    /// File with any of these flags as keys: caravan.toml [env: CARAVAN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Name of the new model
    pub model: String,
    /// Name of the Modelfile
    #[arg(short, long, default_value = "Modelfile")]
    pub file: PathBuf,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    pub model: String,
    /// Words of the prompt; without them a conversation starts
    #[arg(trailing_var_arg = true)]
    pub prompt: Vec<String>,
    /// How long the model stays loaded, such as 5m
    #[arg(long, value_name = "DURATION")]
    pub keepalive: Option<String>,
    /// Show timings after each answer
    #[arg(long)]
    pub verbose: bool,
    /// Do not wrap words at the edge of the terminal
    #[arg(long)]
    pub nowordwrap: bool,
    /// Format of the answer: json or a JSON schema
    #[arg(long)]
    pub format: Option<String>,
    /// Think before answering: true, false, low, medium, high or max
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub think: Option<String>,
    /// Do not show what the model thinks
    #[arg(long)]
    pub hidethinking: bool,
    /// Length to which embeddings are cut
    #[arg(long)]
    pub dimensions: Option<i64>,
}

#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only models whose name begins so
    pub prefix: Option<String>,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    pub model: String,
    #[command(flatten)]
    pub part: ShowPart,
    /// Show metadata and tensors too
    #[arg(short, long)]
    pub verbose: bool,
}

/// One raw field instead of the overview.
#[derive(Debug, Args)]
pub struct ShowPart {
    /// Show the license of a model
    #[arg(long)]
    pub license: bool,
    /// Show the Modelfile of a model
    #[arg(long)]
    pub modelfile: bool,
    /// Show the parameters of a model
    #[arg(long)]
    pub parameters: bool,
    /// Show the template of a model
    #[arg(long)]
    pub template: bool,
    /// Show the system message of a model
    #[arg(long)]
    pub system: bool,
}

#[derive(Debug, Args)]
pub struct CopyArgs {
    pub source: String,
    pub destination: String,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[arg(required = true)]
    pub models: Vec<String>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    pub model: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_tree_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_words_after_the_model_are_the_prompt() {
        let arguments =
            Arguments::try_parse_from(["caravan", "run", "--verbose", "m", "why", "--so"]).unwrap();
        let Command::Client(ClientCommand::Run(run)) = arguments.command else { panic!("run was asked for") };
        assert!(run.verbose);
        assert_eq!(run.prompt, ["why", "--so"]);
    }

    #[test]
    fn think_takes_a_level_or_nothing() {
        let think =
            |flag: &str| match Arguments::try_parse_from(["caravan", "run", flag, "m"]).unwrap().command {
                Command::Client(ClientCommand::Run(run)) => run.think,
                _ => None,
            };
        assert_eq!(think("--think").as_deref(), Some("true"));
        assert_eq!(think("--think=low").as_deref(), Some("low"));
    }
}

//! The argument tree: roles first, then the client's verbs with `ollama`'s names and flags.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use clap_complete::{ArgValueCandidates, ArgValueCompleter};

use node::config::strict_bool;

use crate::{
    commands,
    environment::{self, Reader},
};

/// An Ollama for a whole cluster.
#[derive(Debug, Parser)]
#[command(name = "caravan", about, max_term_width = 100, disable_version_flag = true)]
pub struct Arguments {
    /// Show which version this is
    #[arg(short, long)]
    pub version: bool,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Role(RoleCommand),
    #[command(flatten)]
    Client(ClientCommand),
    /// Show or fix what the whole cluster may do at once
    Limits {
        #[command(subcommand)]
        command: LimitsCommand,
    },
    /// Print what makes a shell complete commands, flags and models
    Completions {
        /// bash, elvish, fish, powershell or zsh
        #[arg(add = ArgValueCandidates::new(commands::shells))]
        shell: String,
    },
    /// Print the manual page, for 'man -l -'
    Man {
        /// A command of which to print it
        command: Option<String>,
    },
}

/// What this process can be.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Run everything in this process: gateway, worker and an in-process registry
    #[command(visible_alias = "start")]
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
    /// Show what is known about a model
    Show(ShowArgs),
    /// Run a model: one answer to a prompt, or a conversation
    Run(RunArgs),
    /// Unload a model
    Stop(StopArgs),
    /// Pull a model from a registry
    Pull(TransferArgs),
    /// Push a model to a registry
    Push(TransferArgs),
    /// Write models as one file to standard output
    Save(SaveArgs),
    /// Read models from a file on standard input
    Load,
    /// Sign in to ollama.com, which this program has no use for
    #[command(alias = "login")]
    Signin,
    /// Sign out from ollama.com, which this program has no use for
    #[command(alias = "logout")]
    Signout,
    /// List the models of the store
    #[command(visible_alias = "ls")]
    List(FilterArgs),
    /// List the models that are loaded
    Ps(FilterArgs),
    /// Copy a model
    Cp(CopyArgs),
    /// Remove models
    Rm(RemoveArgs),
}

/// The name of a model of the server, which a shell can complete.
fn model_name() -> ArgValueCompleter {
    ArgValueCompleter::new(commands::models)
}

/// What can be done about the limits of a cluster.
#[derive(Debug, Subcommand)]
pub enum LimitsCommand {
    /// Show the limits, and whether they were fixed here or come from a gateway's environment
    Show(ClusterArgs),
    /// Fix limits: they hold against every environment until 'limits unset'
    Set(SetLimitsArgs),
    /// Let the environment of the gateway that started last hold again
    Unset(ClusterArgs),
}

/// Which cluster is meant.
#[derive(Debug, Default, Args)]
pub struct ClusterArgs {
    /// etcd endpoints, separated by commas [env: CARAVAN_ETCD]
    #[arg(long, value_name = "URL")]
    pub etcd: Option<String>,
    /// Name of the cluster [env: CARAVAN_CLUSTER] [default: default]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// File with these flags as keys: caravan.toml [env: CARAVAN_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true, args = ["max_loaded_models", "num_parallel", "max_queue"])]
pub struct SetLimitsArgs {
    /// Replicas in memory over all workers; 0 = three for each device
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub max_loaded_models: Option<String>,
    /// Sequences that one replica runs at once; 0 = each worker decides
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub num_parallel: Option<String>,
    /// Requests that may wait
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub max_queue: Option<String>,
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Flags of the roles, not all of each: see [`FOREIGN`]. Each also comes from the environment; a flag wins.
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
    /// Where the models are: a folder, or s3://bucket/prefix [env: CARAVAN_STORE, OLLAMA_MODELS]
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// Folder for the blobs of a bucket on this machine [env: CARAVAN_CACHE] [default: ~/.ollama/cache]
    #[arg(long, value_name = "DIR")]
    pub cache: Option<String>,
    /// Bytes that are kept there; 0 = no bound [env: CARAVAN_CACHE_BYTES]
    #[arg(long, value_name = "N")]
    pub cache_bytes: Option<String>,
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
    #[arg(short, long, default_value = "Modelfile", allow_hyphen_values = true)]
    pub file: PathBuf,
    /// Quantize the model to this type (e.g. q4_K_M)
    #[arg(short, long, value_name = "TYPE")]
    pub quantize: Option<String>,
    /// Quantize the DRAFT model to this type
    #[arg(long, value_name = "TYPE")]
    pub draft_quantize: Option<String>,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    #[arg(add = model_name())]
    pub model: String,
    /// Words of the prompt; without them a conversation starts
    pub prompt: Vec<String>,
    /// How long the model stays loaded, such as 5m
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    pub keepalive: Option<String>,
    /// Show timings after each answer
    #[arg(long)]
    pub verbose: bool,
    /// Speak plain HTTP to the registry, if the model has to be pulled
    #[arg(long)]
    pub insecure: bool,
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
    /// Cut an input of an embedding model that is too long, instead of refusing it
    #[arg(long, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = switch)]
    pub truncate: Option<bool>,
    /// Length to which embeddings are cut
    #[arg(long, allow_hyphen_values = true)]
    pub dimensions: Option<i64>,
}

#[derive(Debug, Args)]
pub struct TransferArgs {
    /// Name of the model, with its registry if it is not Ollama's
    pub model: String,
    /// Speak plain HTTP to the registry
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Debug, Args)]
pub struct SaveArgs {
    #[arg(required = true, value_name = "MODEL")]
    pub models: Vec<String>,
}

#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only models whose name begins so; of several the first counts
    pub prefix: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    #[arg(add = model_name())]
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
    #[arg(add = model_name())]
    pub source: String,
    pub destination: String,
}

#[derive(Debug, Args)]
pub struct RemoveArgs {
    #[arg(required = true, add = model_name())]
    pub models: Vec<String>,
}

#[derive(Debug, Args)]
pub struct StopArgs {
    #[arg(add = model_name())]
    pub model: String,
}

/// What people call this program: a link named `ollama` makes it one.
pub fn program() -> &'static str {
    let called = std::env::args_os().next();
    let name = called.as_deref().map(Path::new).and_then(Path::file_stem);
    if name.is_some_and(|name| name == "ollama") { "ollama" } else { "caravan" }
}

/// Flags of other roles: the role that has no use for them, them, and where they belong.
const FOREIGN: [(&str, &[&str], &str); 3] = [
    (
        "serve",
        &["advertise", "etcd", "cluster"],
        "serve is a whole installation by itself; run gateway and worker with it",
    ),
    (
        "gateway",
        &["advertise", "device", "threads", "engine"],
        "a gateway runs no model; run worker or serve with it",
    ),
    ("worker", &["keys_file"], "a worker is asked by gateways only; run gateway or serve with it"),
];

/// The whole tree under the name `program`.
pub fn tree(program: &'static str) -> clap::Command {
    let mut tree = bare_tree(program);
    for command in tree.get_subcommands_mut() {
        let help = environment::help(readers(command.get_name()));
        if !help.is_empty() {
            *command = std::mem::take(command).after_help(help);
        }
    }
    tree
}

/// The same without the variables that a command reads, for who shows them in another way.
pub fn bare_tree(program: &'static str) -> clap::Command {
    // As in Ollama, of a flag that is given twice the last counts.
    let mut tree = Arguments::command().name(program).bin_name(program).args_override_self(true);
    for command in tree.get_subcommands_mut() {
        *command = std::mem::take(command).mut_args(with_value);
        let foreign = FOREIGN.into_iter().find(|(role, ..)| *role == command.get_name());
        let (_, flags, reason) = foreign.unwrap_or_default();
        for flag in flags {
            let refuse = move |_: &str| Err::<String, _>(reason);
            *command = std::mem::take(command).mut_arg(flag, |arg| arg.hide(true).value_parser(refuse));
        }
    }
    tree
}

/// Whose variables a command reads.
pub fn readers(command: &str) -> &'static [Reader] {
    match command {
        "serve" | "gateway" | "worker" => &[Reader::Both, Reader::Server],
        "run" => &[Reader::Both, Reader::Client, Reader::Conversation],
        "signin" | "signout" | "limits" | "completions" | "man" => &[],
        _ => &[Reader::Both, Reader::Client],
    }
}

/// As in Go, a switch may be given a value: `--verbose=false`.
fn with_value(arg: Arg) -> Arg {
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .value_name("BOOL")
            .value_parser(switch),
        _ => arg,
    }
}

fn switch(text: &str) -> Result<bool, &'static str> {
    strict_bool(text).ok_or("must be true or false")
}

/// Reads the command line of this process.
pub fn parse() -> Result<Arguments, clap::Error> {
    Arguments::from_arg_matches(&tree(program()).try_get_matches()?)
}

#[cfg(test)]
mod tests;

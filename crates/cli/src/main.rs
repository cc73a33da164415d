//! The one binary: roles and the client's commands.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line talks on these")]

mod args;
mod client;
mod commands;
mod format;
mod roles;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use node::{Host, Sources, config};

use crate::{
    args::{Arguments, ClientCommand, Command, RoleArgs, RoleCommand},
    client::Client,
    roles::Role,
};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version come this way, too, and are no failure.
            let code = if error.use_stderr() { config::EXIT_CODE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let sources = Sources::from_environment();
    match arguments.command {
        Command::Role(RoleCommand::Serve(flags)) => role(Role::Serve, &flags, sources),
        Command::Role(RoleCommand::Gateway(flags)) => role(Role::Gateway, &flags, sources),
        Command::Role(RoleCommand::Worker(flags)) => role(Role::Worker, &flags, sources),
        Command::Client(command) => report(client(command, &sources)),
    }
}

/// A wrong setting ends the process before any port is bound, with a code that tells a supervisor not to try again.
fn role(role: Role, flags: &RoleArgs, sources: Sources) -> ExitCode {
    let prepared = roles::prepare(role, flags, sources);
    match prepared {
        Ok(settings) => report(roles::run(role, settings)),
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(config::EXIT_CODE)
        }
    }
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `OLLAMA_HOST`, as a client reads it.
const HOST: node::Setting<Host> =
    node::Setting::new("", &["OLLAMA_HOST"], "host:port", Host::parse_strict).ollama(Host::parse_ollama);

fn client(command: ClientCommand, sources: &Sources) -> Result<()> {
    let base = sources.read(&HOST, None)?.unwrap_or_default().client_url();
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    runtime.block_on(async {
        let client = Client::new(base)?;
        client.check().await?;
        match command {
            ClientCommand::Create(arguments) => commands::create(&client, &arguments).await,
            ClientCommand::Run(arguments) => commands::run(&client, arguments).await,
            ClientCommand::List(arguments) => commands::list(&client, arguments.prefix.as_deref()).await,
            ClientCommand::Ps(arguments) => commands::ps(&client, arguments.prefix.as_deref()).await,
            ClientCommand::Show(arguments) => commands::show(&client, &arguments).await,
            ClientCommand::Cp(arguments) => {
                commands::copy(&client, &arguments.source, &arguments.destination).await
            }
            ClientCommand::Rm(arguments) => commands::remove(&client, &arguments.models).await,
            ClientCommand::Stop(arguments) => commands::stop(&client, &arguments.model).await,
        }
    })
}

//! The one binary: roles and the client's commands.

mod args;
mod client;
mod commands;
mod environment;
mod format;
mod output;
mod roles;

use std::{env, process::ExitCode};

use anyhow::{Context, Result, bail};
use clap::error::ErrorKind;
use node::{Host, Sources, config};

use crate::{
    args::{ClientCommand, Command, RoleArgs, RoleCommand, program},
    client::Client,
    commands::LimitsErrand,
    environment::Reader,
    output::{READER_GONE, is_reader_gone, told},
    roles::Role,
};

fn main() -> ExitCode {
    commands::answer_shell();
    let arguments = match args::parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let sources = Sources::from_environment();
    match arguments.command {
        _ if arguments.version => report(ask(&sources, async |client| commands::version(&client).await)),
        None => report(args::tree(program()).print_help().map_err(Into::into)),
        Some(Command::Role(RoleCommand::Serve(flags))) => role(Role::Serve, &flags, sources),
        Some(Command::Role(RoleCommand::Gateway(flags))) => role(Role::Gateway, &flags, sources),
        Some(Command::Role(RoleCommand::Worker(flags))) => role(Role::Worker, &flags, sources),
        Some(Command::Client(command)) => report(client(command, &sources)),
        Some(Command::Limits { command }) => match LimitsErrand::read(&command, sources) {
            Ok(errand) => report(errand.run()),
            Err(error) => wrong_setting(&error),
        },
        Some(Command::Completions { shell }) => report(commands::completions(&shell)),
        Some(Command::Man { command }) => report(commands::man(command.as_deref())),
    }
}

/// Help comes this way, too, and is no failure; a command that is only there for those below it prints its own. What an
/// operator called wrongly tells a supervisor not to try again; a client fails as it does for any other reason.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return report(error.print().map_err(Into::into));
    }
    let text = error.render().to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return report(output::print(text).map_err(Into::into));
    }
    output::remark(format_args!("Error: {}", text.strip_prefix("error: ").unwrap_or(&text).trim_end()));
    let is_operators =
        |word: String| ["serve", "start", "gateway", "worker", "limits"].contains(&word.as_str());
    match env::args_os().nth(1).and_then(|word| word.into_string().ok()).is_some_and(is_operators) {
        true => ExitCode::from(config::EXIT_CODE),
        false => ExitCode::FAILURE,
    }
}

/// A wrong setting ends the process before any port is bound, with a code that tells a supervisor not to try again.
fn role(role: Role, flags: &RoleArgs, sources: Sources) -> ExitCode {
    match roles::prepare(role, flags, sources) {
        Ok(settings) => report(roles::run(role, settings)),
        Err(error) => wrong_setting(&error),
    }
}

fn wrong_setting(error: &anyhow::Error) -> ExitCode {
    output::remark(format_args!("Error: {}", told(error)));
    ExitCode::from(config::EXIT_CODE)
}

fn report(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_reader_gone(&error) => ExitCode::from(READER_GONE),
        Err(error) => {
            output::remark(format_args!("Error: {}", told(&error)));
            match error.is::<config::Error>() {
                true => ExitCode::from(config::EXIT_CODE),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// `OLLAMA_HOST`, as a client reads it.
const HOST: node::Setting<Host> =
    node::Setting::new("", &["OLLAMA_HOST"], "host:port", Host::parse_strict).ollama(Host::parse_ollama);

/// A client of the server that the environment names.
fn server(sources: &Sources) -> Result<Client> {
    let host = sources.read(&HOST, None)?.unwrap_or_default();
    Client::new(&host, sources.variable("OLLAMA_API_KEY"))
}

/// Runs `errand` with a client of the server that the environment names.
fn ask(sources: &Sources, errand: impl AsyncFnOnce(Client) -> Result<()>) -> Result<()> {
    environment::warn(sources, Reader::Client);
    if let Some(Err(error)) = sources.variable("OLLAMA_HOST").map(Host::parse) {
        let taken = error.fallback.client_url();
        output::remark(format_args!("Warning: `OLLAMA_HOST`: {error}; asking {taken}"));
    }
    let client = server(sources)?;
    let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
    runtime.block_on(errand(client))
}

fn client(command: ClientCommand, sources: &Sources) -> Result<()> {
    if matches!(command, ClientCommand::Signin | ClientCommand::Signout) {
        bail!(
            "there is no account to sign in to or out of: nothing here is kept at ollama.com. '{0} pull' and '{0} create' \
             need none",
            program()
        );
    }
    ask(sources, async |client| {
        client.check().await?;
        match command {
            ClientCommand::Create(arguments) => commands::create(&client, &arguments).await,
            ClientCommand::Show(arguments) => commands::show(&client, &arguments).await,
            ClientCommand::Run(arguments) => commands::run(&client, arguments, sources).await,
            ClientCommand::Stop(arguments) => commands::stop(&client, &arguments.model).await,
            ClientCommand::Signin | ClientCommand::Signout => Ok(()),
            ClientCommand::Pull(arguments) => {
                commands::pull(&client, &arguments.model, arguments.insecure).await
            }
            ClientCommand::Push(arguments) => {
                commands::push(&client, &arguments.model, arguments.insecure).await
            }
            ClientCommand::Save(arguments) => commands::save(&client, &arguments.models).await,
            ClientCommand::Load => commands::load(&client).await,
            ClientCommand::List(arguments) => {
                commands::list(&client, arguments.prefix.first().map(String::as_str)).await
            }
            ClientCommand::Ps(arguments) => {
                commands::ps(&client, arguments.prefix.first().map(String::as_str)).await
            }
            ClientCommand::Cp(arguments) => {
                commands::copy(&client, &arguments.source, &arguments.destination).await
            }
            ClientCommand::Rm(arguments) => commands::remove(&client, &arguments.models).await,
        }
    })
}

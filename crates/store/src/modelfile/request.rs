//! From a Modelfile to the create request that a server understands.

use api::ollama::{CreateRequest, Message, OneOrMany};
use api::options::{DEPRECATED, parse_parameter};
use serde_json::{Map, Value};

use super::{Command, Error, Modelfile};
use crate::Digest;

/// Where a value that may be a path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    From,
    Adapter,
    Draft,
}

/// What a `FROM` or `ADAPTER` turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// No file of that name: it is a model.
    Model(String),
    /// Files, by the name that the server shall see, uploaded as these blobs.
    Files(Vec<(String, Digest)>),
}

/// A request, and what the person should be told.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub request: CreateRequest,
    pub warnings: Vec<String>,
}

impl Modelfile {
    /// The values that may be paths, in order: what `resolve` of [`Modelfile::into_create_request`] will be asked.
    pub fn references(&self) -> Vec<(Instruction, &str)> {
        let mut references = Vec::new();
        for command in &self.commands {
            match command {
                Command::From(value) => references.push((Instruction::From, value.as_str())),
                Command::Adapter(value) => references.push((Instruction::Adapter, value.as_str())),
                Command::Draft(value) => references.push((Instruction::Draft, value.as_str())),
                _ => {}
            }
        }
        references
    }

    /// Builds the request for `model`. Finding and uploading files is the caller's job, behind `resolve`.
    pub fn into_create_request<E: From<Error>>(
        self,
        model: &str,
        mut resolve: impl FnMut(Instruction, &str) -> Result<Source, E>,
    ) -> Result<Prepared, E> {
        let mut request = CreateRequest { model: model.to_owned(), ..CreateRequest::default() };
        let mut parameters = Map::new();
        let mut warnings = Vec::new();
        for command in self.commands {
            match command {
                Command::From(value) => match resolve(Instruction::From, &value)? {
                    Source::Model(name) => request.from = name,
                    Source::Files(files) => add(&mut request.files, files),
                },
                Command::Adapter(value) => match resolve(Instruction::Adapter, &value)? {
                    Source::Model(_) => return Err(Error::Unsupported("an adapter that is no file").into()),
                    Source::Files(files) => add(&mut request.adapters, files),
                },
                Command::Template(text) => request.template = text,
                Command::System(text) => request.system = text,
                Command::License(text) => request.license.get_or_insert_with(OneOrMany::default).0.push(text),
                Command::Parameter { name, .. } if DEPRECATED.contains(&name.as_str()) => {
                    warnings.push(format!("warning: parameter {name} is deprecated"));
                }
                Command::Parameter { name, value } => add_parameter(&mut parameters, name, value)?,
                Command::Message { role, content } => {
                    request.messages.push(Message { role, content, ..Message::default() });
                }
                Command::Draft(value) => match resolve(Instruction::Draft, &value)? {
                    Source::Model(_) => return Err(Error::Unsupported("a draft that is no file").into()),
                    Source::Files(files) => add(&mut request.draft_files, files),
                },
                Command::Renderer(name) => request.renderer = name,
                Command::Parser(name) => request.parser = name,
                Command::Requires(version) => request.requires = required(&version)?,
            }
        }
        request.parameters = (!parameters.is_empty()).then_some(parameters);
        Ok(Prepared { request, warnings })
    }
}

/// A version as Ollama compares them, with or without a `v` before it.
fn required(version: &str) -> Result<String, Error> {
    let numbers = version.strip_prefix('v').unwrap_or(version);
    let core = numbers.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<&str> = core.split('.').collect();
    let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match (1..=3).contains(&parts.len()) && parts.iter().all(is_number) {
        true => Ok(version.to_owned()),
        false => Err(Error::Version(version.to_owned())),
    }
}

fn add(map: &mut Map<String, Value>, files: Vec<(String, Digest)>) {
    map.extend(files.into_iter().map(|(name, digest)| (name, Value::from(digest.to_string()))));
}

/// Lists accumulate (`stop`), anything else is set by its last line.
fn add_parameter(parameters: &mut Map<String, Value>, name: String, value: String) -> Result<(), Error> {
    let parsed = parse_parameter(&name, &[value]).map_err(Error::Parameter)?;
    match (parameters.get_mut(&name), parsed) {
        (Some(Value::Array(known)), Value::Array(new)) => known.extend(new),
        (_, parsed) => {
            parameters.insert(name, parsed);
        }
    }
    Ok(())
}

//! Modelfiles: what people write to describe a model. Parsed by the client; the server never sees one.

mod lex;
mod print;
mod request;

pub use request::{Instruction, Prepared, Source};

/// The commands, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Modelfile {
    pub commands: Vec<Command>,
}

/// One instruction with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A model's name or a path.
    From(String),
    Adapter(String),
    Draft(String),
    Template(String),
    System(String),
    License(String),
    Renderer(String),
    Parser(String),
    Requires(String),
    Parameter {
        name: String,
        value: String,
    },
    Message {
        role: String,
        content: String,
    },
}

/// Ollama's texts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error(
        "(line {line}): command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \
         \"draft\", \"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\""
    )]
    Command { line: usize },
    #[error("(line {line}): message role must be one of \"system\", \"user\", or \"assistant\"")]
    Role { line: usize },
    #[error("unexpected EOF")]
    End,
    #[error("no FROM line")]
    NoFrom,
    #[error("the Modelfile is not valid {encoding}")]
    Encoding { encoding: &'static str },
    /// A value of the wrong type or an unknown key, worded by the table of options.
    #[error("{0}")]
    Parameter(api::Error),
    #[error("requires must be a valid semver (e.g. 0.14.0), got {0:?}")]
    Version(String),
    #[error("{0} is not supported yet")]
    Unsupported(&'static str),
}

impl Modelfile {
    /// Parses a file: UTF-8, or UTF-16 of either byte order with its mark.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Modelfile, Error> {
        Modelfile::parse(&decode(bytes)?)
    }

    pub fn parse(text: &str) -> Result<Modelfile, Error> {
        let commands = lex::commands(text.strip_prefix('\u{feff}').unwrap_or(text))?;
        match commands.iter().any(|command| matches!(command, Command::From(_))) {
            true => Ok(Modelfile { commands }),
            false => Err(Error::NoFrom),
        }
    }
}

fn decode(bytes: &[u8]) -> Result<String, Error> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (units, rest) = bytes.as_chunks::<2>();
        let text = String::from_utf16(&units.iter().map(|pair| unit(*pair)).collect::<Vec<u16>>());
        text.ok().filter(|_| rest.is_empty()).ok_or(Error::Encoding { encoding: "UTF-16" })
    };
    match bytes {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => String::from_utf8(bytes.to_vec()).map_err(|_| Error::Encoding { encoding: "UTF-8" }),
    }
}

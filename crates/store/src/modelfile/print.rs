//! Printing: what is printed parses to the same commands.

use std::fmt;

use super::{Command, Modelfile};

impl fmt::Display for Modelfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.commands.iter().try_for_each(|command| writeln!(f, "{command}"))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::From(value) => write!(f, "FROM {}", Quoted(value)),
            Command::Adapter(value) => write!(f, "ADAPTER {}", Quoted(value)),
            Command::Draft(value) => write!(f, "DRAFT {}", Quoted(value)),
            Command::Template(value) => write!(f, "TEMPLATE {}", Quoted(value)),
            Command::System(value) => write!(f, "SYSTEM {}", Quoted(value)),
            Command::License(value) => write!(f, "LICENSE {}", Quoted(value)),
            Command::Renderer(value) => write!(f, "RENDERER {}", Quoted(value)),
            Command::Parser(value) => write!(f, "PARSER {}", Quoted(value)),
            Command::Requires(value) => write!(f, "REQUIRES {}", Quoted(value)),
            Command::Parameter { name, value } => write!(f, "PARAMETER {name} {}", Quoted(value)),
            Command::Message { role, content } => write!(f, "MESSAGE {role} {}", Quoted(content)),
        }
    }
}

/// A value with the quotes that it needs. The syntax has no escapes, so a text in which a line ends with three
/// quotes cannot be written down at all.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let needs_quotes =
            text.is_empty() || text.trim() != text || text.starts_with('"') || text.contains(['\n', '\r']);
        let quote = match (needs_quotes, text.contains('"')) {
            (false, _) => "",
            (true, false) => "\"",
            (true, true) => "\"\"\"",
        };
        write!(f, "{quote}{text}{quote}")
    }
}

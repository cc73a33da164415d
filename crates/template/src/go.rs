//! Go templates: Go's `text/template` with Ollama's functions, values and three ways of executing.
//!
//! The language is <https://pkg.go.dev/text/template>; what Ollama adds to it is described in `modes.rs`.
//! Left out, each with a clear error: complex numbers, hexadecimal floats, `printf` argument indexes, calling
//! functions that are values. Printed more plainly than in Go: `%+v` and `%#v` of compound values, `%x` of floats.

mod ast;
mod data;
mod exec;
mod functions;
mod infer;
mod json;
mod lexer;
mod literal;
mod modes;
mod parser;
mod print;
mod printf;
mod value;

use std::collections::BTreeSet;

use crate::{Error, MAX_SOURCE_BYTES, Values};
use ast::Tree;

/// A parsed Go template.
#[derive(Debug, Clone)]
pub struct Go {
    source: String,
    tree: Tree,
    variables: BTreeSet<String>,
}

// === impl Go ===

impl Go {
    /// Parses `source`. A template that mentions neither messages nor a response gets `{{ .Response }}` at its end.
    pub fn parse(source: &str) -> Result<Go, Error> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::Limit { line: 1, unit: "bytes of template", bound: MAX_SOURCE_BYTES });
        }
        let mut tree = parser::parse(source)?;
        let variables = infer::variables(&tree);
        if !variables.contains("messages") && !variables.contains("response") {
            tree.root.push(ast::Node::response());
        }
        Ok(Go { source: source.to_owned(), tree, variables })
    }

    /// The text as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Every field and variable that the template mentions, in lower case; variables with their `$`.
    pub fn variables(&self) -> BTreeSet<String> {
        self.variables.clone()
    }

    /// The prompt for `values`.
    pub fn render(&self, values: &Values) -> Result<String, Error> {
        modes::render(self, values)
    }

    /// What the template puts around the thinking of earlier messages: `("<think>", "</think>")`.
    pub fn thinking_tags(&self) -> Option<(String, String)> {
        infer::thinking_tags(&self.tree)
    }

    /// What the template puts before tool calls, and the model will too: `<tool_call>`; `{` when there is nothing.
    pub fn tool_tag(&self) -> String {
        infer::tool_tag(&self.tree)
    }

    pub(crate) fn mentions(&self, variable: &str) -> bool {
        self.variables.contains(variable)
    }
}

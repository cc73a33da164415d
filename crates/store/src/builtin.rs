//! Models whose config names a renderer or a parser that Ollama has in code.

use template::builtin::{self, Known, Parser};

use crate::{Error, Model, Result};

impl Model {
    /// # Errors
    /// [`Error::Renderer`], [`Error::RendererWithout`] and [`Error::Parser`]: prompts and answers of such a model could
    /// only be rendered and read wrongly, and one that silently talks nonsense helps nobody.
    pub fn check_builtins(&self) -> Result<()> {
        let (renderer, parser) = (&self.config.renderer, &self.config.parser);
        match renderer.is_empty() {
            false if !builtin::is_renderer(renderer) => Err(Error::Renderer(renderer.clone())),
            false if self.chat_template.is_none() => Err(Error::RendererWithout(renderer.clone())),
            _ if builtin::parser(parser) == Known::Elsewhere => Err(Error::Parser(parser.clone())),
            _ => Ok(()),
        }
    }

    /// The Go template that makes prompts. A renderer stands in its place, and for the template in the model's file.
    pub fn prompt_template(&self) -> Option<&str> {
        self.template.as_deref().filter(|_| self.config.renderer.is_empty())
    }
}

/// What reads the answers, where the config names it.
pub(crate) fn parser(name: &str) -> Option<&'static Parser> {
    match builtin::parser(name) {
        Known::Parser(parser) => Some(parser),
        Known::Elsewhere | Known::Nowhere => None,
    }
}

//! A model that thinks writes between two tags first. Only what comes after them has to keep to the grammar.

use std::sync::Arc;

use super::{Begin, Constraint};
use crate::{Error, Grammar, Tokenizer, sampler::Mask};

/// How a model shows that it thinks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thought {
    /// Neither is empty.
    pub open: String,
    pub close: String,
    /// The prompt already ends with the opening tag.
    pub is_open: bool,
}

pub(super) struct Thoughtful {
    pub thought: Thought,
    pub grammar: Grammar,
    pub tokenizer: Arc<Tokenizer>,
}

struct Walk {
    thought: Thought,
    tokenizer: Arc<Tokenizer>,
    answer: Box<dyn Constraint>,
    stage: Stage,
    /// The stages before each token, and whether that was told to `answer`: for going back.
    past: Vec<(Stage, bool)>,
}

/// Where an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// White space and a part of the opening tag may have come.
    Opening(Vec<u8>),
    /// The last bytes, of which the closing tag may be made up.
    Thinking(Vec<u8>),
    Answer,
}

impl Begin for Thoughtful {
    fn begin(&self) -> Result<Box<dyn Constraint>, Error> {
        let stage =
            if self.thought.is_open { Stage::Thinking(Vec::new()) } else { Stage::Opening(Vec::new()) };
        Ok(Box::new(Walk {
            thought: self.thought.clone(),
            tokenizer: self.tokenizer.clone(),
            answer: self.grammar.begin()?,
            stage,
            past: Vec::new(),
        }))
    }
}

impl Walk {
    /// Whether the opening tag may go on, or have come to its end, with `piece`.
    fn may_open(&self, before: &[u8], piece: &[u8]) -> bool {
        let text = [before, piece].concat();
        let text = text.trim_ascii_start();
        let open = self.thought.open.as_bytes();
        !piece.is_empty() && (open.starts_with(text) || text.starts_with(open))
    }

    /// The stage after `token`, and whether it is part of what keeps to the grammar.
    fn next_stage(&self, token: u32) -> (Stage, bool) {
        let piece = self.tokenizer.piece(token);
        match &self.stage {
            Stage::Opening(before) if self.may_open(before, piece) => {
                let text = [before, piece].concat();
                match text.trim_ascii_start().strip_prefix(self.thought.open.as_bytes()) {
                    Some(inside) => (self.thinking(inside.to_vec()), false),
                    None => (Stage::Opening(text), false),
                }
            }
            Stage::Opening(_) | Stage::Answer => (Stage::Answer, true),
            Stage::Thinking(before) => (self.thinking([before, piece].concat()), false),
        }
    }

    /// What comes behind the closing tag within a token is dropped: it is white space.
    fn thinking(&self, mut text: Vec<u8>) -> Stage {
        let close = self.thought.close.as_bytes();
        if text.windows(close.len()).any(|part| part == close) {
            return Stage::Answer;
        }
        text.drain(..text.len().saturating_sub(close.len()));
        Stage::Thinking(text)
    }
}

impl Constraint for Walk {
    fn allowed(&mut self) -> Result<Mask, Error> {
        let vocab_size = self.tokenizer.vocab_size() as u32;
        match &self.stage {
            Stage::Answer => self.answer.allowed(),
            Stage::Thinking(_) => Ok((0..vocab_size).collect()),
            Stage::Opening(before) => {
                let opens = |token: &u32| self.may_open(before, self.tokenizer.piece(*token));
                let mut tokens: Vec<u32> = (0..vocab_size).filter(opens).collect();
                // A model may have nothing to think about, as long as it has not begun to.
                if before.trim_ascii().is_empty() {
                    tokens.extend(self.answer.allowed()?.tokens());
                }
                Ok(tokens.into_iter().collect())
            }
        }
    }

    fn accept(&mut self, token: u32) -> Result<(), Error> {
        let (next, is_answer) = self.next_stage(token);
        if is_answer {
            self.answer.accept(token)?;
        }
        self.past.push((std::mem::replace(&mut self.stage, next), is_answer));
        Ok(())
    }

    fn rewind(&mut self, tokens: usize) -> Result<(), Error> {
        let mut answered = 0;
        for (stage, is_answer) in self.past.drain(self.past.len().saturating_sub(tokens)..).rev() {
            self.stage = stage;
            answered += usize::from(is_answer);
        }
        self.answer.rewind(answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grammars;

    const END: u32 = 257;

    fn walk(is_open: bool) -> Box<dyn Constraint> {
        let grammars = Grammars::new(Arc::new(Tokenizer::bytes()));
        let thought = Thought { open: "<think>".into(), close: "</think>".into(), is_open };
        grammars.schema(r#"{"enum":["a"]}"#).unwrap().after(thought, &grammars).begin().unwrap()
    }

    /// Says `text` as far as it may be said.
    fn say(walk: &mut dyn Constraint, text: &str) -> usize {
        for (at, byte) in text.bytes().enumerate() {
            if !walk.allowed().unwrap().allows(byte.into()) {
                return at;
            }
            walk.accept(byte.into()).unwrap();
        }
        text.len()
    }

    #[test]
    fn thoughts_are_free_and_what_comes_after_them_is_not() {
        for (is_open, text) in [
            (false, r#"<think>any { thing</think>"a""#),
            (false, "\n <think></think>\"a\""),
            (false, r#""a""#),
            (true, r#"<b></thin</think>"a""#),
        ] {
            let mut walk = walk(is_open);
            assert_eq!(say(walk.as_mut(), text), text.len(), "{text}");
            assert_eq!(walk.allowed().unwrap().tokens().collect::<Vec<_>>(), [END], "{text}");
        }
    }

    #[test]
    fn an_answer_without_thoughts_keeps_to_the_grammar_from_the_start() {
        for (text, len) in [("hello", 0), ("<thank>", 3), ("<think>x</think>b", 16), ("\"b", 1)] {
            assert_eq!(say(walk(false).as_mut(), text), len, "{text}");
        }
    }

    #[test]
    fn going_back_leads_to_where_it_was() {
        let text = r#" <think>x</think>"a""#;
        for back in 0..=text.len() {
            let mut walk = walk(false);
            let masks: Vec<Mask> = text
                .bytes()
                .map(|byte| {
                    let mask = walk.allowed().unwrap();
                    walk.accept(byte.into()).unwrap();
                    mask
                })
                .collect();
            walk.rewind(back).unwrap();
            if back > 0 {
                assert_eq!(walk.allowed().unwrap(), masks[text.len() - back], "{back} back");
            }
            assert_eq!(say(walk.as_mut(), &text[text.len() - back..]), back);
        }
    }
}

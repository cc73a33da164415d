//! Numbers that end. By a schema a number may have any number of digits, and a small model that has begun one often
//! finds no end; llama.cpp's grammars bound the digits, llguidance's do not. Here the digits that would be too many are
//! taken out of what may come next, so that the number has to end, unless it may not end yet.

use std::sync::Arc;

use super::{Begin, Constraint};
use crate::{Error, Grammar, Tokenizer, sampler::Mask};

/// Of an integer, and of a fraction: llama.cpp's bound, and about what a double can hold.
const MAX_DIGITS: u8 = 16;
/// So that every number is a finite double.
const MAX_EXPONENT_DIGITS: u8 = 2;

/// A grammar of JSON whose numbers are bounded.
pub(super) struct Numbers {
    grammar: Grammar,
    tokenizer: Arc<Tokenizer>,
}

struct Walk {
    json: Box<dyn Constraint>,
    tokenizer: Arc<Tokenizer>,
    place: Place,
    /// The places before each token: for going back.
    past: Vec<Place>,
}

/// Where in a JSON text we are, as far as numbers go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    in_text: bool,
    is_escaped: bool,
    in_exponent: bool,
    /// How many digits have come in a row.
    digits: u8,
}

// === impl Numbers ===

impl Numbers {
    pub fn new(grammar: Grammar, tokenizer: Arc<Tokenizer>) -> Numbers {
        Numbers { grammar, tokenizer }
    }
}

impl Begin for Numbers {
    fn begin(&self) -> Result<Box<dyn Constraint>, Error> {
        Ok(Box::new(Walk {
            json: self.grammar.begin()?,
            tokenizer: self.tokenizer.clone(),
            place: Place::default(),
            past: Vec::new(),
        }))
    }
}

// === impl Place ===

impl Place {
    fn after(self, piece: &[u8]) -> Place {
        piece.iter().fold(self, |place, byte| place.after_byte(*byte))
    }

    fn after_byte(self, byte: u8) -> Place {
        let next = Place::default();
        match byte {
            _ if self.in_text && self.is_escaped => Place { in_text: true, ..next },
            b'\\' if self.in_text => Place { in_text: true, is_escaped: true, ..next },
            b'"' => Place { in_text: !self.in_text, ..next },
            _ if self.in_text => Place { in_text: true, ..next },
            b'0'..=b'9' => Place { digits: self.digits.saturating_add(1), ..self },
            b'e' | b'E' if self.digits > 0 => Place { in_exponent: true, ..next },
            b'+' | b'-' if self.in_exponent && self.digits == 0 => self,
            _ => next,
        }
    }

    fn bound(self) -> u8 {
        if self.in_exponent { MAX_EXPONENT_DIGITS } else { MAX_DIGITS }
    }

    /// Whether no number becomes too long on the way through `piece`.
    fn bears(mut self, piece: &[u8]) -> bool {
        piece.iter().all(|byte| {
            self = self.after_byte(*byte);
            self.digits <= self.bound()
        })
    }
}

impl Constraint for Walk {
    fn allowed(&mut self) -> Result<Mask, Error> {
        let mask = self.json.allowed()?;
        if self.place.in_text {
            return Ok(mask);
        }
        let bears = |token: &u32| self.place.bears(self.tokenizer.piece(*token));
        let bounded: Mask = mask.tokens().filter(bears).collect();
        Ok(if bounded.is_empty() { mask } else { bounded })
    }

    fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.json.accept(token)?;
        let next = self.place.after(self.tokenizer.piece(token));
        self.past.push(std::mem::replace(&mut self.place, next));
        Ok(())
    }

    fn rewind(&mut self, tokens: usize) -> Result<(), Error> {
        self.json.rewind(tokens)?;
        let place = self.past.drain(self.past.len().saturating_sub(tokens)..).next();
        self.place = place.unwrap_or(self.place);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        Place::default().after(text.as_bytes())
    }

    #[test]
    fn digits_count_in_numbers_only() {
        for (text, digits) in [
            ("", 0),
            ("[-12", 2),
            ("1.234", 3),
            ("1.5e", 0),
            ("1.5e-3", 1),
            ("12,3", 1),
            (r#""123"#, 0),
            (r#"{"a\"1":12"#, 2),
            ("true,1", 1),
            (r#""e",1"#, 1),
        ] {
            assert_eq!(place(text).digits, digits, "{text}");
        }
        assert!(place("1E+").in_exponent && !place("true").in_exponent && !place("1e5,").in_exponent);
    }

    #[test]
    fn a_token_is_borne_as_long_as_every_number_in_it_is() {
        let sixteen = "1234567890123456";
        for (before, piece, is_borne) in [
            ("", sixteen, true),
            ("1", sixteen, false),
            (sixteen, ".5", true),
            (sixteen, ",1", true),
            (sixteen, "7", false),
            ("1e", "99", true),
            ("1e", "-100", false),
            ("\"", "12345678901234567", true),
        ] {
            assert_eq!(place(before).bears(piece.as_bytes()), is_borne, "{before} {piece}");
        }
    }
}

//! Cuts a text into the words that byte-pair encoding merges within. Which cuts depends on the vocabulary, and a GGUF
//! only names them (`tokenizer.ggml.pre`): the table of those names is in [`rows`].
//!
//! The patterns are those of the models' own tokenizers, with one change. All end in `\s+(?!\S)|\s+`, which means: a
//! run of spaces leaves its last one to the word that follows. Here that is plain `\s+` and a few lines of code, so
//! that every pattern can run in the regex engine that is linear in the text, whatever the text.

mod rows;

use fancy_regex::Regex;

use crate::Error;
use rows::{ROWS, Row, Space, Stage};

/// The key that names the cuts.
const KEY: &str = "tokenizer.ggml.pre";

/// The cuts of one vocabulary, stage after stage: each cuts what the one before has left.
pub(super) struct Pretokenizer {
    stages: Vec<(Regex, Space)>,
    /// A word that is a token is taken as it is, without merging.
    pub whole_words: bool,
    /// Whether a text starts with the beginning-of-sequence token if the file does not say.
    pub add_bos: bool,
    /// Whether the vocabulary has a beginning-of-sequence token if the file does not say.
    pub default_bos: bool,
}

// === impl Pretokenizer ===

impl Pretokenizer {
    /// One word: the whole text.
    pub fn none() -> Pretokenizer {
        Pretokenizer { stages: Vec::new(), whole_words: false, add_bos: false, default_bos: false }
    }

    /// The cuts of that name; a file without one gets `default`, as in llama.cpp.
    pub fn named(name: Option<&str>) -> Result<Pretokenizer, Error> {
        let wanted = name.unwrap_or_else(|| {
            tracing::warn!("the model has no `{KEY}`; its text may be cut into tokens wrongly");
            "default"
        });
        let row = ROWS.iter().find(|row| row.names.contains(&wanted)).ok_or_else(|| {
            let supported: Vec<&str> = ROWS.iter().flat_map(|row| row.names).copied().collect();
            Error::InvalidKey {
                key: KEY.to_owned(),
                problem: format!("{wanted:?} is not supported; supported: {}", supported.join(", ")),
            }
        })?;
        Pretokenizer::from_row(row)
    }

    fn from_row(row: &Row) -> Result<Pretokenizer, Error> {
        let compile = |stage: &Stage| {
            let regex = Regex::new(stage.pattern).map_err(|error| Error::Tokenizer(error.to_string()))?;
            Ok((regex, stage.space))
        };
        Ok(Pretokenizer {
            stages: row.stages.iter().map(compile).collect::<Result<_, Error>>()?,
            whole_words: row.whole_words,
            add_bos: row.add_bos,
            default_bos: row.default_bos,
        })
    }

    /// The words, which together are the text. None is empty.
    pub fn split<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut words = if text.is_empty() { Vec::new() } else { vec![text] };
        for (regex, space) in &self.stages {
            let mut cut = Vec::with_capacity(words.len());
            for word in words {
                split_word(regex, *space, word, &mut cut);
            }
            words = cut;
        }
        words
    }
}

/// Cuts at both ends of every match.
fn split_word<'a>(regex: &Regex, space: Space, text: &'a str, words: &mut Vec<&'a str>) {
    let mut start = 0;
    while start < text.len() {
        // An error is a bound of the backtracking engine, which no pattern here needs; the rest is then one word.
        let Ok(Some(found)) = regex.find_from_pos(text, start) else { break };
        let end = found.end() - lent(&text[found.range()], found.end() == text.len(), space);
        if end <= start {
            break;
        }
        if start < found.start() {
            words.push(&text[start..found.start()]);
        }
        words.push(&text[found.start()..end]);
        start = end;
    }
    if start < text.len() {
        words.push(&text[start..]);
    }
}

/// How many bytes of the match belong to the next word.
fn lent(found: &str, is_last: bool, space: Space) -> usize {
    if space == Space::Keep || is_last || !found.chars().all(char::is_whitespace) {
        return 0;
    }
    let Some(last) = found.chars().next_back() else { return 0 };
    let is_only = last.len_utf8() == found.len();
    let ends_line = space == Space::LendInLine && matches!(last, '\r' | '\n');
    if is_only || ends_line { 0 } else { last.len_utf8() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
        Pretokenizer::named(Some(name)).expect("a known name").split(text)
    }

    #[test]
    fn every_row_compiles() {
        for row in ROWS {
            Pretokenizer::from_row(row).unwrap_or_else(|error| panic!("{:?}: {error}", row.names));
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = ROWS.iter().flat_map(|row| row.names).copied().collect();
        names.sort_unstable();
        assert!(names.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_the_key_and_what_there_is() {
        let error = Pretokenizer::named(Some("gpt-9")).err().expect("unknown").to_string();
        assert!(error.contains("tokenizer.ggml.pre") && error.contains("\"gpt-9\""), "{error}");
        assert!(error.contains("llama-bpe"), "{error}");
    }

    #[test]
    fn words_that_are_tokens_are_taken_whole_where_the_vocabulary_says_so() {
        let is_whole = |name| Pretokenizer::named(Some(name)).expect("a known name").whole_words;
        assert!(["llama-bpe", "tekken", "glm4", "minicpm5"].into_iter().all(is_whole));
        assert!(!["gpt-2", "qwen2", "chatglm-bpe", "dbrx"].into_iter().any(is_whole));
    }

    #[test]
    fn a_run_of_spaces_leaves_its_last_one_to_the_next_word() {
        assert_eq!(split("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(split("gpt-2", "a\n\nb  "), ["a", "\n", "\n", "b", "  "]);
        assert_eq!(split("llama-bpe", "a \n\n  b"), ["a", " \n\n", " ", " b"]);
        assert_eq!(split("llama-bpe", "\tb"), ["\tb"]);
    }

    #[test]
    fn digits_are_grouped_as_the_vocabulary_wants() {
        assert_eq!(split("gpt-2", "x 12345"), ["x", " 12345"]);
        assert_eq!(split("smollm", "x 123"), ["x", " ", "1", "2", "3"]);
        assert_eq!(split("llama-bpe", "x 12345"), ["x", " ", "123", "45"]);
        assert_eq!(split("qwen2", "x 12"), ["x", " ", "1", "2"]);
        assert_eq!(split("default", "12345"), ["123", "45"]);
    }

    #[test]
    fn contractions_are_words_in_either_case_where_the_vocabulary_says_so() {
        assert_eq!(split("gpt-2", "it's IT'S"), ["it", "'s", " IT", "'", "S"]);
        assert_eq!(split("qwen2", "it's IT'S"), ["it", "'s", " IT", "'S"]);
    }

    #[test]
    fn a_megabyte_of_anything_is_cut_in_time() {
        for unit in ["a", " ", "\n", " \n", "1", "!", "a ", "你", "\u{fffd}"] {
            let text = unit.repeat((1 << 20) / unit.len()) + "x";
            for row in ROWS {
                let words = Pretokenizer::from_row(row).expect("compiles").split(&text);
                assert_eq!(words.iter().map(|word| word.len()).sum::<usize>(), text.len());
            }
        }
    }
}

//! A query and a document as one input of a reranker, as llama.cpp's server puts them together: side by side between the
//! tokens of the vocabulary, or in a template that the file has.

use super::added::Part;
use super::merge::Merger;
use super::{Parse, Tokenizer};

const QUERY: &str = "{query}";
const DOCUMENT: &str = "{document}";
/// After so many cuts a template's input that is still too long loses its end. One is enough but for what merges anew.
const MAX_CUTS: usize = 4;

/// What a reranker's file says about its inputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reranker {
    /// A text with `{query}` and `{document}` in it; `None` = they stand side by side as the vocabulary has it.
    pub template: Option<String>,
}

/// One query beside any document.
pub struct Pairs<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a str>,
    query: &'a str,
    query_tokens: Vec<u32>,
    /// Tokens of an input at most.
    room: usize,
}

// === impl Pairs ===

impl<'a> Pairs<'a> {
    /// `room`: the tokens of an input at most. What does not fit is cut off: of the document first, and of a query only
    /// what is above one half.
    pub fn new(tokenizer: &'a Tokenizer, reranker: &'a Reranker, query: &'a str, room: usize) -> Pairs<'a> {
        let template = reranker.template.as_deref();
        Pairs { tokenizer, template, query, query_tokens: tokenizer.encode(query, false, false), room }
    }

    /// The input with this document, of which at most `max_tokens` count. Special tokens in either text are just text.
    pub fn encode(&self, document: &str, max_tokens: usize) -> Vec<u32> {
        let mut tokens = self.tokenizer.encode(document, false, false);
        tokens.truncate(max_tokens);
        match self.template {
            None => self.side_by_side(&tokens),
            Some(template) => self.in_template(template, &tokens),
        }
    }

    /// `<s> query </s></s> document </s>`, or what the vocabulary has of that.
    fn side_by_side(&self, document: &[u32]) -> Vec<u32> {
        let special = &self.tokenizer.special;
        let begin = special.bos.filter(|_| special.add_bos);
        let end = special.eos.filter(|_| special.add_eos);
        let between = special.separator.filter(|_| special.add_separator);
        let fixed = [begin, end, between, end].into_iter().flatten().count();
        let room = self.room.saturating_sub(fixed);
        let (query, document) = shares(room, self.query_tokens.len(), document);
        let mut tokens: Vec<u32> = begin.into_iter().collect();
        tokens.extend_from_slice(&self.query_tokens[..query]);
        tokens.extend(end.into_iter().chain(between));
        tokens.extend_from_slice(document);
        tokens.extend(end);
        tokens.truncate(self.room);
        tokens
    }

    fn in_template(&self, template: &str, document: &[u32]) -> Vec<u32> {
        let fixed = self.tokenizer.encode_template(template, "", "").len();
        let room = self.room.saturating_sub(fixed);
        let (query, mut document) = shares(room, self.query_tokens.len(), document);
        let query = match query == self.query_tokens.len() {
            true => self.query.to_owned(),
            false => self.tokenizer.decode_whole(&self.query_tokens[..query]),
        };
        let mut tokens = Vec::new();
        for _ in 0..MAX_CUTS {
            let text = self.tokenizer.decode_whole(document);
            tokens = self.tokenizer.encode_template(template, &query, &text);
            let excess = tokens.len().saturating_sub(self.room);
            if excess == 0 {
                break;
            }
            document = &document[..document.len().saturating_sub(excess)];
        }
        tokens.truncate(self.room);
        tokens
    }
}

/// How much of a query of `query` tokens, and which of those of a document, there is room for.
fn shares(room: usize, query: usize, document: &[u32]) -> (usize, &[u32]) {
    let query = query.min((room / 2).max(room.saturating_sub(document.len())));
    (query, &document[..document.len().min(room - query)])
}

impl Tokenizer {
    /// A template's text with both texts in their places. Tokens that stand for themselves are found in the template
    /// only; words may reach from it into a text.
    fn encode_template(&self, template: &str, query: &str, document: &str) -> Vec<u32> {
        let mut tokens: Vec<u32> = self.special.bos.into_iter().filter(|_| self.special.add_bos).collect();
        let mut merger = Merger::default();
        let mut words: Vec<u8> = Vec::new();
        let mut flush = |words: &mut Vec<u8>, tokens: &mut Vec<u32>| {
            self.encode_parts(self.added.split(words, Parse::Text), &mut merger, tokens);
            words.clear();
        };
        for (own, value) in places(template, query, document) {
            for part in self.added.split(own.as_bytes(), Parse::Special) {
                match part {
                    Part::Text(text) => words.extend_from_slice(text),
                    Part::Token(token) => {
                        flush(&mut words, &mut tokens);
                        tokens.push(token);
                    }
                }
            }
            words.extend_from_slice(value.as_bytes());
        }
        flush(&mut words, &mut tokens);
        tokens
    }

    /// The text of the tokens without the beginning of a character that the last one may end in.
    fn decode_whole(&self, tokens: &[u32]) -> String {
        let text = self.decode(tokens);
        text.trim_end_matches(char::REPLACEMENT_CHARACTER).to_owned()
    }
}

/// The parts of the template, each with the text that comes after it.
fn places<'a>(template: &'a str, query: &'a str, document: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut places = Vec::new();
    let mut rest = template;
    loop {
        let next = [(QUERY, query), (DOCUMENT, document)]
            .into_iter()
            .filter_map(|(name, value)| Some((rest.find(name)?, name, value)))
            .min_by_key(|(at, ..)| *at);
        let Some((at, name, value)) = next else {
            places.push((rest, ""));
            return places;
        };
        places.push((&rest[..at], value));
        rest = &rest[at + name.len()..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs<'a>(tokenizer: &'a Tokenizer, reranker: &'a Reranker, query: &'a str, room: usize) -> Pairs<'a> {
        Pairs::new(tokenizer, reranker, query, room)
    }

    fn shown(tokens: &[u32]) -> String {
        let character = |token: &u32| match token {
            256 => '^',
            257 => '$',
            byte => char::from(*byte as u8),
        };
        tokens.iter().map(character).collect()
    }

    /// With the tokens that XLM-RoBERTa has around two texts.
    fn roberta() -> Tokenizer {
        let mut tokenizer = Tokenizer::bytes();
        tokenizer.special.add_bos = true;
        tokenizer.special.add_eos = true;
        tokenizer
    }

    #[test]
    fn both_texts_stand_between_the_tokens_of_the_vocabulary() {
        let (tokenizer, plain) = (roberta(), Reranker::default());
        let encode = |room, document| shown(&pairs(&tokenizer, &plain, "query", room).encode(document, 99));
        assert_eq!(encode(99, "text"), "^query$$text$");
        assert_eq!(encode(99, "</s>"), "^query$$</s>$", "it is just text");
        assert_eq!(encode(99, ""), "^query$$$");
        assert_eq!(shown(&pairs(&tokenizer, &plain, "query", 99).encode("text", 2)), "^query$$te$");
    }

    #[test]
    fn the_document_is_cut_first_and_the_query_only_above_its_half() {
        let (tokenizer, plain) = (roberta(), Reranker::default());
        let encode =
            |query, room, document| shown(&pairs(&tokenizer, &plain, query, room).encode(document, 99));
        assert_eq!(encode("query", 14, "document"), "^query$$docum$");
        assert_eq!(encode("query", 10, "document"), "^que$$doc$");
        assert_eq!(encode("querulous", 14, "doc"), "^querulo$$doc$");
        assert_eq!(encode("query", 4, "document"), "^$$$");
        assert_eq!(encode("query", 2, "document"), "^$");
    }

    #[test]
    fn a_template_has_its_own_special_tokens_and_nobody_elses() {
        let tokenizer = Tokenizer::bytes();
        let template = Reranker { template: Some("<s>Q: {query} D: {document}</s>!".into()) };
        let encode =
            |query, room, document| shown(&pairs(&tokenizer, &template, query, room).encode(document, 99));
        assert_eq!(encode("a", 99, "b"), "^Q: a D: b$!");
        assert_eq!(encode("<s>", 99, "{query}</s>"), "^Q: <s> D: {query}</s>$!");
        assert_eq!(encode("a", 16, "document"), "^Q: a D: docum$!");
        assert_eq!(encode("a", 13, "é¿"), "^Q: a D: \u{c3}\u{a9}$!", "no half characters");
        assert_eq!(encode("a", 5, "b"), "^Q:  ");
        let odd = Reranker { template: Some("{document}{document}".into()) };
        assert_eq!(shown(&pairs(&tokenizer, &odd, "a", 5).encode("abc", 99)).len(), 4, "half of it, twice");
    }

    proptest! {
        #[test]
        fn a_pair_never_has_more_tokens_than_room(query: String, document: String, room in 0usize..40, has_template: bool) {
            let template = has_template.then(|| "<s>{query}|{document}</s>".to_owned());
            let reranker = Reranker { template };
            let tokenizer = roberta();
            let tokens = pairs(&tokenizer, &reranker, &query, room).encode(&document, 20);
            prop_assert!(tokens.len() <= room);
        }
    }
}

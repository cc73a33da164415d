//! Calls as Function Gemma writes them: nearly JSON, with bare keys and with texts between marks instead of quotes.
//!
//! ```text
//! <start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>
//! ```

use std::ops::Range;

use serde_json::{Map, Value};

use super::{Call, Offer};

pub const OPEN: &str = "<start_function_call>";
const CLOSE: &str = "<end_function_call>";
const CALL: &str = "call:";
const MARK: &str = "<escape>";
/// As deep as JSON in a request may nest.
const MAX_DEPTH: usize = 128;

/// The first whole call in `text`.
pub fn next(text: &str) -> Option<Range<usize>> {
    let start = text.find(OPEN)?;
    let mut at = start + OPEN.len();
    loop {
        let end = at + text[at..].find(CLOSE)?;
        // Between two marks it is a part of a text.
        match text[at..end].matches(MARK).count() % 2 {
            0 => return Some(start..end + CLOSE.len()),
            _ => at = end + text[end..].find(MARK)? + MARK.len(),
        }
    }
}

/// What the text of a call says; `None` when it cannot be read, or names no tool that was offered.
pub fn read(text: &str, offers: &[Offer]) -> Option<Call> {
    let call = text.strip_prefix(OPEN)?.strip_suffix(CLOSE)?.trim().strip_prefix(CALL)?;
    let (name, _) = call.split_once('{')?;
    let offer = offers.iter().find(|offer| offer.name == name.trim())?;
    let mut reader = Reader { rest: &call[name.len()..] };
    let arguments = reader.object(0)?;
    reader.rest.trim().is_empty().then(|| Call { name: offer.name.clone(), arguments })
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Option<Value> {
        self.rest = self.rest.trim_start();
        if depth > MAX_DEPTH {
            return None;
        }
        if let Some(text) = self.rest.strip_prefix(MARK) {
            let (text, rest) = text.split_once(MARK)?;
            self.rest = rest;
            return Some(Value::from(text));
        }
        match self.rest.bytes().next()? {
            b'{' => self.object(depth).map(Value::Object),
            b'[' => {
                self.eat('[');
                let mut items = Vec::new();
                while !self.eat(']') {
                    items.push(self.value(depth + 1)?);
                    self.eat(',');
                }
                Some(Value::Array(items))
            }
            _ => {
                let end = self.rest.find([',', '}', ']'])?;
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                let word = Some(word.trim()).filter(|word| !word.is_empty())?;
                // What is no number, true, false or null is a text without its marks.
                Some(serde_json::from_str(word).unwrap_or_else(|_| Value::from(word)))
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Map<String, Value>> {
        let mut entries = Map::new();
        if !self.eat('{') {
            return None;
        }
        while !self.eat('}') {
            let (key, rest) = self.rest.split_once(':')?;
            self.rest = rest;
            let key = key.trim().trim_start_matches(MARK).trim_end_matches(MARK);
            entries.insert(key.to_owned(), self.value(depth + 1)?);
            self.eat(',');
        }
        Some(entries)
    }

    /// Takes the sign, if it comes next.
    fn eat(&mut self, sign: char) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn offers() -> Vec<Offer> {
        vec![Offer { name: "get_weather".into(), schema: Value::Null }]
    }

    fn arguments(inside: &str) -> Option<Value> {
        let text = format!("{OPEN}call:get_weather{inside}{CLOSE}");
        let range = next(&text)?;
        assert_eq!(range, 0..text.len(), "{text}");
        read(&text, &offers()).map(|call| Value::Object(call.arguments))
    }

    #[test]
    fn values_are_texts_between_marks_and_json_without() {
        let inside = "{city:<escape>New, {York}<escape>,days:3,share:0.5,now:true,none:null,\
                      tags:[<escape>a<escape>,2,[]],place:{x:1,y:{}},mood:fine}";
        let expected = json!({
            "city": "New, {York}", "days": 3, "share": 0.5, "now": true, "none": null, "tags": ["a", 2, []],
            "place": {"x": 1, "y": {}}, "mood": "fine"
        });
        assert_eq!(arguments(inside), Some(expected));
        assert_eq!(arguments(" { } "), Some(json!({})));
    }

    #[test]
    fn the_end_of_a_call_in_a_text_is_not_its_end() {
        let inside = format!("{{city:<escape>{CLOSE}<escape>}}");
        assert_eq!(arguments(&inside), Some(json!({ "city": CLOSE })));
    }

    #[test]
    fn what_is_unfinished_unknown_or_broken_is_no_call() {
        assert_eq!(next("<start_function_call>call:get_weather{city:<escape>Bonn"), None);
        assert_eq!(read("<start_function_call>call:rm{}<end_function_call>", &offers()), None);
        let deep = "[".repeat(1000);
        for inside in
            ["", "{", "{city}", "{city:}", "{city:[1}", "{city:[}", "{a:1}}", "{a:1", &format!("{{a:{deep}")]
        {
            assert_eq!(arguments(inside), None, "{inside}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(parts in proptest::collection::vec(
            prop_oneof![Just(OPEN), Just(CLOSE), Just(MARK), Just("call:"), Just("get_weather"), Just("{"), Just("}"),
                Just("["), Just("]"), Just(":"), Just(","), Just("é"), Just("1")], 0..40,
        )) {
            let text = parts.concat();
            if let Some(range) = next(&text) {
                let _ = read(&text[range], &offers());
            }
        }
    }
}

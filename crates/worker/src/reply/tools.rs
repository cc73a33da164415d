//! Finds tool calls in an answer, whatever their dress: `{"name":..,"arguments":..}`, an object under the tool's
//! own name, a name followed by an object, Qwen 3 Coder's tags, or Function Gemma's, after what the model's template puts
//! before calls.
//!
//! Only names that the request offered are recognised. What comes out does not depend on how the text was cut. Nothing
//! that a model said is lost: what looked like calls and held none is content in the end.

mod coder;
mod gemma;
mod objects;

use protocol::v1::ToolCall;
use serde_json::{Map, Value};

use self::objects::Scanner;
use super::overlap;

/// What the parser needs to know about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub dress: Dress,
    pub offers: Vec<Offer>,
    /// Ids of the calls derive from it, so that a resumed stream repeats them.
    pub id_seed: u64,
}

/// How a model writes its calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dress {
    /// `{` or `[`: an answer that begins with it is a call.
    pub bare: Option<char>,
    /// Any of these precedes calls, wherever it stands.
    pub tags: Vec<String>,
    pub form: Form,
}

/// What comes after a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    #[default]
    Json,
    Coder,
    Gemma,
}

/// A tool that may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub name: String,
    /// JSON schema of its arguments, as the client wrote it.
    pub schema: Value,
}

/// What one push released.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    pub content: String,
    pub calls: Vec<ToolCall>,
}

#[derive(Debug)]
pub struct Tools {
    spec: Spec,
    state: State,
    held: String,
    /// What followed a tag and was no call, the tag included; content if no call comes after all.
    passed_over: String,
    scanner: Scanner,
    /// How many calls were found; the index of the next.
    calls: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only white space was seen, and a bracket would be a call.
    Beginning,
    /// No tag yet.
    Looking,
    /// After the tag: text in which every balanced object may be a call. It is never content.
    Calling,
    /// Inside the bracket that is the tag.
    Bracket,
    /// After a bracket that held calls: another may follow.
    Between,
    /// Everything is content.
    Content,
}

// === impl Dress ===

impl Dress {
    /// Calls after a tag, or where the tag is a bracket, answers that are a call.
    pub fn tagged(tag: &str) -> Dress {
        match tag {
            "{" | "[" => Dress { bare: tag.chars().next(), ..Dress::default() },
            tag => Dress { tags: vec![tag.to_owned()], ..Dress::default() },
        }
    }

    pub fn coder() -> Dress {
        // Some answers begin without the outer tag.
        let tags = ["<tool_call>", coder::OPEN].map(str::to_owned).to_vec();
        Dress { tags, form: Form::Coder, ..Dress::default() }
    }

    pub fn gemma() -> Dress {
        Dress { tags: vec![gemma::OPEN.to_owned()], form: Form::Gemma, ..Dress::default() }
    }
}

// === impl Offer ===

impl Offer {
    /// The types that an argument may have; none when the schema does not say.
    fn types(&self, argument: &str) -> Vec<&str> {
        let property = self.schema.get("properties").and_then(|properties| properties.get(argument));
        let alternatives = property.and_then(|property| property.get("anyOf")).and_then(Value::as_array);
        let all = property.into_iter().chain(alternatives.into_iter().flatten());
        let types = all.filter_map(|one| one.get("type")).flat_map(|types| match types {
            Value::Array(types) => types.iter().collect(),
            one => vec![one],
        });
        types.filter_map(Value::as_str).collect()
    }
}

// === impl Tools ===

impl Tools {
    pub fn new(spec: Spec) -> Tools {
        let state = if spec.dress.bare.is_some() { State::Beginning } else { State::Looking };
        Tools {
            spec,
            state,
            held: String::new(),
            passed_over: String::new(),
            scanner: Scanner::default(),
            calls: 0,
        }
    }

    pub fn push(&mut self, text: &str) -> Found {
        self.held.push_str(text);
        let mut found = Found::default();
        // Each turn consumes text or moves the state forward.
        while self.advance(&mut found) {}
        found
    }

    /// The end of the answer.
    pub fn finish(&mut self) -> Found {
        let mut found = Found::default();
        match self.state {
            // Brackets that never close: what is in them may still be whole calls.
            State::Bracket => self.close_bracket(&mut found),
            State::Beginning | State::Looking | State::Content => {
                found.content = std::mem::take(&mut self.held);
            }
            State::Calling if self.calls == 0 => {
                found.content = std::mem::take(&mut self.passed_over) + &std::mem::take(&mut self.held);
            }
            State::Calling | State::Between => {}
        }
        found
    }

    /// True when what is held must be looked at again.
    fn advance(&mut self, found: &mut Found) -> bool {
        match self.state {
            State::Beginning | State::Between => self.look_for_bracket(),
            State::Looking => self.look_for_tag(found),
            State::Calling => self.look_for_call(found),
            State::Bracket => match self.scanner.next(&self.held) {
                Some(region) => {
                    let rest = self.held.split_off(region.end);
                    self.close_bracket(found);
                    self.held.push_str(&rest);
                    true
                }
                None => false,
            },
            State::Content => {
                found.content.push_str(&std::mem::take(&mut self.held));
                false
            }
        }
    }

    /// White space is held until it is known what follows, and belongs to no content when that is a call.
    fn look_for_bracket(&mut self) -> bool {
        let separator =
            |c: char| c.is_whitespace() || (self.state == State::Between && matches!(c, ',' | ';'));
        let rest = self.held.trim_start_matches(separator);
        if rest.is_empty() {
            return false;
        }
        if self.spec.dress.bare.is_some_and(|bracket| rest.starts_with(bracket)) {
            self.scanner = Scanner::after(self.held.len() - rest.len());
            self.state = State::Bracket;
        } else if self.state == State::Beginning && !self.spec.dress.tags.is_empty() {
            self.state = State::Looking;
        } else {
            self.state = State::Content;
        }
        true
    }

    fn look_for_tag(&mut self, found: &mut Found) -> bool {
        let tags = &self.spec.dress.tags;
        let places = tags.iter().filter_map(|tag| Some((self.held.find(tag.as_str())?, tag)));
        // Of tags that begin together, the one that is complete: what comes out must not depend on the next piece.
        if let Some((at, tag)) = places.min_by_key(|(at, tag)| (at + tag.len(), *at)) {
            // What reads the other forms wants to see where a call begins.
            let length = if self.spec.dress.form == Form::Json { tag.len() } else { 0 };
            found.content.push_str(&self.held[..at]);
            self.passed_over = self.held[at..at + length].to_owned();
            self.held.drain(..at + length);
            self.scanner = Scanner::default();
            self.state = State::Calling;
            return true;
        }
        let longest = tags.iter().map(|tag| overlap(&self.held, tag)).max().unwrap_or(0);
        let kept = self.held.split_off(self.held.len() - longest);
        found.content.push_str(&std::mem::replace(&mut self.held, kept));
        false
    }

    fn look_for_call(&mut self, found: &mut Found) -> bool {
        let (calls, end) = match self.spec.dress.form {
            Form::Json => {
                let Some(object) = self.scanner.next(&self.held) else { return false };
                let end = object.end;
                (calls_in(&self.held[..object.start], &self.held[object], &self.spec.offers), end)
            }
            Form::Coder => {
                let Some(call) = coder::next(&self.held) else { return false };
                let end = call.end;
                (Vec::from_iter(coder::read(&self.held[call], &self.spec.offers)), end)
            }
            Form::Gemma => {
                let Some(call) = gemma::next(&self.held) else { return false };
                let end = call.end;
                (Vec::from_iter(gemma::read(&self.held[call], &self.spec.offers)), end)
            }
        };
        self.add(calls, found);
        let passed: String = self.held.drain(..end).collect();
        if self.calls == 0 {
            self.passed_over.push_str(&passed);
        }
        self.scanner = Scanner::default();
        true
    }

    /// `held` is the bracket, white space before it included: calls, or content after all.
    fn close_bracket(&mut self, found: &mut Found) {
        let text = std::mem::take(&mut self.held);
        // In a list the calls are the objects inside, which this scanner sees and the list itself not.
        let mut scanner = Scanner::default();
        let mut done = 0;
        let before = self.calls;
        while let Some(object) = scanner.next(&text) {
            let end = object.end;
            let calls = calls_in(&text[done..object.start], &text[object], &self.spec.offers);
            self.add(calls, found);
            done = end;
        }
        if self.calls == before {
            found.content.push_str(&text);
            self.state = State::Content;
        } else {
            self.state = State::Between;
        }
    }

    fn add(&mut self, calls: Vec<Call>, found: &mut Found) {
        for call in calls {
            found.calls.push(ToolCall {
                id: call_id(self.spec.id_seed, self.calls),
                index: self.calls,
                name: call.name,
                arguments: Value::Object(call.arguments).to_string(),
            });
            self.calls += 1;
        }
    }
}

// === what is a call ===

#[derive(Debug, PartialEq)]
struct Call {
    name: String,
    arguments: Map<String, Value>,
}

/// The calls that an object makes, given the text before it. None when it is no JSON or names no offered tool.
fn calls_in(before: &str, object: &str, offers: &[Offer]) -> Vec<Call> {
    let Ok(value) = serde_json::from_str::<Value>(object) else { return Vec::new() };
    let mut calls = Vec::new();
    collect(&value, offers, &mut calls);
    if calls.is_empty() {
        calls.extend(named_outside(before, object, &value, offers));
    }
    calls
}

/// Objects with a `name` and arguments, or under a tool's own name, outermost first.
fn collect(value: &Value, offers: &[Offer], calls: &mut Vec<Call>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, offers, calls)),
        Value::Object(object) => {
            let before = calls.len();
            if let Some(name) =
                object.get("name").and_then(Value::as_str).filter(|name| is_offered(offers, name))
            {
                let arguments = arguments_of(object).unwrap_or_default();
                calls.push(Call { name: name.to_owned(), arguments });
                return;
            }
            for (key, value) in object {
                if let Some(arguments) = as_object(value).filter(|_| is_offered(offers, key)) {
                    calls.push(Call { name: key.clone(), arguments });
                }
            }
            if calls.len() == before {
                object.values().for_each(|value| collect(value, offers, calls));
            }
        }
        _ => {}
    }
}

/// A name beside the object (`get_weather {"city":"Paris"}`) or somewhere in it; the earliest, of those that begin
/// together the longest.
fn named_outside(before: &str, object: &str, value: &Value, offers: &[Offer]) -> Option<Call> {
    let earliest = |text: &str| {
        let names = offers.iter().map(|offer| &offer.name);
        let places = names.filter_map(|name| Some((text.find(name.as_str())?, name)));
        places.min_by_key(|(at, name)| (*at, std::cmp::Reverse(name.len()))).map(|(_, name)| name.clone())
    };
    let name = earliest(before).or_else(|| earliest(object))?;
    let arguments = find_arguments(value).or_else(|| as_object(value))?;
    Some(Call { name, arguments })
}

fn find_arguments(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Array(items) => items.iter().find_map(find_arguments),
        Value::Object(object) => arguments_of(object).or_else(|| object.values().find_map(find_arguments)),
        _ => None,
    }
}

fn arguments_of(object: &Map<String, Value>) -> Option<Map<String, Value>> {
    ["arguments", "parameters"].into_iter().find_map(|key| as_object(object.get(key)?))
}

/// An object, or a string that holds one.
fn as_object(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(object) => Some(object.clone()),
        Value::String(text) => serde_json::from_str(text).ok(),
        _ => None,
    }
}

fn is_offered(offers: &[Offer], name: &str) -> bool {
    offers.iter().any(|offer| offer.name == name)
}

/// `call_` and eight letters or digits, the same ones whenever the same answer is generated again.
fn call_id(seed: u64, index: u32) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut bits = crate::hash::mix(seed ^ crate::hash::mix(u64::from(index) + 1));
    let mut id = String::from("call_");
    for _ in 0..8 {
        id.push(char::from(ALPHABET[(bits % 36) as usize]));
        bits /= 36;
    }
    id
}

#[cfg(test)]
mod tests;

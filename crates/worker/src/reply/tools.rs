//! Finds tool calls in an answer, whatever their dress: `{"name":..,"arguments":..}`, an object under the tool's
//! own name, or a name followed by an object, after a tag that the model's template tells.
//!
//! Only names that the request offered are recognised. What comes out does not depend on how the text was cut.

mod objects;

use protocol::v1::ToolCall;
use serde_json::{Map, Value};

use self::objects::Scanner;
use super::overlap;

/// What the parser needs to know about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// What precedes a call in the model's answers; `{` and `[` mean that the answer is the call.
    pub tag: String,
    /// Names of the offered tools.
    pub names: Vec<String>,
    /// Ids of the calls derive from it, so that a resumed stream repeats them.
    pub id_seed: u64,
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
    scanner: Scanner,
    /// How many calls were found; the index of the next.
    calls: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No tag yet. With a bracket for a tag, only white space was seen.
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

// === impl Tools ===

impl Tools {
    pub fn new(spec: Spec) -> Tools {
        Tools { spec, state: State::Looking, held: String::new(), scanner: Scanner::default(), calls: 0 }
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
            State::Looking | State::Content => found.content = std::mem::take(&mut self.held),
            State::Calling | State::Between => {}
        }
        found
    }

    /// True when what is held must be looked at again.
    fn advance(&mut self, found: &mut Found) -> bool {
        match self.state {
            State::Looking if self.is_bracket() => self.look_for_bracket(),
            State::Looking => self.look_for_tag(found),
            State::Calling => self.look_for_object(found),
            State::Bracket => match self.scanner.next(&self.held) {
                Some(region) => {
                    let rest = self.held.split_off(region.end);
                    self.close_bracket(found);
                    self.held.push_str(&rest);
                    true
                }
                None => false,
            },
            State::Between => self.look_for_bracket(),
            State::Content => {
                found.content.push_str(&std::mem::take(&mut self.held));
                false
            }
        }
    }

    fn is_bracket(&self) -> bool {
        matches!(self.spec.tag.as_str(), "{" | "[")
    }

    /// White space is held until it is known what follows, and belongs to no content when that is a call.
    fn look_for_bracket(&mut self) -> bool {
        let separator =
            |c: char| c.is_whitespace() || (self.state == State::Between && matches!(c, ',' | ';'));
        let rest = self.held.trim_start_matches(separator);
        if rest.is_empty() {
            return false;
        }
        if rest.starts_with(&self.spec.tag) {
            self.scanner = Scanner::after(self.held.len() - rest.len());
            self.state = State::Bracket;
        } else {
            self.state = State::Content;
        }
        true
    }

    fn look_for_tag(&mut self, found: &mut Found) -> bool {
        if let Some(at) = self.held.find(&self.spec.tag) {
            found.content.push_str(&self.held[..at]);
            self.held.drain(..at + self.spec.tag.len());
            self.scanner = Scanner::default();
            self.state = State::Calling;
            return true;
        }
        let kept = self.held.split_off(self.held.len() - overlap(&self.held, &self.spec.tag));
        found.content.push_str(&std::mem::replace(&mut self.held, kept));
        false
    }

    fn look_for_object(&mut self, found: &mut Found) -> bool {
        let Some(object) = self.scanner.next(&self.held) else { return false };
        let end = object.end;
        let calls = calls_in(&self.held[..object.start], &self.held[object], &self.spec.names);
        self.add(calls, found);
        self.held.drain(..end);
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
            let calls = calls_in(&text[done..object.start], &text[object], &self.spec.names);
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
fn calls_in(before: &str, object: &str, names: &[String]) -> Vec<Call> {
    let Ok(value) = serde_json::from_str::<Value>(object) else { return Vec::new() };
    let mut calls = Vec::new();
    collect(&value, names, &mut calls);
    if calls.is_empty() {
        calls.extend(named_outside(before, object, &value, names));
    }
    calls
}

/// Objects with a `name` and arguments, or under a tool's own name, outermost first.
fn collect(value: &Value, names: &[String], calls: &mut Vec<Call>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, names, calls)),
        Value::Object(object) => {
            let before = calls.len();
            if let Some(name) =
                object.get("name").and_then(Value::as_str).filter(|name| is_offered(names, name))
            {
                let arguments = arguments_of(object).unwrap_or_default();
                calls.push(Call { name: name.to_owned(), arguments });
                return;
            }
            for (key, value) in object {
                if let Some(arguments) = as_object(value).filter(|_| is_offered(names, key)) {
                    calls.push(Call { name: key.clone(), arguments });
                }
            }
            if calls.len() == before {
                object.values().for_each(|value| collect(value, names, calls));
            }
        }
        _ => {}
    }
}

/// A name beside the object (`get_weather {"city":"Paris"}`) or somewhere in it; the earliest, of those that begin
/// together the longest.
fn named_outside(before: &str, object: &str, value: &Value, names: &[String]) -> Option<Call> {
    let earliest = |text: &str| {
        let places = names.iter().filter_map(|name| Some((text.find(name.as_str())?, name)));
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

fn is_offered(names: &[String], name: &str) -> bool {
    names.iter().any(|offered| offered == name)
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

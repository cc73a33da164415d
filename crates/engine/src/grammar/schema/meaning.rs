//! What clients mean by a schema, written out in full: what has properties is an object, what has items is an array, and
//! an object has the keys that its schema names and no others, unless it says something about others itself. By the
//! letter of JSON Schema a schema that says none of this lets anything through; Ollama never reads it so, and a small
//! model that may invent keys does it until its answer is cut off.
//!
//! The order of keys is llguidance's: as declared, and optional ones may be left out. (llama.cpp puts those that are
//! required before the others.) References are followed here, too: where several schemas speak of one object, each names
//! only some of its keys, so what is referred to may be needed in two forms.

use std::collections::{HashMap, HashSet, VecDeque};

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

use super::MAX_OPTIONAL_KEYS;

/// As many as llguidance takes. References can make many schemas of a few.
const MAX_SCHEMAS: usize = 50_000;
/// Nor may they multiply what is long.
const MAX_BYTES: usize = 4 << 20;

/// Keywords whose schemas speak of the same value as the schema around them.
const PARTS: [&str; 4] = ["allOf", "anyOf", "oneOf", "$ref"];

/// Keywords that speak of values of one type only, which is meant where a schema names none.
const TYPICAL: [(&str, &[&str]); 4] = [
    ("object", &["properties", "patternProperties", "required", "minProperties", "maxProperties"]),
    ("array", &["items", "prefixItems", "minItems", "maxItems", "uniqueItems"]),
    ("string", &["pattern", "format", "minLength", "maxLength"]),
    ("number", &["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]),
];

/// The largest number up to which every integer is one in any reader of JSON (RFC 7493).
const MAX_INTEGER: f64 = 9_007_199_254_740_991.0;

/// Bounds and a divisor together take time that grows with the divisor: seconds for one of a million.
const MAX_BOUNDED_MULTIPLE: f64 = 10_000.0;

/// How much of an object a schema tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Extent {
    Whole,
    /// Other schemas speak of the same object and may name more keys.
    Part,
}

/// The keys that several schemas name for one object.
#[derive(Default)]
struct Keys<'a> {
    /// With what each must keep to beside what the schemas say that name it.
    named: Map<String, Value>,
    required: Vec<&'a str>,
    /// Whether others are welcome is said somewhere.
    is_told: bool,
    has_properties: bool,
}

struct Writer<'a> {
    root: &'a Value,
    /// What is referred to, in which extent, and the number of its definition.
    places: HashMap<(&'a str, Extent), usize>,
    pending: VecDeque<(&'a Value, Extent)>,
    schemas: usize,
    /// Of keys, and of what is taken over as it is.
    bytes: usize,
}

/// The same schema, written out.
pub fn write_out(root: &Value) -> Result<Map<String, Value>, String> {
    let mut writer = Writer { root, places: HashMap::new(), pending: VecDeque::new(), schemas: 0, bytes: 0 };
    let Value::Object(mut whole) = writer.schema(root, Extent::Whole)? else {
        return Err("the schema must be a JSON object".to_owned());
    };
    let says = |keyword: &str| whole.contains_key(keyword);
    if !PARTS.into_iter().chain(["type", "enum", "const"]).any(says) {
        whole.insert("type".to_owned(), json!("object"));
    }
    let mut definitions = Map::new();
    while let Some((place, extent)) = writer.pending.pop_front() {
        definitions.insert(definitions.len().to_string(), writer.schema(place, extent)?);
    }
    whole.insert("$defs".to_owned(), Value::Object(definitions));
    Ok(whole)
}

// === impl Writer ===

impl<'a> Writer<'a> {
    fn schema(&mut self, schema: &'a Value, extent: Extent) -> Result<Value, String> {
        self.count(0)?;
        let Value::Object(schema) = schema else { return Ok(schema.clone()) };
        let parts = if is_wrapper(schema) { extent } else { Extent::Part };
        let mut out = Map::new();
        for (keyword, value) in schema {
            let value = match (keyword.as_str(), value) {
                // Definitions are written where they are needed, and a name of the schema would change what references
                // mean. The rest is for readers.
                ("$defs" | "definitions" | "$schema" | "$id" | "id", _) => continue,
                ("title" | "description" | "$comment" | "default" | "examples", _) => continue,
                ("properties" | "patternProperties", Value::Object(schemas)) => {
                    let one = |(key, schema)| {
                        self.bytes += String::len(key);
                        Ok((key.clone(), self.schema(schema, Extent::Whole)?))
                    };
                    Value::Object(schemas.iter().map(one).collect::<Result<_, String>>()?)
                }
                ("items" | "prefixItems", Value::Array(schemas)) => self.list(schemas, Extent::Whole)?,
                ("items" | "additionalItems" | "additionalProperties", schema) => {
                    self.schema(schema, Extent::Whole)?
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => self.list(schemas, parts)?,
                ("$ref", Value::String(place)) => json!(format!("#/$defs/{}", self.place(place, parts)?)),
                _ => {
                    self.bytes += value.to_string().len();
                    value.clone()
                }
            };
            out.insert(keyword.clone(), value);
        }
        name_type(&mut out);
        bound_multiples(&mut out);
        if extent == Extent::Whole && !is_wrapper(schema) {
            self.close(schema, &mut out)?;
        }
        check_keys(&out)?;
        Ok(Value::Object(out))
    }

    /// One more schema, or key of `bytes`.
    fn count(&mut self, bytes: usize) -> Result<(), String> {
        self.schemas += 1;
        self.bytes += bytes;
        if self.bytes > MAX_BYTES {
            return Err(format!("the schema must have at most {MAX_BYTES} bytes, references followed"));
        }
        if self.schemas > MAX_SCHEMAS {
            return Err(format!("the schema must have at most {MAX_SCHEMAS} parts, references followed"));
        }
        Ok(())
    }

    fn list(&mut self, schemas: &'a [Value], extent: Extent) -> Result<Value, String> {
        schemas.iter().map(|schema| self.schema(schema, extent)).collect()
    }

    /// The number of the definition that `place` gets.
    fn place(&mut self, place: &'a str, extent: Extent) -> Result<usize, String> {
        let schema = self.resolve(place)?;
        let next = self.places.len();
        let number = *self.places.entry((place, extent)).or_insert(next);
        if number == next {
            self.pending.push_back((schema, extent));
        }
        Ok(number)
    }

    fn resolve(&self, place: &str) -> Result<&'a Value, String> {
        let within = place.strip_prefix('#').filter(|path| path.is_empty() || path.starts_with('/'));
        let path = within.ok_or_else(|| format!("`$ref` must begin with \"#/\", got {place:?}"))?;
        let path = percent_decode_str(path).decode_utf8_lossy();
        self.root.pointer(&path).ok_or_else(|| format!("`$ref` leads nowhere: {place:?}"))
    }

    /// Lets an object have the keys that `schema` and its parts name, if they name some, and no others.
    fn close(&mut self, schema: &'a Map<String, Value>, out: &mut Map<String, Value>) -> Result<(), String> {
        let mut keys = Keys::default();
        self.collect(schema, true, &mut keys, &mut HashSet::new())?;
        keys.has_properties |= schema.contains_key("patternProperties");
        if keys.is_told || !keys.has_properties {
            return Ok(());
        }
        let properties = out.entry("properties").or_insert_with(|| json!({}));
        if let Value::Object(properties) = properties {
            let required = keys.required.iter().map(|key| ((*key).to_owned(), json!(true)));
            for (key, schema) in keys.named.into_iter().chain(required) {
                properties.entry(key).or_insert(schema);
            }
        }
        out.insert("additionalProperties".to_owned(), json!(false));
        Ok(())
    }

    /// `is_certain`: not one of several alternatives. A key of one alternative may come with another one, too, but not
    /// with any value.
    fn collect(
        &mut self,
        schema: &'a Map<String, Value>,
        is_certain: bool,
        keys: &mut Keys<'a>,
        seen: &mut HashSet<&'a str>,
    ) -> Result<(), String> {
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                ("properties", Value::Object(properties)) => {
                    keys.has_properties = true;
                    for (key, schema) in properties {
                        self.count(key.len())?;
                        // References that meet are compared by what they lead to, which may have no end.
                        let schema = match is_certain || refers(schema) {
                            true => json!(true),
                            false => self.schema(schema, Extent::Whole)?,
                        };
                        keys.name(key, schema);
                    }
                }
                ("required", Value::Array(names)) => {
                    keys.required.extend(names.iter().filter_map(Value::as_str))
                }
                ("unevaluatedProperties", Value::Bool(false)) => {}
                ("additionalProperties" | "unevaluatedProperties", _) => keys.is_told = true,
                ("allOf" | "anyOf" | "oneOf", Value::Array(parts)) => {
                    for part in parts.iter().filter_map(Value::as_object) {
                        keys.is_told |= part.contains_key("patternProperties");
                        self.collect(part, is_certain && keyword == "allOf", keys, seen)?;
                    }
                }
                ("$ref", Value::String(place)) if seen.insert(place) => {
                    self.count(0)?;
                    if let Value::Object(part) = self.resolve(place)? {
                        keys.is_told |= part.contains_key("patternProperties");
                        self.collect(part, is_certain, keys, seen)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

// === impl Keys ===

impl Keys<'_> {
    fn name(&mut self, key: &str, schema: Value) {
        match self.named.get_mut(key) {
            _ if schema == json!(true) => {
                self.named.insert(key.to_owned(), schema);
            }
            Some(Value::Object(known)) => {
                if let Some(Value::Array(alternatives)) = known.get_mut("anyOf") {
                    alternatives.push(schema);
                }
            }
            Some(_) => {}
            None => {
                self.named.insert(key.to_owned(), json!({"anyOf": [schema]}));
            }
        }
    }
}

fn check_keys(schema: &Map<String, Value>) -> Result<(), String> {
    let keys = schema.get("properties").and_then(Value::as_object).map_or(0, Map::len);
    let required = schema.get("required").and_then(Value::as_array).map_or(0, Vec::len);
    match keys.saturating_sub(required) {
        optional if optional > MAX_OPTIONAL_KEYS => Err(format!(
            "an object must have at most {MAX_OPTIONAL_KEYS} keys that are not `required`, got {optional}"
        )),
        _ => Ok(()),
    }
}

/// Whether a schema adds nothing of its own to one reference, one list of alternatives, or one part.
fn is_wrapper(schema: &Map<String, Value>) -> bool {
    let has = |keyword: &&str| schema.contains_key(*keyword);
    let many = schema.get("allOf").and_then(Value::as_array).is_some_and(|parts| parts.len() > 1);
    PARTS.iter().filter(|keyword| has(keyword)).count() == 1
        && !many
        && !["properties", "patternProperties", "additionalProperties"].iter().any(has)
}

fn name_type(schema: &mut Map<String, Value>) {
    let has = |keyword: &str| schema.contains_key(keyword);
    if ["type", "enum", "const"].into_iter().any(has) {
        return;
    }
    let speaks = |keywords: &[&str]| keywords.iter().any(|keyword| has(keyword));
    let types: Vec<&str> = match PARTS.into_iter().any(has) {
        // Beside alternatives a bound is one of those that it fits; but what has properties is an object.
        true if speaks(&["properties", "patternProperties"]) => vec!["object"],
        true => Vec::new(),
        false => TYPICAL.iter().filter(|(_, keywords)| speaks(keywords)).map(|(name, _)| *name).collect(),
    };
    if !types.is_empty() {
        schema.insert("type".to_owned(), json!(types));
    }
}

/// Greedily a model may never come to a multiple of seven: no power of ten is one. (What bounds other numbers is
/// `grammar::numbers`.)
fn bound_multiples(schema: &mut Map<String, Value>) {
    if schema.get("multipleOf").and_then(Value::as_f64).is_none_or(|of| of > MAX_BOUNDED_MULTIPLE) {
        return;
    }
    let given = |keyword: &str| schema.get(keyword).and_then(Value::as_f64);
    let least = given("minimum").or(given("exclusiveMinimum"));
    let most = given("maximum").or(given("exclusiveMaximum"));
    if most.is_none() {
        let maximum = MAX_INTEGER.max(least.map_or(0.0, |least| least.abs() * 10.0));
        schema.insert("maximum".to_owned(), json!(maximum));
    }
    if least.is_none() {
        let minimum = -MAX_INTEGER.max(most.map_or(0.0, |most| most.abs() * 10.0));
        schema.insert("minimum".to_owned(), json!(minimum));
    }
}

fn refers(schema: &Value) -> bool {
    match schema {
        Value::Object(entries) => entries.contains_key("$ref") || entries.values().any(refers),
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

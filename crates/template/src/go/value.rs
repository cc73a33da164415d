//! What a template computes with: Go's values as far as templates can tell them apart.

use std::collections::BTreeMap;
use std::rc::Rc;

#[derive(Debug, Clone)]
pub(super) enum Value {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<str>),
    List(List),
    Map(Rc<Map>),
    Struct(Rc<Struct>),
}

/// A slice of a shared list: slicing in a loop over messages copies nothing.
#[derive(Debug, Clone)]
pub(super) struct List {
    items: Rc<[Value]>,
    start: usize,
    end: usize,
    pub printed: Printed,
}

#[derive(Debug, Clone)]
pub(super) struct Map {
    pub entries: BTreeMap<String, Value>,
    pub printed: Printed,
}

#[derive(Debug, Clone)]
pub(super) struct Struct {
    pub shape: &'static Shape,
    /// One value for each field of the shape.
    pub values: Vec<Value>,
}

/// What is fixed about a struct.
#[derive(Debug)]
pub(super) struct Shape {
    pub name: &'static str,
    pub fields: &'static [Field],
    pub printed: Printed,
}

#[derive(Debug)]
pub(super) struct Field {
    pub name: &'static str,
    /// Its key in JSON.
    pub json: &'static str,
    /// Left out of JSON when empty.
    pub optional: bool,
}

/// How a compound value turns into text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Printed {
    /// As Go prints it: `[a b]`, `map[k:v]`, `{a b}`.
    Go,
    Json,
    /// The types of a tool's property: plain when there is one, `[a b]` for several.
    Types,
}

// === impl Value ===

impl Value {
    pub fn text(text: impl Into<Rc<str>>) -> Value {
        Value::Text(text.into())
    }

    pub fn list(items: Vec<Value>) -> Value {
        Value::List(List::new(items, Printed::Go))
    }

    /// Go's truth: everything but false, zero, nil and what is empty; a struct always.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Nil => false,
            Value::Bool(value) => *value,
            Value::Int(value) => *value != 0,
            Value::Float(value) => *value != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::List(list) => !list.items().is_empty(),
            Value::Map(map) => !map.entries.is_empty(),
            Value::Struct(_) => true,
        }
    }

    /// The type in Go's words.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Nil => "nil",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Float(_) => "float64",
            Value::Text(_) => "string",
            Value::List(_) => "[]interface {}",
            Value::Map(_) => "map[string]interface {}",
            Value::Struct(value) => value.shape.name,
        }
    }

    /// The text form of its own that a value has, beside the one that Go gives to every value of its kind.
    pub fn printed(&self) -> Printed {
        match self {
            Value::List(list) => list.printed,
            Value::Map(map) => map.printed,
            Value::Struct(value) => value.shape.printed,
            _ => Printed::Go,
        }
    }
}

// === impl List ===

impl List {
    pub fn new(items: Vec<Value>, printed: Printed) -> List {
        let end = items.len();
        List { items: items.into(), start: 0, end, printed }
    }

    pub fn items(&self) -> &[Value] {
        &self.items[self.start..self.end]
    }

    /// `None` when the bounds do not fit.
    pub fn slice(&self, start: usize, end: usize) -> Option<List> {
        self.items().get(start..end)?;
        Some(List { start: self.start + start, end: self.start + end, ..self.clone() })
    }
}

// === impl Struct ===

impl Struct {
    pub fn get(&self, name: &str) -> Option<&Value> {
        let at = self.shape.fields.iter().position(|field| field.name == name)?;
        self.values.get(at)
    }
}

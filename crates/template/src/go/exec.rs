//! Walks the tree and writes the prompt. Every step, level and byte is counted.

use std::collections::BTreeMap;
use std::fmt::Write;

use jiff::civil::Date;

use super::ast::{Branch, Command, Kind, List, Node, Operand, Pipeline};
use super::functions::{self, Failure};
use super::print::{self, Text};
use super::value::Value;
use crate::{Error, MAX_OUTPUT_BYTES};

/// Blocks, parentheses and template calls within one another. Twice what one template may nest, so that
/// templates can call others, and far from the end of any thread's stack.
pub(super) const MAX_DEPTH: usize = 200;
/// Nodes, commands and loop iterations of one rendering, about a second. A conversation of 1,000 messages takes 50,000.
pub(super) const MAX_STEPS: usize = 10_000_000;
/// Text that functions make costs a step for so many bytes, which bounds memory too: variables can keep it.
const BYTES_PER_STEP: usize = 16;

/// Renders templates that share definitions into one text.
pub(super) struct Machine<'a> {
    definitions: &'a BTreeMap<String, List>,
    today: Date,
    out: Text,
    /// Innermost last; each with its `$`.
    variables: Vec<(&'a str, Value)>,
    line: usize,
    depth: usize,
    steps: usize,
}

/// What follows a list of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

// === impl Machine ===

impl<'a> Machine<'a> {
    pub fn new(definitions: &'a BTreeMap<String, List>, today: Date) -> Machine<'a> {
        let out = Text::default();
        Machine { definitions, today, out, variables: Vec::new(), line: 1, depth: 0, steps: 0 }
    }

    /// Executes `list` with `data` as its dot and its `$`, after what was written before.
    pub fn run(&mut self, list: &'a List, data: Value) -> Result<(), Error> {
        self.variables = vec![("$", data.clone())];
        self.list(&data, list).map(|_| ())
    }

    pub fn finish(self) -> String {
        self.out.into_string()
    }

    fn list(&mut self, dot: &Value, list: &'a List) -> Result<Flow, Error> {
        self.enter()?;
        for node in list {
            let flow = self.node(dot, node)?;
            if flow != Flow::Next {
                self.depth -= 1;
                return Ok(flow);
            }
        }
        self.depth -= 1;
        Ok(Flow::Next)
    }

    fn node(&mut self, dot: &Value, node: &'a Node) -> Result<Flow, Error> {
        self.line = node.line;
        self.step(1)?;
        match &node.kind {
            Kind::Text(text) => self.write(|out| out.write_str(text))?,
            Kind::Action(pipeline) => {
                let value = self.pipeline(dot, pipeline)?;
                if pipeline.targets.is_empty() {
                    self.print(&value)?;
                }
            }
            Kind::If(branch) | Kind::With(branch) => {
                let scope = self.variables.len();
                let value = self.pipeline(dot, &branch.pipeline)?;
                let inner = if matches!(node.kind, Kind::With(_)) { &value } else { dot };
                let flow = match (&branch.otherwise, value.is_true()) {
                    (_, true) => self.list(inner, &branch.body)?,
                    (Some(otherwise), false) => self.list(dot, otherwise)?,
                    (None, false) => Flow::Next,
                };
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Kind::Range(branch) => return self.range(dot, branch),
            Kind::Template { name, data } => self.call_template(dot, name, data.as_ref())?,
            Kind::Break => return Ok(Flow::Break),
            Kind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(&mut self, dot: &Value, branch: &'a Branch) -> Result<Flow, Error> {
        let scope = self.variables.len();
        let value = self.pipeline(dot, &branch.pipeline)?;
        let inner = self.variables.len();
        let count = match &value {
            Value::List(list) => list.items().len(),
            Value::Map(map) => map.entries.len(),
            Value::Int(_) if branch.pipeline.targets.len() > 1 => {
                return Err(self.error("can't use an int to iterate over more than one variable"));
            }
            Value::Int(count) => usize::try_from(*count).unwrap_or_default(),
            Value::Nil => 0,
            other => return Err(self.error(&format!("range can't iterate over {}", other.type_name()))),
        };
        let mut entries = match &value {
            Value::Map(map) => Some(map.entries.iter()),
            _ => None,
        };
        for at in 0..count {
            let (key, element) = match (&value, entries.as_mut().and_then(Iterator::next)) {
                (_, Some((key, element))) => (Value::text(key.as_str()), element.clone()),
                (Value::List(list), None) => (Value::Int(at as i64), list.items()[at].clone()),
                _ => (Value::Nil, Value::Int(at as i64)),
            };
            self.step(1)?;
            self.set_loop_variables(&branch.pipeline, inner, key, &element)?;
            let flow = self.list(&element, &branch.body)?;
            self.variables.truncate(inner);
            if flow == Flow::Break {
                break;
            }
        }
        self.variables.truncate(inner);
        let flow = match &branch.otherwise {
            Some(otherwise) if count == 0 => self.list(dot, otherwise)?,
            _ => Flow::Next,
        };
        self.variables.truncate(scope);
        Ok(flow)
    }

    /// The variables that the range declared are the last ones in scope.
    fn set_loop_variables(
        &mut self,
        pipeline: &'a Pipeline,
        inner: usize,
        key: Value,
        element: &Value,
    ) -> Result<(), Error> {
        let targets = &pipeline.targets;
        if targets.len() == 2 {
            self.set(&targets[0], key, (!pipeline.assigns).then(|| inner - 2))?;
        }
        if let Some(last) = targets.last() {
            self.set(last, element.clone(), (!pipeline.assigns).then(|| inner - 1))?;
        }
        Ok(())
    }

    fn call_template(&mut self, dot: &Value, name: &str, data: Option<&'a Pipeline>) -> Result<(), Error> {
        let definitions = self.definitions;
        let Some(list) = definitions.get(name) else {
            return Err(self.error(&format!("template {name:?} not defined")));
        };
        let data = match data {
            Some(pipeline) => self.pipeline(dot, pipeline)?,
            None => Value::Nil,
        };
        // A called template sees none of the caller's variables.
        let outer = std::mem::replace(&mut self.variables, vec![("$", data.clone())]);
        self.list(&data, list)?;
        self.variables = outer;
        Ok(())
    }

    fn pipeline(&mut self, dot: &Value, pipeline: &'a Pipeline) -> Result<Value, Error> {
        self.enter()?;
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(dot, command, last)?);
        }
        let value = last.unwrap_or(Value::Nil);
        for target in &pipeline.targets {
            match pipeline.assigns {
                true => self.set(target, value.clone(), None)?,
                false => self.variables.push((target, value.clone())),
            }
        }
        self.depth -= 1;
        Ok(value)
    }

    /// `last` is what the command before the `|` gave.
    fn command(&mut self, dot: &Value, command: &'a Command, last: Option<Value>) -> Result<Value, Error> {
        self.line = command.line;
        self.step(1)?;
        let (first, args) = command.args.split_first().ok_or_else(|| self.error("empty command"))?;
        if let Operand::Function(name) = first {
            return self.function(dot, name, args, last);
        }
        if !args.is_empty() || last.is_some() {
            return Err(self.error(&format!("can't give argument to non-function {}", describe(first))));
        }
        match first {
            Operand::Nil => Err(self.error("nil is not a command")),
            operand => self.operand(dot, operand),
        }
    }

    fn function(
        &mut self,
        dot: &Value,
        name: &str,
        args: &'a [Operand],
        last: Option<Value>,
    ) -> Result<Value, Error> {
        if name == "and" || name == "or" {
            return self.and_or(dot, name, args, last);
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in args {
            values.push(self.operand(dot, arg)?);
        }
        values.extend(last);
        if let ["eq" | "ne" | "lt" | "le" | "gt" | "ge"] = [name] {
            self.charge_comparison(&values)?;
        }
        let outcome = functions::call(name, &values, self.today);
        let value = outcome.map_err(|failure| match failure {
            Failure::Text(text) => self.error(&format!("error calling {name}: {text}")),
            Failure::TooLong => self.too_long(),
        })?;
        if let Value::Text(text) = &value {
            self.step(text.len() / BYTES_PER_STEP)?;
        }
        Ok(value)
    }

    /// The operand that decides; those behind it are not evaluated.
    fn and_or(
        &mut self,
        dot: &Value,
        name: &str,
        args: &'a [Operand],
        last: Option<Value>,
    ) -> Result<Value, Error> {
        let mut value = None;
        for arg in args {
            let found = self.operand(dot, arg)?;
            if found.is_true() == (name == "or") {
                return Ok(found);
            }
            value = Some(found);
        }
        let none = || self.error(&format!("wrong number of args for {name}: want at least 1 got 0"));
        last.or(value).ok_or_else(none)
    }

    fn operand(&mut self, dot: &Value, operand: &'a Operand) -> Result<Value, Error> {
        match operand {
            Operand::Dot => Ok(dot.clone()),
            Operand::Nil => Ok(Value::Nil),
            Operand::Bool(value) => Ok(Value::Bool(*value)),
            Operand::Int(value) => Ok(Value::Int(*value)),
            Operand::Float(value) => Ok(Value::Float(*value)),
            Operand::Text(text) => {
                self.step(text.len() / BYTES_PER_STEP)?;
                Ok(Value::text(text.as_str()))
            }
            Operand::Field(path) => self.fields(dot.clone(), path),
            Operand::Variable(path) => {
                let at = self.find(&path[0])?;
                let value = self.variables[at].1.clone();
                self.fields(value, &path[1..])
            }
            Operand::Function(name) => self.function(dot, name, &[], None),
            Operand::Pipeline(pipeline) => self.pipeline(dot, pipeline),
            Operand::Chain(first, path) => {
                let value = self.operand(dot, first)?;
                self.fields(value, path)
            }
        }
    }

    fn fields(&mut self, mut value: Value, path: &[String]) -> Result<Value, Error> {
        for (at, name) in path.iter().enumerate() {
            value = match &value {
                // A key that is not there is nil; only asking that for a field of its own is an error.
                Value::Nil if at == 0 => return Ok(Value::Nil),
                Value::Nil => {
                    return Err(self.error(&format!("nil pointer evaluating interface {{}}.{name}")));
                }
                Value::Map(map) => map.entries.get(name).cloned().unwrap_or(Value::Nil),
                Value::Struct(found) => match found.get(name) {
                    Some(field) => field.clone(),
                    None => return Err(self.no_field(name, &value)),
                },
                _ => return Err(self.no_field(name, &value)),
            };
        }
        Ok(value)
    }

    fn no_field(&self, name: &str, value: &Value) -> Error {
        self.error(&format!("can't evaluate field {name} in type {}", value.type_name()))
    }

    /// Sets the variable at `slot`, or the innermost one of that name.
    fn set(&mut self, name: &str, value: Value, slot: Option<usize>) -> Result<(), Error> {
        let slot = match slot {
            Some(slot) => slot,
            None => self.find(name)?,
        };
        self.variables[slot].1 = value;
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, Error> {
        let found = self.variables.iter().rposition(|(variable, _)| *variable == name);
        found.ok_or_else(|| self.error(&format!("undefined variable: {name}")))
    }

    fn print(&mut self, value: &Value) -> Result<(), Error> {
        match value {
            Value::Nil => self.write(|out| out.write_str("<no value>")),
            value => self.write(|out| print::write(out, value)),
        }
    }

    fn write(&mut self, write: impl FnOnce(&mut Text) -> std::fmt::Result) -> Result<(), Error> {
        write(&mut self.out).map_err(|_| self.too_long())
    }

    /// Comparing long texts takes time that a template must not get for one step.
    fn charge_comparison(&mut self, values: &[Value]) -> Result<(), Error> {
        let length = |value: &Value| if let Value::Text(text) = value { text.len() } else { 0 };
        let Some((first, others)) = values.split_first() else { return Ok(()) };
        let compared: usize = others.iter().map(|other| length(other).min(length(first))).sum();
        self.step(compared / BYTES_PER_STEP)
    }

    fn step(&mut self, steps: usize) -> Result<(), Error> {
        self.steps += steps;
        if self.steps > MAX_STEPS {
            return Err(Error::Limit { line: self.line, unit: "steps to render", bound: MAX_STEPS });
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Error::Limit { line: self.line, unit: "levels of nesting", bound: MAX_DEPTH });
        }
        Ok(())
    }

    fn too_long(&self) -> Error {
        Error::Limit { line: self.line, unit: "bytes of output", bound: MAX_OUTPUT_BYTES }
    }

    fn error(&self, text: &str) -> Error {
        Error::Execution { line: self.line, text: text.to_owned() }
    }
}

fn describe(operand: &Operand) -> String {
    match operand {
        Operand::Field(path) => format!(".{}", path.join(".")),
        Operand::Variable(path) => path.join("."),
        Operand::Text(text) => format!("{text:?}"),
        Operand::Dot => ".".to_owned(),
        Operand::Int(int) => int.to_string(),
        Operand::Float(float) => float.to_string(),
        Operand::Bool(flag) => flag.to_string(),
        Operand::Nil => "nil".to_owned(),
        Operand::Function(name) => name.clone(),
        Operand::Pipeline(_) | Operand::Chain(..) => "(pipeline)".to_owned(),
    }
}

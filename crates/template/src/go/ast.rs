//! The syntax tree.

use std::collections::BTreeMap;

/// A whole template: its own nodes, and what it defines with `define` and `block`.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub root: List,
    pub definitions: BTreeMap<String, List>,
}

pub(super) type List = Vec<Node>;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub line: usize,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text(String),
    Action(Pipeline),
    If(Branch),
    With(Branch),
    Range(Branch),
    Template { name: String, data: Option<Pipeline> },
    Break,
    Continue,
}

#[derive(Debug, Clone)]
pub(super) struct Branch {
    pub pipeline: Pipeline,
    pub body: List,
    pub otherwise: Option<List>,
}

/// `$a, $b := first arg | second`.
#[derive(Debug, Clone, Default)]
pub(super) struct Pipeline {
    /// With their `$`.
    pub targets: Vec<String>,
    /// `=` instead of `:=`.
    pub assigns: bool,
    pub commands: Vec<Command>,
}

/// A function or an operand, and its arguments; never empty.
#[derive(Debug, Clone)]
pub(super) struct Command {
    pub line: usize,
    pub args: Vec<Operand>,
}

#[derive(Debug, Clone)]
pub(super) enum Operand {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// `.A.B`.
    Field(Vec<String>),
    /// `$x.A`: the name with its `$`, then fields.
    Variable(Vec<String>),
    Function(String),
    /// In parentheses.
    Pipeline(Box<Pipeline>),
    /// `(pipeline).A.B`, or a function's result.
    Chain(Box<Operand>, Vec<String>),
}

// === impl Node ===

impl Node {
    /// `{{ .Response }}`.
    pub fn response() -> Node {
        let command = Command { line: 1, args: vec![Operand::Field(vec!["Response".to_owned()])] };
        Node { line: 1, kind: Kind::Action(Pipeline { commands: vec![command], ..Pipeline::default() }) }
    }
}

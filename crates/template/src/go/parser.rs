//! Builds the syntax tree, and refuses what Go refuses: unknown functions, undefined variables, stray ends.

use std::collections::BTreeMap;

use super::ast::{Branch, Command, Kind as NodeKind, List, Node, Operand, Pipeline, Tree};
use super::lexer::{Kind, Token, lex};
use super::{functions, literal};
use crate::Error;

/// Blocks within blocks and parentheses within parentheses. Real templates stay below 20; the bound keeps
/// parsing, rendering and dropping a tree within any thread's stack.
pub(super) const MAX_DEPTH: usize = 100;

/// Variables in scope at one place. Real templates have fewer than 20; looking one up is a linear search.
const MAX_VARIABLES: usize = 200;

pub(super) fn parse(source: &str) -> Result<Tree, Error> {
    let mut parser = Parser::new(lex(source)?);
    let root = parser.template()?;
    Ok(Tree { root, definitions: parser.definitions })
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    /// Every variable in scope, with its `$`.
    variables: Vec<&'a str>,
    ranges: usize,
    depth: usize,
    definitions: BTreeMap<String, List>,
}

/// What ended a list of nodes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    End,
    /// What follows is still to be read: the closing delimiter, or `if` or `with`.
    Else,
    /// A `define`, which only the top level takes.
    Define,
    Eof,
}

/// An action is a node, or the end of the list that it stands in.
enum Action {
    Node(NodeKind),
    Stop(Stop),
}

// === impl Parser ===

impl<'a> Parser<'a> {
    fn new(tokens: Vec<Token<'a>>) -> Parser<'a> {
        Parser { tokens, at: 0, variables: vec!["$"], ranges: 0, depth: 0, definitions: BTreeMap::new() }
    }

    fn template(&mut self) -> Result<List, Error> {
        let mut root = List::new();
        loop {
            match self.list(&mut root)? {
                Stop::Eof => return Ok(root),
                Stop::Define => {
                    let name = self.template_name("define clause")?;
                    self.expect(Kind::Close, "define clause")?;
                    let body = self.own_scope("define clause")?;
                    self.define(name, body)?;
                }
                Stop::End => return Err(self.error("unexpected {{end}}")),
                Stop::Else => return Err(self.error("unexpected {{else}}")),
            }
        }
    }

    /// Nodes up to an end, an else, a definition, or the end of the template.
    fn list(&mut self, nodes: &mut List) -> Result<Stop, Error> {
        loop {
            let token = self.next();
            let line = token.line;
            match token.kind {
                Kind::End => return Ok(Stop::Eof),
                Kind::Text => nodes.push(Node { line, kind: NodeKind::Text(token.text.to_owned()) }),
                Kind::Open => match self.action()? {
                    Action::Node(kind) => nodes.push(Node { line, kind }),
                    Action::Stop(stop) => return Ok(stop),
                },
                _ => return Err(self.unexpected(token, "input")),
            }
        }
    }

    fn action(&mut self) -> Result<Action, Error> {
        let token = self.next_nonblank();
        let word = if token.kind == Kind::Word { token.text } else { "" };
        Ok(Action::Node(match word {
            "end" => {
                self.expect(Kind::Close, "end")?;
                return Ok(Action::Stop(Stop::End));
            }
            "else" => {
                let next = self.peek_nonblank();
                if !(next.kind == Kind::Word && (next.text == "if" || next.text == "with")) {
                    self.expect(Kind::Close, "else")?;
                }
                return Ok(Action::Stop(Stop::Else));
            }
            "define" => return Ok(Action::Stop(Stop::Define)),
            "if" => NodeKind::If(self.branch("if")?),
            "with" => NodeKind::With(self.branch("with")?),
            "range" => NodeKind::Range(self.branch("range")?),
            "break" => self.leave("break", NodeKind::Break)?,
            "continue" => self.leave("continue", NodeKind::Continue)?,
            "template" => self.call()?,
            "block" => self.block()?,
            _ => {
                self.at -= 1;
                NodeKind::Action(self.pipeline("command", Kind::Close)?)
            }
        }))
    }

    /// After `if`, `with` or `range`, up to and including its `end`.
    fn branch(&mut self, word: &'static str) -> Result<Branch, Error> {
        self.enter()?;
        let scope = self.variables.len();
        let pipeline = self.pipeline(word, Kind::Close)?;
        let loops = usize::from(word == "range");
        self.ranges += loops;
        let mut body = List::new();
        let stop = self.list(&mut body)?;
        self.ranges -= loops;
        let otherwise = match stop {
            Stop::Else => Some(self.otherwise(word)?),
            _ => self.expect_end(stop).map(|()| None)?,
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(Branch { pipeline, body, otherwise })
    }

    /// After `else`: `else if` and `else with` are a branch of their own whose `end` serves both.
    fn otherwise(&mut self, word: &'static str) -> Result<List, Error> {
        let next = self.peek_nonblank();
        let chained = next.kind == Kind::Word && next.text == word && word != "range";
        let mut nodes = List::new();
        if chained {
            self.next_nonblank();
            let branch = self.branch(word)?;
            let kind = if word == "if" { NodeKind::If(branch) } else { NodeKind::With(branch) };
            nodes.push(Node { line: next.line, kind });
        } else if next.kind == Kind::Word {
            return Err(self.unexpected(next, "else"));
        } else {
            let stop = self.list(&mut nodes)?;
            self.expect_end(stop)?;
        }
        Ok(nodes)
    }

    fn leave(&mut self, word: &str, kind: NodeKind) -> Result<NodeKind, Error> {
        self.expect(Kind::Close, word)?;
        if self.ranges == 0 {
            return Err(self.error(&format!("{{{{{word}}}}} outside {{{{range}}}}")));
        }
        Ok(kind)
    }

    fn call(&mut self) -> Result<NodeKind, Error> {
        let name = self.template_name("template clause")?;
        let data = if self.peek_nonblank().kind == Kind::Close {
            self.next_nonblank();
            None
        } else {
            Some(self.pipeline("template clause", Kind::Close)?)
        };
        Ok(NodeKind::Template { name, data })
    }

    /// `block` defines a template and calls it at once.
    fn block(&mut self) -> Result<NodeKind, Error> {
        let name = self.template_name("block clause")?;
        let data = Some(self.pipeline("block clause", Kind::Close)?);
        let body = self.own_scope("block clause")?;
        self.define(name.clone(), body)?;
        Ok(NodeKind::Template { name, data })
    }

    /// The body of a `define` or `block`, which sees none of the variables and ranges around it.
    fn own_scope(&mut self, context: &str) -> Result<List, Error> {
        self.enter()?;
        let variables = std::mem::replace(&mut self.variables, vec!["$"]);
        let ranges = std::mem::take(&mut self.ranges);
        let mut body = List::new();
        let stop = self.list(&mut body)?;
        if stop == Stop::Else {
            return Err(self.error(&format!("unexpected {{{{else}}}} in {context}")));
        }
        self.expect_end(stop)?;
        self.variables = variables;
        self.ranges = ranges;
        self.depth -= 1;
        Ok(body)
    }

    /// An empty definition gives way to another of the same name; two full ones are an error.
    fn define(&mut self, name: String, body: List) -> Result<(), Error> {
        match self.definitions.get(&name) {
            Some(existing) if !is_blank(existing) && !is_blank(&body) => {
                Err(self.error(&format!("multiple definition of template {name:?}")))
            }
            Some(existing) if !is_blank(existing) => Ok(()),
            _ => {
                self.definitions.insert(name, body);
                Ok(())
            }
        }
    }

    fn template_name(&mut self, context: &str) -> Result<String, Error> {
        let token = self.next_nonblank();
        match token.kind {
            Kind::Quoted | Kind::Raw => literal::unquote(token.text).map_err(|text| self.error(&text)),
            _ => Err(self.unexpected(token, context)),
        }
    }

    /// Declarations and commands up to and including `end`.
    fn pipeline(&mut self, context: &str, end: Kind) -> Result<Pipeline, Error> {
        let mut pipeline = Pipeline::default();
        self.targets(&mut pipeline, context)?;
        loop {
            let token = self.next_nonblank();
            match token.kind {
                kind if kind == end => break,
                Kind::Field | Kind::Dot | Kind::Variable | Kind::Word | Kind::Number | Kind::Char => {}
                Kind::Quoted | Kind::Raw | Kind::LeftParen => {}
                _ => return Err(self.unexpected(token, context)),
            }
            self.at -= 1;
            let command = self.command()?;
            if !pipeline.commands.is_empty() && !command.args[0].is_executable() {
                let stage = pipeline.commands.len() + 1;
                return Err(self.error(&format!("non executable command in pipeline stage {stage}")));
            }
            pipeline.commands.push(command);
        }
        if pipeline.commands.is_empty() {
            return Err(self.error(&format!("missing value for {context}")));
        }
        Ok(pipeline)
    }

    /// `$x :=`, `$x =`, and for a range also `$i, $x :=`.
    fn targets(&mut self, pipeline: &mut Pipeline, context: &str) -> Result<(), Error> {
        loop {
            let variable = self.peek_nonblank();
            if variable.kind != Kind::Variable {
                return Ok(());
            }
            let start = self.at;
            self.next_nonblank();
            let next = self.peek_nonblank();
            match next.kind {
                Kind::Assign | Kind::Declare | Kind::Comma => {
                    self.next_nonblank();
                    pipeline.targets.push(variable.text.to_owned());
                    self.declare(variable)?;
                }
                // The variable is an argument; the blank after it matters to the command.
                _ => {
                    self.at = start;
                    return Ok(());
                }
            }
            if next.kind != Kind::Comma {
                pipeline.assigns = next.kind == Kind::Assign;
                return Ok(());
            }
            if context != "range" || pipeline.targets.len() > 1 {
                return Err(self.error(&format!("too many declarations in {context}")));
            }
            if self.peek_nonblank().kind != Kind::Variable {
                return Err(self.error("range can only initialize variables"));
            }
        }
    }

    fn command(&mut self) -> Result<Command, Error> {
        let line = self.peek_nonblank().line;
        let mut args = Vec::new();
        loop {
            args.extend(self.operand()?);
            let token = self.next();
            match token.kind {
                Kind::Space => continue,
                Kind::Pipe => break,
                Kind::Close | Kind::RightParen => {
                    self.at -= 1;
                    break;
                }
                _ => return Err(self.unexpected(token, "operand")),
            }
        }
        if args.is_empty() {
            return Err(self.error("empty command"));
        }
        Ok(Command { line, args })
    }

    /// A term and the fields behind it; `None` when what comes is none.
    fn operand(&mut self) -> Result<Option<Operand>, Error> {
        let Some(term) = self.term()? else { return Ok(None) };
        let mut fields = Vec::new();
        while self.tokens[self.at].kind == Kind::Field {
            fields.push(self.next().text[1..].to_owned());
        }
        if fields.is_empty() {
            return Ok(Some(term));
        }
        Ok(Some(match term {
            Operand::Field(path) => Operand::Field([path, fields].concat()),
            Operand::Variable(path) => Operand::Variable([path, fields].concat()),
            Operand::Pipeline(_) | Operand::Function(_) => Operand::Chain(Box::new(term), fields),
            _ => return Err(self.error(&format!("unexpected . after term: .{}", fields.join(".")))),
        }))
    }

    fn term(&mut self) -> Result<Option<Operand>, Error> {
        let token = self.next_nonblank();
        let term = match token.kind {
            Kind::Dot => Operand::Dot,
            Kind::Field => Operand::Field(vec![token.text[1..].to_owned()]),
            Kind::Variable if !self.variables.contains(&token.text) => {
                return Err(self.error(&format!("undefined variable {:?}", token.text)));
            }
            Kind::Variable => Operand::Variable(vec![token.text.to_owned()]),
            Kind::Number => literal::number(token.text).map_err(|text| self.error(&text))?,
            Kind::Char => literal::character(token.text).map_err(|text| self.error(&text))?,
            Kind::Quoted | Kind::Raw => {
                Operand::Text(literal::unquote(token.text).map_err(|text| self.error(&text))?)
            }
            Kind::Word => self.word(token)?,
            Kind::LeftParen => {
                self.enter()?;
                let pipeline = self.pipeline("parenthesized pipeline", Kind::RightParen)?;
                self.depth -= 1;
                Operand::Pipeline(Box::new(pipeline))
            }
            _ => {
                self.at -= 1;
                return Ok(None);
            }
        };
        Ok(Some(term))
    }

    fn word(&self, token: Token<'_>) -> Result<Operand, Error> {
        const KEYWORDS: [&str; 10] =
            ["block", "break", "continue", "define", "else", "end", "if", "range", "template", "with"];
        match token.text {
            "nil" => Ok(Operand::Nil),
            "true" => Ok(Operand::Bool(true)),
            "false" => Ok(Operand::Bool(false)),
            word if KEYWORDS.contains(&word) => Err(self.unexpected(token, "command")),
            word if functions::exists(word) => Ok(Operand::Function(word.to_owned())),
            word => Err(self.error(&format!("function {word:?} not defined"))),
        }
    }

    fn declare(&mut self, variable: Token<'a>) -> Result<(), Error> {
        if self.variables.len() >= MAX_VARIABLES {
            return Err(Error::Limit {
                line: variable.line,
                unit: "variables in scope",
                bound: MAX_VARIABLES,
            });
        }
        self.variables.push(variable.text);
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            let line = self.line();
            return Err(Error::Limit { line, unit: "levels of nesting", bound: MAX_DEPTH });
        }
        Ok(())
    }

    fn next(&mut self) -> Token<'a> {
        let token = self.tokens[self.at];
        // The last token is `End`, which is never consumed.
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn next_nonblank(&mut self) -> Token<'a> {
        self.peek_nonblank();
        self.next()
    }

    /// Consumes blanks, and only them.
    fn peek_nonblank(&mut self) -> Token<'a> {
        while self.tokens[self.at].kind == Kind::Space {
            self.at += 1;
        }
        self.tokens[self.at]
    }

    fn expect(&mut self, kind: Kind, context: &str) -> Result<(), Error> {
        let token = self.next_nonblank();
        if token.kind == kind { Ok(()) } else { Err(self.unexpected(token, context)) }
    }

    fn expect_end(&self, stop: Stop) -> Result<(), Error> {
        match stop {
            Stop::End => Ok(()),
            Stop::Else => Err(self.error("expected end; found {{else}}")),
            Stop::Define => Err(self.error("unexpected {{define}}: only the top level takes definitions")),
            Stop::Eof => Err(self.error("unexpected EOF")),
        }
    }

    fn unexpected(&self, token: Token<'_>, context: &str) -> Error {
        let text = match token.kind {
            Kind::End => format!("unexpected EOF in {context}"),
            _ => format!("unexpected {:?} in {context}", token.text),
        };
        Error::Syntax { line: token.line, text }
    }

    fn error(&self, text: &str) -> Error {
        Error::Syntax { line: self.line(), text: text.to_owned() }
    }

    /// The line of the token that was read last.
    fn line(&self) -> usize {
        self.tokens[self.at.saturating_sub(1)].line
    }
}

impl Operand {
    /// Whether it can stand after a `|`.
    fn is_executable(&self) -> bool {
        use Operand::{Bool, Dot, Float, Int, Nil, Text};
        !matches!(self, Bool(_) | Dot | Nil | Int(_) | Float(_) | Text(_))
    }
}

/// Nothing but white space.
fn is_blank(list: &List) -> bool {
    list.iter().all(|node| matches!(&node.kind, NodeKind::Text(text) if text.trim().is_empty()))
}

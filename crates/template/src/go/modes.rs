//! The three ways in which Ollama executes a template, and the collation of messages before it.
//!
//! *Infill*: prompt and suffix are given; the template sees only these. *Messages*: the template mentions
//! `.Messages`; it sees the whole conversation at once. *Turns*: an older template that knows only `.System`,
//! `.Prompt` and `.Response`; it is executed once for each turn, the last time only up to its `.Response`, where
//! the model goes on.
//!
//! Kinder than Ollama in one thing: the last execution of a turns template may call functions and defined
//! templates, which there fails.

use super::ast::{Branch, Command, Kind, List, Node, Operand, Pipeline};
use super::exec::Machine;
use super::{Go, data};
use crate::{Error, Message, Values};

const SEPARATOR: &str = "\n\n";

pub(super) fn render(go: &Go, values: &Values) -> Result<String, Error> {
    let tree = &go.tree;
    let mut machine = Machine::new(&tree.definitions, values.today);
    if !values.prompt.is_empty() && !values.suffix.is_empty() {
        let texts = [("Prompt", &*values.prompt), ("Suffix", &*values.suffix), ("Response", "")];
        machine.run(&tree.root, data::texts(values, &texts))?;
        return Ok(machine.finish());
    }
    let (system, messages) = collate(values.conversation());
    if go.mentions("messages") {
        machine.run(&tree.root, data::conversation(values, &messages, &system))?;
        return Ok(machine.finish());
    }
    turns(go, values, messages)
}

fn turns(go: &Go, values: &Values, messages: Vec<Message>) -> Result<String, Error> {
    let root = &go.tree.root;
    let (last, _) = cut_list(root);
    let mut machine = Machine::new(&go.tree.definitions, values.today);
    let mut turn = Turn::default();
    for message in messages {
        let ends_turn = match message.role.as_str() {
            "system" => !turn.prompt.is_empty() || !turn.response.is_empty(),
            "user" => !turn.response.is_empty(),
            _ => false,
        };
        if ends_turn {
            machine.run(root, std::mem::take(&mut turn).data(values))?;
        }
        match message.role.as_str() {
            "system" => turn.system = message.content,
            "user" => turn.prompt = message.content,
            "assistant" => turn.response = message.content,
            _ => {}
        }
    }
    machine.run(&last, turn.data(values))?;
    Ok(machine.finish())
}

/// What an older template is executed with.
#[derive(Default)]
struct Turn {
    system: String,
    prompt: String,
    response: String,
}

// === impl Turn ===

impl Turn {
    fn data(self, values: &Values) -> super::value::Value {
        let texts = [("System", &*self.system), ("Prompt", &*self.prompt), ("Response", &*self.response)];
        data::texts(values, &texts)
    }
}

/// Merges neighbours of one role, tool results apart; also answers all system texts.
fn collate(messages: Vec<Message>) -> (String, Vec<Message>) {
    let system: Vec<&str> =
        messages.iter().filter(|message| message.role == "system").map(|message| &*message.content).collect();
    let system = system.join(SEPARATOR);
    let mut collated: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        match collated.last_mut() {
            Some(last) if last.role == message.role && message.role != "tool" => {
                last.content.push_str(SEPARATOR);
                last.content.push_str(&message.content);
            }
            _ => collated.push(message),
        }
    }
    (system, collated)
}

/// A copy of `list` without what comes after the first printed `.Response`; true when there was one.
fn cut_list(list: &List) -> (List, bool) {
    let mut kept = List::new();
    for node in list {
        let (kind, cut) = cut_node(&node.kind);
        kept.extend(kind.map(|kind| Node { line: node.line, kind }));
        if cut {
            return (kept, true);
        }
    }
    (kept, false)
}

/// Conditions are not looked at: `if .Response` prints nothing.
fn cut_node(kind: &Kind) -> (Option<Kind>, bool) {
    let branch = |wrap: fn(Branch) -> Kind, branch: &Branch| {
        let (branch, cut) = cut_branch(branch);
        (Some(wrap(branch)), cut)
    };
    match kind {
        Kind::If(inner) => branch(Kind::If, inner),
        Kind::With(inner) => branch(Kind::With, inner),
        Kind::Range(inner) => branch(Kind::Range, inner),
        Kind::Action(pipeline) => {
            let (pipeline, cut) = cut_pipeline(pipeline);
            (pipeline.map(Kind::Action), cut)
        }
        other => (Some(other.clone()), false),
    }
}

fn cut_branch(branch: &Branch) -> (Branch, bool) {
    let pipeline = branch.pipeline.clone();
    let (body, cut) = cut_list(&branch.body);
    let otherwise = if cut { None } else { branch.otherwise.as_ref().map(cut_list) };
    let cut = cut || otherwise.as_ref().is_some_and(|(_, cut)| *cut);
    (Branch { pipeline, body, otherwise: otherwise.map(|(list, _)| list) }, cut)
}

/// Arguments behind `.Response` go too; if a whole command goes, the action prints nothing and goes with it.
fn cut_pipeline(pipeline: &Pipeline) -> (Option<Pipeline>, bool) {
    let mut kept = Pipeline { commands: Vec::new(), ..pipeline.clone() };
    let mut cut = false;
    for command in &pipeline.commands {
        let args = command.args.iter().filter_map(|operand| cut_operand(operand, &mut cut));
        let args: Vec<Operand> = args.collect();
        if args.is_empty() {
            return (None, cut);
        }
        kept.commands.push(Command { line: command.line, args });
    }
    (Some(kept), cut)
}

/// Another `.Response` in the same action stays.
fn cut_operand(operand: &Operand, cut: &mut bool) -> Option<Operand> {
    match operand {
        Operand::Field(path) if path.iter().any(|name| name == "Response") => *cut = true,
        _ if *cut => return None,
        Operand::Pipeline(inner) => {
            let (inner, inner_cut) = cut_pipeline(inner);
            *cut = inner_cut;
            return inner.map(|inner| Operand::Pipeline(Box::new(inner)));
        }
        _ => {}
    }
    Some(operand.clone())
}

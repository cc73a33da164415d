//! What can be read off a template without executing it: its variables, and the tags around thinking and tool calls.

use std::collections::BTreeSet;

use super::ast::{Branch, Kind, List, Node, Operand, Pipeline, Tree};

/// What the tool tag is when a template does not show one: the model answers with bare JSON.
const DEFAULT_TOOL_TAG: &str = "{";

// === variables ===

/// Fields and variables that stand as operands, in lower case, definitions included. What stands behind
/// parentheses, as `.Y` in `(index .X 0).Y`, is not seen, as in Ollama: capabilities hang on this set.
pub(super) fn variables(tree: &Tree) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let lists = std::iter::once(&tree.root).chain(tree.definitions.values());
    lists.for_each(|list| list_variables(list, &mut names));
    names
}

fn list_variables(list: &List, names: &mut BTreeSet<String>) {
    for node in list {
        match &node.kind {
            Kind::Action(pipeline) => pipeline_variables(pipeline, names),
            Kind::Template { data, .. } => data.iter().for_each(|data| pipeline_variables(data, names)),
            Kind::If(branch) | Kind::With(branch) | Kind::Range(branch) => {
                pipeline_variables(&branch.pipeline, names);
                lists(branch).for_each(|list| list_variables(list, names));
            }
            Kind::Text(_) | Kind::Break | Kind::Continue => {}
        }
    }
}

fn pipeline_variables(pipeline: &Pipeline, names: &mut BTreeSet<String>) {
    for operand in operands(pipeline) {
        match operand {
            Operand::Field(path) | Operand::Variable(path) => {
                names.extend(path.iter().map(|name| name.to_lowercase()));
            }
            Operand::Pipeline(inner) => pipeline_variables(inner, names),
            _ => {}
        }
    }
}

// === thinking tags ===

/// Looks for `.Thinking` in a range over `.Messages`: the texts at both ends of the list of nodes around it are
/// the tags. The last place wins, so that the condition before the text does not count.
pub(super) fn thinking_tags(tree: &Tree) -> Option<(String, String)> {
    let mut tags = (String::new(), String::new());
    find_thinking(&tree.root, false, &mut tags);
    (!tags.0.is_empty() && !tags.1.is_empty()).then_some(tags)
}

/// `in_messages`: whether the innermost range around is one over the messages.
fn find_thinking(list: &List, in_messages: bool, tags: &mut (String, String)) {
    let text = |node: Option<&Node>| match node.map(|node| &node.kind) {
        Some(Kind::Text(text)) => Some(text.trim().to_owned()),
        _ => None,
    };
    let look = |pipeline: &Pipeline, in_messages: bool, tags: &mut (String, String)| {
        if in_messages && mentions(pipeline, "Thinking") {
            if let Some(opening) = text(list.first()) {
                tags.0 = opening;
            }
            if let Some(closing) = text(list.last()) {
                tags.1 = closing;
            }
        }
    };
    for node in list {
        match &node.kind {
            Kind::Action(pipeline) | Kind::Template { data: Some(pipeline), .. } => {
                look(pipeline, in_messages, tags)
            }
            Kind::If(branch) | Kind::With(branch) => {
                look(&branch.pipeline, in_messages, tags);
                lists(branch).for_each(|list| find_thinking(list, in_messages, tags));
            }
            Kind::Range(branch) => {
                let in_messages = mentions(&branch.pipeline, "Messages");
                look(&branch.pipeline, in_messages, tags);
                lists(branch).for_each(|list| find_thinking(list, in_messages, tags));
            }
            _ => {}
        }
    }
}

/// Whether a field path that begins with `name` is an operand, also within parentheses.
fn mentions(pipeline: &Pipeline, name: &str) -> bool {
    operands(pipeline).any(|operand| match operand {
        Operand::Field(path) => path[0] == name,
        Operand::Pipeline(inner) => mentions(inner, name),
        _ => false,
    })
}

// === tool tag ===

/// The first text inside the first `if` about `.ToolCalls`, up to the JSON.
pub(super) fn tool_tag(tree: &Tree) -> String {
    let text = find_tool_calls(&tree.root).and_then(first_text);
    let tag = text.map(|text| text.trim().replace("\r\n", "\n")).unwrap_or_default();
    let tag = tag.split('{').next().unwrap_or_default().trim();
    if tag.is_empty() { DEFAULT_TOOL_TAG.to_owned() } else { tag.to_owned() }
}

fn find_tool_calls(list: &List) -> Option<&List> {
    list.iter().find_map(|node| match &node.kind {
        Kind::If(branch) if asks_for_tool_calls(&branch.pipeline) => Some(&branch.body),
        Kind::If(branch) | Kind::With(branch) | Kind::Range(branch) => {
            lists(branch).find_map(find_tool_calls)
        }
        _ => None,
    })
}

fn asks_for_tool_calls(pipeline: &Pipeline) -> bool {
    operands(pipeline)
        .any(|operand| matches!(operand, Operand::Field(path) if path.iter().any(|name| name == "ToolCalls")))
}

/// Depth first; an action, or a branch without text, ends the search.
fn first_text(list: &List) -> Option<&str> {
    for node in list {
        match &node.kind {
            Kind::Text(text) if !text.trim().is_empty() => return Some(text),
            Kind::Action(_) => return None,
            Kind::If(branch) | Kind::With(branch) | Kind::Range(branch) => {
                return lists(branch).find_map(first_text);
            }
            _ => {}
        }
    }
    None
}

fn operands(pipeline: &Pipeline) -> impl Iterator<Item = &Operand> {
    pipeline.commands.iter().flat_map(|command| &command.args)
}

fn lists(branch: &Branch) -> impl Iterator<Item = &List> {
    std::iter::once(&branch.body).chain(&branch.otherwise)
}

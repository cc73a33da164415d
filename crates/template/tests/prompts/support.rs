//! Conversations that the tests render, and the table they are rendered in.

use jiff::civil::date;
use serde_json::json;
use template::{Go, Message, Think, ToolCall, Values};

/// A template, what it is rendered with, and the exact prompt.
pub struct Row {
    pub name: &'static str,
    pub values: fn() -> Values,
    pub template: &'static str,
    pub expected: &'static str,
}

/// Renders every row and tells all that differ, not only the first.
pub fn check_rows(rows: &[Row]) {
    let wrong: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            let found = Go::parse(row.template).and_then(|go| go.render(&(row.values)()));
            let is_right = found.as_deref() == Ok(row.expected);
            (!is_right).then(|| format!("{}\n  expected {:?}\n  found    {found:?}", row.name, row.expected))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

pub fn conversation(messages: &[(&str, &str)]) -> Values {
    let messages = messages.iter().map(|(role, content)| Message::new(*role, *content)).collect();
    Values { messages, add_generation_prompt: true, today: date(2024, 7, 4), ..Values::default() }
}

pub fn hello() -> Values {
    conversation(&[("user", "Hi <b>")])
}

pub fn turns() -> Values {
    conversation(&[("user", "One"), ("assistant", "Two"), ("user", "Three")])
}

pub fn system() -> Values {
    conversation(&[("system", "Be kind."), ("user", "One"), ("assistant", "Two"), ("user", "Three")])
}

pub fn prefill() -> Values {
    conversation(&[("user", "One"), ("assistant", "Two"), ("user", "Three"), ("assistant", "Fo")])
}

pub fn neighbours() -> Values {
    conversation(&[
        ("system", "A"),
        ("system", "B"),
        ("user", "C"),
        ("user", "D"),
        ("tool", "E"),
        ("tool", "F"),
        ("system", "G"),
    ])
}

pub fn late_system() -> Values {
    conversation(&[("user", "One"), ("assistant", "Two"), ("system", "Now rhyme."), ("user", "Three")])
}

pub fn infill() -> Values {
    Values { prompt: "def f(".into(), suffix: "return x".into(), ..conversation(&[]) }
}

pub fn thinking() -> Values {
    let mut values = turns();
    values.messages[1].thinking = "Hm.".into();
    values.think = Some(Think { on: true, level: "high".into() });
    values
}

/// A question, a call, its result; and the tool.
pub fn tools() -> Values {
    let mut values = conversation(&[("user", "Weather & more?"), ("assistant", ""), ("tool", "sunny")]);
    let arguments = json!({"size": 2_000_000, "city": "Köln", "days": 3});
    values.messages[1].tool_calls = vec![ToolCall {
        id: "call_1".into(),
        index: 0,
        name: "get_weather".into(),
        arguments: arguments.as_object().cloned().expect("an object was written above"),
    }];
    values.messages[2].tool_name = "get_weather".into();
    values.messages[2].tool_call_id = "call_1".into();
    values.tools = vec![json!({
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a <city>",
            "parameters": {
                "type": "object",
                "required": ["city"],
                "properties": {
                    "mood": {"anyOf": [{"type": "string"}, {"type": "boolean"}], "enum": ["good", "bad"]},
                    "city": {"type": "string", "description": "Its name"},
                    "days": {"type": ["integer", "null"], "description": "How many"},
                },
            },
        },
    })];
    values
}

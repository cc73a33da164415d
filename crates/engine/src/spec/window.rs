//! Sliding windows: how much the blocks see, and which of them see only that.

use gguf::{Array, Value};

use super::{MAX_BLOCKS, MAX_CONTEXT, arch::WindowRow, keys::Keys};
use crate::Error;

const PATTERN: &str = "attention.sliding_window_pattern";

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    pub tokens: usize,
    /// Of each block, whether the window is all that it sees.
    pub is_local: Vec<bool>,
}

impl Window {
    /// A file may say how windows are spread; else the row does.
    pub fn read(keys: Keys<'_>, row: Option<WindowRow>, blocks: usize) -> Result<Option<Window>, Error> {
        let Some(row) = row else { return Ok(None) };
        let tokens = keys.optional_count("attention.sliding_window", MAX_CONTEXT)?.or(row.default_tokens);
        let Some(tokens) = tokens else { return Ok(None) };
        let is_local = match keys.value(PATTERN) {
            Some(Value::Array(pattern)) => listed(keys, pattern, blocks)?,
            Some(_) => periodic(keys.count(PATTERN, MAX_BLOCKS)?, blocks),
            None => periodic(row.period, blocks),
        };
        Ok(Some(Window { tokens, is_local }))
    }
}

/// The last block of each period sees everything.
fn periodic(period: usize, blocks: usize) -> Vec<bool> {
    (0..blocks).map(|block| block % period + 1 < period).collect()
}

fn listed(keys: Keys<'_>, pattern: &Array, blocks: usize) -> Result<Vec<bool>, Error> {
    match pattern {
        Array::Bool(pattern) if pattern.len() >= blocks => Ok(pattern[..blocks].to_vec()),
        Array::Bool(pattern) => {
            let problem =
                format!("must have an entry for each of the {blocks} blocks, got {}", pattern.len());
            Err(keys.wrong(PATTERN, &problem))
        }
        other => {
            let problem =
                format!("must be a number or an array of bool, got one of {}", other.element_name());
            Err(keys.wrong(PATTERN, &problem))
        }
    }
}

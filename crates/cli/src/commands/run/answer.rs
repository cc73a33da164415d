//! One answer on the terminal, as it arrives: thinking in grey, words wrapped, timings at the end.

use std::io::{IsTerminal, Stdout, Write, stdout};

use anyhow::Result;
use api::ollama::Metrics;

use super::{Wishes, wrap::Wrapper};
use crate::format;

/// Terminals narrower than this are not wrapped for: every other word would break.
const LEAST_WIDTH: usize = 20;

pub struct Answer {
    out: Stdout,
    wrapper: Option<Wrapper>,
    is_terminal: bool,
    is_thinking: bool,
    hide_thinking: bool,
    verbose: bool,
}

impl Answer {
    pub fn new(wishes: &Wishes) -> Answer {
        let width = usize::from(console_width());
        Answer {
            out: stdout(),
            wrapper: (wishes.word_wrap && width >= LEAST_WIDTH).then(|| Wrapper::new(width)),
            is_terminal: stdout().is_terminal(),
            is_thinking: false,
            hide_thinking: wishes.hide_thinking,
            verbose: wishes.verbose,
        }
    }

    pub fn thinking(&mut self, text: &str) -> Result<()> {
        if text.is_empty() || self.hide_thinking {
            return Ok(());
        }
        if !self.is_thinking {
            self.is_thinking = true;
            let grey = if self.is_terminal { "\x1b[90m" } else { "" };
            writeln!(self.out, "{grey}Thinking...")?;
        }
        self.print(text)
    }

    pub fn content(&mut self, text: &str) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.end_thinking()?;
        self.print(text)
    }

    pub fn finish(&mut self, metrics: &Metrics) -> Result<()> {
        self.end_thinking()?;
        let rest = self.wrapper.as_mut().map(Wrapper::finish).unwrap_or_default();
        writeln!(self.out, "{rest}")?;
        if self.verbose {
            eprintln!("\n{}", timings(metrics));
        }
        Ok(())
    }

    /// What is on the screen stays; the cursor goes to a line of its own.
    pub fn interrupt(&mut self) -> Result<()> {
        let reset = if self.is_terminal { "\x1b[0m" } else { "" };
        writeln!(self.out, "{reset}")?;
        Ok(())
    }

    fn end_thinking(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_thinking) {
            let reset = if self.is_terminal { "\x1b[0m" } else { "" };
            let rest = self.wrapper.as_mut().map(Wrapper::finish).unwrap_or_default();
            write!(self.out, "{rest}\n...done thinking.{reset}\n\n")?;
        }
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<()> {
        match &mut self.wrapper {
            Some(wrapper) => self.out.write_all(wrapper.push(text).as_bytes())?,
            None => self.out.write_all(text.as_bytes())?,
        }
        self.out.flush()?;
        Ok(())
    }
}

/// 0 where there is no terminal.
fn console_width() -> u16 {
    indicatif::TermLike::width(&console::Term::stdout())
}

/// The seven lines of `--verbose`.
fn timings(metrics: &Metrics) -> String {
    let rate = |count: u64, nanoseconds: u64| {
        if nanoseconds == 0 { 0.0 } else { count as f64 / (nanoseconds as f64 / 1e9) }
    };
    let lines = [
        ("total duration", format::nanoseconds(metrics.total_duration)),
        ("load duration", format::nanoseconds(metrics.load_duration)),
        ("prompt eval count", format!("{} token(s)", metrics.prompt_eval_count)),
        ("prompt eval duration", format::nanoseconds(metrics.prompt_eval_duration)),
        (
            "prompt eval rate",
            format!("{:.2} tokens/s", rate(metrics.prompt_eval_count, metrics.prompt_eval_duration)),
        ),
        ("eval count", format!("{} token(s)", metrics.eval_count)),
        ("eval duration", format::nanoseconds(metrics.eval_duration)),
        ("eval rate", format!("{:.2} tokens/s", rate(metrics.eval_count, metrics.eval_duration))),
    ];
    lines.map(|(name, value)| format!("{:<22}{value}", format!("{name}:"))).join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_tokens_by_second() {
        let metrics = Metrics { eval_count: 10, eval_duration: 2_000_000_000, ..Metrics::default() };
        let text = timings(&metrics);
        assert!(text.contains("eval rate:            5.00 tokens/s"), "{text}");
        assert!(text.contains("prompt eval rate:     0.00 tokens/s"), "{text}");
    }
}

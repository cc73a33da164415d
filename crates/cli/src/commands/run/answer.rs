//! One answer on the terminal, as it arrives: thinking in grey, words wrapped, timings at the end.

use std::io::{IsTerminal, Stdout, Write, stderr, stdout};

use anyhow::Result;
use api::{duration, ollama::Metrics};

use super::{Wishes, wrap::Wrapper};

/// Terminals narrower than this are not wrapped for: every other word would break.
const LEAST_WIDTH: usize = 20;

pub struct Answer {
    out: Stdout,
    /// `None` = text is printed as it comes.
    wrapper: Option<Wrapper>,
    is_terminal: bool,
    is_thinking: bool,
    hide_thinking: bool,
    verbose: bool,
}

impl Answer {
    pub fn new(wishes: &Wishes) -> Answer {
        let is_terminal = stdout().is_terminal();
        Answer {
            out: stdout(),
            wrapper: (wishes.word_wrap && is_terminal).then(Wrapper::default),
            is_terminal,
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
        self.end_word()?;
        write!(self.out, "\n\n")?;
        self.out.flush()?;
        self.time(metrics);
        Ok(())
    }

    /// The timings alone: of what gave no text, such as a load.
    pub fn time(&self, metrics: &Metrics) {
        if self.verbose {
            let _ = stderr().write_all(timings(metrics).as_bytes());
        }
    }

    /// What is on the screen stays; the cursor goes to a line of its own.
    pub fn interrupt(&mut self) -> Result<()> {
        let reset = if self.is_terminal { "\x1b[0m" } else { "" };
        self.end_word()?;
        write!(self.out, "{reset}\n\n")?;
        self.out.flush()?;
        Ok(())
    }

    fn end_thinking(&mut self) -> Result<()> {
        if std::mem::take(&mut self.is_thinking) {
            let reset = if self.is_terminal { "\x1b[0m" } else { "" };
            self.end_word()?;
            write!(self.out, "\n...done thinking.{reset}\n\n")?;
            self.wrapper = self.wrapper.take().map(|_| Wrapper::default());
        }
        Ok(())
    }

    fn end_word(&mut self) -> Result<()> {
        if let Some(wrapper) = &mut self.wrapper {
            self.out.write_all(wrapper.finish(width()).as_bytes())?;
        }
        Ok(())
    }

    fn print(&mut self, text: &str) -> Result<()> {
        match &mut self.wrapper {
            Some(wrapper) => self.out.write_all(wrapper.push(text, width()).as_bytes())?,
            None => self.out.write_all(text.as_bytes())?,
        }
        self.out.flush()?;
        Ok(())
    }
}

/// Of the terminal as it is now: it may be another than a word ago.
fn width() -> usize {
    match console::Term::stdout().size_checked() {
        Some((_, columns)) if usize::from(columns) >= LEAST_WIDTH => columns.into(),
        _ => usize::MAX,
    }
}

/// The lines of `--verbose`; what was not measured has none.
fn timings(metrics: &Metrics) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: Option<String>| {
        text += &value.map(|value| format!("{:<22}{value}\n", format!("{name}:"))).unwrap_or_default();
    };
    let time = |nanos: u64| (nanos > 0).then(|| duration::format(nanos.try_into().unwrap_or(i64::MAX)));
    let count = |tokens: u64| (tokens > 0).then(|| format!("{tokens} token(s)"));
    let rate = |tokens: u64, nanos: u64| {
        (tokens > 0 && nanos > 0).then(|| format!("{:.2} tokens/s", tokens as f64 / (nanos as f64 / 1e9)))
    };
    row("total duration", time(metrics.total_duration));
    row("load duration", time(metrics.load_duration));
    row("prompt eval count", count(metrics.prompt_eval_count));
    row("prompt eval duration", time(metrics.prompt_eval_duration));
    row("prompt eval rate", rate(metrics.prompt_eval_count, metrics.prompt_eval_duration));
    row("eval count", count(metrics.eval_count));
    row("eval duration", time(metrics.eval_duration));
    row("eval rate", rate(metrics.eval_count, metrics.eval_duration));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_eight_lines_of_which_some_may_be_missing() {
        let metrics = Metrics {
            total_duration: 2_500_000_000,
            load_duration: 45_600_000,
            eval_count: 10,
            eval_duration: 2_000_000_000,
            ..Metrics::default()
        };
        let expected =
            "total duration:       2.5s\nload duration:        45.6ms\neval count:           10 token(s)
eval duration:        2s\neval rate:            5.00 tokens/s\n";
        assert_eq!(timings(&metrics), expected);
        let all = Metrics { prompt_eval_count: 1, prompt_eval_duration: 1_000, ..metrics };
        assert_eq!(timings(&all).lines().count(), 8);
    }
}

//! Long work on the screen: a bar for each blob, a spinner for each step. Plain lines where there is no terminal.

use std::collections::HashMap;
use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::time::Duration;

use anyhow::{Result, ensure};
use api::ollama::Progress;
use futures::{Stream, StreamExt};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use reqwest::Body;
use serde::Serialize;

use crate::{client::Client, format, output::remark};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);
const SPINNER: &str = "{msg} {spinner}";
const STEP_DONE: &str = "{msg}";
const BAR: &str = "{msg}: {percent:>3}% ▕{wide_bar}▏ {so_far}/{total}  {rate}/s  {eta}";
const BAR_DONE: &str = "{msg}: {percent:>3}% ▕{wide_bar}▏ {total}";

/// Posts, shows the lines of the answer, and fails unless they end in `success`.
pub async fn follow(client: &Client, path: &str, body: &impl Serialize, screen: &mut Screen) -> Result<()> {
    show(client.stream(path, body).await?, screen).await
}

/// The same with a body of any kind.
pub async fn follow_upload(client: &Client, path: &str, body: Body, screen: &mut Screen) -> Result<()> {
    show(client.stream_of(path, body).await?, screen).await
}

async fn show(lines: impl Stream<Item = Result<Progress>>, screen: &mut Screen) -> Result<()> {
    let mut lines = std::pin::pin!(lines);
    let mut last = String::new();
    while let Some(line) = lines.next().await {
        let line = line?;
        screen.show(&line);
        last = line.status;
    }
    ensure!(last == "success", "the server ended the answer before it was done, after {last:?}");
    Ok(())
}

/// Everything that one command shows. What is unfinished when it is dropped stays as it is.
pub struct Screen {
    is_terminal: bool,
    lines: MultiProgress,
    /// By digest and text: all that has no digest yet is told under the same one.
    bars: HashMap<(String, String), ProgressBar>,
    /// The step that runs now.
    step: Option<ProgressBar>,
}

// === impl Screen ===

impl Screen {
    pub fn new() -> Screen {
        let is_terminal = stderr().is_terminal();
        let target = if is_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Screen {
            is_terminal,
            lines: MultiProgress::with_draw_target(target),
            bars: HashMap::new(),
            step: None,
        }
    }

    /// A line of a server's answer.
    pub fn show(&mut self, progress: &Progress) {
        match progress.digest.as_str() {
            "" => self.step(&progress.status),
            // Ollama's own client waits for the first byte, too.
            _ if progress.completed == 0 => {}
            digest => self.advance(digest, progress),
        }
    }

    /// A bar for work of this process.
    pub fn bar(&mut self, message: &str, length: u64) -> ProgressBar {
        self.end_step();
        if !self.is_terminal {
            remark(message);
        }
        self.new_bar(message, length)
    }

    pub fn say(&self, text: &str) {
        self.lines.suspend(|| remark(text));
    }

    /// The same step again changes nothing; another one ends it.
    fn step(&mut self, status: &str) {
        if self.step.as_ref().is_some_and(|step| step.message() == status) {
            return;
        }
        self.end_step();
        if !self.is_terminal {
            remark(status);
        }
        let step = ProgressBar::new_spinner().with_style(style(SPINNER)).with_message(status.to_owned());
        let step = self.lines.add(step);
        if status == "success" {
            step.set_style(style(STEP_DONE));
            step.finish();
        } else {
            step.enable_steady_tick(TICK);
        }
        self.step = Some(step);
    }

    fn advance(&mut self, digest: &str, progress: &Progress) {
        let Progress { status, total, completed, .. } = progress;
        let key = (digest.to_owned(), status.clone());
        if !self.bars.contains_key(&key) {
            self.end_step();
            let bar = self.new_bar(status, *total);
            self.bars.insert(key.clone(), bar);
        }
        let Some(bar) = self.bars.get(&key).filter(|bar| !bar.is_finished()) else { return };
        bar.set_position(*completed);
        if completed >= total {
            bar.set_style(style(BAR_DONE));
            bar.finish();
            if !self.is_terminal {
                remark(format_args!("{status}: 100% {}", format::bytes(*total)));
            }
        }
    }

    fn new_bar(&self, message: &str, length: u64) -> ProgressBar {
        let bar = ProgressBar::new(length).with_style(style(BAR)).with_message(message.to_owned());
        self.lines.add(bar)
    }

    fn end_step(&mut self) {
        if let Some(step) = self.step.take() {
            step.set_style(style(STEP_DONE));
            step.finish();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.end_step();
    }
}

fn style(look: &str) -> ProgressStyle {
    ProgressStyle::with_template(look)
        .expect("the look is a constant that a test draws")
        .progress_chars("██ ")
        .with_key("so_far", |bar: &ProgressState, out: &mut dyn Write| tell(out, bar.pos()))
        .with_key("total", |bar: &ProgressState, out: &mut dyn Write| tell(out, bar.len().unwrap_or(0)))
        .with_key("rate", |bar: &ProgressState, out: &mut dyn Write| tell(out, bar.per_sec() as u64))
}

fn tell(out: &mut dyn Write, count: u64) {
    // What is written to is a line in memory.
    let _ = out.write_str(&format::bytes(count));
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use indicatif::TermLike;

    use super::*;

    /// A terminal that remembers every line that was drawn.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            80
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_bar_counts_as_ollama_does() {
        let paper = Paper::default();
        let drawn = || std::mem::take(&mut *paper.0.lock().unwrap());
        let target = ProgressDrawTarget::term_like(Box::new(paper.clone()));
        let bar = ProgressBar::with_draw_target(Some(98_360_000), target).with_style(style(BAR));
        bar.set_message("pulling a");
        bar.set_position(4_710_000);
        bar.force_draw();
        let running = drawn();
        assert!(running.contains(" 4.7 MB/98 MB  ") && running.contains("B/s  "), "{running}");
        bar.set_style(style(BAR_DONE));
        bar.finish();
        let done = drawn();
        assert!(done.contains("pulling a: 100% ▕") && done.trim_end().ends_with("▏ 98 MB"), "{done}");
    }

    fn line(status: &str, digest: &str, completed: u64) -> Progress {
        Progress { status: status.to_owned(), digest: digest.to_owned(), total: 10, completed }
    }

    #[test]
    fn every_look_can_be_drawn() {
        for look in [SPINNER, STEP_DONE, BAR, BAR_DONE] {
            let _ = style(look);
        }
    }

    #[test]
    fn a_blob_has_one_bar_that_ends_when_it_is_whole() {
        let mut screen = Screen::new();
        screen.show(&line("pulling manifest", "", 0));
        screen.show(&line("pulling a", "sha256:a", 0));
        assert!(screen.bars.is_empty(), "nothing came yet");
        screen.show(&line("pulling a", "sha256:a", 3));
        assert!(screen.step.is_none(), "the step before it has ended");
        screen.show(&line("pulling a", "sha256:a", 10));
        screen.show(&line("pulling a", "sha256:a", 10));
        assert_eq!(screen.bars.len(), 1);
        assert!(screen.bars[&("sha256:a".to_owned(), "pulling a".to_owned())].is_finished());
        screen.show(&line("quantizing to Q8_0", "000", 10));
        screen.show(&line("quantizing to Q4_0", "000", 3));
        assert_eq!(screen.bars.values().filter(|bar| bar.is_finished()).count(), 2);
        screen.show(&line("success", "", 0));
        assert!(screen.step.as_ref().unwrap().is_finished());
    }
}

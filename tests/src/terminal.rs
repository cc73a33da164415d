//! A terminal with a person before it: tmux, typed into key by key and read by its screen.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::time::{Instant, interval};

/// How long a screen may take to show what is waited for on two busy cores.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// How often the screen is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// One program on one screen, with a tmux of its own. Dropping it ends both.
pub struct Terminal {
    /// Of the socket, and gone with it.
    folder: TempDir,
}

impl Terminal {
    /// Starts `command` on a screen of so many cells, with an environment of nothing but `environment`.
    pub fn start(
        (columns, rows): (u16, u16),
        command: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Terminal> {
        let terminal = Terminal { folder: TempDir::new()? };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let code = terminal.code().to_string_lossy().into_owned();
        let mut words = vec!["new-session", "-d", "-x", &columns, "-y", &rows];
        // Not every tmux tells how a program ended. The shell outlives what Ctrl-C is meant for.
        words.extend(["sh", "-c", r#"trap : INT; "$@"; echo $? > "$0""#, &code]);
        words.extend(["env", "-i", "TERM=tmux-256color"]);
        let pairs: Vec<String> = environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
        words.extend(pairs.iter().map(String::as_str));
        words.extend(command);
        // What a program left on the screen can be read afterwards.
        words.extend([";", "set-option", "remain-on-exit", "on"]);
        terminal.tmux(&words)?;
        Ok(terminal)
    }

    /// Types text as it is.
    pub fn type_text(&self, text: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", "--", text]).map(drop)
    }

    /// Presses keys by tmux's names: `Enter`, `Up`, `C-c`.
    pub fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Types a line and ends it.
    pub fn enter(&self, line: &str) -> Result<()> {
        self.type_text(line)?;
        self.press(&["Enter"])
    }

    /// Pastes text, between the marks of a paste if the program has asked for them.
    pub fn paste(&self, text: &str) -> Result<()> {
        self.tmux(&["set-buffer", "--", text])?;
        self.tmux(&["paste-buffer", "-p"]).map(drop)
    }

    /// Back when the program can know of it: tmux tells it some time after its own screen has changed.
    pub async fn resize(&self, (columns, rows): (u16, u16)) -> Result<()> {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()])?;
        let tty = String::from_utf8(self.tmux(&["display-message", "-p", "#{pane_tty}"])?.stdout)?;
        let started = Instant::now();
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            let size = Command::new("stty").args(["-F", tty.trim(), "size"]).output()?.stdout;
            if String::from_utf8(size)?.trim() == format!("{rows} {columns}") {
                return Ok(());
            }
            ensure!(started.elapsed() <= MAX_WAIT, "the terminal did not get {columns} columns");
        }
    }

    /// What is on the screen, without spaces at the ends of lines.
    pub fn screen(&self) -> Result<String> {
        let output = self.tmux(&["capture-pane", "-p"])?;
        let screen = String::from_utf8(output.stdout)?;
        let lines: Vec<&str> = screen.lines().map(str::trim_end).collect();
        Ok(lines.join("\n").trim_end().to_owned())
    }

    /// Wipes the screen while the program waits at its prompt, so that only what comes from now on is on it.
    pub async fn wipe(&self, prompt: &str) -> Result<()> {
        self.press(&["C-l"])?;
        self.wait_until(prompt, |screen| screen.starts_with(prompt) && screen.lines().count() == 1).await?;
        Ok(())
    }

    pub async fn wait_for(&self, text: &str) -> Result<String> {
        self.wait_until(text, |screen| screen.contains(text)).await
    }

    /// Looks at the screen until it is `right`; `what` says in an error what was waited for.
    pub async fn wait_until(&self, what: &str, right: impl Fn(&str) -> bool) -> Result<String> {
        let started = Instant::now();
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            let screen = self.screen()?;
            if right(&screen) {
                return Ok(screen);
            }
            if started.elapsed() > MAX_WAIT {
                bail!("the screen did not show {what:?} within {MAX_WAIT:?}:\n{screen}");
            }
        }
    }

    /// Waits for the program's end and answers its exit code.
    pub async fn exit_code(&self) -> Result<i32> {
        let started = Instant::now();
        let mut look = interval(LOOK);
        loop {
            look.tick().await;
            let text = std::fs::read_to_string(self.code()).unwrap_or_default();
            if let Some(code) = text.strip_suffix('\n') {
                return Ok(code.parse()?);
            }
            ensure!(started.elapsed() <= MAX_WAIT, "the program did not end:\n{}", self.screen()?);
        }
    }

    /// Where the exit code will stand.
    fn code(&self) -> PathBuf {
        self.folder.path().join("code")
    }

    fn tmux(&self, words: &[&str]) -> Result<Output> {
        let output = call(self.folder.path(), words)?;
        ensure!(output.status.success(), "tmux {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = call(self.folder.path(), &["kill-server"]);
    }
}

/// `-u` because the screen is UTF-8 whatever the locale says.
fn call(folder: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new("tmux");
    command.arg("-u").arg("-f").arg("/dev/null").arg("-S").arg(folder.join("socket")).args(words);
    // A tmux around the tests is none of ours.
    command.env_remove("TMUX").env("LC_ALL", "C.UTF-8");
    command.output().context("run tmux; on Debian or Ubuntu it comes with: sudo apt-get install tmux")
}

//! What was typed before: a file with one line per entry, which Ollama reads and writes as well.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// As many as Ollama keeps.
pub const MAX_ENTRIES: usize = 100;

#[derive(Debug)]
pub struct History {
    path: PathBuf,
    entries: VecDeque<String>,
}

impl History {
    /// Reads the file; without one there is no history yet.
    pub fn read(path: PathBuf) -> Result<History> {
        let mut history = History { path, entries: VecDeque::new() };
        let file = match File::open(&history.path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(history),
            Err(error) => return Err(error).context(format!("read the history {}", history.path.display())),
        };
        for line in BufReader::new(file).split(b'\n') {
            history.push(&String::from_utf8_lossy(&line?));
        }
        Ok(history)
    }

    /// `~/.ollama/history`.
    pub fn default_path() -> Option<PathBuf> {
        Some(std::env::home_dir()?.join(".ollama/history"))
    }

    pub fn entries(&self) -> impl Iterator<Item = &String> {
        self.entries.iter()
    }

    /// Adds each line of `text` and writes the file, whole or not at all.
    pub fn add(&mut self, text: &str) -> Result<()> {
        text.lines().for_each(|line| self.push(line));
        self.write().with_context(|| format!("write the history {}", self.path.display()))
    }

    fn push(&mut self, line: &str) {
        let line = line.trim_end();
        if line.is_empty() || self.entries.back().is_some_and(|last| last == line) {
            return;
        }
        if self.entries.len() == MAX_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(line.to_owned());
    }

    fn write(&self) -> Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        // Such a file is readable for its owner only.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        for entry in &self.entries {
            writeln!(file, "{entry}")?;
        }
        file.persist(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_lines_survive_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/history");
        let mut history = History::read(path.clone()).unwrap();
        for number in 0..=MAX_ENTRIES {
            history.add(&format!("line {number}")).unwrap();
        }
        let read = History::read(path.clone()).unwrap();
        assert_eq!(read.entries().count(), MAX_ENTRIES);
        assert_eq!(read.entries().next().unwrap(), "line 1");
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_text_of_several_lines_is_as_many_entries() {
        let folder = tempfile::tempdir().unwrap();
        let mut history = History::read(folder.path().join("history")).unwrap();
        history.add("one\ntwo\n\ntwo").unwrap();
        assert_eq!(history.entries().collect::<Vec<_>>(), ["one", "two"]);
    }

    #[test]
    fn a_file_that_somebody_else_wrote_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        std::fs::write(&path, b"one\r\n\xff\n\nthree").unwrap();
        let history = History::read(path).unwrap();
        assert_eq!(history.entries().collect::<Vec<_>>(), ["one", "\u{fffd}", "three"]);
    }
}

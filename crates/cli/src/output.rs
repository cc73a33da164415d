//! What a command says: its answer on standard output, all else on standard error.
//!
//! Who reads that may leave before its end, as `head` does. `print!` panics then; here it is an error like any other, by
//! which the command ends, and of which nobody is told.

use std::{
    fmt::Display,
    io::{self, ErrorKind, Write, stderr, stdout},
};

/// How a shell tells that a program was ended by SIGPIPE, which is what ends Ollama's. The signal itself stays ignored:
/// it would end us for a server that hangs up, too.
pub const READER_GONE: u8 = 128 + 13;

/// To standard output, as it is.
pub fn print(text: impl Display) -> io::Result<()> {
    write!(stdout(), "{text}")
}

/// A line to standard output.
pub fn say(text: impl Display) -> io::Result<()> {
    writeln!(stdout(), "{text}")
}

/// A line to standard error. A command goes on when nobody reads it.
pub fn remark(text: impl Display) {
    let _ = writeln!(stderr(), "{text}");
}

/// An error with its causes, each told once: the texts of most of ours end with their cause, for they are all that a
/// client of the API sees.
pub fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |text, cause| match () {
        () if text.is_empty() => cause,
        () if text.ends_with(&cause) => text,
        () => format!("{text}: {cause}"),
    })
}

/// Whether a command ended because nobody reads its answer. What breaks in the network comes as an error of the client.
pub fn is_reader_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::Context;

    use super::*;

    #[test]
    fn every_cause_is_told_once() {
        let (path, cause) = (PathBuf::from("/x"), || io::Error::other("no such file"));
        let whole = store::Error::Io { action: "create directory", path: path.clone(), source: cause() };
        let whole = anyhow::Error::from(whole).context("open the store");
        assert_eq!(told(&whole), "open the store: create directory `/x`: no such file");
        let part = node::config::Error::Read { path, source: cause() };
        assert_eq!(told(&part.into()), "read `/x`: no such file");
    }

    #[test]
    fn a_reader_that_has_gone_is_told_from_other_failures() {
        let failed = |kind: ErrorKind| anyhow::Error::from(io::Error::from(kind));
        assert!(is_reader_gone(&failed(ErrorKind::BrokenPipe)));
        let told = Err::<(), _>(failed(ErrorKind::BrokenPipe)).context("write the file").unwrap_err();
        assert!(is_reader_gone(&told));
        assert!(!is_reader_gone(&failed(ErrorKind::StorageFull)));
        let elsewhere = crate::client::Refused {
            status: reqwest::StatusCode::BAD_GATEWAY,
            message: "broken pipe".into(),
        };
        assert!(!is_reader_gone(&elsewhere.into()));
    }
}

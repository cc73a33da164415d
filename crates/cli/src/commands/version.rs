//! `--version`: this program's, and the server's.

use anyhow::Result;
use api::ollama::OLLAMA_VERSION;
use serde::Deserialize;

use crate::{args::program, client::Client};

#[derive(Deserialize)]
struct Answer {
    version: String,
}

pub async fn version(client: &Client) -> Result<()> {
    let server = client.get::<Answer>("/api/version").await.ok().map(|answer| answer.version);
    print!("{}", lines(program(), server.as_deref()));
    Ok(())
}

/// Ollama counts servers only; under our own name the program says which release of Caravan it is.
fn lines(program: &str, server: Option<&str>) -> String {
    let mut text = match (program, server) {
        ("ollama", Some(server)) => format!("ollama version is {server}\n"),
        ("ollama", None) => "Warning: could not connect to a running Ollama instance\n".to_owned(),
        (_, Some(server)) => format!("{OURS}\nthe server speaks version {server} of Ollama's API\n"),
        (_, None) => format!("{OURS}\nWarning: could not connect to a running Caravan instance\n"),
    };
    if server != Some(OLLAMA_VERSION) {
        text += &format!("Warning: client version is {OLLAMA_VERSION}\n");
    }
    text
}

const OURS: &str = concat!("caravan version is ", env!("CARGO_PKG_VERSION"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_told_as_ollama_tells_them() {
        assert_eq!(lines("ollama", Some(OLLAMA_VERSION)), format!("ollama version is {OLLAMA_VERSION}\n"));
        assert_eq!(
            lines("ollama", Some("0.5.0")),
            format!("ollama version is 0.5.0\nWarning: client version is {OLLAMA_VERSION}\n")
        );
        assert_eq!(
            lines("ollama", None),
            format!(
                "Warning: could not connect to a running Ollama instance\nWarning: client version is {OLLAMA_VERSION}\n"
            )
        );
        let ours = lines("caravan", Some(OLLAMA_VERSION));
        assert!(
            ours.starts_with(OURS) && ours.contains(OLLAMA_VERSION) && !ours.contains("Warning"),
            "{ours}"
        );
    }
}

//! `--version`: this program's, and the server's.

use anyhow::Result;
use api::ollama::OLLAMA_VERSION;
use serde::Deserialize;

use crate::{
    args::program,
    client::{Client, is_unauthorized},
    output::print,
};

#[derive(Deserialize)]
struct Answer {
    version: String,
}

/// What a server says of itself.
enum Server {
    Speaks(String),
    /// It tells nothing to who has no key.
    Locked,
    Silent,
}

pub async fn version(client: &Client) -> Result<()> {
    let server = match client.get::<Answer>("/api/version").await {
        Ok(answer) => Server::Speaks(answer.version),
        Err(error) if is_unauthorized(&error) => Server::Locked,
        Err(_) => Server::Silent,
    };
    Ok(print(lines(program(), &server))?)
}

/// Ollama counts servers only; under our own name the program says which release of Caravan it is.
fn lines(program: &str, server: &Server) -> String {
    let (is_ollama, name) = (program == "ollama", if program == "ollama" { "Ollama" } else { "Caravan" });
    let about_server = match server {
        Server::Speaks(version) if is_ollama => format!("ollama version is {version}\n"),
        Server::Speaks(version) => format!("the server speaks version {version} of Ollama's API\n"),
        Server::Locked => "Warning: the server asks for a key, which goes into OLLAMA_API_KEY\n".to_owned(),
        Server::Silent => format!("Warning: could not connect to a running {name} instance\n"),
    };
    let mut text = if is_ollama { about_server } else { format!("{OURS}\n{about_server}") };
    if !matches!(server, Server::Speaks(version) if version == OLLAMA_VERSION) {
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
        let speaks = |version: &str| Server::Speaks(version.to_owned());
        assert_eq!(lines("ollama", &speaks(OLLAMA_VERSION)), format!("ollama version is {OLLAMA_VERSION}\n"));
        assert_eq!(
            lines("ollama", &speaks("0.5.0")),
            format!("ollama version is 0.5.0\nWarning: client version is {OLLAMA_VERSION}\n")
        );
        assert_eq!(
            lines("ollama", &Server::Silent),
            format!(
                "Warning: could not connect to a running Ollama instance\nWarning: client version is {OLLAMA_VERSION}\n"
            )
        );
        let ours = lines("caravan", &speaks(OLLAMA_VERSION));
        assert!(
            ours.starts_with(OURS) && ours.contains(OLLAMA_VERSION) && !ours.contains("Warning"),
            "{ours}"
        );
        let locked = lines("caravan", &Server::Locked);
        assert!(locked.starts_with(OURS) && locked.contains("OLLAMA_API_KEY"), "{locked}");
    }
}

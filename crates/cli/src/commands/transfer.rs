//! `pull` and `push`: models from a registry to the server's store, and back.

use anyhow::{Result, bail};
use api::ollama::PullRequest;
use store::Name;

use super::progress::{self, Screen};
use crate::{client::Client, output::say};

pub async fn pull(client: &Client, model: &str, insecure: bool) -> Result<()> {
    let request = PullRequest { model: model.to_owned(), insecure, ..PullRequest::default() };
    progress::follow(client, "/api/pull", &request, &mut Screen::new()).await
}

pub async fn push(client: &Client, model: &str, insecure: bool) -> Result<()> {
    let request = PullRequest { model: model.to_owned(), insecure, ..PullRequest::default() };
    match progress::follow(client, "/api/push", &request, &mut Screen::new()).await {
        Err(error) if error.to_string().contains("access denied") => bail!(
            "you are not authorized to push to this namespace, create the model under a namespace you own"
        ),
        outcome => outcome?,
    }
    Ok(say(format_args!("\nYou can find your model at:\n\n\t{}", address(model)?))?)
}

/// Where people look for a model that was pushed.
fn address(model: &str) -> Result<String> {
    let name = Name::parse(model)?;
    if name.host.ends_with(".ollama.ai") || name.host.ends_with(".ollama.com") {
        return Ok(format!("https://ollama.com/{}", name.shortest().trim_end_matches(":latest")));
    }
    Ok(name.full())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pushed_model_is_found_where_people_look() {
        assert_eq!(address("me/m").unwrap(), "https://ollama.com/me/m");
        assert_eq!(address("me/m:v1").unwrap(), "https://ollama.com/me/m:v1");
        assert_eq!(address("localhost:5000/me/m").unwrap(), "localhost:5000/me/m:latest");
    }
}

//! `/save`: a model of the present one, with what was set and said.

use anyhow::Result;
use api::ollama::{CreateRequest, ShowResponse};
use store::Modelfile;
use store::modelfile::{Command, Source};

use super::show;
use crate::client::Client;

/// What a create request starts from: the parent of the present model, as Ollama has it, with everything that the present
/// model has beside it. The model itself where its parent has other weights by now, or is gone.
pub async fn ground(client: &Client, model: &str, shown: &ShowResponse) -> CreateRequest {
    let plain = CreateRequest { from: model.to_owned(), ..CreateRequest::default() };
    let parent = &shown.details.parent_model;
    if parent.is_empty() {
        return plain;
    }
    match show(client, parent).await {
        Ok(found) => from_parent(parent, &found.response.modelfile, &shown.modelfile).unwrap_or(plain),
        Err(_) => plain,
    }
}

/// `None` where something of the present model would be lost.
fn from_parent(parent: &str, parents: &str, own: &str) -> Option<CreateRequest> {
    let (parents, own) = (Modelfile::parse(parents).ok()?, Modelfile::parse(own).ok()?);
    if weights(&parents) != weights(&own) {
        return None;
    }
    let resolve = |_, _: &str| -> Result<Source> { Ok(Source::Model(parent.to_owned())) };
    Some(own.into_create_request("", resolve).ok()?.request)
}

/// The blobs that it is made of.
fn weights(modelfile: &Modelfile) -> Vec<&Command> {
    let is_weights =
        |command: &&Command| matches!(command, Command::From(_) | Command::Adapter(_) | Command::Draft(_));
    modelfile.commands.iter().filter(is_weights).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_the_model_has_goes_with_it() {
        let own = "FROM /blobs/a\nTEMPLATE \"t\n\"\nSYSTEM Be kind.\nPARAMETER stop x\nPARAMETER stop y\nMESSAGE user hi\n\
                   LICENSE free\nRENDERER r\n";
        let request = from_parent("base:latest", "FROM /blobs/a\nSYSTEM Other.\n", own).unwrap();
        let expected = json!({
            "model": "", "from": "base:latest", "template": "t\n", "system": "Be kind.", "parameters": {"stop": ["x", "y"]},
            "messages": [{"role": "user", "content": "hi"}], "license": ["free"], "renderer": "r",
        });
        assert_eq!(serde_json::to_value(request).unwrap(), expected);
    }

    #[test]
    fn a_parent_with_other_weights_is_none() {
        let own = "FROM /blobs/a\nADAPTER /blobs/b\n";
        for parents in ["FROM /blobs/a\n", "FROM /blobs/c\nADAPTER /blobs/b\n", "no Modelfile"] {
            assert!(from_parent("base", parents, own).is_none(), "{parents}");
        }
        // An adapter that is no file cannot be asked for again.
        assert!(from_parent("base", own, own).is_none());
    }
}

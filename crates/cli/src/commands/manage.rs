//! `cp`, `rm` and `stop`.

use anyhow::{Result, bail};
use api::KeepAlive;
use api::ollama::{CopyRequest, DeleteRequest, GenerateRequest, GenerateResponse, ShowRequest, ShowResponse};
use reqwest::Method;

use crate::{
    client::{Client, is_not_found},
    output::{remark, say},
};

pub async fn copy(client: &Client, source: &str, destination: &str) -> Result<()> {
    let request = CopyRequest { source: source.to_owned(), destination: destination.to_owned() };
    client.send(Method::POST, "/api/copy", &request).await?;
    say(format_args!("copied '{source}' to '{destination}'"))?;
    Ok(())
}

pub async fn remove(client: &Client, models: &[String]) -> Result<()> {
    for model in models {
        if let Err(error) = unload(client, model).await
            && !is_not_found(&error)
        {
            remark(format_args!("Warning: unable to stop model '{model}'"));
        }
        let request = DeleteRequest { model: model.clone(), name: String::new() };
        client.send(Method::DELETE, "/api/delete", &request).await?;
        say(format_args!("deleted '{model}'"))?;
    }
    Ok(())
}

pub async fn stop(client: &Client, model: &str) -> Result<()> {
    let known = async {
        let request = ShowRequest { model: model.to_owned(), ..ShowRequest::default() };
        client.post::<ShowResponse>("/api/show", &request).await?;
        unload(client, model).await
    };
    match known.await {
        Err(error) if is_not_found(&error) => bail!("couldn't find model \"{model}\" to stop"),
        other => other,
    }
}

async fn unload(client: &Client, model: &str) -> Result<()> {
    let request = GenerateRequest {
        model: model.to_owned(),
        keep_alive: Some(KeepAlive::ZERO),
        stream: Some(false),
        ..GenerateRequest::default()
    };
    client.post::<GenerateResponse>("/api/generate", &request).await?;
    Ok(())
}

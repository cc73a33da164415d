//! `list` and `ps`: what the store has, what is loaded.

use anyhow::Result;
use api::ollama::{ListResponse, PsResponse, RunningModel};
use jiff::Timestamp;

use crate::{client::Client, format, output::print};

pub async fn list(client: &Client, prefix: Option<&str>) -> Result<()> {
    let prefix = prefix.unwrap_or_default().to_lowercase();
    let response: ListResponse = client.get("/api/tags").await?;
    let now = Timestamp::now();
    let rows: Vec<[String; 4]> = response
        .models
        .into_iter()
        .filter(|model| model.name.to_lowercase().starts_with(&prefix))
        .map(|model| {
            let modified = format::relative(&model.modified_at, now, "Never");
            let size = if model.remote_model.is_empty() { format::bytes(model.size) } else { "-".to_owned() };
            [model.name, short_id(&model.digest), size, modified]
        })
        .collect();
    Ok(print(format::table(["NAME", "ID", "SIZE", "MODIFIED"], rows))?)
}

pub async fn ps(client: &Client, prefix: Option<&str>) -> Result<()> {
    let prefix = prefix.unwrap_or_default();
    let response: PsResponse = client.get("/api/ps").await?;
    let now = Timestamp::now();
    let rows: Vec<[String; 6]> = response
        .models
        .iter()
        .filter(|model| model.name.starts_with(prefix))
        .map(|model| {
            [
                model.name.clone(),
                short_id(&model.digest),
                format::bytes(model.size),
                processor(model),
                model.context_length.to_string(),
                until(&model.expires_at, now),
            ]
        })
        .collect();
    Ok(print(format::table(["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"], rows))?)
}

fn short_id(digest: &str) -> String {
    digest.chars().take(12).collect()
}

fn processor(model: &RunningModel) -> String {
    match (model.size, model.size_vram) {
        (size, vram) if vram > size || size == 0 => "Unknown".to_owned(),
        (_, 0) => "100% CPU".to_owned(),
        (size, vram) if vram == size => "100% GPU".to_owned(),
        (size, vram) => {
            let cpu = (100.0 * (size - vram) as f64 / size as f64).round() as u64;
            format!("{cpu}%/{}% CPU/GPU", 100 - cpu)
        }
    }
}

fn until(expires_at: &str, now: Timestamp) -> String {
    match expires_at.parse::<Timestamp>() {
        Ok(time) if time <= now => "Stopping...".to_owned(),
        // A time too far for the calendar is for ever, too.
        Err(_) => "Forever".to_owned(),
        Ok(_) => format::relative(expires_at, now, "Never"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_column_tells_the_share_of_each() {
        let model = |size, size_vram| RunningModel { size, size_vram, ..RunningModel::default() };
        assert_eq!(processor(&model(0, 0)), "Unknown");
        assert_eq!(processor(&model(10, 0)), "100% CPU");
        assert_eq!(processor(&model(10, 10)), "100% GPU");
        assert_eq!(processor(&model(10, 4)), "60%/40% CPU/GPU");
        assert_eq!(processor(&model(10, 11)), "Unknown");
    }

    #[test]
    fn the_until_column_knows_the_past_and_for_ever() {
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(until("2026-01-01T00:00:00Z", now), "Stopping...");
        assert_eq!(until("2318-01-01T00:00:00Z", now), "Forever");
        assert_eq!(until("2026-01-02T00:05:01Z", now), "5 minutes from now");
    }
}

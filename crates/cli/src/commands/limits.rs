//! `limits`: what a cluster may do at once, shown and fixed in its metadata store.

use std::sync::Arc;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use node::{Setting, Sources, config::uint, ident};
use registry::{Config, Etcd, EtcdConfig, Limits, LimitsRecord, Pins, Registry};

use crate::{
    args::{LimitsCommand, SetLimitsArgs},
    format,
    output::print,
    roles,
};

/// More than any cluster has; a larger number is a slip of the finger.
const MAX: u64 = 1_000_000;

const MAX_LOADED: Setting<u32> =
    Setting::new("max-loaded-models", &[], "a number from 0 to 1000000; 0 = three for each device", bounded);
const PARALLEL: Setting<u32> =
    Setting::new("num-parallel", &[], "a number from 0 to 1000000; 0 = each worker decides", bounded);
const MAX_QUEUE: Setting<u32> = Setting::new("max-queue", &[], "a number from 0 to 1000000", bounded);

fn bounded(text: &str) -> Option<u32> {
    uint(text).filter(|number| *number <= MAX).map(|number| number as u32)
}

/// What is asked of which cluster; nothing is connected yet.
pub struct LimitsErrand {
    etcd: EtcdConfig,
    ask: Ask,
}

enum Ask {
    Show,
    Set(Pins),
    Unset,
}

impl LimitsErrand {
    /// # Errors
    /// What is wrong with the flags, the file or the environment.
    pub fn read(command: &LimitsCommand, sources: Sources) -> Result<LimitsErrand> {
        let (cluster, ask) = match command {
            LimitsCommand::Show(cluster) => (cluster, Ask::Show),
            LimitsCommand::Set(arguments) => (&arguments.cluster, Ask::Set(pins(arguments, &sources)?)),
            LimitsCommand::Unset(cluster) => (cluster, Ask::Unset),
        };
        Ok(LimitsErrand { etcd: roles::etcd(cluster, sources)?, ask })
    }

    pub fn run(self) -> Result<()> {
        let runtime = tokio::runtime::Runtime::new().context("start the async runtime")?;
        runtime.block_on(async {
            let registry = connect(&self.etcd).await?;
            let said = match self.ask {
                Ask::Show => Ok(overview(&registry.view().limits, Timestamp::now())),
                Ask::Set(pins) => registry.pin_limits(pins).await.map(|limits| effect(&limits)),
                Ask::Unset => registry.unpin_limits().await.map(|limits| effect(&limits)),
            };
            registry.close().await;
            Ok(print(said.context("write the limits")?)?)
        })
    }
}

fn pins(arguments: &SetLimitsArgs, sources: &Sources) -> Result<Pins> {
    Ok(Pins {
        max_loaded_models: sources.read(&MAX_LOADED, arguments.max_loaded_models.as_deref())?,
        num_parallel: sources.read(&PARALLEL, arguments.num_parallel.as_deref())?,
        max_queue: sources.read(&MAX_QUEUE, arguments.max_queue.as_deref())?,
    })
}

async fn connect(config: &EtcdConfig) -> Result<Registry> {
    let etcd = Etcd::connect(config).await;
    let etcd = etcd.with_context(|| format!("connect to etcd at {}", config.endpoints.join(",")))?;
    let config = Config { id: ident::id(), ..Config::default() };
    Registry::start(Arc::new(etcd), config).await.context("read the limits")
}

/// What holds, and why.
fn overview(record: &LimitsRecord, now: Timestamp) -> String {
    let was_written = !record.written_by.is_empty();
    let from = |is_pinned: bool| match (is_pinned, was_written) {
        (true, _) => "limits set",
        (false, true) => "environment",
        (false, false) => "default",
    };
    let pinned = [
        record.pins.max_loaded_models.is_some(),
        record.pins.num_parallel.is_some(),
        record.pins.max_queue.is_some(),
    ];
    let rows = rows(&record.effective()).into_iter().zip(pinned);
    let rows = rows.map(|([name, value], is_pinned)| [name, value, from(is_pinned).to_owned()]).collect();
    let mut text = format::table(["LIMIT", "VALUE", "FROM"], rows);
    if was_written {
        let written_at = i64::try_from(record.written_at).unwrap_or(i64::MAX);
        let age = SignedDuration::from_secs(now.as_second().saturating_sub(written_at).max(0));
        text += &format!("\nLast written by {}, {} ago.\n", record.written_by, format::span(age));
    }
    text
}

/// What holds from now on.
fn effect(limits: &Limits) -> String {
    format::table(["LIMIT", "VALUE"], rows(limits).into())
}

fn rows(limits: &Limits) -> [[String; 2]; 3] {
    let automatic = |number: u32| if number == 0 { "automatic".to_owned() } else { number.to_string() };
    [
        ("max-loaded-models", automatic(limits.max_loaded_models)),
        ("num-parallel", automatic(limits.num_parallel)),
        ("max-queue", limits.max_queue.to_string()),
    ]
    .map(|(name, value)| [name.to_owned(), value])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::ClusterArgs;

    #[test]
    fn the_overview_tells_where_each_limit_comes_from() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let record = LimitsRecord {
            environment: Limits { max_loaded_models: 0, num_parallel: 8, max_queue: 512 },
            pins: Pins { max_queue: Some(7), ..Pins::default() },
            written_by: "gateway-0".to_owned(),
            written_at: (now.as_second() - 300) as u64,
            ..LimitsRecord::default()
        };
        let expected = "LIMIT                VALUE        FROM
max-loaded-models    automatic    environment
num-parallel         8            environment
max-queue            7            limits set

Last written by gateway-0, 5 minutes ago.";
        let text = overview(&record, now);
        assert_eq!(text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n"), expected);
        let nobody = overview(&LimitsRecord::default(), now);
        assert!(nobody.contains("512          default") && !nobody.contains("written"), "{nobody}");
    }

    #[test]
    fn what_is_no_limit_is_refused() {
        let set = |value: &str| SetLimitsArgs {
            max_loaded_models: None,
            num_parallel: None,
            max_queue: Some(value.to_owned()),
            cluster: ClusterArgs::default(),
        };
        let sources = Sources::default();
        assert_eq!(pins(&set("0"), &sources).unwrap().max_queue, Some(0));
        assert_eq!(pins(&set("1000000"), &sources).unwrap().max_queue, Some(1_000_000));
        for value in ["1000001", "-1", "many", "", "1.5"] {
            assert_eq!(
                pins(&set(value), &sources).unwrap_err().to_string(),
                format!("`--max-queue` must be a number from 0 to 1000000, got {value:?} (command line)")
            );
        }
    }
}

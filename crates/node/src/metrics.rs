//! Numbers about this process for Prometheus. Each role registers its own; the process brings a few itself.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

/// The content type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every name of ours starts with it.
const PREFIX: &str = "caravan";

/// The numbers of one process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Mutex<Registry>>);

// === impl Metrics ===

impl Metrics {
    /// `role` is the subcommand that runs.
    pub fn new(role: &'static str, version: &'static str) -> Metrics {
        let metrics = Metrics(Arc::new(Mutex::new(Registry::default())));
        metrics.lock().register_collector(Box::new(Process { started: SystemTime::now() }));
        metrics.register("build", "What runs here", Info::new(vec![("role", role), ("version", version)]));
        metrics
    }

    /// Registers `metric` as `caravan_<name>`. A counter gets `_total` and the help text its full stop by themselves.
    pub fn register(&self, name: &'static str, help: &'static str, metric: impl Metric) {
        self.lock().sub_registry_with_prefix(PREFIX).register(name, help, metric);
    }

    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let gauge = Gauge::default();
        self.register(name, help, gauge.clone());
        gauge
    }

    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        self.register(name, help, counter.clone());
        counter
    }

    /// A gauge that is computed when it is looked at, for what is known already: the length of a queue, a view.
    /// `read` runs with the registry locked, so it registers nothing.
    pub fn gauge_of(
        &self,
        name: &'static str,
        help: &'static str,
        read: impl Fn() -> f64 + Send + Sync + 'static,
    ) {
        let collector = Computed { name, help, read: Box::new(read) };
        self.lock().sub_registry_with_prefix(PREFIX).register_collector(Box::new(collector));
    }

    /// Everything in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.lock()).expect("a String takes whatever is written");
        text
    }

    /// A reader that panicked while the registry was locked has not changed it.
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Computed {
    name: &'static str,
    help: &'static str,
    read: Box<dyn Fn() -> f64 + Send + Sync>,
}

impl fmt::Debug for Computed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Computed").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Collector for Computed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = encoder.encode_descriptor(self.name, self.help, None, MetricType::Gauge)?;
        ConstGauge::new((self.read)()).encode(encoder)
    }
}

/// What Prometheus expects of every process, under the names that its dashboards use. What this system does not tell
/// (all but Linux) is left out.
#[derive(Debug)]
struct Process {
    started: SystemTime,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let started = self.started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let gauges = [
            ("process_start_time_seconds", "When the process started, in seconds since 1970", Some(started)),
            ("process_resident_memory_bytes", "Memory held in RAM", resident_bytes(&status)),
            ("process_threads", "Threads of the operating system", status_field(&status, "Threads:")),
            ("process_open_fds", "Open file descriptors", open_files()),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let Some(seconds) = cpu_seconds(&stat) else { return Ok(()) };
        let encoder = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time used",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(seconds).encode(encoder)
    }
}

/// `VmRSS` counts in units of 1024 bytes, which proc(5) calls kB.
fn resident_bytes(status: &str) -> Option<f64> {
    status_field(status, "VmRSS:").map(|kibibytes| kibibytes * 1024.0)
}

fn status_field(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Less the descriptor that the look itself needs.
fn open_files() -> Option<f64> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

/// User and system time are fields 14 and 15 of proc(5)'s stat, counted behind the name, which may hold anything but
/// ends with the last bracket. Linux counts 100 ticks a second for every program, whatever the kernel ticks at.
fn cpu_seconds(stat: &str) -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_role_registers_is_told_under_our_name() {
        let metrics = Metrics::new("gateway", "1.2.3");
        let waiting = metrics.gauge("queue_waiting", "Requests that wait");
        let refused = metrics.counter("requests_refused", "Requests that found the queue full");
        metrics.gauge_of("queue_limit", "How many may wait", || 512.0);
        waiting.set(3);
        refused.inc();
        let text = metrics.text();
        for line in [
            "# HELP caravan_queue_waiting Requests that wait.",
            "# TYPE caravan_queue_waiting gauge",
            "caravan_queue_waiting 3",
            "# TYPE caravan_requests_refused counter",
            "caravan_requests_refused_total 1",
            "caravan_queue_limit 512.0",
            "caravan_build_info{role=\"gateway\",version=\"1.2.3\"} 1",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn proc_files_are_read_by_field() {
        let status = "Name:\tcaravan\nVmRSS:\t    2048 kB\nThreads:\t7\n";
        assert_eq!(resident_bytes(status), Some(2_097_152.0));
        assert_eq!(status_field(status, "Threads:"), Some(7.0));
        assert_eq!(status_field("", "Threads:"), None);
        let stat = "1 (a b) c) S 1 1 1 0 -1 4194304 9 0 0 0 150 50 0 0 20 0 7 0 5 6 7";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_tells_what_it_uses() {
        let text = Metrics::new("serve", "0").text();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
        assert!(value("process_open_fds ") >= 3.0);
        assert!(value("process_threads ") >= 1.0);
        assert!(value("process_cpu_seconds_total ") >= 0.0);
        assert!(value("process_start_time_seconds ") > 1.7e9);
    }
}

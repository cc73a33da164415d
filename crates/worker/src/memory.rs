//! How much memory the machine has, and whether a model fits.

use std::{fmt, sync::Arc};

/// The limit of a container, what it uses, and what of that is cache that it would give up (cgroup v2).
const CGROUP: [&str; 3] = ["memory.max", "memory.current", "memory.stat"];

/// A measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    pub total_bytes: u64,
    /// What may be used without swapping; the page cache counts as free.
    pub available_bytes: u64,
}

/// Where measurements come from: the machine, or a test.
#[derive(Clone)]
pub struct Gauge(Arc<dyn Fn() -> Memory + Send + Sync>);

// === impl Gauge ===

impl Gauge {
    /// `/proc/meminfo`, within the limit of this process's container. On a machine that has neither nothing is known,
    /// and nothing is refused.
    pub fn system() -> Gauge {
        Gauge::new(|| {
            let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
            let machine = parse(&read("/proc/meminfo")).unwrap_or_default();
            let [limit, used, stat] = CGROUP.map(|file| read(&format!("/sys/fs/cgroup/{file}")));
            within(machine, &limit, &used, &stat)
        })
    }

    pub fn new(measure: impl Fn() -> Memory + Send + Sync + 'static) -> Gauge {
        Gauge(Arc::new(measure))
    }

    pub fn measure(&self) -> Memory {
        (self.0)()
    }
}

impl Default for Gauge {
    fn default() -> Gauge {
        Gauge::system()
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gauge").field(&self.measure()).finish()
    }
}

fn parse(text: &str) -> Option<Memory> {
    let kib = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Memory {
        total_bytes: kib("MemTotal")?.saturating_mul(1024),
        available_bytes: kib("MemAvailable")?.saturating_mul(1024),
    })
}

/// A container has no more than its limit, however much the machine has. `max` is no limit.
fn within(machine: Memory, limit: &str, used: &str, stat: &str) -> Memory {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (Some(limit), Some(used)) = (number(limit), number(used)) else { return machine };
    let cache = stat.lines().find_map(|line| number(line.strip_prefix("inactive_file ")?)).unwrap_or(0);
    let left = limit.saturating_sub(used.saturating_sub(cache));
    Memory { total_bytes: machine.total_bytes.min(limit), available_bytes: machine.available_bytes.min(left) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_and_not_free_memory() {
        let text = "MemTotal:       16000 kB\nMemFree:          100 kB\nMemAvailable:    9000 kB\n";
        assert_eq!(parse(text), Some(Memory { total_bytes: 16_000 << 10, available_bytes: 9_000 << 10 }));
    }

    #[test]
    fn a_file_of_another_kind_tells_nothing() {
        assert_eq!(parse("MemTotal: much\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_container_has_what_its_limit_leaves_and_its_cache_counts_as_free() {
        let machine = Memory { total_bytes: 1_000, available_bytes: 800 };
        let stat = "anon 5\ninactive_file 50\n";
        let left = |limit, used| within(machine, limit, used, stat).available_bytes;
        assert_eq!(left("400\n", "150\n"), 300);
        assert_eq!(left("400", "500"), 0);
        assert_eq!(left("5000", "150"), 800);
        assert_eq!(within(machine, "400", "150", stat).total_bytes, 400);
        assert_eq!(within(machine, "max", "150", stat), machine);
        assert_eq!(within(machine, "", "", ""), machine);
    }

    #[test]
    fn this_machine_has_memory() {
        let memory = Gauge::system().measure();
        assert!(memory.available_bytes <= memory.total_bytes, "{memory:?}");
    }
}

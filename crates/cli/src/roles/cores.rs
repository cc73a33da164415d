//! How many cores there are for the threads of the engine.

use std::{collections::HashSet, fs, path::Path};

/// Two threads of one core share its arithmetic units: the kernels gain nothing from the second. Counted are the cores
/// of those processors that this process may run on, and no more of them than its share of time (a container's quota).
pub fn available() -> usize {
    let share = std::thread::available_parallelism().map_or(1, usize::from);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let processors = list.map(processors).unwrap_or_default();
    match cores(Path::new("/sys/devices/system/cpu"), &processors) {
        0 => share,
        cores => cores.min(share),
    }
}

/// What a list of the kernel names: `0-3,8`. A part that is no number names none.
fn processors(list: &str) -> Vec<usize> {
    let bounds = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(bounds).flatten().collect()
}

/// The cores behind `processors`, as `folder` tells them; a processor that it does not tell of is a core of its own.
fn cores(folder: &Path, processors: &[usize]) -> usize {
    let number = |processor: usize, file: &str| -> Option<usize> {
        fs::read_to_string(folder.join(format!("cpu{processor}/topology/{file}"))).ok()?.trim().parse().ok()
    };
    let core = |processor: usize| {
        let place = Some((number(processor, "physical_package_id")?, number(processor, "core_id")?));
        place.map(Ok)
    };
    let all: HashSet<Result<(usize, usize), usize>> =
        processors.iter().map(|&processor| core(processor).unwrap_or(Err(processor))).collect();
    all.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine whose processors have these packages and cores.
    fn machine(places: &[(usize, usize)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (processor, (package, core)) in places.iter().enumerate() {
            let topology = folder.path().join(format!("cpu{processor}/topology"));
            fs::create_dir_all(&topology).unwrap();
            fs::write(topology.join("physical_package_id"), format!("{package}\n")).unwrap();
            fs::write(topology.join("core_id"), format!("{core}\n")).unwrap();
        }
        folder
    }

    #[test]
    fn lists_of_the_kernel_are_read() {
        assert_eq!(processors("\t0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(processors("5"), [5]);
        assert_eq!(processors("x,1-,,7"), [7]);
        assert_eq!(processors(""), [0; 0]);
    }

    #[test]
    fn the_second_thread_of_a_core_is_no_core() {
        let smt = machine(&[(0, 0), (0, 1), (0, 0), (0, 1), (1, 0), (1, 0)]);
        assert_eq!(cores(smt.path(), &[0, 1, 2, 3, 4, 5]), 3, "two packages number their cores alike");
        assert_eq!(cores(smt.path(), &[0, 2]), 1);
        // Two large cores with two threads each, four small ones with one.
        let mixed = machine(&[(0, 0), (0, 0), (0, 4), (0, 4), (0, 8), (0, 9), (0, 10), (0, 11)]);
        assert_eq!(cores(mixed.path(), &processors("0-7")), 6);
    }

    #[test]
    fn where_nothing_is_told_every_processor_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(cores(folder.path(), &[0, 1, 2]), 3);
        assert!(available() >= 1);
    }
}

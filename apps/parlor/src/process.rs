//! What `/proc` says of this process, under the names that every Prometheus client library uses.

use parlor_metrics::{Kind, Page};
use std::fs;

/// Writes the `process_*` families; those only that can be read.
pub fn write(page: &mut Page) {
    if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::read) {
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let name = "process_cpu_seconds_total";
        page.single(name, Kind::Counter, "User and system time.", stat.cpu_ticks as f64 / ticks);
        let name = "process_resident_memory_bytes";
        let bytes = stat.resident_pages * rustix::param::page_size() as u64;
        page.single(name, Kind::Gauge, "Resident memory.", bytes);
        let name = "process_virtual_memory_bytes";
        page.single(name, Kind::Gauge, "Virtual memory.", stat.virtual_bytes);
        if let Some(boot) = boot_unix_seconds() {
            let name = "process_start_time_seconds";
            let start = boot as f64 + stat.start_ticks as f64 / ticks;
            page.single(name, Kind::Gauge, "When the process began, Unix time.", start);
        }
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        page.single("process_open_fds", Kind::Gauge, "Open file descriptors.", open.count());
    }
    let limits = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(most) = limits.current {
        page.single("process_max_fds", Kind::Gauge, "Most open file descriptors.", most);
    }
}

fn boot_unix_seconds() -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Fields of proc_pid_stat(5).
#[derive(PartialEq, Eq, Debug)]
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(stat: &str) -> Option<Stat> {
        // The name of the process may hold anything but ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Stat {
            cpu_ticks: field(14)? + field(15)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_process_are_read_whatever_its_name() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 9 0 1234 99999 33 1";
        let read = Stat::read(stat).unwrap();
        let expected =
            Stat { cpu_ticks: 12, start_ticks: 1234, virtual_bytes: 99_999, resident_pages: 33 };
        assert_eq!(read, expected);
        assert_eq!(Stat::read("42 (a"), None);
        let mut page = Page::new(&[]);
        write(&mut page);
        let page = page.finish();
        for family in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds"] {
            assert!(page.contains(&format!("\nprocess_{family} ")), "{family} in {page}");
        }
    }
}

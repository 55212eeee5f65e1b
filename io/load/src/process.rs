//! What `/proc` says of a process.

use serde::Serialize;
use std::{fs, io, time::Duration};

/// CPU time that a process has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuTime {
    /// In its own code.
    pub user: Duration,
    /// In the kernel on its behalf.
    pub system: Duration,
}

/// Memory of a process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Memory {
    /// Resident set.
    pub rss_bytes: u64,
    /// Proportional share of the resident set.
    pub pss_bytes: u64,
}

impl CpuTime {
    /// Of a process by its id, or of this one.
    ///
    /// # Errors
    /// When there is no such process or we may not look.
    pub fn of(pid: Option<u32>) -> io::Result<Self> {
        let stat = fs::read_to_string(path(pid, "stat"))?;
        parse_stat(&stat, rustix::param::clock_ticks_per_second())
            .ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Since an earlier look.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }
}

impl Memory {
    /// Of a process by its id, or of this one.
    ///
    /// # Errors
    /// When there is no such process or we may not look.
    pub fn of(pid: Option<u32>) -> io::Result<Self> {
        let rollup = fs::read_to_string(path(pid, "smaps_rollup"))?;
        Ok(Self { rss_bytes: field(&rollup, "Rss:"), pss_bytes: field(&rollup, "Pss:") })
    }
}

fn path(pid: Option<u32>, file: &str) -> String {
    match pid {
        Some(pid) => format!("/proc/{pid}/{file}"),
        None => format!("/proc/self/{file}"),
    }
}

/// `utime` and `stime`, fields 14 and 15 of `/proc/<pid>/stat` (proc_pid_stat(5)). The name of
/// the process, field 2, may hold anything but ends with the last parenthesis.
fn parse_stat(stat: &str, ticks_per_second: u64) -> Option<CpuTime> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let mut time = || {
        let ticks: u64 = fields.next()?.parse().ok()?;
        Some(Duration::from_secs_f64(ticks as f64 / ticks_per_second.max(1) as f64))
    };
    Some(CpuTime { user: time()?, system: time()? })
}

/// A field in KiB, as bytes.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_a_strange_name() {
        let stat = "7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 31 0 0 20 0";
        let time = parse_stat(stat, 100).unwrap();
        assert_eq!(time.user, Duration::from_millis(2500));
        assert_eq!(time.system, Duration::from_millis(310));
        assert!(parse_stat("7 (a) S 1", 100).is_none());
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let memory = Memory::of(None).unwrap();
        assert!(memory.rss_bytes > 0 && memory.pss_bytes <= memory.rss_bytes);
        CpuTime::of(None).unwrap();
        assert!(CpuTime::of(Some(u32::MAX)).is_err());
    }
}

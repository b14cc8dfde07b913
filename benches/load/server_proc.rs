//! What Linux says about the server under load: CPU time, memory, context switches.
//!
//! CPU time comes from the process's own CPU clock: user and system time of all its threads, also of
//! those that have ended, in nanoseconds. `/proc/<pid>/stat` holds the same sum in ticks of 10 ms,
//! `/proc/<pid>/task/*/schedstat` in nanoseconds but only for threads that still live.

use std::fs;
use std::time::{Duration, Instant};

/// The server's process, or nothing if no pid was given: then no such figure is reported.
#[derive(Clone, Copy)]
pub struct Proc {
    pid: Option<u32>,
}

/// Memory in bytes.
pub struct Memory {
    /// Resident now (VmRSS).
    pub rss: u64,
    /// Most that was resident since the start (VmHWM).
    pub peak: u64,
}

impl Proc {
    /// Watches `pid`.
    pub fn new(pid: Option<u32>) -> Proc {
        Proc { pid }
    }

    /// CPU nanoseconds used so far by all threads.
    pub fn cpu_ns(&self) -> Result<u64, String> {
        let Some(pid) = self.pid else { return Ok(0) };
        let mut clock: libc::clockid_t = 0;
        // SAFETY: `clock` outlives the call, which writes a clock id to it on success.
        let found = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
        if found != 0 {
            return Err(format!("process {pid}, the server, is gone"));
        }
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `time` outlives the call, which writes to it on success.
        if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
            return Err(format!("process {pid}, the server, is gone"));
        }
        Ok(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    /// Memory now and at its peak.
    pub fn memory(&self) -> Memory {
        let status = self
            .pid
            .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let status = status.unwrap_or_default();
        let kib = |key| field(&status, key) * 1024;
        Memory {
            rss: kib("VmRSS:"),
            peak: kib("VmHWM:"),
        }
    }

    /// Context switches so far, of all living threads.
    pub fn switches(&self) -> u64 {
        let Some(pid) = self.pid else { return 0 };
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
            return 0;
        };
        let of = |path| fs::read_to_string(path).map_or(0, |status| switches(&status));
        tasks
            .flatten()
            .map(|task| of(task.path().join("status")))
            .sum()
    }

    /// Waits until the server has stopped working, for `max` at most: 50 ms with under 1 % of CPU.
    pub fn settle(&self, max: Duration) -> Result<(), String> {
        let end = Instant::now() + max;
        let mut before = self.cpu_ns()?;
        while self.pid.is_some() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(50));
            let now = self.cpu_ns()?;
            if now - before < 500_000 {
                break;
            }
            before = now;
        }
        Ok(())
    }
}

fn switches(status: &str) -> u64 {
    field(status, "voluntary_ctxt_switches:") + field(status, "nonvoluntary_ctxt_switches:")
}

fn field(status: &str, key: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    value
        .and_then(|v| v.split_whitespace().next())
        .and_then(|v| v.parse().ok())
        .unwrap_or(0)
}

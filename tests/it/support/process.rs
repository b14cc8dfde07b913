//! A process as the system sees it, and waiting for something to become true.

use std::fs;
use std::time::{Duration, Instant};

/// Polls `condition` until it holds or `patience` is over; says whether it held.
pub fn eventually(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Resident memory in KiB.
pub fn rss_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    number_after(&status, "VmRSS:")
}

/// Processor time used so far, in ticks of 10 ms.
pub fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    // The name in parentheses may hold blanks; user and system time are fields 14 and 15.
    let after_name = stat.rsplit_once(") ").expect("stat has a name").1;
    let fields: Vec<&str> = after_name.split(' ').collect();
    let ticks = |index: usize| fields[index].parse::<u64>().expect("ticks are a number");
    ticks(11) + ticks(12)
}

/// How often the threads of a process were put on and off a core, summed.
pub fn context_switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .map(|status| {
            number_after(&status, "\nvoluntary_ctxt_switches:")
                + number_after(&status, "\nnonvoluntary_ctxt_switches:")
        })
        .sum()
}

fn number_after(text: &str, name: &str) -> u64 {
    let value = text.split_once(name).expect("the kernel reports it").1;
    let digits = value.trim_start().split_ascii_whitespace().next();
    digits.and_then(|d| d.parse().ok()).expect("a number")
}

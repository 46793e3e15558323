//! What a process takes.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Samples a process's resident memory that is its own.
pub(crate) struct Memory {
    stop: Arc<AtomicBool>,
    peak_kib: Arc<AtomicU64>,
    thread: thread::JoinHandle<()>,
}

impl Memory {
    /// Begins.
    pub(crate) fn watch(process_id: u32) -> Self {
        let (stop, peak_kib) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = thread::spawn({
            let (stop, peak_kib) = (Arc::clone(&stop), Arc::clone(&peak_kib));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if let Some(kib) = anonymous_kib(process_id) {
                        peak_kib.fetch_max(kib, Ordering::Relaxed);
                    }
                    thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { stop, peak_kib, thread }
    }

    /// The peak, in KiB.
    pub(crate) fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("it ends");
        let peak = self.peak_kib.load(Ordering::Relaxed);
        assert!(peak > 0, "nothing was sampled");
        peak
    }
}

fn anonymous_kib(process_id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

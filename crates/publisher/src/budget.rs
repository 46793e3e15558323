//! The one budget of memory for events that are on their way.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// What a record costs beside its key, value and headers: our own bookkeeping and librdkafka's message header.
pub const RECORD_OVERHEAD_BYTES: usize = 192;

/// What a record costs in the budget, in bytes: its key, its value, the [cost of its headers](headers_cost), and the overhead.
///
/// The reader of the source charges it, and the delivery report gives it back, so both must come to the same sum from
/// what is at hand in either place: the lengths.
pub const fn record_cost(key_len_bytes: usize, value_len_bytes: usize, headers_cost_bytes: usize) -> usize {
    key_len_bytes + value_len_bytes + headers_cost_bytes + RECORD_OVERHEAD_BYTES
}

/// What one header costs beside the bytes of its name and value: its entry in the batch, librdkafka's own, and two allocations.
const HEADER_OVERHEAD_BYTES: usize = 96;

/// What the headers of a record cost, given how many bytes the name and the value of each have.
pub fn headers_cost(headers: impl Iterator<Item = (usize, usize)>) -> usize {
    headers.map(|(name_len_bytes, value_len_bytes)| name_len_bytes + value_len_bytes + HEADER_OVERHEAD_BYTES).sum()
}

/// Bounds the bytes of encoded events between the source and the broker's acknowledgement.
///
/// Who produces events [acquires](Self::acquire) their cost before handing them on; each delivery report
/// [releases](Self::release) its record's. Waiting cannot deadlock: a charge is given back by delivery reports alone,
/// which need neither the waiting side nor the end of the Kafka transaction.
///
/// A charge larger than the limit is admitted when nothing else is charged, so that one large row passes; how large a row
/// can be is bounded where frames are read.
#[derive(Debug)]
pub struct MemoryBudget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
    releases: AtomicU64,
    somebody_waits: AtomicBool,
    freed: Notify,
}

impl MemoryBudget {
    /// A budget of so many bytes, of which nothing is used.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
            releases: AtomicU64::new(0),
            somebody_waits: AtomicBool::new(false),
            freed: Notify::new(),
        }
    }

    /// Charges `bytes`, after waiting until they fit. Cancel safe: nothing is charged if the future is dropped.
    pub async fn acquire(&self, bytes: usize) {
        loop {
            if self.try_acquire(bytes) {
                return;
            }
            let freed = self.freed.notified();
            // The flag is set before the second look, and `release` frees before it looks at the flag: one of the two
            // sees the other, so that no wake-up is lost.
            self.somebody_waits.store(true, Ordering::SeqCst);
            if self.try_acquire(bytes) {
                return;
            }
            freed.await;
        }
    }

    /// Charges `bytes` if they fit now.
    pub fn try_acquire(&self, bytes: usize) -> bool {
        self.used_bytes
            .try_update(Ordering::SeqCst, Ordering::SeqCst, |used| {
                let sum = used.checked_add(bytes)?;
                (used == 0 || sum <= self.limit_bytes).then_some(sum)
            })
            .is_ok()
    }

    /// Gives `bytes` back that had been charged.
    pub fn release(&self, bytes: usize) {
        let before = self.used_bytes.fetch_sub(bytes, Ordering::SeqCst);
        debug_assert!(before >= bytes, "more was given back than had been charged");
        self.releases.fetch_add(1, Ordering::Relaxed);
        if self.somebody_waits.swap(false, Ordering::SeqCst) {
            // All of them, since what is freed may be enough for another than the first; whoever finds too little waits again. One that has taken
            // its `notified()` and not polled it yet is woken too.
            self.freed.notify_waiters();
        }
    }

    /// Charges `bytes` even past the limit, for what must not wait.
    pub fn charge(&self, bytes: usize) {
        self.used_bytes.fetch_add(bytes, Ordering::SeqCst);
    }

    /// The same as [`acquire`](Self::acquire), of what gives itself back.
    pub async fn hold(self: &Arc<Self>, bytes: usize) -> Charge {
        self.acquire(bytes).await;
        Charge { budget: Arc::clone(self), bytes }
    }

    /// How often something was given back: while something is charged and this stands still, nobody acknowledges anything.
    pub fn releases(&self) -> u64 {
        self.releases.load(Ordering::Relaxed)
    }

    /// How many bytes are charged now.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }
}

/// Bytes that are charged for as long as this lives.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<MemoryBudget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_large_charge_passes_alone_and_only_alone() {
        let budget = MemoryBudget::new(100);
        assert!(budget.try_acquire(500));
        assert!(!budget.try_acquire(1));
        budget.release(500);
        assert!(budget.try_acquire(60));
        assert!(!budget.try_acquire(500));
        assert!(budget.try_acquire(40));
        assert!(!budget.try_acquire(1));
    }

    #[test]
    fn no_wake_up_is_lost_and_the_limit_holds_under_contention() {
        const ROUNDS: usize = 20_000;
        let budget = Arc::new(MemoryBudget::new(64));
        let (sender, receiver) = std::sync::mpsc::channel::<usize>();
        let highest = Arc::new(AtomicUsize::new(0));
        let releaser = {
            let (budget, highest) = (Arc::clone(&budget), Arc::clone(&highest));
            thread::spawn(move || {
                for bytes in receiver {
                    highest.fetch_max(budget.used_bytes(), Ordering::Relaxed);
                    budget.release(bytes);
                }
            })
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for round in 0..ROUNDS {
                let bytes = 1 + round % 60;
                budget.acquire(bytes).await;
                sender.send(bytes).expect("the releaser lives");
            }
        });
        drop(sender);
        releaser.join().expect("the releaser ends");
        assert_eq!(budget.used_bytes(), 0);
        assert!(highest.load(Ordering::Relaxed) <= 64);
    }

    /// The source and the copies wait for the same budget, each for as much as it needs.
    #[test]
    fn whoever_fits_is_woken_however_many_wait() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
        runtime.block_on(async {
            for round in 0..200_usize {
                let budget = Arc::new(MemoryBudget::new(100));
                assert!(budget.try_acquire(100));
                let waiters: Vec<_> = [90, 5, 40, 1]
                    .into_iter()
                    .map(|cost| {
                        let budget = Arc::clone(&budget);
                        tokio::spawn(async move {
                            budget.acquire(cost).await;
                            budget.release(cost);
                        })
                    })
                    .collect();
                for _ in 0..round % 5 {
                    tokio::task::yield_now().await;
                }
                for part in [1, 2, 3, 4, 90] {
                    budget.release(part);
                }
                for waiter in waiters {
                    let woken = tokio::time::timeout(std::time::Duration::from_secs(20), waiter);
                    woken.await.expect("everybody is woken").expect("nobody panics");
                }
            }
        });
    }
}

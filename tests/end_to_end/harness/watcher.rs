//! Watches the other half of the guarantee: PostgreSQL is told a position only after the Kafka transaction that holds it has committed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use postgres::{Client, NoTls};

use super::{database::confirmed_flush_lsn, kafka::Checkpoints, oracle::Lsn, stream::Stream};

/// A thread that looks at the slot, and then for a committed checkpoint that covers what it saw.
///
/// In this order a lagging reader can only see too little, so it reads on for a while: the broker writes the markers that decide a
/// transaction after it has told the producer. A position that was confirmed without a commit stays without one, since whatever is
/// committed later for the stream has been waited for as well.
pub(crate) struct Watcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Watched>,
}

/// What a watcher saw.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Different positions of the slot that were seen.
    pub(crate) positions: u32,
    /// The longest time that a checkpoint took to be seen after the position that it covers.
    pub(crate) slowest: Duration,
    ahead: Vec<Lsn>,
}

/// Markers take milliseconds, and a broker that was killed recovers all of its partitions first.
const DECIDED_TIMEOUT: Duration = Duration::from_mins(2);

impl Watcher {
    /// Begins to watch.
    pub(crate) fn start(stream: &Stream) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (url, slot) = (stream.database.url.clone(), stream.slot.clone());
        let kafka = (stream.bootstrap_servers.clone(), stream.checkpoint_topic.clone(), stream.name.clone());
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut checkpoints = Checkpoints::open(&kafka.0, &kafka.1, &kafka.2);
                watch(&url, &slot, &mut checkpoints, &stop)
            }
        });
        Self { stop, thread }
    }

    /// Ends watching, and fails the test if the slot was ever ahead of Kafka.
    pub(crate) fn finish(self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        let watched = self.thread.join().expect("the watcher ends");
        assert!(
            watched.ahead.is_empty(),
            "PostgreSQL was told positions that no committed checkpoint covers: {:x?}",
            watched.ahead
        );
        watched
    }
}

fn watch(url: &str, slot: &str, checkpoints: &mut Checkpoints, stop: &AtomicBool) -> Watched {
    let mut watched = Watched::default();
    let mut client: Option<Client> = None;
    let mut newest = None;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
        // The server may be down: that is a test's intention.
        let Some(connected) = client.take().or_else(|| Client::connect(url, NoTls).ok()) else { continue };
        let mut connected = connected;
        let Ok(found) = confirmed_flush_lsn(&mut connected, slot) else { continue };
        client = Some(connected);
        let Some(confirmed) = found.filter(|confirmed| newest != Some(*confirmed)) else { continue };
        newest = Some(confirmed);
        watched.positions += 1;
        match checkpoints.await_position(confirmed, DECIDED_TIMEOUT) {
            Some(took) => watched.slowest = watched.slowest.max(took),
            None => watched.ahead.push(confirmed),
        }
    }
    watched
}

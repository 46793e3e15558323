//! Ids by subject and schema text, in a bounded cache that lets callers of the same registration share one request.
//!
//! Of the text it keeps a hash of 128 bits, by keys that are drawn anew for each cache: the texts of thousands of tables would be most of what is
//! held of them, and that two of one subject have the same hash does not happen.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::client::SchemaId;
use crate::error::RegistryError;

/// More entries than a database has tables and schema versions in use; a forgotten one costs one request.
const ENTRIES_MAX: usize = 32_768;

/// Ids that were registered. An id never changes, so that an entry is valid for ever and is dropped only for room.
#[derive(Default)]
pub(crate) struct IdCache {
    entries: Mutex<Entries>,
    hashers: [RandomState; 2],
}

/// The subject, and the hash of the schema's text.
type EntryKey = (Arc<str>, [u64; 2]);

#[derive(Default)]
struct Entries {
    by_key: HashMap<EntryKey, Entry>,
    clock: u64,
}

struct Entry {
    flight: Arc<Flight>,
    used_at: u64,
}

/// One registration: at most one request for it is on its way at a time.
#[derive(Default)]
struct Flight {
    /// How many requests have ended. A caller that sees it rise while it waits takes the outcome that came with it.
    landed: AtomicU64,
    outcome: tokio::sync::Mutex<Option<Result<SchemaId, RegistryError>>>,
}

impl IdCache {
    /// The id that is known, or the outcome of `request`. Callers that wait while another's request is on its way share its outcome,
    /// a failure included; a later caller starts anew after a failure. When a caller goes away in the middle of its request, the next
    /// one that waits makes its own.
    pub(crate) async fn get_or_register(
        &self,
        subject: &str,
        schema: &str,
        request: impl Future<Output = Result<SchemaId, RegistryError>>,
    ) -> Result<SchemaId, RegistryError> {
        let flight = self.flight(subject, schema);
        let landed_before = flight.landed.load(Ordering::Acquire);
        let mut outcome = flight.outcome.lock().await;
        match &*outcome {
            Some(Ok(id)) => return Ok(*id),
            Some(Err(error)) if flight.landed.load(Ordering::Acquire) != landed_before => return Err(error.clone()),
            _ => {}
        }
        let result = request.await;
        *outcome = Some(result.clone());
        flight.landed.fetch_add(1, Ordering::Release);
        result
    }

    fn flight(&self, subject: &str, schema: &str) -> Arc<Flight> {
        let mut entries = self.lock();
        entries.clock += 1;
        let now = entries.clock;
        let key: EntryKey = (subject.into(), self.hashers.each_ref().map(|hasher| hasher.hash_one(schema)));
        if let Some(entry) = entries.by_key.get_mut(&key) {
            entry.used_at = now;
            return Arc::clone(&entry.flight);
        }
        entries.make_room();
        let flight = Arc::new(Flight::default());
        entries.by_key.insert(key, Entry { flight: Arc::clone(&flight), used_at: now });
        flight
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // The entries are whole after every statement that can panic, so that a poisoned lock is as good as another.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Drops the entries that were not used for longest. A scan for each is cheap at this size, and new schemas are rare.
    fn make_room(&mut self) {
        while self.by_key.len() >= ENTRIES_MAX {
            let oldest = self.by_key.iter().min_by_key(|(_, entry)| entry.used_at).map(|(key, _)| key.clone());
            let Some(key) = oldest else { return };
            self.by_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_cache_stays_within_its_bounds_and_keeps_what_is_used() {
        let cache = IdCache::default();
        let register = |number: usize| {
            let id = u32::try_from(number).map(SchemaId::new);
            async move { Ok(id.expect("the test's numbers are small")) }
        };
        for number in 0..ENTRIES_MAX + 100 {
            cache.get_or_register("hot", "{}", async { Ok(SchemaId::new(7)) }).await.expect("the request succeeds");
            cache.get_or_register("cold", &number.to_string(), register(number)).await.expect("the request succeeds");
        }
        assert_eq!(cache.lock().by_key.len(), ENTRIES_MAX);
        let kept = cache.get_or_register("hot", "{}", async { panic!("the id is known") }).await;
        assert_eq!(kept.expect("the id is known"), SchemaId::new(7));
    }

    #[tokio::test]
    async fn one_subject_and_one_text_have_one_id() {
        let cache = IdCache::default();
        for (number, (subject, schema)) in [("a", "{}"), ("b", "{}"), ("a", "[]")].into_iter().enumerate() {
            let id = SchemaId::new(u32::try_from(number).expect("it is small"));
            for request in [Ok(id), Ok(SchemaId::new(99))] {
                let found = cache.get_or_register(subject, schema, async { request }).await;
                assert_eq!(found.expect("the request succeeds"), id, "{subject} {schema}");
            }
        }
    }
}

//! What the program keeps beside a checkpoint, and what of it is in force.
//!
//! The record of a stream's checkpoint has the stream's name as its key. Beside it there may be records with the key `{name}/{suffix}`, whose
//! values are the program's. They are written in the transaction of a checkpoint, before it, so that they and the position belong
//! together: an attachment says something about the log up to its checkpoint. A name cannot hold a `/`, so that no stream's key looks like another's attachment.
//!
//! An attachment without its checkpoint means nothing. Where an operator has removed the checkpoint with a tombstone, what was attached to it
//! before is **stale**, for good: the log says so for as long as it has the tombstone, and the next checkpoint is committed with tombstones for
//! what is stale ([`Held::removals`]), before compaction can take the first one away from between them.
//!
//! A build that knows no attachments looks for its exact key and passes them over. It leaves them as they are, so that they are in force
//! again for a build that does know them.

use std::collections::BTreeMap;

use crate::checkpoint::{Checkpoint, CheckpointError};

/// Stands between the stream's name and the suffix.
const SEPARATOR: u8 = b'/';

/// One record beside the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// What is behind the stream's name and the `/` in its key.
    pub suffix: String,
    /// Its value; none removes it.
    pub value: Option<Vec<u8>>,
}

impl Attachment {
    /// How large a value may be: well below what topics take by default, with room for the checkpoint of the same batch.
    pub const VALUE_LEN_MAX_BYTES: usize = 512 << 10;

    /// The tombstone that removes it.
    pub fn removal(suffix: impl Into<String>) -> Self {
        Self { suffix: suffix.into(), value: None }
    }

    pub(crate) fn key(&self, name: &str) -> Vec<u8> {
        [name.as_bytes(), &[SEPARATOR], self.suffix.as_bytes()].concat()
    }
}

/// What the checkpoint topic holds of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// The newest checkpoint.
    pub checkpoint: Option<Checkpoint>,
    /// The newest value of each attachment, by its suffix. Empty without a checkpoint.
    pub attachments: BTreeMap<String, Vec<u8>>,
    /// Attachments of a checkpoint that was removed.
    stale: BTreeMap<String, Vec<u8>>,
}

impl Held {
    /// What the next checkpoint is to be committed with, lest it bring stale attachments back to life.
    pub fn removals(&self) -> Vec<Attachment> {
        self.stale.keys().map(Attachment::removal).collect()
    }

    /// What those say that are to be removed, by suffix: it is in force no more.
    pub const fn stale(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.stale
    }

    /// Takes a record of the topic, in the log's order. It may be another stream's.
    ///
    /// # Errors
    /// A record of this stream cannot be used.
    pub(crate) fn take(&mut self, name: &str, key: &[u8], value: Option<&[u8]>) -> Result<(), CheckpointError> {
        match key.strip_prefix(name.as_bytes()) {
            Some([]) => self.take_checkpoint(name, value),
            Some([SEPARATOR, suffix @ ..]) => self.take_attachment(suffix, value),
            _ => Ok(()),
        }
    }

    fn take_checkpoint(&mut self, name: &str, value: Option<&[u8]>) -> Result<(), CheckpointError> {
        let Some(value) = value else {
            // An operator removed it with a tombstone.
            self.checkpoint = None;
            self.retire();
            return Ok(());
        };
        let checkpoint = Checkpoint::from_json(name, value)?;
        if let Some(earlier) = self.checkpoint.as_ref().filter(|earlier| !earlier.may_be_followed_by(&checkpoint)) {
            return Err(CheckpointError::Backwards {
                from: Box::new(earlier.position()),
                to: Box::new(checkpoint.position()),
            });
        }
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn take_attachment(&mut self, suffix: &[u8], value: Option<&[u8]>) -> Result<(), CheckpointError> {
        let suffix = std::str::from_utf8(suffix)
            .map_err(|_| CheckpointError::Malformed("the key of an attachment is not UTF-8".into()))?;
        self.stale.remove(suffix);
        match value {
            Some(value) => self.attachments.insert(suffix.to_owned(), value.to_owned()),
            None => self.attachments.remove(suffix),
        };
        Ok(())
    }

    /// Once the end of the log is reached.
    pub(crate) fn finish(mut self) -> Self {
        if self.checkpoint.is_none() {
            self.retire();
        }
        self
    }

    fn retire(&mut self) {
        self.stale.append(&mut self.attachments);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::checkpoint::FORMAT_VERSION;

    type Record = (&'static str, Option<Vec<u8>>);

    fn checkpoint() -> Record {
        let checkpoint = Checkpoint {
            version: FORMAT_VERSION,
            name: "shop".into(),
            instance: "a".into(),
            system_identifier: 7,
            timeline: 1,
            database: "app".into(),
            slot: "shop".into(),
            publication: "shop".into(),
            end_lsn: 16.into(),
            split: None,
            forced: false,
            slot_pending: false,
            written_at_ms: 0,
        };
        ("shop", Some(checkpoint.to_json()))
    }

    fn read(log: &[Record]) -> Held {
        let mut held = Held::default();
        for (key, value) in log {
            held.take("shop", key.as_bytes(), value.as_deref()).expect("it can be used");
        }
        held.finish()
    }

    fn check(log: &[Record], in_force: &[(&str, &str)], stale: &[&str]) {
        let held = read(log);
        let found: Vec<(&str, &str)> = held
            .attachments
            .iter()
            .map(|(suffix, value)| (suffix.as_str(), std::str::from_utf8(value).expect("text")))
            .collect();
        assert_eq!(found, in_force);
        assert_eq!(held.removals(), stale.iter().copied().map(Attachment::removal).collect::<Vec<_>>());
    }

    fn put(key: &'static str, value: &str) -> Record {
        (key, Some(value.into()))
    }

    #[test]
    fn the_newest_value_is_in_force_until_it_is_removed() {
        check(&[put("shop/a", "1"), checkpoint()], &[("a", "1")], &[]);
        check(
            &[put("shop/a", "1"), checkpoint(), put("shop/a", "2"), put("shop/b", "3"), checkpoint()],
            &[("a", "2"), ("b", "3")],
            &[],
        );
        check(&[put("shop/a", "1"), checkpoint(), ("shop/a", None), checkpoint()], &[], &[]);
        check(&[put("shop/a/b", ""), checkpoint()], &[("a/b", "")], &[]);
    }

    #[test]
    fn other_streams_have_other_keys() {
        check(
            &[put("shops", "?"), put("shops/a", "1"), put("sho", "?"), put("shop-a", "1"), put("", "?"), checkpoint()],
            &[],
            &[],
        );
    }

    #[test]
    fn without_its_checkpoint_an_attachment_is_stale_for_good() {
        check(&[put("shop/a", "1")], &[], &["a"]);
        check(&[put("shop/a", "1"), checkpoint(), ("shop", None)], &[], &["a"]);
        // A build that knows no attachments has begun anew: it wrote no removals.
        check(&[put("shop/a", "1"), checkpoint(), ("shop", None), checkpoint()], &[], &["a"]);
        // One that knows them has.
        check(&[put("shop/a", "1"), checkpoint(), ("shop", None), ("shop/a", None), checkpoint()], &[], &[]);
        check(
            &[put("shop/a", "1"), checkpoint(), ("shop", None), put("shop/a", "2"), checkpoint()],
            &[("a", "2")],
            &[],
        );
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let mut held = Held::default();
        assert!(held.take("shop", b"shop/\xff", Some(b"1")).is_err());
        assert!(held.take("shop", b"shop", Some(b"{}")).is_err());
        assert_eq!(held.take("shop", b"shops/\xff", Some(b"1")), Ok(()));
    }

    fn any_record() -> impl Strategy<Value = Record> {
        prop_oneof![
            3 => Just(checkpoint()),
            1 => Just(("shop", None)),
            2 => (0..9_u8).prop_map(|value| ("shop/a", Some(vec![value]))),
            1 => Just(("shop/a", None)),
            2 => (0..9_u8).prop_map(|value| ("shop/b", Some(vec![value]))),
            1 => Just(("other/a", Some(vec![1]))),
        ]
    }

    proptest! {
        /// Compaction leaves of each key the newest record, and may take away a tombstone that is old. Neither may change what is in
        /// force once the next checkpoint was committed with the removals that were asked for.
        #[test]
        fn compaction_changes_nothing_once_the_removals_are_written(mut log in prop::collection::vec(any_record(), 0..12)) {
            let held = read(&log);
            for Attachment { suffix, value } in held.removals() {
                log.push((if suffix == "a" { "shop/a" } else { "shop/b" }, value));
            }
            log.push(checkpoint());
            let expect = read(&log);
            prop_assert_eq!(&expect.attachments, &held.attachments);
            prop_assert_eq!(expect.removals(), vec![]);
            let compacted: Vec<Record> = log
                .iter()
                .enumerate()
                .filter(|(at, (key, value))| value.is_some() && !log[at + 1..].iter().any(|(later, _)| later == key))
                .map(|(_, record)| record.clone())
                .collect();
            prop_assert_eq!(read(&compacted), expect);
        }
    }
}

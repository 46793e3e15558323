//! What stands of the keys of tables beside the checkpoint, for the process that comes next.
//!
//! `keys/{OID of the table}` has the states of one table. `keys` has the last look at all tables: it is the last look at the newest state of each,
//! but of those that were looked at no more by then, which have one of their own. So a look that finds nothing new costs one small
//! record, however many tables there are.
//!
//! A look that is lost, or is older than it could be, makes more rows doubtful and none certain. So these records need not be written
//! in step with anything, as long as none has a look at a table that was not looked at.

use std::{collections::BTreeMap, sync::Arc};

use pgoutput::{Lsn, Oid};
use publisher::Attachment;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{KEYS_MAX, Key, KeyHistory, Lacking, State};
use crate::{
    failure::{Code, Failure},
    snapshot::{NewestLook, NoSnapshot, Visibility},
};

/// The name of the record of looks, and what those of tables begin with.
const SUFFIX: &str = "keys";
const VERSION: u32 = 1;
/// How long the first look at the oldest state may be, in characters.
const OLDEST_LEN_MAX: usize = 256;

/// Where something was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::pipeline) struct Place {
    pub(in crate::pipeline) system_identifier: u64,
    pub(in crate::pipeline) timeline: u32,
}

/// What was found beside the checkpoint.
pub(in crate::pipeline) struct Kept {
    pub(in crate::pipeline) histories: FxHashMap<Oid, KeyHistory>,
    /// What takes away what is of another server.
    pub(in crate::pipeline) strangers: Vec<Attachment>,
}

#[derive(Serialize, Deserialize)]
struct LookRecord {
    version: u32,
    place: Place,
    /// As `pg_snapshot` is written.
    seen: String,
}

#[derive(Serialize, Deserialize)]
struct TableRecord {
    version: u32,
    place: Place,
    is_partitioned: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gone_at: Option<u64>,
    /// Whether the last look at the newest state is that of all tables.
    is_current: bool,
    states: Vec<StateRecord>,
}

#[derive(Serialize, Deserialize)]
struct StateRecord {
    key: Option<Key>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    found_at: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<String>,
}

/// The record of the last look at all tables.
pub(in crate::pipeline) fn look(place: Place, seen: &Visibility) -> Attachment {
    attachment(SUFFIX.to_owned(), &LookRecord { version: VERSION, place, seen: seen.to_string() })
}

/// The record of a table's keys.
pub(in crate::pipeline) fn table(place: Place, oid: Oid, history: &KeyHistory) -> Attachment {
    let newest = history.states.len().saturating_sub(1);
    let is_shared = |state: &State| history.gone_at.is_none() && state.last.is_some();
    let states = history.states.iter().enumerate().map(|(position, state)| {
        // Without that of the oldest more is in doubt; but thousands of tables may have it, while hundreds of transactions ran.
        let is_short = |first: &String| position > 0 || first.len() <= OLDEST_LEN_MAX;
        StateRecord {
            key: state.key.clone(),
            found_at: state.found_at.map(u64::from),
            first: state.first.as_ref().map(ToString::to_string).filter(is_short),
            last: state.last.as_ref().filter(|_| position != newest || !is_shared(state)).map(ToString::to_string),
        }
    });
    let mut record = TableRecord {
        version: VERSION,
        place,
        is_partitioned: history.is_partitioned,
        gone_at: history.gone_at.map(u64::from),
        is_current: history.states.back().is_some_and(is_shared),
        states: states.collect(),
    };
    loop {
        let attachment = attachment(suffix(oid), &record);
        let length = attachment.value.as_ref().map_or(0, Vec::len);
        if length <= Attachment::VALUE_LEN_MAX_BYTES || record.states.len() < 2 {
            return attachment;
        }
        // A look names every transaction that ran.
        record.states.remove(0);
    }
}

/// Takes the record of a table away.
pub(in crate::pipeline) fn removal(oid: Oid) -> Attachment {
    Attachment::removal(suffix(oid))
}

/// Reads what was kept here, or on an earlier timeline of the same server.
///
/// # Errors
/// A record cannot be used.
pub(in crate::pipeline) fn read(
    attachments: &BTreeMap<String, Vec<u8>>,
    here: Place,
    newest: &NewestLook,
) -> Result<Kept, Failure> {
    let shared = attachments.get(SUFFIX).map(|value| {
        let record: LookRecord = parse(SUFFIX, value)?;
        check(SUFFIX, record.version)?;
        Ok::<_, Failure>((record.place, snapshot(SUFFIX, &record.seen)?))
    });
    let shared = shared.transpose()?;
    let mut kept = Kept { histories: FxHashMap::default(), strangers: Vec::new() };
    for (suffix, value) in attachments {
        let Some(oid) = suffix.strip_prefix(SUFFIX).and_then(|rest| rest.strip_prefix('/')) else { continue };
        let oid: u32 = oid.parse().map_err(|_| unusable(suffix, "it is of no table"))?;
        let record: TableRecord = parse(suffix, value)?;
        check(suffix, record.version)?;
        if record.states.is_empty() || record.place.system_identifier != here.system_identifier {
            kept.strangers.push(Attachment::removal(suffix.clone()));
            continue;
        }
        let shared = shared.as_ref().filter(|(place, _)| *place == record.place).map(|(_, seen)| seen);
        let mut history = restored(suffix, &record, shared, newest)?;
        if record.place != here {
            history.distrust();
        }
        kept.histories.insert(Oid::from(oid), history);
    }
    Ok(kept)
}

fn restored(
    suffix: &str,
    record: &TableRecord,
    shared: Option<&Arc<Visibility>>,
    newest: &NewestLook,
) -> Result<KeyHistory, Failure> {
    if record.states.len() > KEYS_MAX {
        return Err(unusable(suffix, &format!("it has {} keys", record.states.len())));
    }
    let mut history = KeyHistory {
        is_partitioned: record.is_partitioned,
        gone_at: record.gone_at.map(Lsn::from),
        lacking: Lacking::Nothing,
        ..KeyHistory::new(newest.clone(), 0)
    };
    for (position, state) in record.states.iter().enumerate() {
        let read = |text: &Option<String>| text.as_ref().map(|text| snapshot(suffix, text)).transpose();
        let (first, mut last) = (read(&state.first)?, read(&state.last)?);
        if record.is_current && position + 1 == record.states.len() {
            // What was found after the last look of all was still to be looked at again.
            let is_later = |shared: &&Arc<Visibility>| first.as_ref().is_none_or(|first| !shared.is_before(first));
            last = shared.filter(is_later).or(first.as_ref()).map(Arc::clone);
        }
        for seen in first.iter().chain(&last) {
            newest.observe(seen);
        }
        history.states.push_back(State {
            key: state.key.clone(),
            first,
            last,
            found_at: state.found_at.map(Lsn::from),
        });
    }
    Ok(history)
}

fn suffix(oid: Oid) -> String {
    format!("{SUFFIX}/{}", u32::from(oid))
}

fn attachment(suffix: String, record: &impl Serialize) -> Attachment {
    // Neither maps with other than string keys nor fallible `Serialize` implementations occur in it.
    let value = serde_json::to_vec(record).expect("a record is representable as JSON");
    Attachment { suffix, value: Some(value) }
}

fn parse<'a, T: Deserialize<'a>>(suffix: &str, value: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(value).map_err(|error| unusable(suffix, &error.to_string()))
}

fn check(suffix: &str, version: u32) -> Result<(), Failure> {
    if version == VERSION {
        return Ok(());
    }
    Err(unusable(suffix, &format!("its version is {version}, and this build reads {VERSION}")))
}

fn snapshot(suffix: &str, text: &str) -> Result<Arc<Visibility>, Failure> {
    text.parse().map(Arc::new).map_err(|error: NoSnapshot| unusable(suffix, &error.to_string()))
}

fn unusable(suffix: &str, found: &str) -> Failure {
    Failure::new(Code::CheckpointCorrupt, format!("the checkpoint's attachment {suffix} cannot be used: {found}"))
}

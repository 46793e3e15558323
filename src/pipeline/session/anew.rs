//! `snapshot.mode = "when_needed"`: where the slot is gone, cannot be read any more, or has passed the checkpoint, all is begun anew.
//!
//! Changes between the checkpoint and the slot's new position are never streamed. What they have done is in the tables, so that all of these
//! are copied, each behind an event that it was emptied (`t`, in each partition of its topic): a row that was deleted in the gap is gone
//! with that. Why it is right:
//!
//! 1. The checkpoint says that each table's topic is to be emptied and the table copied, in the Kafka transaction that says that the slot is to be
//!    created, or that gives up the old position; and only after that the lost slot is dropped. So whoever dies in between has a successor that
//!    finds the slot missing or new, which it knows for its own, or lost still, and goes on with the same.
//! 2. A topic is emptied between transactions, and the first window of the table's copy is opened behind that. What was streamed before is taken out with
//!    the rest: as with any window, its transactions must have ended in the chunks' snapshots, so that these have what it did. So have they what
//!    was done in the gap: it lies below the fence. From the `t` on, the topic is one that begins with a copy, and the argument of
//!    [`Windows`](crate::snapshot::Windows) holds for it, or that of [`AtOnce`](crate::snapshot::AtOnce).
//! 3. Where a topic cannot be emptied, nothing is begun, and the refusal stays what it was.
//!
//! The same is done with a single table that was out of the publication while rows of it were in its topic, where it can be: what was done to it meanwhile
//! is a gap like any other.
//!
//! A slot that has passed the checkpoint is taken as it is: it decodes from where it stands, and nobody's slot is dropped that may be in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use encoder::{Envelope, Operation};
use publisher::{Checkpoint, TopicAdmin};
use tracing::warn;

use super::{Starting, starting::blocking};
use crate::{
    catalog::Catalog,
    checkpoint::start::{Slot, Start, anew},
    config::Shaping,
    failure::{Code, Failure},
};

impl Starting<'_> {
    /// How the stream begins anew where `refusal` is why it cannot go on.
    pub(super) async fn begin_anew(
        &self,
        refusal: Failure,
        (slot, held): (Option<&Slot>, Option<&Checkpoint>),
        catalog: &mut Catalog,
        admin: &Arc<TopicAdmin>,
        topics: &BTreeMap<String, usize>,
    ) -> Result<Start, Failure> {
        let Some(start) = anew(&self.shared.wanted, slot, held, refusal.code()) else { return Err(refusal) };
        if let Some(obstacle) = self.obstacle(catalog, admin, topics).await? {
            let found = format!(
                "{}; snapshot.mode = \"when_needed\" cannot begin anew, since rows that were deleted meanwhile would stay in the topics: {obstacle}",
                refusal.found()
            );
            return Err(Failure::new(refusal.code(), found));
        }
        warn!(
            code = refusal.code().as_str(),
            "BEGINNING ANEW, as snapshot.mode = \"when_needed\" has it: changes from the checkpoint on are not streamed, every table's topic is \
             emptied by a TRUNCATE event, and the table is copied behind that, but for tables whose copies somebody has stopped: {}",
            refusal.found()
        );
        Ok(start)
    }

    /// Why some topic cannot be emptied; none if all can.
    async fn obstacle(
        &self,
        catalog: &mut Catalog,
        admin: &Arc<TopicAdmin>,
        existing: &BTreeMap<String, usize>,
    ) -> Result<Option<String>, Failure> {
        let shaping = Shaping::new(&self.shared.config);
        let matched = match catalog.matching_tables(&self.shared.config.postgres.tables).await {
            Err(failure) if failure.code() == Code::TablesMissing => Vec::new(),
            matched => matched?,
        };
        let mut topics = BTreeSet::new();
        // Under which name rows come is not for long what it is now; both are asked about.
        let relations =
            matched.iter().flat_map(|table| table.relations(true).into_iter().chain(table.relations(false)));
        for (_, identity) in relations {
            let options = shaping.options(&identity, []);
            let name = identity.names.first().map_or_else(String::new, |(schema, table)| format!("{schema}.{table}"));
            if options.envelope == Envelope::Upsert {
                return Ok(Some(format!("the upserts of {name} have no record for TRUNCATE")));
            }
            for operation in [Operation::Truncate, Operation::Read] {
                if options.skipped.contains(operation) {
                    let skipped = if operation == Operation::Read { "read" } else { "truncate" };
                    return Ok(Some(format!("events.skip has {skipped} for {name}")));
                }
            }
            topics.extend(shaping.topic(&identity).map(|topic| encoder::legal_topic(&topic)));
        }
        topics.retain(|topic| existing.contains_key(topic));
        let admin = Arc::clone(admin);
        let compacted = blocking(move || {
            let names: Vec<&str> = topics.iter().map(String::as_str).collect();
            let configs = admin.configs(&names)?;
            let is_compacted = |config: &BTreeMap<String, String>| {
                config.get("cleanup.policy").is_some_and(|policy| policy.contains("compact"))
            };
            let compacted = names.iter().zip(&configs).find(|(_, config)| is_compacted(config));
            Ok(compacted.map(|(topic, _)| (*topic).to_owned()))
        })
        .await?;
        Ok(compacted.map(|topic| format!("topic {topic} is compacted, and refuses a TRUNCATE, which has no key")))
    }
}

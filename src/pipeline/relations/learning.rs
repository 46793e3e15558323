//! How a relation becomes known: what the stream says of it, and what only the catalog does, for rows of another time than now.

use encoder::TableFacts;
use pgoutput::{Oid, Relation, ReplicaIdentity, Xid};
use tracing::warn;

use super::{Known, Relations, Table};
use crate::{
    failure::{Code, Failure},
    pipeline::{
        keys::{Announced, Doubt, KeyThen, When, Writer},
        membership::identify,
        memory::{self, Keyless},
        topics::publishable,
    },
};

impl Relations {
    /// Looks up what the stream will not say of tables that have REPLICA IDENTITY FULL, or may come to have it.
    pub(in crate::pipeline) async fn remember_whole_rows(&mut self) -> Result<(), Failure> {
        let tables = publishable(&self.matching_tables().await?);
        memory::look_ahead(&mut self.catalog, &tables, &self.memory).await
    }

    /// Takes a Relation message, which came in this transaction.
    pub(in crate::pipeline) async fn learn(&mut self, relation: Relation, writer: Writer) -> Result<(), Failure> {
        let announced = match self.known.get(relation.id) {
            Some(Known::Watched(table)) => Announced {
                state: table.key_then.as_ref().map(|then| then.state),
                is_again: table.relation == relation,
            },
            _ => Announced::default(),
        };
        self.learn_for(relation, None, When::In(writer, announced)).await
    }

    /// Takes a relation as the catalog has it, with what that says of it besides, for the rows that it holds now.
    pub(in crate::pipeline) async fn learn_now(
        &mut self,
        relation: Relation,
        facts: TableFacts,
    ) -> Result<(), Failure> {
        self.learn_for(relation, Some(facts), When::Now).await
    }

    /// Looks up again what is known of a relation whose key must have been replaced before this transaction, although it was not announced again
    /// since: so it was replaced before it was announced, and what was guessed then was wrong.
    pub(in crate::pipeline) async fn learn_again(&mut self, oid: Oid, writer: Writer) -> Result<(), Failure> {
        let Some(Known::Watched(table)) = self.known.get(oid) else {
            return Err(Failure::new(Code::Internal, format!("relation {oid} is not watched")));
        };
        let (relation, key) = (table.relation.clone(), table.facts.primary_key.clone());
        let transaction = writer.xid;
        warn!(
            schema = relation.schema,
            table = relation.name,
            "rows of {}.{} from before transaction {transaction}, and since the table was last announced, were written with {}, and may have been \
             written after that was replaced: UPDATE the rows that were written meanwhile once, which writes them with the key of now, and \
             write a tombstone for each key of before that is left in the topic",
            relation.schema,
            relation.name,
            described(key.as_deref())
        );
        let announced = Announced { state: table.key_then.as_ref().map(|then| then.state), is_again: false };
        self.learn_for(relation, None, When::In(writer, announced)).await
    }

    async fn learn_for(&mut self, relation: Relation, found: Option<TableFacts>, when: When) -> Result<(), Failure> {
        let oid = relation.id;
        let identity = identify(&mut self.catalog, &self.selection, &self.scope, &relation).await?;
        let known = if let Some(identity) = identity {
            let (facts, key_then) = self.facts_about(&relation, found, when).await?;
            let mut table = Table { key_then, ..self.prepare(relation, identity, facts).await? };
            // A relation may be announced again inside a transaction: its count goes on.
            if let Some(Known::Watched(before)) = self.known.get(oid) {
                (table.events, table.events_of) = (before.events, before.events_of);
            }
            self.tell_of_key(&table, when);
            Known::Watched(Box::new(table))
        } else {
            if memory::lock(&self.memory).has_streamed(oid) {
                warn!(
                    schema = relation.schema,
                    table = relation.name,
                    "the table has been streamed and is not asked for under this name: its changes are left out from here on"
                );
            }
            Known::Unwatched
        };
        self.known.insert(oid, known);
        Ok(())
    }

    /// What the catalog says, completed by what it said before where the table has been changed or dropped since; and which key that is. Without
    /// that the rows that are still to come would have other schemas, and those of a table with REPLICA IDENTITY FULL another key, or none.
    async fn facts_about(
        &mut self,
        relation: &Relation,
        found: Option<TableFacts>,
        when: When,
    ) -> Result<(TableFacts, Option<KeyThen>), Failure> {
        let found = match found {
            Some(found) => found,
            None => self.catalog.table_facts(relation.id).await?,
        };
        let is_full = relation.replica_identity == ReplicaIdentity::Full;
        let key = if is_full { self.catalog.primary_keys(&[relation.id]).await?.remove(&relation.id) } else { None };
        Ok(memory::lock(&self.memory).recall(found, key, relation, when))
    }

    /// Says what is not certain of the key of a table that was announced, and when its records have none.
    fn tell_of_key(&self, table: &Table, when: When) {
        // What is there now is no news of the stream.
        let When::In(Writer { xid: transaction, .. }, _) = when else { return };
        let (schema, name) = (&table.relation.schema, &table.relation.name);
        // What the configuration says of the key leaves no doubt.
        let is_configured = self.shaping.options(&table.identity, []).key.is_some();
        if let Some(doubt) = table.key_then.as_ref().and_then(|then| then.doubt.as_ref()).filter(|_| !is_configured) {
            warn!(schema, table = name, transaction = %transaction, "{}", doubtful(&table.name, transaction, doubt));
        }
        let has_key = table.plan.plan().has_key();
        let found = match memory::lock(&self.memory).note_key(table.relation.id, has_key) {
            Keyless::Old => return,
            Keyless::Found => "have no key, since the table has no primary key",
            Keyless::Lost => "HAVE NO KEY any more, since the table's primary key was dropped with none in its place",
        };
        warn!(
            schema,
            table = name,
            transaction = %transaction,
            "records of {} from transaction {transaction} on {found}: nothing says which row one is about, and a compacted topic refuses them. \
             ALTER TABLE ... ADD PRIMARY KEY, or name its columns as key in [[tables]]",
            table.name
        );
    }
}

/// What was guessed, and what to do if that was wrong.
fn doubtful(table: &str, transaction: Xid, doubt: &Doubt) -> String {
    let Doubt { old, new, by, takes_new } = doubt;
    let by = match by {
        Some(by) if *by == transaction => format!("by transaction {by} itself"),
        Some(by) => format!("by transaction {by}"),
        None => "by a transaction that is not known any more".to_owned(),
    };
    let (old, new) = (described(old.as_deref()), described(new.as_deref()));
    let (taken, side) = if *takes_new { (&new, "after") } else { (&old, "before") };
    format!(
        "the key of {table} was changed from {old} to {new} {by}, and nothing says for certain whether the rows of transaction {transaction}, and of \
         those that come after it, were written before that or after: they are taken to be from {side} it, and are written with {taken}, until the \
         log says otherwise. If one of these transactions has changed the key itself, under a savepoint or after it had written rows, or had begun \
         long before it wrote them, compare the keys in the topic, and UPDATE those rows once that have the other key, which writes them with the key of now. key in [[tables]] says it for good"
    )
}

fn described(columns: Option<&[String]>) -> String {
    match columns {
        Some(columns) => format!("key ({})", columns.join(", ")),
        None => "no key".to_owned(),
    }
}

#[cfg(test)]
use {
    crate::{
        catalog::{KeySeen, PrimaryKey},
        pipeline::keys::KeyHistory,
    },
    pgoutput::Timestamp,
    std::sync::Arc,
};

#[cfg(test)]
impl Relations {
    /// Takes a table as if it had been announced in a transaction, with a key that was seen last in a snapshot; and if somebody has made another,
    /// with that, seen first in another snapshot.
    pub(in crate::pipeline) fn guess_key(&mut self, table: Oid, xid: Xid, last: &str, by: Option<Xid>, first: &str) {
        let state = |column: &str, made_by, seen: &str| KeySeen {
            key: Some(PrimaryKey { columns: vec![column.to_owned()], made_by, made_at: None }),
            is_partitioned: false,
            seen: Arc::new(seen.parse().expect("a snapshot")),
        };
        let mut history = KeyHistory::default();
        history.observe(state("id", Xid::from(100), last));
        if let Some(by) = by {
            history.observe(state("code", by, first));
        }
        let writer = Writer { xid, committed_at: Timestamp::from(0) };
        let Some(Known::Watched(known)) = self.known.get_mut(table) else { panic!("it is watched") };
        known.key_then = history.at(When::In(writer, Announced::default()), |_| true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guessed_is_said_with_the_fix() {
        let key = |column: &str| Some(vec![column.to_owned()]);
        let doubt = Doubt { old: key("id"), new: key("code"), by: Some(Xid::from(700)), takes_new: false };
        let said = doubtful("public.item", Xid::from(699), &doubt);
        for part in [
            "the key of public.item was changed from key (id) to key (code) by transaction 700",
            "the rows of transaction 699, and of those that come after it, were written",
            "from before it, and are written with key (id)",
            "UPDATE those rows once",
        ] {
            assert!(said.contains(part), "{part} is not in {said}");
        }
        let doubt = Doubt { old: key("id"), new: None, by: None, takes_new: true };
        let said = doubtful("public.item", Xid::from(699), &doubt);
        assert!(said.contains("from key (id) to no key by a transaction that is not known any more"), "{said}");
        assert!(said.contains("from after it, and are written with no key"), "{said}");
    }
}

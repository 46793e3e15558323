//! How a relation becomes known: what the stream says of it, and what only the catalog does, for rows of another time than now.

use encoder::TableFacts;
use pgoutput::{Oid, Relation, ReplicaIdentity, Xid};
use publisher::Attachment;
use tracing::warn;

use super::{Known, Relations, Table};
use crate::{
    config::OnUncertainKey,
    failure::{Code, Failure},
    pipeline::{
        keys::{Announced, Doubt, KeyThen, When, Writer},
        membership::identify,
        memory::{self, Keyless},
    },
};

impl Relations {
    /// What was seen of the keys of tables, and does not stand beside the checkpoint yet.
    pub(in crate::pipeline) fn unkept_keys(&self) -> Vec<Attachment> {
        memory::lock(&self.memory).unkept()
    }

    /// Whether something was found of keys that does not stand beside the checkpoint yet.
    pub(in crate::pipeline) fn has_found_keys(&self) -> bool {
        memory::lock(&self.memory).has_found()
    }

    /// Why a session ends at a row of which nothing says which key it had. What was found of keys is to stand beside the checkpoint before the stream
    /// stops, so that no more is in doubt for whoever starts later: so a session begins first, which writes that.
    pub(in crate::pipeline) fn keep_before(&self, failure: Failure) -> Failure {
        if !memory::lock(&self.memory).may_lose() {
            return failure;
        }
        let found = "the key of a table was changed, and which key some rows had is in doubt: the session begins again, to write down what was found";
        Failure::new(Code::KeyFound, found)
    }

    /// Takes a Relation message, which came in this transaction.
    pub(in crate::pipeline) async fn learn(&mut self, relation: Relation, xid: Xid) -> Result<(), Failure> {
        let announced = match self.known.get(relation.id) {
            Some(Known::Watched(table)) => Announced {
                state: table.key_then.as_ref().and_then(|then| then.state),
                is_again: table.relation == relation,
            },
            _ => Announced::default(),
        };
        self.learn_for(relation, None, When::In(Writer { xid, committed_at: None }, announced)).await
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
    pub(in crate::pipeline) async fn learn_again(&mut self, oid: Oid, transaction: Xid) -> Result<(), Failure> {
        let Some(Known::Watched(table)) = self.known.get(oid) else {
            return Err(Failure::new(Code::Internal, format!("relation {oid} is not watched")));
        };
        let (relation, key) = (table.relation.clone(), table.facts.primary_key.clone());
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
        let announced = Announced { state: table.key_then.as_ref().and_then(|then| then.state), is_again: false };
        self.learn_for(relation, None, When::In(Writer { xid: transaction, committed_at: None }, announced)).await
    }

    async fn learn_for(&mut self, relation: Relation, found: Option<TableFacts>, when: When) -> Result<(), Failure> {
        let oid = relation.id;
        let identity = identify(&mut self.catalog, &self.selection, &self.scope, &relation).await?;
        let known = if let Some(identity) = identity {
            let word = self.shaping.on_uncertain_key(&identity);
            let (facts, key_then) = self.facts_about(&relation, found, when, word).await?;
            if let When::In(writer, _) = when
                && let Err(failure) = settle(&relation, writer.xid, key_then.as_ref(), word)
            {
                self.known.insert(oid, Known::Uncertain(Box::new(failure)));
                return Ok(());
            }
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
        word: Option<OnUncertainKey>,
    ) -> Result<(TableFacts, Option<KeyThen>), Failure> {
        let is_full = relation.replica_identity == ReplicaIdentity::Full;
        let when = match when {
            When::In(writer, announced) if is_full => {
                // What it has done itself is not in the catalog before.
                let committed_at = self.catalog.await_alterations(writer.xid, relation.id).await?;
                When::In(Writer { committed_at, ..writer }, announced)
            }
            _ => when,
        };
        let found = match found {
            Some(found) => found,
            None => self.catalog.table_facts(relation.id).await?,
        };
        let key =
            if is_full { self.catalog.primary_keys(&[relation.id]).await?.keys.remove(&relation.id) } else { None };
        let (facts, then) =
            memory::lock(&self.memory).recall(found, key, relation, when, word.unwrap_or(OnUncertainKey::Likely));
        // Where the configuration says the key, what the catalog says of it does not matter.
        Ok((facts, then.filter(|_| word.is_some())))
    }

    /// Says when the records of a table that was announced have no key.
    fn tell_of_key(&self, table: &Table, when: When) {
        // What is there now is no news of the stream.
        let When::In(Writer { xid: transaction, .. }, _) = when else { return };
        let (schema, name) = (&table.relation.schema, &table.relation.name);
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

/// Says what is not certain of the key of a table that was announced in a transaction, and does with it as the configuration says.
///
/// # Errors
/// The stream is to stop at the first row of it.
fn settle(
    relation: &Relation,
    transaction: Xid,
    then: Option<&KeyThen>,
    word: Option<OnUncertainKey>,
) -> Result<(), Failure> {
    let (Some(then), Some(word)) = (then, word) else { return Ok(()) };
    let Some(doubt) = &then.doubt else { return Ok(()) };
    let (schema, table) = (&relation.schema, &relation.name);
    let (found, taken) = (doubtful(transaction, doubt), described(then.columns.as_deref()));
    match word {
        OnUncertainKey::Stop => {
            let found = format!("{found}. What the numbers of the transactions suggest is {taken}");
            return Err(Failure::new(Code::KeyUncertain, found).in_table(schema, table));
        }
        OnUncertainKey::Before | OnUncertainKey::After => warn!(
            schema,
            table,
            transaction = %transaction,
            "{schema}.{table}: {found}. They are written with {taken}, as postgres.on_uncertain_key or [[tables]] says"
        ),
        OnUncertainKey::Likely => warn!(
            schema,
            table,
            transaction = %transaction,
            "{schema}.{table}: {found}. They are written with {taken}, as is likely. If one of these transactions has changed the key itself, under a savepoint or \
             after it had written rows, or had begun long before it wrote them, compare the keys in the topic, and UPDATE those rows once that have the other \
             key, which writes them with the key of now"
        ),
    }
    Ok(())
}

/// What is not certain.
fn doubtful(transaction: Xid, Doubt { keys, is_older, by, between }: &Doubt) -> String {
    let described: Vec<_> = keys.iter().map(|key| described(key.as_deref())).collect();
    let by = match by {
        Some(by) if *by == transaction => format!("by transaction {by} itself"),
        Some(by) => format!("by transaction {by}"),
        None => "by a transaction that is not known any more".to_owned(),
    };
    let rows = format!("the rows of transaction {transaction}, and of those behind it");
    let span = match between {
        (Some(from), Some(until)) => {
            format!(" (in doubt are transactions from {from} on that ended before {until} began)")
        }
        _ => String::new(),
    };
    match described.as_slice() {
        [] => format!("nobody has seen which key it had, and it is gone: nothing says which {rows}, have"),
        [only] if *is_older => format!(
            "{only} was made {by}, perhaps after transaction {transaction} had written, and nobody has seen what its key was before: nothing says which {rows}, have"
        ),
        [only] => format!(
            "{rows}, have not the columns of {only}, which is the only one that was seen of it then: a column of it was renamed more than once"
        ),
        [first, others @ ..] => format!(
            "its key was changed from {first} to {} {by}, and nothing says whether {rows}, were written before that or after{span}",
            others.join(" to ")
        ),
    }
}

fn described(columns: Option<&[String]>) -> String {
    match columns {
        Some(columns) => format!("key ({})", columns.join(", ")),
        None => "no key".to_owned(),
    }
}

#[cfg(test)]
use crate::{
    catalog::KeySeen,
    pipeline::keys::{KeyHistory, Rows},
};

#[cfg(test)]
impl Relations {
    /// Takes a table as if it had been announced in a transaction, with a key that was seen last in a snapshot; and if somebody has made another,
    /// with that, seen first in another snapshot.
    pub(in crate::pipeline) fn guess_key(&mut self, table: Oid, xid: Xid, last: &str, by: Option<Xid>, first: &str) {
        let state = |column: &str, made_by, seen: &str| KeySeen::for_test(column, made_by, None, seen);
        let mut history = KeyHistory::default();
        history.observe(state("id", Xid::from(100), last));
        if let Some(by) = by {
            history.observe(state("code", by, first));
        }
        let writer = Writer { xid, committed_at: None };
        let Some(Known::Watched(known)) = self.known.get_mut(table) else { panic!("it is watched") };
        let when = When::In(writer, Announced::default());
        let rows = Rows { has_column: &|_| true, exists: &|_| true, horizon: None };
        known.key_then = Some(history.at(when, OnUncertainKey::Likely, &rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn then(keys: &[Option<&str>], is_older: bool, by: Option<u32>, taken: Option<&str>) -> KeyThen {
        let columns = |column: &str| vec![column.to_owned()];
        let doubt = Doubt {
            keys: keys.iter().map(|key| key.map(columns)).collect(),
            is_older,
            by: by.map(Xid::from),
            between: (Some(690), Some(710)),
        };
        KeyThen { columns: taken.map(columns), state: Some(0), next: None, doubt: Some(doubt) }
    }

    fn settle_one(relation: &Relation, then: &KeyThen, word: Option<OnUncertainKey>) -> Result<(), Failure> {
        settle(relation, Xid::from(699), Some(then), word)
    }

    #[test]
    fn what_is_in_doubt_stops_the_stream_unless_somebody_has_decided() {
        let relation = Relation {
            xid: None,
            id: Oid::from(16384),
            schema: "public".to_owned(),
            name: "item".to_owned(),
            replica_identity: ReplicaIdentity::Full,
            columns: Vec::new(),
        };
        let settle = |then: &KeyThen, word| settle_one(&relation, then, word);
        let (id, code) = (Some("id"), Some("code"));
        for (then, said) in [
            (
                then(&[id, code], false, Some(700), id),
                "its key was changed from key (id) to key (code) by transaction 700, and nothing says whether the rows of transaction 699, and of those \
                 behind it, were written before that or after (in doubt are transactions from 690 on that ended before 710 began). What the numbers of the \
                 transactions suggest is key (id)",
            ),
            (
                then(&[id, None], false, None, None),
                "from key (id) to no key by a transaction that is not known any more",
            ),
            (then(&[id, code, None], false, None, None), "from key (id) to key (code) to no key by"),
            (
                then(&[id], true, Some(700), id),
                "key (id) was made by transaction 700, perhaps after transaction 699 had written, and nobody has seen",
            ),
            (then(&[id], false, Some(690), None), "have not the columns of key (id), which is the only one"),
            (then(&[], true, None, None), "nobody has seen which key it had, and it is gone"),
        ] {
            let failure = settle(&then, Some(OnUncertainKey::Stop)).expect_err("it stops").to_string();
            for part in ["key-uncertain", "public.item", "on_uncertain_key", said] {
                assert!(failure.contains(part), "{part} is not in {failure}");
            }
            for word in [OnUncertainKey::Before, OnUncertainKey::After, OnUncertainKey::Likely] {
                settle(&then, Some(word)).expect("somebody has decided");
            }
            settle(&then, None).expect("the configuration says the key");
            settle(&KeyThen { doubt: None, ..then }, Some(OnUncertainKey::Stop)).expect("nothing is in doubt");
        }
    }
}

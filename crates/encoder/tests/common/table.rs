//! Tables that are described in a line, and their changes.

use encoder::{
    BoundPlan, Change, ColumnFacts, ElementFacts, EncodeError, EncodeOptions, EventContext, EventOrder, Naming,
    RecordBatch, SnapshotContext, SnapshotKind, TableFacts, TablePlan, TransactionContext, TypeKind,
};
use pgoutput::{
    Delete, Insert, Lsn, Oid, OldTuple, Relation, RelationColumn, ReplicaIdentity, Timestamp, Tuple, Update, Value, Xid,
};

/// The position that every change here has.
pub(crate) const LSN: u64 = 0x16_B374_D848;
/// When every change here is processed.
pub(crate) const PROCESSED_UNIX_NS: i64 = 1_700_000_001_987_654_321;

/// A column: name, type's OID and modifier, and what the stream and the catalog say about it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) type_oid: u32,
    pub(crate) type_modifier: i32,
    pub(crate) is_key: bool,
    pub(crate) not_null: bool,
    pub(crate) default: Option<String>,
    /// What the catalog says about the type, if that is more than its OID.
    pub(crate) type_facts: Option<ColumnFacts>,
}

/// The OID that types here have which do not come with PostgreSQL.
pub(crate) const OTHER_OID: u32 = 99_999;

/// A column of a type that an extension brings, or whose arrays it has.
pub(crate) fn extension(name: &str, type_name: &str) -> Column {
    column(name, OTHER_OID, -1).of(ColumnFacts::new(name, Oid::from(OTHER_OID), type_name))
}

/// The facts about an enum.
pub(crate) fn enumeration(labels: &[&str]) -> ColumnFacts {
    ColumnFacts {
        type_kind: TypeKind::Enum,
        base_type_kind: TypeKind::Enum,
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        ..ColumnFacts::new("", Oid::from(OTHER_OID), "mood")
    }
}

/// The facts about an array of what these facts are about.
pub(crate) fn array_of(element: &ColumnFacts) -> ColumnFacts {
    let element = ElementFacts {
        type_oid: element.base_type_oid,
        type_name: element.type_name.clone(),
        type_kind: element.base_type_kind,
        type_modifier: if element.type_kind == TypeKind::Domain { element.base_type_modifier } else { -1 },
        labels: element.labels.clone(),
        delimiter: b',',
    };
    ColumnFacts { element: Some(element), ..ColumnFacts::new("", Oid::from(OTHER_OID), "_any") }
}

/// A column that can be null.
pub(crate) fn column(name: &str, type_oid: u32, type_modifier: i32) -> Column {
    Column {
        name: name.to_owned(),
        type_oid,
        type_modifier,
        is_key: false,
        not_null: false,
        default: None,
        type_facts: None,
    }
}

impl Column {
    pub(crate) fn key(self) -> Self {
        Self { is_key: true, not_null: true, ..self }
    }

    pub(crate) fn not_null(self) -> Self {
        Self { not_null: true, ..self }
    }

    pub(crate) fn of(self, type_facts: ColumnFacts) -> Self {
        Self { type_facts: Some(type_facts), ..self }
    }

    pub(crate) fn default(self, expression: &str) -> Self {
        Self { default: Some(expression.to_owned()), ..self }
    }
}

pub(crate) fn relation(replica_identity: ReplicaIdentity, columns: &[Column]) -> Relation {
    let column = |column: &Column| RelationColumn {
        is_key: column.is_key && replica_identity != ReplicaIdentity::Nothing
            || replica_identity == ReplicaIdentity::Full,
        name: column.name.clone(),
        type_oid: Oid::from(column.type_oid),
        type_modifier: column.type_modifier,
    };
    Relation {
        xid: None,
        id: Oid::from(16_384),
        schema: "public".to_owned(),
        name: "t".to_owned(),
        replica_identity,
        columns: columns.iter().map(column).collect(),
    }
}

/// The catalog agrees with the stream, and the key's columns are the primary key.
pub(crate) fn facts(columns: &[Column]) -> TableFacts {
    let keys: Vec<_> = columns.iter().filter(|column| column.is_key).map(|column| column.name.clone()).collect();
    let column = |column: &Column| {
        let type_facts = column.type_facts.clone().unwrap_or_else(|| ColumnFacts {
            base_type_modifier: column.type_modifier,
            ..ColumnFacts::new("", Oid::from(column.type_oid), "irrelevant")
        });
        ColumnFacts {
            name: column.name.clone(),
            not_null: column.not_null,
            default: column.default.clone(),
            type_oid: Oid::from(column.type_oid),
            ..type_facts
        }
    };
    TableFacts {
        columns: columns.iter().map(column).collect(),
        primary_key: Some(keys).filter(|keys| !keys.is_empty()),
    }
}

pub(crate) fn naming() -> Naming {
    // Not the crate's version, so that no snapshot depends on it.
    Naming { version: "1.2.3".to_owned(), ..Naming::new("shop", "shopdb") }
}

pub(crate) fn compile(replica_identity: ReplicaIdentity, columns: &[Column]) -> TablePlan {
    compile_with(replica_identity, columns, &EncodeOptions::default())
}

pub(crate) fn compile_with(
    replica_identity: ReplicaIdentity,
    columns: &[Column],
    options: &EncodeOptions,
) -> TablePlan {
    TablePlan::compile(&relation(replica_identity, columns), &facts(columns), &naming(), options).unwrap()
}

pub(crate) fn bind(plan: TablePlan) -> BoundPlan {
    let (key_schema_id, value_schema_id) = (plan.key_schema().map(|_| 1), plan.value_schema().map(|_| 2));
    plan.bind(key_schema_id, value_schema_id).unwrap()
}

/// A row: text, or what `\N` and `\U` stand for, null and unchanged.
pub(crate) fn row(values: &[&str]) -> Tuple {
    Tuple::from_values(values.iter().map(|text| match *text {
        r"\N" => Value::Null,
        r"\U" => Value::UnchangedToast,
        text => Value::Text(text.as_bytes()),
    }))
    .unwrap()
}

pub(crate) fn insert(new: &[&str]) -> Insert {
    Insert { xid: None, relation: Oid::from(16_384), new: row(new) }
}

pub(crate) fn update(old: OldTuple, new: &[&str]) -> Update {
    Update { xid: None, relation: Oid::from(16_384), old, new: row(new) }
}

pub(crate) fn delete(old: OldTuple) -> Delete {
    Delete { xid: None, relation: Oid::from(16_384), old }
}

/// Encodes one change.
pub(crate) fn encode(plan: &BoundPlan, change: Change<'_>) -> Result<RecordBatch, EncodeError> {
    let mut batch = RecordBatch::new();
    append(plan, change, &mut EventOrder::default(), &mut batch).map(|_| batch)
}

/// Appends one change.
pub(crate) fn append(
    plan: &BoundPlan,
    change: Change<'_>,
    order: &mut EventOrder,
    batch: &mut RecordBatch,
) -> Result<encoder::Encoded, EncodeError> {
    let transaction = TransactionContext::from_parts(
        Xid::from(750),
        Lsn::from(LSN + 8),
        Timestamp::from_unix_micros(1_700_000_000_123_456),
    );
    let context = EventContext { transaction: &transaction, lsn: Lsn::from(LSN), processed_unix_ns: PROCESSED_UNIX_NS };
    plan.encode(change, &context, order, batch)
}

/// A snapshot at the position and the time of the changes.
pub(crate) fn snapshot() -> SnapshotContext {
    let taken_at = Timestamp::from_unix_micros(1_700_000_000_123_456);
    SnapshotContext::new(SnapshotKind::Incremental, Lsn::from(LSN), None, taken_at)
}

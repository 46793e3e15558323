//! What can go wrong, sorted by what the caller must do. No message holds row data.

use std::fmt;

use pgoutput::Lsn;
use thiserror::Error;

/// A table cannot be turned into topics and schemas. Only a change to the table, or to the naming, helps.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PlanError {
    /// Two columns would have the same Avro field.
    #[error(
        "columns {first:?} and {second:?} of {table} both become the Avro field {field:?}: rename one, or leave one out of the publication"
    )]
    CollidingColumns {
        /// `schema.table`.
        table: String,
        /// The column that comes first.
        first: String,
        /// The other one.
        second: String,
        /// What both become.
        field: String,
    },
    /// A name that Avro does not have, where names are to stay what they are.
    #[error(
        "{name:?}, a name of {table}, is not one that Avro allows: have names adjusted, rename it, or leave it out of the publication"
    )]
    IllegalName {
        /// `schema.table`.
        table: String,
        /// The name: of a column, or of the namespace that goes with the topic.
        name: String,
    },
    /// A column of the key is to be left out.
    #[error("column {column:?} of {table} is part of the key, and cannot be left out: leave it in, or have it hashed")]
    KeyColumnExcluded {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// A column of the key is to be masked in a way that makes different keys the same.
    #[error(
        "column {column:?} of {table} is part of the key, and masked like this different rows would have one key: have it hashed"
    )]
    KeyColumnMasked {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// A column is to be truncated that is no string.
    #[error("column {column:?} of {table} is no string, and cannot be truncated: mask it in another way")]
    MaskUnfit {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// Every column is to be left out.
    #[error("all columns of {table} are left out: leave the table out, or leave a column in")]
    NoColumn {
        /// `schema.table`.
        table: String,
    },
    /// There is no topic of this name.
    #[error("{topic:?} is no name of a topic")]
    IllegalTopic {
        /// The name.
        topic: String,
    },
    /// The topic's name is longer than Kafka allows.
    #[error("the topic {topic:?} has more than the {characters_max} characters that Kafka allows")]
    TopicTooLong {
        /// The name.
        topic: String,
        /// Kafka's limit.
        characters_max: usize,
    },
    /// The schema cannot be parsed, which is a bug of this crate.
    #[error("the schema of {table} is not valid: {cause}")]
    InvalidSchema {
        /// `schema.table`.
        table: String,
        /// What the parser says.
        cause: String,
    },
    /// The table has no key, which an upsert is about.
    #[error(
        "{table} has no key, so that its rows cannot be told apart by those who read them; give it a primary key, or have it written with Debezium's envelope"
    )]
    NoKey {
        /// `schema.table`.
        table: String,
    },
    /// A column of the key that was asked for is not in the stream.
    #[error("column {column:?} of {table} is to be a part of the key, and the table's stream has no such column")]
    KeyColumnMissing {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// The old value of a column of the key that was asked for does not come with updates and deletions.
    #[error(
        "column {column:?} of {table} is to be a part of the key, and PostgreSQL does not send what it was before an update or a deletion, \
         since it is no part of the replica identity; ALTER TABLE .. REPLICA IDENTITY FULL makes it send that"
    )]
    KeyColumnUnsent {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// The form of a column of the key makes different values one.
    #[error(
        "column {column:?} of {table} is a part of the key, and in the form that is chosen for its type different values are the same, so that \
         different rows would be one"
    )]
    KeyFormMerges {
        /// `schema.table`.
        table: String,
        /// The column.
        column: String,
    },
    /// A plan was bound to ids of other schemas than it has.
    #[error("the events of {table} {}: the schema ids given do not fit", if *has_key { "have a key" } else { "have no key" })]
    SchemaIds {
        /// `schema.table`.
        table: String,
        /// Whether the plan has a key schema.
        has_key: bool,
    },
}

impl PlanError {
    /// Whether it is the table itself, its names or its lack of a key, and not what was asked for: what cannot be written of it may be kept as it came.
    pub(crate) fn is_about_the_table(&self) -> bool {
        matches!(
            self,
            Self::CollidingColumns { .. } | Self::IllegalName { .. } | Self::InvalidSchema { .. } | Self::NoKey { .. }
        )
    }

    /// Whether it is about [what is done to columns](crate::EncodeOptions::columns), which has to be changed then.
    pub fn is_about_column_rules(&self) -> bool {
        matches!(
            self,
            Self::KeyColumnExcluded { .. }
                | Self::KeyColumnMasked { .. }
                | Self::MaskUnfit { .. }
                | Self::NoColumn { .. }
        )
    }
}

/// A change cannot be written as an event. Nothing was appended to the batch.
///
/// It says where, and never what: no value is part of it.
#[derive(Clone, PartialEq, Eq, Error)]
#[error(transparent)]
pub struct EncodeError(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    kind: EncodeErrorKind,
    table: String,
    column: Option<String>,
    lsn: Lsn,
}

impl EncodeError {
    pub(crate) fn new(kind: EncodeErrorKind, table: &str, column: Option<&str>, lsn: Lsn) -> Self {
        Self(Box::new(Details { kind, table: table.to_owned(), column: column.map(ToOwned::to_owned), lsn }))
    }

    /// What is wrong.
    pub fn kind(&self) -> EncodeErrorKind {
        self.0.kind
    }

    /// The table, as `schema.table`.
    pub fn table(&self) -> &str {
        &self.0.table
    }

    /// The column, where it is one column's fault.
    pub fn column(&self) -> Option<&str> {
        self.0.column.as_deref()
    }

    /// The position of the change.
    pub fn lsn(&self) -> Lsn {
        self.0.lsn
    }

    /// The column that is null although the facts say it cannot be: the facts are newer than the row. Make it optional with
    /// [`TableFacts::make_optional`](crate::TableFacts::make_optional), compile the plan again, and encode the change again.
    pub fn null_in_not_null(&self) -> Option<&str> {
        if self.0.kind == EncodeErrorKind::NullInNotNull { self.column() } else { None }
    }
}

impl fmt::Debug for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot encode a change of {}", self.table)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column:?},")?;
        }
        write!(f, " at {}: {} [{}]", self.lsn, self.kind.explanation(), self.kind.as_str())
    }
}

impl std::error::Error for Details {}

/// What is wrong with a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EncodeErrorKind {
    /// A null where the facts say that there can be none. To be recovered from, see [`EncodeError::null_in_not_null`].
    NullInNotNull,
    /// The row has another number of columns than its relation.
    ColumnCount,
    /// The value came in binary; text is what the plan reads.
    BinaryValue,
    /// The text is not UTF-8, as can be in a database with the encoding `SQL_ASCII`.
    InvalidUtf8,
    /// The text is not what the column's type prints.
    MalformedText,
    /// The value is one that PostgreSQL has and the column's Avro type has not, such as a timestamp past the year 294247.
    OutOfRange,
    /// `NaN` or an infinity in a numeric column, which Avro's decimal has not.
    NotANumber,
    /// The value was not sent because it is stored out of line and was not changed, and the column's Avro type has no room for the text
    /// that stands for that.
    UnavailableValue,
    /// The same for a column of the key.
    UnavailableKey,
    /// The array has another shape than one dimension that starts at 1, which is all that an Avro array can say.
    ArrayShape,
    /// A null among the elements of an array whose Avro type has none.
    NullElement,
    /// A Truncate, where records are the rows of a table: none of them can say that all rows are gone.
    Truncated,
    /// An Update or a Delete without the old row that it must have.
    MissingOldRow,
    /// No change of the table can be written, whatever its values are: see [`TablePlan::unfit`](crate::TablePlan::unfit).
    UnfitTable,
}

impl EncodeErrorKind {
    /// Whether it is the value that has no place in the record. Else the change is not what its relation says, or the facts are wrong, and
    /// nothing of it can be trusted.
    pub(crate) const fn is_about_the_value(self) -> bool {
        match self {
            Self::InvalidUtf8
            | Self::MalformedText
            | Self::OutOfRange
            | Self::NotANumber
            | Self::UnavailableValue
            | Self::UnavailableKey
            | Self::ArrayShape
            | Self::NullElement
            | Self::Truncated
            | Self::UnfitTable => true,
            Self::NullInNotNull | Self::ColumnCount | Self::BinaryValue | Self::MissingOldRow => false,
        }
    }

    /// A short name that never changes, for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NullInNotNull => "null_in_not_null",
            Self::ColumnCount => "column_count",
            Self::BinaryValue => "binary_value",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::MalformedText => "malformed_text",
            Self::OutOfRange => "out_of_range",
            Self::NotANumber => "not_a_number",
            Self::UnavailableValue => "unavailable_value",
            Self::UnavailableKey => "unavailable_key",
            Self::ArrayShape => "array_shape",
            Self::NullElement => "null_element",
            Self::Truncated => "truncated",
            Self::MissingOldRow => "missing_old_row",
            Self::UnfitTable => "unfit_table",
        }
    }

    const fn explanation(self) -> &'static str {
        match self {
            Self::NullInNotNull => "it is null, and the catalog says that it cannot be",
            Self::ColumnCount => "the row has another number of columns than its relation",
            Self::BinaryValue => "the value is in binary format, where text was asked for",
            Self::InvalidUtf8 => "the value is not UTF-8",
            Self::MalformedText => "the value is not what its type prints",
            Self::OutOfRange => "the value lies outside of what its Avro type can hold",
            Self::NotANumber => {
                "the value is NaN or infinite, which Avro's decimal cannot hold; have decimals written as text"
            }
            Self::UnavailableValue => {
                "the value is stored out of line, was not changed and so was not sent, and its Avro type has no room for a placeholder; \
                 ALTER TABLE .. REPLICA IDENTITY FULL makes PostgreSQL send it"
            }
            Self::UnavailableKey => "it is part of the key, and its value was not sent",
            Self::ArrayShape => {
                "the array has more than one dimension or does not start at 1, which an Avro array cannot say; declare the column with its \
                 dimensions, or have arrays written as text"
            }
            Self::NullElement => {
                "the array has a null, which the items of its Avro type are not; have arrays written as text"
            }
            Self::Truncated => {
                "the table was truncated, which no record of an upsert can say; mend the topic by hand and have truncations skipped, or \
                 have them written as dead letters"
            }
            Self::MissingOldRow => "the old row is missing",
            Self::UnfitTable => "the table cannot be written as it is",
        }
    }
}

//! What only PostgreSQL's catalog knows about a table.
//!
//! The stream's Relation message has names, types and key flags, and it has them as they were when the rows were written. Whether a
//! column may be null, its default and what lies under a domain must be looked up, and a look-up shows the catalog of *now*. So these
//! facts are hints: where one is missing, or belongs to another type than the stream's, the plan does without it.

use pgoutput::Oid;
use serde::{Deserialize, Serialize};

/// The facts about one table. The default, which knows nothing, is always valid: every column becomes optional.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableFacts {
    /// In any order; columns that are not in the stream's relation are ignored, and columns may be missing.
    pub columns: Vec<ColumnFacts>,
    /// The names of the primary key's columns in the order of the key, or, for a table without one, those of the unique index that is to
    /// stand in for it. It is the events' key where the replica identity does not name one, and it gives the order of the key's fields
    /// where it does.
    pub primary_key: Option<Vec<String>>,
}

impl TableFacts {
    /// The facts about one column.
    pub fn column(&self, name: &str) -> Option<&ColumnFacts> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Takes it that a column can be null, as [`EncodeError::null_in_not_null`](crate::EncodeError::null_in_not_null) asks for when a
    /// row comes from before its `SET NOT NULL`. Returns whether that changed anything; if it did not, compiling again is no use.
    pub fn make_optional(&mut self, name: &str) -> bool {
        let column = self.columns.iter_mut().find(|column| column.name == name);
        column.is_some_and(|column| std::mem::replace(&mut column.not_null, false))
    }
}

/// The facts about one column, from `pg_attribute`, `pg_attrdef` and `pg_type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnFacts {
    /// The column's name, without quotes.
    pub name: String,
    /// Whether the column, or the domain that is its type, is `NOT NULL`.
    pub not_null: bool,
    /// The default as `pg_get_expr(adbin, adrelid)` prints it in a session with `TimeZone` UTC and `DateStyle` ISO; none for generated
    /// columns.
    pub default: Option<String>,
    /// The column's type, `atttypid`. Where it differs from the stream's, the facts about the type are not used.
    #[serde(with = "oid_number")]
    pub type_oid: Oid,
    /// The name of the type, `typname`; of the base type for a domain.
    pub type_name: String,
    /// What kind of type the column has.
    pub type_kind: TypeKind,
    /// What the type comes down to through any number of domains; the type itself when it is none.
    #[serde(with = "oid_number")]
    pub base_type_oid: Oid,
    /// The modifier that goes with the base type, -1 for none: the column's, or for a domain the one of the innermost domain that has one.
    pub base_type_modifier: i32,
    /// What kind of type the base type is.
    pub base_type_kind: TypeKind,
    /// The values of the base type if it is an enum, `enumlabel` in the order of `enumsortorder`.
    pub labels: Vec<String>,
    /// What the elements are if the base type is an array. For arrays of built-in types it need not be known.
    pub element: Option<ElementFacts>,
    /// How many dimensions the column, or a domain under it, is declared with: `attndims`, `typndims`. PostgreSQL holds no value to that.
    pub dimensions: i32,
}

impl ColumnFacts {
    /// The facts about a column that can be null, has no default, and is of a type of which no more is known than this.
    pub fn new(name: impl Into<String>, type_oid: Oid, type_name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            not_null: false,
            default: None,
            type_oid,
            type_name: type_name.into(),
            type_kind: TypeKind::Base,
            base_type_oid: type_oid,
            base_type_modifier: -1,
            base_type_kind: TypeKind::Base,
            labels: Vec::new(),
            element: None,
            dimensions: 0,
        }
    }
}

/// The facts about the elements of an array, from `pg_type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementFacts {
    /// What the element type comes down to through any number of domains; the type itself when it is none.
    #[serde(with = "oid_number")]
    pub type_oid: Oid,
    /// The name of that type, `typname`.
    pub type_name: String,
    /// What kind of type that is.
    pub type_kind: TypeKind,
    /// The modifier of the innermost domain that has one; -1 if there is none, where the array's own counts.
    pub type_modifier: i32,
    /// The values of that type if it is an enum, in their order.
    pub labels: Vec<String>,
    /// What stands between two elements, `typdelim` of the type that the array is declared with: a comma for all but a few types.
    pub delimiter: u8,
}

/// `pg_type.typtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TypeKind {
    /// `b`, arrays among them.
    Base,
    /// `c`
    Composite,
    /// `d`
    Domain,
    /// `e`
    Enum,
    /// `p`
    Pseudo,
    /// `r`
    Range,
    /// `m`
    Multirange,
}

impl TypeKind {
    /// Reads `pg_type.typtype`; a kind that later versions may add is none.
    pub const fn from_catalog(typtype: char) -> Option<Self> {
        match typtype {
            'b' => Some(Self::Base),
            'c' => Some(Self::Composite),
            'd' => Some(Self::Domain),
            'e' => Some(Self::Enum),
            'p' => Some(Self::Pseudo),
            'r' => Some(Self::Range),
            'm' => Some(Self::Multirange),
            _ => None,
        }
    }
}

mod oid_number {
    use pgoutput::Oid;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(oid: &Oid, serializer: S) -> Result<S::Ok, S::Error> {
        u32::from(*oid).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Oid, D::Error> {
        u32::deserialize(deserializer).map(Oid::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_made_optional_once() {
        let column = ColumnFacts { not_null: true, ..ColumnFacts::new("a", Oid::from(23), "int4") };
        let mut facts = TableFacts { columns: vec![column], primary_key: None };
        assert!(facts.make_optional("a"));
        assert!(!facts.column("a").unwrap().not_null);
        assert!(!facts.make_optional("a"), "so that a caller who compiles again on true comes to an end");
        assert!(!facts.make_optional("b"));
    }
}

//! What is decided once for a table, so that a row needs no decisions: topic, schemas, and for each column how its text becomes Avro.

use std::{collections::BTreeMap, sync::Arc};

use pgoutput::{Relation, RelationColumn, ReplicaIdentity};

use crate::{
    BoundPlan, ColumnFacts, ColumnRule, EncodeErrorKind, EncodeOptions, Envelope, Format, Naming, Operation,
    Operations, PlanError, TableFacts, TypeKind, Unrepresentable, avro,
    defaults::{self, Default},
    encode::{DeadLetters, FRAMING_BYTES},
    json,
    json_envelope::JsonSource,
    metadata::MetadataHeaders,
    naming::{checked_topic, dead_letter_topic},
    schema::{self, AvroType, Field, Physical, Properties, Schema},
    transform::Omitted,
    types::{self, Codec, DefaultRule},
};

/// How the changes of one table become records, for one state of its relation and its facts.
#[derive(Debug)]
pub struct TablePlan {
    pub(crate) topic: Arc<str>,
    pub(crate) envelope: Envelope,
    pub(crate) format: Format,
    /// `schema.table`, for errors.
    pub(crate) table: String,
    pub(crate) columns: Vec<Column>,
    /// The key's columns, as indices, in the order of the key; empty for a table without a key.
    pub(crate) key_columns: Vec<usize>,
    /// `source` up to the commit time.
    pub(crate) source_start: Vec<u8>,
    /// `source.db`
    pub(crate) source_database: Vec<u8>,
    /// `source.schema` and `source.table`.
    pub(crate) source_table: Vec<u8>,
    /// The same three, and what stands between them, as JSON.
    pub(crate) json_source: JsonSource,
    /// Whether a deletion is followed by a record without a value.
    pub(crate) tombstones: bool,
    /// What headers say.
    pub(crate) headers: MetadataHeaders,
    /// Events that are not written.
    pub(crate) skipped: Operations,
    /// What stands for a value that was not sent.
    pub(crate) unavailable_value: Box<str>,
    /// Where changes go that cannot be written, if they are not to stop the stream.
    pub(crate) dead_letters: Option<DeadLetters>,
    /// Why all changes are dead letters, if they are.
    pub(crate) unfit: Option<PlanError>,
    /// Where all changes go, while its schemas are not accepted.
    pub(crate) held_back: Option<DeadLetters>,
    key_schema: Option<Schema>,
    value_schema: Option<Schema>,
}

/// One column.
#[derive(Debug)]
pub(crate) struct Column {
    /// As in PostgreSQL.
    pub(crate) name: String,
    /// As in a record.
    pub(crate) field_name: String,
    /// The same in JSON, followed by a colon.
    pub(crate) json_name: Vec<u8>,
    pub(crate) codec: Box<dyn Codec>,
    pub(crate) physical: Physical,
    pub(crate) presence: Presence,
    /// What stands for a value that is not known, in the row of a Delete of which only the key was sent.
    pub(crate) unknown: Vec<u8>,
}

/// Whether a column can be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    Required,
    /// It is left out, and nothing is written for it.
    Omitted,
    /// It is a union; these are its branches, encoded.
    Optional {
        null: u8,
        value: u8,
    },
}

impl TablePlan {
    /// Decides everything that a relation and the catalog's facts about it determine.
    ///
    /// The relation rules: names, types, and which columns there are. Facts about other columns are ignored, and columns without facts are
    /// optional. Compile again for every Relation message, and after
    /// [`TableFacts::make_optional`](crate::TableFacts::make_optional).
    ///
    /// With [`Unrepresentable::DeadLetter`] a table that cannot be written for its names, or for want of a key, has a plan by which every change is a dead
    /// letter: see [`unfit`](Self::unfit).
    ///
    /// # Errors
    /// The table has names that Kafka or Avro cannot have, or that become the same.
    pub fn compile(
        relation: &Relation,
        facts: &TableFacts,
        naming: &Naming,
        options: &EncodeOptions,
    ) -> Result<Self, PlanError> {
        match Self::compile_fit(relation, facts, naming, options) {
            Err(error) if error.is_about_the_table() && options.unrepresentable == Unrepresentable::DeadLetter => {
                // As much of it as needs no names but the topic's.
                let nothing = Relation { columns: Vec::new(), ..relation.clone() };
                let bare = EncodeOptions {
                    envelope: Envelope::Debezium,
                    format: Format::Json,
                    key: None,
                    columns: BTreeMap::new(),
                    ..options.clone()
                };
                let plan = Self::compile_fit(&nothing, &TableFacts::default(), naming, &bare)?;
                let letters = DeadLetters::new(relation, schema_of(relation), options, letters_topic(&plan.topic)?);
                let columns = relation.columns.iter().map(|column| Column::omitted(&column.name)).collect();
                Ok(Self { unfit: Some(error), dead_letters: Some(letters), columns, ..plan })
            }
            plan => plan,
        }
    }

    fn compile_fit(
        relation: &Relation,
        facts: &TableFacts,
        naming: &Naming,
        options: &EncodeOptions,
    ) -> Result<Self, PlanError> {
        let schema_name = schema_of(relation);
        let table = format!("{schema_name}.{}", relation.name);
        let topic = match &options.topic {
            Some(topic) => checked_topic(topic)?,
            None => naming.topic(schema_name, &relation.name)?,
        };
        let illegal = |name: &str| PlanError::IllegalName { table: table.clone(), name: name.to_owned() };
        let (envelope, format) = (options.envelope, options.format);
        let namespace = match format {
            Format::Avro => options.names.namespace(&topic).ok_or_else(|| illegal(&topic))?,
            Format::Json => String::new(),
        };
        let key_columns = match &options.key {
            Some(key) => chosen_key_columns(&table, relation, key)?,
            None => key_columns(relation, facts),
        };
        if envelope == Envelope::Upsert && key_columns.is_empty() {
            return Err(PlanError::NoKey { table });
        }
        refuse_rules(&table, relation, &key_columns, options)?;
        let (columns, fields): (Vec<_>, Vec<_>) = relation
            .columns
            .iter()
            .map(|column| match options.columns.get(&column.name) {
                Some(ColumnRule::Exclude) => Ok((Column::omitted(&column.name), None)),
                Some(ColumnRule::Mask(_)) | None => {
                    let (column, field) = compile_column(&table, relation, column, facts, options)?;
                    Ok((column, Some(field)))
                }
            })
            .collect::<Result<Vec<_>, PlanError>>()?
            .into_iter()
            .unzip();
        refuse_collisions(&table, &columns, &fields)?;
        // Debezium has such keys, and whoever reads its envelope has the row beside.
        if envelope == Envelope::Upsert
            && let Some(index) = key_columns.iter().find(|index| !columns[**index].codec.keeps_apart())
        {
            return Err(PlanError::KeyFormMerges { table, column: columns[*index].name.clone() });
        }

        let (mut key_schema, mut value_schema) = (None, None);
        if format == Format::Avro {
            let (row_fields, key_fields): (Vec<_>, Vec<_>) = (
                fields.iter().flatten().collect(),
                key_columns.iter().filter_map(|index| fields[*index].as_ref()).collect(),
            );
            let (properties, value) = match envelope {
                Envelope::Debezium => (Properties::Connect, schema::envelope(&namespace, &row_fields)),
                Envelope::Upsert => (Properties::Native, schema::value(&namespace, &row_fields)),
            };
            value_schema = Some(Schema::new(&value, &table)?);
            if !key_columns.is_empty() {
                key_schema = Some(Schema::new(&schema::key(&namespace, &key_fields, properties), &table)?);
            }
        }
        let dead_letters = match options.unrepresentable {
            Unrepresentable::Stop => None,
            Unrepresentable::DeadLetter => {
                Some(DeadLetters::new(relation, schema_name, options, letters_topic(&topic)?))
            }
        };
        Ok(Self {
            dead_letters,
            unfit: None,
            held_back: None,
            topic: topic.into(),
            envelope,
            format,
            json_source: JsonSource::new(naming, schema_name, &relation.name),
            source_start: strings([naming.version.as_str(), "postgresql", &naming.topic_prefix]),
            source_database: strings([naming.database.as_str()]),
            source_table: strings([schema_name, &relation.name]),
            tombstones: options.tombstones && envelope == Envelope::Debezium,
            headers: MetadataHeaders::new(&options.headers, &naming.database, schema_name, &relation.name),
            skipped: options.skipped,
            unavailable_value: options.unavailable_value.as_str().into(),
            table,
            columns,
            key_columns,
            key_schema,
            value_schema,
        })
    }

    /// The topic of the table.
    pub fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    /// The topic of the table's dead letters, which needs one partition only; none if there are to be none.
    pub fn dead_letter_topic(&self) -> Option<&Arc<str>> {
        self.dead_letters.as_ref().or(self.held_back.as_ref()).map(|letters| &letters.topic)
    }

    /// Every topic that is the table's alone.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        [&self.topic].into_iter().chain(self.dead_letter_topic())
    }

    /// Whether its records have keys.
    pub fn has_key(&self) -> bool {
        !self.key_columns.is_empty()
    }

    /// Why no change of the table can be written as it should be, so that each is a dead letter; none if that is otherwise.
    pub fn unfit(&self) -> Option<&PlanError> {
        self.unfit.as_ref()
    }

    /// Whether its topic can be told that the table is empty: not where the envelope has no record for that, or it is not to be written.
    pub fn can_empty(&self) -> bool {
        self.unfit.is_none() && self.envelope != Envelope::Upsert && !self.skipped.contains(Operation::Truncate)
    }

    /// Whether rows that are read from the table are written.
    pub fn writes_reads(&self) -> bool {
        !self.skipped.contains(Operation::Read)
    }

    /// The table, as `schema.table`.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The schema of the keys, subject `{topic}-key`; none for a table without a key, and for JSON.
    pub fn key_schema(&self) -> Option<&Schema> {
        self.key_schema.as_ref()
    }

    /// A record's key as JSON text, for a message to a person; none if it is not a key of this table. It is slow.
    pub fn describe_key(&self, framed: &[u8]) -> Option<String> {
        if self.format == Format::Json {
            return std::str::from_utf8(framed).ok().map(str::to_owned);
        }
        self.key_schema.as_ref()?.describe(framed.get(FRAMING_BYTES..)?)
    }

    /// The schema of the values, subject `{topic}-value`; none for JSON.
    pub fn value_schema(&self) -> Option<&Schema> {
        self.value_schema.as_ref()
    }

    /// Takes the ids that the registry has for the schemas: one for each schema that there is.
    ///
    /// # Errors
    /// There are more ids than schemas, or fewer.
    pub fn bind(self, key_schema_id: Option<u32>, value_schema_id: Option<u32>) -> Result<BoundPlan, PlanError> {
        if key_schema_id.is_some() == self.key_schema.is_some()
            && value_schema_id.is_some() == self.value_schema.is_some()
        {
            Ok(BoundPlan::new(self, key_schema_id, value_schema_id))
        } else {
            Err(PlanError::SchemaIds { table: self.table, has_key: self.key_schema.is_some() })
        }
    }
}

/// That of the catalog has no name in the stream.
pub(crate) fn schema_of(relation: &Relation) -> &str {
    if relation.schema.is_empty() { "pg_catalog" } else { &relation.schema }
}

fn letters_topic(topic: &str) -> Result<String, PlanError> {
    checked_topic(&dead_letter_topic(topic))
}

impl BoundPlan {
    /// Forgets the text of the value's schema, which is registered and which no record needs: of a database with thousands of tables it is
    /// much of what plans take. That of the key describes keys in messages.
    #[must_use]
    pub fn without_value_schema(mut self) -> Self {
        self.plan.value_schema = None;
        self
    }
}

impl Column {
    /// One that is left out.
    fn omitted(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            field_name: String::new(),
            json_name: Vec::new(),
            codec: Box::new(Omitted),
            physical: Physical::String,
            presence: Presence::Omitted,
            unknown: Vec::new(),
        }
    }

    /// Appends a value.
    #[inline]
    pub(crate) fn write_text(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if let Presence::Optional { value, .. } = self.presence {
            out.push(value);
        }
        self.codec.encode(text, out)
    }

    /// Appends a null.
    #[inline]
    pub(crate) fn write_null(&self, out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        match self.presence {
            Presence::Optional { null, .. } => {
                out.push(null);
                Ok(())
            }
            Presence::Required => Err(EncodeErrorKind::NullInNotNull),
            Presence::Omitted => Ok(()),
        }
    }

    /// Appends what stands for a value that was not sent.
    pub(crate) fn write_unavailable(&self, placeholder: &str, out: &mut Vec<u8>) -> Result<(), EncodeErrorKind> {
        if let Presence::Optional { value, .. } = self.presence {
            out.push(value);
        }
        self.codec.write_unavailable(placeholder.as_bytes(), out)
    }
}

/// Which columns are the key.
///
/// The replica identity's, which the stream flags, since those are what an Update or a Delete brings. Under FULL the stream flags all
/// columns, and without a replica identity none: there it is the primary key, if all of it is in the stream.
fn key_columns(relation: &Relation, facts: &TableFacts) -> Vec<usize> {
    let position = |name: &String| relation.columns.iter().position(|column| column.name == *name);
    let primary_key: Vec<usize> =
        facts.primary_key.iter().flatten().map(position).collect::<Option<_>>().unwrap_or_default();
    if relation.replica_identity == ReplicaIdentity::Full {
        return primary_key;
    }
    let flagged: Vec<usize> =
        relation.columns.iter().enumerate().filter(|(_, column)| column.is_key).map(|(index, _)| index).collect();
    // The primary key says the same columns in the order of the key, where both speak of the same.
    let mut sorted = primary_key.clone();
    sorted.sort_unstable();
    if flagged.is_empty() || sorted == flagged { primary_key } else { flagged }
}

/// The columns of the key where somebody has chosen them. What each of them was before has to come with every change that ends a key, or the
/// old key would stay in the topic as if its row did.
fn chosen_key_columns(table: &str, relation: &Relation, key: &[String]) -> Result<Vec<usize>, PlanError> {
    let position = |name: &String| {
        let (table, column) = (table.to_owned(), name.clone());
        match relation.columns.iter().position(|column| column.name == *name) {
            None => Err(PlanError::KeyColumnMissing { table, column }),
            Some(index) if relation.replica_identity == ReplicaIdentity::Full || relation.columns[index].is_key => {
                Ok(index)
            }
            Some(_) => Err(PlanError::KeyColumnUnsent { table, column }),
        }
    };
    key.iter().map(position).collect()
}

/// Refuses rules that would leave a key that is none, or nothing.
fn refuse_rules(
    table: &str,
    relation: &Relation,
    key_columns: &[usize],
    options: &EncodeOptions,
) -> Result<(), PlanError> {
    for index in key_columns {
        let (table, column) = (table.to_owned(), relation.columns[*index].name.clone());
        match options.columns.get(&column) {
            Some(ColumnRule::Exclude) => return Err(PlanError::KeyColumnExcluded { table, column }),
            Some(ColumnRule::Mask(mask)) if !mask.keeps_apart() => {
                return Err(PlanError::KeyColumnMasked { table, column });
            }
            _ => {}
        }
    }
    let is_excluded = |column: &RelationColumn| options.columns.get(&column.name) == Some(&ColumnRule::Exclude);
    if !relation.columns.is_empty() && relation.columns.iter().all(is_excluded) {
        return Err(PlanError::NoColumn { table: table.to_owned() });
    }
    Ok(())
}

/// Decides how one column is written.
fn compile_column(
    table: &str,
    relation: &Relation,
    column: &RelationColumn,
    facts: &TableFacts,
    options: &EncodeOptions,
) -> Result<(Column, Field), PlanError> {
    let (table, name) = (|| table.to_owned(), || column.name.clone());
    let full = relation.replica_identity == ReplicaIdentity::Full;
    let facts = facts.column(&column.name);
    let own = types::resolve(column, facts, options);
    let codec = match options.columns.get(&column.name) {
        Some(ColumnRule::Mask(mask)) => {
            mask.codec(own).ok_or_else(|| PlanError::MaskUnfit { table: table(), column: name() })?
        }
        Some(ColumnRule::Exclude) | None => own,
    };
    let avro_type = codec.avro_type();
    // PostgreSQL takes only columns that are NOT NULL into a key or an index that identifies rows.
    let required = column.is_key && !full || facts.is_some_and(|facts| facts.not_null);
    let facts = facts.filter(|facts| facts.type_oid == column.type_oid);
    let default = facts.and_then(|facts| encoded_default(facts, codec.as_ref(), &avro_type));
    let (default_bytes, default) = default.unzip();
    let field_name = match options.format {
        Format::Avro => options.names.field_name(&column.name),
        Format::Json => Some(column.name.clone()),
    };
    let field_name = field_name.ok_or_else(|| PlanError::IllegalName { table: table(), name: name() })?;
    let field = Field { name: field_name, avro_type, optional: !required, default };
    let (presence, unknown) = presence(&field, codec.as_ref(), default_bytes);
    let mut json_name = Vec::new();
    json::write_string(&mut json_name, &field.name);
    json_name.push(b':');
    let (name, physical) = (name(), field.avro_type.physical.clone());
    Ok((Column { name, field_name: field.name.clone(), json_name, codec, physical, presence, unknown }, field))
}

/// Whether a column can be null, and what stands for a value of it that is not known.
fn presence(field: &Field, codec: &dyn Codec, default_bytes: Option<Vec<u8>>) -> (Presence, Vec<u8>) {
    if field.optional {
        let value = field.value_branch() * 2;
        let null = 2 - value;
        return (Presence::Optional { null, value }, vec![null]);
    }
    let fallback = || {
        let mut out = Vec::new();
        codec.write_fallback(&mut out);
        out
    };
    (Presence::Required, default_bytes.unwrap_or_else(fallback))
}

/// A column's default, encoded and as the schema has it. Defaults of domains are left out, as by Debezium.
fn encoded_default(
    facts: &ColumnFacts,
    codec: &dyn Codec,
    avro_type: &AvroType,
) -> Option<(Vec<u8>, serde_json::Value)> {
    if facts.type_kind == TypeKind::Domain {
        return None;
    }
    let text = match (codec.default_rule(), defaults::parse(facts.default.as_ref()?)?) {
        (DefaultRule::Literal | DefaultRule::Computed(_), Default::Literal(text)) => text,
        (DefaultRule::Computed(text), Default::Computed) => text.into(),
        (DefaultRule::Never, _) | (DefaultRule::Literal, Default::Computed) => return None,
    };
    let mut encoded = Vec::new();
    codec.encode(text.as_bytes(), &mut encoded).ok()?;
    let value = json::default_value(&avro_type.physical, &encoded)?;
    Some((encoded, value))
}

fn refuse_collisions(table: &str, columns: &[Column], fields: &[Option<Field>]) -> Result<(), PlanError> {
    for (second, field) in fields.iter().enumerate() {
        let Some(field) = field else { continue };
        let is_same = |earlier: &Option<Field>| earlier.as_ref().is_some_and(|earlier| earlier.name == field.name);
        if let Some(first) = fields[..second].iter().position(is_same) {
            return Err(PlanError::CollidingColumns {
                table: table.to_owned(),
                first: columns[first].name.clone(),
                second: columns[second].name.clone(),
                field: field.name.clone(),
            });
        }
    }
    Ok(())
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<u8> {
    let mut out = Vec::new();
    for text in texts {
        avro::write_bytes(&mut out, text.as_bytes());
    }
    out
}

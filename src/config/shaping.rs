//! How the records of one table are written: what holds for all tables, and what holds for this one.

use encoder::{EncodeOptions, Format, Naming, PlanError, TableFacts, TablePlan, Unrepresentable};
use pgoutput::Relation;

use super::routing::Names;
use super::{Columns, Config, OnIncompatible, OnUncertainKey, Policies, Routing, TableOverride, TablePattern};

/// What decides how the records of each table are written.
#[derive(Clone, Debug)]
pub struct Shaping {
    events: EncodeOptions,
    tables: Vec<TableOverride>,
    columns: Columns,
    routing: Routing,
    policies: Policies,
    name: String,
    database: String,
}

/// The names that a table of the stream goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableIdentity {
    /// Schema and table: its own first, and then those that it is or was a partition of.
    pub names: Vec<(String, String)>,
    /// Whether these are all. Where a row comes under the name of a partition that is gone, nobody can say what it was a partition of.
    /// Then every rule that hides a column is applied by the column's name alone: rather one too many than a value too much. What
    /// [`Shaping::doubt`] finds would give its records another shape or another topic, and stops the stream.
    pub is_certain: bool,
}

impl TableIdentity {
    /// A table that is no partition.
    pub fn plain(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { names: vec![(schema.into(), table.into())], is_certain: true }
    }
}

impl Shaping {
    /// What a configuration says.
    pub fn new(config: &Config) -> Self {
        Self {
            events: config.events.clone(),
            tables: config.tables.clone(),
            columns: config.columns.clone(),
            routing: config.kafka.topics.routing.clone(),
            policies: config.policies,
            name: config.name.as_str().to_owned(),
            database: config.postgres.connect.database().to_owned(),
        }
    }

    /// How records are written that are of no table.
    pub fn format(&self) -> Format {
        self.events.format
    }

    /// How the records of a table with these columns are written.
    pub fn options<'a>(&self, table: &TableIdentity, columns: impl IntoIterator<Item = &'a str>) -> EncodeOptions {
        let own = self.own(table);
        let mut options = own.map_or(&self.events, |own| &own.events).clone();
        let rule = |column: &str| Some((column.to_owned(), self.columns.rule(table, column)?));
        // The first name is the table's own: partitions that come under their own names have topics of their own.
        options.topic = self.topic(table);
        options.key = own.and_then(|own| own.key.clone());
        options.columns = columns.into_iter().filter_map(rule).collect();
        options
    }

    /// The plan by which the records of a table are written.
    ///
    /// # Errors
    /// There can be none.
    pub fn plan(
        &self,
        relation: &Relation,
        table: &TableIdentity,
        facts: &TableFacts,
        naming: &Naming,
    ) -> Result<TablePlan, PlanError> {
        let options = self.options(table, relation.columns.iter().map(|column| column.name.as_str()));
        TablePlan::compile(relation, facts, naming, &options)
    }

    /// The topics of a table: its own, and that of its dead letters if there are to be any.
    pub fn topics(&self, table: &TableIdentity) -> Vec<String> {
        let events = self.own(table).map_or(&self.events, |own| &own.events);
        let topic = self.topic(table).map(|topic| encoder::legal_topic(&topic));
        let letters = topic.as_ref().map(|topic| encoder::dead_letter_topic(topic));
        let has_letters = events.unrepresentable == Unrepresentable::DeadLetter
            || self.on_incompatible(table) == OnIncompatible::Quarantine;
        topic.into_iter().chain(letters.filter(|_| has_letters)).collect()
    }

    /// The topic of a table, by its name and its routes.
    pub fn topic(&self, table: &TableIdentity) -> Option<String> {
        let (schema, name) = table.names.first()?;
        let names = Names { name: &self.name, database: &self.database, schema, table: name };
        Some(match self.own(table).and_then(|own| own.topic.as_ref()) {
            Some(template) => template.expand(names),
            None => self.routing.topic(names),
        })
    }

    /// How many partitions the topic of a table is to have when it is created, where that is otherwise for it.
    pub fn partitions(&self, table: &TableIdentity) -> Option<i32> {
        self.own(table)?.partitions
    }

    /// What `[[tables]]` may have meant for a table of which nobody can say what it was a partition of: the first pattern before those
    /// that match a name of it.
    pub fn doubt(&self, table: &TableIdentity) -> Option<&TablePattern> {
        let mut before = self.tables.iter().take_while(|own| !table.is_certain && !own.matches(table));
        before.find_map(|own| own.tables.first())
    }

    /// What becomes of a table whose schemas are refused.
    pub fn on_incompatible(&self, table: &TableIdentity) -> OnIncompatible {
        self.policies(table).on_incompatible
    }

    /// What becomes of rows of a table of which nothing says which key they had. Where the configuration has said which columns are the key,
    /// no row is in doubt.
    pub fn on_uncertain_key(&self, table: &TableIdentity) -> Option<OnUncertainKey> {
        let is_configured = self.own(table).is_some_and(|own| own.key.is_some());
        (!is_configured).then(|| self.policies(table).on_uncertain_key)
    }

    fn policies(&self, table: &TableIdentity) -> &Policies {
        self.own(table).map_or(&self.policies, |own| &own.policies)
    }

    fn own(&self, table: &TableIdentity) -> Option<&TableOverride> {
        self.tables.iter().find(|own| own.matches(table))
    }
}

#[cfg(test)]
mod tests {
    use encoder::{ColumnRule, Mask};

    use super::*;

    fn shaping(columns: &str) -> Shaping {
        let text = format!(
            "name = \"shop\"\n[postgres]\nurl = \"postgres://ann@db/shop\"\ntables = [\"public.*\"]\n\
             [kafka]\nbootstrap_servers = \"kafka:9092\"\n[columns]\n{columns}\n"
        );
        Shaping::new(&Config::parse(&text, []).unwrap_or_else(|error| panic!("{error}")))
    }

    fn left(shaping: &Shaping, table: &TableIdentity, columns: &[&str]) -> Vec<String> {
        let options = shaping.options(table, columns.iter().copied());
        let word = |column: &&str| match options.columns.get(*column) {
            None => Some((*column).to_owned()),
            Some(ColumnRule::Exclude) => None,
            Some(ColumnRule::Mask(Mask::Fixed(text))) => Some(format!("{column}={text}")),
            Some(ColumnRule::Mask(mask)) => Some(format!("{column}={mask:?}")),
        };
        columns.iter().filter_map(word).collect()
    }

    #[test]
    fn a_topic_is_routed_from_what_the_template_gives() {
        let topic = |keys: &str, table: &str| {
            let text = format!("exclude = []\n[kafka.topics]\n{keys}");
            shaping(&text).options(&TableIdentity::plain("public", table), []).topic.expect("it is told")
        };
        assert_eq!(topic("", "a b"), "shop.public.a_b");
        assert_eq!(topic("template = \"{database}-{table}\"", "orders"), "shop-orders");
        let routes = "template = \"{schema}.{table}\"\nroutes = [{ match = 'public\\.(.*)_\\d+', topic = \"$1_all\" }, \
                      { match = 'public\\..*', topic = \"rest\" }]";
        assert_eq!(topic(routes, "orders_7"), "orders_all");
        assert_eq!(topic(routes, "items"), "rest");
        assert_eq!(topic("routes = [{ match = 'public', topic = \"x\" }]", "orders"), "shop.public.orders");
    }

    #[test]
    fn the_first_of_the_tables_that_matches_is_for_a_table() {
        use encoder::{Decimals, Times};
        let rules = shaping(
            "[kafka.topics]\nroutes = [{ match = '.*', topic = \"routed\" }]\n[events]\ntimes = \"connect\"\n\
             [[tables]]\nmatch = [\"public.orders\", \"*.items\"]\ntopic = \"{table}-own\"\npartitions = 12\n\
             events.decimals = \"string\"\n[[tables]]\nmatch = \"*.*\"\n[tables.events]\ntombstones = false",
        );
        let told = |table: &str| {
            let table = TableIdentity::plain("public", table);
            let options = rules.options(&table, []);
            let topic = options.topic.expect("it is told");
            (topic, rules.partitions(&table), options.decimals, options.times, options.tombstones)
        };
        assert_eq!(told("items"), ("items-own".to_owned(), Some(12), Decimals::String, Times::Connect, true));
        assert_eq!(told("users"), ("routed".to_owned(), None, Decimals::Precise, Times::Connect, false));
    }

    #[test]
    fn what_becomes_of_a_table_whose_schema_is_refused_is_for_all_or_for_one() {
        use OnIncompatible::{Quarantine, Stop};
        let policies = |keys: &str| {
            let rules = shaping(&format!("exclude = []\n{keys}"));
            ["orders", "users"].map(|table| rules.on_incompatible(&TableIdentity::plain("public", table)))
        };
        let own = |policy: &str| format!("[[tables]]\nmatch = \"public.orders\"\non_incompatible = \"{policy}\"");
        let all = "[schema_registry]\non_incompatible = \"quarantine\"\n";
        assert_eq!(policies(""), [Stop, Stop]);
        assert_eq!(policies(&own("quarantine")), [Quarantine, Stop]);
        assert_eq!(policies(&format!("{all}{}", own("stop"))), [Stop, Quarantine]);
        assert_eq!(policies(&format!("{all}[[tables]]\nmatch = \"*.*\"")), [Quarantine, Quarantine]);
    }

    const COLUMNS: &[&str] = &["id", "email", "ssn"];

    #[test]
    fn an_exclusion_rules_and_the_first_mask_that_matches_is_applied() {
        let users = TableIdentity::plain("public", "users");
        let orders = TableIdentity::plain("public", "orders");
        let rules = shaping(
            "exclude = [\"*.*.ssn\"]\nmasks = [{ columns = [\"public.users.*mail\"], mask = \"fixed\", text = \"1\" }, \
             { columns = [\"*.*.email\", \"*.*.ssn\"], mask = \"fixed\", text = \"2\" }]",
        );
        assert_eq!(left(&rules, &users, COLUMNS), ["id", "email=1"]);
        assert_eq!(left(&rules, &orders, COLUMNS), ["id", "email=2"]);
        let included = shaping("include = [\"public.users.*\", \"*.*.id\"]\nexclude = [\"public.users.ssn\"]");
        assert_eq!(left(&included, &users, COLUMNS), ["id", "email"]);
        assert_eq!(left(&included, &orders, COLUMNS), ["id"]);
    }

    #[test]
    fn a_partition_obeys_the_rules_of_its_root() {
        let rules = shaping(
            "include = [\"*.users.*\"]\nexclude = [\"public.users.ssn\"]\n\
             masks = [{ columns = [\"public.users.email\"], mask = \"fixed\", text = \"1\" }]",
        );
        let names = |names: &[&str]| names.iter().map(|name| ("public".to_owned(), (*name).to_owned())).collect();
        let leaf = TableIdentity { names: names(&["users_1", "users"]), is_certain: true };
        assert_eq!(left(&rules, &leaf, COLUMNS), ["id", "email=1"]);
    }

    #[test]
    fn in_doubt_nothing_is_taken_for_otherwise() {
        let text = |tables: &[&str]| {
            let entries = tables.iter().map(|table| format!("[[tables]]\nmatch = \"{table}\"\n"));
            format!("exclude = []\n{}", entries.collect::<String>())
        };
        let doubt = |tables: &[&str], is_certain| {
            let table = TableIdentity { is_certain, ..TableIdentity::plain("public", "users_1") };
            shaping(&text(tables)).doubt(&table).map(ToString::to_string)
        };
        assert_eq!(doubt(&[], false), None);
        assert_eq!(doubt(&["public.users"], true), None);
        assert_eq!(doubt(&["public.users"], false).as_deref(), Some("public.users"));
        assert_eq!(doubt(&["public.users_1", "public.users"], false), None, "the first that matches is for it");
        assert_eq!(doubt(&["public.users", "public.users_1"], false).as_deref(), Some("public.users"));
        assert_eq!(doubt(&["*.*"], false), None);
    }

    /// Nobody can say whether its rows are of a table whose values are to be hidden.
    #[test]
    fn in_doubt_a_column_is_hidden() {
        let rules = shaping(
            "exclude = [\"public.users.ssn\"]\nmasks = [{ columns = [\"public.users.email\"], mask = \"fixed\", text = \"1\" }]",
        );
        let gone = TableIdentity { is_certain: false, ..TableIdentity::plain("public", "users_1") };
        assert_eq!(left(&rules, &gone, COLUMNS), ["id", "email=1"]);
        let known = TableIdentity::plain("public", "users_1");
        assert_eq!(left(&rules, &known, COLUMNS), COLUMNS);
    }
}

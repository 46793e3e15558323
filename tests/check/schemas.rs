//! What could not be written.

use crate::case::{Case, SECRETS};

#[test]
fn rules_of_columns_that_cannot_be_applied_are_named() {
    let mut case = Case::new("columns");
    case.sql("CREATE TABLE users (id int PRIMARY KEY, email text, born date)");
    let rules = |rules: &str| format!("[columns]\n{rules}");
    case.kafka = rules(r#"exclude = ["public.users.id", "public.users.emial", "later.*.*"]"#);
    let checked = case.check();
    checked.refuses(
        "column-rule-unfit",
        "column \"id\" of public.users is part of the key, and cannot be left out",
        "[columns]",
    );
    checked.refuses("pattern-unmatched", "public.users.emial: ", "columns.exclude");
    assert_eq!(checked.one("warning", "pattern-unmatched")["about"], "later.*.*");
    for (mask, found) in [
        (
            r#"columns = "*.users.id", mask = "asterisks""#,
            "column \"id\" of public.users is part of the key, and masked like this",
        ),
        (
            r#"columns = "*.users.born", mask = "truncate", characters = 4"#,
            "column \"born\" of public.users is no string",
        ),
    ] {
        case.kafka = rules(&format!("masks = [{{ {mask} }}]"));
        let checked = case.check();
        checked.refuses("column-rule-unfit", found, "[columns]");
        checked.has_only_errors(&["column-rule-unfit"]);
    }
    case.kafka = rules(&format!(
        "exclude = [\"*.users.born\"]\nhash_salt = {:?}\nmasks = [{{ columns = [\"*.users.id\", \"*.*.email\"], mask = \"hash\" }}]",
        SECRETS[1]
    ));
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
}

#[test]
fn what_is_otherwise_for_a_table_is_checked_for_that_one() {
    let mut case = Case::new("otherwise");
    case.sql("CREATE TABLE items (id int PRIMARY KEY)");
    let topic = |table: &str| format!("{}.public.{table}", case.name);
    case.create_topic(&topic("items"), 2, &[]);
    let (items, orders) = (topic("items"), topic("orders"));
    case.kafka = "[[tables]]\nmatch = [\"public.items\", \"later.*\"]\npartitions = 3\n\
                  [[tables]]\nmatch = \"public.orders\"\npartitions = 7"
        .into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    let partitions = checked.one("warning", "topic-partitions");
    assert_eq!(partitions["about"], items.as_str());
    assert_eq!(partitions["found"], "it has 2 partitions, and partitions in its [[tables]] is 3");
    assert_eq!(checked.one("warning", "pattern-unmatched")["about"], "later.*");
    assert!(checked.text.contains(&format!("run creates {orders} (partitions: 7")), "{}", checked.text);
    case.kafka = "[[tables]]\nmatch = \"public.order\"\npartitions = 3".into();
    case.check().refuses("pattern-unmatched", "public.order: ", "[[tables]]");
}

#[test]
fn a_topic_that_two_tables_would_share_or_that_is_none_is_named() {
    let mut case = Case::new("routes");
    case.sql("CREATE TABLE items (id int PRIMARY KEY)");
    case.kafka =
        "[kafka.topics]\ntemplate = \"{name}-{table}\"\nroutes = [{ match = '.*-(.).*', topic = \"check_routed_$1\" }]"
            .into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
    assert!(checked.text.contains("run creates check_routed_i, check_routed_o"), "{}", checked.text);
    case.kafka = "[kafka.topics]\nroutes = [{ match = '.*', topic = \"check_routed\" }]".into();
    let checked = case.check();
    checked.refuses("topic-collision", "public.items, public.orders would share this topic", "kafka.topics.routes");
    // Where somebody else publishes, what is not published is in nobody's way yet.
    case.kafka.clear();
    case.sql(
        "CREATE TABLE \"ord$ers\" (id int PRIMARY KEY); CREATE TABLE ord_ers (id int PRIMARY KEY);
              CREATE PUBLICATION sold FOR TABLE orders, items, ord_ers",
    );
    case.postgres = "manage = false\npublication = \"sold\"".into();
    let checked = case.check();
    let warning = checked.one("warning", "topic-collision");
    let why = warning["why"].as_str().expect("a text");
    assert!(why.starts_with("public.ord$ers is not published: as soon as two of them are"), "{why}");
    assert!(checked.of("topic-collision", "error").is_empty(), "{}", checked.text);
    for sql in [
        "ALTER PUBLICATION sold ADD TABLE \"ord$ers\"",
        "DROP PUBLICATION sold; CREATE PUBLICATION sold FOR ALL TABLES",
    ] {
        case.sql(sql);
        case.check().refuses(
            "topic-collision",
            "public.ord$ers, public.ord_ers would share this topic",
            "kafka.topics.routes",
        );
    }
    case.sql("DROP TABLE \"ord$ers\", ord_ers");
    case.postgres.clear();
    case.kafka = "[kafka.topics]\nroutes = [{ match = '.*items', topic = \"..\" }]".into();
    let checked = case.check();
    checked.refuses("schema-unrepresentable", "\"..\" is no name of a topic", "kafka.topics.template");
}

/// The plans are those of the stream, and so are the names that the configuration asks for.

#[test]
fn names_are_what_the_configuration_makes_of_them() {
    let mut case = Case::new("names");
    case.sql(r#"CREATE TABLE words (id int PRIMARY KEY, "a b" text, a_b text)"#);
    let checked = case.check();
    checked.refuses("schema-unrepresentable", "\"a b\" and \"a_b\"", "events.names = \"avro_unicode\"");
    case.kafka = "[events]\nnames = \"none\"".into();
    let checked = case.check();
    checked.refuses("schema-unrepresentable", "\"a b\", a name of public.words", "events.names = \"avro\"");
    checked.has_only_errors(&["schema-unrepresentable"]);
    case.kafka = "[events]\nnames = \"avro_unicode\"".into();
    let checked = case.check();
    assert_eq!(checked.exit_code, 0, "{}", checked.text);
}

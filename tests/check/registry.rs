//! The schema registry, built in or not.

use crate::case::Case;

#[test]
fn a_schema_that_the_registry_would_refuse_is_named() {
    let case = Case::new("registry");
    let subject = format!("{}.public.orders-value", case.name);
    let body = serde_json::json!({ "schema": r#"{"type":"string"}"# }).to_string();
    case.registry_request("POST", &format!("/subjects/{subject}/versions"), &body);
    case.registry_request("PUT", &format!("/config/{subject}"), r#"{"compatibility":"BACKWARD"}"#);
    let checked = case.check();
    checked.refuses("registry-incompatible", &subject, &format!("PUT /config/{subject}"));
    checked.refuses("registry-incompatible", "under level BACKWARD", "undo the change");
    checked.has_only_errors(&["registry-incompatible"]);
}

#[test]
fn a_url_that_is_no_registry_is_told() {
    let mut case = Case::new("no_registry");
    case.registry_url = case.registry_url.replace("/apis/ccompat/v7", "/nowhere");
    let checked = case.check();
    checked.refuses("registry-unreachable", "404", "schema_registry.url");
    checked.has_only_errors(&["registry-unreachable"]);
}

#[test]
fn the_built_in_registry_is_examined_and_nothing_is_written() {
    let mut case = Case::new("built_in");
    let topic = format!("_schemas_{}", case.name);
    case.schema_topic = Some(topic.clone());
    let checked = case.check();
    checked.has_only_errors(&[]);
    assert!(checked.one("ok", "schema-topic")["found"].as_str().unwrap_or_default().contains("run creates it"));
    assert!(checked.one("ok", "registry-subjects")["found"].as_str().unwrap_or_default().contains("2 new"));
    assert!(!case.topics().contains(&topic), "the topic was created");

    case.create_topic(&topic, 1, &[("cleanup.policy", "compact")]);
    let subject = format!("{}.public.orders-value", case.name);
    let writer = publisher::ExclusiveWriter::take(&case.kafka_settings().named(format!("{}_writer", case.name)));
    let key = format!(r#"{{"keytype":"SCHEMA","subject":"{subject}","version":1,"magic":1}}"#);
    let value = format!(r#"{{"subject":"{subject}","version":1,"id":1,"schema":"\"string\"","deleted":false}}"#);
    let written = writer.and_then(|writer| writer.write(&topic, key.as_bytes(), value.as_bytes()));
    let writer = written.and_then(publisher::Written::commit).expect("it is written");
    let checked = case.check();
    checked.refuses("registry-incompatible", "under level BACKWARD", "kafka-console-producer.sh");
    checked.refuses("registry-incompatible", &subject, "\"compatibilityLevel\":\"NONE\"");
    checked.has_only_errors(&["registry-incompatible"]);

    writer.write(&topic, b"{", b"").and_then(publisher::Written::commit).map(drop).expect("it is written");
    let checked = case.check();
    checked.refuses("registry-refused", "its key is no key of a schema registry", "see who wrote it");

    let wide = format!("{topic}_wide");
    case.create_topic(&wide, 2, &[("cleanup.policy", "compact")]);
    case.schema_topic = Some(wide);
    case.check().refuses("schema-topic", "has 2 partitions", "set schema_registry.topic");
    let short = format!("{topic}_short");
    case.create_topic(&short, 1, &[("cleanup.policy", "delete")]);
    case.schema_topic = Some(short);
    case.check().refuses("schema-topic", "is delete", "--add-config cleanup.policy=compact");
}

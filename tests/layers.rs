//! Dependencies point one way. See "Code map" in ARCHITECTURE.md.

use std::{collections::BTreeSet, fs, path::Path};

/// Each crate of the workspace, and those of the workspace that it may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("pgoutput", &[]),
    ("walreceiver", &["pgoutput"]),
    ("encoder", &["pgoutput"]),
    ("publisher", &["pgoutput"]),
    ("registry", &[]),
];

/// What a library must not use: it returns facts, and leaves it to the program to show them.
const FORBIDDEN: &[&str] = &["prometheus", "clap", "axum", "anyhow", "tracing-subscriber"];
/// What one may use and no other: whoever has no Kafka builds those without librdkafka.
const RESERVED: &[(&str, &[&str])] = &[("rdkafka", &["publisher"]), ("rdkafka-sys", &["publisher"])];

#[test]
fn dependencies_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found: BTreeSet<String> = fs::read_dir(root.join("crates"))
        .expect("there is a folder of crates")
        .map(|entry| entry.expect("it can be listed").file_name().into_string().expect("names are UTF-8"))
        .collect();
    let expected: BTreeSet<String> = ALLOWED.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, expected, "a new crate has its place in this test");

    for (name, allowed) in ALLOWED {
        let text = fs::read_to_string(root.join("crates").join(name).join("Cargo.toml")).expect("it has a manifest");
        let manifest: toml::Table = text.parse().expect("it is TOML");
        let used = manifest["dependencies"].as_table().expect("it has dependencies");
        for dependency in used.keys() {
            assert!(!FORBIDDEN.contains(&dependency.as_str()), "{name} must not use {dependency}");
            if let Some((_, users)) = RESERVED.iter().find(|(reserved, _)| reserved == dependency) {
                assert!(users.contains(name), "{name} must not use {dependency}");
            }
            assert!(dependency != "pgsluice", "{name} must not use the program");
            if expected.contains(dependency) {
                assert!(allowed.contains(&dependency.as_str()), "{name} must not use {dependency}");
            }
        }
    }
}

//! A consumer that nobody here wrote: Confluent's Python client, with schemas from the built-in registry.
//!
//! It is installed from the Python package index into a folder that goes with the test. Where that cannot be done the test says so, on the terminal, and shows
//! nothing; with `PGSLUICE_TEST_PYTHON_CLIENT=required` it fails instead.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::harness::{stack::Stack, stream::Stream};

const PACKAGE: &str = "confluent-kafka[avro,schemaregistry]==2.16.1";

#[test]
fn confluents_own_client_reads_the_topic_and_the_registry() {
    let folder = tempfile::tempdir().expect("a folder");
    let python = match install(folder.path()) {
        Ok(python) => python,
        Err(why) => {
            let required = std::env::var("PGSLUICE_TEST_PYTHON_CLIENT").is_ok_and(|value| value == "required");
            assert!(!required, "{why}");
            // Past the harness, which keeps what a test prints to itself as long as it passes.
            let told = format!("\nNOT SHOWN: that {PACKAGE} reads what pgsluice writes. {why}\n");
            std::io::stderr().write_all(told.as_bytes()).expect("a terminal");
            return;
        }
    };
    let stack = Stack::shared();
    let topic = format!("_schemas_python_{}", std::process::id());
    let stream = Stream::create_with_built_in_registry(&stack, "python", &topic);
    stream.database.create_tables("create table public.item (id bigint primary key, price numeric(10,2), placed date)");
    let program = stream.start_ready();
    stream.database.execute("insert into public.item values (1, 12.50, '2024-02-29'), (2, null, null)");
    stream.database.execute("alter table public.item add note text");
    stream.database.execute("update public.item set note = 'é' where id = 1; delete from public.item where id = 2");
    stream.drain();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end/confluent_client.py");
    let output = Command::new(python)
        .arg(script)
        .args([&stream.bootstrap_servers, &stream.registry_url, &stream.topic("item")])
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    program.terminate();

    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let registry = lines.pop().expect("a last line");
    let item = stream.topic("item");
    assert_eq!(
        registry,
        json!({
            "subjects": [format!("{item}-key"), format!("{item}-value")],
            "versions": [1, 2], "latest": 2, "lookup": true, "by_id": true,
            "level": "BACKWARD", "compatible": true, "incompatible": false,
        })
    );
    // Each key's own order holds; keys are in different partitions.
    let of = |id: u64| -> Vec<(Value, Value)> {
        let wanted = lines.iter().filter(|line| line["key"] == json!({ "id": id }));
        wanted.map(|line| (line["value"]["op"].clone(), line["value"]["after"].clone())).collect()
    };
    assert_eq!(
        of(1),
        [
            (json!("c"), json!({ "id": 1, "price": "12.50", "placed": 19_782 })),
            (json!("u"), json!({ "id": 1, "price": "12.50", "placed": 19_782, "note": "é" })),
        ]
    );
    assert_eq!(
        of(2),
        [
            (json!("c"), json!({ "id": 2, "price": null, "placed": null })),
            (json!("d"), Value::Null),
            // The tombstone.
            (Value::Null, Value::Null),
        ]
    );
}

/// A Python that has the client; or why there is none.
fn install(folder: &Path) -> Result<PathBuf, String> {
    let run = |command: &mut Command, fix: &str| -> Result<(), String> {
        let told = |output: Output| {
            let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            text.trim().lines().last().unwrap_or_default().to_owned()
        };
        match command.output() {
            Ok(output) if output.status.success() => Ok(()),
            Ok(output) => Err(format!("{command:?} failed: {}. {fix}", told(output))),
            Err(error) => Err(format!("{command:?} cannot run: {error}. {fix}")),
        }
    };
    let python = folder.join("bin/python");
    run(Command::new("python3").args(["-m", "venv"]).arg(folder), "Install python3-venv.")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]);
    run(&mut pip, "It needs PyPI, or an index that pip is configured for.")?;
    Ok(python)
}

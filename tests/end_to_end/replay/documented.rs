//! docs/replay.md is played.

use std::process::Command;

use regex::Regex;

use crate::{
    documented::{self, Played, Step},
    harness::{stack::Stack, stream::Stream},
};

#[test]
fn the_documentation_shows_what_is_said() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "replay_documented");
    stream.set("kafka.topics.partitions", "1");
    stream
        .database
        .execute("create table public.orders (id int primary key, customer text, amount numeric(10,2), status text)");
    let program = stream.start_ready();
    // Each is a Kafka transaction of its own, so that offsets are the same every time.
    let play = |sql: &str| {
        stream.database.execute(sql);
        stream.drain();
    };
    play("insert into public.orders values (1, 'ann', 12.50, 'open')");
    play("insert into public.orders values (2, 'bob', 4.00, 'open')");
    let lsn = pgoutput::Lsn::from(stream.database.wal_lsn()).to_string();
    play("update public.orders set status = 'paid' where id = 1");
    play("delete from public.orders where id = 2");
    play("insert into public.orders values (3, 'cyd', 99.90, 'paid')");
    program.terminate();
    stream.set("postgres.url", "postgres://nobody@127.0.0.1:1/none");

    let an_lsn = Regex::new("[0-9A-F]{1,8}/[0-9A-F]{5,8}").expect("an expression");
    let a_time = Regex::new(r"\d{4}-\d\d-\d\dT[0-9:.]+Z|\d{13}").expect("an expression");
    let spaces = Regex::new(" +").expect("an expression");
    let plain = |text: &str| {
        let text = an_lsn.replace_all(text, "LSN");
        let text = a_time.replace_all(&text, "TIME");
        spaces.replace_all(&text, " ").into_owned()
    };
    documented::play("docs/replay.md", plain, |step| {
        let Step::Command(command) = step else { return None };
        let command = an_lsn.replace_all(command, lsn.as_str()).into_owned();
        let output = run(&stream, &command);
        Some(Played { command, output })
    });
}

/// Both of what it says, under the names of the page.
fn run(stream: &Stream, command: &str) -> String {
    let command = command.replace("shop", &stream.name).replace("pgsluice", env!("CARGO_BIN_EXE_pgsluice"));
    let output = Command::new("sh")
        .args(["-c", &command])
        .env("PGSLUICE_CONFIG", stream.config_path())
        .envs(stream.environment())
        .output()
        .expect("a shell runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("it is text");
    // The column is as wide as the topic's real name.
    let narrow = format!("TOPIC{}", " ".repeat(stream.name.len() - "shop".len()));
    said.replace(&narrow, "TOPIC").replace(&stream.name, "shop")
}

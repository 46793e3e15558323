//! What systemd is told, by a socket in its place.

use std::{collections::BTreeSet, os::unix::net::UnixDatagram, time::Duration};

use crate::harness::{stack::Stack, stream::Stream};

#[test]
fn systemd_is_told_of_the_start_of_life_and_of_the_end() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "service");
    stream.database.create_tables("create table public.item (id int primary key)");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_mins(1))).expect("a limit");
    let address = path.to_str().expect("UTF-8");
    let mut program = stream.start_with(&[], &[("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "200000")]);
    let mut told = BTreeSet::new();
    let mut await_told = |wanted: &str| {
        while !told.contains(wanted) {
            let mut buffer = [0; 4096];
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted} is not told: {error}"));
            told.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
    };
    // It is up before it streams: what it waits for may be what systemd starts after it.
    await_told("READY=1");
    await_told("WATCHDOG=1");
    program.await_ready();
    await_told("STATUS=streaming");
    program.signal("TERM");
    await_told("STOPPING=1");
    program.wait(Duration::from_mins(1), "it ends");
}

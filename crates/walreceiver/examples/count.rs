//! Counts the rows that a slot streams, and what counting costs: the ceiling for whatever is built on this crate.
//!
//! ```sh
//! cargo run --release -p walreceiver --example count -- URL SLOT PUBLICATION ROWS
//! ```
//!
//! It confirms nothing, so that the same slot can be counted again.

use std::{
    env, fs,
    time::{Duration, Instant},
};

use pgoutput::{Frame, Lsn};
use walreceiver::{ConnectOptions, ReplicationClient, StreamSettings, publication_names};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [url, slot, publication, rows] = arguments.as_slice() else {
        return Err("arguments: URL SLOT PUBLICATION ROWS".into());
    };
    let (options, rows_wanted): (ConnectOptions, u64) = (url.parse()?, rows.parse()?);

    let client = ReplicationClient::connect(&options).await?;
    let publications = publication_names(&[publication.as_str()]);
    let plugin_options = [("proto_version", "1"), ("publication_names", publications.as_str())];
    let begun = (Instant::now(), cpu_time()?);
    let (mut reader, feedback) =
        client.start_replication(&slot.parse()?, Lsn::INVALID, &plugin_options, StreamSettings::default()).await?;

    let (mut rows, mut bytes, mut frames, mut chunks, mut idle) = (0_u64, 0, 0, 0_u64, 0_u64);
    while rows < rows_wanted {
        let chunk = reader.read().await?;
        bytes += chunk.bytes();
        frames += chunk.frames_len();
        chunks += 1;
        idle += u64::from(chunk.source_idle());
        for frame in chunk {
            if let Frame::WalData(data) = frame? {
                rows += u64::from(matches!(data.payload.first(), Some(b'I' | b'U' | b'D')));
            }
        }
    }
    let (elapsed, cpu) = (begun.0.elapsed(), cpu_time()?.saturating_sub(begun.1));
    println!(
        "{rows} rows, {frames} frames, {bytes} bytes to {} in {:.2} s: {} rows/s, {:.2} s of CPU a million rows; {chunks} chunks, \
         {idle} of them idle",
        feedback.received(),
        elapsed.as_secs_f64(),
        u128::from(rows) * 1000 / elapsed.as_millis().max(1),
        cpu.as_secs_f64() * 1e6 / f64::from(u32::try_from(rows)?),
    );
    reader.shutdown(Duration::from_secs(5)).await?;
    Ok(())
}

/// User and system time of this process, from `/proc`, whose tick is a hundredth of a second on Linux.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit_once(')').ok_or("no name in /proc/self/stat")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 10))
}

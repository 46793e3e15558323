//! `pgsluice run`

use std::{process::ExitCode, sync::Arc};

use clap::Args;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

use super::{ConfigFile, init_logging, runtime};
use crate::{
    checkpoint::start::OperatorWord,
    failure::{Code, Failure},
    http::{self, Served},
    metrics::{self, Metrics},
    pipeline::{self, Launch},
    schemas::Schemas,
    service,
    snapshot::control::SnapshotControl,
};

/// Stream until told to stop.
#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    config: ConfigFile,
    /// Begin at the slot's position although Kafka holds no checkpoint for this stream. For one start, on an operator's word.
    #[arg(long)]
    adopt_slot: bool,
    /// Go on although changes between the checkpoint and the slot are lost. For one start, on an operator's word.
    #[arg(long)]
    accept_gap: bool,
    /// Wait as long as another instance reads from the slot, and take over once it has gone. Without this a start takes over at once.
    #[arg(long)]
    standby: bool,
}

impl Run {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let config = self.config.load()?;
        init_logging(&config);
        info!(version = env!("CARGO_PKG_VERSION"), name = config.name.as_str(), "pgsluice");
        let launch = Launch {
            word: OperatorWord { adopt_slot: self.adopt_slot, accept_gap: self.accept_gap },
            stands_by: self.standby,
        };
        let runtime = runtime()?;
        let outcome = runtime.block_on(async {
            let memory_limit = usize::try_from(config.memory_limit_bytes).unwrap_or(usize::MAX);
            let metrics = Arc::new(Metrics::new(pipeline::in_flight_bytes(memory_limit) as u64));
            let (ask, stop) = watch::channel(false);
            let signals = listen_for_signals(ask)?;
            let schemas = Schemas::new(&config, &pipeline::observed_kafka_settings(&config, &metrics))?;
            schemas.observe(metrics.registry_errors());
            let snapshot = Arc::new(SnapshotControl::default());
            let served = Served {
                name: config.name.as_str().to_owned(),
                metrics: Arc::clone(&metrics),
                registry: schemas.built_in(),
                snapshot: Arc::clone(&snapshot),
            };
            let server = http::serve(&config.http, served, stop.clone()).await?;
            let told = tokio::spawn(service::tell(Arc::clone(&metrics)));
            let history = tokio::spawn(metrics::history::keep(Arc::clone(&metrics)));
            let copies = tokio::spawn(metrics::copies::keep(Arc::clone(&metrics), Arc::clone(&snapshot)));
            let outcome = Box::pin(pipeline::supervise(config, launch, metrics, schemas, snapshot, stop)).await;
            told.abort();
            history.abort();
            copies.abort();
            signals.abort();
            server.abort();
            outcome
        });
        // A blocking call to Kafka may outlast its session; nothing that it could still do counts.
        runtime.shutdown_background();
        outcome.map(|()| ExitCode::SUCCESS)
    }
}

/// The first SIGTERM or SIGINT asks to stop; a second one does not wait for it.
fn listen_for_signals(ask: watch::Sender<bool>) -> Result<tokio::task::JoinHandle<()>, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::caused(Code::Internal, error));
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    Ok(tokio::spawn(async move {
        let mut asked = false;
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if asked {
                warn!(signal = name, "stopping at once: what is not committed is read again at the next start");
                std::process::exit(1);
            }
            info!(signal = name, "stopping: what was read is committed and confirmed first");
            asked = true;
            service::tell_stopping();
            ask.send_replace(true);
        }
    }))
}

//! `pgsluice top`

mod draw;
mod words;

use std::{
    io::{self, IsTerminal, Write},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Cell,
    crossterm::event::{self, Event, KeyCode, KeyModifiers},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use self::draw::View;
use super::{
    ConfigFile,
    instance::{Address, Instance},
    runtime,
};
use crate::{
    failure::{Code, Failure},
    http::status::PATH,
    metrics::status::Status,
};

/// How often the instance is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The frame that is printed: as wide as a pipe's reader likes, and as high as what there is.
const FRAME_COLUMNS: u16 = 100;
const FRAME_LINES: u16 = 48;

/// Show a running instance in the terminal: whether it is well, how far it is, and what goes through. `q` ends it.
#[derive(Debug, Args)]
pub(super) struct Top {
    #[command(flatten)]
    config: ConfigFile,
    /// Where the instance listens, if not at `http.listen`. With it no configuration is needed.
    #[arg(long, value_name = "HOST:PORT")]
    instance: Option<Address>,
    /// Print one frame as text, and end.
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let instance = match self.instance {
            // What it shows is for whoever may read: no token is needed.
            Some(address) => Instance::new(address, None),
            None => Instance::new(self.config.load()?.http.listen.into(), None),
        };
        let runtime = runtime()?;
        if self.once {
            let status = runtime.block_on(instance.get::<Status>(PATH))?;
            let mut view = View::unknown(instance.address().clone(), "");
            view.take(Ok(status));
            print(&frame(&view, FRAME_COLUMNS, FRAME_LINES))?;
        } else if io::stdout().is_terminal() && io::stdin().is_terminal() {
            runtime.block_on(watch(&instance))?;
            // The thread that reads keys waits for one more.
            runtime.shutdown_background();
        } else {
            return Err(Failure::new(
                Code::ArgumentInvalid,
                "there is no terminal to draw in: --once prints one frame",
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Prints to standard output. Whoever has read enough of it, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::caused(Code::Internal, error)),
        _ => Ok(()),
    }
}

/// What is drawn, as lines of text.
fn frame(view: &View, columns: u16, lines: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, lines));
    let Ok(_drawn) = terminal.draw(|frame| draw::draw(frame, view));
    let cells = terminal.backend().buffer().content();
    let lines = cells.chunks(usize::from(columns)).map(|cells| {
        let line: String = cells.iter().map(Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect::<String>().trim_end().to_owned() + "\n"
}

/// The terminal as it was before, however this ends: also by an error. A panic is seen to by ratatui's hook.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// What can happen while it is shown.
enum Happened {
    Key(Event),
    Answer(Box<Result<Status, Failure>>),
    Signal,
    /// Time goes by, and what is shown grows old.
    Tick,
}

async fn watch(instance: &Instance) -> Result<(), Failure> {
    fn broken(error: &io::Error) -> Failure {
        Failure::new(Code::Internal, format!("the terminal cannot be drawn in: {error}"))
    }
    let listen = |kind| signal(kind).map_err(|error| Failure::caused(Code::Internal, error));
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut terminal = ratatui::try_init().map_err(|error| broken(&error))?;
    let _restored = Restored;
    let mut keys = keys();
    let mut view = View::unknown(instance.address().clone(), "q quits ");
    let mut asking = Box::pin(ask(instance, Duration::ZERO));
    loop {
        terminal.draw(|frame| draw::draw(frame, &view)).map_err(|error| broken(&error))?;
        let happened = tokio::select! {
            Some(key) = keys.recv() => Happened::Key(key),
            answer = &mut asking => Happened::Answer(Box::new(answer)),
            _ = terminate.recv() => Happened::Signal,
            _ = interrupt.recv() => Happened::Signal,
            _ = hang_up.recv() => Happened::Signal,
            () = tokio::time::sleep(INTERVAL) => Happened::Tick,
        };
        match happened {
            Happened::Signal => return Ok(()),
            Happened::Key(Event::Key(key)) if is_end(key) => return Ok(()),
            // A terminal of another size is drawn anew, as after every event.
            Happened::Key(_) | Happened::Tick => {}
            Happened::Answer(answer) => {
                view.take(*answer);
                asking = Box::pin(ask(instance, INTERVAL));
            }
        }
    }
}

async fn ask(instance: &Instance, after: Duration) -> Result<Status, Failure> {
    tokio::time::sleep(after).await;
    let answer = tokio::time::timeout(TIMEOUT, instance.get(PATH)).await;
    answer.unwrap_or_else(|_elapsed| {
        let found =
            format!("the instance at http://{} gave no answer within {} s", instance.address(), TIMEOUT.as_secs());
        Err(Failure::new(Code::ControlUnavailable, found))
    })
}

fn is_end(key: event::KeyEvent) -> bool {
    let is_control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    matches!(key.code, KeyCode::Char('q') | KeyCode::Esc) || is_control_c
}

/// What comes from the terminal, read by a thread: there is no other way to wait for it and for the rest.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests;

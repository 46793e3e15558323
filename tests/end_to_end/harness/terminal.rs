//! The program in a terminal of 80 columns and 24 lines, by `script(1)`.

use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

const BOUND: Duration = Duration::from_mins(1);

pub(crate) struct Terminal {
    child: Child,
    keys: ChildStdin,
    output: Receiver<Vec<u8>>,
    text: String,
}

impl Terminal {
    /// Starts a command of the program. Its id is printed before, and after it whether the terminal echoes.
    pub(crate) fn start(arguments: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_pgsluice");
        let script = format!(
            "stty cols 80 rows 24; sh -c 'echo \"PID $$.\"; exec {program} {arguments}'; code=$?; \
             stty -a | grep -q ' echo ' && echo ECHO BACK; exit $code"
        );
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &script, "/dev/null"])
            .env("TERM", "xterm-256color")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script runs");
        let keys = child.stdin.take().expect("a pipe");
        let mut shown = child.stdout.take().expect("a pipe");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = shown.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keys, output, text: String::new() }
    }

    /// Waits until this was written in one piece: of what stands where it stood before, only what differs is written.
    pub(crate) fn await_text(&mut self, part: &str) {
        let began = Instant::now();
        while !self.text.contains(part) {
            assert!(self.hear(began), "{part:?} was not shown: {:?}", self.text);
        }
    }

    /// Whether there was more within the bound.
    fn hear(&mut self, began: Instant) -> bool {
        match self.output.recv_timeout(BOUND.saturating_sub(began.elapsed())) {
            Ok(more) => self.text.push_str(&String::from_utf8_lossy(&more)),
            Err(_) => return false,
        }
        began.elapsed() < BOUND
    }

    /// Types.
    pub(crate) fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("it reads");
    }

    /// SIGTERM for the program.
    pub(crate) fn terminate(&self) {
        let id = self.text.split("PID ").nth(1).and_then(|rest| rest.split('.').next()).expect("an id");
        assert!(Command::new("kill").args(["-TERM", id]).status().expect("kill runs").success());
    }

    /// Everything that was written until the end, and whether it was a success.
    pub(crate) fn end(mut self) -> (String, bool) {
        let began = Instant::now();
        while self.hear(began) {}
        assert!(began.elapsed() < BOUND, "it does not end: {:?}", self.text);
        let status = self.child.wait().expect("it ends");
        (std::mem::take(&mut self.text), status.success())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

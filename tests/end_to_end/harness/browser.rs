//! A headless Chromium, over its own protocol through two pipes.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);

/// One window with one page.
pub(crate) struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: String,
    last_id: u64,
    /// What the console has said that is no mere information, and what was thrown.
    complaints: Vec<String>,
    is_loaded: bool,
    _profile: TempDir,
}

impl Browser {
    /// A browser with an empty page.
    pub(crate) fn start() -> Self {
        let profile = TempDir::with_prefix("pgsluice-browser-").expect("a folder");
        // It reads commands from descriptor 3 and answers on 4. The sandbox wants rights that a container does not give.
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("exec chromium \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1")
            .arg("chromium")
            .args([
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--hide-scrollbars",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let commands = child.stdin.take().expect("a pipe");
        let answers = child.stdout.take().expect("a pipe");
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(answers).split(0) {
                let Some(message) = message.ok().and_then(|message| serde_json::from_slice(&message).ok()) else {
                    return;
                };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let (session, complaints) = (String::new(), Vec::new());
        let mut browser =
            Self { child, commands, messages, session, last_id: 0, complaints, is_loaded: false, _profile: profile };
        let page = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attached = browser.call("Target.attachToTarget", &json!({"targetId": page["targetId"], "flatten": true}));
        attached["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Goes to an address, and waits until everything of it is there.
    pub(crate) fn open(&mut self, url: &str) {
        self.is_loaded = false;
        let answer = self.call("Page.navigate", &json!({"url": url}));
        assert_eq!(answer.get("errorText"), None, "{url}");
        while !self.is_loaded {
            let message = self.messages.recv_timeout(ANSWER_TIMEOUT).expect("chromium tells that the page is loaded");
            self.hear(&message);
        }
    }

    /// A window of this size, and a taste for light or dark.
    pub(crate) fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", &features);
    }

    /// The value of an expression in the page.
    pub(crate) fn value(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", &asked);
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) fn await_true(&mut self, bound: Duration, expression: &str) {
        let began = Instant::now();
        while self.value(expression) != json!(true) {
            let text = self.value("document.body.innerText");
            assert!(began.elapsed() < bound, "not within {bound:?}: {expression}; the page says: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A picture of the whole page, as PNG.
    pub(crate) fn picture(&mut self, file: &Path) {
        let answer = self.call("Page.captureScreenshot", &json!({"format": "png", "captureBeyondViewport": true}));
        let mut decoder = Command::new("base64")
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(std::fs::File::create(file).expect("a file"))
            .spawn()
            .expect("base64 runs");
        let text = answer["data"].as_str().expect("a picture");
        decoder.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
        assert!(decoder.wait().expect("it ends").success());
    }

    /// What the console has said until now that is no mere information, and what was thrown.
    pub(crate) fn complaints(&mut self) -> &[String] {
        // What was said before this answer has come before it.
        self.value("0");
        &self.complaints
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let written = self.commands.write_all(format!("{message}\0").as_bytes());
        assert!(written.is_ok(), "chromium does not run: `dev/stack install --browser` installs it");
        loop {
            let message = self.messages.recv_timeout(ANSWER_TIMEOUT);
            let message = message.unwrap_or_else(|error| {
                panic!("chromium does not answer ({error}): is it there? `dev/stack install --browser` installs it")
            });
            if message["id"] == json!(self.last_id) {
                assert_eq!(message.get("error"), None, "{method}");
                return message["result"].clone();
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, event: &Value) {
        let parameters = &event["params"];
        self.is_loaded |= event["method"] == "Page.loadEventFired";
        let complains = match event["method"].as_str() {
            Some("Runtime.exceptionThrown" | "Page.javascriptDialogOpening") => true,
            Some("Runtime.consoleAPICalled") => {
                matches!(parameters["type"].as_str(), Some("error" | "warning" | "assert"))
            }
            Some("Log.entryAdded") => matches!(parameters["entry"]["level"].as_str(), Some("error" | "warning")),
            _ => false,
        };
        if complains {
            self.complaints.push(event.to_string());
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended already; its children end with its pipes.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

//! The status page, in a browser, and the same in a terminal: they show what there is, and say so when nobody answers.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use pgoutput::Lsn;

use crate::harness::{
    browser::Browser,
    http_get,
    stack::Stack,
    stream::{Program, Stream},
    terminal::Terminal,
    wait_until,
};

/// For a browser that shares a busy machine.
const BOUND: Duration = Duration::from_mins(1);

/// How many of the page's texts have too little contrast with what is behind them, by WCAG 2's formula, and the worst.
const CONTRAST: &str = r"(() => {
  const parse = text => text.match(/[\d.]+/g).map(Number);
  const linear = part => part <= 0.04045 * 255 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const bad = [];
  for (const element of document.body.querySelectorAll('*')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || ['SCRIPT', 'STYLE'].includes(element.tagName)) continue;
    const style = getComputedStyle(element), isDrawn = element instanceof SVGElement;
    const both = [light(parse(isDrawn ? style.fill : style.color)), light(behind(element))].sort((a, b) => b - a);
    const ratio = (both[0] + 0.05) / (both[1] + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${element.tagName} ${element.textContent}`);
  }
  return bad;
})()";

#[test]
fn the_page_shows_the_instance_and_says_when_it_is_gone() {
    let stack = Stack::shared();
    let mut stream = Stream::create(&stack, "status_page");
    stream.set("snapshot.mode", "initial");
    stream.database.create_tables("create table public.item (id int primary key, note text)");
    stream.database.execute(r#"create table public."<script>alert(1)</script>" (id int primary key)"#);
    stream.database.execute("insert into public.item select i from generate_series(1, 5) i");
    // Its copy is paused in its midst.
    stream.set("snapshot.rows_per_second", "500");
    stream.database.create_tables("create table public.large (id int primary key)");
    stream.database.execute("insert into public.large select i from generate_series(1, 4000) i; analyze public.large");
    let program = stream.start_ready();
    let copying = |status: &Value| {
        let tables = status["copies"]["tables"].as_array()?;
        tables.iter().find(|table| table["table"] == "public.large" && table["rows"].as_u64() > Some(0)).cloned()
    };
    wait_until(BOUND, "rows of it are copied", || copying(&told(&program)));
    let address = program.address().expect("it listens").to_owned();
    assert!(stream.command(&["snapshot", "pause", "--instance", &address], &[]).status.success());
    stream
        .database
        .execute("insert into public.item values (11), (12), (13); update public.item set note = 'x' where id < 13");
    stream.database.execute(r#"insert into public."<script>alert(1)</script>" values (1), (2)"#);
    stream.drain();

    let mut browser = Browser::start();
    browser.look(1280, 900, "light");
    browser.open(&format!("http://{address}/"));
    browser.await_true(BOUND, "document.querySelector('#headline').textContent.startsWith('All is well')");
    // Rows of a table are words in it, whatever its name is.
    let row = |name: &str| {
        format!(
            "[...document.querySelectorAll('#tables tr')].filter(row => row.cells[0].textContent === {}) \
             .map(row => [...row.cells].slice(1).map(cell => cell.textContent).join()).join('; ')",
            json!(name)
        )
    };
    // What was there before is no change. Three were inserted; of these and of five from before, seven were updated.
    browser.await_true(BOUND, &format!("{} === '10,3,7,0,0,0'", row("public.item")));
    browser.await_true(BOUND, &format!("{} === '2,2,0,0,0,0'", row("public.<script>alert(1)</script>")));
    assert_eq!(browser.value("document.scripts.length"), json!(1));
    browser.await_true(BOUND, "document.querySelector('#tiles').textContent.includes('streaming')");
    browser.await_true(BOUND, "document.querySelector('#copies-summary').textContent.includes('tables copied')");
    browser.await_true(BOUND, "document.querySelectorAll('#charts path').length > 6");
    assert_eq!(
        browser.value(
            "[...document.querySelectorAll('svg[role=img]')].filter(svg => !svg.getAttribute('aria-label')).length"
        ),
        json!(0)
    );

    metrics_say_the_same(&stream, &program);
    positions_are_those_of_the_server(&stream, &mut browser);
    // A bar that is as long as the copy is far, which is a part of the way.
    let bar = r#"document.querySelector('#copies [role=progressbar][aria-label="public.large"]')"#;
    let percent = wait_until(BOUND, "the bar shows how far the copy is", || {
        let copied = copying(&told(&program))?;
        let (rows, estimated) = (copied["rows"].as_u64()?, copied["rows_estimated"].as_u64()?);
        let shown = browser.value(&format!("{bar} && {bar}.getAttribute('aria-valuenow')"));
        let shown: u64 = shown.as_str()?.parse().ok()?;
        (estimated == 4000 && shown == rows * 100 / estimated).then_some(shown)
    });
    assert!((1..100).contains(&percent), "{percent}");
    let width = format!("100 * {bar}.firstChild.getBoundingClientRect().width / {bar}.getBoundingClientRect().width");
    let drawn = browser.value(&width).as_f64().expect("a number");
    assert!(
        (f64::from(u8::try_from(percent).expect("small")) - drawn).abs() < 3.0,
        "{drawn} % of {percent} are filled"
    );
    browser.await_true(BOUND, "document.querySelector('#copies-summary').textContent.includes('snapshot resume')");

    // A failure stays to be read after it has passed: its code, where it was, what it means and what to do.
    assert_eq!(browser.value("document.querySelector('#failures-section').hidden"), json!(true));
    let sql = format!(
        "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{}'",
        stream.slot
    );
    assert!(stream.database.value::<bool>(&sql));
    browser.await_true(BOUND, "!document.querySelector('#failures-section').hidden");
    browser.await_true(BOUND, "document.querySelector('#headline').textContent.startsWith('All is well')");
    let failure = browser.value("document.querySelector('#failures li').innerText");
    let failure = failure.as_str().expect("a text");
    let server = url::Url::parse(&stream.database.url).expect("a URL");
    let place = format!("{}:{}", server.host_str().expect("a host"), server.port().expect("a port"));
    for part in
        ["postgres-unavailable", &place, "pgsluice explain postgres-unavailable", &fix_of("postgres-unavailable")]
    {
        assert!(failure.contains(part), "{part} is not in {failure}");
    }

    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (name, width, height, scheme) in [
        ("light", 1280, 900, "light"),
        ("dark", 1280, 900, "dark"),
        ("phone", 360, 740, "light"),
        ("phone-dark", 360, 740, "dark"),
    ] {
        browser.look(width, height, scheme);
        let overflows = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
        browser.await_true(BOUND, &format!("innerWidth === {width}"));
        assert_eq!(browser.value(overflows), json!(false), "{name}: it has to be pushed sideways");
        assert_eq!(browser.value(CONTRAST), json!([]), "{name}: it is hard to read");
        browser.picture(&folder.join(format!("status-{name}.png")));
    }
    assert_eq!(browser.complaints().join("\n"), "");

    // The same in a terminal. An instance has a name as often as an address.
    let named = address.replace("127.0.0.1", "localhost");
    let output = stream.command(&["top", "--once", "--instance", &named], &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("All is well") && text.contains("public.<script>alert(1)</script>"),
        "{text}"
    );

    program.kill();
    browser.look(1280, 900, "light");
    browser.await_true(BOUND, "document.body.classList.contains('stale')");
    browser.await_true(BOUND, "document.querySelector('#headline').textContent === 'The instance does not answer.'");
    browser.await_true(BOUND, r"/^from [\d.]+ (s|min) ago$/.test(document.querySelector('#age').textContent)");
    browser.picture(&folder.join("status-gone.png"));
    let output = stream.command(&["top", "--once", "--instance", &address], &[]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("[control-unavailable]"));
}

/// What Debezium's beans have, too: of copies, of what is captured, and of what came last.
fn metrics_say_the_same(stream: &Stream, program: &Program) {
    let metric = |name: &str| program.metric(name);
    wait_until(BOUND, "the metrics have what the copier says", || {
        let is_paused = metric("copies_paused") == Some(1.0) && metric("copies_paused_seconds_total") > Some(0.0);
        (is_paused && metric(r#"copy_tables{state="copying"}"#) == Some(1.0)).then_some(())
    });
    // One that waits for its turn may be among them.
    let of_state = |state: &str| metric(&format!(r#"copy_tables{{state="{state}"}}"#)).expect("it is there");
    let total: f64 = ["not_copied", "waiting", "copying", "put_off", "impossible", "stopped", "copied"]
        .into_iter()
        .map(of_state)
        .sum();
    assert_eq!(metric("captured_tables"), Some(total));
    assert_eq!(metric("captured_tables"), Some(4.0));
    let rows = metric(r#"copying_rows{schema="public",table="large"}"#);
    assert!(rows > Some(0.0) && rows < Some(4000.0), "{rows:?}");
    assert_eq!(metric(r#"copying_estimated_rows{schema="public",table="large"}"#), Some(4000.0));
    assert_eq!(metric(r#"copying_rows{schema="public",table="item"}"#), None, "it is not being copied");
    assert!(metric("copies_began_timestamp_seconds").is_some_and(f64::is_finite));
    assert!(metric("copies_ended_timestamp_seconds").is_some_and(f64::is_nan), "it goes on");
    // Both by the server's clock, which is this machine's.
    let now = || stream.database.value::<f64>("select extract(epoch from clock_timestamp())::float8");
    let before = now();
    let xid: i64 = stream
        .database
        .value("insert into public.item values (14) returning pg_current_xact_id()::text::int8 % 4294967296");
    wait_until(BOUND, "the transaction is the last one", || {
        #[expect(clippy::cast_precision_loss, reason = "it has 32 bits")]
        let is_it = metric("last_transaction_xid") == Some(xid as f64);
        is_it.then_some(())
    });
    let last_event = wait_until(BOUND, "its event was made", || {
        metric("last_event_timestamp_seconds").filter(|at| *at >= before - 0.01)
    });
    assert!(last_event <= now() + 0.01, "{last_event}");
}

/// What the page says of positions lies between what the server says before and after.
fn positions_are_those_of_the_server(stream: &Stream, browser: &mut Browser) {
    let confirmed = stream.database.confirmed_flush_lsn(&stream.slot).expect("it has a slot");
    let script = "JSON.stringify([...document.querySelectorAll('#positions li')].map(stop => \
                  [stop.querySelector('h3').textContent, stop.querySelector('code').textContent]))";
    let shown = wait_until(BOUND, "the page has come as far", || {
        let text = browser.value(script);
        let stops: Vec<(String, String)> = serde_json::from_str(text.as_str()?).ok()?;
        let stops: Option<Vec<(String, Lsn)>> =
            stops.into_iter().map(|(name, at)| Some((name, at.parse().ok()?))).collect();
        stops.filter(|stops| stops.last().is_some_and(|(_, at)| *at >= confirmed.into()))
    });
    let names: Vec<&str> = shown.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["Server", "Received", "Published", "Committed", "Confirmed"]);
    assert!(shown.is_sorted_by(|(_, one), (_, next)| one >= next), "a later one is further: {shown:?}");
    assert!(shown[0].1 <= stream.database.wal_lsn().into(), "{shown:?}");
}

/// What the documentation tells to do about a failure.
fn fix_of(code: &str) -> String {
    let errors = include_str!("../../docs/errors.md");
    let row = errors.lines().find(|line| line.starts_with(&format!("| [`{code}`]"))).expect("it is in the list");
    let told = row.trim_end_matches(['|', ' ']).rsplit(" | ").next().expect("what it means and what to do");
    told.replace('`', "")
}

/// The status of an instance.
fn told(program: &Program) -> Value {
    let answer = http_get(program.address().expect("it listens"), "/status").expect("it answers");
    serde_json::from_str(&answer.body).expect("JSON")
}

#[test]
fn the_status_is_for_programs_too_and_the_root_for_clients_of_the_registry() {
    let stack = Stack::shared();
    let topic = format!("_schemas_status_{}", std::process::id());
    let stream = Stream::create_with_built_in_registry(&stack, "status", &topic);
    stream.database.create_tables("create table public.item (id int primary key)");
    let program = stream.start_ready();
    let address = program.address().expect("it listens");
    let answer = http_get(address, "/status").expect("it answers");
    let status: Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(
        (answer.status, &status["format"], &status["name"], &status["state"]["ready"]),
        (200, &json!(1), &json!(stream.name), &json!(true))
    );
    let (_, password) =
        stream.database.url.split_once('@').and_then(|(who, _)| who.rsplit_once(':')).expect("a password");
    assert!(password.len() > 8 && !answer.body.contains(password), "a secret");
    // Who does not ask for a page gets what a registry has there.
    assert_eq!(http_get(address, "/").expect("it answers").body, "{}");
    program.terminate();
}

#[test]
fn the_terminal_is_given_back() {
    let stack = Stack::shared();
    let stream = Stream::create(&stack, "top");
    stream.database.create_tables("create table public.item (id int primary key)");
    let program = stream.start_ready();
    let address = program.address().expect("it listens");
    for by_signal in [false, true] {
        let mut terminal = Terminal::start(&format!("top --instance {address}"));
        terminal.await_text("Where the stream is");
        if by_signal {
            terminal.terminate();
        } else {
            terminal.keys("q");
        }
        let (text, is_success) = terminal.end();
        assert!(is_success, "{text}");
        // The alternate screen was entered and left, and the cursor is there again.
        let place = |sequence: &str| text.rfind(sequence).unwrap_or_else(|| panic!("{sequence:?} is not in {text:?}"));
        assert!(place("\u{1b}[?1049l") > place("\u{1b}[?1049h"), "{text:?}");
        assert!(place("\u{1b}[?25h") > place("\u{1b}[?25l"), "{text:?}");
        assert!(text.contains("ECHO BACK"), "raw mode is over: {text:?}");
    }
    program.terminate();
}

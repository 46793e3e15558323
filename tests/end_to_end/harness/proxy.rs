//! A proxy between the program and one server, on which the network can fail in chosen ways.
//!
//! To Kafka it looks into the frames that it passes on. The broker advertises its own address, so the proxy puts its own in the place of
//! it, in the two responses that tell addresses; both have as many bytes, so that no length changes. That is good for a cluster of one
//! broker that is known by the same address to everybody, which is what `dev/stack` brings up.
//!
//! To PostgreSQL it is a plain TCP proxy.

mod frames;

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use frames::{Api, Request, end_txn_error, error, produce_error_position, read_frame, replace_all, write_frame};

/// A proxy. Its connections end when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    link: Arc<Link>,
}

/// How a transaction is to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Commit,
    Abort,
}

/// What a broker has answered to a request that came too late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LateAnswer {
    /// It did what it was asked, to a transaction for which that was not meant.
    Obeyed,
    /// The request came from a producer that is known to be over.
    Fenced,
    /// An error of another kind.
    Other(i16),
}

/// Who asks for the end of a transaction: the broker tells a producer from the one before it by the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProducerEpoch {
    id: i64,
    epoch: i16,
}

impl Proxy {
    /// A proxy to the broker at `host:port`.
    pub(crate) fn to_kafka(upstream: &str) -> Self {
        Self::start(upstream, Protocol::Kafka)
    }

    /// A proxy to the PostgreSQL server of a URL, and the URL that leads through it.
    pub(crate) fn to_postgres(url: &str) -> (Self, url::Url) {
        let mut url: url::Url = url.parse().expect("a URL");
        let (host, port) = (url.host_str().expect("a host"), url.port().expect("a port"));
        let proxy = Self::start(&format!("{host}:{port}"), Protocol::Opaque);
        url.set_port(Some(proxy.port())).expect("it has a port");
        (proxy, url)
    }

    fn start(upstream: &str, protocol: Protocol) -> Self {
        let upstream: SocketAddr = upstream.parse().expect("an address of this machine");
        assert_eq!(upstream.ip(), Ipv4Addr::LOCALHOST, "addresses are replaced by their own form");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let link = Arc::new(Link { protocol, address, upstream, state: Mutex::default(), changed: Condvar::default() });
        thread::spawn({
            let link = Arc::clone(&link);
            move || link.accept(&listener)
        });
        Self { address, link }
    }

    /// Where the proxy listens, as `host:port`.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on nothing passes either way, and connections stay as they are: nobody is told.
    pub(crate) fn fall_silent(&self) {
        self.link.set(|state| state.silent = true);
    }

    /// The same, once the server has sent so much more. To a Kafka broker it is not offered.
    pub(crate) fn fall_silent_after(&self, bytes: usize) {
        assert_eq!(self.link.protocol, Protocol::Opaque);
        self.link.set(|state| state.silent_after_bytes = Some(bytes));
    }

    /// What was held back is passed on, late, and everything after it.
    pub(crate) fn speak(&self) {
        self.link.set(|state| (state.silent, state.silent_after_bytes, state.held_bytes) = (false, None, 0));
    }

    /// Waits until something was held back in silence.
    pub(crate) fn await_held_bytes(&self, bound: Duration) {
        self.link.await_state(bound, "nothing was held back", |state| (state.held_bytes > 0).then_some(()));
    }

    /// The broker will do as it is asked by the next `count` requests for this ending, and its answers will be lost.
    pub(crate) fn lose_answers(&self, ending: Ending, count: u32) {
        self.link.set(|state| state.fault = Some(Fault::LoseAnswers { ending, count }));
    }

    /// Waits until so many answers were lost, and returns whose they were.
    pub(crate) fn await_lost_answers(&self, count: u32, bound: Duration) -> ProducerEpoch {
        self.link.await_state(bound, "the answers were not lost", |state| {
            state.injured.filter(|_| state.lost_answers >= count)
        })
    }

    /// The next request for this ending will be held back, with its connection, until the program has gone on without its answer and
    /// the first records of a later transaction are acknowledged. There it arrives.
    pub(crate) fn delay_into_the_next_transaction(&self, ending: Ending) {
        self.link.set(|state| state.fault = Some(Fault::Delay { ending }));
    }

    /// Waits until the request that was held back has arrived and was answered.
    pub(crate) fn await_late_answer(&self, bound: Duration) -> LateAnswer {
        let code = self.link.await_state(bound, "no request came late", |state| match state.delay {
            Delay::Answered(code) => Some(code),
            _ => None,
        });
        match code {
            0 => LateAnswer::Obeyed,
            error::INVALID_PRODUCER_EPOCH | error::PRODUCER_FENCED => LateAnswer::Fenced,
            other => LateAnswer::Other(other),
        }
    }

    /// Whether the request that is to be delayed has come.
    pub(crate) fn is_holding_back(&self) -> bool {
        !matches!(self.link.lock().delay, Delay::None)
    }

    /// From now on every record is refused as a broker does that has too few replicas in sync, after it has written it; or no more.
    pub(crate) fn report_too_few_replicas(&self, refuses: bool) {
        self.link.set(|state| state.refuses_records = refuses);
    }

    /// From now on a change of a topic's configuration is refused, as it is to whoever has no right to it; or no more.
    pub(crate) fn deny_configuration(&self, denies: bool) {
        self.link.set(|state| state.denies_configuration = denies);
    }

    /// Waits until so many requests were refused.
    pub(crate) fn await_refusals(&self, count: u32, bound: Duration) {
        self.link.await_state(bound, "no records were refused", |state| (state.refusals >= count).then_some(()));
    }

    /// Who has last asked for the end of a transaction.
    pub(crate) fn newest_producer(&self) -> Option<ProducerEpoch> {
        self.link.lock().newest
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.link.set(|state| {
            state.closed = true;
            for connection in &state.connections {
                // It may have ended before.
                let _ended = connection.shutdown(Shutdown::Both);
            }
        });
        // Wakes the thread that accepts.
        let _refused = TcpStream::connect(self.address);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Kafka,
    Opaque,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    LoseAnswers { ending: Ending, count: u32 },
    Delay { ending: Ending },
}

/// The life of a request that is delayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Delay {
    #[default]
    None,
    /// It waits, and the program for its answer.
    Held,
    /// The program waits no more: it has asked again and was answered, or has a new epoch.
    Overtaken,
    /// Records of a later transaction are acknowledged: it goes on its way, and all else waits.
    Released,
    /// The broker's error code.
    Answered(i16),
}

#[derive(Default)]
struct State {
    closed: bool,
    silent: bool,
    silent_after_bytes: Option<usize>,
    held_bytes: usize,
    refuses_records: bool,
    refusals: u32,
    denies_configuration: bool,
    fault: Option<Fault>,
    lost_answers: u32,
    delay: Delay,
    /// Whose request or answer did not pass as it should have.
    injured: Option<ProducerEpoch>,
    newest: Option<ProducerEpoch>,
    connections: Vec<TcpStream>,
}

/// What all connections share.
struct Link {
    protocol: Protocol,
    address: SocketAddr,
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

/// What the response to a request is for the proxy, by the request's correlation id. One map a connection.
type Awaited = Arc<Mutex<HashMap<i32, Response>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Response {
    /// It tells the broker's address.
    Addresses,
    Produced {
        is_flexible: bool,
    },
    ProducerInitialised,
    /// An error is to be where this is.
    Denied {
        at: usize,
    },
    Ended,
    EndedLate,
    /// The program must not see it.
    Lost,
    Plain,
}

/// The pace of what has to be looked at again and again, since a blocked thread must notice the end of a test.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn await_state<T>(&self, bound: Duration, otherwise: &str, look: impl Fn(&State) -> Option<T>) -> T {
        let began = Instant::now();
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return found;
            }
            let left = bound.checked_sub(began.elapsed());
            let left = left.unwrap_or_else(|| panic!("{otherwise} within {bound:?}; the delay is {:?}", state.delay));
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Blocks a connection's thread while the state is so.
    ///
    /// # Errors
    /// The proxy is gone.
    fn block_while(&self, blocked: impl Fn(&State) -> bool) -> io::Result<()> {
        let mut state = self.lock();
        while blocked(&state) && !state.closed {
            state = self.changed.wait_timeout(state, LOOK_INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.closed { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    fn count_down_to_silence(&self, bytes: usize) {
        self.set(|state| {
            if let Some(left) = state.silent_after_bytes.take() {
                state.silent_after_bytes = left.checked_sub(bytes);
                state.silent |= state.silent_after_bytes.is_none();
            }
        });
    }

    fn hold_in_silence(&self, bytes: usize) -> io::Result<()> {
        self.set(|state| state.held_bytes += if state.silent { bytes } else { 0 });
        self.block_while(|state| state.silent)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for connection in listener.incoming() {
            if self.lock().closed {
                return;
            }
            let Ok(client) = connection else { continue };
            // The server may be down: the client is then turned away, as it would be without a proxy.
            let Ok(server) = TcpStream::connect(self.upstream) else { continue };
            if let Err(error) = self.connect(&client, &server) {
                println!("the proxy could not set a connection up: {error}");
            }
        }
    }

    fn connect(self: &Arc<Self>, client: &TcpStream, server: &TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let awaited = Awaited::default();
        for is_request in [true, false] {
            let (from, to) = if is_request { (client, server) } else { (server, client) };
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            let (link, awaited) = (Arc::clone(self), Arc::clone(&awaited));
            self.lock().connections.push(from.try_clone()?);
            thread::spawn(move || {
                // However it ends: what comes behind it is the end of the connection, which the other side is told.
                let _end = match (link.protocol, is_request) {
                    (Protocol::Opaque, _) => link.pass_bytes(&mut from, &mut to, is_request),
                    (Protocol::Kafka, true) => link.pass_requests(&mut from, &mut to, &awaited),
                    (Protocol::Kafka, false) => link.pass_responses(&mut from, &mut to, &awaited),
                };
                let _end = link.hold_in_silence(0);
                let _end = match link.protocol {
                    // The other direction goes on until its own sender has ended, too.
                    Protocol::Opaque => to.shutdown(Shutdown::Write),
                    Protocol::Kafka => to.shutdown(Shutdown::Both),
                };
            });
        }
        Ok(())
    }

    fn pass_bytes(&self, from: &mut TcpStream, to: &mut TcpStream, is_request: bool) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let len = from.read(&mut buffer)?;
            if len == 0 {
                return Ok(());
            }
            if !is_request {
                self.count_down_to_silence(len);
            }
            self.hold_in_silence(len)?;
            if to.write_all(&buffer[..len]).is_err() {
                // Nobody is there any more. A sender that is left with a full buffer would not look whether anybody is.
                return io::copy(from, &mut io::sink()).map(drop);
            }
        }
    }

    fn pass_requests(&self, client: &mut TcpStream, server: &mut TcpStream, awaited: &Awaited) -> io::Result<()> {
        loop {
            let mut frame = read_frame(client)?;
            self.hold_in_silence(frame.len())?;
            let request = Request::parse(&frame);
            let response = match request.api {
                Api::Metadata | Api::FindCoordinator => Response::Addresses,
                Api::Produce { is_flexible } => Response::Produced { is_flexible },
                Api::InitProducerId => Response::ProducerInitialised,
                Api::EndTxn(ending, producer) => self.end(ending, producer)?,
                Api::Configure { is_flexible } if self.lock().denies_configuration => {
                    // The broker does not know such keys, and changes nothing.
                    replace_all(&mut frame, b"retention.", b"retention_");
                    Response::Denied { at: if is_flexible { 10 } else { 12 } }
                }
                Api::Configure { .. } | Api::Other => Response::Plain,
            };
            awaited.lock().unwrap_or_else(PoisonError::into_inner).insert(request.correlation_id, response);
            write_frame(server, &frame)?;
            if response == Response::EndedLate {
                // The client has given this connection up; to end it now would be to lose the answer.
                self.block_while(|state| !matches!(state.delay, Delay::Answered(_)))?;
            }
        }
    }

    /// Decides what becomes of a request to end a transaction, and holds it back if it is to be late.
    fn end(&self, ending: Ending, producer: ProducerEpoch) -> io::Result<Response> {
        let mut state = self.lock();
        state.newest = Some(producer);
        match &mut state.fault {
            Some(Fault::LoseAnswers { ending: wanted, count }) if *wanted == ending && *count > 0 => {
                *count -= 1;
                state.injured = Some(producer);
                Ok(Response::Lost)
            }
            Some(Fault::Delay { ending: wanted }) if *wanted == ending => {
                state.fault = None;
                state.injured = Some(producer);
                state.delay = Delay::Held;
                drop(state);
                self.block_while(|state| matches!(state.delay, Delay::Held | Delay::Overtaken))?;
                Ok(Response::EndedLate)
            }
            _ => Ok(Response::Ended),
        }
    }

    fn pass_responses(&self, server: &mut TcpStream, client: &mut TcpStream, awaited: &Awaited) -> io::Result<()> {
        loop {
            let mut frame = read_frame(server)?;
            self.hold_in_silence(frame.len())?;
            let correlation_id = i32::from_be_bytes(frame[..4].try_into().expect("a response has a correlation id"));
            let expected = awaited.lock().unwrap_or_else(PoisonError::into_inner).remove(&correlation_id);
            match expected.expect("the broker answers what it was asked") {
                Response::Addresses => self.replace_address(&mut frame),
                Response::Ended => {
                    if end_txn_error(&frame) == 0 {
                        self.overtake();
                    }
                }
                Response::ProducerInitialised => self.overtake(),
                Response::Produced { is_flexible } => {
                    self.refuse_records(&mut frame, is_flexible);
                    self.release()?;
                }
                Response::EndedLate => {
                    self.set(|state| state.delay = Delay::Answered(end_txn_error(&frame)));
                    return Ok(());
                }
                Response::Lost => {
                    self.set(|state| state.lost_answers += 1);
                    continue;
                }
                Response::Denied { at } => {
                    frame[at..at + 2].copy_from_slice(&error::TOPIC_AUTHORIZATION_FAILED.to_be_bytes());
                }
                Response::Plain => {}
            }
            write_frame(client, &frame)?;
        }
    }

    fn refuse_records(&self, frame: &mut [u8], is_flexible: bool) {
        let mut state = self.lock();
        if state.refuses_records {
            state.refusals += 1;
            let at = produce_error_position(frame, is_flexible);
            frame[at..at + 2].copy_from_slice(&error::NOT_ENOUGH_REPLICAS_AFTER_APPEND.to_be_bytes());
            drop(state);
            self.changed.notify_all();
        }
    }

    fn overtake(&self) {
        self.set(|state| {
            if state.delay == Delay::Held {
                state.delay = Delay::Overtaken;
            }
        });
    }

    /// The moment for the request that is late: the program does not know yet that its records are there, so that none of its own
    /// requests is under way that depends on it.
    fn release(&self) -> io::Result<()> {
        self.set(|state| {
            if state.delay == Delay::Overtaken {
                state.delay = Delay::Released;
            }
        });
        self.block_while(|state| state.delay == Delay::Released)
    }

    /// A host is a text with its length in front, and the port follows: so it is in every version of both responses.
    fn replace_address(&self, frame: &mut [u8]) {
        let form = |address: SocketAddr| {
            let mut form = address.ip().to_string().into_bytes();
            form.extend(i32::from(address.port()).to_be_bytes());
            form
        };
        replace_all(frame, &form(self.upstream), &form(self.address));
    }
}

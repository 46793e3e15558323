//! A replication connection while commands and answers alternate, before the stream starts.

use std::{fmt::Write as _, future::Future, sync::Arc, time::Duration};

use bytes::BytesMut;
use pgoutput::Lsn;
use postgres_protocol::message::frontend;
use tokio::time::timeout;

use crate::{
    ConnectOptions, CreateSlot, CreatedSlot, Error, Feedback, ServerSession, SlotName, SnapshotAction, StreamSettings,
    SystemIdentity, TimelineHistory, WalReader,
    authentication::{Purpose, authenticate, check_parameter},
    message::{Fields, Message, MessageStream, data_row, tag},
    quote::{identifier, literal},
    socket::Socket,
    stream::{self, SenderTimeout},
    tls::TlsSettings,
};

/// How long a command may take that waits for nobody.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

type Row = Vec<Option<String>>;

/// A replication connection that takes commands. [`ReplicationClient::start_replication`] turns it into a stream.
///
/// Dropping it closes the connection; the server gives up a temporary slot and an exported snapshot then.
pub struct ReplicationClient {
    stream: MessageStream,
    version: String,
}

impl ReplicationClient {
    /// Connects and authenticates with `replication=database`, within [`ConnectOptions::connect_timeout`].
    ///
    /// With `sslmode=prefer`, a server with which TLS does not work out is tried again without, as libpq does: when the
    /// handshake fails, or when `pg_hba.conf` has no line for encrypted connections.
    pub async fn connect(options: &ConnectOptions) -> Result<Self, Error> {
        let mut client = Self { stream: open(options, &Purpose::Replication).await?, version: String::new() };
        let server = Arc::clone(&client.stream.server);
        bounded(&server, "the end of the startup", client.await_ready()).await?;
        Ok(client)
    }

    /// The server, as messages name it.
    pub fn server(&self) -> &Arc<str> {
        &self.stream.server
    }

    /// The version as the server says it, such as `18.1`.
    pub fn server_version(&self) -> &str {
        &self.version
    }

    /// The version as one number, such as 180001 for 18.1; 0 if the server did not say.
    pub fn server_version_num(&self) -> u32 {
        version_number(&self.version)
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.stream.socket.is_encrypted()
    }

    /// Asks which cluster this is, and how far its log goes.
    pub async fn identify_system(&mut self) -> Result<SystemIdentity, Error> {
        let row = self.query_row("IDENTIFY_SYSTEM").await?;
        let identity = || {
            Some(SystemIdentity {
                system_id: column(&row, 0)?.parse().ok()?,
                timeline: column(&row, 1)?.parse().ok()?,
                flush_lsn: column(&row, 2)?.parse().ok()?,
                database: column(&row, 3).map(str::to_owned),
            })
        };
        identity().ok_or_else(|| self.stream.malformed("IDENTIFY_SYSTEM answer"))
    }

    /// Asks whether a session is one of the very server that this connection leads to, by what that session says of itself. A name may lead to
    /// several servers.
    pub async fn has_session(&mut self, session: &ServerSession) -> Result<bool, Error> {
        let ServerSession { pid, began_us, server_began_us } = session;
        // What others' sessions do is hidden from many; that they are there, and when those of the same role began, is not.
        let row = self
            .query_row(&format!(
                "SELECT count(*) FROM pg_catalog.pg_stat_get_activity({pid}) session \
                 WHERE (pg_catalog.date_part('epoch', session.backend_start) * 1000000)::pg_catalog.int8 = {began_us} \
                 AND (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8 = {server_began_us}"
            ))
            .await?;
        Ok(column(&row, 0) == Some("1"))
    }

    /// Asks for the ancestors of a timeline. The first timeline has none, and no history.
    pub async fn timeline_history(&mut self, timeline: u32) -> Result<TimelineHistory, Error> {
        if timeline <= 1 {
            return Ok(TimelineHistory { timeline, switches: Vec::new() });
        }
        let row = self.query_row(&format!("TIMELINE_HISTORY {timeline}")).await?;
        column(&row, 1)
            .and_then(|content| TimelineHistory::parse(timeline, content))
            .ok_or_else(|| self.stream.malformed("TIMELINE_HISTORY answer"))
    }

    /// Creates a logical slot. The server waits for the transactions that run, which can take as long as they do;
    /// nothing bounds it here. Not cancel safe: when it is dropped half-way the slot may be there or not, and the
    /// connection is of no more use.
    pub async fn create_slot(&mut self, slot: &CreateSlot<'_>) -> Result<CreatedSlot, Error> {
        let command = create_slot_command(slot, self.server_version_num()).map_err(|feature| Error::Unsupported {
            server: Arc::clone(&self.stream.server),
            version: self.version.clone(),
            feature,
        })?;
        let row = Self::one_row(self.query(&command).await?).ok_or_else(|| self.stream.malformed("slot"))?;
        let created = || {
            Some(CreatedSlot {
                name: column(&row, 0)?.to_owned(),
                consistent_point: column(&row, 1)?.parse().ok()?,
                snapshot: column(&row, 2).map(str::to_owned),
            })
        };
        created().ok_or_else(|| self.stream.malformed("CREATE_REPLICATION_SLOT answer"))
    }

    /// Drops a slot, after waiting until nobody uses it any more where `wait` says so. Nothing bounds that here.
    pub async fn drop_slot(&mut self, name: &SlotName, wait: bool) -> Result<(), Error> {
        let wait = if wait { " WAIT" } else { "" };
        self.query(&format!("DROP_REPLICATION_SLOT {}{wait}", identifier(name.as_str()))).await.map(drop)
    }

    /// Starts the stream of a slot's changes at a position, which should be the caller's own durable one: the server
    /// moves a position before the slot's `confirmed_flush_lsn` forward to that, silently (pg `logical.c`,
    /// `CreateDecodingContext`).
    ///
    /// `options` go to the output plugin as they are, such as `proto_version` and `publication_names` (see
    /// [`publication_names`](crate::publication_names)).
    pub async fn start_replication(
        mut self,
        slot: &SlotName,
        start: Lsn,
        options: &[(&str, &str)],
        settings: StreamSettings,
    ) -> Result<(WalReader, Feedback), Error> {
        let sender_timeout = self.bring_down_sender_timeout(settings.sender_timeout_max).await?;
        let mut command = format!("START_REPLICATION SLOT {} LOGICAL {start}", identifier(slot.as_str()));
        for (index, (name, value)) in options.iter().enumerate() {
            let before = if index == 0 { " (" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(command, "{before}{} {}", identifier(name), literal(value));
        }
        if !options.is_empty() {
            command.push(')');
        }
        // Inside a streamed block each change has a transaction's id before the relation's.
        let streams_open_transactions =
            options.iter().any(|(name, value)| *name == "streaming" && !matches!(*value, "off" | "false" | "0" | "no"));
        let server = Arc::clone(&self.stream.server);
        let started = async {
            self.send_query(&command).await?;
            loop {
                let Message { tag, body } = self.stream.next().await?;
                match tag {
                    tag::COPY_BOTH_RESPONSE => return Ok(()),
                    tag::ERROR_RESPONSE => return Err(self.stream.server_error(&body)),
                    _ => self.handle_aside(tag, &body, "the start of the stream")?,
                }
            }
        };
        bounded(&server, "START_REPLICATION", started).await?;
        let (socket, received) = self.stream.into_parts();
        Ok(stream::start(stream::Start {
            socket,
            received,
            server,
            position: start,
            settings,
            sender_timeout,
            streams_open_transactions,
        }))
    }

    /// Ends the connection in good order.
    pub async fn close(mut self) -> Result<(), Error> {
        let mut message = BytesMut::new();
        frontend::terminate(&mut message);
        self.stream.send(&message).await
    }

    async fn await_ready(&mut self) -> Result<(), Error> {
        loop {
            let Message { tag, body } = self.stream.next().await?;
            match tag {
                tag::READY_FOR_QUERY => return Ok(()),
                tag::BACKEND_KEY_DATA => {}
                tag::ERROR_RESPONSE => return Err(self.stream.server_error(&body)),
                _ => self.handle_aside(tag, &body, "the end of the startup")?,
            }
        }
    }

    /// How long the server waits for a sign of life, after that was brought down to this at most if nobody has chosen it for this connection, role or
    /// database.
    async fn bring_down_sender_timeout(&mut self, max: Option<Duration>) -> Result<SenderTimeout, Error> {
        let (configured, is_chosen) = self.wal_sender_timeout().await?;
        let Some(max) = max.filter(|max| !is_chosen && configured.is_none_or(|configured| configured > *max)) else {
            return Ok(SenderTimeout { configured, in_force: configured });
        };
        let server = Arc::clone(&self.stream.server);
        let command = format!("SET wal_sender_timeout = '{}ms'", max.as_millis());
        bounded(&server, "a replication command", self.query(&command)).await?;
        Ok(SenderTimeout { configured, in_force: Some(max) })
    }

    /// How long the server waits for a sign of life, `None` for ever; and whether that was chosen for less than the whole server.
    async fn wal_sender_timeout(&mut self) -> Result<(Option<Duration>, bool), Error> {
        let query = "SELECT setting, source IN ('client', 'user', 'database', 'database user') FROM pg_catalog.pg_settings \
                     WHERE name = 'wal_sender_timeout'";
        let row = self.query_row(query).await?;
        let milliseconds: u64 = column(&row, 0)
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| self.stream.malformed("wal_sender_timeout answer"))?;
        Ok(((milliseconds > 0).then(|| Duration::from_millis(milliseconds)), column(&row, 1) == Some("t")))
    }

    /// Runs a command that waits for nobody, and has exactly one row for an answer.
    async fn query_row(&mut self, command: &str) -> Result<Row, Error> {
        let server = Arc::clone(&self.stream.server);
        let doing = "a replication command";
        let rows = bounded(&server, doing, self.query(command)).await?;
        Self::one_row(rows)
            .ok_or_else(|| Error::protocol(&server, "a command that answers with one row had none, or several"))
    }

    fn one_row(rows: Vec<Row>) -> Option<Row> {
        <[Row; 1]>::try_from(rows).ok().map(|[row]| row)
    }

    async fn query(&mut self, command: &str) -> Result<Vec<Row>, Error> {
        self.send_query(command).await?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let Message { tag, body } = self.stream.next().await?;
            match tag {
                tag::READY_FOR_QUERY => return failure.map_or(Ok(rows), Err),
                tag::ERROR_RESPONSE => failure = Some(self.stream.server_error(&body)),
                // No command here has more than a row; a server that sends thousands is refused by the caller.
                tag::DATA_ROW if rows.len() < 2 => {
                    rows.push(data_row(&body).ok_or_else(|| self.stream.malformed("DataRow"))?);
                }
                tag::DATA_ROW | tag::ROW_DESCRIPTION | tag::COMMAND_COMPLETE | tag::EMPTY_QUERY_RESPONSE => {}
                _ => self.handle_aside(tag, &body, "an answer")?,
            }
        }
    }

    async fn send_query(&mut self, command: &str) -> Result<(), Error> {
        let mut message = BytesMut::new();
        frontend::query(command, &mut message)
            .map_err(|_| Error::options("options", "a value for a replication command holds a zero byte"))?;
        self.stream.send(&message).await
    }

    /// What the server may say at any time.
    fn handle_aside(&mut self, tag: u8, body: &[u8], expected: &str) -> Result<(), Error> {
        match tag {
            tag::PARAMETER_STATUS => {
                let (name, value) = parameter(body).ok_or_else(|| self.stream.malformed("ParameterStatus"))?;
                check_parameter(&self.stream.server, name, value)?;
                if name == "server_version" {
                    value.clone_into(&mut self.version);
                }
                Ok(())
            }
            tag::NOTICE_RESPONSE => {
                stream::log_notice(&self.stream.server, body);
                Ok(())
            }
            other => Err(self.stream.unexpected(other, expected)),
        }
    }
}

/// Connects and authenticates, and leaves the stream before the first message after `AuthenticationOk`.
///
/// With `sslmode=prefer`, a server with which TLS does not work out is tried again without.
pub(crate) async fn open(options: &ConnectOptions, purpose: &Purpose<'_>) -> Result<MessageStream, Error> {
    let tls = options.tls()?;
    match open_within_limit(options, tls.as_ref(), purpose).await {
        Err(error) if tls.is_some() && options.takes_plaintext() && tls_may_be_why(&error) => {
            tracing::debug!(server = %options.server(), %error, "connecting without TLS, as sslmode=prefer allows");
            open_within_limit(options, None, purpose).await
        }
        outcome => outcome,
    }
}

async fn open_within_limit(
    options: &ConnectOptions,
    tls: Option<&TlsSettings>,
    purpose: &Purpose<'_>,
) -> Result<MessageStream, Error> {
    let connecting = async {
        let socket = Socket::connect(options, tls).await?;
        let mut stream = MessageStream::new(socket, options.server());
        authenticate(&mut stream, options, purpose).await?;
        Ok(stream)
    };
    match options.connect_timeout {
        None => connecting.await,
        Some(limit) => timeout(limit, connecting).await.unwrap_or_else(|_| {
            Err(Error::Timeout { server: options.server(), doing: "connecting and authenticating", limit })
        }),
    }
}

/// The name and value of a `ParameterStatus`.
pub(crate) fn parameter(body: &[u8]) -> Option<(&str, &str)> {
    let mut fields = Fields::new(body);
    let name = str::from_utf8(fields.text()?).ok()?;
    Some((name, str::from_utf8(fields.text()?).ok()?))
}

/// Whether a server may well be reachable without TLS: the handshake failed, or there is no line for it in
/// `pg_hba.conf` (`invalid_authorization_specification`). A wrong password is no such case; it must not be sent again
/// over a plain connection.
fn tls_may_be_why(error: &Error) -> bool {
    matches!(error, Error::Tls { .. }) || error.sqlstate() == Some("28000")
}

async fn bounded<T>(
    server: &Arc<str>,
    doing: &'static str,
    command: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(COMMAND_TIMEOUT, command)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout { server: Arc::clone(server), doing, limit: COMMAND_TIMEOUT }))
}

fn column(row: &Row, index: usize) -> Option<&str> {
    row.get(index)?.as_deref()
}

/// The command in the syntax of the server's version; what is missing where it cannot.
fn create_slot_command(slot: &CreateSlot<'_>, version: u32) -> Result<String, &'static str> {
    if slot.failover && version < 170_000 {
        return Err("a slot that survives a failover needs version 17 or later");
    }
    if slot.two_phase && version < 140_000 {
        return Err("a slot for two-phase commit needs version 14 or later");
    }
    let temporary = if slot.temporary { " TEMPORARY" } else { "" };
    let mut command =
        format!("CREATE_REPLICATION_SLOT {}{temporary} LOGICAL \"pgoutput\"", identifier(slot.name.as_str()));
    if version >= 150_000 {
        command.push_str(match slot.snapshot {
            SnapshotAction::Export => " (SNAPSHOT 'export'",
            SnapshotAction::Nothing => " (SNAPSHOT 'nothing'",
        });
        command.push_str(if slot.two_phase { ", TWO_PHASE true" } else { "" });
        command.push_str(if slot.failover { ", FAILOVER true" } else { "" });
        command.push(')');
    } else {
        command.push_str(match slot.snapshot {
            SnapshotAction::Export => " EXPORT_SNAPSHOT",
            SnapshotAction::Nothing => " NOEXPORT_SNAPSHOT",
        });
        command.push_str(if slot.two_phase { " TWO_PHASE" } else { "" });
    }
    Ok(command)
}

/// `18.1 (Debian 18.1-1)` is 180001, `17beta2` is 170000.
fn version_number(version: &str) -> u32 {
    let mut numbers = version.split(|letter: char| !letter.is_ascii_digit()).map(|digits| digits.parse::<u32>().ok());
    let major = numbers.next().flatten().unwrap_or(0);
    let minor = if version.trim_start_matches(|letter: char| letter.is_ascii_digit()).starts_with('.') {
        numbers.next().flatten().unwrap_or(0)
    } else {
        0
    };
    major.saturating_mul(10_000).saturating_add(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_a_number() {
        for (text, number) in [
            ("18.1", 180_001),
            ("14.20 (Debian 14.20-1.pgdg120+1)", 140_020),
            ("17beta2", 170_000),
            ("19devel", 190_000),
            ("", 0),
            ("x", 0),
            ("4294967295.4294967295", u32::MAX),
        ] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }

    #[test]
    fn a_slot_is_created_in_the_syntax_of_the_version() {
        let name: SlotName = "shop".parse().expect("valid");
        let slot = CreateSlot { snapshot: SnapshotAction::Export, ..CreateSlot::new(&name) };
        assert_eq!(
            create_slot_command(&slot, 140_000).as_deref(),
            Ok(r#"CREATE_REPLICATION_SLOT "shop" LOGICAL "pgoutput" EXPORT_SNAPSHOT"#)
        );
        assert_eq!(
            create_slot_command(&slot, 150_000).as_deref(),
            Ok(r#"CREATE_REPLICATION_SLOT "shop" LOGICAL "pgoutput" (SNAPSHOT 'export')"#)
        );
        let slot = CreateSlot { failover: true, temporary: true, two_phase: true, ..CreateSlot::new(&name) };
        assert!(create_slot_command(&slot, 160_009).is_err());
        assert_eq!(
            create_slot_command(&slot, 170_000).as_deref(),
            Ok(
                r#"CREATE_REPLICATION_SLOT "shop" TEMPORARY LOGICAL "pgoutput" (SNAPSHOT 'nothing', TWO_PHASE true, FAILOVER true)"#
            )
        );
    }
}

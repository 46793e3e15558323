//! Startup and authentication.
//!
//! Until the server has proved who it is, it may be anybody, so what it may ask for is bounded:
//!
//! - A mechanism that the URL does not accept is refused before anything is answered (`require_auth`).
//! - SCRAM's iteration count is the server's choice and costs the client's time: it is bounded.
//! - When the server offers SCRAM with channel binding over TLS it is taken, and when it does not, the client says that
//!   it could have (`y`): a server whose offer was cut out by somebody in between notices and refuses (RFC 5802,
//!   section 6).
//! - The server's own proof is the last message of SCRAM. `AuthenticationOk` without it is refused: anybody can say
//!   that.
//! - With `channel_binding=require` nothing but SCRAM with channel binding ends in success.

use std::sync::Arc;

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256},
    },
    message::frontend,
};
use secrecy::ExposeSecret;

use crate::{
    AuthenticationMethod, ChannelBinding, ConnectOptions, Error,
    message::{Fields, Message, MessageStream, tag},
};

/// The most PBKDF2 rounds that a server may ask for. PostgreSQL's default is 4096; each costs about half a microsecond,
/// and postgres-protocol has the same limit, for CVE-2026-42198.
const SCRAM_ITERATIONS_MAX: u32 = 100_000;

/// Settings that make the text of every value the same whatever the server, the database and the role have configured,
/// and keep limits that are meant for interactive sessions away from one that runs for months.
const SESSION_SETTINGS: [(&str, &str); 11] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    // The warning that a publication is missing must come through.
    ("client_min_messages", "warning"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
];

/// The subprotocols of authentication. Source: PostgreSQL documentation, "Message Formats", the `Authentication...`
/// messages.
mod request {
    pub(super) const OK: i32 = 0;
    pub(super) const CLEAR_TEXT_PASSWORD: i32 = 3;
    pub(super) const MD5_PASSWORD: i32 = 5;
    pub(super) const SASL: i32 = 10;
    pub(super) const SASL_CONTINUE: i32 = 11;
    pub(super) const SASL_FINAL: i32 = 12;
}

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Purpose<'a> {
    /// Replication commands and a stream.
    Replication,
    /// SQL, with these settings beside [`SESSION_SETTINGS`].
    Sql(&'a [(&'a str, &'a str)]),
}

/// Sends the startup message, authenticates, and leaves the stream before the first message after `AuthenticationOk`.
pub(crate) async fn authenticate(
    stream: &mut MessageStream,
    options: &ConnectOptions,
    purpose: &Purpose<'_>,
) -> Result<(), Error> {
    let mut message = BytesMut::new();
    let parameters = [
        ("user", options.user.as_str()),
        ("database", options.database.as_str()),
        ("application_name", options.application_name.as_str()),
    ];
    let session_options = options.session_options.as_deref().map(|value| ("options", value));
    // Of a setting that is given twice the last one holds.
    let purpose: &[_] = match purpose {
        Purpose::Replication => &[("replication", "database")],
        Purpose::Sql(settings) => settings,
    };
    let settings = SESSION_SETTINGS.into_iter().chain(purpose.iter().copied());
    frontend::startup_message(parameters.into_iter().chain(session_options).chain(settings), &mut message)
        .map_err(|error| Error::options("url", error.to_string()))?;
    stream.send(&message).await?;

    let (kind, data) = next_request(stream).await?;
    let bound = match kind {
        request::OK => {
            accept(stream, options, AuthenticationMethod::None)?;
            return check_bound(stream, options, false);
        }
        request::CLEAR_TEXT_PASSWORD => {
            accept(stream, options, AuthenticationMethod::Password)?;
            check_bound(stream, options, false)?;
            send_clear_text_password(stream, options).await?;
            false
        }
        request::MD5_PASSWORD => {
            accept(stream, options, AuthenticationMethod::Md5)?;
            check_bound(stream, options, false)?;
            let salt = <[u8; 4]>::try_from(&*data).map_err(|_| stream.malformed("AuthenticationMD5Password"))?;
            let password = password(stream, options)?;
            let hash = md5_hash(options.user.as_bytes(), password.as_bytes(), salt);
            send_password(stream, hash.as_bytes()).await?;
            false
        }
        request::SASL => {
            accept(stream, options, AuthenticationMethod::ScramSha256)?;
            scram(stream, options, &data).await?
        }
        other => {
            let problem = format!(
                "it asks for authentication of kind {other} ({}), which is not supported: let pg_hba.conf have scram-sha-256",
                match other {
                    2 => "Kerberos V5",
                    7 | 8 => "GSSAPI",
                    9 => "SSPI",
                    _ => "unknown",
                }
            );
            return Err(Error::authentication(&stream.server, problem));
        }
    };
    match next_request(stream).await? {
        (request::OK, _) => check_bound(stream, options, bound),
        (other, _) => Err(Error::protocol(&stream.server, format!("it asks for authentication again (kind {other})"))),
    }
}

/// Checks a setting that the server reports: the values in the stream are only what they seem to be under these.
pub(crate) fn check_parameter(server: &Arc<str>, name: &str, value: &str) -> Result<(), Error> {
    let right = match name {
        "client_encoding" => value.eq_ignore_ascii_case("UTF8"),
        "DateStyle" => value.starts_with("ISO"),
        "IntervalStyle" => value == "postgres",
        "TimeZone" => value == "UTC",
        _ => true,
    };
    if right {
        return Ok(());
    }
    let problem = format!(
        "it has set {name} to {value:?} in place of what was asked for at the start: \
         something between, such as a connection pooler, changes the session"
    );
    Err(Error::protocol(server, problem))
}

/// The SCRAM exchange; whether it was bound to the TLS connection.
async fn scram(stream: &mut MessageStream, options: &ConnectOptions, data: &[u8]) -> Result<bool, Error> {
    let offered = mechanisms(data).ok_or_else(|| stream.malformed("AuthenticationSASL"))?;
    let end_point = match options.channel_binding {
        ChannelBinding::Disable => None,
        ChannelBinding::Prefer | ChannelBinding::Require => stream.socket.server_end_point(),
    };
    let choice = choose_mechanism(&offered, stream.socket.is_encrypted(), end_point, options.channel_binding).map_err(
        |refusal| match refusal {
            Refusal::Unbound(problem) => Error::Unbound { server: Arc::clone(&stream.server), problem },
            Refusal::Unknown(problem) => Error::authentication(&stream.server, problem),
        },
    )?;
    let could_bind = !matches!(choice, Choice::Unbound);
    let password = password(stream, options)?;
    let (mechanism, binding, bound) = match choice {
        Choice::Bound(end_point) => (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(end_point), true),
        Choice::CouldHaveBound => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested(), false),
        Choice::Unbound => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported(), false),
    };
    let mut scram = ScramSha256::new(password.as_bytes(), binding);

    let mut message = BytesMut::new();
    frontend::sasl_initial_response(mechanism, scram.message(), &mut message)
        .map_err(|error| Error::protocol(&stream.server, error.to_string()))?;
    stream.send(&message).await?;

    let server = Arc::clone(&stream.server);
    let binding_refused = |error: Error| if could_bind { refused_binding(&server, error) } else { error };
    let server_first =
        expect_request(stream, request::SASL_CONTINUE, "AuthenticationSASLContinue").await.map_err(binding_refused)?;
    check_iterations(&server_first).map_err(|problem| Error::authentication(&stream.server, problem))?;
    // At the limit this takes a few tens of milliseconds, once a connection.
    scram.update(&server_first).map_err(|error| Error::authentication(&stream.server, format!("SCRAM: {error}")))?;
    message.clear();
    frontend::sasl_response(scram.message(), &mut message)
        .map_err(|error| Error::protocol(&stream.server, error.to_string()))?;
    stream.send(&message).await?;

    let server_final =
        expect_request(stream, request::SASL_FINAL, "AuthenticationSASLFinal").await.map_err(binding_refused)?;
    scram.finish(&server_final).map_err(|error| {
        let problem = format!("it could not prove that it knows the password ({error}): it may be an impostor");
        Error::authentication(&stream.server, problem)
    })?;
    Ok(bound)
}

/// During SCRAM, PostgreSQL has this code for the binding alone, and 28P01 for the password (`auth-scram.c`): the server that the client sees is not the one
/// that it talks to, or did not offer what the client heard.
fn refused_binding(server: &Arc<str>, error: Error) -> Error {
    match error.sqlstate() {
        Some("28000") => Error::Unbound {
            server: Arc::clone(server),
            problem: "the server finds that somebody sits in between, who ends TLS or has cut out what it offers; connect to the server itself, \
                      with no pooler or load balancer in between that ends TLS",
        },
        _ => error,
    }
}

/// How SCRAM is done. The difference of the last two is in the first message's header, and so in what both sides sign.
#[derive(Debug, PartialEq, Eq)]
enum Choice {
    /// Bound to the server's certificate: `p=tls-server-end-point`.
    Bound(Vec<u8>),
    /// Not bound, but the client could: `y`. A server that did offer it refuses, for somebody cut its offer out.
    CouldHaveBound,
    /// Not bound, and the client cannot: `n`.
    Unbound,
}

/// Why none of the ways is taken.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It would not be bound to the TLS connection.
    Unbound(&'static str),
    /// It is none that is known.
    Unknown(String),
}

fn choose_mechanism(
    offered: &[&[u8]],
    encrypted: bool,
    end_point: Option<Vec<u8>>,
    wanted: ChannelBinding,
) -> Result<Choice, Refusal> {
    let offers = |mechanism: &str| offered.contains(&mechanism.as_bytes());
    if offers(SCRAM_SHA_256_PLUS) && !encrypted {
        return Err(Refusal::Unbound(
            "it offers channel binding over a connection that is not encrypted: somebody sits in between",
        ));
    }
    match end_point {
        Some(end_point) if offers(SCRAM_SHA_256_PLUS) => Ok(Choice::Bound(end_point)),
        _ if wanted == ChannelBinding::Require => Err(Refusal::Unbound(
            "channel_binding=require, and it does not offer SCRAM-SHA-256-PLUS, or its certificate is signed in a way that \
                 has no channel binding (such as Ed25519); connect to the server itself, with nothing in between that ends TLS",
        )),
        _ if !offers(SCRAM_SHA_256) => {
            let names: Vec<_> = offered.iter().map(|name| String::from_utf8_lossy(name)).collect();
            Err(Refusal::Unknown(format!("none of the ways that it offers is supported: {:?}", names.join(", "))))
        }
        Some(_) => Ok(Choice::CouldHaveBound),
        None => Ok(Choice::Unbound),
    }
}

/// The mechanisms of `AuthenticationSASL`: texts that end with a zero byte each, and one more zero byte.
fn mechanisms(data: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Fields::new(data);
    let mut mechanisms = Vec::new();
    loop {
        match fields.text()? {
            b"" => break,
            mechanism => mechanisms.push(mechanism),
        }
    }
    fields.rest().is_empty().then_some(mechanisms)
}

/// Looks at the `i=` of the server's first message (RFC 5802, section 7) before anything is computed.
fn check_iterations(server_first: &[u8]) -> Result<(), String> {
    let count = server_first.split(|byte| *byte == b',').find_map(|attribute| attribute.strip_prefix(b"i="));
    let count = count.and_then(|digits| str::from_utf8(digits).ok()?.parse::<u64>().ok());
    match count {
        Some(1..) if count <= Some(SCRAM_ITERATIONS_MAX.into()) => Ok(()),
        Some(count) => Err(format!(
            "it demands {count} SCRAM iterations, and 1 to {SCRAM_ITERATIONS_MAX} are accepted; lower scram_iterations on the server \
             and set the password again, unless the server is an impostor"
        )),
        None => Err("its first SCRAM message has no iteration count".to_owned()),
    }
}

async fn send_clear_text_password(stream: &mut MessageStream, options: &ConnectOptions) -> Result<(), Error> {
    if !clear_text_is_safe(stream.socket.is_encrypted(), stream.socket.is_local(), options) {
        let problem = "it asks for the password in clear text over an unencrypted network: let pg_hba.conf have scram-sha-256, or \
                       use sslmode=verify-full; require_auth=password allows it all the same";
        return Err(Error::authentication(&stream.server, problem));
    }
    let password = password(stream, options)?.to_owned();
    send_password(stream, password.as_bytes()).await
}

/// A password in clear text may go where nobody can listen, or where the operator said in so many words that it may.
fn clear_text_is_safe(encrypted: bool, local: bool, options: &ConnectOptions) -> bool {
    encrypted || local || options.clear_text_allowed
}

async fn send_password(stream: &mut MessageStream, password: &[u8]) -> Result<(), Error> {
    let mut message = BytesMut::new();
    frontend::password_message(password, &mut message)
        .map_err(|_| Error::authentication(&stream.server, "the password holds a zero byte"))?;
    stream.send(&message).await
}

fn password<'a>(stream: &MessageStream, options: &'a ConnectOptions) -> Result<&'a str, Error> {
    options.password.as_ref().map(ExposeSecret::expose_secret).ok_or_else(|| {
        Error::authentication(
            &stream.server,
            format!("it asks for a password of {:?}, and none was given", options.user),
        )
    })
}

fn accept(stream: &MessageStream, options: &ConnectOptions, method: AuthenticationMethod) -> Result<(), Error> {
    if options.accepted_methods.contains(&method) {
        return Ok(());
    }
    let problem = format!("it asks for authentication by {}, which require_auth does not accept", method.name());
    Err(Error::authentication(&stream.server, problem))
}

fn check_bound(stream: &MessageStream, options: &ConnectOptions, bound: bool) -> Result<(), Error> {
    if bound || options.channel_binding != ChannelBinding::Require {
        return Ok(());
    }
    let problem = "channel_binding=require, and it authenticates without SCRAM-SHA-256-PLUS; let pg_hba.conf have scram-sha-256, and the \
                   role a password that is stored so";
    Err(Error::Unbound { server: Arc::clone(&stream.server), problem })
}

async fn expect_request(stream: &mut MessageStream, expected: i32, name: &str) -> Result<Vec<u8>, Error> {
    match next_request(stream).await? {
        (kind, data) if kind == expected => Ok(data),
        (kind, _) => Err(Error::protocol(
            &stream.server,
            format!("{name} was expected, and an authentication message of kind {kind} came"),
        )),
    }
}

async fn next_request(stream: &mut MessageStream) -> Result<(i32, Vec<u8>), Error> {
    loop {
        let Message { tag, body } = stream.next().await?;
        match tag {
            tag::AUTHENTICATION => {
                let mut fields = Fields::new(&body);
                let kind = fields.i32().ok_or_else(|| stream.malformed("Authentication"))?;
                return Ok((kind, fields.rest().to_vec()));
            }
            tag::ERROR_RESPONSE => return Err(stream.server_error(&body)),
            tag::NOTICE_RESPONSE => {}
            tag::NEGOTIATE_PROTOCOL_VERSION => {
                return Err(Error::protocol(&stream.server, "it does not speak version 3.0 of the protocol"));
            }
            other => return Err(stream.unexpected(other, "an authentication message")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [&[u8]; 2] = [b"SCRAM-SHA-256-PLUS", b"SCRAM-SHA-256"];
    const PLAIN: [&[u8]; 1] = [b"SCRAM-SHA-256"];

    #[test]
    fn an_iteration_count_is_bounded_before_it_is_computed() {
        assert_eq!(check_iterations(b"r=abc,s=QSXCR+Q6sek8bf92,i=4096"), Ok(()));
        assert_eq!(check_iterations(b"r=abc,s=QSXCR+Q6sek8bf92,i=1"), Ok(()));
        assert_eq!(check_iterations(b"r=abc,s=QSXCR+Q6sek8bf92,i=100000"), Ok(()));
        for hostile in ["0", "100001", "4294967295", "18446744073709551615", "99999999999999999999999", "-1", "", "x"] {
            assert!(check_iterations(format!("r=abc,s=QSXCR,i={hostile}").as_bytes()).is_err(), "{hostile}");
        }
        assert!(check_iterations(b"r=abc,s=QSXCR").is_err());
        assert!(check_iterations(b"").is_err());
    }

    #[test]
    fn channel_binding_is_taken_where_it_is_offered() {
        let end_point = Some(vec![1; 32]);
        for wanted in [ChannelBinding::Prefer, ChannelBinding::Require] {
            assert_eq!(choose_mechanism(&BOTH, true, end_point.clone(), wanted), Ok(Choice::Bound(vec![1; 32])));
        }
        // The caller asks for no end point with `disable`.
        assert_eq!(choose_mechanism(&BOTH, true, None, ChannelBinding::Disable), Ok(Choice::Unbound));
        assert_eq!(choose_mechanism(&PLAIN, false, None, ChannelBinding::Prefer), Ok(Choice::Unbound));
    }

    #[test]
    fn a_downgrade_is_told_to_the_server_or_refused() {
        let end_point = Some(vec![1; 32]);
        assert_eq!(
            choose_mechanism(&PLAIN, true, end_point.clone(), ChannelBinding::Prefer),
            Ok(Choice::CouldHaveBound),
            "the server must hear that the client could have bound"
        );
        assert!(choose_mechanism(&PLAIN, true, end_point, ChannelBinding::Require).is_err());
        assert!(choose_mechanism(&BOTH, true, None, ChannelBinding::Require).is_err(), "an Ed25519 certificate");
        assert!(choose_mechanism(&BOTH, false, None, ChannelBinding::Prefer).is_err(), "offered in clear text");
        assert!(choose_mechanism(&[b"OAUTHBEARER"], true, None, ChannelBinding::Prefer).is_err());
        assert!(choose_mechanism(&[], true, None, ChannelBinding::Prefer).is_err());
    }

    #[test]
    fn a_password_in_clear_text_does_not_go_over_a_network() {
        let options = |parameters: &str| -> ConnectOptions {
            format!("postgres://ann@h/db?{parameters}").parse().expect("a URL")
        };
        assert!(clear_text_is_safe(true, false, &options("")));
        assert!(clear_text_is_safe(false, true, &options("")));
        assert!(!clear_text_is_safe(false, false, &options("")));
        assert!(!clear_text_is_safe(false, false, &options("require_auth=!md5")), "it must be named");
        assert!(clear_text_is_safe(false, false, &options("require_auth=password")));
    }

    #[test]
    fn a_list_of_mechanisms_is_taken_whole_or_not_at_all() {
        let list = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        assert_eq!(mechanisms(list), Some(BOTH.to_vec()));
        for end in 0..list.len() {
            assert_eq!(mechanisms(&list[..end]), None);
        }
        assert_eq!(mechanisms(b"SCRAM-SHA-256\0\0x"), None);
    }
}

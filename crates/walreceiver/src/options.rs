//! Where to connect to, and how: what a connection URL says.

use std::{
    ffi::OsString,
    fmt,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;

use crate::{Error, url::ConnectionUrl};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A host name or an IP address.
    Tcp(String),
    /// The folder that holds the Unix socket, such as `/var/run/postgresql`; Linux's abstract name space is spelt
    /// `@name`.
    Unix(PathBuf),
}

/// How a connection is encrypted and the server's certificate verified. The meaning is libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    /// Never encrypted.
    Disable,
    /// Encrypted when the server can, and plain otherwise: this protects from nobody who can reach the wire. libpq's
    /// default, and so the default here.
    Prefer,
    /// Encrypted; the certificate is verified as with [`SslMode::VerifyCa`] when `sslrootcert` is given, and not at all
    /// otherwise.
    Require,
    /// Encrypted, and the certificate must come from an authority in `sslrootcert`.
    VerifyCa,
    /// Encrypted, the certificate must come from a trusted authority and be made out to the host. The only mode that
    /// protects from an active attacker.
    VerifyFull,
}

/// Which authorities may vouch for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootCertificates {
    /// Those of the operating system: `sslrootcert=system`.
    System,
    /// Those in a PEM file.
    File(PathBuf),
}

/// The client's own certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// A PEM file: the certificate, and then the authorities between it and the root.
    pub certificate: PathBuf,
    /// A PEM file: the private key, not encrypted.
    pub key: PathBuf,
}

/// Whether authentication is bound to the TLS connection (RFC 5802), so that nobody can sit in between. The meaning is
/// libpq's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When the server offers it.
    Prefer,
    /// A server that does not offer it is refused.
    Require,
}

/// A way to authenticate, as `require_auth` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthenticationMethod {
    /// The password in clear text.
    Password,
    /// The password hashed with MD5: broken, and deprecated since PostgreSQL 18.
    Md5,
    /// SCRAM-SHA-256, with or without channel binding.
    ScramSha256,
    /// The server asks for nothing.
    None,
}

/// When TCP decides that the other side is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepaliveOptions {
    /// Silence after which the first probe is sent.
    pub idle: Duration,
    /// Time between two probes.
    pub interval: Duration,
    /// How many may go unanswered.
    pub count: u32,
}

/// Everything needed to connect, parsed from a URL such as
/// `postgres://user:secret@host:5432/db?sslmode=verify-full&sslrootcert=/etc/ssl/ca.pem`, or
/// `postgres://user@/db?host=/var/run/postgresql` for a Unix socket.
///
/// Parameters and their meaning are libpq's, with these differences. One host only. Nothing is taken from environment
/// variables, service files, password files or `~/.postgresql`: the URL says it all. `sslmode=allow` is refused, for it
/// encrypts only when the server insists. `verify-full` without `sslrootcert` trusts the operating system's
/// authorities. `connect_timeout` is 10 seconds unless given. A password does not leave this machine without TLS unless
/// that is [allowed](Self::with_plaintext_credentials), and in clear text not unless `require_auth=password` allows
/// that besides. An unknown parameter is an error that names it.
///
/// | parameter | meaning |
/// |---|---|
/// | `host` | in the place of the URL's host; a folder with a Unix socket if it starts with `/` or `@` |
/// | `port`, `user`, `password`, `dbname` | in the place of the URL's |
/// | `sslmode` | `disable`, `prefer` (default), `require`, `verify-ca`, `verify-full` |
/// | `sslrootcert` | a PEM file, or `system` |
/// | `sslcert`, `sslkey` | PEM files: the client's certificate and its key |
/// | `channel_binding` | `disable`, `prefer` (default), `require` |
/// | `require_auth` | the only ways to authenticate that are accepted: `password`, `md5`, `scram-sha-256`, `none`; several with commas; none of them with `!` |
/// | `application_name` | the name in `pg_stat_replication`; `pgsluice` by default |
/// | `connect_timeout` | seconds; 0 for no limit |
/// | `keepalives`, `keepalives_idle`, `keepalives_interval`, `keepalives_count` | TCP keepalive: 0 or 1; seconds; seconds; number |
/// | `tcp_user_timeout` | milliseconds that sent data may go unacknowledged; 0 for the system's default |
/// | `options` | settings for the session, such as `-c wal_sender_timeout=20s` |
///
/// `Debug` shows no password.
#[derive(Clone)]
pub struct ConnectOptions {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) database: String,
    pub(crate) password: Option<SecretString>,
    pub(crate) ssl_mode: SslMode,
    pub(crate) root_certificates: Option<RootCertificates>,
    pub(crate) client_certificate: Option<ClientCertificate>,
    pub(crate) channel_binding: ChannelBinding,
    pub(crate) accepted_methods: Vec<AuthenticationMethod>,
    pub(crate) clear_text_allowed: bool,
    pub(crate) plaintext_credentials_allowed: bool,
    pub(crate) application_name: String,
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) keepalives: Option<KeepaliveOptions>,
    pub(crate) tcp_user_timeout: Option<Duration>,
    pub(crate) session_options: Option<String>,
}

impl ConnectOptions {
    /// Where the server listens.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The TCP port; it is also part of a Unix socket's name.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The role to connect as.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The database to decode.
    pub fn database(&self) -> &str {
        &self.database
    }

    /// The password, if one was given.
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// The same with another password, for one that is kept apart from the URL.
    #[must_use]
    pub fn with_password(self, password: SecretString) -> Self {
        Self { password: Some(password), ..self }
    }

    /// How the connection is encrypted.
    pub fn ssl_mode(&self) -> SslMode {
        self.ssl_mode
    }

    /// Whether authentication is bound to the TLS connection.
    pub fn channel_binding(&self) -> ChannelBinding {
        self.channel_binding
    }

    /// The name in `pg_stat_replication`.
    pub fn application_name(&self) -> &str {
        &self.application_name
    }

    /// The same with another name in `pg_stat_replication`.
    #[must_use]
    pub fn with_application_name(self, name: &str) -> Self {
        Self { application_name: name.to_owned(), ..self }
    }

    /// Replaces the time limit on connecting.
    #[must_use]
    pub fn with_connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout: Some(connect_timeout), ..self }
    }

    /// How long connecting and authenticating may take together.
    pub fn connect_timeout(&self) -> Option<Duration> {
        self.connect_timeout
    }

    /// Settings for the session, such as `-c wal_sender_timeout=20s`.
    pub fn session_options(&self) -> Option<&str> {
        self.session_options.as_deref()
    }

    /// When TCP decides that the other side is gone; `None` for no keepalive probes.
    pub fn keepalives(&self) -> Option<KeepaliveOptions> {
        self.keepalives
    }

    /// How long sent data may go unacknowledged; `None` for the system's default.
    pub fn tcp_user_timeout(&self) -> Option<Duration> {
        self.tcp_user_timeout
    }

    /// The same for another server of the same cluster: a host name, an address or the folder of a Unix socket, and a port unless it is the same.
    pub fn with_server(self, host: &str, port: Option<u16>) -> Result<Self, Error> {
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if address.is_empty() || address.contains(['\0', '/']) && !address.starts_with(['/', '@']) {
            return Err(Error::options("host", "neither a host name, nor an address, nor the folder of a Unix socket"));
        }
        Self { host: parse_host(address.to_owned())?, port: port.unwrap_or(self.port), ..self }.check()
    }

    /// The server as messages name it: `host:port`, or the path of the Unix socket.
    pub fn server(&self) -> Arc<str> {
        match &self.host {
            Host::Tcp(host) if host.contains(':') => format!("[{host}]:{}", self.port).into(),
            Host::Tcp(host) => format!("{host}:{}", self.port).into(),
            Host::Unix(folder) => folder.join(self.unix_socket_name()).to_string_lossy().into(),
        }
    }

    /// The path to connect to. A name in Linux's abstract name space starts with a zero byte there.
    pub(crate) fn unix_socket(&self, folder: &Path) -> PathBuf {
        let mut path = folder.join(self.unix_socket_name()).into_os_string().into_vec();
        if let Some(first) = path.first_mut().filter(|first| **first == b'@') {
            *first = 0;
        }
        OsString::from_vec(path).into()
    }

    fn unix_socket_name(&self) -> String {
        format!(".s.PGSQL.{}", self.port)
    }
}

impl FromStr for ConnectOptions {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut url = ConnectionUrl::parse(text)?;
        let host = url.take("host").ok_or_else(|| {
            Error::options("host", "missing: give a host name, or host=/var/run/postgresql for a Unix socket")
        })?;
        let user = url.take("user").ok_or_else(|| Error::options("user", "missing: give the role to connect as"))?;
        let (accepted_methods, clear_text_allowed) = parse_require_auth(url.take("require_auth"))?;
        let root_certificates = url.take("sslrootcert").map(|value| match value.as_str() {
            "system" => RootCertificates::System,
            path => RootCertificates::File(path.into()),
        });
        let options = Self {
            host: parse_host(host)?,
            port: url.take("port").map_or(Ok(5432), |value| parse_port(&value))?,
            database: url.take("dbname").unwrap_or_else(|| user.clone()),
            user,
            password: url.take("password").map(SecretString::from),
            ssl_mode: parse_ssl_mode(url.take("sslmode").as_deref(), root_certificates.as_ref())?,
            root_certificates,
            client_certificate: parse_client_certificate(url.take("sslcert"), url.take("sslkey"))?,
            channel_binding: parse_channel_binding(url.take("channel_binding").as_deref())?,
            accepted_methods,
            clear_text_allowed,
            plaintext_credentials_allowed: false,
            application_name: url.take("application_name").unwrap_or_else(|| "pgsluice".to_owned()),
            connect_timeout: url.take_number("connect_timeout")?.map_or(Some(Duration::from_secs(10)), seconds),
            keepalives: parse_keepalives(&mut url)?,
            tcp_user_timeout: url.take_number("tcp_user_timeout")?.map_or(Some(Duration::from_secs(30)), |value| {
                (value > 0).then(|| Duration::from_millis(value.into()))
            }),
            session_options: url.take("options"),
        };
        url.finish()?;
        options.check()
    }
}

impl ConnectOptions {
    /// Refuses what contradicts itself.
    fn check(self) -> Result<Self, Error> {
        if self.ssl_mode == SslMode::VerifyCa && self.root_certificates.is_none() {
            let problem = "sslmode=verify-ca needs the file of the authority to trust; with the operating system's authorities, \
                           any certificate that anybody bought would do (use verify-full for that)";
            return Err(Error::options("sslrootcert", problem));
        }
        let encrypted = self.ssl_mode != SslMode::Disable && matches!(self.host, Host::Tcp(_));
        if self.channel_binding == ChannelBinding::Require && !encrypted {
            let problem =
                "require needs an encrypted connection; this one is over a Unix socket or has sslmode=disable";
            return Err(Error::options("channel_binding", problem));
        }
        Ok(self)
    }
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions")
            .field("server", &self.server())
            .field("user", &self.user)
            .field("database", &self.database)
            .field("password", &self.password.as_ref().map(|_| "[redacted]"))
            .field("ssl_mode", &self.ssl_mode)
            .field("root_certificates", &self.root_certificates)
            .field("client_certificate", &self.client_certificate)
            .field("channel_binding", &self.channel_binding)
            .field("accepted_methods", &self.accepted_methods)
            .field("application_name", &self.application_name)
            .field("connect_timeout", &self.connect_timeout)
            .field("keepalives", &self.keepalives)
            .field("tcp_user_timeout", &self.tcp_user_timeout)
            .field("session_options", &self.session_options)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        })
    }
}

impl AuthenticationMethod {
    const ALL: [Self; 4] = [Self::Password, Self::Md5, Self::ScramSha256, Self::None];

    /// The name in `require_auth`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
            Self::None => "none",
        }
    }
}

fn parse_host(host: String) -> Result<Host, Error> {
    if host.contains(',') {
        return Err(Error::options(
            "host",
            "several hosts are not supported: name the primary, or an address that follows it",
        ));
    }
    Ok(if host.starts_with(['/', '@']) { Host::Unix(host.into()) } else { Host::Tcp(host) })
}

fn parse_port(value: &str) -> Result<u16, Error> {
    match value.parse() {
        Ok(port @ 1..) => Ok(port),
        // The text is not shown: an unescaped / in a password makes the password look like a port.
        _ => Err(Error::options("port", "not a number from 1 to 65535; a / in a user name or password is written %2F")),
    }
}

fn parse_ssl_mode(value: Option<&str>, roots: Option<&RootCertificates>) -> Result<SslMode, Error> {
    let system = roots == Some(&RootCertificates::System);
    let mode = match value {
        // As in libpq, the operating system's authorities mean verify-full, for they vouch for anybody.
        None if system => SslMode::VerifyFull,
        None | Some("prefer") => SslMode::Prefer,
        Some("disable") => SslMode::Disable,
        Some("require") => SslMode::Require,
        Some("verify-ca") => SslMode::VerifyCa,
        Some("verify-full") => SslMode::VerifyFull,
        Some("allow") => {
            let problem = "allow, which encrypts only when the server insists, is not supported: use prefer or better";
            return Err(Error::options("sslmode", problem));
        }
        Some(other) => {
            let problem = format!("{other:?} is none of disable, prefer, require, verify-ca, verify-full");
            return Err(Error::options("sslmode", problem));
        }
    };
    if system && mode != SslMode::VerifyFull {
        return Err(Error::options("sslmode", format!("{mode} is too weak for sslrootcert=system: use verify-full")));
    }
    Ok(mode)
}

fn parse_client_certificate(
    certificate: Option<String>,
    key: Option<String>,
) -> Result<Option<ClientCertificate>, Error> {
    match (certificate, key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            Ok(Some(ClientCertificate { certificate: certificate.into(), key: key.into() }))
        }
        (Some(_), None) => Err(Error::options("sslkey", "missing: sslcert needs the private key of the certificate")),
        (None, Some(_)) => Err(Error::options("sslcert", "missing: sslkey needs the certificate that it belongs to")),
    }
}

fn parse_channel_binding(value: Option<&str>) -> Result<ChannelBinding, Error> {
    match value {
        None | Some("prefer") => Ok(ChannelBinding::Prefer),
        Some("disable") => Ok(ChannelBinding::Disable),
        Some("require") => Ok(ChannelBinding::Require),
        Some(other) => Err(Error::options("channel_binding", format!("{other:?} is none of disable, prefer, require"))),
    }
}

/// The methods that are accepted, and whether a password in clear text was asked for in so many words.
fn parse_require_auth(value: Option<String>) -> Result<(Vec<AuthenticationMethod>, bool), Error> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok((AuthenticationMethod::ALL.to_vec(), false));
    };
    let mut named = Vec::new();
    let mut negated = None;
    for word in value.split(',') {
        let (name, negative) = word.strip_prefix('!').map_or((word, false), |name| (name, true));
        if *negated.get_or_insert(negative) != negative {
            return Err(Error::options("require_auth", "methods with and without ! cannot be mixed"));
        }
        let Some(method) = AuthenticationMethod::ALL.into_iter().find(|method| method.name() == name) else {
            let problem = format!("{name:?} is none of password, md5, scram-sha-256, none");
            return Err(Error::options("require_auth", problem));
        };
        named.push(method);
    }
    if negated == Some(true) {
        return Ok((AuthenticationMethod::ALL.into_iter().filter(|method| !named.contains(method)).collect(), false));
    }
    let clear_text_allowed = named.contains(&AuthenticationMethod::Password);
    Ok((named, clear_text_allowed))
}

fn parse_keepalives(url: &mut ConnectionUrl) -> Result<Option<KeepaliveOptions>, Error> {
    let enabled = match url.take_number("keepalives")? {
        None | Some(1) => true,
        Some(0) => false,
        Some(other) => return Err(Error::options("keepalives", format!("{other} is neither 0 nor 1"))),
    };
    let keepalives = KeepaliveOptions {
        idle: url.take_number("keepalives_idle")?.and_then(seconds).unwrap_or(Duration::from_secs(15)),
        interval: url.take_number("keepalives_interval")?.and_then(seconds).unwrap_or(Duration::from_secs(5)),
        count: url.take_number("keepalives_count")?.filter(|count| *count > 0).unwrap_or(3),
    };
    Ok(enabled.then_some(keepalives))
}

fn seconds(value: u32) -> Option<Duration> {
    (value > 0).then(|| Duration::from_secs(value.into()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn parse(url: &str) -> ConnectOptions {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[track_caller]
    fn refused(url: &str, parameter: &str, words: &str) {
        let error = url.parse::<ConnectOptions>().expect_err(url);
        assert!(matches!(&error, Error::Options { parameter: named, .. } if named == parameter), "{url}: {error}");
        assert!(error.to_string().contains(words), "{url}: {error}");
        assert_eq!(error.action(), crate::Recovery::Stop);
    }

    #[test]
    fn defaults_are_those_of_libpq() {
        let options = parse("postgres://ann@db.example");
        assert_eq!(options.host(), &Host::Tcp("db.example".to_owned()));
        assert_eq!((options.port(), options.user(), options.database()), (5432, "ann", "ann"));
        assert!(options.password().is_none());
        assert_eq!(options.ssl_mode(), SslMode::Prefer);
        assert_eq!(options.channel_binding(), ChannelBinding::Prefer);
        assert_eq!(&*options.server(), "db.example:5432");
    }

    #[test]
    fn everything_can_be_escaped() {
        let options =
            parse("postgresql://a%40b:p%3Aw%2F%C3%A4@h:6000/my%20db?application_name=x%26y&options=-c%20a%3Db");
        assert_eq!((options.user(), options.database(), options.port()), ("a@b", "my db", 6000));
        assert_eq!(options.password().map(ExposeSecret::expose_secret), Some("p:w/ä"));
        assert_eq!(options.application_name(), "x&y");
        assert_eq!(options.session_options(), Some("-c a=b"));
    }

    #[test]
    fn a_unix_socket_folder_can_be_spelt_in_two_ways() {
        for url in ["postgres://ann@/shop?host=/run/pg&port=5433", "postgres://ann@%2Frun%2Fpg:5433/shop"] {
            let options = parse(url);
            assert_eq!(options.host(), &Host::Unix("/run/pg".into()), "{url}");
            assert_eq!(&*options.server(), "/run/pg/.s.PGSQL.5433");
            assert_eq!(options.database(), "shop");
        }
    }

    #[test]
    fn another_server_has_all_but_its_place_from_the_first() {
        let options = parse("postgres://ann:hunter2@h:5433/shop?sslmode=verify-full");
        for (host, port, server) in [
            ("standby", None, "standby:5433"),
            ("standby", Some(6000), "standby:6000"),
            ("[::1]", None, "[::1]:5433"),
            ("::1", None, "[::1]:5433"),
            ("/run/pg", Some(6000), "/run/pg/.s.PGSQL.6000"),
        ] {
            let other = options.clone().with_server(host, port).unwrap_or_else(|error| panic!("{host}: {error}"));
            assert_eq!(&*other.server(), server);
            assert_eq!((other.user(), other.database(), other.ssl_mode()), ("ann", "shop", SslMode::VerifyFull));
            assert!(other.password().is_some());
        }
        for host in ["", "a,b", "[]", "a/b", "postgres://h"] {
            options.clone().with_server(host, None).expect_err(host);
        }
        let bound = parse("postgres://ann@h/shop?channel_binding=require");
        bound.with_server("/run/pg", None).expect_err("there is nothing to bind to");
    }

    #[test]
    fn an_ipv6_address_is_in_brackets() {
        let options = parse("postgres://ann@[::1]:5433/shop");
        assert_eq!(options.host(), &Host::Tcp("::1".to_owned()));
        assert_eq!(&*options.server(), "[::1]:5433");
    }

    #[test]
    fn what_is_not_understood_is_named() {
        refused("mysql://ann@h/db", "url", "postgres://");
        refused("postgres://h/db", "user", "missing");
        refused("postgres://ann@/db", "host", "missing");
        refused("postgres://ann@h/db?sslmod=require", "sslmod", "unknown");
        refused("postgres://ann@h/db?sslmode=allow", "sslmode", "not supported");
        refused("postgres://ann@h/db?sslmode=on", "sslmode", "none of");
        refused("postgres://ann@h/db?sslmode=prefer&sslmode=require", "sslmode", "twice");
        refused("postgres://ann@h:0/db", "port", "65535");
        refused("postgres://ann@h:99999/db", "port", "65535");
        refused("postgres://ann@h,g/db", "host", "several hosts");
        refused("postgres://ann@h/db?connect_timeout=-1", "connect_timeout", "number");
        refused("postgres://ann@h/db?keepalives=2", "keepalives", "neither");
        refused("postgres://ann@h/d%zz", "dbname", "percent");
        refused("postgres://ann@h/d%00", "dbname", "zero byte");
        refused("postgres://ann@h/d%ff", "dbname", "UTF-8");
        refused("postgres://ann@h/db?sslcert=a.pem", "sslkey", "missing");
        refused("postgres://ann@h/db?sslmode=verify-ca", "sslrootcert", "verify-ca");
        refused("postgres://ann@h/db?sslmode=require&sslrootcert=system", "sslmode", "too weak");
        refused("postgres://ann@h/db?sslmode=disable&channel_binding=require", "channel_binding", "encrypted");
        refused("postgres://ann@h/db?require_auth=md5,!none", "require_auth", "mixed");
        refused("postgres://ann@h/db?require_auth=scram", "require_auth", "none of");
        refused("postgres://ann@h/db?target_session_attrs=any", "target_session_attrs", "unknown");
    }

    #[test]
    fn the_systems_authorities_mean_verify_full() {
        assert_eq!(parse("postgres://ann@h/db?sslrootcert=system").ssl_mode(), SslMode::VerifyFull);
    }

    #[test]
    fn require_auth_lists_what_is_accepted_or_what_is_not() {
        use AuthenticationMethod::{Md5, None, Password, ScramSha256};
        let accepted = |list: &str| parse(&format!("postgres://ann@h/db?require_auth={list}")).accepted_methods;
        assert_eq!(accepted("scram-sha-256"), [ScramSha256]);
        assert_eq!(accepted("!password,!md5"), [ScramSha256, None]);
        assert_eq!(accepted(""), [Password, Md5, ScramSha256, None]);
        assert!(parse("postgres://ann@h/db?require_auth=password").clear_text_allowed);
        assert!(!parse("postgres://ann@h/db?require_auth=!md5").clear_text_allowed);
    }

    #[test]
    fn secrets_are_not_shown() {
        let options = parse("postgres://ann:hunter2@h/db").with_password(SecretString::from("hunter3"));
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter") && shown.contains("[redacted]"), "{shown}");
        for url in ["postgres://ann:hunter2@h:x/db", "postgres://ann:hunter2/@h/db", "postgres://ann:x?hunter2@h/db"] {
            let error = url.parse::<ConnectOptions>().expect_err(url);
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
        }
        let options = parse("postgres://ann:hunter2@hunter3@h/db");
        assert_eq!(options.host(), &Host::Tcp("h".to_owned()), "the last @ ends the password");
    }
}

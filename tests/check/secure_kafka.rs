//! A Kafka of one test's own, whose listeners have TLS and SASL, and certificates that are right and wrong.

use std::{
    fmt::Write as _,
    fs,
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};
use tempfile::TempDir;

use crate::stack::Stack;

/// How long it may take to start, on a machine that is busy with other tests.
const START_TIMEOUT: Duration = Duration::from_mins(2);

/// Who may sign in with SASL, and how.
pub(crate) const USER: &str = "ann";
pub(crate) const PASSWORD: &str = "check-secure-kafka";

/// An authority, and a certificate that it has signed.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The broker. It ends with the value.
pub(crate) struct SecureKafka {
    process: Child,
    folder: TempDir,
    /// Without TLS and SASL.
    pub(crate) plain: u16,
    /// With TLS, and a certificate for `localhost`.
    pub(crate) tls: u16,
    /// With TLS, and one that has expired.
    pub(crate) expired: u16,
    /// With TLS, for clients with a certificate.
    pub(crate) mutual: u16,
    /// With TLS and SASL: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER.
    pub(crate) sasl: u16,
    /// With SASL alone, and it sends clients to `127.1`: for the resolver that is 127.0.0.1, and for whoever reads it no loopback address.
    pub(crate) open: u16,
}

impl Authority {
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate that is valid until this year, and its key.
    pub(crate) fn sign(&self, name: &str, year: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(year, 1, 1));
        (params.signed_by(&key, &self.0).expect("a certificate").pem(), key.serialize_pem())
    }
}

impl SecureKafka {
    /// Starts one; `authority` has signed its certificates, and is the one for those of clients.
    pub(crate) fn start(stack: &Stack, authority: &Authority) -> Self {
        let folder = TempDir::with_prefix("pgsluice-kafka-").expect("a folder");
        let [plain, controller, tls, expired, mutual, sasl, open] = free_ports();
        write(folder.path(), "authority.pem", &authority.pem());
        for (name, year) in [("right", 2100), ("expired", 2021)] {
            let (certificate, key) = authority.sign("localhost", year);
            write(folder.path(), name, &format!("{key}{certificate}"));
        }
        let at = |name: &str| folder.path().join(name).display().to_string();
        let listeners = [("PLAIN", plain), ("TLS", tls), ("EXPIRED", expired), ("MUTUAL", mutual), ("SASL", sasl)];
        let listen = |host: &str| listeners.map(|(name, port)| format!("{name}://{host}:{port}")).join(",");
        let mut settings = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={},OPEN://127.0.0.1:{open},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners={},OPEN://127.1:{open}\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAIN\n\
             listener.security.protocol.map=PLAIN:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,EXPIRED:SSL,MUTUAL:SSL,SASL:SASL_SSL,OPEN:SASL_PLAINTEXT\n\
             log.dirs={}\nauto.create.topics.enable=false\noffsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=2\n\
             offsets.topic.num.partitions=2\nlog.cleaner.dedupe.buffer.size=8388608\ngroup.initial.rebalance.delay.ms=0\n\
             listener.name.mutual.ssl.client.auth=required\nlistener.name.mutual.ssl.truststore.type=PEM\n\
             listener.name.mutual.ssl.truststore.location={}\n\
             listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
             listener.name.open.sasl.enabled.mechanisms=PLAIN\n\
             listener.name.open.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
             listener.name.sasl.plain.sasl.jaas.config={MODULES}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
             listener.name.sasl.scram-sha-256.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n\
             listener.name.sasl.scram-sha-512.sasl.jaas.config={MODULES}.scram.ScramLoginModule required;\n\
             listener.name.sasl.oauthbearer.sasl.jaas.config={MODULES}.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"broker\";\n",
            listen("127.0.0.1"),
            listen("localhost"),
            at("data"),
            at("authority.pem"),
        );
        for (listener, store) in [("tls", "right"), ("expired", "expired"), ("mutual", "right"), ("sasl", "right")] {
            let prefix = format!("listener.name.{listener}.ssl.keystore");
            // Writing to a String cannot fail.
            let _ = write!(settings, "{prefix}.type=PEM\n{prefix}.location={}\n", at(store));
        }
        write(folder.path(), "server.properties", &settings);

        let scram = |mechanism| format!("{mechanism}=[name={USER},password={PASSWORD}]");
        let formatted = java(stack, folder.path())
            .args(["kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAA", "-c", &at("server.properties")])
            .args(["--add-scram", &scram("SCRAM-SHA-256"), "--add-scram", &scram("SCRAM-SHA-512")])
            .output()
            .expect("Java runs");
        assert!(formatted.status.success(), "{}", String::from_utf8_lossy(&formatted.stderr));

        let log = fs::File::create(folder.path().join("log")).expect("a file");
        let mut command = java(stack, folder.path());
        command.args(["kafka.Kafka", &at("server.properties")]).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        // It must not outlive a test that is killed.
        // SAFETY: between fork and exec, the function calls nothing but `prctl`, which may be called there.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let process = command.spawn().expect("Java runs");
        let mut kafka = Self { process, folder, plain, tls, expired, mutual, sasl, open };
        kafka.await_started();
        kafka
    }

    fn await_started(&mut self) {
        let began = Instant::now();
        loop {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            if log.contains("Kafka Server started") {
                return;
            }
            let ended = self.process.try_wait().expect("its state");
            assert!(ended.is_none() && began.elapsed() < START_TIMEOUT, "Kafka does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Where Kafka's login modules are.
const MODULES: &str = "org.apache.kafka.common.security";

impl Drop for SecureKafka {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).collect();
            println!("Kafka's log has\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        // It may have ended already.
        let _killed = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// Java with Kafka's classes, and made to start fast.
fn java(stack: &Stack, folder: &Path) -> Command {
    let libs = PathBuf::from(stack.variable("KAFKA_LIBS"));
    let mut command = Command::new(stack.variable("JAVA"));
    command.args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData"]);
    command.arg(format!("-Djava.io.tmpdir={}", folder.display()));
    command.arg("-cp").arg(libs.join("*")).current_dir(folder);
    command
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("written");
}

/// Ports at which nothing listens just now; all are held until the last is found.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let held = [(); COUNT].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("bound").port())
}

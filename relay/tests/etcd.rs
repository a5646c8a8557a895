//! A real etcd as the arbiter: the same contract as the witness's, over its kills, freezes, logon, TLS and the loss of members.
//!
//! Needs the program `etcd` (Debian: etcd-server) and, for certificates, `openssl`. Without etcd the tests say that they are
//! skipped, unless RELAY_REQUIRE_ETCD is set, as CI does.

mod appliance;

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use appliance::asker::{self, Asker, STREAM, config, floor, record, swap};
use appliance::{LIMIT, eventually, free_port, program, run, scratch, text};
use etcd_client::{
    Certificate, Client, ConnectOptions, Identity, Permission, PermissionType, TlsOptions,
};
use relay_core::arbiter::{ArbiterAnswer, Ask, Revision};
use relayd::arbiter::init;

const KEY: &str = "/relay/test/7/";
/// Long enough for a shared machine's disk; requests that are to fail have a short one.
const PATIENT: &str = "deadline_ms = 20000\n";
const HASTY: &str = "deadline_ms = 300\n";

/// Whether there is an etcd to test with.
fn is_there() -> bool {
    let is_there = std::process::Command::new("etcd")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_there {
        assert!(
            std::env::var_os("RELAY_REQUIRE_ETCD").is_none(),
            "RELAY_REQUIRE_ETCD is set and there is no etcd"
        );
        println!("skipped: no program `etcd` here; on Debian: apt-get install etcd-server");
    }
    is_there
}

/// The members of a cluster, each in a directory of its own.
struct Cluster {
    home: tempfile::TempDir,
    ports: Vec<(u16, u16)>,
    tls: Option<Certificates>,
    members: Vec<Option<Child>>,
}

impl Cluster {
    fn started(members: usize, tls: bool) -> Self {
        let home = scratch();
        let tls = tls.then(|| Certificates::made(home.path()));
        let mut cluster = Self {
            home,
            ports: (0..members).map(|_| (free_port(), free_port())).collect(),
            tls,
            members: (0..members).map(|_| None).collect(),
        };
        for member in 0..members {
            cluster.start(member);
        }
        cluster
    }

    fn endpoint(&self, member: usize) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.ports[member].0)
    }

    fn endpoints(&self) -> String {
        let quoted: Vec<String> = (0..self.ports.len())
            .map(|member| format!("\"{}\"", self.endpoint(member)))
            .collect();
        format!("[{}]", quoted.join(", "))
    }

    /// The arbiter section of a node that uses it.
    fn section(&self) -> String {
        let mut section = format!("kind = \"etcd\"\nendpoints = {}\n", self.endpoints());
        if let Some(tls) = &self.tls {
            section.push_str(&tls.section());
        }
        section
    }

    fn start(&mut self, member: usize) {
        let peer = |at: usize| format!("http://127.0.0.1:{}", self.ports[at].1);
        let all: Vec<String> = (0..self.ports.len())
            .map(|at| format!("m{at}={}", peer(at)))
            .collect();
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.home.path().join(format!("log-{member}")))
            .unwrap();
        let mut command = program("etcd");
        command
            .args(["--name", &format!("m{member}")])
            .arg("--data-dir")
            .arg(self.home.path().join(format!("data-{member}")))
            .args(["--listen-client-urls", &self.endpoint(member)])
            .args(["--advertise-client-urls", &self.endpoint(member)])
            .args(["--listen-peer-urls", &peer(member)])
            .args(["--initial-advertise-peer-urls", &peer(member)])
            .args(["--initial-cluster", &all.join(",")])
            .args(["--logger", "zap", "--log-level", "warn"]);
        if let Some(tls) = &self.tls {
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(tls.path("ca.pem"))
                .arg("--cert-file")
                .arg(tls.path("server.pem"))
                .arg("--key-file")
                .arg(tls.path("server.key"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.members[member] = Some(child);
    }

    fn kill(&mut self, member: usize) {
        let mut child = self.members[member].take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn signal(&self, member: usize, signal: i32) {
        let child = self.members[member].as_ref().unwrap();
        // SAFETY: the process is a child of ours that was not waited for yet, so the number is its own.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
    }

    /// Does something as an administrator.
    fn administer<T>(&self, work: impl AsyncFn(Client) -> Result<T, etcd_client::Error>) -> T {
        let mut options = ConnectOptions::new();
        if let Some(tls) = &self.tls {
            let read = |name| std::fs::read(tls.path(name)).unwrap();
            let identity = Identity::from_pem(read("client.pem"), read("client.key"));
            let given = TlsOptions::new()
                .ca_certificate(Certificate::from_pem(read("ca.pem")))
                .identity(identity);
            options = options.with_tls(given);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let begun = Instant::now();
            let mut client = Client::connect([self.endpoint(0)], Some(options))
                .await
                .unwrap();
            while let Err(error) = client.status().await {
                assert!(begun.elapsed() < LIMIT, "etcd does not start: {error}");
            }
            work(client).await.unwrap()
        })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.members.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An authority, and certificates of its for server and client.
struct Certificates(PathBuf);

impl Certificates {
    fn made(home: &Path) -> Self {
        let made = Self(home.to_owned());
        made.authority("ca");
        made.sign("server", "subjectAltName=IP:127.0.0.1");
        made.sign("client", "extendedKeyUsage=clientAuth");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn openssl(&self, arguments: &str) {
        let mut command = program("openssl");
        command.current_dir(&self.0).args(arguments.split(' '));
        let output = run(&mut command);
        assert!(
            output.status.success(),
            "openssl {arguments}: {}",
            text(&output)
        );
    }

    fn authority(&self, name: &str) {
        self.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
             -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ));
    }

    fn sign(&self, name: &str, extension: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={name} \
             -keyout {name}.key -out {name}.csr"
        ));
        std::fs::write(self.path("extension"), extension).unwrap();
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
             -extfile extension -out {name}.pem"
        ));
    }

    fn section(&self) -> String {
        format!(
            "ca_file = \"{}\"\ncert_file = \"{}\"\nkey_file = \"{}\"\n",
            self.path("ca.pem").display(),
            self.path("client.pem").display(),
            self.path("client.key").display()
        )
    }
}

#[test]
fn the_contract_is_kept() {
    if !is_there() {
        return;
    }
    let cluster = Cluster::started(1, false);
    asker::keeps_the_contract(&config(&(cluster.section() + PATIENT)));
}

#[test]
fn of_two_swaps_on_one_base_exactly_one_wins() {
    if !is_there() {
        return;
    }
    let cluster = Cluster::started(1, false);
    asker::one_wins_each_race(&config(&(cluster.section() + PATIENT)), 300);
}

/// Goal: no answered swap is lost by a kill, and no swap is called undone that happened. Method: swap as fast as it is
/// answered, kill etcd after a number of answers drawn from a seed, start it again, compare. 10 rounds.
#[test]
fn what_was_answered_survives_kills_under_load() {
    if !is_there() {
        return;
    }
    let seed = appliance::seed();
    let mut random = appliance::Random::new(seed);
    let mut cluster = Cluster::started(1, false);
    let config = config(&(cluster.section() + HASTY));
    init(&config, &record(1, 1), LIMIT).unwrap();
    let mut node = Asker::connected(&config);
    let mut epoch = 1;
    for round in 0..10 {
        let context = format!("seed {seed}, round {round}");
        let target = random.below(30);
        let mut held = eventually_read(&mut node);
        let (mut answered, mut killed) = (0, false);
        let maybe = loop {
            if answered >= target && !killed {
                cluster.kill(0);
                killed = true;
            }
            epoch += 1;
            let next = record(epoch, epoch * 10);
            match node.ask(swap(held.revision, None, next)) {
                ArbiterAnswer::Done(revision) => {
                    assert!(!killed, "{context}: answered by nobody");
                    held.membership = next;
                    held.revision = revision;
                    answered += 1;
                }
                ArbiterAnswer::Unavailable => break None,
                ArbiterAnswer::Unknown => break Some(next),
                other => panic!("{context}: {other:?}"),
            }
        };
        if !killed {
            cluster.kill(0);
        }
        cluster.start(0);
        let found = eventually_read(&mut node);
        if found.membership != held.membership {
            assert_eq!(Some(found.membership), maybe, "{context}");
        }
    }
}

fn eventually_read(node: &mut Asker) -> relay_core::arbiter::Registers {
    let mut found = None;
    eventually("etcd answers", || {
        if let ArbiterAnswer::Read(Some(registers)) = node.ask(Ask::Read) {
            found = Some(registers);
        }
        found.is_some()
    });
    found.unwrap()
}

/// Goal: with etcd gone nothing is claimed to have happened, and what surely never left is told as that.
#[test]
fn a_dead_etcd_is_unavailable_and_found_again() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::started(1, false);
    let config = config(&(cluster.section() + HASTY));
    let base = init(&config, &record(1, 1), LIMIT).unwrap();
    let mut node = Asker::connected(&config);
    cluster.kill(0);
    // Noticed by the next use, or by the second's try of the connection.
    let first = node.ask(swap(base, None, record(2, 2)));
    assert!(
        matches!(first, ArbiterAnswer::Unknown | ArbiterAnswer::Unavailable),
        "{first:?}"
    );
    node.wait_connected(false);
    for ask in [
        swap(base, None, record(2, 3)),
        Ask::Floor {
            base,
            floor: floor(1),
        },
        Ask::Read,
    ] {
        assert_eq!(node.ask(ask), ArbiterAnswer::Unavailable);
    }
    cluster.start(0);
    node.wait_connected(true);
    let found = eventually_read(&mut node);
    assert_eq!((found.membership, found.revision), (record(1, 1), base));
    assert_eq!(found.floor, None);
}

/// Goal: a frozen etcd leaves a change unknown and a read unavailable by the deadline; what comes of the change afterwards is
/// told apart by its nonce.
#[test]
fn a_frozen_etcd_leaves_changes_unknown_and_reads_unavailable() {
    if !is_there() {
        return;
    }
    let cluster = Cluster::started(1, false);
    let config = config(&(cluster.section() + HASTY));
    let base = init(&config, &record(1, 1), LIMIT).unwrap();
    let mut node = Asker::connected(&config);
    eventually_read(&mut node);
    cluster.signal(0, libc::SIGSTOP);
    let begun = Instant::now();
    assert_eq!(
        node.ask(swap(base, None, record(2, 77))),
        ArbiterAnswer::Unknown
    );
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(node.ask(Ask::Read), ArbiterAnswer::Unavailable);
    assert_eq!(
        node.ask(swap(base, None, record(2, 78))),
        ArbiterAnswer::Unavailable
    );
    cluster.signal(0, libc::SIGCONT);
    // A change on the same base settles the unknown one: either it wins, or it finds the other's record.
    let mut settled = None;
    eventually("it is settled", || {
        match node.ask(swap(base, None, record(2, 79))) {
            ArbiterAnswer::Done(_) => settled = Some(79),
            ArbiterAnswer::Refused(Some(held)) => settled = Some(held.membership.nonce),
            ArbiterAnswer::Unavailable | ArbiterAnswer::Unknown => {}
            other => panic!("{other:?}"),
        }
        settled.is_some()
    });
    assert!(matches!(settled, Some(77 | 79)), "{settled:?}");
    assert_eq!(
        eventually_read(&mut node).membership.nonce,
        settled.unwrap()
    );
}

/// Goal: certificates of both sides and a password are used and checked. Method: an etcd that demands both; then each of them
/// wrong, and a restart, after which etcd has forgotten every logon.
#[test]
fn tls_and_password_are_demanded_and_given() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::started(1, true);
    cluster.administer(async |mut client| {
        client.user_add("root", "super", None).await?;
        client.user_grant_role("root", "root").await?;
        client.role_add("relay").await?;
        let all = Permission::with_prefix(Permission::new(PermissionType::Readwrite, KEY));
        client.role_grant_permission("relay", all).await?;
        client.user_add("relay", "open sesame", None).await?;
        client.user_grant_role("relay", "relay").await?;
        client.auth_enable().await
    });
    let home = cluster.home.path().to_owned();
    std::fs::write(home.join("password"), "open sesame\n").unwrap();
    std::fs::write(home.join("wrong"), "close sesame\n").unwrap();
    let user = |file: &str| {
        let path = home.join(file);
        format!("user = \"relay\"\npassword_file = \"{}\"\n", path.display())
    };
    let section = cluster.section() + PATIENT;
    let good = config(&(section.clone() + &user("password")));
    asker::keeps_the_contract(&good);

    let refused = |section: &str, parts: &[&str]| {
        let patience = Duration::from_secs(10);
        let error = init(&config(section), &record(1, 9), patience).unwrap_err();
        let said = error.to_string();
        for part in parts {
            assert!(said.contains(part), "{said:?} lacks {part:?}");
        }
    };
    refused(
        &(section.clone() + &user("wrong")),
        &["nothing was made", "authentication failed"],
    );
    refused(&section, &["nothing was made"]);
    let elsewhere = format!("{section}{}prefix = \"/other/\"\n", user("password"));
    refused(&elsewhere, &["nothing was made", "permission denied"]);
    let strangers = Certificates(home.join("strangers"));
    std::fs::create_dir(&strangers.0).unwrap();
    strangers.authority("ca");
    let unknown = section.replace(
        &home.join("ca.pem").display().to_string(),
        &strangers.path("ca.pem").display().to_string(),
    );
    refused(
        &(unknown + &user("password")),
        &["nothing was made", "certificate"],
    );

    let mut node = Asker::connected(&good);
    let before = eventually_read(&mut node);
    cluster.kill(0);
    cluster.start(0);
    let after = eventually_read(&mut node);
    assert_eq!(after, before);
    node.done(swap(after.revision, None, record(9, 90)));
}

/// Goal: with several members the loss of a minority is got over, that of the majority is told. Method: three members, kill the
/// one talked to (all in turn), then two at once.
#[test]
fn the_loss_of_members_is_got_over_while_a_majority_lives() {
    if !is_there() {
        return;
    }
    let mut cluster = Cluster::started(3, false);
    let config = config(&(cluster.section() + "deadline_ms = 1000\n"));
    let mut base = init(&config, &record(1, 1), LIMIT).unwrap();
    let mut node = Asker::connected(&config);
    let mut epoch = 1;
    let mut go_on = |node: &mut Asker, base: &mut Revision| {
        eventually("a swap is carried out", || {
            epoch += 1;
            let next = record(epoch, epoch * 10);
            match node.ask(swap(*base, None, next)) {
                ArbiterAnswer::Done(revision) => {
                    *base = revision;
                    true
                }
                ArbiterAnswer::Refused(Some(held)) => {
                    // An earlier one of ours, told unknown.
                    assert_eq!(held.membership.nonce % 10, 0);
                    *base = held.revision;
                    false
                }
                ArbiterAnswer::Unknown | ArbiterAnswer::Unavailable => false,
                other => panic!("{other:?}"),
            }
        });
    };
    for member in 0..3 {
        cluster.kill(member);
        go_on(&mut node, &mut base);
        cluster.start(member);
        go_on(&mut node, &mut base);
    }
    let before = eventually_read(&mut node);
    cluster.kill(0);
    cluster.kill(1);
    eventually("it is told that nothing can be decided", || {
        node.ask(Ask::Read) == ArbiterAnswer::Unavailable
    });
    let answer = node.ask(swap(base, None, record(900, 9_000)));
    assert!(
        matches!(answer, ArbiterAnswer::Unavailable | ArbiterAnswer::Unknown),
        "{answer:?}"
    );
    cluster.start(0);
    let after = eventually_read(&mut node);
    assert!(
        after == before || after.membership.nonce == 9_000,
        "{after:?} after {before:?}"
    );
}

#[test]
fn other_peoples_keys_are_garbled_and_left_over_floors_removed() {
    if !is_there() {
        return;
    }
    let cluster = Cluster::started(1, false);
    let config = config(&(cluster.section() + PATIENT));
    let mut node = Asker::connected(&config);
    let put = |key: &str, value: Vec<u8>| {
        let key = format!("{KEY}{key}");
        cluster.administer(async |mut client| {
            client
                .put(key.as_str(), value.clone(), None)
                .await
                .map(drop)
        });
    };
    for value in [vec![1, 2, 3], vec![], vec![0; 300]] {
        put("record", value);
        assert_eq!(node.ask(Ask::Read), ArbiterAnswer::Garbled);
        assert_eq!(
            node.ask(swap(Revision(1), None, record(2, 2))),
            ArbiterAnswer::Garbled
        );
        let error = init(&config, &record(1, 1), LIMIT).unwrap_err();
        assert!(
            error.to_string().contains("no record of this stream"),
            "{error}"
        );
    }
    put("floor", floor(4_096).encode().to_vec());
    let key = format!("{KEY}record");
    cluster.administer(async |mut client| client.delete(key.as_str(), None).await.map(drop));
    assert_eq!(node.read(), None, "a floor without a record is nothing");
    let revision = init(&config, &record(1, 1), LIMIT).unwrap();
    let found = node.read().unwrap();
    assert_eq!((found.revision, found.floor), (revision, None));
    assert_eq!(found.membership.stream, STREAM);
}

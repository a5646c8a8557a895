//! What a real chrony says of the clock is what the journal says. chronyd runs without control of any clock (`-x`), in a network
//! namespace where only this relayd can ask it; its reference is the machine's own clock, declared to be of a stratum that nobody
//! else has.
//!
//! Needs the programs `chronyd` and `chronyc` (Debian: chrony) and root. Without them the test says that it is skipped, unless
//! RELAY_REQUIRE_CHRONY is set. A PTP clock that chrony follows needs hardware: what chrony says of one is tested as text, in
//! `relay/src/clock_watch.rs`, and nothing else.

mod appliance;

use std::path::Path;
use std::process::{Child, Stdio};

use appliance::hosts::{Host, Network};
use appliance::{Appliance, Shape, eventually, program};
use relay_journal::reader::{JournalDir, ReadFrom};
use relay_wire::code::{ClockDiscipline, RecordKind};
use relay_wire::record::{ClockBody, ERROR_UNBOUNDED, clock_body};

const CHRONYD: &str = "/usr/sbin/chronyd";
const CHRONYC: &str = "/usr/bin/chronyc";
/// Where `chronyc` asks first: a chronyd of this machine's own would answer there.
const USUAL_SOCKET: &str = "/run/chrony/chronyd.sock";

/// Whether there is a chrony to test with.
fn is_there() -> bool {
    if Path::new(USUAL_SOCKET).exists() {
        println!("skipped: this machine's own chronyd would answer");
        return false;
    }
    let programs = [CHRONYD, CHRONYC];
    let is_there = programs.iter().all(|path| Path::new(path).exists());
    if !is_there {
        assert!(
            std::env::var_os("RELAY_REQUIRE_CHRONY").is_none(),
            "RELAY_REQUIRE_CHRONY is set and there is no chrony"
        );
        println!("skipped: no chrony here; on Debian: apt-get install chrony");
    }
    is_there
}

/// A chronyd, killed when it goes.
struct Chronyd(Child);

impl Chronyd {
    fn started(host: &Host, home: &Path, lines: &str) -> Self {
        let place = |name: &str| home.join(name).display().to_string();
        // Without a socket in the filesystem, it answers on loopback's port 323 alone.
        let config = format!(
            "bindcmdaddress 127.0.0.1\nbindcmdaddress /\nport 0\npidfile {}\n{lines}",
            place("chronyd.pid")
        );
        let path = place("chrony.conf");
        std::fs::write(&path, config).unwrap();
        let mut command = program(CHRONYD);
        command.args(["-x", "-d", "-u", "root", "-f", &path]);
        host.place(&mut command);
        let log = std::fs::File::create(place("chronyd.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Chronyd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The statements about the clock in a journal, with what it rests on.
fn statements(node: &Appliance) -> Vec<(ClockBody, String)> {
    let journal = JournalDir::open(&node.directory()).unwrap();
    let mut records = journal.records(ReadFrom::Start).unwrap();
    let mut found = Vec::new();
    while let Some(Ok(next)) = records.next_record() {
        if next.record.kind() == Some(RecordKind::Clock) {
            let (body, sources) = clock_body(next.record.payload()).unwrap();
            found.push((*body, sources.to_owned()));
        }
    }
    found
}

#[test]
fn the_journal_says_what_a_real_chrony_says() {
    if !is_there() {
        return;
    }
    let network = Network::of(1);
    let mut shape = Shape {
        host: network.hosts[0].clone(),
        ..Shape::default()
    };
    shape.limits += "\n[stream.evidence]\nclock_every_ms = 1000";
    let home = appliance::scratch();
    let chronyd = Chronyd::started(&shape.host, home.path(), "local stratum 9\n");
    let mut node = Appliance::started(shape.clone());
    let of_chrony =
        |(_, sources): &(ClockBody, String)| sources.contains("chrony 7F7F0101 stratum 9");
    eventually("chrony is heard of", || {
        statements(&node).iter().any(of_chrony)
    });
    let said = statements(&node);
    let (body, _) = said.iter().find(|found| of_chrony(found)).unwrap();
    assert_eq!(body.discipline, ClockDiscipline::Chrony.number());
    // The machine's clock against itself: what is left is the dispersion that chrony adds with time.
    assert!(body.error_bound_ns.get() < 1_000_000_000, "{body:?}");
    eventually("it is bounded", || node.counters()["clock.is_bounded"] == 1);

    // One that follows nothing bounds nothing, and one that is gone is not waited for.
    drop(chronyd);
    let idle = Chronyd::started(&shape.host, home.path(), "");
    let lost = |(body, sources): &(ClockBody, String)| {
        sources.contains("chrony") && body.discipline != ClockDiscipline::Chrony.number()
    };
    eventually("that chrony follows nothing", || {
        statements(&node).iter().any(lost)
    });
    for (body, _) in statements(&node).iter().filter(|found| lost(found)) {
        let is_kernel = body.discipline == ClockDiscipline::Kernel.number();
        assert_eq!(
            body.error_bound_ns.get() == ERROR_UNBOUNDED,
            !is_kernel,
            "{body:?}"
        );
    }
    drop(idle);
    eventually("without chrony", || {
        let said = statements(&node);
        said.last()
            .is_some_and(|(_, sources)| !sources.contains("chrony"))
    });
    assert!(node.stop().success(), "{}", node.log());
}

//! What a real ptp4l says of the clock is what the journal says: a grandmaster at one end of a veth pair, a slave at the other, both
//! with software timestamps, both of this machine's one clock. Neither may touch that clock: they run without CAP_SYS_TIME, so that
//! the kernel refuses what the slave's servo asks for. (ptp4l's own `free_running` would not do: with it the port never gets to be a
//! slave.)
//!
//! Needs `ptp4l` and `pmc` (Debian: linuxptp), `setpriv`, and root. Without ptp4l the test says that it is skipped, unless
//! RELAY_REQUIRE_PTP is set. Timestamps of hardware need that hardware: what ptp4l says with them is tested as text, in
//! `relay/src/ptp.rs`.

mod appliance;

use std::path::Path;
use std::process::{Child, Stdio};

use appliance::hosts::{Host, Network};
use appliance::{Appliance, Shape, eventually, program};
use relay_journal::clock::{ClockFold, SessionClock};
use relay_journal::reader::{JournalDir, ReadFrom};
use relay_wire::code::{ClockDiscipline, RecordKind};
use relay_wire::record::{ClockBody, ERROR_UNBOUNDED, clock_body};

const PTP4L: &str = "/usr/sbin/ptp4l";
const PMC: &str = "/usr/sbin/pmc";
/// Where `chronyc` asks first: a chronyd of this machine's own would answer there, and goes before ptp4l.
const CHRONY_SOCKET: &str = "/run/chrony/chronyd.sock";
/// What the grandmaster says of itself: within 100 ns of UTC.
const ACCURACY_NS: u64 = 100;
/// Messages so often that a slave settles, and a loss is seen, in a second or two. The domain is not the usual one, so that it must
/// be read from the file.
const PACE: &str =
    "domainNumber 3\nlogAnnounceInterval -2\nlogSyncInterval -3\nlogMinDelayReqInterval -3\n";

/// Whether there is a ptp4l to test with.
fn is_there() -> bool {
    if Path::new(CHRONY_SOCKET).exists() {
        println!("skipped: this machine's own chronyd would answer");
        return false;
    }
    let is_there = [PTP4L, PMC].iter().all(|path| Path::new(path).exists());
    if !is_there {
        assert!(
            std::env::var_os("RELAY_REQUIRE_PTP").is_none(),
            "RELAY_REQUIRE_PTP is set and there is no ptp4l"
        );
        println!("skipped: no ptp4l here; on Debian: apt-get install linuxptp");
    }
    is_there
}

/// A ptp4l that cannot touch the clock, killed when it goes.
struct Ptp4l(Child);

impl Ptp4l {
    fn started(host: &Host, interface: &str, home: &Path, name: &str, lines: &str) -> Self {
        let place = |end: &str| home.join(format!("{name}{end}")).display().to_string();
        let path = place(".conf");
        let config = format!("[global]\nuds_address {}\n{PACE}{lines}", place(""));
        std::fs::write(&path, config).unwrap();
        let mut command = program("setpriv");
        command.args(["--bounding-set", "-sys_time", "--inh-caps", "-sys_time"]);
        command.args([PTP4L, "-4", "-S", "-m", "-i", interface, "-f", &path]);
        host.place(&mut command);
        let log = std::fs::File::create(place(".log")).unwrap();
        command.stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.stdout(log).spawn().unwrap())
    }
}

impl Drop for Ptp4l {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The statements about the clock in a journal with what it rests on, and what `relay verify` makes of them.
fn statements(node: &Appliance) -> (Vec<(ClockBody, String)>, Option<SessionClock>) {
    let journal = JournalDir::open(&node.directory()).unwrap();
    let mut records = journal.records(ReadFrom::Start).unwrap();
    let (mut found, mut fold) = (Vec::new(), ClockFold::default());
    while let Some(Ok(next)) = records.next_record() {
        fold.apply(&next.record);
        if next.record.kind() == Some(RecordKind::Clock) {
            let (body, sources) = clock_body(next.record.payload()).unwrap();
            found.push((*body, sources.to_owned()));
        }
    }
    (found, fold.finish())
}

/// Whether the last statement, if there is one, is such.
fn says(node: &Appliance, is_such: impl Fn(&ClockBody, &str) -> bool) -> bool {
    let last = statements(node).0.pop();
    last.is_some_and(|(body, sources)| is_such(&body, &sources))
}

#[test]
fn the_journal_says_what_a_real_ptp4l_says() {
    if !is_there() {
        return;
    }
    let network = Network::of(1);
    let mut shape = Shape {
        host: network.hosts[0].clone(),
        ..Shape::default()
    };
    let home = appliance::scratch();
    shape.limits += &format!(
        "\n[stream.evidence]\nclock_every_ms = 1000\nptp4l_config_file = \"{}\"",
        home.path().join("slave.conf").display()
    );
    let best = "clockClass 6\nclockAccuracy 0x21\n";
    let master = Ptp4l::started(&network.router, "h0", home.path(), "master", best);
    // It settles at once instead of after 16 s, and does not ask for a step.
    let quick =
        "slaveOnly 1\npi_proportional_const 0.1\npi_integral_const 0.3\nfirst_step_threshold 0\n";
    let slave = Ptp4l::started(&shape.host, "eth0", home.path(), "slave", quick);
    let mut node = Appliance::started(shape);
    let is_ptp = |body: &ClockBody| body.discipline == ClockDiscipline::Ptp.number();
    eventually("the slave follows its master", || {
        says(&node, |body, _| is_ptp(body))
    });
    let said = statements(&node).0;
    let (body, sources) = said.iter().find(|(body, _)| is_ptp(body)).unwrap();
    assert!(sources.contains("ptp4l eth0 slave of "), "{sources}");
    let bound = body.error_bound_ns.get();
    // Beyond what the offset and the grandmaster's accuracy make lies the way's delay.
    let least = body.offset_ns.get().unsigned_abs() + ACCURACY_NS;
    assert!(least < bound && bound < 1_000_000_000, "{body:?}");
    eventually("it is bounded", || node.counters()["clock.is_bounded"] == 1);

    // What it measured goes on being shown when there is no master any more, and means nothing.
    drop(master);
    eventually("the slave is without a master", || {
        says(&node, |body, sources| {
            sources.contains("ptp4l eth0 listening") && !is_ptp(body)
        })
    });
    drop(slave);
    eventually("without a ptp4l", || {
        says(&node, |_, sources| !sources.contains("ptp4l"))
    });

    let (said, session) = statements(&node);
    for (body, sources) in &said {
        assert_eq!(is_ptp(body), sources.contains(" slave of "), "{sources}");
        let follows_nothing = body.discipline == ClockDiscipline::None.number();
        let is_unbounded = body.error_bound_ns.get() == ERROR_UNBOUNDED;
        assert_eq!(is_unbounded, follows_nothing, "{body:?}");
    }
    let session = session.expect("there is one, without a name");
    assert!(session.disciplines().any(|by| by == ClockDiscipline::Ptp));
    assert!(
        session
            .worst
            .is_some_and(|worst| worst.error_bound_ns >= bound)
    );
    assert!(node.stop().success(), "{}", node.log());
}

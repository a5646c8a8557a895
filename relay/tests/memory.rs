//! Goal: memory is what the configuration allows, whatever clients do. Method: a small ring, and nine times as much flow;
//! subscribers that read along, that come late, that take nothing and that select by many patterns; topics by the thousand. What
//! the process grew by at most is held against what README says of it ("Scale").

mod appliance;

use std::time::Instant;

use appliance::{Appliance, LIMIT, Shape, send};
use relay_client::Start;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const PUBLISHERS: u64 = 8;
const SUBSCRIBERS: u64 = 32;
const TOPICS: u64 = 4_000;
const REPLAY_BUFFERS: u64 = 4;
const MESSAGES: u64 = 600;
const PAYLOAD: u64 = 64 * KIB;

/// A figure of the kernel's about the process, in bytes.
fn memory(appliance: &Appliance, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", appliance.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * KIB
}

/// What README allows here, and 2 MiB for what the allocator can't give back.
fn allowed() -> u64 {
    let replay = REPLAY_BUFFERS * 4 * MIB;
    let receive = PUBLISHERS * 2 * (PAYLOAD + KIB);
    let connections = 1_024 * KIB;
    let clients = (PUBLISHERS + SUBSCRIBERS) * 16 * KIB;
    let topics = TOPICS * (512 + SUBSCRIBERS / 8);
    let housekeeping = 8 * MIB;
    replay + receive + connections + clients + topics + housekeeping + 2 * MIB
}

#[test]
fn memory_stays_what_the_configuration_allows() {
    let mut appliance = Appliance::started(Shape {
        limits: format!(
            "ring = \"4MiB\"\npublishers = {PUBLISHERS}\nsubscribers = {SUBSCRIBERS}\n\
             topics = {TOPICS}\nreplay_buffers = {REPLAY_BUFFERS}\npayload = \"64KiB\"\n\
             credit = \"1MiB\""
        ),
        ..Shape::default()
    });
    let before = memory(&appliance, "VmRSS");
    let mut publishers: Vec<_> = (1..=PUBLISHERS).map(|id| appliance.publisher(id)).collect();
    let topics: Vec<_> = (0..TOPICS)
        .map(|number| publishers[0].topic(&format!("orders.x{number}")).unwrap())
        .collect();
    let _silent: Vec<_> = (0..8)
        .map(|_| appliance.subscriber(&[">"], Start::Earliest))
        .collect();
    let patterns: Vec<_> = (0..500)
        .map(|number| format!("orders.x{}", number * 8))
        .collect();
    let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
    let mut choosy: Vec<_> = (0..8)
        .map(|_| appliance.subscriber(&patterns, Start::Live))
        .collect();
    let mut live = appliance.subscriber(&[">"], Start::Live);
    let mut received = 0;
    let bytes = vec![7; PAYLOAD as usize];
    for number in 0..MESSAGES {
        let publisher = &mut publishers[0];
        send(publisher, topics[(number * 8 % TOPICS) as usize], &bytes);
        while live.poll().unwrap().is_some() {
            received += 1;
        }
        for subscriber in &mut choosy {
            while subscriber.poll().unwrap().is_some() {}
        }
    }
    assert!(publishers[0].wait_released(LIMIT).unwrap());
    let mut late: Vec<_> = (0..8)
        .map(|_| appliance.subscriber(&[">"], Start::Earliest))
        .collect();
    let mut of_late = vec![0; late.len()];
    let begun = Instant::now();
    while received < MESSAGES || of_late.iter().any(|&count| count < MESSAGES) {
        assert!(begun.elapsed() < LIMIT, "{received} and {of_late:?}");
        while live.poll().unwrap().is_some() {
            received += 1;
        }
        for (subscriber, count) in late.iter_mut().zip(&mut of_late) {
            while subscriber.poll().unwrap().is_some() {
                *count += 1;
            }
        }
    }
    let grown = memory(&appliance, "VmHWM") - before;
    let allowed = allowed();
    assert!(
        grown > MIB && grown <= allowed,
        "{grown} bytes of {allowed}"
    );
    drop((publishers, late, choosy, live));
    assert!(appliance.stop().success(), "{}", appliance.log());
}

//! The appliance as clients see it: real process, real sockets, real disk.

mod appliance;

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use appliance::{Appliance, LIMIT, Shape, eventually, payload, send, take};
use relay_client::{Start, Subscriber};

const MODES: [&str; 4] = [
    "mode = \"shared\"\nidle = \"park\"",
    "mode = \"shared\"\nidle = \"yield\"",
    "mode = \"split\"\nidle = \"park\"",
    "mode = \"split\"\nidle = \"yield\"\ncpus = [0, 1, 0]",
];

/// Goal: what is published comes out, once, in order, in every threading mode, with each idle strategy and write method.
#[test]
fn messages_come_out_in_every_mode() {
    for threads in MODES {
        for method in ["dsync", "covering"] {
            let mut shape = Shape {
                threads: threads.to_owned(),
                ..Shape::default()
            };
            shape.journal = shape.journal.replace("dsync", method);
            let mut appliance = Appliance::started(shape);
            let mut publisher = appliance.publisher(1);
            let topic = publisher.topic("orders.a").unwrap();
            let mut live = appliance.subscriber(&[">"], Start::Live);
            for number in 1..=500 {
                send(&mut publisher, topic, &payload(1, number));
            }
            assert!(
                publisher.wait_released(LIMIT).unwrap(),
                "{threads} {method}"
            );
            let expected: Vec<_> = (1..=500).map(|number| payload(1, number)).collect();
            assert_eq!(take(&mut live, 500), expected, "{threads} {method}");
            let mut late = appliance.subscriber(&["orders.*"], Start::Earliest);
            assert_eq!(take(&mut late, 500), expected, "{threads} {method}");
            assert!(appliance.stop().success(), "{}", appliance.log());
        }
    }
}

/// Goal: blocks go to segment files the ring knows by number, over all segments. Method: fill some segments of the least
/// size with either write method, look at the counters, read everything back from disk.
#[test]
fn blocks_go_to_registered_files() {
    for method in ["dsync", "covering"] {
        let mut shape = Shape::default();
        shape.journal = shape.journal.replace("dsync", method);
        let mut appliance = Appliance::started(shape);
        let mut publisher = appliance.publisher(1);
        let topic = publisher.topic("orders.a").unwrap();
        let large = |number: u64| {
            let mut bytes = vec![number as u8; 60_000];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            bytes
        };
        for number in 1..=400 {
            send(&mut publisher, topic, &large(number));
        }
        assert!(publisher.wait_released(LIMIT).unwrap());
        let counters = appliance.counters();
        assert!(counters["position.released"] > 5 * (4 << 20), "{method}");
        let (all, registered) = (
            counters["sequence.writes"],
            counters["sequence.writes_to_registered_files"],
        );
        // Those of the very first turns, before the kernel has answered, name the descriptor.
        assert!(registered + 8 >= all, "{registered} of {all}, {method}");
        let mut late = appliance.subscriber(&[">"], Start::Earliest);
        let came = take(&mut late, 400);
        assert!(
            (1..)
                .zip(&came)
                .all(|(number, bytes)| *bytes == large(number))
        );
        assert!(appliance.stop().success(), "{}", appliance.log());
    }
}

/// Pages of a file in the page cache, of how many.
fn cached(path: &Path) -> (usize, usize) {
    let file = std::fs::File::open(path).unwrap();
    let length = file.metadata().unwrap().len() as usize;
    let mut resident = vec![0_u8; length.div_ceil(4096)];
    let (access, kind) = (libc::PROT_READ, libc::MAP_SHARED);
    // SAFETY: a new mapping of a file that is open, which nobody looks into; room for a byte a page is passed with it.
    let result = unsafe {
        let base = libc::mmap(ptr::null_mut(), length, access, kind, file.as_raw_fd(), 0);
        assert_ne!(base, libc::MAP_FAILED, "{}", path.display());
        let result = libc::mincore(base, length, resident.as_mut_ptr());
        libc::munmap(base, length);
        result
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    let pages = resident.iter().filter(|&&page| page & 1 == 1).count();
    (pages, resident.len())
}

/// Goal: a direct write never finds its place in the page cache, whoever reads the files in the ordinary way. Method: read all of
/// them, as a backup does, also where the log has come into the next segment; the one being written and the next are out of it
/// soon, those behind them stay, which shows that the looking works.
#[test]
fn the_log_writes_where_nothing_is_cached() {
    let mut appliance = Appliance::started(Shape::default());
    let segment = |index: usize| appliance.directory().join(format!("segments/{index:016x}"));
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("orders.a").unwrap();
    for current in 0..2 {
        eventually("all are prepared", || segment(current + 3).exists());
        for index in 0..=current + 3 {
            let length = std::fs::read(segment(index)).unwrap().len();
            assert_eq!(length, 4 << 20, "of the least size");
        }
        let (far, all) = cached(&segment(current + 3));
        assert_eq!(far, all, "what was read is cached");
        for index in [current, current + 1] {
            eventually("nothing is cached", || cached(&segment(index)).0 == 0);
        }
        for _ in 0..80 {
            send(&mut publisher, topic, &[7; 60_000]);
        }
        assert!(publisher.wait_released(LIMIT).unwrap());
    }
    assert!(appliance.stop().success(), "{}", appliance.log());
}

/// Goal: the hot threads allocate nothing once flow is steady. Method: the process counts; publish, look, publish more,
/// look again.
#[test]
fn the_hot_path_allocates_nothing_after_start() {
    for threads in MODES {
        // Long heartbeats: on a busy machine a client that is late would connect anew, which does allocate.
        let appliance = Appliance::started(Shape {
            threads: threads.to_owned(),
            limits: "ring = \"8MiB\"\nheartbeat_ms = 20000".to_owned(),
            ..Shape::default()
        });
        let mut publisher = appliance.publisher(1);
        let topic = publisher.topic("orders.a").unwrap();
        let mut everything = appliance.subscriber(&[">"], Start::Live);
        let mut filtered = appliance.subscriber(&["orders.*"], Start::Live);
        let allocations = || {
            let mut counters = appliance.counters();
            counters.retain(|label, _| label.ends_with(".allocations"));
            counters
        };
        let mut flow = |from: u64| {
            for number in from..from + 4000 {
                send(&mut publisher, topic, &payload(1, number));
                if number % 50 == 0 {
                    assert!(publisher.wait_released(LIMIT).unwrap());
                    take(&mut everything, 50);
                    take(&mut filtered, 50);
                }
            }
        };
        flow(1);
        let before = allocations();
        flow(4001);
        assert_eq!(allocations(), before, "{threads}");
        assert!(
            before.values().sum::<u64>() > 0,
            "the count counts: connections were made on a hot thread"
        );
    }
}

/// Goal: a stop on SIGTERM loses nothing and the next start knows that it was clean.
#[test]
fn a_clean_stop_releases_what_was_accepted() {
    let mut appliance = Appliance::started(Shape::default());
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("orders.a").unwrap();
    for number in 1..=200 {
        send(&mut publisher, topic, &payload(1, number));
    }
    assert!(appliance.stop().success(), "{}", appliance.log());
    appliance.start();
    assert!(
        appliance.log().contains("was_clean=true"),
        "{}",
        appliance.log()
    );
    assert!(publisher.wait_released(LIMIT).unwrap());
    let mut all = appliance.subscriber(&[">"], Start::Earliest);
    assert_eq!(
        take(&mut all, 200),
        (1..=200).map(|n| payload(1, n)).collect::<Vec<_>>()
    );
    assert_eq!(all.next_seq().get(), 201);
}

/// Goal: a record of the past reaches subscribers though messages as long are not taken any more. Method: the limit is lowered between
/// two runs.
#[test]
fn a_lower_limit_keeps_no_record_of_the_past_back() {
    let usual = Shape::default().limits;
    let mut appliance = Appliance::started(Shape {
        limits: format!("{usual}\npayload = \"256KiB\""),
        ..Shape::default()
    });
    let mut publisher = appliance.publisher(1);
    let topic = publisher.topic("orders.a").unwrap();
    let long = vec![7; 256 << 10];
    send(&mut publisher, topic, &long);
    assert!(publisher.wait_released(LIMIT).unwrap());
    publisher.close().unwrap();
    assert!(appliance.stop().success(), "{}", appliance.log());
    appliance.shape.limits = format!("{usual}\npayload = \"1KiB\"");
    appliance.write_config();
    appliance.start();
    for pattern in [">", "orders.*"] {
        let mut late = appliance.subscriber(&[pattern], Start::Earliest);
        assert_eq!(take(&mut late, 1), std::slice::from_ref(&long), "{pattern}");
    }
    let publisher = appliance.publisher(1);
    assert_eq!(publisher.payload_limit(), 1 << 10);
}

/// Reads until told to stop and everything up to `until` has come.
fn follow(
    mut subscriber: Subscriber,
    is_over: &AtomicBool,
    until: &dyn Fn() -> u64,
) -> Vec<(u64, u64)> {
    let mut seen = Vec::new();
    let mut last = Instant::now();
    loop {
        assert!(
            last.elapsed() < 3 * LIMIT,
            "stuck after {} messages",
            seen.len()
        );
        match subscriber.next_within(Duration::from_millis(100)).unwrap() {
            Some(delivery) => {
                last = Instant::now();
                let payload = delivery.record.payload();
                let number =
                    |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
                assert_eq!(payload, appliance::payload(number(0), number(8)), "altered");
                seen.push((number(0), number(8)));
            }
            None if is_over.load(Ordering::Acquire) && seen.len() as u64 >= until() => return seen,
            None => {}
        }
    }
}

/// Lets the other threads end when the one that drives them fails.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Goal: 50 rounds of SIGKILL under load lose, double, alter and reorder nothing. Method: two publishers and two
/// subscribers (all, and filtered) that resume by themselves; at the end what each publisher was told is released must
/// have come to each subscriber exactly once and in order.
#[test]
fn fifty_kills_under_load_lose_nothing() {
    let mut appliance = Appliance::started(Shape::default());
    let is_over = Arc::new(AtomicBool::new(false));
    // Publishers that are done (in units of 2^32) and how much they sent in all.
    let sent = Arc::new(AtomicU64::new(0));
    let all_sent = |sent: &AtomicU64| match sent.load(Ordering::Acquire) {
        both if both >> 32 == 2 => both & u64::from(u32::MAX),
        _ => u64::MAX,
    };
    std::thread::scope(|scope| {
        let _ends_all = SetOnDrop(Arc::clone(&is_over));
        let publishers: Vec<_> = (1..=2)
            .map(|id| {
                let mut publisher = appliance.publisher(id);
                let (is_over, sent) = (Arc::clone(&is_over), Arc::clone(&sent));
                scope.spawn(move || {
                    let topic = publisher.topic(&format!("orders.{id}")).unwrap();
                    let mut number = 0;
                    while !is_over.load(Ordering::Acquire) {
                        number += 1;
                        send(&mut publisher, topic, &payload(id, number));
                        if number % 64 == 0 {
                            assert!(publisher.wait_released(LIMIT).unwrap());
                        }
                    }
                    assert!(publisher.wait_released(LIMIT).unwrap());
                    sent.fetch_add(number + (1 << 32), Ordering::AcqRel);
                    number
                })
            })
            .collect();
        let followers: Vec<_> = [&[">"][..], &["orders.1", "orders.2"]]
            .into_iter()
            .map(|patterns| {
                let subscriber = appliance.subscriber(patterns, Start::Earliest);
                let (is_over, sent) = (Arc::clone(&is_over), Arc::clone(&sent));
                scope.spawn(move || follow(subscriber, &is_over, &|| all_sent(&sent)))
            })
            .collect();
        let mut least = 0;
        for round in 0..50 {
            eventually("some more is released", || {
                let released = appliance.counters()["sequence.next_seq"];
                let is_enough = released > least + 20 + round * 7 % 50;
                least = if is_enough { released } else { least };
                is_enough
            });
            appliance.kill();
            appliance.start();
        }
        is_over.store(true, Ordering::Release);
        let counts: Vec<u64> = publishers.into_iter().map(|p| p.join().unwrap()).collect();
        for follower in followers {
            let seen = follower.join().unwrap();
            for (id, &count) in (1..).zip(&counts) {
                let numbers: Vec<u64> = seen
                    .iter()
                    .filter(|(p, _)| *p == id)
                    .map(|(_, number)| *number)
                    .collect();
                let expected: Vec<u64> = (1..=count).collect();
                assert_eq!(numbers.len() as u64, count, "publisher {id}");
                assert!(
                    numbers == expected,
                    "publisher {id}: lost, doubled or out of order"
                );
            }
        }
        assert!(
            counts.iter().sum::<u64>() > 1000,
            "there was load: {counts:?}"
        );
    });
}

/// Goal: several streams in one process are apart: own order, own journal, own clients.
#[test]
fn streams_are_apart() {
    let home = appliance::scratch();
    let mut config = "node = 1\n".to_owned();
    for id in 1..=2 {
        config.push_str(&format!(
            "[[stream]]\nid = {id}\nname = \"s{id}\"\nlisten = \"127.0.0.1:0\"\n\
             directory = \"{}\"\n[stream.threads]\nidle = \"park\"\n[stream.journal]\n\
             segment_size = \"4MiB\"\nprepared = \"8MiB\"\nwrite_method = \"dsync\"\n\
             [stream.limits]\nring = \"8MiB\"\n[[stream.credential]]\nname = \"p1\"\n\
             secret = \"{}\"\npublisher = 1\npublish = [\">\"]\nsubscribe = [\">\"]\n",
            home.path().join(format!("s{id}")).display(),
            appliance::SECRET,
        ));
    }
    let path = home.path().join("relayd.toml");
    std::fs::write(&path, config).unwrap();
    let formatted = appliance::run(appliance::relayd().arg("format").arg("--config").arg(&path));
    assert!(
        formatted.status.success(),
        "{}",
        appliance::text(&formatted)
    );
    let mut child = appliance::relayd()
        .arg("run")
        .arg("--config")
        .arg(&path)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for id in 1..=2_u64 {
        let line = lines.next().unwrap().unwrap();
        let address = line.split("listen=").nth(1).unwrap().to_owned();
        assert!(line.contains(&format!("stream={id}")));
        let credential = appliance::credential("p1");
        let config =
            relay_client::PublisherConfig::new(vec![address.clone()], credential.clone(), 1);
        let mut publisher = relay_client::Publisher::connect(config).unwrap();
        let topic = publisher.topic("t").unwrap();
        send(&mut publisher, topic, &payload(id, 1));
        assert!(publisher.wait_released(LIMIT).unwrap());
        let config = relay_client::SubscriberConfig::new(
            vec![address],
            credential,
            vec![">".to_owned()],
            Start::Earliest,
        );
        let mut subscriber = Subscriber::connect(config).unwrap();
        assert_eq!(take(&mut subscriber, 1), [payload(id, 1)]);
        assert_eq!(subscriber.next_seq().get(), 2);
    }
    // SAFETY: the child was not waited for yet.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert!(child.wait().unwrap().success());
}

/// Goal: a signal to the process interrupts no hot thread. Method: what each of them says it blocks, in both modes.
#[test]
fn hot_threads_leave_signals_to_others() {
    for mode in ["shared", "split"] {
        let appliance = Appliance::started(Shape {
            threads: format!("mode = \"{mode}\"\nidle = \"park\""),
            ..Shape::default()
        });
        let tasks = std::fs::read_dir(format!("/proc/{}/task", appliance.pid())).unwrap();
        let mut hot = 0;
        for task in tasks.flatten() {
            // Other threads come and go, the kernel's workers for instance.
            let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let names = ["hot-", "ingress-", "sequence-", "egress-"];
            if !names.iter().any(|name| comm.starts_with(name)) {
                continue;
            }
            let Ok(status) = std::fs::read_to_string(task.path().join("status")) else {
                continue;
            };
            let blocked = status
                .lines()
                .find_map(|line| line.strip_prefix("SigBlk:"))
                .unwrap();
            let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
            assert_ne!(blocked & 1 << (libc::SIGTERM - 1), 0, "{status}");
            hot += 1;
        }
        // A worker of the kernel's has the name of its thread at first.
        assert!(hot >= if mode == "shared" { 1 } else { 3 }, "{mode}: {hot}");
    }
}

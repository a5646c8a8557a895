//! Subscribers behind the memory ring: what they get from the disk, and what they must not get from there.

use relay_wire::code::From;
use relay_wire::id::Position;

use crate::ONE;
use crate::world::{RING, World, settings};

/// Goal: a full socket cuts anywhere and nothing is lost or doubled, in the ring and behind it. Method: a subscriber that
/// takes a few bytes at a time, for many sizes, while the flow runs the ring round several times.
#[test]
fn a_slow_subscriber_goes_from_ring_to_disk_and_back_at_the_exact_byte() {
    for patterns in [&[">"][..], &["a.x"]] {
        for room in [1, 7, 272, 5000] {
            let mut world = World::new();
            let (conn, topic) = world.publisher("one", 1, 10);
            let slow = world.subscribe(From::Live, 0, None, patterns);
            world.publish(conn, ONE, topic, 1..=2);
            world.give_room(slow, Some(room));
            let mut next = 3;
            while world.sequence.open_position().get() < 3 * RING {
                world.publish(conn, ONE, topic, next..next + 40);
                next += 40;
                world.give_room(slow, Some(room));
            }
            assert!(
                world.fanout.census().2 > RING / 2,
                "it has fallen behind the ring"
            );
            world.give_room(slow, None);
            world.publish(conn, ONE, topic, next..=next);
            let seqs = world.subscriber_client(slow).seqs();
            assert_eq!(seqs, (1..=next).collect::<Vec<_>>(), "{patterns:?} {room}");
            assert_eq!(world.fanout.census().2, 0, "it is at the tail again");
        }
    }
}

/// Goal: a block rotten on disk ends a replay with an alarm, and never reaches a subscriber.
#[test]
fn a_damaged_block_is_not_forwarded() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.publish(conn, ONE, topic, 1..=10);
    let damaged = world.sequence.open_position().get() as usize;
    world.publish(conn, ONE, topic, 11..=20);
    let (mut world, _) = world.crash();
    world.disk.bytes[damaged + 300] ^= 1;
    let reader = world.subscribe(From::Earliest, 0, None, &[">"]);
    assert_eq!(
        world.subscriber_client(reader).seqs(),
        (1..=10).collect::<Vec<_>>()
    );
    assert_eq!(world.damaged, [Position(damaged as u64)]);
}

/// Goal: what is left of a block whose first part went out of memory is verified like a whole one where it is read from disk. Found by the
/// simulator. Method: a subscriber takes half a block, falls behind the ring, and the block rots on disk meanwhile.
#[test]
fn the_rest_of_a_block_is_verified_too() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    let slow = world.subscribe(From::Live, 0, None, &[">"]);
    world.give_room(slow, Some(700));
    let block = world.sequence.open_position().get() as usize;
    world.publish(conn, ONE, topic, 1..=10);
    let taken = world.subscriber_client(slow).seqs();
    assert!(
        (1..10).contains(&taken.len()),
        "part of the block: {taken:?}"
    );
    let mut next = 11;
    while world.sequence.open_position().get() < 3 * RING {
        world.publish(conn, ONE, topic, next..next + 40);
        next += 40;
    }
    world.disk.bytes[block + 2_000] ^= 1;
    world.give_room(slow, None);
    let client = world.subscriber_client(slow);
    assert_eq!(client.seqs(), taken, "nothing of it came after that");
    assert!(client.is_closed);
    assert_eq!(world.damaged, [Position(block as u64)]);
}

/// Goal: nobody is shown what is not on the disk yet as if it were. Found by the simulator and in review. Method: copies in memory count, the
/// disk completes nothing until no more is taken; one subscriber reads on from behind all of it, in steps, its replay buffer filled to
/// beyond what is on disk, another passes over all of it without wanting any.
#[test]
fn what_is_released_and_not_on_disk_is_served_from_memory() {
    let mut world = World::new();
    let (conn, topic) = world.publisher("one", 1, 10);
    world.topic(conn, "b").unwrap();
    let slow = world.subscribe(From::Live, 0, None, &[">"]);
    world.give_room(slow, Some(0));
    let mut next = 1;
    while world.sequence.durable().position.get() < RING / 5 {
        world.publish(conn, ONE, topic, next..next + 40);
        next += 40;
    }
    world.holds_writes = true;
    loop {
        let before = world.sequence.next_seq();
        world.publish(conn, ONE, topic, next..next + 40);
        next += 40;
        // Once a turn, as on a node whose standby has everything.
        world.sequence.set_group_limit(Position(u64::MAX), true);
        world.pass(1_000_000);
        if world.sequence.next_seq() == before {
            break;
        }
    }
    let durable = world.sequence.durable().position;
    let ahead = world.sequence.released().position.since(durable);
    assert!((RING / 4..=RING / 2).contains(&ahead), "{ahead}");
    assert!(world.fanout.floor() <= durable);
    // Its replay buffer then reaches beyond what is on disk.
    world.give_room(slow, Some(RING as usize / 6));
    let picky = world.subscribe(From::Earliest, 0, None, &["b"]);
    assert!(!world.subscriber_client(picky).is_closed);
    world.holds_writes = false;
    while !world.writes.is_empty() {
        world.complete_write(0);
        world.sequence.set_group_limit(Position(u64::MAX), true);
        world.pass(1_000_000);
    }
    world.sequence.set_group_limit(Position(u64::MAX), true);
    world.run();
    world.give_room(slow, None);
    let came = world.subscriber_client(slow).seqs();
    assert!(came.iter().copied().eq(1..next), "{} of {next}", came.len());
    assert!(!world.subscriber_client(picky).is_closed);
    assert!(world.damaged.is_empty(), "{:?}", world.damaged);
}

/// Goal: replay buffers are given out in turn, however fast each reads, and who waits for one or for a slow disk hears that this node is
/// there. Method: one buffer, three subscribers whose sockets never fill, a disk that reads when it is told to.
#[test]
fn replay_buffers_are_given_out_in_turn() {
    let mut settings = settings();
    settings.replay_slots = 1;
    let interval_ns = settings.heartbeat_ns;
    let mut world = World::with(settings);
    let (conn, topic) = world.publisher("one", 1, 10);
    let mut next = 1;
    while world.sequence.open_position().get() < 3 * RING {
        world.publish(conn, ONE, topic, next..next + 40);
        next += 40;
    }
    world.holds_reads = true;
    let readers = [(); 3].map(|()| world.subscribe(From::Earliest, 0, None, &[">"]));
    let received =
        |world: &World| readers.map(|reader| world.subscriber_client(reader).seqs().len());
    for turn in 0..6 {
        let before = received(&world);
        assert_eq!(world.reads.len(), 1);
        world.complete_read();
        world.run();
        let after = received(&world);
        for reader in 0..3 {
            let is_its_turn = reader == turn % 3;
            assert_eq!(
                after[reader] > before[reader],
                is_its_turn,
                "{turn}: {after:?}"
            );
        }
    }
    world.pass(interval_ns);
    for reader in readers {
        assert!(world.subscriber_client(reader).has("Heartbeat"));
    }
    world.holds_reads = false;
    world.complete_read();
    world.run();
    for reader in readers {
        let came = world.subscriber_client(reader).seqs();
        assert!(came.iter().copied().eq(1..next), "{} of {next}", came.len());
    }
}

//! The membership record: an arbiter that is gone when it is needed, or was restored from an old backup.

use super::appliance::group::GroupShape;
use super::appliance::load::LoadShape;
use super::{SUSPECTED, Scene};

/// Goal: with the arbiter gone the primary's death stops the flow, nobody takes over without it, and with it back the flow goes on
/// by itself.
#[test]
fn nobody_takes_over_without_the_arbiter() {
    let mut scene = Scene::on_loopback(&GroupShape::default(), &LoadShape::default());
    let leader = scene.group.await_in_sync();
    scene.group.witness.kill();
    scene.await_flow(100);
    scene.group.nodes[leader].kill();
    let delivered = scene.load.has_more(u64::MAX / 2, 2 * SUSPECTED);
    assert!(!delivered);
    let standby = 1 - leader;
    let before = scene.load.delivered();
    assert!(!scene.load.has_more(1, SUSPECTED), "{}", scene.group.logs());
    scene.group.nodes[standby].await_log(&["the arbiter is not reached"]);
    scene.group.witness.start();
    scene.await_flow(50);
    assert!(scene.load.delivered() > before);
    scene.group.nodes[leader].start();
    scene.await_recovery();
    scene.finish();
}

/// Goal: an arbiter restored from an old backup is noticed by whoever saw a later record, before anything rests on it: the nodes stop
/// and say what to do, and with the newest record back everything goes on. Method: the witness's store is copied, the record
/// changes, the copy is put back.
#[test]
fn the_arbiter_is_restored_from_an_old_backup() {
    let mut scene = Scene::on_loopback(&GroupShape::default(), &LoadShape::default());
    let store = scene.group.witness.store();
    let (old, newest) = (store.with_extension("old"), store.with_extension("newest"));
    scene.group.witness.kill();
    std::fs::copy(&store, &old).unwrap();
    scene.group.witness.start();
    // The record changes with each set.
    let leader = scene.group.await_in_sync();
    scene.group.nodes[1 - leader].kill();
    scene.await_flow(100);
    scene.group.nodes[1 - leader].start();
    scene.await_recovery();
    scene.group.witness.kill();
    std::fs::copy(&store, &newest).unwrap();
    std::fs::copy(&old, &store).unwrap();
    scene.group.witness.start();
    for place in 0..2 {
        let status = scene.group.nodes[place].wait();
        assert_eq!(status.code(), Some(1), "{}", scene.group.logs());
        let log = scene.group.nodes[place].log();
        let last = log.lines().last().unwrap();
        assert!(last.contains("restored from"), "{last}");
        assert!(last.contains("Bring the newest record back"), "{last}");
    }
    scene.group.witness.kill();
    std::fs::copy(&newest, &store).unwrap();
    scene.group.witness.start();
    for place in 0..2 {
        scene.group.nodes[place].start();
    }
    scene.await_recovery();
    scene.finish();
}

//! Measures the floors of this machine: `floor full|write|hop [option=value ...]`.
//!
//! Options: dir, rate, seconds, warmup, size, nodes, policy, mode, depth, idle, client_idle, pairs.

use std::collections::HashMap;
use std::process::ExitCode;

use relay_floor::{
    FloorError, Histogram, HopOptions, Idle, Options, Policy, WriteMode, WriteOptions, hop_only,
    new_histogram, plain_ping_pong, run, write_only,
};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let given: HashMap<String, String> = arguments
        .filter_map(|pair| {
            pair.split_once('=')
                .map(|(k, v)| (k.to_string(), v.to_string()))
        })
        .collect();
    let measured = match what.as_str() {
        "full" => full(&given),
        "write" => write(&given),
        "hop" => hop(&given),
        _ => {
            eprintln!("usage: floor full|write|hop [option=value ...]");
            return ExitCode::from(2);
        }
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn full(given: &HashMap<String, String>) -> Result<(), FloorError> {
    let base = Options::default();
    let options = Options {
        dir: text(given, "dir").map_or(base.dir, Into::into),
        rate: number(given, "rate").unwrap_or(base.rate),
        seconds: number(given, "seconds").unwrap_or(base.seconds),
        warmup: number(given, "warmup").unwrap_or(base.warmup),
        size: number(given, "size").unwrap_or(base.size as f64) as usize,
        nodes: number(given, "nodes").unwrap_or(base.nodes as f64) as usize,
        depth: number(given, "depth").unwrap_or(base.depth as f64) as usize,
        policy: match text(given, "policy") {
            Some("mirrored") => Policy::Mirrored,
            _ => Policy::Durable,
        },
        write_mode: mode(given, base.write_mode),
        server_idle: idle(given, "idle", base.server_idle),
        client_idle: idle(given, "client_idle", base.client_idle),
        ..base
    };
    let report = run(&options, &mut |_| true)?;
    println!(
        "mode {} offered {} received {} lost {} dup {} ooo {} rate {:.0} blocks {} syncs {}",
        report.write_mode.name(),
        report.offered,
        report.received,
        report.lost,
        report.duplicated,
        report.out_of_order,
        report.achieved_rate,
        report.blocks,
        report.syncs,
    );
    show("latency", &report.latency);
    show("ack latency", &report.ack_latency);
    show("send lateness", &report.send_lateness);
    show("received->written", &report.received_to_written);
    show("received->held", &report.received_to_held);
    show("written->sent", &report.written_to_sent);
    Ok(())
}

fn write(given: &HashMap<String, String>) -> Result<(), FloorError> {
    let base = WriteOptions::default();
    let report = write_only(&WriteOptions {
        dir: text(given, "dir").map_or(base.dir, Into::into),
        seconds: number(given, "seconds").unwrap_or(base.seconds),
        write_mode: mode(given, base.write_mode),
        idle: idle(given, "idle", base.idle),
        ..WriteOptions::default()
    })?;
    show(report.write_mode.name(), &report.latency);
    Ok(())
}

/// Pairs of short runs, so that a noisy second falls on both sides.
fn hop(given: &HashMap<String, String>) -> Result<(), FloorError> {
    let base = HopOptions::default();
    let options = HopOptions {
        size: number(given, "size").unwrap_or(base.size as f64) as usize,
        seconds: number(given, "seconds").unwrap_or(0.3),
        warmup: number(given, "warmup").unwrap_or(0.05),
        idle: idle(given, "idle", base.idle),
        ..base
    };
    let mut ratios = Vec::new();
    let (mut plain, mut ring) = (new_histogram(), new_histogram());
    for _ in 0..number(given, "pairs").unwrap_or(9.0).max(1.0) as u64 {
        let one_plain = plain_ping_pong(&options)?;
        let one_ring = hop_only(&options)?;
        let p50 = |found: &Histogram<u64>| found.value_at_quantile(0.5) as f64;
        ratios.push(p50(&one_ring) / p50(&one_plain));
        plain += one_plain;
        ring += one_ring;
    }
    ratios.sort_by(f64::total_cmp);
    show("plain", &plain);
    show("ring", &ring);
    let (least, middle, most) = (
        ratios[0],
        ratios[ratios.len() / 2],
        ratios[ratios.len() - 1],
    );
    println!("p50 ratio ring/plain over pairs: {least:.3} to {most:.3}, median {middle:.3}");
    Ok(())
}

fn show(name: &str, histogram: &Histogram<u64>) {
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    println!(
        "{name:>18}: n {:8} p50 {:9.2} p90 {:9.2} p99 {:9.2} p99.9 {:9.2} max {:9.2} us",
        histogram.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        histogram.max() as f64 / 1e3,
    );
}

fn text<'a>(given: &'a HashMap<String, String>, name: &str) -> Option<&'a str> {
    given.get(name).map(String::as_str)
}

fn number(given: &HashMap<String, String>, name: &str) -> Option<f64> {
    text(given, name).and_then(|value| value.parse().ok())
}

fn mode(given: &HashMap<String, String>, otherwise: WriteMode) -> WriteMode {
    match text(given, "mode") {
        Some("auto") => WriteMode::Auto,
        Some("dsync") => WriteMode::Dsync,
        Some("covering") => WriteMode::Covering,
        _ => otherwise,
    }
}

fn idle(given: &HashMap<String, String>, name: &str, otherwise: Idle) -> Idle {
    match text(given, name) {
        Some("spin") => Idle::Spin,
        Some("yield") => Idle::Yield,
        Some("park") => Idle::Park,
        _ => otherwise,
    }
}

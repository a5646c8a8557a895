#!/usr/bin/env python3
"""The scale curves of scripts/bench: latency, CPU and memory against how many of something there are.

  scripts/bench scale                            all curves, about 12 minutes on an otherwise idle machine
  scripts/bench scale --curves subscribers,slow  some of them
  scripts/bench scale --curves topics --points 10,1000 --seconds 10
  scripts/bench scale --repeat 5 --report target/scale.html       medians of five with their spread, as a page for a browser
  scripts/bench scale --journal-gib 1,5          where the disk has no room for the 20 GiB of the longest journal

Curves: subscribers (of one stream, unfiltered), filtered (subscribers with 10 patterns each, of 1,000 topics), publishers, topics,
patterns (of each of 10 subscribers), size (bytes of a message), journal (GiB: restart, seek, append), streams (of one relayd, which
share the rate), slow (of 10 subscribers), nodes (of the group).

Behind each table stands the growth: the exponent of each figure against the number, fitted over all points (0: it stays the same, 1: it
grows in proportion). CPU is relayd's (the primary's), of one CPU; its threads park when idle, or it would always be all of one. On a
machine with few CPUs the clients are a part of the latency: subscribers of one thread take their deliveries one after the other.

With --repeat N each point is measured N times, all points of a curve in turn; what is shown is the median, below it the least and the
most, and the growth is that of the medians. --report FILE.html draws all curves as one page.

Options: --dir DIR (journals are made there and removed again), --seconds N of each point, --repeat N, --report FILE.html, --json (a line
for each measurement, and one for each curve with median, least and most of its points and the growth), --no-build. Exit status:
0 measured, 1 failed, 2 wrong usage, 3 messages were lost.
"""
import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = ["cargo", "build", "--release", "--locked", "--quiet", "--bins"]

# Curve: points, what it measures, and the command without its common part; {x} is the point.
CURVES = {
    "subscribers": ([1, 10, 100, 500], "fan-out --rate 200 --subscribers {x}"),
    "filtered": ([1, 10, 100, 500], "fan-out --rate 500 --topics 1000 --patterns 10 --subscribers {x}"),
    "publishers": ([1, 10, 100, 1000], "fan-out --rate 1000 --subscribers 1 --publishers {x}"),
    "topics": ([10, 100, 1000, 10000, 100000], "fan-out --rate 500 --patterns 10 --wildcard --topics {x}"),
    "patterns": ([1, 10, 100, 1000], "fan-out --rate 500 --topics 1000 --wildcard --patterns {x}"),
    "size": ([16, 64, 256, 1024, 4096, 16384, 65536], "fan-out --rate 500 --subscribers 1 --size {x}"),
    "journal": ([1, 5, 20], "restart --runs 3 --length {x}GiB"),
    "streams": ([1, 2, 4, 8], "fan-out --rate 500 --subscribers 1 --streams {x}"),
    "slow": ([0, 1, 3, 9], "fan-out --rate 2000 --subscribers 10 --slow {x}"),
    "nodes": ([1, 2, 3], "fan-out --rate 500 --subscribers 1 --nodes {x}"),
}
# What the number is of, on the page, where the curve's name does not say it.
TITLES = {
    "filtered": "filtered subscribers",
    "patterns": "patterns of each subscriber",
    "size": "size, bytes",
    "journal": "journal, GiB",
    "slow": "slow subscribers of 10",
    "nodes": "nodes of the group",
}
# Columns of a table: title, how to get the value from the report, format. Growth is fitted to those named last.
CLIENTS = [
    ("p50 us", lambda r: r["p50_us"], ".0f"),
    ("p99 us", lambda r: r["p99_us"], ".0f"),
    ("ack p50 us", lambda r: r["ack_p50_us"], ".0f"),
    ("ack p99 us", lambda r: r["ack_p99_us"], ".0f"),
    ("deliveries/s", lambda r: r.get("deliveries_per_s"), ",.0f"),
    ("CPU us/message", lambda r: r.get("cpu_us_per_message"), ".1f"),
    ("CPU %", lambda r: 100 * r["cpu_share"] if r.get("cpu_share") is not None else None, ".1f"),
    ("RSS MiB", lambda r: r["resident_peak"] / 2**20 if r.get("resident_peak") else None, ".0f"),
]
STREAMS = [*CLIENTS, ("worst p99 us", lambda r: r["stream_p99_us_max"], ".0f")]
JOURNAL = [
    ("restart s", lambda r: r["ready_seconds_median"], ".2f"),
    ("seek ms", lambda r: r["seek_ms"], ".1f"),
    ("append p50 us", lambda r: r["append"]["p50_us"], ".0f"),
    ("append p99 us", lambda r: r["append"]["p99_us"], ".0f"),
    ("CPU us/append", lambda r: r.get("cpu_us_per_message"), ".1f"),
    ("RSS MiB", lambda r: r["resident_peak"] / 2**20 if r.get("resident_peak") else None, ".0f"),
]


def fail(text, status=1):
    print(f"scripts/bench scale: {text}", file=sys.stderr)
    sys.exit(status)


def growth(points):
    """Slope of log y over log x by least squares; None with fewer than two points above 0."""
    logs = [(math.log(x), math.log(y)) for x, y in points if x and y and x > 0 and y > 0]
    if len({x for x, _ in logs}) < 2:
        return None
    mean_x = sum(x for x, _ in logs) / len(logs)
    mean_y = sum(y for _, y in logs) / len(logs)
    above = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    return above / sum((x - mean_x) ** 2 for x, _ in logs)


def measure(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fail(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}", done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def common(options, curve):
    if curve == "journal":
        return ["--dir", options.dir]
    return ["--idle", "park", "--seconds", str(options.seconds), "--warmup", "1", "--dir", options.dir]


def possible(options, curve, points):
    """Those points that can be measured here; why not the others is said."""
    if curve == "journal":
        free = shutil.disk_usage(options.dir).free >> 30
        lacking = [gib for gib in points if gib + 2 > free]
        if lacking:
            print(f"-- journal: {lacking} GiB left out, {options.dir} has {free}", file=sys.stderr)
        return [gib for gib in points if gib + 2 <= free]
    return points


def run(options, curve, points):
    """Measures a curve and shows it; the lines for the page."""
    points = possible(options, curve, points)
    columns = {"journal": JOURNAL, "streams": STREAMS}.get(curve, CLIENTS)
    rows = {x: [] for x in points}
    lines = []
    try:
        for turn in range(1, options.repeat + 1):
            for x in points:
                words = CURVES[curve][1].format(x=x).split()
                print(f"-- {curve} {x:,}, {turn} of {options.repeat}: relay bench {' '.join(words)}", file=sys.stderr)
                report = measure([options.relay, "bench", *words, *common(options, curve), "--json"])
                values = [get(report) for _, get, _ in columns]
                rows[x].append(values)
                lines.append(of_page(report, curve, x, turn))
                if options.json:
                    named = {title: value for (title, _, _), value in zip(columns, values)}
                    print(json.dumps({"what": "scale", "curve": curve, "x": x, "run": turn, **named, "report": report}), flush=True)
    finally:
        # Where a point fails, those before it are shown all the same.
        show(options, curve, columns, {x: found for x, found in rows.items() if found})
        options.lines += lines


def of_page(report, curve, x, turn):
    """A result as `relay bench report` takes it; a name that tells the points apart would tear the curve apart."""
    return {**report, "name": "relay", "curve": TITLES.get(curve, curve), "x": x, "run": turn}


def summed(values, how):
    """Median, least or most of what there is; None of nothing."""
    found = [value for value in values if value is not None]
    return how(found) if found else None


def show(options, curve, columns, rows):
    """A row for each point: the median of its repeats, below it the least and the most; last the growth of the medians."""
    if not rows:
        return
    # What this curve says nothing of has no column.
    kept = [at for at in range(len(columns)) if any(values[at] is not None for found in rows.values() for values in found)]
    columns = [columns[at] for at in kept]
    summary = {
        x: {how.__name__: [summed((values[at] for values in found), how) for at in kept] for how in (statistics.median, min, max)}
        for x, found in rows.items()
    }
    exponents = [growth([(x, point["median"][at]) for x, point in summary.items()]) for at in range(len(columns))]
    if options.json:
        titles = [title for title, _, _ in columns]
        points = [
            {"x": x, **{name: dict(zip(titles, point[how])) for name, how in (("median", "median"), ("least", "min"), ("most", "max"))}}
            for x, point in summary.items()
        ]
        line = {"what": "scale", "curve": curve, "runs": options.repeat, "points": points, "growth": dict(zip(titles, exponents))}
        print(json.dumps(line), flush=True)
        return
    table = [[curve, *(title for title, _, _ in columns)]]
    for x, point in summary.items():
        text = {how: ["-" if value is None else format(value, form) for value, (_, _, form) in zip(point[how], columns)] for how in point}
        table.append([f"{x:,}", *text["median"]])
        if options.repeat > 1:
            table.append(["", *(f"{least}..{most}" for least, most in zip(text["min"], text["max"]))])
    table.append(["growth", *("-" if exponent is None else format(exponent, ".2f") for exponent in exponents)])
    widths = [max(len(row[at]) for row in table) for at in range(len(table[0]))]
    print()
    for row in table:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)), flush=True)


def draw(options):
    """The page of everything that was measured."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", dir=options.dir) as results:
        results.writelines(json.dumps(line) + "\n" for line in options.lines)
        results.flush()
        command = [options.relay, "bench", "report", results.name, "--title", "Scale curves", "--output", options.report]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        fail(f"the page could not be made: {done.stderr.strip()}")
    print(f"-- {done.stdout.strip()}", file=sys.stderr)


def numbers(text):
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"whole numbers, separated by commas, are needed, not {text!r}")


def count(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of 1 or more is needed, not {text!r}")
    return int(text)


def main():
    options = argparse.ArgumentParser(
        prog="scripts/bench scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--curves", default=",".join(CURVES))
    options.add_argument("--points", type=numbers)
    options.add_argument("--journal-gib", type=numbers, default=CURVES["journal"][0])
    options.add_argument("--seconds", type=float, default=3)
    options.add_argument("--dir", default=os.path.join(ROOT, "target"))
    options.add_argument("--repeat", type=count, default=1)
    options.add_argument("--report", metavar="FILE.html")
    options.add_argument("--json", action="store_true")
    options.add_argument("--no-build", action="store_true")
    options = options.parse_args()
    curves = options.curves.replace(",", " ").split()
    if not curves:
        fail(f'--curves names none; there are {", ".join(CURVES)}', 2)
    for curve in curves:
        if curve not in CURVES:
            fail(f'there is no curve "{curve}"; there are {", ".join(CURVES)}', 2)
    if options.points and len(curves) != 1:
        fail("--points belongs to one curve: name it with --curves", 2)
    if not options.no_build and subprocess.run(BUILD, cwd=ROOT).returncode:
        fail("the build failed")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target"))
    options.relay = os.path.join(target, "release", "relay")
    if not os.path.exists(options.relay):
        fail(f"{options.relay} is not there; leave --no-build out")
    os.makedirs(options.dir, exist_ok=True)
    options.lines = []
    try:
        for curve in curves:
            usual = options.journal_gib if curve == "journal" else CURVES[curve][0]
            run(options, curve, options.points or usual)
    finally:
        if options.report and options.lines:
            draw(options)


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)

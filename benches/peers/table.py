#!/usr/bin/env python3
"""Prints what scripts/peers measured as tables: the median of all runs of each cell, and the least and the most of them.

    table.py DIR        of latency.jsonl, failover.jsonl, or both in DIR
    table.py FILE       of one of them
"""

import json
import os
import statistics
import sys

# Each of the relay's policies, and what a peer has to promise to be held against it.
OURS = (("relay-durable", ("durable",)), ("relay-mirrored", ("durable", "replicated")))
HELD_PART = 0.95
LATE_US = 2e6


def rows_of(path, name):
    if os.path.isdir(path):
        path = os.path.join(path, name)
    elif os.path.basename(path) != name:
        return []
    if not os.path.exists(path):
        return []
    with open(path) as lines:
        return [json.loads(line) for line in lines]


def grouped(rows):
    """The rows of each variant, in the order they came."""
    found = {}
    for row in rows:
        found.setdefault(row["variant"], []).append(row)
    return found


def median(rows, key):
    return statistics.median(row[key] for row in rows)


def is_held(row):
    if "held" in row:
        return row["held"]
    # The drivers give up with two seconds' worth on its way; ours go on, and a message so late is what tells of it.
    return row["achieved"] >= HELD_PART * row["rate"] and row["max_us"] < LATE_US


def ms(us):
    value = us / 1e3
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def cell(rows, runs):
    """What a rate gave in `runs` runs: of those that held it, and how many did if not all."""
    if not rows:
        return "-"
    held = [row for row in rows if is_held(row)]
    if not held:
        return f"not held ({median(rows, 'achieved'):,.0f}/s)"
    text = f"{ms(median(held, 'p50_us'))} / {ms(median(held, 'p99_us'))}"
    return text if len(held) == runs else f"{text} (held in {len(held)} of {runs} runs)"


def between(values, shown):
    """Least and most of several runs."""
    values = list(values)
    return f"{shown(min(values))}..{shown(max(values))}" if values else "-"


def spread(rows):
    """As cell(), of the runs that held the rate."""
    held = [row for row in rows if is_held(row)]
    return " / ".join(between((row[key] for row in held), ms) for key in ("p50_us", "p99_us")) if held else "-"


def table(head, lines):
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for line in lines:
        print("| " + " | ".join(str(part) for part in line) + " |")
    print()


def latency(rows):
    steady = [row for row in rows if "msgs_per_s" not in row]
    most = [row for row in rows if "msgs_per_s" in row]
    rates = sorted({row["rate"] for row in steady})
    lines, spreads = [], []
    runs = len({row["run"] for row in rows})
    for variant, mine in grouped(rows).items():
        mine_steady = [row for row in mine if row in steady]
        cells = [cell([row for row in mine_steady if row["rate"] == rate], runs) for rate in rates]
        # A peer's rates above one that was not held are not tried; ours are, and what is not there has failed.
        is_peer = mine[0]["peer"] not in ("relay", "floor")
        if is_peer and (missed := [row["rate"] for row in mine_steady if not is_held(row)]):
            cells = ["not tried" if text == "-" and rate > min(missed) else text for text, rate in zip(cells, rates)]
        through = [row for row in mine if row in most]
        cells.append(f"{median(through, 'msgs_per_s'):,.0f}" if through else "-")
        # Where a rate is not held the generator stops, and what is still on its way was not lost.
        counted = [row for row in mine if row in most or is_held(row)]
        cells += [sum(row[key] for row in counted) for key in ("lost", "duplicated")]
        lines.append([variant, mine[0]["holds"], mine[0]["copies"], *cells])
        of_rates = [spread([row for row in mine_steady if row["rate"] == rate]) for rate in rates]
        spreads.append([variant, *of_rates, between((row["msgs_per_s"] for row in through), "{:,.0f}".format)])
    print(f"Publish to subscriber, ms: p50 / p99, median of {runs} runs; the most that goes through, msg/s\n")
    head = ["variant", "acknowledged when in", "copies", *(f"{rate:,.0f}/s" for rate in rates)]
    table([*head, "most", "lost", "duplicated"], lines)
    if runs > 1:
        print("Least and most of these runs: p50 / p99, ms, where the rate was held; the most that goes through, msg/s\n")
        table(["variant", *(f"{rate:,.0f}/s" for rate in rates), "most"], spreads)
    comparison(steady, rates)
    comparison_of_most(most)


def comparison_of_most(most):
    """How many times the relay's most is the best peer's, at equal promises."""
    lines = []
    for ours, classes in OURS:
        mine = [row for row in most if row["variant"] == ours]
        peers = [row for row in most if row["class"] in classes and row["peer"] != "relay"]
        if mine and peers:
            best, name = max((median(found, "msgs_per_s"), name) for name, found in grouped(peers).items())
            lines.append([ours, name, f"{median(mine, 'msgs_per_s') / best:.1f}"])
    if lines:
        print("The most that goes through the relay divided by the best peer's, at a promise as strong or stronger\n")
        table(["relay", "best", "times"], lines)


def comparison(steady, rates):
    """How many times the best peer's latency is the relay's, at equal promises."""
    lines = []
    for ours, classes in OURS:
        for rate in rates:
            held = [row for row in steady if row["rate"] == rate and is_held(row)]
            mine = [row for row in held if row["variant"] == ours]
            peers = [row for row in held if row["class"] in classes and row["peer"] != "relay"]
            if not mine or not peers:
                continue
            line = [ours, f"{rate:,.0f}"]
            for key in ("p50_us", "p99_us"):
                best, name = min((median(found, key), name) for name, found in grouped(peers).items())
                line += [name, f"{best / median(mine, key):.1f}"]
            lines.append(line)
    if lines:
        print("The best peer's latency divided by the relay's, at a promise as strong or stronger\n")
        table(["relay", "msg/s", "best p50", "times", "best p99", "times"], lines)


def failover(rows):
    lines = []
    for variant, mine in grouped(rows).items():
        outages = [ms for row in mine for ms in row.get("outages_ms", [row.get("outage_ms")])]
        back = sum(row.get("recovered", True) for row in mine)
        again = sum(row.get("strikes_repeated", 0) for row in mine)
        # The relay's bench counts what was lost of all that was sent, and resends until it is held.
        acknowledged = sum(row.get("acknowledged_lost", row["lost"]) for row in mine)
        lost, duplicated = (sum(row[key] for row in mine) for key in ("lost", "duplicated"))
        outage = f"{statistics.median(outages):,.0f} ({min(outages):,.0f} to {max(outages):,.0f})"
        if back < len(mine):
            outage = f"at least {outage}, not recovered in {len(mine) - back} of {len(mine)} runs"
        if again:
            outage += f"; leader struck again, unmeasured: {again}"
        lines.append([variant, len(mine), back, outage, acknowledged, lost - acknowledged, duplicated])
    print("SIGKILL of the leader at 1,000 msg/s: longest time without delivery at the subscriber, ms\n")
    head = ["variant", "runs", "recovered", "median (least to most)", "acknowledged and lost"]
    table([*head, "sent, not acknowledged, never came", "duplicated"], lines)


def main():
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    shown = (("latency.jsonl", latency), ("failover.jsonl", failover))
    found = [(show, rows) for name, show in shown if (rows := rows_of(sys.argv[1], name))]
    if not found:
        sys.exit(f"{sys.argv[1]}: no result is there; name a latency.jsonl, a failover.jsonl, or the directory of either")
    for show, rows in found:
        show(rows)


main()

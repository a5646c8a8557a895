#!/usr/bin/env python3
"""Compares what was published with what each subscriber received, and prints one JSON object.

    compare_hashes.py PUBLISHED RECEIVED [RECEIVED ...]

PUBLISHED has one line per message, `sha256 topic`, in the order of publishing (relay pub --hash-file). Each RECEIVED has
`seq sha256 topic`, in the order of receipt (relay sub --hash-file). It shares no code with what it judges.

Equal messages are told apart by how often they occurred: the n-th occurrence received is the n-th published.
lost: published and not received. duplicated: received more often than published. altered: received and never published.
reordered: what has to be taken out for the rest to be in the order of publishing. seq_breaks: seqs that do not follow the
one before. Exit status: 0 without any difference, 3 with some, 2 for wrong usage, 1 for unreadable files.
"""

import bisect
import json
import sys


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return file.read().splitlines()


def longest_rise(order):
    ends = []
    for place in order:
        at = bisect.bisect_left(ends, place)
        if at == len(ends):
            ends.append(place)
        else:
            ends[at] = place
    return len(ends)


def compare(published, received):
    places = {}
    for place, message in enumerate(published):
        places.setdefault(message, []).append(place)
    taken = {}
    order = []
    duplicated = altered = seq_breaks = 0
    last_seq = None
    for line in received:
        text, _, message = line.partition(" ") if " " in line else ("", "", line)
        seq = int(text) if text.isascii() and text.isdigit() else None
        if seq is None or (last_seq is not None and seq != last_seq + 1):
            seq_breaks += 1
        if seq is not None:
            last_seq = seq
        if message not in places:
            altered += 1
            continue
        count = taken.get(message, 0)
        if count < len(places[message]):
            order.append(places[message][count])
        else:
            duplicated += 1
        taken[message] = count + 1
    missing = len(published) - len(order)
    return {
        "received": len(received),
        # What was altered is missing in its true form too; it is counted once.
        "lost": max(0, missing - altered),
        "duplicated": duplicated,
        "reordered": len(order) - longest_rise(order),
        "altered": altered,
        "seq_breaks": seq_breaks,
    }


def main(arguments):
    if len(arguments) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        published = read_lines(arguments[0])
        subscribers = [compare(published, read_lines(path)) for path in arguments[1:]]
    except OSError as error:
        print(f"compare_hashes: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"published": len(published), "subscribers": subscribers}))
    faults = ("lost", "duplicated", "reordered", "altered", "seq_breaks")
    differs = any(subscriber[fault] for subscriber in subscribers for fault in faults)
    return 3 if differs else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

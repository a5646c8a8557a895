#!/usr/bin/env python3
"""Adds to the results of a driver what they are of, so that each line can be read by itself.

    record.py SCRATCH RUN NAME=TEXT... <LINES >>RESULTS

Lines that are no JSON object are left out. The names come first. A line without a machine is a peer's: it gets the machine in
SCRATCH/machine.json, and each file in SCRATCH/home/facts as text under the file's name. Paths that differ from run to run are made equal.
"""

import datetime
import json
import os
import sys


def facts_of(scratch):
    """What was noted of the servers and the client that run now, by name."""
    directory = os.path.join(scratch, "home", "facts")
    found = {}
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        with open(os.path.join(directory, name), encoding="utf-8") as text:
            found[name] = text.read().replace(scratch, "SCRATCH").strip()
    return found


def machine_of(scratch):
    """The machine without what is the relay's own, or of the probe by which it was asked."""
    with open(os.path.join(scratch, "machine.json"), encoding="utf-8") as text:
        machine = json.loads(text.read().splitlines()[-1])["machine"]
    for key in ("command", "version"):
        machine.pop(key, None)
    now = datetime.datetime.now(datetime.timezone.utc)
    return {**machine, "measured_at": now.strftime("%Y-%m-%dT%H:%M:%SZ")}


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    scratch, run = sys.argv[1:3]
    about = dict(word.split("=", 1) for word in sys.argv[3:])
    command = about.pop("command").strip()
    for line in sys.stdin:
        if not line.startswith("{"):
            continue
        row = {**about, "run": int(run), **json.loads(line)}
        if "machine" not in row:
            row |= {"command": command, **facts_of(scratch), "machine": machine_of(scratch)}
        print(json.dumps(row))


main()

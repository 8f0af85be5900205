"""Run a command and record how much memory its process holds: does a long study stay flat?

    python tools/watch.py memory.json 'what it is' --store runs/lab -- python study.py

Every half minute a line is added: seconds since the start, bytes, and how many cells the store has. The file is
written anew each time, so that a run which is stopped leaves what was seen.
"""
import argparse
import subprocess
import sys
import time
from pathlib import Path

import psutil

from xlnb.core import write_json
from xlnb.study.version import provenance


def watched(command, tell, store=None, every=30.):
    "Run `command`; `tell` gets all lines so far, after each; the exit status"
    process, start, lines = subprocess.Popen(command), time.monotonic(), []
    known = psutil.Process(process.pid)
    while process.poll() is None:
        cells = len([*Path(store).glob("*.parquet")]) if store else None
        try: held = known.memory_info().rss
        except psutil.NoSuchProcess: break
        lines.append(dict(seconds=round(time.monotonic() - start, 1), bytes=held, cells=cells))
        tell(lines)
        try: process.wait(every)
        except subprocess.TimeoutExpired: pass
    return process.wait()


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("out", type=Path, help="the file")
    p.add_argument("title", help="what is run, in words")
    p.add_argument("--store", help="folder of a study, whose cells are counted")
    p.add_argument("--every", type=float, default=30., help="seconds between two lines")
    args = [*(sys.argv[1:] if args is None else args), "--"]
    own, command = args[:args.index("--")], args[args.index("--") + 1:-1]
    a = p.parse_args(own)
    if not command: p.error("there is no command: give one after --")
    made = provenance()
    def tell(lines): write_json(a.out, dict(title=a.title, made=made, lines=lines), indent=None)
    return watched(command, tell, a.store, a.every)


if __name__ == "__main__": sys.exit(main())

"""Measure, and store what was measured: the ratios of `nbs/study/117_speed.ipynb`

    python tools/bench                          the comparisons on the laboratory encoder, within fifteen minutes
    python tools/bench --full                   the same on me5-small too, and all growth curves
    python tools/bench mmkd-release limits/salt some of it; --again: although it is stored
    python tools/bench --list                   what there is

What is stored is not measured again, so that a run which was stopped goes on.
"""
import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from xlnb.core import XlnbError, digest, nearest, write_json
from xlnb.study.version import provenance

from .comparisons import COMPARISONS, SIZES, TINY, compared, get_comparison
from .growth import AXES, curve, get_axis
from .limits import LIMIT_SIZES, LIMITS, TINY_LIMIT, get_limit, limit
from .measure import quiet

ROOT = Path(__file__).resolve().parents[2]
STORED, ENCODERS = ROOT/"nbs"/"study"/"store"/"speed.json", ("lab", "me5-small")
PARTS = dict(comparisons=get_comparison, limits=get_limit, growth=get_axis)


class Stored:
    "What was measured so far, a file that is written anew after every measurement"
    def __init__(self, path):
        self.path = Path(path)
        self.found = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}

    def has(self, part, encoder, name, size):
        "Was it measured, and at this size?"
        return self.found.get(part, {}).get(encoder, {}).get(name, {}).get("size") == size

    def put(self, part, encoder, name, record):
        "Write it down"
        self.found.setdefault(part, {}).setdefault(encoder, {})[name] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.found, indent=1)


def apart(f, *args):
    "The result of a function in a new process"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(f, *args).result()


def plan(full, names=()):
    "(part, encoder, name) of everything to be measured; `names` chooses"
    every = [("comparisons", e, c.name) for e in ENCODERS for c in COMPARISONS.values() if e in c.encoders]
    every += [("limits", e, k) for e in ENCODERS for k in LIMITS]
    every += [("growth", e, a.name) for a in AXES.values() for e in ENCODERS if e in a.points]
    chosen = {part_and_name(n) for n in names}
    if chosen: every = [j for j in every if {(j[0], None), (j[0], j[2])} & chosen]
    else: every = [j for j in every if full or j[0] != "growth" or j[2] == "languages"]
    return sorted((j for j in every if full or j[1] == "lab"), key=lambda j: ENCODERS.index(j[1]))


def part_and_name(text):
    "Of 'mmkd-release', 'limits/salt', or 'growth' for all of it"
    part, _, name = text.partition("/") if "/" in text or text in PARTS else ("comparisons", "", text)
    if part not in PARTS: raise XlnbError(f"there is no part {part!r}: {nearest(part, PARTS)}choose {', '.join(PARTS)}")
    if name: PARTS[part](name)
    return part, name or None


def sized(part, encoder, tiny):
    "How much is measured; the points of a curve, or None for all of them"
    if part == "comparisons": return TINY if tiny else SIZES[encoder]
    if part == "limits": return TINY_LIMIT if tiny else LIMIT_SIZES[encoder]
    return 2 if tiny else None


def measured(part, encoder, name, size, threads, told):
    "The record of one thing"
    start = time.perf_counter()
    if part == "comparisons": record = compared(get_comparison(name), size, encoder, told)
    elif part == "limits": record = apart(limit, name, encoder, size, threads)
    else: record = apart(curve, name, encoder, threads, size, 1 if size else 3)
    return record | dict(size=mark(size, threads), took=time.perf_counter() - start, made=provenance())


def mark(size, threads):
    "What a measurement must agree in to count as done"
    return digest([dataclasses.asdict(size) if dataclasses.is_dataclass(size) else size, threads])


def shown(part, record):
    "A line"
    busy = "" if record["others"] is None else f"; others used {record['others']:.0%} of the machine at most"
    if part == "growth": return f"slope of time {record['slope']:.2f}, of memory {record['memory_slope']:.2f}{busy}"
    if part == "limits":
        return (f"{record['share']:.1%} of the matrix rate, padding {record['padding']:.1%}, waiting "
                f"{record['waiting']:.1%}, {record['products']:.0%} in matrix products{busy}")
    unit = dict(faster="times as fast", time="of their time", seconds="seconds")[record["ratio"]]
    aim, sign = "", "at least" if record["ratio"] == "faster" else "at most"
    if record["target"] is not None:
        aim = f", wanted {sign} {record['target']:g}: {'met' if record['met'] else 'missed'}"
    return f"{record['median']:.3g} {unit} ({record['min']:.3g} to {record['max']:.3g}){aim}{busy}"


def run(jobs, stored, threads=2, tiny=False, again=False):
    "Measure what is not stored; the names of what failed"
    torch.set_num_threads(threads)
    begun, failed = time.perf_counter(), []
    for i, (part, encoder, name) in enumerate(jobs, 1):
        head = f"[{i}/{len(jobs)}] {(time.perf_counter() - begun) / 60:.1f} min  {encoder}  {part}/{name}"
        size = sized(part, encoder, tiny)
        if not again and stored.has(part, encoder, name, mark(size, threads)):
            print(f"{head}: stored already", flush=True)
            continue
        print(head, flush=True)
        try: record = measured(part, encoder, name, size, threads, lambda text: print(f"    {text}", flush=True))
        except Exception as e:   # one that fails must not cost the others
            failed.append(f"{part}/{name} on {encoder}")
            if not isinstance(e, XlnbError): traceback.print_exc()
            print(f"    failed: {e}", flush=True)
            continue
        stored.put(part, encoder, name, record)
        print(f"    {shown(part, record)}", flush=True)
    return failed


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("names", nargs="*", help="of comparisons, 'limits/NAME' or 'growth/NAME'; everything if left out")
    p.add_argument("--full", action="store_true", help="on me5-small too, and all growth curves")
    p.add_argument("--again", action="store_true", help="measure what is stored too")
    p.add_argument("--tiny", action="store_true", help="a minute for everything, to see that it runs; needs --out")
    p.add_argument("--threads", type=int, default=min(2, os.cpu_count()), help="of PyTorch")
    p.add_argument("--out", type=Path, help=f"the file; {STORED.relative_to(ROOT)} if left out")
    p.add_argument("--list", action="store_true", help="say what there is")
    a = p.parse_args(args)
    if a.list:
        for part, encoder, name in plan(True):
            print(f"{encoder:10} {name if part == 'comparisons' else f'{part}/{name}'}")
        return 0
    if a.tiny and not a.out: p.error("--tiny needs --out: tiny figures are not to be published")
    try: jobs = plan(a.full, a.names)
    except XlnbError as e:
        print(e, file=sys.stderr)
        return 2
    quiet()
    stored, start = Stored(a.out or STORED), time.perf_counter()
    try: failed = run(jobs, stored, a.threads, a.tiny, a.again)
    except KeyboardInterrupt:
        print(f"stopped: what was measured is in {stored.path}, and is not measured again")
        return 130
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes, written to {stored.path}")
    if failed: print(f"failed: {', '.join(failed)}")
    return int(bool(failed))

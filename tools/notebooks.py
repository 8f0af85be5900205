"""Runs notebooks as `nbdev_test` does: python tools/notebooks.py [--workers 2] [nbs/study/93_grid.ipynb ...]

Each notebook runs in a process of its own, a fork of this one, which has imported what all of them need: that takes
longer than most pages do, and nothing that a page leaves behind reaches another. What is there before is frozen, so
that a page that trains does not look through it for garbage each time. Large notebooks come first, so that none is left
to a single process at the end.
"""
import argparse, functools, gc, importlib, os, sys
from pathlib import Path

from nbdev.config import get_config
from nbdev.doclinks import nbglob
from nbdev.test import test_nb

SHARED = ("torch transformers datasets accelerate pandas scipy.stats sklearn.linear_model matplotlib.pyplot seaborn "
          "IPython.display xlnb.study.grid xlnb.evaluation.plots xlnb.training.pretraining").split()


def write_rows_once():
    "A laboratory writes the rows of a split in a second, always the same: those in English here, others once per page"
    from xlnb.data.tasks import TASKS
    from xlnb.lab.worlds import LAB_TASKS, Lab
    Lab.dataset = functools.cache(Lab.dataset)
    for name in LAB_TASKS:
        for split in TASKS[name].splits: TASKS[name].loader("en", split)


def start(path):
    "Id of a process that runs a notebook"
    if pid := os.fork(): return pid
    passed = False
    try: passed, _ = test_nb(path, skip_flags=get_config().tst_flags.split(), basepath=get_config().config_path)
    finally:
        for stream in (sys.stdout, sys.stderr): stream.flush()
        os._exit(not passed)


def run(paths, workers):
    "{notebook: (did it end well?, CPU seconds)}"
    running, found = {}, {}
    def end_one():
        pid, status, used = os.wait4(-1, 0)
        path = running.pop(pid)
        found[path] = status == 0, used.ru_utime + used.ru_stime
        print(f"{path.name}: {found[path][1]:.0f} s{'' if found[path][0] else ', failed'}", flush=True)
    for path in paths:
        if len(running) == workers: end_one()
        running[start(path)] = path
    while running: end_one()
    return found


if __name__ == "__main__":
    ask = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ask.add_argument("--workers", type=int, default=2, help="processes at a time")
    ask.add_argument("notebooks", nargs="*", type=Path, help="all of nbs/, if left out")
    asked = ask.parse_args()
    paths = [p.absolute() for p in asked.notebooks or nbglob(as_path=True)]
    for name in SHARED: importlib.import_module(name)
    write_rows_once()
    gc.collect(), gc.freeze()
    found = run(sorted(paths, key=lambda p: -p.stat().st_size), asked.workers)
    failed = sorted(p.name for p, (passed, _) in found.items() if not passed)
    if failed: print(f"failed: {', '.join(failed)}")
    else: print(f"{len(found)} notebooks ran: {sum(s for _, s in found.values()):.0f} s of CPU")
    sys.exit(bool(failed))

"Clocks, interleaved runs, memory, and what this machine's matrix products reach"
import gc
import math
import os
import re
import statistics
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import psutil
import torch
import transformers
from datasets.utils.logging import disable_progress_bar


def quiet():
    "No bars, and no warnings that are meant for users"
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bar()
    warnings.filterwarnings("ignore")


class Clock:
    "Seconds of a block, seconds of this process's cores, and the share of the machine that others used meanwhile"
    def __enter__(self):
        self.start = time.perf_counter(), time.process_time(), _ticks()
        return self

    def __exit__(self, *_):
        start, own, before = self.start
        self.seconds, self.core_seconds = time.perf_counter() - start, time.process_time() - own
        after = _ticks()
        self.others = None
        if before and after and (total := after[0] - before[0]) > 0:
            busy = (after[1] - before[1]) / os.sysconf("SC_CLK_TCK") - self.core_seconds
            self.others = min(1., max(0., busy * os.sysconf("SC_CLK_TCK") / total))


def _ticks():
    "Ticks of all cores so far, and those that were not idle; None where the system does not say"
    try: ticks = [int(v) for v in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError): return None
    return sum(ticks), sum(ticks) - ticks[3] - ticks[4]


@dataclass
class Side:
    "One side of a comparison"
    run: Callable               # what is timed; it gets what `before` made
    before: Callable = lambda: None
    units: float = 1            # things done by one run


def once(side):
    "One timed run"
    made = side.before()
    gc.collect()
    with Clock() as clock: side.run(made)
    return clock


def interleaved(here, other, pairs, told=lambda i, ratio: None):
    "Seconds of a unit, side by side: here, other, other, here, here, other, ...; `other` may be None"
    out = []
    for i in range(pairs):
        sides, found = {k: v for k, v in dict(here=here, other=other).items() if v}, {}
        for name in list(sides)[::1 if i % 2 == 0 else -1]: found[name] = once(sides[name])
        of = lambda what: {k: getattr(c, what) / sides[k].units for k, c in found.items()}
        others = [c.others for c in found.values()]
        out.append(dict(seconds=of("seconds"), core_seconds=of("core_seconds"),
                        others=None if None in others else max(others)))
        told(i, out[-1]["seconds"])
    return out


def spread(values):
    "Smallest, middle and largest"
    return dict(min=min(values), median=statistics.median(values), max=max(values))


def slope(points):
    "Exponent b of the power law y = a x^b that fits best, by least squares of the logarithms"
    x, y = (np.log([p[k] for p in points]) for k in (0, 1))
    return float(np.polyfit(x, y, 1)[0])


def resident():
    "Memory of this process now, in bytes"
    return psutil.Process().memory_info().rss


def peak(reset=False):
    "Most memory that this process had since the last reset, in bytes; what it has now where the system does not say"
    try:
        if reset: Path("/proc/self/clear_refs").write_text("5")
        return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    except (OSError, TypeError): return resident()


def matrix_rate(side=1024, rounds=6, times=4):
    "Operations a second of square matrix products in fp32, the best of some rounds"
    a, b = torch.randn(side, side), torch.randn(side, side)
    best = math.inf
    for i in range(rounds):
        start = time.perf_counter()
        for _ in range(times): a @ b
        if i: best = min(best, (time.perf_counter() - start) / times)
    return 2 * side**3 / best

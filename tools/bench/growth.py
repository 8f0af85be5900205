"Time and memory against the size of what is done, each axis in a process of its own"
import copy
import dataclasses
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import pandas as pd
import torch
from transformers import XLMRobertaConfig, XLMRobertaModel

from xlnb.core import XlnbError, nearest
from xlnb.data.kinds.base import collator
from xlnb.data.tasks import get_task
from xlnb.evaluation.predict import evaluate_model
from xlnb.evaluation.statistics import compare, score_table
from xlnb.methods.mmkd.teacher import Teacher, teacher_cache
from xlnb.models.encoders import load_encoder, load_tokenizer
from xlnb.models.heads import with_head
from xlnb.training.losses import task_loss
from xlnb.training.schedule import Budget, Schedule
from xlnb.training.stage import Stage, run_stage

from . import loops
from .comparisons import TASK, filled_store, laboratory, language_steps, opened, test_task
from .measure import Clock, peak, quiet, resident, slope


@dataclass(frozen=True)
class Axis:
    "One curve"
    name: str
    title: str          # what is done
    x: str              # what grows
    points: dict        # of each encoder
    make: Callable      # (encoder, point, folder) -> what is timed, and x where it is not the point itself


AXES = {}

def axis(name, title, x, lab, **others):
    "Make a function that sets up a point of a curve"
    def known(make):
        AXES[name] = Axis(name, title, x, dict(lab=lab) | {k.replace("_", "-"): v for k, v in others.items()}, make)
        return make
    return known


def get_axis(name):
    "The axis of that name"
    if name in AXES: return AXES[name]
    raise XlnbError(f"there is no curve {name!r}: {nearest(name, AXES)}choose among {', '.join(AXES)}")


@axis("languages", "a step of ALSACE with 2 instances", "languages", (4, 8, 15, 32, 64))
def languages(name, n, folder):
    model, ids, pairs = language_steps(name, n, 2)
    return lambda: [loops.shared_step(model, ids, pairs) for _ in range(5)]


def _trained(name, rows):
    task, model = get_task(TASK), with_head(load_encoder(name), get_task(TASK), 0)
    schedule = Schedule(epochs=1.).resolved(model)
    return lambda: run_stage(Stage("growth", rows, collator(task, load_tokenizer(name)), task_loss, schedule), model)


def _random_rows(name, n, length):
    vocabulary, r = len(load_tokenizer(name)), np.random.default_rng(0)
    return [dict(input_ids=r.integers(5, vocabulary - 1, length).tolist(), attention_mask=[1] * length, labels=i % 3,
                 length=length) for i in range(n)]


@axis("length", "fine-tuning on 128 full inputs (16 on me5-small)", "tokens of an input", (16, 32, 64, 128, 256),
      me5_small=(16, 64, 256, 512))
def length(name, n, folder): return _trained(name, _random_rows(name, 128 if name == "lab" else 16, n))


@axis("rows", "an epoch of fine-tuning on inputs of 24 tokens", "rows", (64, 128, 256, 512, 1024, 2048))
def rows(name, n, folder): return _trained(name, _random_rows(name, n, 24))


@axis("seeds", "table and paired differences of two recipes in four languages, 100 items each", "seeds",
      (5, 10, 20, 40, 80))
def seeds(name, n, folder):
    r, parts = np.random.default_rng(0), []
    for rcp in ("finetune", "finetune+alsace"):
        for seed in range(n):
            for lang in ("en", "l1", "l2", "l3"):
                parts.append(pd.DataFrame(dict(task="t", encoder="e", recipe=rcp, budget="all rows", seed=seed,
                                               lang=lang, id=[str(i) for i in range(100)],
                                               correct=(r.random(100) < .7).astype(float))))
    items = pd.concat(parts, ignore_index=True)
    return lambda: (score_table(items, source="en"), compare(items, baseline="finetune", source="en"))


@axis("teacher", "a teacher of three layers reads 200 sentences", "weights of its layers", (64, 128, 256, 512))
def teacher(name, width, folder):
    tok, texts = load_tokenizer("lab"), laboratory().parallel(200, ["en"])["en"][:]
    config = XLMRobertaConfig(vocab_size=len(tok), hidden_size=width, num_hidden_layers=3, num_attention_heads=4,
                              intermediate_size=4 * width, max_position_embeddings=260, type_vocab_size=1,
                              pad_token_id=tok.pad_token_id)
    own = Teacher(XLMRobertaModel(config), tok)
    size = sum(p.numel() for p in own.model.encoder.parameters())
    return lambda: teacher_cache(own, sorted({*texts}), tempfile.mkdtemp(dir=folder)), size


@axis("test-languages", "testing on 20 rows in each language", "languages", (1, 5, 15, 50, 205))
def test_languages(name, n, folder):
    codes = tuple(get_task("sib200").langs)[:n]
    task, tok = test_task(codes), load_tokenizer(name)
    model = with_head(load_encoder(name), task, 0)
    return lambda: evaluate_model(task, model, tok, codes, budget=Budget(eval_examples=20))


@axis("cells", "a store opened, filtered and reported", "cells", (100, 1000, 10_000))
def cells(name, n, folder):
    filled_store(where := Path(folder)/str(n), n)
    return lambda: opened(where)


def curve(which, name, threads, points=None, repeat=3):
    "The record of an axis; to be called in a process of its own"
    quiet()
    torch.set_num_threads(threads)
    a, out, others = get_axis(which), [], []
    before = resident()
    with tempfile.TemporaryDirectory(prefix="xlnb-bench-") as folder:
        for point in a.points[name][:points]:
            made = a.make(name, point, folder)
            run, x = made if isinstance(made, tuple) else (made, point)
            peak(reset=True)
            run()   # the first is warming up
            seconds = []
            for _ in range(repeat):
                with Clock() as clock: run()
                seconds.append(clock.seconds)
                others.append(clock.others)
            out.append(dict(x=x, seconds=seconds, median=statistics.median(seconds), memory=peak() - before))
    return dict(title=a.title, x=a.x, points=out, slope=slope([(p["x"], p["median"]) for p in out]),
                memory_slope=slope([(p["x"], max(p["memory"], 1)) for p in out]),
                others=None if None in others else max(others))

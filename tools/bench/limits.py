"""How close a stage comes to what this machine can do

Operations are those of matrix products, forward and backward, counted from the shapes of the batches at hand as
`tools/gpu.py` does; their floor is the time that this machine's own matrix rate would need for them. Each stage runs in
a process of its own, so that memory is its own too.
"""
import dataclasses
import math
import tempfile

import torch
from torch.profiler import ProfilerActivity, profile

import gpu
from xlnb.core import XlnbError, nearest
from xlnb.data.kinds.base import collator, featurize
from xlnb.data.tasks import get_task
from xlnb.methods.alsace.method import ALSACE
from xlnb.methods.clism.method import CLISM
from xlnb.methods.finetune import FineTune
from xlnb.methods.mmkd.method import MMKD
from xlnb.methods.salt.method import SALT
from xlnb.models.encoders import load_encoder, load_tokenizer
from xlnb.models.heads import with_head
from xlnb.study import presets
from xlnb.training.schedule import Budget
from xlnb.training.stage import Context, predict, run_stage

from .comparisons import TARGETS, TASK, laboratory
from .measure import Clock, matrix_rate, peak, quiet, resident

LIMITS = "finetune", "salt", "alsace", "mmkd", "clism", "evaluation"
ATTENTION = "aten::_scaled_dot_product_flash_attention_for_cpu"
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", ATTENTION, f"{ATTENTION}_backward"}


def get_limit(name):
    "A name of `LIMITS`"
    if name in LIMITS: return name
    raise XlnbError(f"there is no stage {name!r}: {nearest(name, LIMITS)}choose among {', '.join(LIMITS)}")


@dataclasses.dataclass(frozen=True)
class LimitSize:
    "How much of a stage is measured"
    line: int = 20      # steps of a log line; the first line is warming up
    lines: int = 4
    rows: int = 400     # labelled rows; sentences, instances or pairs in each language
    profiled: int = 10  # steps in which the time of matrix products is looked at
    tested: int = 100   # rows in each language


LIMIT_SIZES = {"lab": LimitSize(), "me5-small": LimitSize(2, 3, 64, 2, 12)}
TINY_LIMIT = LimitSize(1, 3, 24, 1, 6)


def shape_of(model):
    "Of the encoder, as operations are counted"
    c = model.config
    return gpu.Size(layers=c.num_hidden_layers, width=c.hidden_size, inner=c.intermediate_size,
                    heads=c.num_attention_heads, vocabulary=c.vocab_size)


def prepared(kind, name, size):
    "The stage with rows as they come in the laboratory, the model that it trains, and its method"
    laboratory()
    task, tok = get_task(TASK), load_tokenizer(name)
    model = load_encoder(name, head="masked_lm")
    made = dict(finetune=FineTune(select="last"), salt=SALT(select="last", candidates="dictionary", dictionary="lab"),
                alsace=ALSACE(select="last", amount=size.rows), clism=CLISM(amount=size.rows, langs=TARGETS),
                mmkd=MMKD(amount=size.rows, langs=TARGETS, teacher=name, cache_folder=tempfile.mkdtemp()))[kind]
    if made.slot != "before": model = with_head(model, task, 0)
    budget = Budget(train_examples=size.rows, eval_examples=size.tested)
    stage, = made.stages(model, Context(task, name, tok, budget=budget, langs=task.langs))
    return model, made, dataclasses.replace(stage, eval_data=None, compute_metrics=None, metric=None, patience=None,
                                            guarded=False, extra={}, options={})


def steps_of(stage, steps, line, collate):
    "The stage for some steps"
    schedule = dataclasses.replace(stage.schedule, steps=steps)
    return dataclasses.replace(stage, schedule=schedule, collator=collate, args=stage.args | dict(logging_steps=line))


def product_seconds(run):
    "Seconds that a run spends in matrix products"
    with profile(activities=[ProfilerActivity.CPU]) as seen: run()
    return sum(e.self_cpu_time_total for e in seen.key_averages() if e.key in PRODUCTS) / 1e6


def need(shape, trained, batches):
    "Bytes of weights, gradients, moments and activations in fp32, of the largest batch"
    one = (shape.layers, shape.width, shape.inner, shape.heads, 0.)
    activations = lambda b: sum(presets.memory(one, r, n, half=False) * 1e9 for r, n in b["inputs"].values())
    words = lambda b: 3 * 4 * b["masked"] * shape.vocabulary
    return 16 * trained + max(activations(b) + words(b) for b in batches)


def training(kind, name, size):
    "Figures of a stage that trains"
    before = resident()
    model, made, stage = prepared(kind, name, size)
    shape, seen = shape_of(model), gpu.Seen(stage.collator)
    result = run_stage(steps_of(stage, size.line * size.lines, size.line, seen), model)
    case = gpu.Case(kind, kind, shape, stage, model, None, made, 0.)
    found = gpu.figures(case, result, seen, stage.schedule.batch_size)
    measured = seen.shapes[size.line:size.line * size.lines]
    positions = sum(r * n for b in measured for r, n in b["inputs"].values()) / len(measured)
    spent = product_seconds(lambda: run_stage(steps_of(stage, size.profiled, size.profiled, stage.collator), model))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return dict(rate=found["rate"], operations=found["operations_per_step"], seconds=1 / found["steps_per_second"],
                padding=1 - found["tokens_per_step"] / positions, waiting=found["collating"],
                products=spent / size.profiled * found["steps_per_second"], batch=found["batch"],
                memory=result.peak_memory * 2**20 - before, need=need(shape, trained, seen.shapes),
                precision=result.precision, attention=result.attention)


def evaluating(name, size):
    "Figures of testing in all languages of the laboratory, a forward pass being a step"
    laboratory()
    before, task, tok = resident(), get_task(TASK), load_tokenizer(name)
    model, budget = with_head(load_encoder(name), task, 0), Budget()
    rows = [r for l in task.langs for r in featurize(task, task.load(l, "test", limit=size.tested), tok).to_list()]
    seen = gpu.Seen(collator(task, tok))
    run = lambda: predict(model, rows, seen, budget.eval_batch_size)
    run()
    seen.shapes.clear(), seen.seconds.clear(), peak(reset=True)
    with Clock() as clock: run()
    most, shapes, steps = peak(), list(seen.shapes), len(seen.shapes)
    waiting, shape = sum(seen.seconds) / clock.seconds, shape_of(model)
    done = sum(sum(gpu.operations("finetune", shape, s, training=False).values()) for s in shapes)
    positions, tokens = sum(r * n for s in shapes for r, n in s["inputs"].values()), sum(r["length"] for r in rows)
    d, weights = shape.width, sum(p.numel() for p in model.parameters())
    largest = max(r * n for s in shapes for r, n in s["inputs"].values())
    own, path = 4 * (weights + largest * (shape.inner + 6 * d)), getattr(model.config, "_attn_implementation", "")
    return dict(rate=done / clock.seconds, operations=done / steps, seconds=clock.seconds / steps,
                padding=1 - tokens / positions, waiting=waiting, products=product_seconds(run) / clock.seconds,
                batch=budget.eval_batch_size, memory=most - before, need=own, precision="fp32", attention=path)


def limit(kind, name, size, threads):
    "The record of a stage; to be called in a process of its own"
    quiet()
    torch.set_num_threads(threads)
    with Clock() as clock:
        found = evaluating(name, size) if get_limit(kind) == "evaluation" else training(kind, name, size)
    rate = matrix_rate()
    share = found["rate"] / rate
    assert math.isfinite(share)
    return found | dict(matrix_rate=rate, share=share, floor=found["operations"] / rate, others=clock.others)

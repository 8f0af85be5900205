"""Measure how fast the methods train on this machine, and what share of its peak they reach.

    python tools/gpu.py --out gpu.json                 on a GPU, within eight minutes
    python tools/gpu.py --out tiny.json --tiny         anywhere, within one: two layers of width 64

Models have the shape of XLM-R base and random weights, rows are sentences of the laboratory put together until each
input is full, so nothing is downloaded. Every method is trained by `run_stage`, the library's own way; steps, tokens,
seconds and memory are what its records say, from the first log line on, so that warming up is left out. The batch is
the power of two with most tokens a second. Operations are those of matrix products, forward and backward, counted
from the shapes of the batches at hand; lookups, norms, softmax and the optimiser are left out, as is usual.
"""
import argparse
import copy
import dataclasses
import gc
import itertools
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import torch
import transformers
from datasets import Dataset, concatenate_datasets
from transformers import TrainerCallback, XLMRobertaConfig, XLMRobertaForMaskedLM

import xlnb
from xlnb.core import device
from xlnb.data.kinds.base import collator, featurize
from xlnb.data.kinds.classify import SENTENCE
from xlnb.data.parallel import ParallelText
from xlnb.data.tasks import Task
from xlnb.lab.worlds import Lab
from xlnb.methods.clism.method import CLISM
from xlnb.methods.clism.projection import lab_pairs, span_pairs
from xlnb.methods.mmkd.objective import PROJECTED
from xlnb.models.encoders import load_tokenizer
from xlnb.models.heads import drop_pointer, with_head
from xlnb.study import presets
from xlnb.study.recipe import recipe
from xlnb.training.schedule import Budget
from xlnb.training.stage import Context, predict, run_stage

ROOT = Path(__file__).resolve().parent.parent
LANGS, LABELS = ("en", "qal", "qcy", "qso"), ("entailment", "neutral", "contradiction")
WORKED = {  # recipe of a line, and which part of it is measured
    "finetune": ("finetune(select=last)", "finetune"),
    "finetune, frozen embeddings": ("finetune(select=last,frozen=embeddings)", "finetune"),
    "salt": ("salt(select=last,candidates=dictionary,dictionary=lab)", "salt"),
    "finetune+alsace": ("finetune(select=last)+alsace(select=last)", "alsace"),
    "mmkd+finetune": ("mmkd(teacher=student)+finetune(select=last)", "mmkd"),
    "clism+finetune": ("clism+finetune(select=last)", "clism")}
NOTES = {
    "all": "the part fine-tuning of a recipe of two methods is the line 'finetune'",
    "salt": "candidates from the dictionary of the laboratory; making a table with the encoder is not measured",
    "mmkd+finetune": "the teacher is the student's own first weights; its vectors are read from files",
    "clism+finetune": "gold entities of two sentences, gold alignments; a pair has the length of the other inputs"}


@dataclass(frozen=True)
class Size:
    "A model, and how much it is given to do"
    layers: int = 12
    width: int = 768
    inner: int = 3072
    heads: int = 12
    vocabulary: int = 250_002
    length: int = 128       # tokens of an input
    rows: int = 1024        # inputs to train on, so the largest batch
    first: int = 16         # the smallest batch
    line: int = 5           # steps of a log line while a batch is looked for
    last_line: int = 10     # and of the measurement itself
    lines: int = 6          # of the measurement; the first is warming up
    backend: str = "inductor" # of torch.compile
    matrix: int = 8192      # side of the matrices that the peak is measured with

    def config(self):
        "Of the model"
        return XLMRobertaConfig(vocab_size=self.vocabulary, hidden_size=self.width, num_hidden_layers=self.layers,
                                num_attention_heads=self.heads, intermediate_size=self.inner, type_vocab_size=1,
                                max_position_embeddings=514, pad_token_id=1)


BASE = Size()
TINY = Size(layers=2, width=64, inner=128, heads=4, vocabulary=4100, length=32, rows=32, first=16, line=1, last_line=1,
            lines=3, backend="eager", matrix=256)


# --- what is trained on ----------------------------------------------------------------------------------------------
class Texts:
    "Full inputs: sentences of the laboratory put together, the same ones in every language"
    def __init__(self, size):
        self.lab, self.length, self.r = Lab(), size.length, random.Random(0)
        pool = self.lab.parallel(300, list(LANGS))
        self.pool = {l: pool[l][:] for l in LANGS}

    def rows(self, n, tokens):
        "`n` texts in all languages, with more tokens than asked for"
        k = math.ceil(tokens / 8) + 1   # a sentence has ten or eleven
        chosen = [[self.r.randrange(len(self.pool["en"])) for _ in range(k)] for _ in range(n)]
        return {l: [" ".join(self.pool[l][i] for i in c) for c in chosen] for l in LANGS}

    def parallel(self, n, tokens=None):
        "Parallel text of single sentences"
        rows = self.rows(n, tokens or self.length)
        table = {l: Dataset.from_dict(dict(id=[str(i) for i in range(n)], text=t)) for l, t in rows.items()}
        return ParallelText(table, SENTENCE, "laboratory, sentences put together")

    def pairs(self, n):
        "Rows of a task of pairs, in all languages"
        a, b = self.rows(n, self.length / 2), self.rows(n, self.length / 2)
        both = dict(id=[str(i) for i in range(n)], label=[i % len(LABELS) for i in range(n)])
        return {l: Dataset.from_dict(both | dict(text_a=a[l], text_b=b[l])) for l in LANGS}

    def task(self, rows, few):
        "A task of pairs"
        made = {s: self.pairs(n) for s, n in dict(train=rows, validation=few, test=few).items()}
        return Task("full-pairs", "pair", LABELS, LANGS, loader=lambda code, split: made[split][code])


@dataclass(frozen=True)
class FullPairs(CLISM):
    "CLISM on pairs of the laboratory that are put together until an input is full"
    def pairs(self, ctx):
        k, wanted = math.ceil(self.max_length / 2 / 8) + 1, math.ceil(self.amount / (len(LANGS) - 1))
        made = [[joined(some) for some in in_groups(lab_pairs(Lab(), l, k * wanted).to_list(), k)] for l in LANGS[1:]]
        each = [span_pairs(Dataset.from_list(rows), ctx.tokenizer, most=self.longest) for rows in made]
        return concatenate_datasets([e.add_column("lang", [l] * len(e)) for e, l in zip(each, LANGS[1:])])


def in_groups(rows, k): return [rows[i:i + k] for i in range(0, len(rows), k)]


def joined(pairs):
    "Pairs of the laboratory as one; the first two ask for their names"
    out = dict(id=pairs[0]["id"], source="", target="", entities=[], source_words=[], target_words=[], alignments=[])
    for i, p in enumerate(pairs):
        a, b = (len(out[k]) + bool(i) for k in ("source", "target"))
        m, n = len(out["source_words"]), len(out["target_words"])
        if i < 2: out["entities"] += [e | dict(start=e["start"] + a, end=e["end"] + a) for e in p["entities"]]
        out["alignments"] += [[x + m, y + n] for x, y in p["alignments"]]
        for side, at in (("source", a), ("target", b)):
            out[f"{side}_words"] += [[x + at, y + at] for x, y in p[f"{side}_words"]]
            out[side] += " " * bool(i) + p[side]
    return out


class Seen:
    "A collator that remembers the shapes of its batches, and how long each took"
    def __init__(self, collate): self.collate, self.shapes, self.seconds = collate, [], []

    def __call__(self, rows):
        start = time.perf_counter()
        batch = self.collate(rows)
        self.seconds.append(time.perf_counter() - start)
        self.shapes.append(shapes(batch))
        return batch


def shapes(batch):
    "Of a batch: every input as [rows, length]; masked tokens, questions, words of a row"
    inputs = {k.removesuffix("input_ids"): list(v.shape) for k, v in batch.items() if k.endswith("input_ids")}
    masked = sum(int((v != -100).sum()) for k, v in batch.items() if k in ("token_labels", "mlm_labels"))
    return dict(inputs=inputs, masked=masked, questions=len(batch.get("starts", ())),
                words=batch["word_at"].shape[1] if "word_at" in batch else 0)


# --- operations ------------------------------------------------------------------------------------------------------
def layers_operations(size, rows, length, frozen=False, training=True):
    "Of the layers, for some inputs of one length; frozen embeddings take no gradient from the first layer"
    shape, tokens = (size.layers, size.width, size.inner), rows * length
    spared = 2 * 3 * size.width**2 * tokens if frozen and training else 0
    return presets.operations(shape, tokens, length, training) - spared


def operations(method, size, seen, frozen=False, training=True):
    "Matrix products of a step by part, forward and backward, from the shapes of its batch"
    d, rows, times = size.width, sum(r for r, _ in seen["inputs"].values()), 3 if training else 1
    parts = dict(layers=sum(layers_operations(size, r, n, frozen, training) for r, n in seen["inputs"].values()))
    if method in ("finetune", "salt", "alsace"): return parts | dict(head=times * 2 * rows * (d * d + d * len(LABELS)))
    parts["words"] = 3 * 2 * seen["masked"] * (d * d + d * size.vocabulary)  # masked language modelling
    n = next(iter(seen["inputs"].values()))[0]
    if method == "mmkd":
        student, teacher = 2 * d * (d + 3 * PROJECTED), 2 * d * (d + PROJECTED)
        parts["levels"] = 2 * n * (3 * student + teacher)                   # sentence and structure; teacher: forward
        parts["levels"] += 2 * n * seen["words"]**2 * d * 2                 # words; no gradient for the teacher's
        parts["levels"] += (3 + 1) * 2 * n * n * PROJECTED                  # similarities of student and teacher
    else:
        length, q = seen["inputs"]["pair_"][1], seen["questions"]
        parts["pointer"] = 3 * 2 * 2 * q * (d * d + length * d)             # start and end
        parts["contrast"] = 3 * 3 * 2 * n * n * d
    return parts


# --- the device ------------------------------------------------------------------------------------------------------
def measured_peaks(size):
    "Rate of large matrix products by precision, in operations a second: the best of five rounds"
    out, n = {}, size.matrix
    kinds = dict(bf16=torch.bfloat16, fp16=torch.float16, fp32=torch.float32)
    if device() == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False): del kinds["bf16"]
    if device() != "cuda": del kinds["fp16"]
    for name, dtype in kinds.items():
        side = n // 2 if name == "fp32" else n
        a, b = (torch.randn(side, side, device=device(), dtype=dtype) for _ in range(2))
        best, times = math.inf, 5
        for i in range(6):
            synchronize()
            start = time.perf_counter()
            for _ in range(times): a @ b
            synchronize()
            if i: best = min(best, (time.perf_counter() - start) / times)
        out[name] = 2 * side**3 / best
        del a, b
    return out


def published_peak(name):
    "The entry of `GPUS` that a device's name has in it, and its peak; None: not in the table"
    for gpu in presets.GPUS:
        if re.search(rf"\b{gpu}\b", name): return dict(name=gpu, peak=presets.GPUS[gpu][0] * 1e12)
    return None


def synchronize():
    if device() == "cuda": torch.cuda.synchronize()


def told(*command):
    "What a command prints, None where there is no such command or it fails"
    try: return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip() or None
    except (OSError, subprocess.CalledProcessError): return None


def about():
    "Device and versions"
    out = dict(device="CPU", kind=device(), torch=torch.__version__, transformers=transformers.__version__,
               xlnb=xlnb.__version__, threads=torch.get_num_threads(), driver=None, cuda=torch.version.cuda)
    if device() == "cuda":
        p = torch.cuda.get_device_properties(0)
        driver = told("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        out |= dict(device=p.name, memory=p.total_memory / 1e9, capability=f"{p.major}.{p.minor}",
                    driver=driver and driver.splitlines()[0])
    changed = told("git", "status", "--porcelain", "--untracked-files=no")
    date = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return out | dict(date=date, commit=told("git", "rev-parse", "HEAD"), changed=bool(changed))


# --- measuring -------------------------------------------------------------------------------------------------------
class Until(TrainerCallback):
    "Ends a run at a time, but not before its second log line"
    def __init__(self, when, least): self.when, self.least = when, least

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step >= self.least and time.monotonic() > self.when


class TimeUp(Exception):
    "Compilation took longer than there was time"


@contextmanager
def within(seconds):
    "A block that is given up after a time, where the system has such an alarm"
    if not hasattr(signal, "setitimer"): yield; return
    def up(*_): raise TimeUp(f"more than {seconds:.0f} seconds")
    before = signal.signal(signal.SIGALRM, up)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, .1))
    try: yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def free(model):
    "Forget what an earlier run has left"
    model.zero_grad(set_to_none=True)
    gc.collect()
    if device() == "cuda": torch.cuda.empty_cache()


def trial(case, batch, line, lines, until, compiled=False):
    "One run of the library's trainer: its figures; None where memory does not suffice"
    place(case.model, case.other)
    free(case.model)
    how, seen = dict(logging_steps=line), Seen(case.stage.collator)
    if compiled: how |= dict(torch_compile=True, torch_compile_backend=case.size.backend)
    plan = dataclasses.replace(case.stage.schedule, batch_size=batch, accumulate=1, steps=line * lines,
                               attention="sdpa")
    stage = dataclasses.replace(case.stage, schedule=plan, args=how, collator=seen)
    drop_pointer(case.model)
    try: result = run_stage(stage, case.model, callbacks=[Until(until, 2 * line)])
    except RuntimeError as e: # what a library for matrices says has a class of its own
        if not re.search("out of memory|ALLOC_FAILED", str(e)): raise
        result = None
    finally: # Transformers tells Accelerate to compile by the environment, which would last
        for k in [k for k in os.environ if k.startswith("ACCELERATE_DYNAMO_")]: del os.environ[k]
    if result is None: free(case.model)
    return result and figures(case, result, seen, batch)


def figures(case, result, seen, batch):
    "What the records of a stage say, from its first log line to its last"
    lines = [h for h in result.history if "seconds" in h]
    first, last = lines[0], lines[-1]
    steps, seconds = last["step"] - first["step"], last["seconds"] - first["seconds"]
    rates = [(b["step"] - a["step"]) / (b["seconds"] - a["seconds"]) for a, b in itertools.pairwise(lines)]
    measured = slice(first["step"], last["step"])
    per = [operations(case.method, case.size, s, case.frozen) for s in seen.shapes[measured]]
    parts = {k: sum(p[k] for p in per) / steps for k in per[0]}
    inputs = sum(r for s in seen.shapes[measured] for r, _ in s["inputs"].values()) / steps
    return dict(batch=batch, steps=steps, seconds=seconds, steps_per_second=steps / seconds, slowest=min(rates),
                fastest=max(rates), tokens_per_second=(last["tokens"] - first["tokens"]) / seconds,
                inputs_per_step=inputs, tokens_per_step=(last["tokens"] - first["tokens"]) / steps,
                first_line=first["seconds"], operations_per_step=sum(parts.values()), operations=parts,
                rate=sum(parts.values()) * steps / seconds, memory=result.peak_memory * 2**20 / 1e9,
                collating=sum(seen.seconds[measured]) / seconds, precision=result.precision, attention=result.attention,
                shapes=seen.shapes[first["step"]])   # of the first step that is measured


@dataclass
class Case:
    "A line of the table: a stage with the model that it trains"
    name: str
    method: str
    size: Size
    stage: object
    model: object
    other: object       # a model that has no place on the device meanwhile
    made: object        # the method, with its options
    prepared: float     # seconds that making the stage took

    @property
    def frozen(self): return self.made.frozen == "embeddings"


def place(model, other):
    "One model on the device, so that its memory is measured alone"
    other.zero_grad(set_to_none=True)
    other.to("cpu")
    model.to(device())


def largest(rows): return 2 ** int(math.log2(len(rows)))


def search(case, until):
    "Batches from the smallest on, each twice the one before, until no more tokens a second come of it"
    tried, best = [], None
    first = case.size.first // (len(LANGS) if case.method == "alsace" else 1)  # instances, each in all languages
    for batch in itertools.takewhile(lambda b: b <= len(case.stage.data), (first * 2**i for i in range(20))):
        if best and time.monotonic() > until: return tried, best, "time"
        found = trial(case, batch, case.size.line, 3, until)
        keys = ("tokens_per_second", "memory")
        tried.append(dict(batch=batch) | ({k: found[k] for k in keys} if found else dict(memory="not enough")))
        if found is None: return tried, best, "memory"
        gain = found["tokens_per_second"] / best["tokens_per_second"] if best else math.inf
        if gain > 1: best = found
        if gain < 1.03: return tried, best, "no faster"
    return tried, best, "rows"


def prepared(name, size, texts, task, encoder, headed, tokenizer):
    "The stage of a line"
    spec, wanted = WORKED[name]
    made = next(m for m in recipe(spec).methods if m.name == wanted)
    few = size.rows // len(LANGS)
    if wanted == "salt": made = dataclasses.replace(made, langs=LANGS[1:])
    if wanted == "alsace": made = dataclasses.replace(made, text=texts_of_task(texts, few), amount=few * 5 // 4)
    if wanted == "mmkd": made = dataclasses.replace(made, text=texts.parallel(few), cache_folder=texts.folder)
    if wanted == "clism":
        made = FullPairs(amount=size.rows * 5 // 4, max_length=size.length)
    model, other = (encoder, headed) if made.slot == "before" else (headed, encoder)
    place(model, other)
    tokenizer = copy.deepcopy(tokenizer)
    ctx = Context(task, encoder, tokenizer, budget=Budget(max_length=size.length), langs=LANGS)
    start = time.perf_counter()
    stage, = made.stages(model, ctx)
    rows = stage.data.to_list() if hasattr(stage.data, "to_list") else list(stage.data)
    # no evaluation: what it costs is a line of its own
    stage = dataclasses.replace(stage, data=rows[:largest(rows)], eval_data=None, compute_metrics=None, metric=None,
                                patience=None, guarded=False, extra={}, options={})
    return Case(name, wanted, size, stage, model, other, made, time.perf_counter() - start)


def texts_of_task(texts, n):
    "Unlabelled pairs in all languages, of which a fifth will be held out"
    rows = texts.pairs(n * 5 // 4)
    return ParallelText({l: d.remove_columns("label") for l, d in rows.items()}, "pair", "laboratory")


def estimated(case, found, peak):
    "What the page of presets would say of the same step"
    size = case.size
    shape = (size.layers, size.width, size.inner, size.heads, sum(p.numel() for p in case.model.parameters()) / 1e6)
    made = dataclasses.replace(case.made, steps=1, batch_size=found["batch"], accumulate=1)
    said = presets._stage(made, found["batch"], size.length, len(LANGS), shape)
    return dict(operations_per_step=said["operations"], memory=said["memory"],
                steps_per_second=peak * presets.REACHED / said["operations"])


def evaluation(size, task, model, tokenizer):
    "Forward passes as after training, at the batch of a budget"
    budget = Budget(max_length=size.length)
    rows = list(featurize(task, task.load("en", "train"), tokenizer, size.length))
    seen = Seen(collator(task, tokenizer))
    for _ in range(2):   # the first is warming up
        seen.shapes.clear(), seen.seconds.clear()
        start = time.perf_counter()
        predict(model, rows, seen, budget.eval_batch_size)
        seconds = time.perf_counter() - start
    done = sum(sum(operations("finetune", size, s, training=False).values()) for s in seen.shapes)
    return dict(name="evaluation", batch=budget.eval_batch_size, seconds=seconds, rate=done / seconds,
                tokens_per_second=sum(r["length"] for r in rows) / seconds, operations_total=done,
                collating=sum(seen.seconds) / seconds, steps_per_second=len(seen.shapes) / seconds)


# --- all of it -------------------------------------------------------------------------------------------------------
class Report:
    "Lines, what was left out, and the peaks that they are compared with"
    def __init__(self, size, minutes):
        self.start, self.size = time.monotonic(), size
        self.end = self.start + 60 * minutes
        self.out = about() | dict(minutes=minutes, tiny=size is TINY, size=dataclasses.asdict(size), notes=NOTES)
        self.out |= dict(measured_peak=measured_peaks(size), published_peak=published_peak(self.out["device"]),
                         lines=[], skipped=[])

    def left(self): return self.end - time.monotonic()

    def skip(self, what, why):
        self.out["skipped"].append(dict(what=what, why=why))
        print(f"  left out: {what} ({why})", flush=True)

    def peak(self, precision):
        "That of 16 bits; where the device has none, as a CPU, that of the training itself"
        there = self.out["measured_peak"]
        name = next((k for k in ("bf16", "fp16") if k in there), "fp32") if device() == "cuda" else precision
        return name, there.get(name, there["fp32"])

    def add(self, line, case=None):
        "Put a line beside the peaks and the estimate"
        name, peak = self.peak(line.get("precision", "fp32"))
        published = (self.out["published_peak"] or {}).get("peak")
        line |= dict(peak=name, share_of_measured=line["rate"] / peak,
                     share_of_published=published and line["rate"] / published)
        if case:
            line["estimated"] = said = estimated(case, line, published or peak)
            line["measured_to_estimated"] = {k: line[k] / v for k, v in said.items()}
            if self.out["kind"] == "cpu": line["measured_to_estimated"]["memory"] = None  # it is that of the process
        self.out["lines"].append(line)
        print(row(line), flush=True)

    def write(self, path):
        self.out["seconds"] = time.monotonic() - self.start
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.out, indent=1) + "\n")


def run(size, minutes, out):
    "Measure, print and write"
    report = Report(size, minutes)
    print(heading(report.out), flush=True)
    tokenizer = load_tokenizer("lab")
    texts = Texts(size)
    texts.folder = tempfile.mkdtemp(prefix="xlnb-gpu-")
    torch.manual_seed(0)
    encoder = XLMRobertaForMaskedLM(size.config()).to(device())
    task = texts.task(size.rows, max(size.rows // 16, 8))
    headed, cases = with_head(encoder, task).to(device()), []
    try:
        for i, name in enumerate(WORKED):
            plain(report, name, (size, texts, task, encoder, headed, tokenizer), len(WORKED) - i, cases)
            report.write(out)
        place(headed, encoder)
        report.add(evaluation(size, task, headed, tokenizer))
        for case, line in cases: compiled(report, case, line); report.write(out)
    finally: shutil.rmtree(texts.folder, ignore_errors=True)
    report.write(out)
    print(f"{report.out['seconds']:.0f} seconds, written to {out}")
    return report.out


def plain(report, name, what, remaining, cases):
    "One line without torch.compile, within its part of the first two thirds of the time"
    share = (report.left() - (report.end - report.start) / 3) / remaining
    if share <= 0: return report.skip(name, "time")
    until = time.monotonic() + share
    case = prepared(name, *what)
    tried, best, why = search(case, until - share / 3)
    if best is None: return report.skip(name, f"memory: not even a batch of {tried[0]['batch']} fits")
    size, found = case.size, best
    if time.monotonic() < until or case.size is TINY:
        found = trial(case, best["batch"], size.last_line, size.lines, until) or best
    head = dict(name=name, recipe=WORKED[name][0], part=case.method, compiled=False, prepared=case.prepared,
                length=size.length, search=tried, search_ended_by=why)
    report.add(head | found, case)
    cases.append((case, head | found))


COMPILING = 60.   # seconds that a first compilation is taken to need

def compiled(report, case, line):
    "The same line with torch.compile, if there is time"
    name, size = f"{case.name}, compiled", case.size
    need = max([COMPILING, *(l["first_line"] * 1.2 for l in report.out["lines"] if l.get("compiled"))])
    if size is not TINY and report.left() < need: return report.skip(name, "time")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    try:
        with within(report.left()):
            found = trial(case, line["batch"], size.last_line, size.lines, report.end - 5, compiled=True)
    except Exception as e:   # a compiler may fail in any way, and may say that it ran out of time in a way of its own
        if report.left() < 1: return report.skip(name, "time: compilation was given up")
        return report.skip(name, f"torch.compile failed: {f'{type(e).__name__}: {e}'.splitlines()[0][:200]}")
    if found is None: return report.skip(name, "memory")
    counters = torch._dynamo.utils.counters
    if not (graphs := counters["stats"].get("unique_graphs", 0)): return report.skip(name, "nothing was compiled")
    head = {k: line[k] for k in ("recipe", "part", "length")} | dict(name=name, compiled=True, graphs=graphs)
    report.add(head | dict(graph_breaks=sum(counters["graph_break"].values()), backend=size.backend,
                           faster=found["steps_per_second"] / line["steps_per_second"]) | found, case)


def heading(out):
    "Device, peaks and the names of the columns"
    peaks = ", ".join(f"{k} {v / 1e12:.3g}" for k, v in out["measured_peak"].items())
    known = "not in the table"
    if gpu := out["published_peak"]:
        known = f"{gpu['peak'] / 1e12:.0f} in 16 bits without sparsity ({gpu['name']}, SXM where there are several)"
    return "\n".join([
        f"{out['device']}, torch {out['torch']}, driver {out['driver']}, {out['date']}, commit {out['commit']}"
        f"{' with changes' if out['changed'] else ''}",
        f"peak in 1e12 operations a second, measured: {peaks}; published: {known}", "",
        COLUMNS.format("", "batch", "steps/s", "tokens/s", "1e12/s", "of measured", "of published", "GB", "collating",
                       "measured / estimated: operations, memory, speed")])


COLUMNS = "{:37}{:>6}{:>9}{:>12}{:>9}{:>12}{:>13}{:>8}{:>10}  {}"

def row(l):
    "A line of the table"
    share = lambda v: "" if v is None else f"{v:.1%}"
    compared = l.get("measured_to_estimated", {})
    ratio = ", ".join("-" if v is None else f"{v:.2f}" for v in compared.values())
    memory = f"{l['memory']:.2f}" if "memory" in l else ""
    return COLUMNS.format(l["name"], l["batch"], f"{l['steps_per_second']:.2f}", f"{l['tokens_per_second']:,.0f}",
                          f"{l['rate'] / 1e12:.3g}", share(l["share_of_measured"]), share(l["share_of_published"]),
                          memory, share(l["collating"]), f"{ratio}  {l.get('precision', '')}".strip())


def main(args=None):
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", type=Path, required=True, help="the JSON file that is written")
    p.add_argument("--minutes", type=float, default=8., help="what may be used of the clock")
    p.add_argument("--tiny", action="store_true", help="a model of two layers, anywhere")
    a = p.parse_args(args)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*of the English sentences to be trained on.*")
        return run(TINY if a.tiny else BASE, a.minutes, a.out)


if __name__ == "__main__": main()

"Every comparison: what is run here, what is run instead, and that both compute the same"
import copy
import dataclasses
import functools
import itertools
import json
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from transformers import pipeline

from xlnb.core import XlnbError, nearest
from xlnb.data.kinds.query import add_query
from xlnb.data.pairs import PairCollator, pair_features
from xlnb.data.tasks import Task, get_task
from xlnb.evaluation.predict import evaluate_model
from xlnb.evaluation.statistics import scores
from xlnb.lab.worlds import Lab
from xlnb.methods.alsace.losses import language_pairs
from xlnb.methods.clism.collator import span_inputs
from xlnb.methods.clism.projection import lab_pairs, span_pairs
from xlnb.methods.finetune import FineTune
from xlnb.methods.mmkd.baselines import one_level
from xlnb.methods.mmkd.method import MMKD
from xlnb.methods.mmkd.objective import LevelObjective
from xlnb.methods.salt.candidates import MaskedCandidates, Occurrence, first_asks, mask_logits, sliced_head
from xlnb.methods.salt.vocabulary import Segmenter, switchable, vocabularies
from xlnb.models.encoders import load_encoder, load_tokenizer
from xlnb.models.heads import load_finetuned, save_finetuned, with_head
from xlnb.models.me5_head import no_dropout
from xlnb.study.cell import Cell, CellRun
from xlnb.study.prefixes import Prefixes
from xlnb.study.recipe import recipe
from xlnb.study.store import Store
from xlnb.study.version import provenance
from xlnb.training.schedule import Budget
from xlnb.training.stage import Context, run_stage

from . import loops
from .measure import Side, interleaved, spread

TASK, TARGETS = "lab-inference", ("qal", "qcy", "qge")
CODES = tuple("en ar bg de el es fr hi ru sw th tr ur vi zh".split())  # XNLI's, for fifteen languages of test rows


@dataclass(frozen=True)
class Size:
    "How much each side is given to do; a pair of numbers: here, and there"
    pairs: int = 4                  # interleaved pairs
    epochs: int = 2                 # of fine-tuning
    rows: int = 2048                # against short padding
    padded_rows: int = 512          # against fixed padding
    words: tuple = (2000, 300)      # for which candidates are made
    forward_words: int = 2000       # the same with the forward passes alone
    top_k: int = 400                # guesses asked of fill-mask: five for most words and languages
    langs: int = 15                 # of ALSACE, and of evaluation
    few_steps: tuple = (60, 3)      # of ALSACE with 2 instances
    many_steps: tuple = (4, 1)      # and with its usual 32
    instances: int = 32             # of these
    levels: tuple = (64, 16)        # sentences of MMKD
    levels_short: tuple = (64, 32)  # against the release with short padding
    one_level: int = 128            # against sentence-transformers
    batch: int = 32                 # pairs of a step of MMKD
    spans: int = 1500               # pairs of sentences of CLISM
    tested: int = 100               # rows in each of fifteen languages
    cell_rows: int = 512            # of a cell whose prefix is kept
    cells: int = 10_000             # of a store


SIZES = {"lab": Size(),
         "me5-small": Size(epochs=1, rows=192, padded_rows=64, words=(200, 24), forward_words=300, top_k=4000,
                           few_steps=(4, 1), many_steps=(1, 1), instances=4, levels=(16, 8), levels_short=(16, 16),
                           one_level=24, batch=8, tested=24,
                           cell_rows=64)}
TINY = Size(pairs=1, epochs=1, rows=32, padded_rows=32, words=(24, 12), forward_words=24, langs=4, few_steps=(2, 1),
            many_steps=(1, 1), instances=3, levels=(12, 12), levels_short=(12, 12), one_level=12, batch=8, spans=40,
            tested=6, cell_rows=32, cells=12)


@dataclass
class Sides:
    "What is timed, how a unit is called, and a check at the size at hand that returns what was found equal"
    here: Side
    other: Side | None
    unit: str
    same: Callable


@dataclass(frozen=True)
class Comparison:
    "A line of the table"
    name: str
    title: str
    here: str               # what runs here
    other: str              # and instead of it; empty: nothing, the seconds themselves are the result
    make: Callable          # (size, encoder, folder) -> Sides
    ratio: str = "faster"   # 'faster': their time by ours; 'time': ours by theirs; 'seconds': ours
    target: float | None = None  # 'faster': at least; else at most
    encoders: tuple = ("lab", "me5-small")

    def value(self, seconds):
        "Of one pair"
        if self.ratio == "seconds": return seconds["here"]
        share = seconds["here"] / seconds["other"]
        return share if self.ratio == "time" else 1 / share

    def met(self, value):
        "None where there is no target"
        if self.target is None: return None
        return value >= self.target if self.ratio == "faster" else value <= self.target


COMPARISONS = {}

def comparison(name, title, here, other, **more):
    "Make a function that sets up the sides of a comparison known"
    def known(make):
        COMPARISONS[name] = Comparison(name, title, here, other, make, **more)
        return make
    return known


def get_comparison(name):
    "The comparison of that name"
    if name in COMPARISONS: return COMPARISONS[name]
    raise XlnbError(f"there is no comparison {name!r}: {nearest(name, COMPARISONS)}choose among "
                    f"{', '.join(COMPARISONS)}")


# --- what all of them read -------------------------------------------------------------------------------------------
@functools.cache
def laboratory():
    "One laboratory, whose rows are written once"
    Lab.dataset = functools.cache(Lab.dataset)
    return Lab()


@functools.cache
def encoder(name): return load_encoder(name, head="masked_lm")


def tokenizer(name): return load_tokenizer(name)


def own(rows, keep=("input_ids", "attention_mask", "token_type_ids", "labels")):
    "Features as plain rows, of what a model reads"
    return [{k: r[k] for k in keep if k in r} for r in rows]


def close(here, other, most):
    "Numbers are equal up to rounding; how equal they are, in words"
    assert len(here) == len(other) and len(here), (len(here), len(other))
    found = max(abs(a - b) for a, b in zip(here, other))
    assert found <= most, f"they differ by {found:.1e}"
    return f"equal to {found:.0e}" if found else "exactly equal"


# --- fine-tuning -----------------------------------------------------------------------------------------------------
class Tuning:
    "Fine-tuning on some rows: the stage of the library, and a fresh model for every run"
    def __init__(self, name, rows, epochs):
        laboratory()
        task, self.tokenizer = get_task(TASK), tokenizer(name)
        self.model = with_head(encoder(name), task, 0)
        ctx = Context(task, name, self.tokenizer, budget=Budget(train_examples=rows), langs=task.langs)
        self.stage, = FineTune(select="last", epochs=float(epochs)).stages(self.model, ctx)
        self.rows, self.lengths = own(self.stage.data.to_list()), list(self.stage.data["length"])
        self.schedule, self.folder = self.stage.schedule.resolved(self.model), tempfile.mkdtemp(prefix="xlnb-bench-")
        self.units = len(self.rows) * epochs

    def fresh(self): return copy.deepcopy(self.model)

    def still(self):
        "A model without dropout, so that losses can be compared"
        no_dropout(model := self.fresh())
        return model

    def here(self, model, log=False):
        stage = dataclasses.replace(self.stage, args=self.stage.args | dict(logging_steps=1)) if log else self.stage
        return [h["task"] for h in run_stage(stage, model).history if "task" in h]

    def order(self):
        "The library's own batches"
        from xlnb.training.trainer import EpochSampler
        def of(epoch):
            sampler = EpochSampler(len(self.rows), self.lengths, self.schedule.batch_size, 0)
            sampler.epoch = epoch
            order, size = [i % len(self.rows) for i in sampler], self.schedule.batch_size
            return [order[i:i + size] for i in range(0, len(order), size)]
        return of

    def sides(self, other, same):
        side = lambda run: Side(run, self.fresh, self.units)
        return Sides(side(self.here), side(other), "row", same)


@comparison("finetune-padding", "Fine-tuning, against fixed padding", "one stage of fine-tuning",
            "Transformers' example: every input padded to 128, the Trainer and the default collator", target=1.5)
def finetune_padding(size, name, folder):
    t = Tuning(name, size.padded_rows, 1)
    data = loops.fixed_rows(t.rows, t.tokenizer, 128)
    def same():
        order = list(itertools.chain(*t.order()(0)))
        found = close(t.here(t.still(), True), loops.examples_way(t.still(), data, t.schedule, t.folder, order, True),
                      2e-3)
        return f"losses of all steps without dropout, rows in one order: {found}"
    return t.sides(lambda model: loops.examples_way(model, data, t.schedule, t.folder), same)


def _against_loop(size, name, batches):
    t = Tuning(name, size.rows, size.epochs)
    def same():
        found = close(t.here(t.still(), True),
                      loops.bare_loop(t.still(), t.rows, t.tokenizer, t.schedule, t.order()), 1e-3)
        return f"losses of all steps without dropout, rows in one order: {found}"
    return t.sides(lambda model: loops.bare_loop(model, t.rows, t.tokenizer, t.schedule, batches(t)), same)


@comparison("finetune-random", "Fine-tuning, against a loop with random batches", "one stage of fine-tuning",
            "a loop in plain PyTorch, short padding, random batches", ratio="time", target=.85)
def finetune_random(size, name, folder):
    return _against_loop(size, name, lambda t: loops.random_batches(len(t.rows), t.schedule.batch_size))


@comparison("finetune-grouped", "Fine-tuning, against a loop that groups lengths", "one stage of fine-tuning",
            "the same loop with batches of rows of like length", ratio="time", target=1.03)
def finetune_grouped(size, name, folder):
    return _against_loop(size, name, lambda t: loops.grouped_batches(t.lengths, t.schedule.batch_size))


# --- SALT ------------------------------------------------------------------------------------------------------------
class Candidates:
    "Words to be switched, and what finds candidates for them in all languages"
    def __init__(self, name, words, context):
        lab, self.mlm, self.tokenizer, self.context = laboratory(), encoder(name), tokenizer(name), context
        segmenter, self.targets = Segmenter(self.tokenizer), tuple(l for l in lab.langs if l != "en")
        self.vocabs = _vocabularies(name)
        texts = dict.fromkeys(get_task(TASK).load("en", "train", limit=max(60, words // 3))["text_a"])
        found = [Occurrence(t, u.start, u.end, self.targets) for t in texts for u in switchable(t, segmenter.units(t))]
        self.words = found[:words]

    def fresh(self): return MaskedCandidates(self.mlm, self.tokenizer, self.vocabs, context=self.context)

    def ids_of(self, find):
        "{(language, is the word in small letters?): ids}, looked up as the library does"
        sets = {k: frozenset(v.tolist()) for k, v in find.search.words.sets.items()}
        keys = functools.cache(lambda text, lang: next((k for k in find.search.words.first(
            Occurrence(text, 0, len(text), (lang,)), (lang,), 1)), None))
        return lambda w, lang: sets.get(keys(w.text[w.start:w.end], lang), frozenset())

    def reads(self, find):
        "The inputs of all words, longest first, and the part of the head that is needed"
        asks = sorted(first_asks(find.search, self.words), key=lambda a: -len(a.read.inputs["input_ids"]))
        sets, keys = find.search.words.sets, {k for a in asks for some in a.read.keys for k in some}
        union = np.unique(np.concatenate([sets[k] for k in keys])).astype(int)
        small = 0 < 2 * len(union) < self.mlm.get_input_embeddings().num_embeddings
        return asks, sliced_head(self.mlm, torch.as_tensor(union)) if small else None

    def forward(self, made, tokens=4096):
        "The forward passes alone, in the batches that the search makes"
        asks, head = made
        out, pad = [], self.tokenizer.pad_token_id
        while asks:
            n = max(1, tokens // len(asks[0].read.inputs["input_ids"]))
            now, asks = asks[:n], asks[n:]
            rows = [(i, at) for i, a in enumerate(now) for at in a.read.at]
            out.append(mask_logits(self.mlm, [a.read.inputs for a in now], [at for _, at in rows], pad,
                                   [i for i, _ in rows], head))
        return out


@functools.cache
def _vocabularies(name):
    lab = laboratory()
    texts = {l: lab.corpus(l, 300) for l in lab.langs}
    return vocabularies(tokenizer(name), [l for l in lab.langs if l != "en"], texts)


def _against_fill_mask(size, name, context):
    c, pair = Candidates(name, size.words[0], context), context == "pair"
    few = c.words[:size.words[1]]
    def ready(): return pipeline("fill-mask", model=c.mlm, tokenizer=c.tokenizer, device="cpu"), c.ids_of(c.fresh())
    def asked(made): return loops.fill_mask(made[0], few, made[1], size.top_k, pair=pair)
    def same():
        find = c.fresh()
        there, here = asked(ready()), find(few)
        read = [c.tokenizer(loops.masked_text(w, c.tokenizer, pair))["input_ids"] for w in few]
        alike = [x == find.inputs(w, 1)[0]["input_ids"] for x, w in zip(read, few)]
        assert sum(alike) >= .8 * len(few), f"{sum(alike)} of {len(few)} inputs have the same pieces"
        both = [(t[l], [text for text, _ in h[l]]) for t, h, a in zip(there, here, alike) if a for l in c.targets]
        equal = sum(t == h[:len(t)] for t, h in both) / len(both)
        assert equal >= .98, f"other candidates for {1 - equal:.0%}"   # nearly equal probabilities may change places
        whole = sum(len(t) == len(h) for t, h in both) / len(both)
        return (f"the same words in the same order for {equal:.0%}; "
                f"fill-mask finds all that are found here for {whole:.0%}")
    return Sides(Side(lambda find: find(c.words), c.fresh, len(c.words)), Side(asked, ready, len(few)), "word", same)


@comparison("candidates-masked", "Candidates of SALT, the word masked", "candidates in eight languages",
            "a fill-mask pipeline: all words in one batched call, top_k large, filtered for eight languages",
            target=10.)
def candidates_masked(size, name, folder): return _against_fill_mask(size, name, "masked")


@comparison("candidates-pair", "Candidates of SALT, the text beside it", "candidates in eight languages",
            "the same pipeline, the text before the one with the mask", target=10.)
def candidates_pair(size, name, folder): return _against_fill_mask(size, name, "pair")


def _against_forwards(size, name, context):
    c = Candidates(name, size.forward_words, context)
    def same():
        find, seen = c.fresh(), Counter()
        hook = c.mlm.base_model.register_forward_pre_hook(
            lambda module, args, kwargs: seen.update([tuple(kwargs["input_ids"].shape)]), with_kwargs=True)
        try:
            find(c.words)
            there, seen = seen, Counter()
            c.forward(c.reads(c.fresh()))
        finally: hook.remove()
        assert there == seen, (there, seen)
        return f"the same {sum(seen.values())} batches of {sum(a * n for (a, _), n in seen.items())} inputs"
    return Sides(Side(lambda find: find(c.words), c.fresh, len(c.words)),
                 Side(c.forward, lambda: c.reads(c.fresh()), len(c.words)), "word", same)


for _context in ("masked", "pair", "prompt"):
    comparison(f"forwards-{_context}", f"Candidates of SALT, against their forward passes ({_context})",
               "candidates in eight languages", "the forward passes alone, from token ids on", ratio="time",
               target=1.3)(functools.partial(lambda context, *a: _against_forwards(*a[:2], context), _context))


# --- ALSACE ----------------------------------------------------------------------------------------------------------
def language_steps(name, langs, instances, length=24):
    "A model, random inputs in some languages, and the pairs where half of them teach"
    model = copy.deepcopy(with_head(encoder(name), get_task(TASK), 0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ids = torch.randint(5, model.config.vocab_size, (instances, langs, length))
    codes = [f"l{i:03}" for i in range(langs)]
    return model, ids, language_pairs(codes, codes[:langs // 2])


def _against_pairs(size, name, instances, steps):
    model, ids, pairs = language_steps(name, size.langs, instances)
    here, other = (lambda _, f=f, n=n: [f(model, ids, pairs) for _ in range(n)]
                   for f, n in zip((loops.shared_step, loops.pairwise_step), steps))
    def same():
        gradients = []
        exact = copy.deepcopy(model).double()
        for step in (loops.shared_step, loops.pairwise_step):
            step(exact, ids, pairs)
            gradients.append(torch.cat([p.grad.flatten() for p in exact.parameters() if p.grad is not None]))
        found = float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max())
        assert found < 1e-8, f"they differ by {found:.1e}"
        return f"gradients in double precision: equal to {found:.0e} of the largest"
    return Sides(Side(here, units=steps[0]), Side(other, units=steps[1]), "step", same)


@comparison("alsace-pairs", "ALSACE at 15 languages, 2 instances a step", "one pass per language",
            "two passes per pair of languages, pair by pair", target=50.)
def alsace_pairs(size, name, folder): return _against_pairs(size, name, 2, size.few_steps)


@comparison("alsace-pairs-usual", "ALSACE at 15 languages, its usual instances a step", "one pass per language",
            "two passes per pair of languages, pair by pair")
def alsace_pairs_usual(size, name, folder): return _against_pairs(size, name, size.instances, size.many_steps)


# --- MMKD ------------------------------------------------------------------------------------------------------------
class Levels:
    "MMKD from text to a trained encoder, on the laboratory's own sentences"
    def __init__(self, name, amount, batch, method=None):
        laboratory()
        self.name, self.model, self.tokenizer = name, encoder(name), tokenizer(name)
        self.folder, self.numbers = Path(tempfile.mkdtemp(prefix="xlnb-bench-")), itertools.count()
        self.method = dataclasses.replace(method or MMKD(), amount=amount, langs=TARGETS, teacher=name,
                                          batch_size=batch)
        self.ctx = Context(get_task(TASK), name, self.tokenizer, langs=("en", *TARGETS))
        self.pairs = self.method.pairs(self.ctx)
        self.units = len(self.pairs) * self.method.epochs

    def fresh(self): return copy.deepcopy(self.model)

    def stage(self, model, cache):
        "The stage of the library; its teacher reads into `cache`"
        stage, = dataclasses.replace(self.method, cache_folder=str(cache)).stages(model, self.ctx)
        return stage

    def new(self): return self.folder/str(next(self.numbers))

    def here(self, model): return run_stage(self.stage(model, self.new()), model)

    def released(self, model, length):
        "The same from text on, by the passes of the release"
        m = self.method
        features, english = pair_features(self.pairs, self.tokenizer, self.ctx.budget.max_length, m.word_kind)
        teacher = m.teaches(model, self.ctx)
        objective = LevelObjective(model.config.hidden_size, teacher.size, m, 0, teacher, english)
        collate = PairCollator(self.tokenizer, m.levels, None, m.mask)
        return loops.release_loop(model, objective, features.to_list(), collate, m.schedule(model).resolved(model),
                                  length)


def _against_release(name, batch, sizes, length):
    a, b = (Levels(name, n, batch) for n in sizes)
    def same():
        model = b.fresh()
        stage = b.stage(model, b.new())
        features, english = pair_features(b.pairs, b.tokenizer, b.ctx.budget.max_length, b.method.word_kind)
        teacher = b.method.teaches(model, b.ctx)
        live = LevelObjective(model.config.hidden_size, teacher.size, b.method, 0, teacher, english)
        bare, rows, out = PairCollator(b.tokenizer, b.method.levels, None, b.method.mask), features.to_list()[:8], []
        wide = lambda batch: loops.widened(batch, length, b.tokenizer.pad_token_id) if length else batch
        for collate, loss in ((stage.collator, stage.loss),
                              (bare, lambda model, batch: loops.seven_passes(live, model, wide(batch)))):
            torch.manual_seed(0)
            with torch.no_grad(): out.append([float(v) for v in loss(model, collate(rows))[1].values()])
        found = close(sorted(out[0]), sorted(out[1]), 2e-3)
        return f"losses of all four levels of a batch with the same masks: {found}"
    return Sides(Side(a.here, a.fresh, a.units), Side(lambda model: b.released(model, length), b.fresh, b.units),
                 "pair", same)


@comparison("mmkd-release", "MMKD, against the passes of the release", "shared passes, the teacher read once",
            "four passes of the student and three of the teacher in every step, padded to 128 as released", target=8.)
def mmkd_release(size, name, folder): return _against_release(name, size.batch, size.levels, 128)


@comparison("mmkd-release-short", "MMKD, against the passes of the release with short padding",
            "shared passes, the teacher read once", "the seven passes with short padding")
def mmkd_release_short(size, name, folder): return _against_release(name, size.batch, size.levels_short,
                                                                                 None)


@comparison("mmkd-one-level", "One level, against sentence-transformers", "one level, from text on",
            "the loop of sentence-transformers' multilingual distillation, written out", target=1.3)
def mmkd_one_level(size, name, folder):
    t = Levels(name, size.one_level, size.batch, one_level())
    stage = t.stage(t.fresh(), t.new())
    kept = stage.collator.teacher   # both read vectors that the teacher has made before
    number = {e: i for i, e in enumerate(sorted({*t.pairs["source"][:]}))}
    rows = t.pairs.to_list()
    vectors = [torch.from_numpy(np.array(kept.sentence[number[r["source"]]])).float() for r in rows]
    def here(model):
        features, _ = pair_features(t.pairs, t.tokenizer, t.ctx.budget.max_length, t.method.word_kind)
        return run_stage(dataclasses.replace(stage, data=features), model)
    schedule = stage.schedule.resolved(t.model)
    def other(model): return loops.sentence_transformers_loop(model, rows, vectors, t.tokenizer, schedule)
    def same():
        model = t.fresh()
        with torch.no_grad():
            ours = float(stage.loss(model, stage.collator(stage.data.to_list()[:8]))[0])
            texts = [[r[c] for r in rows[:8]] for c in ("source", "target")]
            theirs = float(loops.sentence_mse(model, texts, torch.stack(vectors[:8]), t.tokenizer))
        found = close([ours], [2 * theirs], 1e-4)
        return f"loss of a batch: {found}; a sum of two means here, the mean of both there"
    return Sides(Side(here, t.fresh, t.units), Side(other, t.fresh, t.units), "pair", same)


# --- CLISM -----------------------------------------------------------------------------------------------------------
@comparison("clism-data", "Building the data of CLISM", "pairs with questions, in batches",
            "one pair of sentences after the other")
def clism_data(size, name, folder):
    tok = copy.deepcopy(tokenizer(name))
    add_query(tok, copy.deepcopy(encoder(name)))
    pairs = lab_pairs(laboratory(), "qal", size.spans)
    rows = pairs.to_list()
    def here(_): return span_inputs(span_pairs(pairs, tok), tok)
    def other(_): return loops.spans_one_by_one(rows, tok)
    def same():
        a, b = here(None), other(None)
        assert a == b, "other inputs"
        return f"all {len(a)} inputs with their questions"
    return Sides(Side(here, units=len(rows)), Side(other, units=len(rows)), "pair", same)


# --- evaluation and studies ------------------------------------------------------------------------------------------
@functools.cache
def test_task(codes):
    "Test rows of the laboratory under as many codes of languages as are wanted"
    lab, task = laboratory(), get_task(TASK)
    loader = lambda code, split: lab.dataset(TASK, lab.langs[codes.index(code) % len(lab.langs)], split)
    return Task("many-languages", "pair", task.labels, codes, loader=loader)


@comparison("evaluation", "Testing in 15 languages", "one call, rows sorted by length",
            "a run for each language: the checkpoint loaded, the Trainer of Transformers, short padding")
def evaluation(size, name, folder):
    codes = CODES[:size.langs]
    task, tok = test_task(codes), tokenizer(name)
    model = with_head(encoder(name), task, 0)
    where = save_finetuned(model, tok, Path(folder)/f"tuned-{name}", task)
    def here(_):
        model = load_finetuned(where, task)
        return evaluate_model(task, model, load_tokenizer(where), codes, budget=Budget(eval_examples=size.tested))
    def other(_):
        return {l: loops.tested_alone(task, l, load_finetuned(where, task), load_tokenizer(where), folder, size.tested)
                for l in codes}
    def same():
        a, b = here(None), other(None)
        for l in codes: assert [task.labels[i] for i in b[l]] == list(a[a.lang == l].prediction), l
        return f"all {len(a)} answers"
    n = size.tested * len(codes)
    return Sides(Side(here, units=n), Side(other, units=n), "row", same)


@comparison("cached-prefix", "Starting a cell whose fine-tuning is kept", "the prefix read from the cache",
            "the same cell from nothing")
def cached_prefix(size, name, folder):
    laboratory()
    task, root = get_task(TASK), Path(tempfile.mkdtemp(prefix="xlnb-bench-"))
    cell = Cell(task, name, recipe("finetune(select=last,epochs=1)+alsace"), 0,
                Budget(train_examples=size.cell_rows, eval_examples=20), task.langs)
    numbers = itertools.count()
    def started(prefixes): return CellRun(cell, root/f"run-{next(numbers)}", prefixes=prefixes).made(1)[0]
    def empty():
        shutil.rmtree(root/"none", ignore_errors=True)
        return Prefixes(root/"none")
    def full():
        started(kept := Prefixes(root/"kept"))
        return kept
    def same():
        a, b = started(full()).state_dict(), started(empty()).state_dict()
        assert {*a} == {*b} and all(torch.equal(a[k], b[k]) for k in a), "other weights"
        return "all weights, bit for bit"
    return Sides(Side(started, full), Side(started, empty), "start", same)


def filled_store(folder, cells, langs=3, rows=20):
    "A folder of cells such as studies leave: two tasks, five encoders and recipes, seeds"
    made, codes, tables = provenance(), [f"l{k}" for k in range(langs)], {}
    Path(folder).mkdir(parents=True)
    for i in range(cells):
        names = task, enc, rcp = f"task-{i % 2}", f"encoder-{i // 2 % 5}", f"recipe-{i // 10 % 5}"
        key, seed = f"{i:016x}", i // 50
        if names not in tables:
            right = np.array([(i * 7 + j * 3) % 10 < 6 for j in range(rows * langs)])
            tables[names] = pa.Table.from_pandas(pd.DataFrame(dict(
                task=task, encoder=enc, recipe=rcp, budget="all rows", sample=0, seed=seed, lang=np.repeat(codes, rows),
                id=[str(j) for j in range(rows)] * langs, label="a", prediction=np.where(right, "a", "b"),
                correct=right.astype(float))), preserve_index=False)
        table = tables[names]
        table = table.set_column(table.column_names.index("seed"), "seed", pa.array([seed] * len(table)))
        cell = dict(task=dict(name=task, source="l0", kind="pair", labels=["a", "b"], metric="accuracy"), langs=codes,
                    encoder=enc, encoder_name=enc, recipe=[dict(method=rcp)], recipe_name=rcp, seed=seed,
                    budget=dict(train_examples=None, sample=0), budget_name="all rows")
        record = dict(key=key, cell=cell, provenance=made, code={}, stages=[], seconds=dict(training=1., testing=1.))
        table = table.replace_schema_metadata({**table.schema.metadata, b"xlnb": json.dumps(record).encode()})
        pq.write_table(table, Path(folder)/f"{task}-{enc}-{rcp}-seed{seed}-{key}.parquet", compression="zstd",
                       write_page_checksum=True)


def opened(folder):
    "Open a store, filter it, and report on what is left"
    store = Store(folder)
    table = store.cells()
    left = table[(table.task == "task-0") & (table.encoder == "encoder-0") & (table.recipe == "recipe-0")]
    items = pd.concat([store.read(store.root/f)[0] for f in left.file], ignore_index=True)
    return table, left, scores(items)


@comparison("store", "A store of 10,000 cells", "opened, filtered, reported", "", ratio="seconds", target=2.,
            encoders=("lab",))
def store(size, name, folder):
    where = Path(folder)/f"store-{size.cells}"
    if not where.exists():
        filled_store(part := where.with_name(where.name + "-part"), size.cells)
        part.rename(where)
    def same():
        table, left, found = opened(where)
        assert len(table) == size.cells and len(left) and found.seed.nunique() == len(left)
        return f"{len(table)} cells, of which {len(left)} are reported"
    return Sides(Side(lambda _: opened(where)), None, "report", same)


# --- measuring -------------------------------------------------------------------------------------------------------
def compared(c, size, name, told=lambda text: None):
    "The record of one comparison: at a tiny size that both sides compute the same, then the interleaved pairs"
    with tempfile.TemporaryDirectory(prefix="xlnb-bench-") as folder:
        tiny = dataclasses.replace(TINY, top_k=size.top_k)
        checked = c.make(tiny, name, folder).same()
        told(f"checked: {checked}")
        sides = c.make(size, name, folder)
        def said(i, seconds): told(f"pair {i + 1} of {size.pairs}: {c.value(seconds):.3g}")
        rounds = interleaved(sides.here, sides.other, size.pairs, said)
    ratios = [c.value(r["seconds"]) for r in rounds]
    others = [r["others"] for r in rounds]
    return dict(title=c.title, here=c.here, other=c.other, ratio=c.ratio, target=c.target, unit=sides.unit,
                checked=checked, rounds=rounds, ratios=ratios, **spread(ratios), met=c.met(spread(ratios)["median"]),
                others=None if None in others else max(others))

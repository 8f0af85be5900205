"""A task in four languages that a tiny encoder learns in seconds: which of two groups do most words come from? German
shares most words with English, Swahili some, Urdu few."""
import random
from dataclasses import replace

import torch
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from xlnb.models.heads import with_head
from xlnb.methods.alsace.method import ALSACE
from xlnb.methods.finetune import FineTune
from xlnb.data.parallel import parallel_text
from xlnb.training.pretraining import train_tokenizer
from xlnb.data.tasks import own_task
from xlnb.training.schedule import Budget
from xlnb.training.stage import Context, run_method

LANGS = ("en", "de", "sw", "ur")
SHARED = dict(en=1.0, de=0.8, sw=0.5, ur=0.3)


def words():
    "For each language, the form of 16 words; those that are not shared have a form of their own"
    r = random.Random(0)
    form = lambda: "".join(r.choice("bdgklmnprst") + r.choice("aeiou") for _ in range(2))
    base = [form() for _ in range(16)]
    return {l: [w if i % 10 < 10 * share else form() for i, w in enumerate(base)] for l, share in SHARED.items()}


def rows(n, seed, split):
    r, forms, out = random.Random(seed), words(), {l: [] for l in LANGS}
    for i in range(n):
        y = r.randint(0, 1)
        said = [r.randrange(8) + 8 * (y if r.random() < 0.85 else 1 - y) for _ in range(9)]
        y = int(sum(w >= 8 for w in said) > 4)
        for l in LANGS:
            sentence = " ".join(forms[l][w] for w in said)
            out[l].append(dict(id=f"{split}-{i}", text=sentence, label=("low", "high")[y]))
    return out


def world(dropout=0.0, tune=True, **budget):
    "Context, a fine-tuned model, and the encoder it is made of"
    torch.set_num_threads(1)
    sets = {s: rows(n, k, s) for k, (s, n) in enumerate(dict(train=320, validation=80, test=120).items())}
    data = {l: {s: sets[s][l] for s in sets if s != "train" or l == "en"} for l in LANGS}
    task = own_task("toy-words", "sentence", data, labels=("low", "high"))
    tokenizer = train_tokenizer([r["text"] for s in sets.values() for l in LANGS for r in s[l]], vocab_size=150)
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                              intermediate_size=64, max_position_embeddings=80, pad_token_id=tokenizer.pad_token_id,
                              hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    mlm = XLMRobertaForMaskedLM(config).eval()
    ctx = Context(task, "toy", tokenizer, 0, Budget(**dict(max_length=40) | budget), langs=LANGS)
    model = with_head(mlm, task)
    if tune: run_method(FineTune(lr=3e-3, epochs=5, batch_size=32, select="last"), model, ctx)
    return ctx, model, mlm


def text(n=60, seed=9):
    "Unlabelled rows that stand in no split"
    new = rows(n, seed, "new")
    return parallel_text({l: [{k: r[k] for k in ("id", "text")} for r in rs] for l, rs in new.items()}, "toy-words")


def shared_stage(ctx, model):
    "What two processes can share exactly: full batches, no dropout, plain gradient descent"
    one = replace(ctx, budget=replace(ctx.budget, train_examples=1))  # the same anchor for both, which draw their own
    method = ALSACE(text=text(40), lr=0.3, batch_size=8, epochs=3, evaluations=3, anchor=0.5, guard=None, select="last")
    plan = method.plan(model, one)
    plan.stage.args |= dict(optim="sgd", use_cpu=True)
    return plan

"""Make a laboratory encoder from another seed of pre-training: 20 minutes of one core, twice that beside other work.

    python tools/lab_encoder.py 1 runs/lab-1 --keep checkpoints/lab-1
    python tools/lab_encoder.py 0 runs/family-1 --family 1 --keep checkpoints/family-1

The tokenizer is the one of `lab`, which depends on the text alone. Start values, order of the blocks and what is masked
depend on the seed. Three parts, as the page of the laboratory encoder says; an interrupted call goes on where it was.
With `--family` the languages are those of `drawn_family`, in a laboratory of that seed, and the tokenizer is theirs.
With `--longer`, `--hidden` or `--parallel` one thing about pre-training changes: so many times the steps; a wider body;
sentences of English with their translations among the pairs of the last part, in place of some that follow each other.
It computes in bf16 where the processor has units for it, else in fp32, which is faster there.
With `--keep` the checkpoint (fp16) and the logs of its parts are copied there.
"""
import argparse
import random
import re
import shutil
from itertools import chain
from pathlib import Path

import torch
from transformers import XLMRobertaConfig

from xlnb.lab.grammar import drawn_family
from xlnb.lab.worlds import Lab
from xlnb.models.encoders import load_tokenizer
from xlnb.training.pretraining import pretrain, train_tokenizer
from xlnb.training.schedule import multiplies_bf16

MODEL = dict(hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=512, hidden_dropout_prob=0.,
             attention_probs_dropout_prob=0., type_vocab_size=1, max_position_embeddings=260, pad_token_id=1)
LONGER = dict(block_size=60, batch_size=32, mask=.3, half=True)
PARTS = dict(short=dict(steps=3000, lr=2e-3, block_size=24, batch_size=40, mask=.2),
             long=dict(steps=5000, lr=2e-3, init="short") | LONGER,
             pairs=dict(steps=2000, lr=1e-3, init="long") | LONGER)


def broken(docs):
    "Documents with a line break between two of their sentences, so that pairs are looked across"
    r = random.Random(0)
    for doc in docs:
        ends = [m.end() for m in re.finditer(r"[.?](?= )", doc)]
        at = r.choice(ends) if ends else len(doc)
        yield doc[:at] + "\n" * bool(ends) + doc[at:].lstrip()


def translated(lab, lang, n):
    "Sentences of English and what they say in a language, either of them first; drawn apart from what methods read"
    said = lab.parallel(n, ["en", lang], "pre-training")
    return [f"{a}\n{b}" if i % 2 else f"{b}\n{a}" for i, (a, b) in enumerate(zip(said["en"], said[lang]))]


def make(seed, out, shrink=1, family=0, longer=1, hidden=128, parallel=0):
    "The three parts, one after the other, in folders of `out`; `shrink` divides steps and text, for a try"
    lab, texts, held = Lab(family, drawn_family(family)) if family else Lab(), {}, {}
    for k in lab.langs:
        n, more = lab.family[k].documents // shrink, 60 // min(shrink, 60)
        docs = lab.corpus(k, n + more)
        texts[k], held[k] = docs[:n], docs[n:]
    tokenizer = load_tokenizer("lab") if not family else train_tokenizer(chain(*texts.values()), 4000, max_length=256,
                                                                         kind="bpe")
    for part, o in PARTS.items():
        how = o | dict(steps=max(1, o["steps"] * longer // shrink), eval_steps=500, eval_texts=held)
        if "init" in o: how["init"] = str(out / o["init"])
        else: how["config"] = XLMRobertaConfig(vocab_size=len(tokenizer), **MODEL | dict(hidden_size=hidden, intermediate_size=4 * hidden))
        text = {k: list(broken(v)) for k, v in texts.items()} if part == "pairs" else texts
        if part == "pairs" and parallel:
            n = max(1, parallel // shrink)
            text = {k: v if k == "en" else v[n:] + translated(lab, k, n) for k, v in text.items()}
        precision = "bf16" if multiplies_bf16() else "fp32"
        pretrain(text, out / part, tokenizer, seed=seed, precision=precision, progress=False, **how)
        print(part, "done", flush=True)


def keep(out, to):
    "The last checkpoint and the logs of all parts"
    to.mkdir(parents=True, exist_ok=True)
    for f in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(out / "pairs" / f, to / f)
    for part in PARTS: shutil.copy(out / part / "log.json", to / f"{part}.json")


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("seed", type=int)
    p.add_argument("out", type=Path)
    p.add_argument("--keep", type=Path, help="folder for the checkpoint and its logs")
    p.add_argument("--shrink", type=int, default=1, help="divide steps and text by this, for a try")
    p.add_argument("--family", type=int, default=0, choices=range(20), metavar="SEED",
                   help="seed of other languages, 1 to 19; the usual ones without")
    p.add_argument("--longer", type=int, default=1, help="times the steps of every part")
    p.add_argument("--hidden", type=int, default=128, help="width of the body, a multiple of four")
    p.add_argument("--parallel", type=int, default=0, help="translated sentences a language in the last part")
    a = p.parse_args()
    torch.set_num_threads(1)
    make(a.seed, a.out, a.shrink, a.family, a.longer, a.hidden, a.parallel)
    if a.keep: keep(a.out, a.keep)

"""Every loss that is a mean over rows or tokens, in five steps that several processes share: plain gradient descent, no
dropout, rows of unequal length, and the same masks however a batch is split"""
import os
import random
from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

import toy_clism
from xlnb.data.kinds.base import collator, featurize, kind_of
from xlnb.data.kinds.classify import SENTENCE
from xlnb.data.parallel import parallel_text
from xlnb.data.tasks import own_task
from xlnb.evaluation.predict import decode, item_scores
from xlnb.methods.mmkd.method import MMKD
from xlnb.methods.salt.baselines import DictionaryCandidates
from xlnb.methods.salt.collator import SwitchedCollator, switched_loss
from xlnb.methods.salt.table import switch_table
from xlnb.models.heads import with_head
from xlnb.training.losses import task_loss
from xlnb.training.pretraining import pretrain, train_tokenizer
from xlnb.training.stage import Budget, Context, Stage, seeded

WORDS = "river bird stone cloud winter garden music silver letter window".split()
GERMAN = dict(zip(WORDS, "fluss vogel stein wolke winter garten musik silber brief fenster".split()))
LABELS = dict(pair=("no", "yes"), tags=("O", "B-X", "I-X"), span=None)
PLAIN = dict(optim="sgd", use_cpu=True, logging_steps=1)
USUAL = dict(max_steps=5, per_device_train_batch_size=8, learning_rate=0.1, max_grad_norm=1e3,
             lr_scheduler_type="constant")


def pieces():
    "One tokenizer for all processes, kept in a folder: where pieces are equally good, training takes any of them"
    where = Path(os.environ["TOY_TOKENIZER"])
    if not where.exists():
        train_tokenizer([" ".join([*WORDS, *GERMAN.values(), "which"])] * 5, vocab_size=80).save_pretrained(where)
    return PreTrainedTokenizerFast.from_pretrained(where)


def row(r, i, kind):
    said = [r.choice(WORDS) for _ in range(r.randint(3, 14))]
    text, at = " ".join(said), r.randrange(len(said))
    if kind == "pair": return dict(text_a=text, text_b=" ".join(said[::2]), label=("no", "yes")[i % 2])
    if kind == "tags": return dict(tokens=said, tags=[r.choice(["O", "B-X"]) for _ in said])
    start = len(" ".join([*said[:at], ""]))
    return dict(question="which " + said[0], context=text, answers=dict(text=[said[at]], answer_start=[start]))


def world(kind):
    "Task, tokenizer and a model with the task's head"
    r = random.Random(0)
    rows = dict(train=[row(r, i, kind) for i in range(40)], test=[row(r, i, kind) for i in range(7)])
    task = own_task(f"shared-{kind}", kind, {"en": rows}, labels=LABELS[kind])
    tokenizer = pieces()
    return task, tokenizer, with_head(encoder(len(tokenizer)), task)


def encoder(vocab_size, seed=0):
    torch.manual_seed(seed)
    config = XLMRobertaConfig(vocab_size=vocab_size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                              intermediate_size=32, max_position_embeddings=140, pad_token_id=1, type_vocab_size=1,
                              initializer_range=0.3, # so that rows differ from the first step
                              hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, classifier_dropout=0.0)
    return XLMRobertaForMaskedLM(config)


def plain(kind, **more):
    "As plain fine-tuning runs it"
    task, tokenizer, model = world(kind)
    data = featurize(task, task.load("en", "train"), tokenizer, train=True)
    return Stage(kind, data, collator(task, tokenizer), task_loss, args=PLAIN | USUAL, **more), model


def switched(kind, rate=0.4):
    "SALT: both of its losses, with a weight of their own; at a low rate half a batch may have no switched row"
    task, tokenizer, model = world(kind)
    rows = task.load("en", "train")
    find = DictionaryCandidates(dict(de={w: GERMAN[w] for w in WORDS[:6]}))
    table = switch_table(task, rows, find, tokenizer, ["de"], rate=rate, copies=1)
    collate = SwitchedCollator(task, tokenizer, rows.to_list(), table, mixup="soft", weight=("fixed", 0.3, "word"))
    data = [f | dict(switches=True) for f in featurize(task, rows, tokenizer, train=True)]
    loss = switched_loss(kind_of(task), augmented=0.7, consistency=2.0)
    return Stage(f"salt {kind}", data, collate, loss, args=PLAIN | USUAL), model


def levels(accumulate=1, **weights):
    "MMKD: the levels that have a weight"
    r, tokenizer = random.Random(1), pieces()
    said = [[r.choice(WORDS) for _ in range(r.randint(3, 14))] for _ in range(40)]
    both = {"en": [" ".join(s) for s in said], "de": [" ".join(GERMAN[w] for w in s) for s in said]}
    rows = {l: [dict(id=str(i), text=t) for i, t in enumerate(ts)] for l, ts in both.items()}
    none = dict(token=0.0, word=0.0, sentence=0.0, structure=0.0, mse=0.0)
    m = MMKD(text=parallel_text(rows, SimpleNamespace(kind=SENTENCE)), teacher="student", identity=False, mask=0.3,
             batch_size=8, steps=5, lr=0.01, warmup=0.0, decay="constant", clip=1e3, weight_decay=0.0,
             accumulate=accumulate, **none | weights)
    task, model = SimpleNamespace(name="shared", source="en", langs=("en", "de")), encoder(len(tokenizer))
    stage, = m.stages(encoder(len(tokenizer), seed=1), Context(task, "toy", tokenizer, budget=Budget(max_length=40)))
    with seeded(0): batch = stage.collator([stage.data[i] for i in range(len(stage.data))])
    stage.data, stage.args = [dict(row=i) for i in range(40)], dict(PLAIN)
    stage.collator = lambda rows: {k: v[[r["row"] for r in rows]] for k, v in batch.items()}
    return stage, model


def pointing(accumulate=1):
    "CLISM, with the negatives of each smaller batch"
    model = toy_clism.encoder()
    return toy_clism.shared_stage(model, gather=False, accumulate=accumulate, steps=5)[1], model


def evaluated(n):
    "Fine-tuning that tells every item of `n` rows, a number that two processes cannot share equally"
    stage, model = plain("pair")
    task, tokenizer, _ = world("pair")
    rows = task.load("en", "test", limit=n)
    features = featurize(task, rows, tokenizer)
    def told(logits):
        items = item_scores(task, rows, decode(task, logits, features, rows))
        scores = {f"right_{i}": float(c) for i, c in enumerate(items.correct)}
        return scores | {f"logit_{i}": float(l[0]) for i, l in enumerate(logits)} | {"score": float(logits[0][0])}
    stage.eval_data, stage.compute_metrics, stage.metric = features, told, "score"
    stage.args |= dict(eval_steps=2, per_device_eval_batch_size=3)
    return stage, model


def with_loss(kind):
    "Fine-tuning that chooses its weights by the loss on seven rows"
    task, tokenizer, _ = world(kind)
    stage, model = plain(kind, eval_data=featurize(task, task.load("en", "test"), tokenizer, train=True))
    stage.args |= dict(eval_steps=2, per_device_eval_batch_size=3)
    return stage, model


SHARED = {"pair": lambda: plain("pair"), "tags": lambda: plain("tags"), "span": lambda: plain("span"),
          "salt pair": lambda: switched("pair"), "salt tags": lambda: switched("tags"),
          "salt span": lambda: switched("span"), "salt of few words": lambda: switched("pair", rate=0.03),
          "token and word": lambda: levels(token=1.0, word=1.0), "one level": lambda: levels(mse=1.0),
          "items": lambda: evaluated(7), "one item": lambda: evaluated(1), "loss of tags": lambda: with_loss("tags")}
HALVES = {"sentence and structure": lambda accumulate: levels(accumulate, sentence=1.0, structure=10.0),
          "contrast": pointing} # what is compared within a batch: processes are then as smaller batches of one process


def made(name): return SHARED[name]() if name in SHARED else HALVES[name](1)


def pretrained(out):
    "Masked-LM pre-training"
    r = random.Random(2)
    texts = {l: [" ".join(r.choice(ws) for _ in range(r.randint(3, 30))) for _ in range(n)]
             for l, ws, n in (("en", WORDS, 60), ("de", [*GERMAN.values()], 15))}
    config = encoder(len(pieces())).config
    return pretrain(texts, out, config=config, tokenizer=pieces(), steps=5, batch_size=8, block_size=24, lr=0.5, warmup=0.0,
                    decay="constant", clip=1e3, weight_decay=0.0, progress=False, eval_texts=texts, **PLAIN)

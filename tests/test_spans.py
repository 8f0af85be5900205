"Answers and entities: entries, long contexts in windows, characters of every script, the official scorers to the last digit"
import collections, os, random, re, string, sys, unicodedata
from types import SimpleNamespace

import numpy as np, pandas as pd, pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from seqeval.metrics import f1_score

from toy_tokenizer import mirror, real_tokenizer
from xlnb.data import sources, tasks
from xlnb.models.encoders import load_tokenizer
from xlnb.data.kinds.spans import answer_scores
from xlnb.evaluation.predict import decode, item_scores
from xlnb.data.kinds.base import featurize
from xlnb.core import XlnbError
from xlnb.evaluation.statistics import METRICS
from xlnb.data.tasks import TASKS, Task, get_task, own_task

XQUAD, MLQA = TASKS['xquad'].langs, TASKS['mlqa'].langs


@pytest.fixture(scope='module')
def tok(): return real_tokenizer() if os.environ.get('XLNB_DATA') else load_tokenizer('lab')


# ---------------------------------------------------------------- the scorers, written down from their definitions

def squad_reference(prediction, golds):
    "SQuAD 1.1: Rajpurkar et al. (2016), section 6, with the normalisation of its evaluation script"
    def words(s):
        s = ''.join(c for c in s.lower() if c not in set(string.punctuation))
        return re.sub(r'\b(a|an|the)\b', ' ', s).split()
    return reference(prediction, golds, words)


PUNCTUATION = {chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i))[0] == 'P'} | set(string.punctuation)


def mlqa_reference(prediction, golds, lang):
    "MLQA: Lewis et al. (2020), section 4.3: all Unicode punctuation, articles of the language, Chinese by characters"
    articles = dict(en='a|an|the', es='un|una|unos|unas|el|la|los|las', vi='của|là|cái|chiếc|những', de='ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des')
    def words(s):
        s = ''.join(c for c in s.lower() if c not in PUNCTUATION)
        if lang in articles: s = re.sub(rf'\b({articles[lang]})\b', ' ', s)
        if lang == 'ar': s = re.sub('\\sال^|ال', ' ', s)
        if lang != 'zh': return s.split()
        out, word = [], ''
        for c in s:
            if '\u4e00' <= c <= '\u9fa5': out += [*word.split(), c]; word = ''
            else: word += c
        return [*out, *word.split()]
    return reference(prediction, golds, words)


def reference(prediction, golds, words):
    em, f1, said = 0., 0., words(prediction)
    for gold in golds:
        right = words(gold)
        em = max(em, float(' '.join(said) == ' '.join(right)))
        left, same = collections.Counter(right), 0
        for w in said:
            if left[w] > 0: left[w] -= 1; same += 1
        if same:
            p, r = 1. * same / len(said), 1. * same / len(right)
            f1 = max(f1, (2 * p * r) / (p + r))
    return em, f1


def perturbed(r, row):
    "A prediction that is right, nearly right or wrong"
    text, at, context = row['answers']['text'][0], row['answers']['answer_start'][0], row['context']
    w = text.split()
    around = context[max(0, at - r.randint(0, 9)):at + len(text) + r.randint(0, 9)]
    return r.choice([text, text.upper(), f' {text}.', f'«{text}»', f'the {text}', f'der {text} des', f'ال{text}', f'la {text}', ' '.join(w[::-1]), ' '.join(w[1:]), text[:-1], text[1:], text + text,
                     f'{text}，', f'¿{text}?', around, around, context[:30], '', 'the', '—', text.replace(' ', '  '), ''.join(r.sample(text, len(text)))])


@mirror
@pytest.mark.parametrize('lang', XQUAD)
def test_scores_are_those_of_the_scripts(lang):
    "Every row of every language, against the references, item by item and in all"
    r, ds = random.Random(0), get_task('xquad').load(lang, 'test')
    rows = ds.to_list()
    said = [perturbed(r, row) for row in rows]
    rules = [('squad', lambda p, g: squad_reference(p, g))]
    if lang in MLQA: rules.append(('mlqa', None))
    for rule, ref in rules:
        if rule == 'mlqa':
            keep = range(0, len(rows), 6)
            some, words = [rows[i] for i in keep], [said[i] for i in keep]
            want = [mlqa_reference(p, row['answers']['text'], lang) for p, row in zip(words, some)]
            ds_ = ds.select(keep)
        else: ds_, words, want = ds, said, [ref(p, row['answers']['text']) for p, row in zip(said, rows)]
        items = item_scores(SimpleNamespace(name='t', kind='span', labels=(), metric=rule), ds_, words, lang)
        assert list(zip(items.em, items.f1)) == want
        for metric, k in (('exact match', 0), ('F1', 1)):
            official = 100. * sum(x[k] for x in want) / len(want)
            assert 100 * METRICS[metric](items) == pytest.approx(official, rel=1e-14)
        assert .05 < items.em.mean() < .95 and len(set(items.f1)) > 10


def test_several_answers_count_at_their_best():
    golds = ['the red door', 'a door', '']
    for p in ('door', 'red', '', 'the', 'a red door', 'x'): assert answer_scores(p, golds) == squad_reference(p, golds)
    with pytest.raises(XlnbError, match='no right answer'): answer_scores('x', [])


def test_the_scorer_belongs_to_the_task():
    assert {o.name: o.metric for o in TASKS.values() if o.kind.finds_span}.items() >= dict(xquad='squad', squad='squad', tydiqa='squad', mlqa='mlqa', **{'lab-spans': 'squad', 'mlqa-dev': 'mlqa'}).items()
    assert (TASKS['wikiann'].metric, TASKS['conll'].metric, TASKS['lab-tags'].metric, TASKS['xnli'].metric) == ('conll', 'conll', 'strict', 'accuracy')
    for bad in dict(kind='span', metric='strict'), dict(kind='cloze', metric='squad'):
        with pytest.raises(XlnbError, match='no metric'): Task('t', **bad)


def test_entities_as_the_shared_task_reads_them():
    "An I- after O begins an entity for conlleval and for seqeval's default, not for the strict rule"
    labels = TASKS['wikiann'].labels
    r = np.random.default_rng(0)
    gold, said = ([r.integers(0, len(labels), n).tolist() for n in r.integers(1, 12, 60)] for _ in range(2))
    said = [[*(s * 12)[:len(g)]] if r.random() < .5 else g for g, s in zip(gold, said)]
    names = [[[labels[t] for t in row] for row in x] for x in (gold, said)]
    ds = pd.DataFrame(dict(id=range(len(gold)), tags=gold))
    of = lambda rule: METRICS['entity F1'](item_scores(SimpleNamespace(name='t', kind='tags', labels=labels, metric=rule), ds, names[1]))
    assert of('conll') == pytest.approx(f1_score(*names), abs=1e-15) and of('conll') != of('strict')
    one = item_scores(SimpleNamespace(name='t', kind='tags', labels=labels, metric='conll'), pd.DataFrame(dict(id=[0], tags=[[1, 2, 0]])), [['I-PER', 'I-PER', 'O']])
    assert one[['tp', 'fp', 'fn']].values.tolist() == [[1, 0, 0]]


# ---------------------------------------------------------------- windows

@mirror
@pytest.mark.parametrize('lang', XQUAD)
def test_answers_survive_tokenization(tok, lang):
    "Back to characters: all of the answer, and no piece too many; in long windows and in short ones"
    task = get_task('xquad')
    ds = task.load(lang, 'test', limit=60)
    rows = ds.to_list()
    for length in (96, 384):
        feats, found = featurize(task, ds, tok, length).to_list(), set()
        for f in feats:
            row, offs = rows[f['row']], f['offsets']
            a, b = row['answers']['answer_start'][0], row['answers']['answer_start'][0] + len(row['answers']['text'][0])
            if not f['end_positions']: continue
            s, e = f['start_positions'], f['end_positions']
            found.add(f['row'])
            assert offs[s][0] <= a and offs[e][1] >= b
            assert offs[s][1] > a and offs[e][0] < b, 'the first and the last piece belong to the answer'
            assert tok.decode(f['input_ids'][:1] + f['input_ids'][-1:]) == '<s></s>' and f['length'] <= length
        assert len(found) >= .9 * len(rows) and {f['row'] for f in feats} == set(range(len(rows)))
        chars = collections.defaultdict(set)
        for f in feats: chars[f['row']] |= {c for s, e in f['offsets'] for c in range(s, e) if s >= 0}
        for i, row in enumerate(rows): assert not [c for j, c in enumerate(row['context']) if j not in chars[i] and c.isalnum() and unicodedata.normalize('NFKC', c) == c]
        gold = [np.eye(len(f['offsets']))[[f[k] for k in ('start_positions', 'end_positions')]] * (f['end_positions'] > 0) for f in feats]
        items = item_scores(task, ds, decode(task, [(g[0], g[1]) for g in gold], feats, ds), lang)
        assert (items.f1 > 0).mean() > .5 or lang in ('zh', 'th') # a piece may hold more than the answer


def test_a_short_context_is_one_window_as_the_tokenizer_makes_it(tok):
    task = Task('t', 'span')
    rows = [dict(id=str(i), question=q, context=c, answers=dict(text=[c[:3]], answer_start=[0])) for i, (q, c) in enumerate([('Who?', 'A red cat sleeps.'), ('狗在吃什么？', '一只狗在吃鱼。'), ('Où ?', 'Là-bas  où‑ ﬁnit l’été')])]
    for f, r in zip(featurize(task, Dataset.from_list(rows), tok, 64).to_list(), rows):
        assert f['input_ids'] == tok(r['question'], r['context'])['input_ids'] and f['window'] == 0
    words = Dataset.from_list([dict(id='0', tokens=['Katze', '\u200b', 'schläft'], tags=[1, 0, 0])])
    ner = Task('t', 'tags', ('O', 'B-X'))
    assert featurize(ner, words, tok, 64)[0]['input_ids'] == tok([words[0]['tokens']], is_split_into_words=True)['input_ids'][0]


def test_windows_of_any_size(tok):
    "Everything is covered, neighbours share the stride, no window is too long, and long questions leave room"
    r, task = random.Random(1), Task('t', 'span')
    words = 'the red cat sleeps on a very old mat in Paris'.split()
    for length, stride in [(24, 0), (24, 5), (32, None), (48, 20), (64, 1), (20, 99)]:
        context = ' '.join(r.choice(words) for _ in range(r.randint(1, 160)))
        q = ' '.join(r.choice(words) for _ in range(r.choice((1, 3, 60))))
        ds = Dataset.from_list([dict(id='0', question=q, context=context, answers=dict(text=[context.split()[-1]], answer_start=[len(context) - len(context.split()[-1])]))])
        feats = featurize(task, ds, tok, length, stride=stride).to_list()
        assert max(f['length'] for f in feats) <= length
        all_ids, joined = tok(context, add_special_tokens=False)['input_ids'], []
        for f in feats:
            own = [i for i, (s, e) in enumerate(f['offsets']) if s >= 0]
            ids = [f['input_ids'][i] for i in own]
            if joined:
                share = next(k for k in range(min(len(ids), len(joined)), -1, -1) if joined[len(joined) - k:] == ids[:k])
                assert share >= min(stride if stride is not None else length // 3, len(ids) // 2, len(joined)) or f is feats[-1]
            at = next(k for k in range(len(joined) + 1) if all_ids[k:k + len(ids)] == ids and k + len(ids) >= len(joined))
            joined = all_ids[:at + len(ids)]
        assert joined == all_ids and feats[-1]['end_positions'] > 0
    with pytest.raises(XlnbError, match='raise max_length'): featurize(task, ds, tok, 5)
    with pytest.raises(XlnbError, match='stride'): featurize(task, ds, tok, 64, stride=-1)


def test_tags_of_a_long_sentence(tok):
    "Every word is labelled once; decoding puts them back in order"
    r, ner = random.Random(2), Task('t', 'tags', ('O', 'B-PER', 'I-PER'))
    rows = [dict(id=str(i), tokens=[r.choice(['Katze', '猫', 'antidisestablishmentarian', 'a', '\u200b', 'नमस्ते']) for _ in range(n)], tags=[r.randrange(3) for _ in range(n)]) for i, n in enumerate((1, 7, 80, 150))]
    for length in (16, 40, 512):
        feats = featurize(ner, Dataset.from_list(rows), tok, length).to_list()
        logits = [np.eye(3)[[max(y, 0) for y in f['labels']]] for f in feats]
        for row, tags in zip(rows, decode(ner, logits, feats, rows)):
            has = [bool(tok([w], is_split_into_words=True, add_special_tokens=False)['input_ids']) for w in row['tokens']]
            assert tags == [ner.labels[t] if h else 'O' for t, h in zip(row['tags'], has)]
        assert max(f['length'] for f in feats) <= length


def test_the_best_window_wins():
    row = dict(context='one two three four')
    f = [dict(row=0, offsets=[[-1, -1], [0, 3], [4, 7]]), dict(row=0, offsets=[[-1, -1], [8, 13], [14, 18]])]
    flat = np.zeros(3)
    assert decode(Task('t', 'span'), [(flat + [9, 1, 0], flat + [9, 0, 1]), (flat + [9, 2, 0], flat + [9, 0, 2])], f, [row]) == ['three four']


def test_a_model_with_segments():
    "BERT's token types: the question and the context differ, as its tokenizer has them"
    class Typed:
        model_input_names = ['input_ids', 'token_type_ids', 'attention_mask']
    from xlnb.data.kinds.base import model_input
    assert model_input(Typed, ([2, 5, 3], 0), ([7, 3], 1)) == dict(input_ids=[2, 5, 3, 7, 3], attention_mask=[1] * 5, token_type_ids=[0, 0, 0, 1, 1])


# ---------------------------------------------------------------- entries

@mirror
def test_training_rows_of_several_sets():
    t = get_task('xquad:tydiqa+mlqa_en')
    train, held = t.load('en', 'train'), t.load('en', 'validation')
    parts = {o: [get_task(o).load('en', s)['id'][:] for s in ('train', 'validation')] for o in ('tydiqa', 'mlqa_en')}
    for ds, k in ((train, 0), (held, 1)): assert ds['id'][:] == [f'{o}/{i}' for o in parts for i in parts[o][k]]
    assert not {*train['context']} & {*held['context']} and .03 < len(held) / len(train) < .12
    assert t.load('en', 'train', limit=20).to_list() == t.load('en', 'train', limit=20).to_list() and len(t.load('en', 'train', limit=20)) == 20
    assert len({t.fingerprint('en', 'train'), t.fingerprint('en', 'validation'), get_task('xquad:tydiqa').fingerprint('en', 'train')}) == 3
    assert get_task('xquad:tydiqa').fingerprint('en', 'train') == get_task('tydiqa').fingerprint('en', 'train')
    assert t.fingerprint('en', 'test') == get_task('xquad').fingerprint('en', 'test')
    with pytest.raises(XlnbError, match='source language'): t.load('de', 'validation')
    with pytest.raises(XlnbError, match="'xquad:squad'"): get_task('xquad').load('en', 'train')
    with pytest.raises(XlnbError, match='no training rows'): get_task('xquad:mlqa')
    with pytest.raises(XlnbError, match="'mlqa-dev' tests"): get_task('mlqa').load('de', 'test')


@mirror
@pytest.mark.parametrize('name,lang', [('xcopa', 'sw'), ('xcopa', 'en'), ('geomlama', 'hi'), ('wikiann-dev', 'zh'), ('mlqa-dev', 'vi'), ('copa', 'en'), ('xquad', 'th')])
def test_entries_of_the_mirror(name, lang):
    t = get_task(name)
    ds = t.load(lang, 'test', limit=30)
    assert len(ds) == 30 and tuple(ds.column_names) == (*t.kind.columns, *t.extra)


@mirror
def test_borrowed_rows_line_up():
    t = get_task('xcopa')
    tasks.check_parallel({o: t.load(o, 'test').select_columns(['id', 'label']) for o in ('en', 'it', 'qu')})
    assert t.load('en', 'test').to_list() == get_task('copa').load('en', 'test').to_list()
    assert t.fingerprint('en', 'test') != t.fingerprint('it', 'test')
    g = get_task('geomlama')
    assert len({len(g.load(o, 'test')) for o in g.langs}) == 1


CONLL = dict(id=Value('string'), tokens=List(Value('string')), pos_tags=List(ClassLabel(names=['X', 'Y'])), ner_tags=List(ClassLabel(names=list(TASKS['conll2002'].labels))))


def conll_rows(lang, split): return [dict(id=str(i), tokens=[f'{lang}{split}{i}', 'Smith', '.'], pos_tags=[0, 1, 1], ner_tags=[1, 2 * (i % 2), 0]) for i in range(4)]


@pytest.fixture
def conll(tmp_path):
    "CoNLL as the Hub's Parquet branch lays it out: <config>/<split>/0000.parquet"
    for name, configs in (('conll2002', {'es': 'es', 'nl': 'nl'}), ('conll2003', {'conll2003': 'en'})):
        for config, lang in configs.items():
            for split in ('train', 'validation', 'test'):
                folder = tmp_path/name/config/split
                folder.mkdir(parents=True)
                last = [dict(id='4', tokens=[], pos_tags=[], ner_tags=[])] * (name == 'conll2002')  # as the Hub has it
                Dataset.from_list(conll_rows(lang, split) + last, features=Features(CONLL)).to_parquet(str(folder/'0000.parquet'))
    return tmp_path


def test_conll_of_the_hub(conll, monkeypatch, tmp_path):
    "The script is refused, the Parquet branch is read; three languages of two sets are one task"
    real, asked = sources.load_dataset, []
    def hub(path, config=None, split=None, data_dir=None, revision=None):
        asked.append((path, config, data_dir, revision))
        if revision is None: raise RuntimeError('Dataset scripts are no longer supported, but found conll.py')
        return real(str(conll/path.split('/')[1]), data_dir=data_dir, split=split, cache_dir=str(tmp_path/'cache'))
    monkeypatch.setattr(sources, 'load_dataset', hub)
    t = get_task('conll')
    for lang in ('en', 'es', 'nl'):
        for split in ('validation', 'test') + ('train',) * (lang == 'en'):
            assert t.load(lang, split, 'hub').to_list() == [dict(id=o['id'], tokens=o['tokens'], tags=o['ner_tags']) for o in conll_rows(lang, split)]
    assert asked[:2] == [('eriktks/conll2003', 'conll2003', None, None), ('eriktks/conll2003', None, 'conll2003', 'refs/convert/parquet')]
    assert asked[-1] == ('eriktks/conll2002', None, 'nl', 'refs/convert/parquet')
    assert get_task('conll2002').source == 'es' and t.langs == ('en', 'es', 'nl') and 'B-MISC' in t.labels


def test_conll_in_a_mirror(conll):
    for name, configs in (('conll2002', ('es', 'nl')), ('conll2003', ('conll2003',))):
        text = ''.join(f'- config_name: {c}\n  data_files:\n' + ''.join(f'  - split: {s}\n    path: {c}/{s}/*\n' for s in ('train', 'validation', 'test')) for c in configs)
        (conll/name/'README.md').write_text(f'---\nconfigs:\n{text}---\n')
    t = get_task('conll')
    assert t.load('nl', 'test', conll)['tokens'][0][0] == 'nltest0' and t.load('en', 'train', conll)['tokens'][0][0] == 'entrain0'
    assert t.fingerprint('en', 'test', conll) != t.fingerprint('es', 'test', conll)
    with pytest.raises(XlnbError, match='source language'): get_task('conll:conll2003').load('nl', 'train', conll)


def test_tydiqa_of_the_hub_is_one_config(monkeypatch):
    rows = [dict(id=f'{l}-{i}', title='', context=f'{l} {i} here', question='?', answers=dict(text=[l], answer_start=[0])) for i in range(60) for l in ('english', 'swahili', 'korean')]
    seen = []
    monkeypatch.setattr(sources, 'load_dataset', lambda path, config, split: seen.append((path, config, split)) or Dataset.from_list(rows))
    t = get_task('tydiqa')
    assert {o['answers']['text'][0] for o in t.load('sw', 'test', 'hub')} == {'swahili'} and len(t.load('sw', 'test', 'hub')) == 60
    train, held = t.load('en', 'train', 'hub'), t.load('en', 'validation', 'hub')
    assert len(train) + len(held) == 60 and not {*train['id']} & {*held['id']} and len(held) >= 1
    assert seen[0] == ('google-research-datasets/tydiqa', 'secondary_task', 'validation') and seen[-1][2] == 'train'


def test_squad_of_the_hub(monkeypatch):
    row = dict(id='1', title='T', context='a b', question='?', answers=dict(text=['b', 'b'], answer_start=[2, 2]))
    monkeypatch.setattr(sources, 'load_dataset', lambda path, config, split: Dataset.from_list([row]) if (path, config) == ('rajpurkar/squad', None) else None)
    assert get_task('xquad:squad').load('en', 'train', 'hub')[0]['answers'] == row['answers'] and len(get_task('xquad:squad').load('en', 'validation', 'hub')) == 1

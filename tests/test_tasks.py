"Tasks: canonical rows from anywhere, the same rows in every language, one sentence for every mistake"
import copy, json, os, shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import HealthCheck, given, settings, strategies as st

from xlnb.data import sources, tasks
from xlnb.lab.worlds import LAB_TASKS, Lab
from xlnb.core import XlnbError
from xlnb.languages import language
from xlnb.data.kinds.base import KINDS
from xlnb.data.tasks import (TASKS, Task, align_rows, check_parallel, get_task, lab_task, list_tasks, own_task,
    register_task, show_batch)

DATA = os.environ.get('XLNB_DATA')
mirror = pytest.mark.skipif(not DATA, reason='XLNB_DATA is not set: the mirror is not at hand')
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def clean_registry():
    before = dict(TASKS)
    yield
    TASKS.clear(); TASKS.update(before); tasks._memo.clear()


@pytest.fixture
def folder(tmp_path):
    "A mirror of a mirror, with the folders that a test needs"
    def make(*names):
        for name in names: shutil.copytree(Path(DATA)/name, tmp_path/name, copy_function=shutil.copyfile)
        return tmp_path
    return make


def sentences(table, **kw): return own_task('mine', 'sentence', table, labels=('a', 'b'), **kw)


# ---------------------------------------------------------------- registry and names

def there_and_back(*tasks):
    "What is left of tasks that were sent to another process and came back, as those of a study do"
    with ProcessPoolExecutor(1, mp_context=get_context('fork')) as pool: return list(pool.map(copy.copy, tasks))

def test_the_registry():
    assert {'xnli', 'pawsx', 'sib200', 'nli_en', 'mrpc'} <= {*TASKS} == {*list_tasks().index}
    for o in TASKS.values():
        assert o.langs[0] == o.source and len(o.langs) == len(set(o.langs)) and all(language(c).code == c for c in o.langs)
        assert o.licence != 'not stated' and o.title != o.name
        assert o.loader or o.citation.count('{') == o.citation.count('}') > 2
        assert hash(o) == hash(get_task(o.name))
    assert there_and_back(*TASKS.values()) == [*TASKS.values()]
    assert len(TASKS['sib200'].langs) == 205 and len(TASKS['xnli'].langs) == 15 and len(TASKS['pawsx'].langs) == 7


@pytest.mark.parametrize('name,hint', [('xlni', "'xnli'"), ('paws-x', "'pawsx'"), ('', 'The tasks are'), ('xnli:', None), ('xnli:mrpc', 'labels are pair'), ('lab-inference:xnli', None),
                                       ('xnli:nli', "'nli_en'"), ('sib200:nli_en', 'kind'), ('nowhere/at/all', 'Unknown task')])
def test_names(name, hint):
    if hint is None: assert get_task(name).kind.name == 'pair'
    else:
        with pytest.raises(XlnbError, match=hint): get_task(name)


def test_with_train():
    t = get_task('xnli:nli_en')
    assert (t.name, t.train_from) == ('xnli:nli_en', 'nli_en') and t == TASKS['xnli'].with_train('nli_en') == TASKS['xnli'].with_train(TASKS['nli_en'])
    assert t.with_train('nli_en').name == 'xnli:nli_en'
    own = own_task('mine', 'pair', {'de': {'train': [dict(text_a='a', text_b='b', label=0)]}}, labels=TASKS['xnli'].labels, source='de')
    with pytest.raises(XlnbError, match="no rows in 'en'"): TASKS['xnli'].with_train(own)
    with pytest.raises(XlnbError, match='Register'): TASKS['xnli'].with_train(Task('loose', 'pair', TASKS['xnli'].labels))


def test_registering():
    t = Task('fresh', 'span')
    assert register_task(t) is get_task('fresh') is get_task(t)
    with pytest.raises(XlnbError, match='already'): register_task(Task('fresh', 'cloze'))
    assert register_task(Task('fresh', 'cloze'), replace=True).kind.name == 'cloze'
    with pytest.raises(XlnbError, match='training rows'): register_task(get_task('xnli:nli_en'))
    with pytest.raises(XlnbError, match='already'): own_task('xnli', 'sentence', {'en': {'train': [dict(text='a', label='x'), dict(text='b', label='y')]}})


@pytest.mark.parametrize('fields,hint', [(dict(kind='pairs'), "'pair'"), (dict(kind='pair'), 'labels'), (dict(kind='tags', labels=('O', 'O')), 'two different'),
                                         (dict(kind='span', langs=('xx',)), 'Unknown language'), (dict(kind='pair', labels=('a', 'b'), label_names={'x': 'c'}), "'c'"), (dict(name='a b', kind='span'), 'letters')])
def test_a_wrong_entry(fields, hint):
    with pytest.raises(XlnbError, match=hint): Task(**{'name': 't', **fields})


# ---------------------------------------------------------------- where the rows are

def test_no_such_folder(monkeypatch):
    monkeypatch.setenv('XLNB_DATA', '/no/such/folder')
    for data in None, 'nowhere':
        with pytest.raises(XlnbError, match='does not exist.*XLNB_DATA'): get_task('xnli').load('en', 'test', data)


def test_a_mirror_without_the_set(tmp_path):
    (tmp_path/'other').mkdir()
    with pytest.raises(XlnbError, match="has no 'xnli'.*there: other"): get_task('xnli').load('en', 'test', tmp_path)


def test_no_network(monkeypatch):
    def unreachable(*a, **k): raise ConnectionError("Couldn't reach 'facebook/xnli' on the Hub (LocalEntryNotFoundError)")
    monkeypatch.setattr(sources, 'load_dataset', unreachable)
    monkeypatch.delenv('XLNB_DATA', raising=False)
    for data in None, 'hub':
        with pytest.raises(XlnbError, match="Can't reach the Hub .*XLNB_DATA.*'xnli'"): get_task('xnli').load('en', 'test', data)
    with pytest.raises(XlnbError, match='not on the Hub.*XLNB_DATA'): get_task('nli_en').load('en', 'train', 'hub')


@pytest.mark.parametrize('error, says', [(RuntimeError('Cannot send a request, as the client has been closed.'), "Can't reach the Hub .*XLNB_DATA"),
                                         (RuntimeError('half a file'), 'half a file. Try again')])
def test_an_error_of_the_hub_is_none_of_the_files(monkeypatch, error, says):
    "A client that another request without a network has closed is no network"
    def failed(*a, **k): raise error
    monkeypatch.setattr(sources, 'load_dataset', failed)
    with pytest.raises(XlnbError, match=says) as told: get_task('xnli').load('en', 'test', 'hub')
    assert 'damaged' not in str(told.value)


def test_the_hub_is_asked_the_same_way(monkeypatch):
    "Path and config are those of the Hub; the rest is shared with the mirror"
    asked = []
    features = Features(index_id=Value('int64'), category=Value('string'), text=Value('string'))
    def fake(path, config, split, **kw):
        asked.append((path, config, split))
        return Dataset.from_list([dict(index_id=7, category='travel', text='Safari.')], features=features)
    monkeypatch.setattr(sources, 'load_dataset', fake)
    ds = get_task('sib200').load('zh-TW', 'test', 'hub')
    assert asked == [('Davlan/sib200', 'zho_Hant', 'test')] and ds[0] == dict(id='7', text='Safari.', label=6)
    monkeypatch.setattr(sources, 'load_dataset', lambda path, config, split, **kw: asked.append((path, config)) or Dataset.from_list(
        [dict(premise='p', hypothesis='h', label=1)], features=Features(premise=Value('string'), hypothesis=Value('string'), label=ClassLabel(names=['contradiction', 'entailment', 'neutral']))))
    assert get_task('xnli').load('swa', 'test', 'hub')['label'][0] == 0 # by name, whatever the order of the source
    assert asked[-1] == ('facebook/xnli', 'sw')


def test_a_revision_goes_with_the_path_of_the_data(monkeypatch, tmp_path):
    "As with encoders: name@revision is what is read and what is recorded; keys hash the rows themselves"
    from xlnb.study.cell import Cell, run_cell
    from xlnb.study.recipe import recipe
    from xlnb.training.stage import Budget
    asked = []
    def fake(path, config, split, **kw):
        asked.append((path, kw))
        return Dataset.from_list([dict(id=str(i), text=f'the dog {i}', label='ab'[i % 2]) for i in range(8)])
    monkeypatch.setattr(sources, 'load_dataset', fake)
    fields = dict(name='pinned', kind='sentence', labels=('a', 'b'), config='')
    free, pinned = Task(path='me/texts', **fields), Task(path='me/texts@v1.0', **fields)
    assert free.folder == pinned.folder == 'texts' and free.identity() == pinned.identity()
    free.load('en', 'test', 'hub'); pinned.load('en', 'test', 'hub')
    assert asked == [('me/texts', {}), ('me/texts', dict(revision='v1.0'))]
    cell = lambda task: Cell(task, 'lab', recipe('finetune(epochs=1)'), 0, Budget(max_length=16), ('en',), 'hub')
    assert cell(free).key() == cell(pinned).key()
    assert run_cell(cell(pinned), tmp_path)[1]['data_revisions'] == {'me/texts': 'v1.0'}
    assert tasks.data_revisions(free, 'hub') == {} == tasks.data_revisions(get_task('lab-inference'))
    (tmp_path/'texts').mkdir()
    assert tasks.data_revisions(pinned, tmp_path) == {} # a mirror has no revision
    def script(path, config, split, **kw): raise RuntimeError('Dataset scripts are no longer supported')
    monkeypatch.setattr(sources, 'load_dataset', script)
    with pytest.raises(XlnbError, match='v1.0.*script.*without a revision'): Task(path='me/old@v1.0', **fields).load('en', 'test', 'hub')


def test_missing_translations_of_the_hub(monkeypatch):
    "The Hub's PAWS-X keeps rows that say NS; the mirror has none"
    features = Features(id=Value('int32'), sentence1=Value('string'), sentence2=Value('string'), label=ClassLabel(names=['0', '1']))
    there = {'en': [1, 2, 3, 4], 'ko': [1, 3, 4]}
    def fake(path, config, split, **kw):
        return Dataset.from_list([dict(id=i, sentence1='NS' if i not in there.get(config, there['en']) else f'{config}{i}', sentence2='b', label=i % 2) for i in range(1, 5)], features=features)
    monkeypatch.setattr(sources, 'load_dataset', fake)
    paws = get_task('pawsx')
    assert paws.load('ko', 'test', 'hub')['id'][:] == ['1', '3', '4'] and paws.load('en', 'test', 'hub')['id'][:] == ['1', '2', '3', '4']
    for seed in range(5): assert paws.load('en', 'test', 'hub', limit=2, seed=seed)['id'][:] == paws.load('ko', 'test', 'hub', limit=2, seed=seed)['id'][:]
    assert len(paws.load('en', 'test', 'hub', limit=100)) == 3 # what all languages have


@mirror
def test_a_split_that_a_mirror_lacks():
    with pytest.raises(XlnbError, match="no train split for English.*validation, test.*'xnli:nli_en'"): get_task('xnli').load('en', 'train')
    with pytest.raises(XlnbError, match="'pawsx:mrpc'"): get_task('pawsx').load('en', 'train')
    with pytest.raises(XlnbError, match="source language"): get_task('xnli').load('sw', 'train')
    with pytest.raises(XlnbError, match="training rows of 'nli_en'.*in the source language"): get_task('xnli:nli_en').load('sw', 'train')
    with pytest.raises(XlnbError, match="no test split.*train, validation"): get_task('nli_en').load('en', 'test')
    with pytest.raises(XlnbError, match="did you mean 'test'"): get_task('xnli').load('en', 'tset')
    assert len(get_task('xnli:nli_en').load('en', 'train', limit=10)) == 10


@mirror
def test_a_language_without_data():
    with pytest.raises(XlnbError, match="'xnli' has no Swedish.*its languages are en, ar"): get_task('xnli').load('sv', 'test')
    with pytest.raises(XlnbError, match='205 in all'): get_task('sib200').load('la', 'test')
    with pytest.raises(XlnbError, match='Unknown language'): get_task('xnli').load('swahilli', 'test')
    with pytest.raises(XlnbError, match="no data for Swedish.*there: ar, bg"): Task('more', 'pair', TASKS['xnli'].labels, ('sv',), path='facebook/xnli').load('sv', 'test')


@mirror
def test_damaged_files(folder):
    root = folder('mrpc')
    for o in root.rglob('*train*.parquet'): o.write_bytes(o.read_bytes()[:2000])
    with pytest.raises(XlnbError, match="Can't read the train split of 'mrpc'"): get_task('mrpc').load('en', 'train', root)


@mirror
@pytest.mark.parametrize('name,lang', [('sib200', 'sw'), ('xnli', 'sw'), ('nli_en', 'en')])
def test_a_folder_is_read_as_load_dataset_reads_it(name, lang, tmp_path):
    "The README is read once for all languages; rows, features and config are the same"
    t = get_task(name)
    path, config = sources.data_folder(t, DATA)[0], sources.config_of(t, language(lang))
    a, b = sources.read_folder(path, config, 'validation'), sources.load_dataset(path, config, split='validation', cache_dir=str(tmp_path))
    assert a.features == b.features and a.config_name == b.config_name and a[:] == b[:]
    read = sources.folder_info.cache_info().misses
    t.load(lang, 'validation', DATA)
    assert sources.folder_info.cache_info().misses == read


def test_languages_that_a_study_tests():
    assert TASKS['sib200'].tested == TASKS['xnli'].langs and not TASKS['xnli'].tested
    assert Task('t', 'span', langs=('sw', 'de', 'fr'), tested=('swa', 'deu')).tested == ('en', 'sw', 'de')
    with pytest.raises(XlnbError, match='not one of its languages'): Task('t', 'span', langs=('sw',), tested=('de',))


@mirror
def test_the_fingerprint_follows_the_files(folder):
    root, t = folder('mrpc'), get_task('mrpc')
    first = t.fingerprint('en', 'validation', root)
    assert first == t.fingerprint('eng', 'validation', root) == t.fingerprint('en', 'validation', DATA) != t.fingerprint('en', 'test', root)
    file = next(root.rglob('*validation*.parquet'))
    rows = Dataset.from_parquet(str(file)).to_pandas()
    rows.loc[3, 'sentence1'] += '!'
    features = Dataset.from_parquet(str(file)).features
    Dataset.from_pandas(rows, features=features, preserve_index=False).to_parquet(str(file))
    assert t.fingerprint('en', 'validation', root) != first == t.fingerprint('en', 'validation', DATA)
    assert get_task('pawsx:mrpc').fingerprint('en', 'train') == t.fingerprint('en', 'train')


# ---------------------------------------------------------------- canonical rows

@mirror
@pytest.mark.parametrize('name', ['xnli', 'pawsx', 'sib200', 'nli_en', 'mrpc'])
def test_canonical_rows(name):
    t = get_task(name)
    for lang in t.langs[:5]:
        ds = t.load(lang, 'validation')
        assert tuple(ds.column_names) == t.kind.columns and ds.features['label'].names == list(t.labels)
        assert len(set(ds['id'])) == len(ds) and {*ds['label']} == {*range(len(t.labels))}


@mirror
@pytest.mark.parametrize('name,split', [('xnli', 'test'), ('xnli', 'validation'), ('sib200', 'test'), ('pawsx', 'test')])
def test_parallel_rows_line_up(name, split):
    t = get_task(name)
    check = align_rows if name == 'pawsx' else check_parallel
    langs = t.langs if name != 'sib200' else [*t.langs[::30], 'en']
    both = check({o: t.load(o, split) for o in langs})
    assert len({len(o) for o in both.values()}) == 1 and len(both['en']) > 200


@mirror
@settings(quick, max_examples=6)
@given(st.sampled_from(['xnli', 'pawsx', 'sib200']), st.integers(1, 40), st.integers(0, 3), st.data())
def test_a_limit_draws_the_same_ids(name, limit, seed, draw):
    t = get_task(name)
    a, b = (t.load(draw.draw(st.sampled_from(t.langs)), 'validation', limit=limit, seed=seed)['id'][:] for _ in range(2))
    assert a == b and len(a) == limit


@mirror
@pytest.mark.parametrize('task', [
    Task('e1', 'choice', langs='et ht id it qu sw ta th tr vi zh'.split(), source='et', path='cambridgeltl/xcopa', columns=dict(id='idx', choices=('choice1', 'choice2'))),
    Task('e2', 'span', langs='ar de el en es hi ro ru th tr vi zh'.split(), path='google/xquad', config='xquad.{code}', splits=dict(test='validation')),
    Task('e3', 'span', langs='ar de en es hi vi zh'.split(), path='facebook/mlqa', config='mlqa.{code}.{code}', splits=dict(test='validation')),
    Task('e4', 'tags', ('O', 'B-PER', 'I-PER', 'B-ORG', 'I-ORG', 'B-LOC', 'I-LOC'), 'ar de en sw zh'.split(), path='unimelb-nlp/wikiann', parallel=False,
         columns=dict(tags='ner_tags'), splits=dict(test='validation')),
    Task('e5', 'cloze', langs='en fa hi sw zh'.split(), folder='geomlama', extra=('Context',), columns=dict(
        text=lambda o: o['Prompt'].replace('<mask>', '{mask}') if '<mask>' in o['Prompt'] else o['Prompt'] + ' {mask}',
        choices=lambda o: ([*dict.fromkeys(c.strip() for c in o['Candidate Ans'].split(','))] + ['?'])[:9], label=lambda o: 0))], ids=lambda o: o.path or o.folder)
def test_another_benchmark_is_an_entry(task):
    for lang in task.langs[-2:]:
        ds = task.load(lang, 'test', limit=7)
        assert ds.column_names == [*task.kind.columns, *task.extra] and len(ds) == 7
    assert show_batch(task, task.langs[-2:], 'test', 2).to_html()


GOOD = dict(
    sentence=[dict(text='A', label=0), dict(text='B', label='b')],
    pair=[dict(text_a='A', text_b='B', label=1)],
    choice=[dict(premise='A', question='cause', choices=['B', 'C'], label=1)],
    reading=[dict(premise='A', question='Which?', choices=['B', 'C', 'D'], label=2)],
    span=[dict(question='A?', context='So A it is', answers=dict(text=['A'], answer_start=[3]))],
    tags=[dict(tokens=['A', 'b'], tags=[1, 0])],
    cloze=[dict(text='A {mask}', choices=['B', 'C', 'D'], label=2)])


def one(kind, **change):
    row = {**next(o for o in GOOD[kind] if not isinstance(o.get('label'), str)), **change}
    labels = () if kind in ('choice', 'reading', 'span', 'cloze') else ('O', 'B-X') if kind == 'tags' else ('a', 'b')
    return own_task('mine', kind, {'en': {'test': [row]}}, labels=labels).load('en', 'test')


@pytest.mark.parametrize('kind,change,hint', [
    ('sentence', dict(text=''), r"row 0 \(id '0'\), column 'text': must be text, but is ''"), ('sentence', dict(text=None), 'must be text'),
    ('sentence', dict(text=3), 'must be text, but is 3'), ('sentence', dict(text='\n\t '), 'must be text'), ('sentence', dict(label='c'), "label 'c' is not one of a, b"),
    ('sentence', dict(label=-1), 'kept secret'), ('sentence', dict(label=2), 'label 2'), ('sentence', dict(label=None), 'label None'), ('sentence', dict(label=0.5), 'label 0.5'),
    ('pair', dict(text_b=' '), "column 'text_b'"), ('choice', dict(label=2), 'number of a choice, 0 to 1'), ('choice', dict(label=None), 'number of a choice'),
    ('choice', dict(question='why'), "'cause' or 'effect'"), ('choice', dict(choices=['B']), 'at least two'), ('choice', dict(choices=['B', '']), 'two texts'),
    ('span', dict(answers=dict(text=['B'], answer_start=[3])), 'is not at character 3'), ('span', dict(answers=dict(text=[], answer_start=[])), 'at least one text'),
    ('span', dict(question=''), "column 'question'"), ('span', dict(answers=dict(text=['A'], answer_start=[3, 4])), 'one answer_start for each'),
    ('span', dict(answers=None), 'at least one text'), ('span', dict(answers=dict(text=['A'], answer_start=[None])), 'one answer_start'),
    ('tags', dict(tags=None), 'label None'), ('tags', dict(tags=[1]), '1 for 2'), ('tags', dict(tokens=['A', '']), 'none of them empty'), ('tags', dict(tags=[1, 2]), 'label 2'),
    ('cloze', dict(text='A'), 'must say {mask}'), ('cloze', dict(label=3), '0 to 2')])
def test_a_faulty_row(kind, change, hint):
    assert len(one(kind)) == 1
    with pytest.raises(XlnbError, match=hint) as e: one(kind, **change)
    assert '\n' not in str(e.value) and "'mine' (en, test)" in str(e.value)


def test_ids_differ():
    with pytest.raises(XlnbError, match='is there twice'): sentences({'en': {'test': [dict(id=1, text='A', label=0), dict(id=1, text='B', label=0)]}}).load('en', 'test')


def test_a_column_that_is_not_there():
    t = own_task('mine', 'sentence', {'en': {'test': [dict(sentence='A', label=0)]}}, labels=('a', 'b'))
    with pytest.raises(XlnbError, match=r"no column 'text' for 'text' \(there: sentence, label\).*columns=dict\(text="): t.load('en', 'test')
    assert own_task('mine', 'sentence', {'en': {'test': [dict(sentence='A', label=0)]}}, labels=('a', 'b'), columns=dict(text='sentence')).load('en', 'test')['text'][0] == 'A'


def test_no_rows():
    with pytest.raises(XlnbError, match='no rows'): sentences({'en': {'test': Dataset.from_dict(dict(text=[], label=[]))}}).load('en', 'test')


@pytest.mark.parametrize('limit', [0, -1, 1.5, True, '3'])
def test_a_wrong_limit(limit):
    with pytest.raises(XlnbError, match='limit'): sentences({'en': {'test': GOOD['sentence']}}).load('en', 'test', limit=limit)


# ---------------------------------------------------------------- properties

texts = st.text(st.characters(blacklist_categories=('Cs', 'Cc')), min_size=1, max_size=20).filter(str.strip)
tables = st.lists(st.tuples(texts, st.integers(0, 1)), min_size=2, max_size=12)


@quick
@given(tables)
def test_canonicalisation_is_idempotent(rows):
    once = sentences({'en': {'test': [dict(text=t, label=l) for t, l in rows]}}).load('en', 'test')
    again = sentences({'en': {'test': once}}).load('en', 'test')
    assert once.to_list() == again.to_list() and once.features == again.features
    assert [(o['text'], o['label']) for o in once] == rows


@settings(quick, max_examples=12)
@given(st.dictionaries(st.sampled_from(['en', 'de', 'sw', 'th']), st.sets(st.integers(0, 30), min_size=12), min_size=2).filter(lambda o: 'en' in o),
       st.integers(1, 12), st.integers(0, 5))
def test_subsamples_are_equal_across_languages(ids, limit, seed):
    t = sentences({lang: {'test': [dict(id=i, text=f'{lang}{i}', label=0) for i in sorted(has)]} for lang, has in ids.items()})
    shared = {str(o) for o in set.intersection(*ids.values())}
    drawn = {lang: t.load(lang, 'test', limit=limit, seed=seed)['id'][:] for lang in ids}
    assert len({tuple(o) for o in drawn.values()}) == 1
    assert set(drawn['en']) <= shared and len(drawn['en']) == min(limit, len(shared))
    assert set(t.load('en', 'test', limit=max(1, limit - 1), seed=seed)['id']) <= set(drawn['en']) # a smaller part lies within
    assert drawn['en'] == sorted(drawn['en'], key=int) # in the order of the rows


@quick
@given(tables, st.data())
def test_any_change_is_another_fingerprint(rows, draw):
    make = lambda rows: sentences({'en': {'test': [dict(text=t, label=l) for t, l in rows]}}).fingerprint('en', 'test')
    i = draw.draw(st.integers(0, len(rows) - 1))
    text, label = rows[i]
    assert make(rows) == make(list(rows)) and len(make(rows)) == 16
    for other in (text + 'x', label), (text, 1 - label): assert make([*rows[:i], other, *rows[i + 1:]]) != make(rows)
    if rows[::-1] != rows: assert make(rows[::-1]) != make(rows)


def test_seeds_draw_different_rows():
    t = sentences({'en': {'test': [dict(text=str(i), label=0) for i in range(1, 200)]}})
    assert len({tuple(t.load('en', 'test', limit=20, seed=s)['id']) for s in range(5)}) == 5


# ---------------------------------------------------------------- parallel rows

def rows_of(ids, label=0): return Dataset.from_dict(dict(id=list(ids), label=[label] * len(ids)))


@pytest.mark.parametrize('a,b,hint', [('12', '21', "row 0 has id '1' and '2'"), ('12', '123', 'there are 2 and 3'), ('1', '', 'there are 1 and 0')])
def test_rows_that_do_not_line_up(a, b, hint):
    with pytest.raises(XlnbError, match=f"'en' and 'sw' do not line up.*{hint}.*align_rows"): check_parallel(dict(en=rows_of(a), sw=rows_of(b)))


def test_labels_that_differ():
    with pytest.raises(XlnbError, match='same label'): check_parallel(dict(en=rows_of('1'), sw=rows_of('1', 1)))
    with pytest.raises(XlnbError, match="no column 'id'"): check_parallel(dict(en=rows_of('1'), sw=Dataset.from_dict(dict(text=['a']))))
    with pytest.raises(XlnbError, match='no id in common'): align_rows(dict(en=rows_of('1'), sw=rows_of('2')))


@quick
@given(st.lists(st.sets(st.sampled_from('abcdefgh'), min_size=3), min_size=2, max_size=4))
def test_aligned_rows_line_up(sets):
    by_lang = {str(i): rows_of(sorted(o, reverse=bool(i % 2))) for i, o in enumerate(sets)}
    shared = set.intersection(*sets)
    if not shared:
        with pytest.raises(XlnbError): align_rows(by_lang)
    else:
        out = check_parallel(align_rows(by_lang))
        assert all(o['id'][:] == sorted(shared) for o in out.values())


# ---------------------------------------------------------------- rows of one's own

def test_own_rows_of_every_kind():
    for kind in KINDS: assert tuple(one(kind).column_names) == KINDS[kind].columns


def test_label_names_are_found():
    assert own_task('mine', 'sentence', {'en': {'train': [dict(text='A', label='z'), dict(text='B', label='a')]}}).labels == ('a', 'z')
    assert own_task('mine', 'tags', {'en': {'train': [dict(tokens=['A', 'b'], tags=['B-X', 'O'])]}}).labels == ('O', 'B-X')
    with pytest.raises(XlnbError, match='are not names.*labels='): own_task('mine', 'sentence', {'en': {'train': GOOD['sentence'][:1]}})
    with pytest.raises(XlnbError, match="no column 'label'"): own_task('mine', 'sentence', {'en': {'train': [dict(text='A', y='z')]}})
    with pytest.raises(XlnbError, match="did you mean 'train'"): own_task('mine', 'sentence', {'en': {'trian': GOOD['sentence']}})


def weather(**target):
    "Two kinds of day in English, and rows in Swahili"
    rows = [dict(text=f'Day {i}.', label=('dry', 'wet')[i % 2]) for i in range(8)]
    return {'en': dict(train=rows, validation=rows, test=rows), 'sw': target}


def test_labels_are_those_of_the_source():
    "A misspelt label of a target is refused with its row, and is no third class"
    t = own_task('mine', 'sentence', weather(test=[dict(text='A', label='wet'), dict(text='B', label='Wet')]))
    assert t.labels == ('dry', 'wet')
    with pytest.raises(XlnbError, match=r"\(sw, test\), row 1 .*'Wet' is not one of dry, wet: did you mean 'wet'"): t.load('sw', 'test')
    rows = weather(test=[dict(text='A', label='wet')])
    rows['en']['train'] = rows['en']['train'] + [dict(text='C', label='Dry')]
    with pytest.raises(XlnbError, match=r"\(en, train\), row 8, .*'dry' and 'Dry' differ only in spelling"): own_task('mine', 'sentence', rows)
    assert own_task('mine', 'sentence', rows, label_names={'Dry': 'dry'}).labels == ('dry', 'wet')
    rows['en']['train'][-1] = dict(text='C', label=None)
    with pytest.raises(XlnbError, match=r"\(en, train\), row 8, column 'label': there is no label"): own_task('mine', 'sentence', rows)
    frame = pd.DataFrame(weather()['en']['train'] + [dict(text='C', label=float('nan'))])
    with pytest.raises(XlnbError, match=r"row 8, column 'label': there is no label"): own_task('mine', 'sentence', {'en': dict(train=frame)})


def test_rows_are_parallel_only_when_ids_say_so():
    few = [dict(text=f'Siku {i}.', label='dry') for i in range(3)]
    t = own_task('mine', 'sentence', weather(test=few))
    assert not t.parallel and [len(t.load(l, 'test', limit=5)) for l in ('en', 'sw')] == [5, 3]
    named = {l: {s: [r | dict(id=f'{i}') for i, r in enumerate(rows)] for s, rows in splits.items()} for l, splits in weather(test=few).items()}
    t = own_task('mine', 'sentence', named)
    assert t.parallel and [t.load(l, 'test', limit=2)['id'][:] for l in ('en', 'sw')] == [t.load('en', 'test', limit=2)['id'][:]] * 2
    assert own_task('mine', 'sentence', weather(test=few), parallel=True).parallel
    for r in named['sw']['test']: r['id'] += ' of another set'
    assert [len(own_task('mine', 'sentence', named).load(l, 'test', limit=2)) for l in ('en', 'sw')] == [2, 2]


@pytest.mark.parametrize('content, says', [
    ('', 'is empty'), ('id,text,label\n', 'no rows, only a header'), ('id,text,label\n1,café,wet\n'.encode('latin-1'), "line 2, byte 0xe9.*encoding='latin-1'"),
    ('id,text,label\n1,a,wet\n'.encode('utf-16'), "encoding='utf-16'"), ('id,text,label\n1,a,b,wet\n', 'line 2: 4 values for the 3 columns'),
    ('id,text,label\n1,"a,wet\n', 'line 2: unexpected end'), ('id,text,label\n1,a,wet\n2,b,\n', r"row 1 \(id '2'\): label '' is not one of dry, wet \(the row has none\)"),
    ('id,text,label\n1,,wet\n', "row 0 .*column 'text': must be text")])
def test_what_is_wrong_with_a_csv(content, says, tmp_path):
    file = tmp_path/'test.csv'
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(XlnbError, match=says): own_task('mine', 'sentence', weather(test=file)).load('sw', 'test')


def test_a_csv_is_read_as_it_is_written(tmp_path):
    file = tmp_path/'test.csv'
    file.write_bytes('id,text,label\n007,NA,wet\n8,null,1\n9,12,0\n10,nan,dry\n'.encode('utf-16'))
    rows = own_task('mine', 'sentence', weather(test=file), encoding='utf-16').load('sw', 'test').to_list()
    assert [tuple(r.values()) for r in rows] == [('007', 'NA', 1), ('8', 'null', 1), ('9', '12', 0), ('10', 'nan', 0)]
    with pytest.raises(XlnbError, match='is a file: give its folder'): own_task('mine', 'sentence', file)
    choices = tmp_path/'choices.csv'
    choices.write_text('id,premise,question,choice1,choice2,label\n1,A,cause,B,C,1\n')
    t = own_task('mine', 'choice', {'en': dict(test=choices)}, columns=dict(choices=('choice1', 'choice2')))
    assert t.load('en', 'test')[0]['label'] == 1


def test_a_language_in_a_task_json(tmp_path):
    from xlnb.languages import language, unregister_language
    (tmp_path/'qtv').mkdir()
    (tmp_path/'train.jsonl').write_text('{"text": "A", "label": "wet"}\n{"text": "B", "label": "dry"}\n')
    (tmp_path/'qtv'/'test.csv').write_text('text,label\nC,wet\n')
    (tmp_path/'task.json').write_text(json.dumps(dict(kind='sentence', languages=dict(qtv=dict(name='Vorian', script='Latn')))))
    assert get_task(str(tmp_path)).langs == ('en', 'qtv') and language('qtv').name == 'Vorian'
    (tmp_path/'task.json').write_text(json.dumps(dict(kind='sentence', languages=dict(qtv=dict(name='Vorian', colour=1)))))
    with pytest.raises(XlnbError, match='task.json'): get_task(str(tmp_path))
    unregister_language('qtv')


def test_a_missing_split_of_ones_own():
    t = sentences({'en': {'test': GOOD['sentence']}})
    with pytest.raises(XlnbError, match="no validation split.*your data; there: test"): t.load('en', 'validation')
    with pytest.raises(XlnbError, match="no train split.*own_task"): t.load('en', 'train')


def test_an_own_set_trains_a_benchmark():
    own_task('gold', 'pair', {'en': {'train': [dict(text_a='A', text_b='B', label='neutral', by='me')]}}, labels=TASKS['xnli'].labels)
    assert get_task('xnli:gold').load('en', 'train').to_list() == [dict(id='0', text_a='A', text_b='B', label=1)]


def test_a_folder_of_ones_own(tmp_path):
    root = tmp_path/'rain'
    (root/'swh_Latn').mkdir(parents=True)
    with pytest.raises(XlnbError, match='has no rows.*sw/test.jsonl'): own_task('rain', 'sentence', root)
    with pytest.raises(XlnbError, match='does not exist'): own_task('rain', 'sentence', tmp_path/'snow')
    (root/'train.jsonl').write_text('{"text": "A", "label": "wet"}\n{"text": "B", "label": "dry"}\n')
    Dataset.from_list([dict(text='C', label='wet')]).to_parquet(str(root/'swh_Latn'/'test.parquet'))
    assert own_task('rain', 'sentence', root).load('sw', 'test').to_list() == [dict(id='0', text='C', label=1)]
    (root/'task.json').write_text(json.dumps(dict(kind='sentence', labels=['wet', 'dry'], title='Rain')))
    t = get_task(str(root))
    assert (t.labels, t.langs, t.title, t) == (('wet', 'dry'), ('en', 'sw'), 'Rain', get_task('rain')) and there_and_back(t) == [t]
    for wrong in '{', '{"sort": 1}', '{"kind": "sentence", "colour": 1}':
        (root/'task.json').write_text(wrong)
        with pytest.raises(XlnbError, match='task.json'): get_task(str(root))
    (root/'train.jsonl').write_text('{"text": "A", "label"')
    with pytest.raises(XlnbError, match="Can't read 'rain'"): own_task('rain', 'sentence', root)


# ---------------------------------------------------------------- the laboratory

@pytest.mark.parametrize('name', LAB_TASKS)
def test_laboratory_rows(name):
    t = get_task(name)
    assert t.langs[0] == t.source == 'en' and len(t.langs) >= 9
    ds = {lang: t.load(lang, 'validation') for lang in (t.langs[0], t.langs[1], t.langs[-1])}
    check_parallel(ds)
    assert all(tuple(o.column_names)[:len(t.kind.columns)] == t.kind.columns for o in ds.values())
    if t.kind.name in ('pair', 'tags'): assert getattr(ds['en'].features['tags' if t.kind.label_per_word else 'label'], 'feature', ds['en'].features.get('label')).names == list(t.labels)
    first = {lang: t.load(lang, 'test', limit=9, seed=3)['id'][:] for lang in t.langs}
    assert len({tuple(o) for o in first.values()}) == 1
    assert show_batch(t, t.langs[:2], 'test', 1).to_html()


def test_laboratory_splits():
    for name in LAB_TASKS:
        t = get_task(name)
        if t.kind.fills_gap:
            with pytest.raises(XlnbError, match="no split 'train'"): t.load('en', 'train')
            assert {'attribute', 'home', 'stated'} < {*t.load('en', 'test').column_names}
        else:
            assert len(t.load('en', 'train')) > 1000
            check_parallel({l: t.load(l, 'train', limit=20) for l in t.langs[:3]})   # gold translations
        with pytest.raises(XlnbError, match='has no Swahili'): t.load('sw', 'test')


def test_a_laboratory_of_ones_own():
    t = get_task('lab-inference')
    other = lab_task('lab-inference', Lab(1))
    assert t.fingerprint('qal', 'validation') == lab_task('lab-inference', Lab(0)).fingerprint('qal', 'validation') != other.fingerprint('qal', 'validation')
    with pytest.raises(XlnbError, match="did you mean 'lab-inference'"): lab_task('lab-inferense')


# ---------------------------------------------------------------- display

def test_text_is_shown_as_text():
    t = sentences({'en': {'test': [dict(text='<script>alert(1)</script> & co', label=0)]}, 'ar': {'test': [dict(text='مرحبا', label=0)]}})
    page = show_batch(t, ['en', 'ar'], 'test').to_html()
    assert '<script' not in page and '&lt;script&gt;' in page and 'مرحبا' in page and 'unicode-bidi: plaintext' in page
    assert page == show_batch(t, ['en', 'ar'], 'test').to_html() # the same rows, the same page


def test_the_answer_is_marked():
    show = lambda kind: show_batch(own_task('mine', kind, {'en': {'test': GOOD[kind]}}, labels=('O', 'B-X') if kind == 'tags' else ()), 'en', 'test').to_html()
    assert '<mark>C</mark>' in show('choice') and 'So <mark>A</mark> it is' in show('span') and '<rt>B-X</rt>' in show('tags') and '<mark>D</mark>' in show('cloze')


def test_long_texts_are_cut():
    long = 'x' * 5000 + ' answer ' + 'y' * 5000
    t = own_task('mine', 'span', {'en': {'test': [dict(question='?', context=long, answers=dict(text=['answer'], answer_start=[5001]))]}})
    page = show_batch(t, 'en', 'test', width=100).to_html()
    assert '<mark>answer</mark>' in page and len(page) < 3000 and '…' in page


def test_languages_of_a_row_stand_together():
    t = sentences({o: {'test': [dict(id=str(i), text=f'{o}{i}', label=0) for i in range(9)]} for o in ('en', 'sw', 'th')})
    data = show_batch(t, ['sw', 'en'], 'test', n=3).data
    assert data.language.tolist() == ['sw', 'en'] * 3 and data.id.tolist() == sorted(data.id, key=int)


# ---------------------------------------------------------------- parallel text of one's own

def test_parallel_text_of_opus(tmp_path):
    "Files of lines, whose endings are languages"
    from xlnb.data.parallel import parallel_text
    task = own_task('mine', 'sentence', weather())
    for l, text in dict(en='A dog.\nA cat.\n\nA cow.\n', sw='Mbwa.\nPaka.\nB\nNg’ombe.\n', ids='1\n').items(): (tmp_path/f'x.en-sw.{l}').write_text(text)
    for place in tmp_path, tmp_path/'x.en-sw', tmp_path/'x.en-sw.en':
        with pytest.warns(UserWarning, match='3 rows are there'): text = parallel_text(place, task)
        assert text.langs == ('en', 'sw') and text.rows['sw']['text'][:] == ['Mbwa.', 'Paka.', 'Ng’ombe.']
    with pytest.raises(XlnbError, match='text_a, text_b are needed'): parallel_text(tmp_path, 'xnli')
    (tmp_path/'x.en-sw.sw').write_text('Mbwa.\n')
    with pytest.raises(XlnbError, match='4 lines of en, 1 lines of sw'): parallel_text(tmp_path, task)
    (tmp_path/'x.en-sw.sw').write_bytes('café\n'.encode('latin-1') * 4)
    with pytest.raises(XlnbError, match="line 1, byte 0xe9.*encoding='latin-1'"): parallel_text(tmp_path, task)
    assert len(parallel_text(tmp_path, task, encoding='latin-1')) == 3


# ---------------------------------------------------------------- tags of other schemes, rows without a translation or a label

@pytest.mark.parametrize('tags, rule', [(['B-P', 'I-P', 'O'], 'strict'), (['I-P', 'I-P', 'O'], 'conll'), (['B-P', 'E-P', 'O'], 'conll'),
                                        (['PER', 'PER', 'O'], 'words'), (['PROPN', 'PROPN', 'VERB'], 'words')])
def test_gold_tags_score_one_in_every_scheme(tags, rule):
    from xlnb.evaluation.predict import item_scores, metric_of
    t = own_task('mine', 'tags', {'en': dict(test=[dict(tokens=['Ada', 'King', 'wrote'], tags=tags)] * 2)})
    rows = t.load('en', 'test')
    items = item_scores(t, rows, [[t.labels[i] for i in r['tags']] for r in rows])
    assert t.metric == rule and metric_of(t)(items) == metric_of(items)(items) == 1
    assert list_tasks().loc['mine'].metric == rule
    if rule == 'words':
        with pytest.raises(XlnbError, match="can't read tags.*choose 'words'"): own_task('mine', 'tags', {'en': dict(test=[dict(tokens=['A', 'b'], tags=['PER', 'O'])])}, metric='conll')


def test_a_blank_translation_is_left_out(monkeypatch):
    monkeypatch.setattr(sources, 'load_dataset', lambda *a, **kw: Dataset.from_list([dict(id=i, sentence1=t, sentence2='b', label=1) for i, t in enumerate(['a', ' ', 'NS', None])]))
    assert get_task('pawsx').load('ko', 'test', 'hub')['id'][:] == ['0']
    assert get_task('pawsx').dropped('ko', 'test', 'hub') == 3 and get_task('pawsx:mrpc').dropped('ko', 'test', 'hub') == 3


def test_rows_of_other_languages_are_not_counted_as_left_out(monkeypatch):
    words = lambda i, n: dict(id=i, tokens=['a'] * n, ner_tags=[0] * n)
    monkeypatch.setattr(sources, 'load_dataset', lambda *a, **kw: Dataset.from_list([words(0, 2), words(1, 0)], Features(id=Value('int32'), tokens=List(Value('string')), ner_tags=List(Value('int32')))))
    assert get_task('conll2002').dropped('nl', 'test', 'hub') == 1
    american = dict(premise='a', hypothesis='b', label='neutral')
    monkeypatch.setattr(sources, 'load_dataset', lambda *a, **kw: Dataset.from_list([american | dict(language='aym'), american | dict(language='quy')]))
    assert get_task('americasnli').dropped('quy', 'test', 'hub') == 0 and len(get_task('americasnli').load('quy', 'test', 'hub')) == 1


def test_secret_labels_of_the_source_do_not_cost_the_targets(monkeypatch):
    def fake(path, config, split, **kw):
        return Dataset.from_list([dict(idx=i, premise='A', question='cause', choice1='B', choice2='C', label=-1 if (path, split) == ('aps/super_glue', 'test') else 1)
                                  for i in range(3 if split == 'validation' else 2)])
    monkeypatch.setattr(sources, 'load_dataset', fake)
    assert get_task('xcopa').load('sw', 'test', 'hub')['label'][:] == [1, 1]
    with pytest.warns(UserWarning, match="'copa' are kept secret, so English is tested on its validation rows"):
        assert get_task('xcopa').load('en', 'test', 'hub')['label'][:] == [1, 1, 1]
    with pytest.raises(XlnbError, match='kept secret'): get_task('copa').load('en', 'test', 'hub')
    from types import SimpleNamespace
    from xlnb.study.notes import _of_validation
    noted = _of_validation(SimpleNamespace(task=get_task('xcopa'), langs=('en', 'sw'), data='hub'))
    assert noted == ['The test labels of copa are kept secret: en is tested on validation rows, which also choose the weights.']


def test_another_separator_is_named(tmp_path):
    for mark, shown in (";", "';'"), ("\t", r"'\t'"):
        (tmp_path / "train.csv").write_text(f"text{mark}label\ngood{mark}yes\n")
        with pytest.raises(XlnbError) as e: sources.read_table(tmp_path / "train.csv")
        assert str(e.value).startswith(f"'train.csv' separates its columns by {shown}: save it with commas")
    (tmp_path / "train.csv").write_text("text\ngood; bad\n")
    assert sources.read_table(tmp_path / "train.csv")["text"][:] == ["good; bad"]


def test_a_file_is_no_task(tmp_path):
    (tmp_path / "task.json").write_text("{}")
    with pytest.raises(XlnbError, match="is a file: give the folder it is in"): get_task(str(tmp_path / "task.json"))


def test_what_to_do_where_a_split_is_missing():
    from xlnb.languages import language

    said = {place: str(tasks._no_split(get_task("tydiqa"), language("sw"), "validation", place, ["train"]))
            for place in ("your data", "the Hub (x)", "mirror")}
    assert said["your data"].endswith("there: train. Add a file of validation rows.")
    assert said["the Hub (x)"].endswith("Choose another task, or other languages.")
    assert said["mirror"].endswith("Add it there, or read from the Hub (data='hub', --data hub).")


def test_objects_show_what_is_not_at_its_default():
    from xlnb.study.cell import Cell
    from xlnb.study.recipe import recipe
    from xlnb.training.schedule import Budget

    budget = Budget(train_examples=3)
    assert repr(budget) == "Budget(train_examples=3)" and repr(Budget()) == "Budget()"
    shown = repr(get_task("lab-tags"))
    assert shown.startswith("Task(name='lab-tags', kind=") and "drop=" not in shown and "loader" not in shown
    cell = repr(Cell(get_task("lab-tags"), "lab", recipe("finetune"), 0, budget, ("en",)))
    assert "encoder='lab'" in cell and "seed=0" in cell and "data=" not in cell

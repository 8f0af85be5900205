"""Properties of the laboratory: everything follows from a seed, and everything that is called gold is."""
import hashlib, os, subprocess, sys
from dataclasses import replace

import pytest
from hypothesis import given, settings, strategies as st

from xlnb.core import rng
from xlnb.lab.grammar import CONTENT, FAMILY, Clause, LabLanguage, Writer, align, gloss
from xlnb.lab.worlds import LAB_TASKS, SIZES, TAGS, World, Lab, Names
from xlnb.core import XlnbError
from xlnb.languages import language

LAB = Lab(0)
TARGETS = [k for k in FAMILY if k != 'en']
events = st.integers(0, 10**6).map(lambda i: World(rng('test', i), LAB.names).event())
knobs = st.fixed_dictionaries(dict(
    script=st.sampled_from(['Latn', 'Cyrl', 'Grek', 'Geor']), order=st.sampled_from(['SVO', 'SOV', 'VSO', 'VOS', 'OVS', 'OSV']),
    adpositions=st.sampled_from(['before', 'after']), adjectives=st.sampled_from(['before', 'after']),
    suffixes=st.sampled_from([(), ('case',), ('tense',), ('case', 'tense')]), cognates=st.sampled_from([0, .05, .5, 1])))


def test_family_is_registered_and_large_enough():
    assert len(TARGETS) >= 8
    for k in TARGETS:
        l = language(k)
        assert (l.name, l.script, l.order) == (FAMILY[k].name, FAMILY[k].script, FAMILY[k].order)


def test_same_rows_in_another_process():
    code = ("import hashlib, sys; from xlnb.lab.worlds import *; l = Lab(3); out = [l.corpus(k, 30) for k in l.langs]\n"
            "out += [l.dataset(t, k, 'validation')[:40] for t in LAB_TASKS for k in ('en', 'qgr')] + [l.parallel(20).to_list()]\n"
            "print(hashlib.sha256(repr(out).encode()).hexdigest())")
    found = {subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=os.environ | {'PYTHONHASHSEED': s}).stdout
             for s in ('1', '2')}
    assert len(found) == 1


def test_importing_the_laboratory_is_light():
    code = "import sys, xlnb.lab; assert not {'torch', 'datasets', 'transformers', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)


def test_another_seed_is_another_laboratory():
    a, b = Lab(0), Lab(1)
    assert a.dictionary('qal') != b.dictionary('qal') and a.corpus('en', 5) != b.corpus('en', 5)


def test_what_is_read_beside_the_rows_is_of_the_same_laboratory():
    "Pairs, gold spans, passages and sentences for measures, and the mark of them in a cell's key"
    from types import SimpleNamespace
    from xlnb.data.tasks import get_task, lab_task
    from xlnb.evaluation.retrieval import alignment_error_measure, lab_alignment_error, translations
    from xlnb.lab.worlds import lab_of, usual_lab
    from xlnb.methods.clism.method import CLISM, _sentences
    from xlnb.methods.clism.projection import lab_pairs
    from xlnb.methods.mmkd.baselines import measured_text
    from xlnb.methods.mmkd.method import MMKD
    from xlnb.models.encoders import load_encoder, load_tokenizer
    own = Lab(5); langs = ['en', 'qso']
    usual, other = get_task('lab-inference'), lab_task('lab-inference', own)
    assert lab_of(other) is own and lab_of(usual) is usual_lab() and lab_of(SimpleNamespace(name='lab-')) is usual_lab()
    def found(task, lab):
        pairs = MMKD(amount=20).parallel(task, langs)[0][0]
        gold = lab.parallel(20, langs)
        assert {l: pairs.rows[l]['text'][:] for l in langs} == {l: gold[l][:] for l in langs}
        spans = _sentences(CLISM(amount=20), task, langs)['qso']
        assert spans['target'][:] == lab_pairs(lab, 'qso', 20)['target'][:]
        assert translations(task, langs, 20) == {l: lab.parallel(20, langs, 'retrieval')[l][:] for l in langs}
        assert measured_text(task, langs, n=20) == {l: lab.parallel(20, langs, 'measured')[l][:] for l in langs}
        return pairs, spans
    one, two = found(usual, usual_lab()), found(other, own)
    assert one[1]['target'][:] != two[1]['target'][:] and set(' '.join(two[1]['target']).split()) & {*own.dictionary('qso').values()}
    cell = lambda task: SimpleNamespace(task=task, langs=langs, seed=0, tokenizer=load_tokenizer('lab'), data=None, rows=None)
    for m in (MMKD(amount=20), CLISM(amount=20), CLISM(amount=20, spans='recurring', cacr=0.)):
        assert m.fingerprint(cell(usual)) != m.fingerprint(cell(other)) == m.fingerprint(cell(lab_task('lab-inference', Lab(5))))
    model, tokenizer = load_encoder('lab'), load_tokenizer('lab')
    run = lambda task: SimpleNamespace(cell=SimpleNamespace(task=task, langs=langs), model=model, tokenizer=tokenizer, start=lambda: model)
    for task, lab in ((usual, None), (other, own)):
        want = lab_alignment_error(model, tokenizer, ['qso'], 100, lab=lab).aer['qso']
        assert [r['value'] for r in alignment_error_measure(run(task))] == [want, want]


@settings(max_examples=60, deadline=None)
@given(events, knobs)
def test_a_sentence_and_its_parts_agree(c, k):
    s = Writer(replace(FAMILY['qal'], **k)).write(c)
    assert [s.text[a:b] for a, b in s.offsets] == s.tokens
    top, bottom = gloss(s).split('\n')
    assert top.split() == s.tokens and len(bottom.split()) == len(s.tokens)


@settings(max_examples=60, deadline=None)
@given(events, st.sampled_from(list(FAMILY)), st.sampled_from(list(FAMILY)))
def test_alignment_is_symmetric_and_follows_the_dictionary(c, x, y):
    a, b = LAB.sentence(c, x), LAB.sentence(c, y)
    pairs = align(a, b)
    assert sorted((j, i) for i, j in pairs) == sorted(align(b, a))
    for i, w in enumerate(a.words):      # a content word is aligned with the words that carry one of its glosses
        if w.morphs[0][0] in CONTENT:
            met = [{g for g, _ in b.words[j].morphs} for k, j in pairs if k == i]
            assert any(w.morphs[0][0] in m for m in met) and all(m & {g for g, _ in w.morphs} for m in met)


@settings(max_examples=60, deadline=None)
@given(events, knobs)
def test_knobs_are_independent(c, k):
    "Word order, adpositions and adjectives move words; lexicon, script and cognates change forms: each the same way, whatever the others are"
    base = replace(FAMILY['qal'], **k)
    words = lambda **o: Writer(replace(base, **o)).write(c).words
    glosses = lambda ws: sorted(g for w in ws for g, _ in w.morphs)
    for o in (dict(order='VOS'), dict(adjectives='after'), dict(adpositions='after')):
        assert glosses(words(**o)) == glosses(words())
        if 'adjectives' not in o: assert sorted(w.form for w in words(**o)) == sorted(w.form for w in words())
    for o in (dict(lexicon='other'), dict(script='Grek'), dict(cognates=.5)):
        assert [w.morphs for w in words(**o)] == [w.morphs for w in words()]


@pytest.mark.parametrize('task', LAB_TASKS)
@pytest.mark.parametrize('split', ['test'])
def test_rows_are_parallel(task, split):
    first = LAB.dataset(task, 'en', split)
    assert len(set(first['id'])) == len(first)
    for k in TARGETS:
        d = LAB.dataset(task, k, split)
        assert d['id'] == first['id'] and d.column_names == first.column_names
        for col in ('label', 'question', 'home') if task != 'lab-spans' else ():
            if col in d.column_names and col != 'label' or col == 'label' and 'label' in d.column_names: assert d[col] == first[col]


@pytest.mark.parametrize('lang', FAMILY)
def test_answers_stand_where_they_are_said_to_stand(lang):
    for x in LAB.dataset('lab-spans', lang, 'validation'):
        (a,), (t,) = x['answers']['answer_start'], x['answers']['text']
        assert t and x['context'][a:a + len(t)] == t and t.strip(' .?') == t


@pytest.mark.parametrize('lang', FAMILY)
def test_tags_are_well_formed(lang):
    for x in LAB.dataset('lab-tags', lang, 'validation'):
        assert len(x['tokens']) == len(x['tags'])
        for before, t in zip([0, *x['tags']], x['tags']):
            if TAGS[t].startswith('I-'): assert TAGS[before][2:] == TAGS[t][2:]


@pytest.mark.parametrize('lang', ['en', 'qag', 'qgr'])
def test_probe_is_completed_by_its_candidates(lang):
    d = LAB.dataset('lab-probe', lang, 'test')
    for x in d:
        assert x['text'].count('{mask}') == 1 and len(set(x['choices'])) == len(x['choices'])
    assert any(' ' in c for x in d for c in x['choices'])
    corpus = ' '.join(LAB.corpus(lang))
    stated = [x['text'].replace('{mask}', x['choices'][x['label']]) in corpus for x in d if lang in x['stated']]
    elsewhere = [any(x['text'].replace('{mask}', c) in corpus for c in x['choices']) for x in d if lang not in x['stated']]
    assert sum(stated) > .8 * len(stated) and not any(elsewhere)


def test_labels_are_balanced_and_splits_differ():
    for task, n in (('lab-inference', 3), ('lab-paraphrase', 2), ('lab-choice', 2)):
        for split in SIZES:
            ys = LAB.dataset(task, 'en', split)['label']
            assert max(ys.count(y) for y in range(n)) - min(ys.count(y) for y in range(n)) <= 1
        rows = {s: set(map(str, LAB.dataset(task, 'en', s).remove_columns('id'))) for s in SIZES}
        assert len(rows['train'] & rows['test']) < .02 * SIZES['test'] or task == 'lab-choice'


def test_some_names_of_the_tests_are_new():
    train = {t for x in LAB.dataset('lab-tags', 'en', 'train') for t, y in zip(x['tokens'], x['tags']) if y}
    test = {t for x in LAB.dataset('lab-tags', 'en', 'test') for t, y in zip(x['tokens'], x['tags']) if y}
    assert len(test - train) > 10


@pytest.mark.parametrize('bad', [dict(order='SVX'), dict(script='Arab'), dict(adjectives='left'), dict(suffixes=('gender',)), dict(cognates=2), dict(documents=0)])
def test_impossible_knobs_are_named(bad):
    with pytest.raises(XlnbError, match=next(iter(bad))): Writer(replace(FAMILY['qal'], **bad))


def test_clear_errors():
    for bad in (lambda: LAB.dataset('lab-nli'), lambda: LAB.dataset('lab-inference', 'sw'),
                lambda: LAB.dataset('lab-probe', 'en', 'train'), lambda: LAB.dataset('lab-tags', 'en', 'dev'), lambda: LAB.corpus('xx'),
                lambda: Lab(0, {'qal': FAMILY['qal']}), lambda: LAB.dictionary('xx'), lambda: LAB.parallel(2, ['xx'])):
        with pytest.raises(XlnbError): bad()


def test_a_family_of_ones_own():
    mine = LabLanguage('qmy', 'Mine', 'mine', order='OSV', adjectives='after', suffixes=('case',))
    lab = Lab(0, {'en': FAMILY['en'], 'qmy': mine})
    assert lab.langs == ['en', 'qmy'] and len(lab.dataset('lab-choice', 'qmy', 'validation')) == SIZES['validation']


def test_a_task_with_other_training_rows_keeps_its_laboratory():
    "The name behind the colon is of the training rows; text that no one gives is that of the task"
    from xlnb.data.parallel import lab_text
    from xlnb.data.tasks import get_task, lab_task
    from xlnb.lab.worlds import Lab, lab_of
    from xlnb.methods.mmkd.baselines import measured_text

    plain, shuffled = get_task("lab-inference"), get_task("lab-inference:shuffled")
    assert lab_text(shuffled, 20).fingerprint == lab_text(plain, 20).fingerprint
    assert measured_text(shuffled, ["en", "qal"], n=5) == measured_text(plain, ["en", "qal"], n=5)
    own = Lab(3)
    other = lab_task("lab-inference", own).with_train("shuffled")
    assert lab_of(other) is own and other.load("en", "train")["id"][:] == plain.load("en", "train")["id"][:]
    assert lab_text(other, 20).fingerprint != lab_text(plain, 20).fingerprint

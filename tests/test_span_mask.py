"Word alignments and projected spans: against packages and gold, resumed, cut, with questions side by side"
import json, multiprocessing, os, random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np, pytest, torch
from datasets import Dataset
from hypothesis import given, settings, strategies as st
from nltk.translate import Alignment, alignment_error_rate

from xlnb.models.word_alignment import (GOLD, align_words, alignment_error, embedding_alignments, gold_alignments, statistical_alignments)
from xlnb.models.encoders import load_encoder, load_tokenizer
from xlnb.lab.worlds import Lab, World, report
from xlnb.core import XlnbError, rng
from xlnb.models.encoders import located
from xlnb.models.heads import give_pointer
from xlnb.methods.clism.collator import span_inputs
from xlnb.methods.clism.projection import answer_precision, lab_pairs, project, show_spans, span_pairs, span_statistics
from xlnb.methods.clism.spans import CapitalEntities, SpacyEntities
from xlnb.data.kinds.query import QUE, add_query
from xlnb.data.words import split_words

mirror = pytest.mark.skipif(not os.environ.get('XLNB_DATA'), reason='XLNB_DATA is not set: the mirror is not at hand')
quick = settings(max_examples=60, deadline=None)
alignments = st.sets(st.tuples(st.integers(0, 5), st.integers(0, 5)))


@pytest.fixture(scope='module')
def lab(): return Lab()


@pytest.fixture(scope='module')
def tok(): return load_tokenizer('lab')


@pytest.fixture(scope='module')
def mlm(): return load_encoder('lab')


# ---------------------------------------------------------------- words and alignments

@quick
@given(st.text('ab \u4e2d\u6587กี่ไท\u0301.،ء', max_size=20))
def test_words_in_order_and_whole(text):
    spans = split_words(text)
    assert all(a < b for a, b in spans) and all(b <= c for (_, b), (c, _) in zip(spans, spans[1:]))
    covered = {i for a, b in spans for i in range(a, b)}
    assert all(i in covered for i, c in enumerate(text) if c.isalpha())
    assert not [a for a, _ in spans if text[a] in '\u0301ี่' and a > 0 and a - 1 in covered]


@quick
@given(alignments, alignments.filter(len), alignments)
def test_error_rate_of_a_pair_is_that_of_nltk(a, s, p):
    assert alignment_error([a], [s], [p])['aer'] == pytest.approx(alignment_error_rate(Alignment(s), Alignment(a), Alignment(s | p)))
    assert alignment_error([a], [s])['aer'] == pytest.approx(alignment_error_rate(Alignment(s), Alignment(a)))


@quick
@given(st.lists(st.tuples(alignments, alignments.filter(len)), min_size=2, max_size=4))
def test_error_rate_is_over_all_pairs_together(pairs):
    "As if all pairs were one long sentence"
    A, S = ({(i + 10 * k, j + 10 * k) for k, p in enumerate(pairs) for i, j in p[side]} for side in (0, 1))
    found = alignment_error(*zip(*pairs))
    assert found['aer'] == pytest.approx(alignment_error([A], [S])['aer']) and found['alignments'] == len(A)


def test_bad_alignments():
    with pytest.raises(XlnbError, match='same pairs'): alignment_error([[]], [])
    with pytest.raises(XlnbError, match='no gold alignment'): alignment_error([[]], [[]])


@mirror
def test_gold_sets():
    assert {o: len(gold_alignments(o)) for o in GOLD} == dict(enfr=447, roen=248, jaen=582, zhen=450)
    for o in GOLD:
        for r in gold_alignments(o):
            assert all(0 <= i < len(r['source']) and 0 <= j < len(r['target']) for i, j in r['sure'] + r['possible'])
    assert alignment_error(gold_alignments('enfr')['sure'], gold_alignments('enfr')['sure'], gold_alignments('enfr')['possible'])['aer'] == 0


def test_counting_finds_the_words_of_the_laboratory(lab):
    g = lab.aligned(600, 'en', 'qge' if 'qge' in lab.langs else lab.langs[1])
    s, t = g['source'][:], g['target'][:]
    found = statistical_alignments(s, t)
    assert found == statistical_alignments(s, t) and alignment_error(found, g['pairs'])['precision'] > .7
    both, either = (alignment_error(statistical_alignments(s, t, symmetry=o), g['pairs']) for o in ('intersection', 'union'))
    assert both['precision'] > either['precision'] and both['alignments'] < either['alignments'] and both['recall'] <= either['recall']
    assert statistical_alignments(s[:3], t[:3], more=(s[3:], t[3:])) == found[:3]


def test_matching_is_that_of_simalign(lab, tok, mlm):
    from simalign import SentenceAligner
    g = lab.aligned(12, 'en', lab.langs[1], split='few')
    s, t = g['source'][:], g['target'][:]
    theirs = SentenceAligner(located("lab")[0], token_type='word', matching_methods='aim', layer=2)
    want = [theirs.get_word_aligns(a, b) for a, b in zip(s, t)]
    for ours, name in (('inter', 'inter'), ('itermax', 'itermax'), ('mwmf', 'mwmf')):
        got = [embedding_alignments(s, t, (mlm, tok), layer=2, matching=ours, batch_size=n) for n in (1, 5, 64)]
        assert got[0] == got[1] == got[2] == [o[name] for o in want]


def test_words_that_were_cut_have_no_link(tok, mlm):
    s = [['the'] * 30]
    assert max(i for i, _ in embedding_alignments(s, s, (mlm, tok), max_length=12)[0]) < 12
    assert align_words([[], ['a']], [['b'], []], (mlm, tok)) == [[], []] == align_words([[], ['a']], [['b'], []])


@pytest.mark.parametrize('name', ['bert', 'xlm-roberta', 'distilbert', 'electra', 'mpnet', 'modernbert', 'deberta-v2',
                                  'longformer', 'albert'])
def test_states_of_a_layer_are_those_of_a_whole_pass(name):
    "To the bit, also where inputs are padded within (Longformer), or the layers are one (ALBERT)"
    import torch
    from transformers import AutoConfig, AutoModel
    from xlnb.models.word_alignment import _states
    size = dict(vocab_size=100, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
                max_position_embeddings=66, pad_token_id=1)
    more = dict(distilbert=dict(dim=32, hidden_dim=64, n_layers=3, n_heads=2), albert=dict(embedding_size=16),
                longformer=dict(attention_window=[4] * 3),
                modernbert=dict(bos_token_id=0, eos_token_id=2, cls_token_id=0, sep_token_id=2))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = AutoModel.from_config(AutoConfig.for_model(name, **size | more.get(name, {}))).eval()
        x = dict(input_ids=torch.randint(4, 80, (2, 7)), attention_mask=torch.tensor([[1] * 7, [1] * 5 + [0] * 2]))
        whole = model(**x, output_hidden_states=True).hidden_states
        assert len(whole) == 4 and all(torch.equal(_states(model, k, **x), h) for k, h in enumerate(whole))


# ---------------------------------------------------------------- spans

@quick
@given(st.sets(st.integers(0, 5), min_size=1, max_size=3), alignments)
def test_projection_from_its_definition(words, found):
    own = sorted({j for i, j in found if i in words})
    got = project(words, found)
    if not own: assert got == 'not aligned'
    elif any(j not in own and own[0] < j < own[-1] for i, j in found): assert got == 'scattered'
    else: assert got == (own[0], own[-1])


def pair(source, target, alignments, entities, **kw):
    return dict(id='1', source=source, target=target, source_words=[list(o) for o in split_words(source)], target_words=[list(o) for o in split_words(target)],
                alignments=[list(o) for o in alignments], entities=[dict(start=source.index(e), end=source.index(e) + len(e), label='X') for e in entities]) | kw


def one(tok, *args, **kw): return span_pairs(Dataset.from_list([pair(*args)]), tok, **kw)[0]


def test_every_reason(tok):
    same = [(i, i) for i in range(9)]
    long = 'abcdefghijklmnopqrstuvwxyz' * 2
    for source, target, alignments, entities, reasons in [
        ('Ana sings', 'Ana canta', same, ['Ana'], []), ('Ana sings', 'Ana canta', same, ['na'], ['not whole words']), ('Ana sings', 'Ana canta', same, [' '], ['not whole words']),
        ('the one sings', 'el uno canta', same, ['the'], ['stop words']), (f'{long} sings', 'Ana canta', same, [long], ['too long']), ('Ana sings', f'{long} canta', same, ['Ana'], ['answer too long']),
        ('Ana sings', 'Ana canta', [], ['Ana'], ['not aligned']), ('Ana Lind sings', 'Ana canta Lind', [(0, 0), (1, 2), (2, 1)], ['Ana Lind'], ['scattered']),
        ('Ana Lind sings', 'Ana canta', [(0, 0), (1, 0)], ['Ana', 'Lind'], ['answer taken']), ('Ana Lind sings', 'Ana Lind canta', same, ['Ana Lind', 'Lind'], ['overlaps']),
        ('Ana sings Lind', 'Ana canta Lind', [(1, 1), (2, 2)], ['Ana', 'Lind'], ['not aligned']), ('[QUE] Ana', 'Ana', same, ['Ana'], ['[QUE] in the text'])]:
        r = one(tok, source, target, alignments, entities)
        assert r['lost'] == reasons and len(r['questions']) == len(entities) - len(reasons), source
        assert r['masked'].count(QUE) == len(r['questions']) + source.count(QUE)


def test_borders_and_text(tok):
    "Quotes and points around an entity stay; the answer may move and take an unlinked word along"
    r = one(tok, 'So «Ana Lind», then.', 'luego, Lind de Ana.', [(0, 0), (1, 3), (2, 1)], ['«Ana Lind»,'])
    q, = r['questions']
    assert r['masked'] == f'So «{QUE}», then.' and (q['text'], q['answer']) == ('Ana Lind', 'Lind de Ana')
    assert r['target'][q['answer_start']:q['answer_end']] == q['answer']


def test_borders_and_counts():
    "Statistics of three pairs, by hand"
    asked = lambda n: [dict(start=k, end=k + 1, text='x', label='X', answer_start=k, answer_end=k + 1, answer='y') for k in range(n)]
    rows = [dict(id=str(k), source='x' * 5, target='y' * 5, masked='', questions=asked(n), lost=lost)
            for k, (n, lost) in enumerate([(3, ['too long']), (0, ['too long', 'overlaps']), (1, []), (0, [])])]
    spans = Dataset.from_list(rows)
    assert span_statistics(spans).to_dict() == {
        'pairs': 4, 'with a question': 2, 'share with a question': .5, 'entities': 7, 'questions': 4, 'questions per pair': 1.,
        'most in a pair': 3, 'lost: too long': 2, 'lost: overlaps': 1}
    other = Dataset.from_list([r | dict(questions=[q | dict(answer_end=9) if q['start'] else q for q in r['questions']][:2]) for r in rows])
    assert answer_precision(other, spans) == dict(precision=2 / 3, recall=.5, answer=2 / 3, questions=3)


def test_side_by_side_pairs_of_the_laboratory(lab, tok):
    "News in seven of ten, other events in the rest, the same English for every language"
    r, n = rng(lab.seed, 'span pairs', 'span pairs'), 30
    wanted = [lab.sentence(report(lab.names, r) if r.random() < .7 else World(r, lab.names).event(), 'en').text for _ in range(n)]
    one, other = (lab_pairs(lab, lang, n) for lang in lab.langs[1:3])
    assert one['source'][:] == other['source'][:] == wanted and (one['id'][0], other['id'][29]) == (f'{lab.langs[1]}-000000', f'{lab.langs[2]}-000029')
    for pair, r in zip(one, span_pairs(one, tok)):
        assert {(q['start'], q['end'], q['label']) for q in r['questions']} <= {(e['start'], e['end'], e['label']) for e in pair['entities']}
    assert any(q['text'] for r in span_pairs(one, tok, most=1) for q in r['questions'])
    assert span_pairs(one, tok, part=1).to_list() == span_pairs(one, tok).to_list()
    bare, gold = one.remove_columns(['source_words', 'target_words', 'alignments']), iter(one['alignments'][:])
    assert span_pairs(bare, tok, lambda s, t: [[tuple(a) for a in next(gold)] for _ in s]).to_list() == span_pairs(one, tok).to_list()
    for wrong in (dict(part=0), dict(most=0)):
        with pytest.raises(XlnbError, match='at least 1'): span_pairs(one, tok, **wrong)


def test_the_laboratory_projects_all_its_entities(lab, tok):
    for lang in lab.langs[1:]:
        pairs = lab_pairs(lab, lang, 60)
        spans = span_pairs(pairs, tok, most=40)
        stats = span_statistics(spans)
        assert stats['questions'] >= .95 * stats['entities'] > 0
        assert answer_precision(spans, spans)['precision'] == 1
        for r in spans:
            assert [q['answer'] for q in r['questions']] == [r['target'][q['answer_start']:q['answer_end']] for q in r['questions']]


def test_a_stopped_run_goes_on(lab, tok, tmp_path):
    pairs = lab_pairs(lab, lab.langs[1], 50)
    calls = []
    def counted(s, t): calls.append(len(s)); return align_words(s, t)
    whole = span_pairs(pairs, tok, counted)
    class Stop(Exception): pass
    class Finder:
        name, left = 'f', 3
        def __init__(self): self.find = CapitalEntities(pairs['source'][:])
        def __call__(self, texts):
            if not Finder.left: raise Stop
            Finder.left -= 1
            return self.find(texts)
    with pytest.raises(Stop): span_pairs(pairs, tok, counted, Finder(), out=tmp_path/'a', part=10)
    assert sorted(p.name for p in (tmp_path/'a').iterdir() if p.suffix != '.lock') == ['alignments.parquet', 'pairs.json', *(f'part-0000{i}.parquet' for i in range(3))]
    Finder.left, n = 9, len(calls)
    again = span_pairs(pairs, tok, counted, Finder(), out=tmp_path/'a', part=10)
    assert len(calls) == n and Finder.left == 7, 'neither alignments nor finished parts are made again'
    assert again.to_list() == span_pairs(pairs, tok, counted, Finder().find).to_list() and len(whole) == 50
    with pytest.raises(XlnbError, match='delete it'): span_pairs(pairs, tok, counted, Finder(), out=tmp_path/'a', part=10, most=9)
    each = span_pairs(pairs, tok, lambda s, t: calls.append(len(s)) or [[] for _ in s], together=False, part=20)
    assert calls[-3:] == [20, 20, 10] and span_statistics(each)['questions'] == 0
    with pytest.raises(XlnbError, match='a list for each'): span_pairs(pairs, tok, lambda s, t: [])


def test_a_folder_knows_who_made_it(lab, tok, tmp_path):
    "Another encoder, another function or another pipeline is another run"
    pairs, kept = lab_pairs(lab, lab.langs[1], 6), lambda **kw: span_pairs(pairs, tok, out=tmp_path/'a', **kw)
    one, two = ((load_encoder('lab'), tok) for _ in range(2))
    with torch.no_grad(): two[0].get_input_embeddings().weight.mul_(1.1)
    kept(align=partial(align_words, encoder=one))
    kept(align=partial(align_words, encoder=(load_encoder('lab'), tok)))  # the same weights
    made = json.loads((tmp_path/'a'/'pairs.json').read_text())
    assert [len(made[k]) for k in ('rows', 'functions')] == [16, 16] and (made['most'], made['part'], made['together']) == (10, 1000, True)
    for align in (partial(align_words, encoder=two), partial(align_words, encoder='lab'), partial(align_words, encoder=one, matching='itermax'), lambda s, t: [[] for _ in s], align_words):
        with pytest.raises(XlnbError, match='delete it'): kept(align=align)
    kept = lambda f: span_pairs(pairs, tok, f, out=tmp_path/'b')
    kept(lambda s, t: [[(0, 0)] for _ in s]); kept(lambda s, t: [[(0, 0)] for _ in s])
    with pytest.raises(XlnbError, match='delete it'): kept(lambda s, t: [[(0, 1)] for _ in s])


def _make(folder, n):
    "A process of its own"
    pairs = lab_pairs(Lab(), 'qal', n)
    return len(span_pairs(pairs, load_tokenizer('lab'), align_words, CapitalEntities(pairs['source'][:]), out=folder, part=10))


def test_two_processes_share_a_folder(tmp_path):
    "One makes the parts, the other waits and reads them"
    with ProcessPoolExecutor(2, multiprocessing.get_context('spawn')) as pool: sizes = list(pool.map(_make, [tmp_path/'a'] * 2, [60] * 2))
    assert sizes == [60, 60] and len([*(tmp_path/'a').glob('part-*.parquet')]) == 6


def test_entities_in_batches():
    seen = []
    nlp = SimpleNamespace(pipe=lambda texts, batch_size: seen.append(batch_size) or [SimpleNamespace(ents=[SimpleNamespace(start_char=0, end_char=1, label_='A')]) for _ in texts])
    assert SpacyEntities(nlp, 7)(['a', 'b']) == [[(0, 1, 'A')]] * 2 and seen == [7]
    assert CapitalEntities([])(['Ana', '7 a']) == [[], [(0, 1, 'NUMBER')]]


def test_a_pipeline_of_spacy_on_disk(tmp_path):
    "The real loading and the real pipe, with rules in place of a model that would have to be downloaded"
    spacy = pytest.importorskip("spacy", reason="spaCy is an extra: pip install 'xlnb[ner]'")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns([dict(label="PERSON", pattern="Ana Lima"), dict(label="GPE", pattern="Porto")])
    nlp.to_disk(tmp_path / "rules")
    find = SpacyEntities(str(tmp_path / "rules"))
    text = "In Porto, Ana Lima sings."
    assert [[text[a:b] for a, b, _ in o] for o in find([text, "Nobody."])] == [["Porto", "Ana Lima"], []]
    pair = dict(id="0", source=text, target="Em Porto canta Ana Lima.", source_words=[(0, 2), (3, 8), (10, 13), (14, 18), (19, 24)], target_words=[(0, 2), (3, 8), (9, 14), (15, 18), (19, 23)], alignments=[(1, 1), (2, 3), (3, 4), (4, 2)])
    row, = span_pairs([pair], load_tokenizer("lab"), find=find)
    assert row["masked"] == f"In {QUE}, {QUE} sings." and [(q["answer"], q["label"]) for q in row["questions"]] == [("Porto", "GPE"), ("Ana Lima", "PERSON")]


# ---------------------------------------------------------------- inputs

def test_queries_side_by_side(tok, mlm):
    q = add_query(tok)
    r = pair('Ana, Lind Oslo sings', 'Oslo Ana Lind canta', [(0, 1), (1, 2), (2, 0)], ['Ana', 'Lind', 'Oslo'])
    spans = span_pairs(Dataset.from_list([r]), tok)
    assert spans[0]['masked'] == '[QUE], [QUE] [QUE] sings'
    f, = span_inputs(spans, tok)
    assert [f['input_ids'][p] for p in f['queries']] == [q] * 3 and f['queries'] == sorted(f['queries'])
    offs = tok(r['target'], add_special_tokens=False, return_offsets_mapping=True)['offset_mapping']
    said = [r['target'][offs[s - f['target'][0]][0]:offs[e - f['target'][0]][1]].strip() for s, e in zip(f['starts'], f['ends'])]
    assert said == ['Ana', 'Lind', 'Oslo'] and f['input_ids'] == tok(spans[0]['masked'], r['target'])['input_ids']
    assert f['plain'] == tok(r['source'])['input_ids']


def test_cut_questions_are_not_asked(lab, tok):
    q = add_query(tok)
    spans = span_pairs(lab_pairs(lab, lab.langs[-1], 80), tok)
    full = {f['row']: f for f in span_inputs(spans, tok, 512, empty=True)}
    for n in (12, 16, 24, 40):
        for f in span_inputs(spans, tok, n, empty=True):
            g = full[f['row']]
            assert f['length'] <= n and len(f['plain']) <= n // 2 and len(f['queries']) == len(f['starts']) == len(f['ends']) <= len(g['queries'])
            for p, s, e in zip(f['queries'], f['starts'], f['ends']):
                assert f['input_ids'][p] == q and f['source'][0] <= p < f['source'][1] and f['target'][0] <= s <= e < f['target'][1]
                k = g['queries'].index(p) # what is left asks for the same pieces
                assert f['input_ids'][s:e + 1] == g['input_ids'][g['starts'][k]:g['ends'][k] + 1]
    with pytest.raises(XlnbError, match='no room'): span_inputs(spans, tok, 6)


@pytest.mark.parametrize('init', ['mask', 'mean'])
def test_a_new_token(init):
    tok, model = load_tokenizer('lab'), load_encoder('lab')
    old, n = model.get_input_embeddings().weight.detach().clone(), len(tok)
    assert add_query(tok, model, init) == n == add_query(tok, model, init) and len(tok) == n + 1
    new = model.get_input_embeddings().weight
    assert len(new) == len(old) + 1 and (new[:len(old)] == old).all()
    assert np.allclose(new[n].detach(), old[tok.mask_token_id] if init == 'mask' else old.mean(0))
    assert model(**tok('[QUE] sings', return_tensors='pt')).logits.shape[-1] == n + 1 and model.config.vocab_size == n + 1
    with pytest.raises(XlnbError, match='init'): add_query(tok, model, 'zero')


@pytest.mark.parametrize('init', ['mask', 'mean'])
def test_a_row_to_spare_gets_the_new_token(init):
    "Vocabularies are padded in some checkpoints, so the embeddings may have room already"
    tok, model = load_tokenizer('lab'), load_encoder('lab')
    model.resize_token_embeddings(len(tok) + 8)
    old, n = model.get_input_embeddings().weight.detach().clone(), len(tok)
    add_query(tok)
    assert add_query(tok, model, init) == n and model.get_input_embeddings().num_embeddings == n + 8
    new = model.get_input_embeddings().weight.detach()
    assert np.allclose(new[n], old[tok.mask_token_id] if init == 'mask' else old[:n].mean(0), atol=1e-6) and (new[:n] == old[:n]).all() and (new[n + 1:] == old[n + 1:]).all()
    give_pointer(model, tok)
    with torch.no_grad(): model.get_input_embeddings().weight[n] = 7  # as if trained
    add_query(tok, model, init)
    assert (model.get_input_embeddings().weight[n] == 7).all()


def test_a_sample_to_look_at(lab, tok):
    spans = span_pairs(lab_pairs(lab, lab.langs[1], 30), tok)
    page = show_spans(spans, 3).to_html()
    assert page == show_spans(spans, 3).to_html() and page.count('<mark>') >= 6 and '<script' not in page

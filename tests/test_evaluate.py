"""Decoding and item scores agree with the packages that define the metrics; controls and models give the same kind of items."""
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings, strategies as st
from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from torchmetrics.functional.text import squad
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM
from types import SimpleNamespace

from xlnb.evaluation.predict import (decode, evaluate_model, item_scores, majority_control, tfidf_control)
from xlnb.data.kinds.spans import normal_answer
from xlnb.core import XlnbError
from xlnb.evaluation.statistics import METRICS, metric_of, score_table
from xlnb.data.tasks import own_task

FAST = settings(max_examples=40, deadline=None)
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
NER = SimpleNamespace(name="ner", kind="tags", labels=TAGS)
QA = SimpleNamespace(name="qa", kind="span", labels=())


@FAST
@given(st.lists(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8), min_size=1, max_size=6))
def test_entity_f1_is_that_of_seqeval(sentences):
    gold, pred = ([[TAGS[t[k]] for t in s] for s in sentences] for k in (0, 1))
    items = item_scores(NER, pd.DataFrame(dict(id=range(len(gold)), tags=[[t[0] for t in s] for s in sentences])), pred)
    with np.errstate(all="ignore"):
        expected = f1_score(gold, pred, mode="strict", scheme=IOB2, zero_division=0)
    assert METRICS["entity F1"](items) == pytest.approx(expected)


words = st.lists(st.sampled_from("the a red Door, door. ΠΟΡΤΑ 门 Tür".split()), max_size=5).map(" ".join)


@FAST
@given(st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=5))
def test_span_scores_are_those_of_torchmetrics(cases):
    # of two empty answers torchmetrics says F1 1, the official script 0
    cases = [(p if normal_answer(p) else f"{p} floor", [g if normal_answer(g) else f"{g} wall" for g in gs]) for p, gs in cases]
    answers = [dict(text=g, answer_start=[0] * len(g)) for _, g in cases]
    items = item_scores(QA, pd.DataFrame(dict(id=range(len(cases)), answers=answers)), [p for p, _ in cases])
    whole = squad([dict(prediction_text=p, id=str(i)) for i, (p, _) in enumerate(cases)], [dict(answers=a, id=str(i)) for i, a in enumerate(answers)])
    assert 100 * METRICS["F1"](items) == pytest.approx(float(whole["f1"]), abs=1e-3)
    assert 100 * METRICS["exact match"](items) == pytest.approx(float(whole["exact_match"]), abs=1e-3)


@FAST
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_span_is_the_best_pair_in_order(seed, n):
    rng = np.random.default_rng(seed)
    start, end = rng.normal(size=(2, n + 2))
    offsets = [[-1, -1], *[[2 * i, 2 * i + 1] for i in range(n)], [-1, -1]]
    context = " ".join(map(chr, range(0x4e00, 0x4e00 + n)))
    best = max(((s, e) for s in range(1, n + 1) for e in range(s, min(n + 1, s + 30))), key=lambda p: start[p[0]] + end[p[1]])
    got = decode(QA, [(start, end)], [dict(row=0, offsets=offsets)], [dict(context=context)])
    assert got == [context[offsets[best[0]][0]:offsets[best[1]][1]]]


def test_cut_words_are_outside_and_words_without_pieces_do_not_shift():
    logits = np.eye(5)[[0, 1, 2, 0]]
    rows = [dict(tokens=["Ada", "King", "wrote"])]
    assert decode(NER, [logits], [dict(row=0, labels=[-100, 1, 2, -100])], rows) == [["B-PER", "I-PER", "O"]]
    assert decode(NER, [logits], [dict(row=0, labels=[-100, 1, 2, -100], words=[0, 2])], rows) == [["B-PER", "O", "I-PER"]]


def test_order_of_features_does_not_matter():
    task = SimpleNamespace(name="t", kind="pair", labels=("a", "b"))
    assert decode(task, [[0, 1.], [1., 0]], [dict(row=1), dict(row=0)], [{}, {}]) == [0, 1]


@pytest.mark.parametrize("call, says", [
    (lambda: decode(NER, [], [dict(row=0)], [{}]), "same features"),
    (lambda: decode(SimpleNamespace(kind="essay"), [], [], []), "the kinds are"),
    (lambda: decode(SimpleNamespace(kind="pair"), [[1, 0]], [dict(row=1)], [{}, {}]), "train=False"),
    (lambda: item_scores(QA, pd.DataFrame(dict(id=["1"], answers=[{}])), []), "every row once"),
    (lambda: item_scores(SimpleNamespace(name="t", kind="pair", labels=("a",)), pd.DataFrame(dict(id=["1"], label=[4])), [0]), "check the data"),
    (lambda: tfidf_control(QA), "sentence or pair"),
])
def test_bad_input_names_the_fix(call, says):
    with pytest.raises(XlnbError, match=says): call()


# ---- every kind of task, end to end, with a tiny encoder of random weights
TEXT = "the red door is open", "a blue house is closed", "the old bridge is long", "a new road is short"


def _rows(kind):
    for i, t in enumerate(TEXT):
        w = t.split()
        yield dict(id=f"r{i}") | dict(
            sentence=dict(text=t, label="yes" if i % 2 else "no"), pair=dict(text_a=t, text_b=TEXT[-1 - i], label="yes" if i % 2 else "no"),
            choice=dict(premise=t, question="cause", choices=[w[1], w[2]], label=i % 2), span=dict(question="which one?", context=t, answers=dict(text=[w[2]], answer_start=[t.index(w[2])])),
            tags=dict(tokens=w, tags=["O", "B-X", "I-X", "O", "O"]), cloze=dict(text="the {mask} is open", choices=[w[1], w[2]], label=i % 2))[kind]


@pytest.fixture(scope="module")
def tiny():
    from xlnb.training.pretraining import train_tokenizer
    tok = train_tokenizer(TEXT * 5, vocab_size=60)
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(tok), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                              pad_token_id=tok.pad_token_id, max_position_embeddings=140)
    return tok, XLMRobertaForMaskedLM(config)


@pytest.mark.parametrize("kind", ["sentence", "pair", "choice", "span", "tags", "cloze"])
def test_every_kind_end_to_end(tiny, kind):
    from xlnb.models.heads import with_head
    tok, encoder = tiny
    data = {l: {"test": list(_rows(kind))} for l in ("en", "de")}
    task = own_task(f"tiny-{kind}", kind, data, **(dict(labels=("O", "B-X", "I-X")) if kind == "tags" else dict(labels=("no", "yes")) if kind in ("sentence", "pair") else {}))
    items = evaluate_model(task, with_head(encoder, task), tok)
    assert [*items.columns[:5]] == ["task", "lang", "id", "label", "prediction"] and len(items) == 8
    assert metric_of(items) == metric_of(task)
    a, b = (g.drop(columns="lang").reset_index(drop=True) for _, g in items.groupby("lang", sort=False))
    pd.testing.assert_frame_equal(a, b)   # the same rows score the same whatever the language is called


def test_controls_stand_beside_a_model(tiny):
    from xlnb.models.heads import with_head
    tok, encoder = tiny
    data = {l: {s: list(_rows("pair")) for s in ("train", "test")} for l in ("en", "de")}
    task = own_task("tiny-controls", "pair", data, labels=("no", "yes"))
    x = pd.concat([majority_control(task), tfidf_control(task), tfidf_control(task, only_second=True),
                   evaluate_model(task, with_head(encoder, task), tok).assign(encoder="tiny", recipe="none", seed=0)])
    with pytest.warns(UserWarning, match="one seed only"): t = score_table(x, draws=50)
    assert t.shape[1] == 4
    assert x[x.recipe == "majority"].correct.mean() == .5
    assert x[x.recipe == "tf-idf"].correct.mean() == 1   # it has seen these very rows

"""What is recorded beside scores, on the laboratory's encoder"""
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from xlnb.core import XlnbError
from xlnb.data.tasks import get_task
from xlnb.evaluation.probabilities import (calibration, calibration_measure, label_probabilities, probability_change,
                                           probability_change_measure)
from xlnb.evaluation.retrieval import alignment_error_measure, retrieval_measure
from xlnb.models.encoders import load_encoder, load_tokenizer
from xlnb.models.heads import with_head
from xlnb.training.stage import Budget


def cell(task, model, start, langs=("en", "qal")):
    return SimpleNamespace(cell=SimpleNamespace(task=get_task(task), langs=langs, data=None), ctx=SimpleNamespace(budget=Budget(eval_examples=24)),
                           tokenizer=load_tokenizer("lab"), model=model, start=lambda: start)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 40))
def test_calibration_bounds(seed, labels, n):
    r = np.random.default_rng(seed)
    p, y = list(r.dirichlet(np.ones(labels), n)), r.integers(0, labels, n)
    found = calibration(p, y)
    assert abs(found["confidence"] - found["accuracy"]) - 1e-9 <= found["ece"] <= 1
    assert calibration(p, [o.argmax() for o in p])["accuracy"] == 1
    shuffled = r.permutation(n)
    again = calibration([p[i] for i in shuffled], y[shuffled])
    assert all(abs(found[k] - again[k]) < 1e-9 for k in found)


@pytest.mark.parametrize("name", ["lab-inference", "lab-choice", "lab-probe"])
def test_probabilities_of_every_kind_with_one_label(name):
    task = get_task(name)
    rows = task.load("qal", "test", limit=12)
    p = label_probabilities(task, with_head("lab", task), load_tokenizer("lab"), rows, Budget())
    assert len(p) == 12 and all(abs(o.sum() - 1) < 1e-6 and (o >= 0).all() for o in p)
    assert probability_change(p, p) == dict(change=0, flipped=0)


def test_a_model_that_stays_has_not_moved_and_one_that_moves_has():
    task = get_task("lab-inference")
    start, moved = with_head("lab", task), with_head("lab", task)
    with torch.no_grad(): moved.classifier.out_proj.bias[1] += 5
    still = probability_change_measure(cell("lab-inference", start, start))
    far = probability_change_measure(cell("lab-inference", moved, start))
    assert {r["lang"] for r in still} == {"en", "qal"} and all(r["value"] == 0 for r in still)
    assert all(r["value"] > .2 for r in far if r["measure"] == "probability_change")
    assert {r["measure"] for r in calibration_measure(cell("lab-inference", moved, start))} == {"ece", "confidence", "nll"}
    with pytest.raises(XlnbError, match="leave this measure out"): calibration_measure(cell("lab-tags", with_head("lab", get_task("lab-tags")), None))


def test_a_ruined_encoder_finds_no_translations():
    task = get_task("lab-inference")
    good, bad = with_head("lab", task), with_head("lab", task)
    with torch.no_grad(): bad.get_input_embeddings().weight.normal_(generator=torch.Generator().manual_seed(0))
    at = lambda rows: {r["at"]: r["value"] for r in rows if r["lang"] == "qal"}
    found, aer = at(retrieval_measure(cell("lab-inference", bad, good))), at(alignment_error_measure(cell("lab-inference", bad, good)))
    assert found["end"] < found["start"] and aer["end"] > aer["start"]
    with pytest.raises(XlnbError, match="no gold alignment"): alignment_error_measure(cell("xnli", good, good))


def test_a_study_records_them(tmp_path):
    from xlnb.study.cell import Cell, run_cell
    from xlnb.study.recipe import recipe
    few = Cell(get_task("lab-inference"), "lab", recipe("finetune(epochs=1)"), 0, Budget(train_examples=32, eval_examples=8), ("en", "qal"))
    names = ["retrieval", "alignment_error", "calibration", "probability_change"]
    measures = run_cell(few, tmp_path, measures=names)[1]["measures"]
    assert set(measures) == set(names) and all(measures.values())
    assert any(r["value"] > 0 for r in measures["probability_change"] if r["measure"] == "probability_change")

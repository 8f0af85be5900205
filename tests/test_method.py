"""A new method in one file: a frozen dataclass with stages is all that a recipe, a study and a store ask for."""
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from xlnb.core import XlnbError, option
from xlnb.data.kinds.base import collator, featurize
from xlnb.evaluation.predict import validation
from xlnb.study.grid import Study
from xlnb.study.recipe import METHODS, recipe
from xlnb.training.losses import Objective, output_loss, weighted
from xlnb.training.stage import Budget, Method, Stage, Tuning


class Flat(Objective):
    "The loss of the task, and class scores kept small by a learnt factor for each class"
    def __init__(self, classes, weight):
        super().__init__()
        self.factor, self.weights = torch.nn.Parameter(torch.ones(classes)), dict(task=1.0, flat=weight)

    def forward(self, model, batch):
        out = model(**batch)
        parts = dict(task=output_loss(out, batch), flat=(self.factor * out.logits).pow(2).mean())
        return weighted(parts, self.weights), parts


@dataclass(frozen=True)
class FlatTuning(Tuning):
    "Fine-tuning that keeps class scores small"
    flat: float = option(0.1, least=0)
    name: ClassVar[str] = "flat"

    def stages(self, model, ctx):
        data = featurize(ctx.task, ctx.rows("train"), ctx.tokenizer, ctx.budget.max_length, train=True)
        yield Stage("flat", data, collator(ctx.task, ctx.tokenizer), Flat(model.config.num_labels, self.flat),
                    extra=dict(rows=len(data)), **self.training(model, ctx, len(data)), **validation(ctx, self.select))


@pytest.fixture(autouse=True)
def registered(monkeypatch): monkeypatch.setitem(METHODS, "flat", FlatTuning)


def test_it_runs_in_a_study(tmp_path, monkeypatch):
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path / "cache"))
    budget = Budget(train_examples=48, eval_examples=12)
    study = Study("lab-inference", "lab", ["flat(steps=3,flat=0.5)", "finetune(steps=3)"], 1, budget, langs=["qal"], store=tmp_path / "runs")
    study.run(progress=False)
    assert study.failed == {} and study.cells().state.tolist() == ["stored", "stored"]
    (_, info), _ = study.finished()
    stage = next(s for s in info["stages"] if s["method"] == "flat")
    assert stage["extra"] == {"rows": 48} and stage["steps"] == 3 and {"task", "flat"} <= stage["history"][0].keys()
    assert stage["precision"] == "fp32" or torch.cuda.is_available()
    assert stage["attention"] in ("sdpa", "eager") and stage["stopped"] == ""


def test_its_options_are_checked_once():
    assert isinstance(FlatTuning(), Method) and recipe("flat(flat=0.2,lr=1e-4)").during == FlatTuning(flat=0.2, lr=1e-4)
    with pytest.raises(XlnbError, match="flat: flat must be at least 0, not -1"): FlatTuning(flat=-1)
    with pytest.raises(XlnbError, match="flat: lr must be above 0"): recipe("flat(lr=-1.0)")
    with pytest.raises(XlnbError, match="precision='bf61' is unknown: did you mean 'bf16'"): FlatTuning(precision="bf61")


def test_what_a_method_does_not_say_has_a_default(tmp_path):
    m = FlatTuning()
    assert (m.slot, m.shared, m.snapshots, m.needs(None), m.fingerprint(None), m.measures()) == ("during", False, 0, [], None, ())
    with pytest.raises(NotImplementedError, match="must define stages"): next(iter(Method().stages(None, None) or ()))


def test_plain_recipes_hold_every_method_once():
    "Baselines of a method are left out; an option that is called like the flag of a class changes nothing"
    from xlnb.study.recipe import plain_recipes
    names = {m.name for r in plain_recipes() for m in r.methods}
    assert {"finetune", "salt", "alsace", "mmkd", "clism", "averaging"} <= names and "pointer" not in names

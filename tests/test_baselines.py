"""Baselines that a reviewer expects: TF-IDF, random weights, translated training rows, averages of runs, an oracle."""
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from datasets import Dataset

from test_study import FEW, PLAIN, encoder, small  # noqa: F401  fixtures
from xlnb.core import XlnbError
from xlnb.data.tasks import Task, get_task
from xlnb.evaluation.predict import evaluate_model, tfidf_control
from xlnb.evaluation.statistics import compare, scores
from xlnb.methods.averaging import Averaging, mean_state
from xlnb.methods.translate import TranslateTrain, own_language
from xlnb.models.encoders import load_encoder
from xlnb.study.cell import CellRun, encoder_label
from xlnb.study.grid import Study
from xlnb.study.prefixes import Prefixes
from xlnb.study.recipe import recipe
from xlnb.study.verify import verify
from xlnb.training.schedule import Budget


def test_tfidf_is_a_recipe(small, tmp_path):  # noqa: F811
    study = small(recipes=[PLAIN, "tfidf"], measures=["cost", "calibration"], prefixes=Prefixes(tmp_path / "cache")).run(progress=False)
    items = study.items()
    own = items[(items.recipe == "tfidf") & (items.seed == 1)]
    direct = tfidf_control(study.tasks[0], ("en", "qal"), budget=study.budgets[0])
    assert own.prediction.tolist() == direct.prediction.tolist() and own.id.tolist() == direct.id.tolist()
    assert len(compare(items, baseline="tfidf")) and len(study.prefixes.keys()) == 2   # no model of the control is kept
    told = {i["cell"]["recipe_name"]: i for _, i in study.finished()}
    assert told["tfidf"]["parameters"] == 0 and "without a model" in told["tfidf"]["refused"]["calibration"]["why"]
    assert set(verify(study, 4, progress=False).outcome) == {"equal"}
    with pytest.raises(XlnbError, match="'random:' before the name"):
        Study("lab-tags", small().encoders, "tfidf", 1, store=tmp_path / "x", **{k: v for k, v in FEW.items() if k != "recipes"}).run(progress=False)


def test_another_draw_of_rows_is_another_control():
    task = get_task("lab-inference")
    a, b = (tfidf_control(task, ("en",), budget=Budget(train_examples=60, eval_examples=60, sample=s)) for s in (0, 1))
    assert a.prediction.tolist() != b.prediction.tolist()


def test_random_weights_are_another_encoder(small, encoder):  # noqa: F811
    name = f"random:{encoder}"
    new, trained = load_encoder(name), load_encoder(encoder)
    state, known = new.state_dict(), trained.state_dict()
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in known.items()}
    assert not torch.equal(new.get_input_embeddings().weight, trained.get_input_embeddings().weight)
    torch.manual_seed(7)
    assert torch.equal(load_encoder(name).get_input_embeddings().weight, new.get_input_embeddings().weight)
    assert encoder_label(name) == "random:tiny"
    study = small(encoders=[encoder, name], seeds=1).run(progress=False)
    assert len({c.key() for c in study.grid}) == 2 and {*study.items().encoder} == {"tiny", "random:tiny"}


def local_copy(folder, langs, train):
    "A folder as the Hub has it: a config per language, a train split where there is one"
    lab, configs = get_task("lab-inference"), ""
    for l in langs:
        configs += f"- config_name: {l}\n  data_files:\n"
        for split in ("train", "validation", "test"):
            if split == "train" and l not in train: continue
            rows = lab.load(l, split, limit=60)
            (folder / "nli" / l).mkdir(parents=True, exist_ok=True)
            Dataset.from_dict(dict(premise=rows["text_a"][:], hypothesis=rows["text_b"][:], label=rows["label"][:])).cast_column(
                "label", rows.features["label"]).to_parquet(folder / "nli" / l / f"{split}-00000-of-00001.parquet")
            configs += f"  - split: {split}\n    path: {l}/{split}-*\n"
    (folder / "nli" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return Task("translated-nli", "pair", lab.labels, langs, path="somebody/nli", columns=dict(text_a="premise", text_b="hypothesis"))


def test_translated_rows_of_a_local_copy(small, tmp_path):  # noqa: F811
    langs = ("en", "qal", "qcy")
    task = local_copy(tmp_path, langs, train=langs)
    few = dict(encoders=small().encoders, seeds=1, budget=Budget(train_examples=40, eval_examples=20, max_length=48), data=tmp_path, store=tmp_path / "runs")
    arms = [PLAIN, "translate_train(epochs=1)", "translate_train(epochs=1,source=True)", "translate_train(epochs=1,langs=qal)"]
    study = Study(task, recipes=arms, **few).run(progress=False)
    infos = [i for _, i in study.finished()]
    assert {i["stages"][0]["steps"] for i in infos} == {3}   # 40 rows in batches of 16, whatever is read
    assert len({c.key() for c in study.grid}) == 4 and [bool(i["cell"]["reads"]) for i in infos] == [False, True, True, True]
    assert len(own_language(study.items(), dict(qal=recipe(arms[3])))) == 20
    with pytest.raises(XlnbError, match="no items of the recipe .translate_train"): own_language(study.items(), dict(qcy=recipe("translate_train(langs=qcy)")))
    lacking = local_copy(tmp_path / "other", langs, train=("en", "qal"))
    with pytest.raises(XlnbError, match="no train split for Cyra.*there: validation, test.*facebook/xnli"):
        Study(lacking, recipes=arms[1], **few | dict(data=tmp_path / "other", store=tmp_path / "b")).run(progress=False)


def test_translated_rows_decide_the_key(small):  # noqa: F811
    cell = replace(small().grid[0], recipe=recipe("translate_train"))
    other = lambda lang, split: cell.task.loader(lang, split).map(lambda r: {"label": (r["label"] + (lang == "qal" and split == "train")) % 3})
    assert replace(cell, task=replace(cell.task, loader=other)).key() != cell.key()
    plain = replace(cell, recipe=recipe("finetune"))
    assert replace(plain, task=replace(plain.task, loader=other)).key() == plain.key()
    assert TranslateTrain(langs=("de", "fr"), source=True).languages("en", ("en", "sw")) == ("en", "de", "fr")


def test_runs_that_exist_all_and_leaving_one_out(small, tmp_path, monkeypatch):  # noqa: F811
    plain, cache = "finetune(epochs=1,head_seed=0)", Prefixes(tmp_path / "cache")
    small(recipes=plain, seeds=3, prefixes=cache).run(progress=False)
    monkeypatch.setattr("xlnb.training.stage.StageTrainer.train", lambda *a, **kw: pytest.fail("trained again"))
    with pytest.warns(UserWarning, match="leave out one of 3 runs each"):
        out = small(recipes=f"{plain}+averaging(runs=3,leave_out=True)", seeds=3, prefixes=cache).run(progress=False)
    every = small(recipes=f"{plain}+averaging(runs=3)", seeds=[0], prefixes=cache).run(progress=False)
    assert not out.failed and not every.failed
    states = [CellRun(c, tmp_path / "x", prefixes=cache).made(1)[0].state_dict() for c in small(recipes=plain, seeds=3).grid]
    made = CellRun(out.grid[1], tmp_path / "y", prefixes=cache)
    made.finish()
    mean = mean_state([states[0], states[2]])
    assert all(torch.allclose(v, mean[k], atol=1e-6) for k, v in made.model.state_dict().items())


def test_an_oracle_chooses_among_snapshots(small, tmp_path, monkeypatch):  # noqa: F811
    cache = Prefixes(tmp_path / "cache")
    study = small(recipes="finetune(epochs=3,lr=3e-3)", seeds=1, measures=["oracle_snapshots"], prefixes=cache).run(progress=False)
    rows = study.measures_table("oracle_snapshots").set_index(["measure", "lang"]).value
    run = CellRun(study.grid[0], tmp_path / "out", prefixes=cache, snapshots=3)
    monkeypatch.setattr("xlnb.training.stage.StageTrainer.train", lambda *a, **kw: pytest.fail("trained again"))
    run.finish()
    score = lambda state, split, n: (run.model.load_state_dict(state), scores(evaluate_model(
        run.cell.task, run.model, run.tokenizer, run.cell.langs, split, replace(run.ctx.budget, eval_examples=n))).set_index("lang").score)[1]
    states = [*run.snapshots(3)]
    seen = pd.concat([score(s, "validation", 200) for s in states], axis=1)
    test = pd.concat([score(s, "test", 20) for s in states], axis=1)
    for lang in run.cell.langs:
        i = int(rows["oracle snapshot", lang]) - 1
        assert seen.loc[lang].iloc[i] == seen.loc[lang].max() and rows["oracle", lang] == test.loc[lang].iloc[i]
    assert study.cells().key[0] == small(recipes="finetune(epochs=3,lr=3e-3)", seeds=1).cells().key[0]   # no label of it is in the plain cell

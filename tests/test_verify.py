"""Stored results still come out: verification, pages and their stores, twenty steps on any machine."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student
from test_study import encoder, small  # noqa: F401  fixtures

from xlnb.core import XlnbError
from xlnb.data.tasks import get_task, lab_task
from xlnb.lab.grammar import drawn_family
from xlnb.lab.worlds import Lab
from xlnb.models.encoders import load_tokenizer
from xlnb.models.heads import with_head
from xlnb.study.grid import Study
from xlnb.evaluation.statistics import simulated_items
from xlnb.study.store import Store, without_texts
from xlnb.study.verify import chance_difference, check_store, compared, compared_measure, seed_spread, verify
from xlnb.training.schedule import Budget
from xlnb.training.stage import Context, run_stage
from xlnb.methods.finetune import FineTune

STORED = Path(__file__).parent / "sgd_losses.json"


def test_outcomes(small):  # noqa: F811
    study = small().run(progress=False)
    assert verify(study, 1, progress=False).outcome.tolist() == ["equal"]
    file = study.store.files()[0]
    items, info = study.store.read(file)
    study.store.write(file, items, info | dict(code=info["code"] | {"xlnb.training.stage": "earlier"}))
    table = verify(study, 2, progress=False)
    assert table.outcome.tolist() == ["equal", "equal"] and "training.stage" in table.caption
    table = verify(study, 2, stamp=True, progress=False)
    stamps = study.store.read(file)[1]["stamps"]
    assert (
        "1 cells stamped anew" in table.caption
        and stamps[0]["code"]["xlnb.training.stage"] == "earlier"
        and stamps[0]["sample"] == 2
    )
    assert study.cells().state.tolist() == ["stored", "stored"]
    study.store.write(file, items.assign(correct=1 - items.correct), info)
    assert "differs" in verify(study, 2, stamp=True, progress=False).outcome.tolist()
    file.write_bytes(file.read_bytes()[:-20])
    assert "corrupted" in verify(study, 1, progress=False).outcome.tolist()


def test_on_another_machine_the_spread_decides(small):  # noqa: F811
    items = small().run(progress=False).items()
    old = items[items.seed == 0]
    new = old.assign(correct=old.correct.where(old.id != old.id.iloc[0], 1 - old.correct))
    score = old.groupby("lang").correct.mean()
    assert compared(old, new, True, None)[0] == "differs"
    assert compared(old, new, False, None)[0] == "one seed"
    assert compared(old, new, False, score * 0 + 0.5)[0] == "within the spread"
    assert compared(old, new, False, score * 0)[0] == "differs"


def test_how_far_chance_goes():
    "sqrt(2) t s, with the error shared by the languages; of few seeds the other recipes beside the cell count too"
    runs = [pd.Series(dict(en=0.1, de=0.5)), pd.Series(dict(en=0.3, de=0.5)), pd.Series(dict(en=0.5, de=0.5))]
    far = chance_difference([runs])
    assert np.isclose(far["en"], np.sqrt(2) * 0.2 * student.ppf(1 - 0.05 / 4, 2)) and far["de"] == 0
    pooled = chance_difference([runs, [runs[0], runs[0]]])  # variances 0.04 with two degrees of freedom and 0 with one
    assert np.isclose(pooled["en"], np.sqrt(2 * 0.08 / 3) * student.ppf(1 - 0.05 / 4, 3))
    assert chance_difference([runs[:1], runs[:1]]) is None
    assert np.isclose(chance_difference([runs], level=0.5)["en"], np.sqrt(2) * 0.2 * student.ppf(1 - 0.5 / 4, 2))


def test_seeds_of_other_recipes_count_where_there_are_few(small):  # noqa: F811
    finished = small(seeds=2).run(progress=False).finished()
    moved = [(items.assign(correct=(items.correct if i["cell"]["seed"] else 1 - items.correct)), i) for items, i in finished]
    (items, info), other = moved[0], [(x, i | dict(cell=i["cell"] | dict(recipe=["another"]))) for x, i in moved]
    series = [x.groupby("lang").correct.mean() for x, _ in moved]
    assert np.allclose(seed_spread(moved, info), chance_difference([series]))
    assert np.allclose(seed_spread(moved + other, info), chance_difference([series, series]))
    assert np.allclose(seed_spread(moved + other, info, enough=2), chance_difference([series])), "its own are enough"
    still = [(moved[0][0], i) for _, i in other]
    assert np.allclose(seed_spread(moved + still, info), chance_difference([series])), "one that never varies"
    elsewhere = [(x, i | dict(cell=i["cell"] | dict(budget="another"))) for x, i in other]
    assert np.allclose(seed_spread(moved + elsewhere, info), chance_difference([series]))


def test_a_page_and_its_store(small):  # noqa: F811
    study = small().run(progress=False)
    assert check_store(study) == []
    file = study.store.files()[0]
    items, info = study.store.read(file)
    study.store.write(file, items, info | dict(code=info["code"] | {"xlnb.core": "earlier"}))
    assert check_store(study) == ["core"]  # stale code is only said
    task = study.tasks[0]
    with pytest.raises(XlnbError, match="train_examples: 64 then, 63 now"):
        check_store(small(budget=replace(study.budgets[0], train_examples=63)))

    def one_label_off(lang, split):
        first = lambda r, i: {"label": (r["label"] + 1) % 3 if (i, split, lang) == (0, "test", "qal") else r["label"]}
        return task.loader(lang, split).map(first, with_indices=True)

    full = small(budget=Budget(eval_examples=None, train_examples=16), seeds=1, store=study.store.root / "full").run(
        progress=False
    )
    with pytest.raises(XlnbError, match="data: "):
        check_store(
            Study(replace(task, loader=one_label_off), full.encoders, full.recipes, 1, full.budgets, "qal", full.store)
        )


@pytest.mark.parametrize("root", [p for p in Path(__file__).parents[1].glob("nbs/**/store/*.zip")] or [None])
def test_published_stores(root, monkeypatch, memo={}):  # the stores share rows: each is read and hashed once
    "The cells of a published store are found by the names in their records, with data and configuration of today"
    if root is None:
        pytest.skip("no store is published yet")
    from xlnb.study.verify import stored_cell

    checkpoints = Path(__file__).parents[1] / "checkpoints"
    folders = {p.name: str(p) for p in checkpoints.glob("*-*")}
    families = {f"family-{n}": {"lab-inference": lab_task("lab-inference", Lab(n, drawn_family(n)))} for n in (1, 2)}
    monkeypatch.chdir(root.parents[1])  # a teacher's folder is named from that of the study
    for info in Store(root).infos():
        if "text=ParallelText-" in info["cell"]["recipe_name"]:
            continue  # an object that the page makes, known by its hash
        own = families.get(info["cell"]["encoder_name"])  # the tasks of another laboratory
        if info["cell"]["task"]["name"].startswith("lab-"):
            assert stored_cell(info, encoders=folders, tasks=own).key(memo) == info["key"], info["file"]


def test_published_stores_are_one_file_a_page_and_small():
    published = [p for p in Path(__file__).parents[1].glob("nbs/**/store/*") if not p.name.startswith(".")]
    records = [p for p in published if p.suffix in {".json", ".csv"}]  # of measurements that are no cells of a study
    assert published and {p.suffix for p in {*published} - {*records}} == {".zip"}
    assert sum(p.stat().st_size for p in published) <= 30e6 and all(p.stat().st_size <= 200_000 for p in records)


def test_a_packed_store(small, tmp_path):  # noqa: F811
    study = small(measures=["retrieval"]).run(progress=False)
    packed = study.store.pack(tmp_path / "runs.zip")
    page = small(store=packed.root, measures=["retrieval"])
    assert check_store(page) == [] and page.run(progress=False).cells().equals(study.cells())  # nothing is computed
    pd.testing.assert_frame_equal(page.items(), study.items())
    assert [i for _, i in page.finished()] == [i for _, i in study.finished()]
    with pytest.raises(XlnbError, match="1 of 3 cells would have to be computed.*unpack"):
        small(store=packed, seeds=3).run(progress=False)
    more = small(store=packed.unpack(tmp_path / "again"), seeds=3).run(progress=False)
    assert (
        more.cells().state.tolist() == ["stored"] * 3 and len(small(seeds=3).cells().query("state == 'missing'")) == 1
    )
    file = packed.files()[0]
    items, info = packed.read(file)
    packed.write(file, items, info | dict(code=info["code"] | {"xlnb.training.stage": "earlier"}))
    table = verify(page, 2, stamp=True, progress=False)
    assert "1 cells stamped anew" in table.caption and packed.read(file)[1]["stamps"][0]["sample"] == 2
    assert page.cells().state.tolist() == ["stored", "stored"]
    whole = packed.root.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2] ^= 255
    packed.root.write_bytes(data)
    with pytest.warns(UserWarning, match="not a finished cell"):
        assert len(Store(packed.root).items()) < len(items) * 2
    packed.root.write_bytes(whole[:-40])
    with pytest.raises(XlnbError, match="no packed store, or only a part"):
        Store(packed.root).items()


def test_texts_of_others_are_not_packed(tmp_path):
    items = simulated_items({"finetune": dict(en=0.5, de=0.5)}, seeds=1, items=6).assign(
        label=["Paris", "", "Rome", "Paris", "Oslo", "Rome"] * 2,
        prediction=["Paris", "Rome", "", "x", "Oslo", "Oslo"] * 2,
    )
    info = lambda name, kind: dict(key="0" * 16, cell=dict(task=dict(name=name, kind=kind)))
    other, told = without_texts(items, info("xquad", "span"))
    assert not {"Paris", "Rome", "Oslo"} & {*other.label, *other.prediction} and told["answers"] == "hashed"
    assert (other.label == other.prediction).equals(items.label == items.prediction) and (other.label == "").equals(
        items.label == ""
    )
    assert other.dtypes.equals(items.dtypes) and other.drop(columns=["label", "prediction"]).equals(
        items.drop(columns=["label", "prediction"])
    )
    again, told = without_texts(other, told)
    assert again.equals(other)
    for name, kind in (("lab-spans", "span"), ("xnli", "pair"), ("wikiann", "tags")):
        assert without_texts(items, info(name, kind))[0] is items
    store = Store(tmp_path / "runs")
    store.write(store.root / f"a-{'0' * 16}.parquet", items, info("xquad", "span"))
    packed = store.pack(tmp_path / "runs.zip")
    assert b"Paris" not in packed.root.read_bytes() and packed.read(packed.files()[0])[1]["answers"] == "hashed"
    pd.testing.assert_frame_equal(packed.read(packed.files()[0])[0], other)


def sgd_losses():
    "Twenty steps of plain stochastic gradient descent: nothing in them amplifies rounding"
    task, tokenizer = get_task("lab-inference"), load_tokenizer("lab")
    ctx = Context(task, "lab", tokenizer, budget=Budget(train_examples=320, eval_examples=20, max_length=64))
    model = with_head("lab", task, seed=0)
    (stage,) = FineTune(steps=20, select="last", lr=0.1).stages(model, ctx)
    stage.args |= dict(optim="sgd", logging_steps=1)
    return [h["loss"] for h in run_stage(stage, model).history if "loss" in h]


def test_twenty_steps_come_out_as_stored():
    losses = sgd_losses()
    assert len(losses) == 20 and losses == pytest.approx(json.loads(STORED.read_text()), abs=1e-4)


if __name__ == "__main__":
    STORED.write_text(json.dumps(sgd_losses()))  # after a change of data, encoder or training that is meant


def test_measures_are_verified(small):  # noqa: F811
    study = small(seeds=1, measures=["retrieval", "cost"]).run(progress=False)
    (file,) = study.store.files()
    assert verify(study, 1, progress=False).outcome.tolist() == ["equal"]
    items, info = study.store.read(file)
    rows = [r | dict(value=99) if i == 0 else r for i, r in enumerate(info["measures"]["retrieval"])]
    study.store.write(file, items, info | dict(measures=info["measures"] | dict(retrieval=rows)))
    row = verify(study, 1, progress=False).iloc[0]
    assert row.outcome == "differs" and row.measures == "retrieval differs"


def test_the_spread_decides_of_measures_too():
    rows = lambda v: [dict(measure="p", lang="en", value=v), dict(measure="p", lang=None, value=1.0)]
    seeds = [rows(0.4), rows(0.6)]
    assert compared_measure(rows(0.4), rows(0.4), True, seeds) == "equal"
    assert compared_measure(rows(0.4), rows(0.5), True, seeds) == "differs"
    assert compared_measure(rows(0.4), rows(0.5), False, seeds) == "within the spread"
    seeds += [rows(0.5)] * 3
    assert compared_measure(rows(0.4), rows(0.7), False, seeds) == "within the spread", "sqrt(2) x .07 x 3.5"
    assert compared_measure(rows(0.4), rows(0.8), False, seeds) == "differs"
    assert compared_measure(rows(0.4), rows(0.5), False, seeds[:1]) == "one seed"
    assert compared_measure(rows(0.4), [], False, seeds) == "differs"


def test_a_task_of_another_laboratory_needs_its_page(small, encoder):  # noqa: F811
    "Its languages are not those of the registered task: said, and no error about a code that nobody typed"
    study = small().run(progress=False)
    file = study.store.files()[0]
    items, info = study.store.read(file)
    study.store.write(file, items, info | dict(cell=info["cell"] | dict(langs=["en", "qzzz"])))
    table = verify(study.store.root, 2, progress=False, encoders={Path(encoder).name: encoder})
    assert sorted(table.outcome) == ["equal", "needs the Study of its page"]
    assert "has no qzzz: the cell is of another laboratory" in " ".join(table.changed)


def test_an_object_in_a_recipe_needs_its_page(small, encoder):  # noqa: F811
    study = small().run(progress=False)
    file = study.store.files()[0]
    items, info = study.store.read(file)
    study.store.write(
        file, items, info | dict(cell=info["cell"] | dict(recipe_name="mmkd(text=<ParallelText of 9 rows>)+finetune"))
    )
    table = verify(study.store.root, 2, progress=False, encoders={Path(encoder).name: encoder})
    assert sorted(table.outcome) == ["equal", "needs the Study of its page"] and "give `verify` the Study" in " ".join(
        table.changed
    )


def test_a_store_with_one_broken_cell(small):  # noqa: F811
    study = small(seeds=1).run(progress=False)
    (file,) = study.store.files()
    file.write_bytes(file.read_bytes()[:-20])
    table = verify(study.store.root, 1, progress=False)
    assert table.outcome.tolist() == ["corrupted"] and "1 of 1 cells" in table.caption

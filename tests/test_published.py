"""Published numbers: the table itself, and its place beside stored results."""

import json
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from xlnb import XlnbError, against_published, published_numbers
from xlnb.data.kinds.base import METRICS
from xlnb.data.tasks import TASKS
from xlnb.evaluation.published import (
    published_effects,
    published_lines,
    published_method,
    published_page,
    recomputed_means,
)
from xlnb.evaluation.statistics import simulated_items
from xlnb.languages import language
from xlnb.study.recipe import METHODS

ALL = published_numbers(derived=True)


def value(**at):
    "The one number with these entries"
    found = ALL[np.logical_and.reduce([ALL[k] == v for k, v in at.items()])]
    assert len(found) == 1, found
    return found.value.iloc[0], found.trust.iloc[0]


# read off the digests of the papers by hand, not by the program that wrote the table
@pytest.mark.parametrize(
    "number,at",
    [
        (80.03, dict(method="alsace", task="xnli", encoder="XLM-R large", quantity="score", lang="mean")),
        (8.97, dict(method="finetune", encoder="XLM-R large", quantity="gap")),
        (7.09, dict(method="alsace", quantity="gap")),
        (2.7, dict(method="alsace", lang="sw", quantity="gain")),
        (-0.34, dict(method="alsace", lang="student languages")),
        (75.4, dict(method="mmkd", task="xnli", lang="mean", quantity="score", variant="")),
        (
            88.6,
            dict(method="mmkd", task="pawsx", lang="mean", quantity="score", variant="", trust="second-hand summary"),
        ),
        (70.1, dict(method="mmkd", task="xquad", metric="F1", lang="mean", quantity="score")),
        (10.1, dict(method="mmkd", lang="hi", quantity="gain")),
        (-2.9, dict(method="mmkd", task="pawsx", variant="without the structure level (StrucA)", quantity="gain")),
        (61.5, dict(task="xquad", encoder="mBERT", lang="ar", metric="F1")),
        (87.4, dict(task="pawsx", encoder="mBERT", lang="es")),
        (82.3, dict(task="pawsx", encoder="XLM-R large", lang="zh")),
        (67.34, dict(method="clism", task="mlqa", encoder="XLM-R base", place="Table 2", metric="F1")),
        (61.99, dict(method="clism", task="xquad", encoder="InfoXLM base", place="Table 2", metric="exact match")),
        (80.92, dict(method="CalibreNet", task="conll")),
        (72.66, dict(encoder="XLM-Align base", task="wikiann", place="Table 2")),
        (
            47.1,
            dict(method="clism", task="mlqa", encoder="XLM-R base", place="Table 5", lang="en", metric="exact match"),
        ),
        (71.9, dict(method="clism", task="conll", encoder="InfoXLM base", lang="de")),
        (35.9, dict(method="clism", task="mlqa", setting="few-shot, 512 English examples", metric="exact match")),
        (
            43.25,
            dict(
                method="finetune",
                task="xquad",
                encoder="XLM-R base",
                setting="few-shot, 1024 English examples",
                metric="F1",
            ),
        ),
        (58.43, dict(variant="without CLISM", task="xquad", metric="exact match")),
        (42.9, dict(method="finetune", encoder="XLM-R base", task="mlqa", lang="hi", metric="exact match")),
        (66.5, dict(encoder="XLM-R base", task="xnli", lang="sw")),
        (65.4, dict(encoder="mBERT", task="xnli", lang="mean", languages="15")),
        (84.9, dict(encoder="XLM-R base", task="pawsx", lang="mean")),
        (83.6, dict(setting="translate-train-all")),
        (80.1, dict(task="sts17-extended", encoder="distiluse-multilingual")),
        (27.3, dict(method="AMBER", task="retrieval")),
    ],
)
def test_numbers_of_the_digests(number, at):
    assert value(**at)[0] == number


def test_every_row_has_a_source_and_no_row_is_there_twice():
    assert (ALL[["method", "task", "setting", "quantity", "metric", "paper", "place", "trust"]] != "").all(axis=None)
    assert not ALL.duplicated(
        [c for c in ALL if c not in ("value", "unit", "tag", "trust", "note", "languages", "arxiv")]
    ).any()
    assert ALL.arxiv.str.fullmatch(r"(\d{4}\.\d{5})?").all()
    papers = dict(alsace="2404.08491", mmkd="2211.01200", clism="2204.05210", salt="2309.10891")
    assert all({*ALL[ALL.method == m].arxiv} == {number} for m, number in papers.items())
    assert (ALL.value.isna() == (ALL.trust == "not found")).all() and (ALL.unit == "").equals(ALL.value.isna())
    scores = ALL[(ALL.quantity == "score") & ALL.value.notna()]
    assert scores.value.between(1, 100).all() and ALL.trust.nunique() == 7


def test_names_are_those_of_the_library():
    assert {"finetune", "alsace", "mmkd", "clism", "salt"} <= {*ALL.method} & {*METHODS}
    assert {"xnli", "pawsx", "xquad", "mlqa", "conll", "wikiann", "xcopa", "geomlama"} <= {*ALL.task} & {*TASKS}
    assert {"accuracy", "F1", "exact match", "entity F1"} <= {*ALL.metric} & {*METRICS}
    assert all(language(l).code == l for l in ALL.lang if re.fullmatch("[a-z]{2}", l))
    assert all(
        language(l).code == l for ls in ALL.languages if ls != "those of XTREME" for l in ls.split() if not l.isdigit()
    )


def test_what_is_derived_can_be_derived():
    means = recomputed_means(ALL).set_index(["task", "encoder", "metric", "place"])
    there = ALL[ALL.place == "mean of the table per language"].set_index(["task", "encoder", "metric"]).value
    printed = means.recomputed.xs("Table 2", level="place")
    assert len(there) == 12 and all(abs(printed[k] - v) < 0.011 for k, v in there.items())
    assert "derived" not in {*published_numbers().trust} and "not found" not in {*published_numbers(lost=False).trust}


def test_the_file_is_part_of_the_package():
    assert resources.files("xlnb").joinpath("assets/published.csv").is_file()


@pytest.mark.parametrize(
    "recipe,name",
    [
        ("finetune", "finetune"),
        ("finetune(lr=1e-4,a=(1, 2))+alsace(steps=3)", "alsace"),
        ("clism(steps=100)+finetune", "clism"),
        ("mmkd+salt", ""),
        ("tfidf", "tfidf"),
    ],
)
def test_the_method_of_a_recipe(recipe, name):
    assert published_method(recipe) == name


class Made:
    "Results of one recipe, as a store gives them"

    def __init__(self, task, recipe, langs, columns=("correct",)):
        self.task, self.recipe, self.langs, self.columns = task, recipe, langs, columns

    def items(self):
        made = simulated_items({self.recipe: {l: 0.6 + 0.02 * i for i, l in enumerate(self.langs)}}, items=30, seeds=5)
        made = made.assign(
            task=self.task, encoder="xlm-roberta-base", budget="900 rows", **{c: made.correct for c in self.columns}
        )
        return made if "correct" in self.columns else made.drop(columns="correct")

    def finished(self):
        return [
            (
                None,
                dict(
                    cell=dict(
                        task=dict(name=self.task, source="en"),
                        encoder_name="xlm-roberta-base",
                        recipe_name=self.recipe,
                        budget_name="900 rows",
                    )
                ),
            )
        ]


def test_a_mean_is_over_the_published_languages_or_left_out():
    langs = "en ar bg de es fr hi zh".split()
    table = against_published(Made("xnli", "mmkd+finetune", [*langs, "sw"]), draws=50)
    mean = table[(table.lang == "mean") & (table.quantity == "score")].iloc[0]
    assert (
        mean.published == 75.4
        and mean.over.split() == sorted(langs)
        and "encoder xlm-roberta-base, not mBERT" in mean.why
    )
    assert abs(mean.ours - 67) < 5 and mean.low < mean.ours < mean.high and mean.seeds == 5
    assert "budget here: 900 rows" in mean.why and "inferred" in mean.why
    fewer = against_published(Made("xnli", "mmkd+finetune", langs[:4]), draws=50)
    assert fewer.ours.isna().all() and fewer.why.str.contains("no mean here over the same languages").all()


def test_settings_that_differ_are_said():
    table = against_published(Made("mlqa-dev:tydiqa", "finetune", "en ar de es hi vi".split(), ("f1", "em")), draws=50)
    assert {*table.metric} == {"F1", "exact match"} and table.why.str.contains("development part").all()
    assert table.why.str.contains("trained on tydiqa").all() and "few-shot, 64 English examples" in " ".join(table.why)
    same = table[table.published_encoder == "XLM-R base"]
    assert len(same) and not same.why.str.contains("encoder xlm-roberta-base").any()
    assert (table[table.languages == "en ar de es hi vi"].ours > 0).all()
    lines = published_lines(table)
    assert any("64.1 XLM-R base" in l for l in lines) and "no targets" in lines[-1]


def test_nothing_published():
    table = against_published(Made("lab-inference", "finetune", ["en", "qal"]), draws=50)
    assert len(table) == 0 and "no published number" in published_lines(table)[0]
    with pytest.raises(XlnbError, match="did you mean 'xnli'"):
        published_numbers("xlni")
    assert isinstance(pd.concat([table, table]), pd.DataFrame)


def test_a_task_that_no_paper_has_stands_beside_a_benchmark_of_its_kind():
    made = Made("lab-inference", "finetune", ["en", "qal", "qcy"])
    table = against_published(made, like={"lab-inference": "xnli"}, draws=50)
    mean = table[(table.lang == "mean") & (table.published_encoder == "mBERT")].iloc[0]
    assert mean.published == 65.4 and mean.over.split() == ["en", "qal", "qcy"] and abs(mean.ours - 62) < 6
    assert table[table.ours.notna()].why.str.contains("lab-inference, not xnli, with made-up languages").all()
    assert table[table.lang == "sw"].ours.isna().all() and not table.why.str.contains("no mean here").any()


def test_gains_stand_beside_comparisons():
    ours = pd.DataFrame(
        [
            dict(
                task="xnli:nli_en",
                encoder="xlm-roberta-base",
                recipe="finetune+alsace",
                budget="900 rows",
                lang=l,
                difference=d,
                low=d - 0.02,
                high=d + 0.02,
                seeds=4,
                items=100,
            )
            for l, d in {
                "en": 0.0,
                "sw": 0.05,
                "mean of targets": 0.04,
                "mean of all": 0.03,
                "transfer gap": -0.04,
            }.items()
        ]
    )
    rows = published_effects("alsace", ours, ours.assign(task="lab-inference", encoder="lab"))
    assert (
        len(rows) == 2 * len(rows[rows.encoder == "lab"])
        and not {"score", "gap"} & {*rows.quantity}
        and (rows.variant == "").all()
    )
    here = rows[rows.encoder == "xlm-roberta-base"]
    mean, gap, sw = here[here.lang == "mean"], here[here.quantity == "change of the gap"], here[here.lang == "sw"]
    assert (
        mean.published.tolist() == [0.6, 2.05, 1.88]
        and np.allclose(mean.ours, 3)
        and np.allclose(mean.low, 1)
        and np.allclose(mean.high, 5)
    )
    assert (
        gap.published.tolist() == [-1.88]
        and np.allclose(gap.ours, -4)
        and sw.published.tolist() == [2.7]
        and np.allclose(sw.ours, 5)
    )
    assert (
        here[here.lang == "ur"].ours.isna().all()
        and "encoder xlm-roberta-base" not in mean.why.iloc[0]
        and "900 rows" in mean.why.iloc[0]
    )
    assert rows[rows.encoder == "lab"].why.str.contains("lab-inference, not xnli, with made-up languages").all()
    page = published_page(rows[rows.ours.notna()])
    assert (
        "| xnli, gain, accuracy, mean | +0.6 (XLM-R base) | +3.0 [1.0, 5.0], n = 4 | ALSACE (Zhao et al., NAACL 2024), "
        in page
    )
    assert page.count("\n") == 1 + rows.ours.notna().sum() and page._repr_markdown_() == page
    claimed = published_effects("salt", ours)
    assert (
        claimed.published.isna().all()
        and np.allclose(claimed.ours, 3)
        and "not found (not stated) | +3.0" in published_page(claimed)
    )


PAGES = "study/124 study/96 study/97 study/101 study/102 study/114 study/119 methods/salt/59 methods/mmkd/79 methods/clism/89".split()
LINKED = {"study/112": 4, "study/116": 1, "study/123": 1, "study/125": 1, "study/127": 1}  # other pages hold their table


@pytest.mark.parametrize("page", [*PAGES, *LINKED])
def test_every_page_of_results_says_what_is_published(page):
    (path,) = (Path(__file__).parents[1] / "nbs").glob(f"{page}_*.ipynb")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    if page in LINKED:
        assert (
            len(
                re.findall(
                    r"\]\([\w./]*(?:77_published\.ipynb|(?:_lab_\w+\.ipynb)?#published-beside-ours)\)",
                    text,
                )
            )
            == LINKED[page]
        )
        return
    assert re.search(r"^## Published beside ours$", text, re.M)
    made = [
        c
        for c in cells
        if c["cell_type"] == "code" and any("published" in l and "import" not in l for l in c["source"])
    ]
    assert made and all(c["outputs"] for c in made), "computed by a cell, whose output is stored"

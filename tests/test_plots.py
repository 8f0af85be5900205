"""Figures: captions, markers, order, nothing overlapping, readable in grey."""
import io

import matplotlib
import numpy as np
import pandas as pd
import pytest

matplotlib.use("agg")
from matplotlib.text import Text

from xlnb.languages import Language, register_language
from xlnb.core import XlnbError
from xlnb.evaluation.plots import line_style, plot_gap, plot_heatmap, plot_history, plot_scores
from xlnb.evaluation.statistics import compare, simulated_items, summary, transfer_summary

LANGS = "en fr es de bg ru el vi ar zh th tr hi ur sw".split()
RECIPES = "finetune", "mmkd+clism+finetune(lr=0.0003)+alsace", "salt", "finetune+alsace(temperature=4)", "mmkd+salt"


@pytest.fixture(scope="module")
def items():
    return simulated_items({r: dict(zip(LANGS, np.linspace(.84 - .02 * k, .5 + .02 * k, 15))) for k, r in enumerate(RECIPES)}, seeds=3, items=60)


@pytest.fixture(scope="module")
def figures(items):
    log = [dict(step=s, loss=1 / s, kl=.5 / s) for s in range(1, 9)] + [dict(step=8, eval_accuracy=.5)]
    figs = dict(scores=plot_scores(items, chance=1 / 3, draws=100), heat=plot_heatmap(summary(items, draws=100)),
                differences=plot_heatmap(compare(items, "finetune", draws=100)), gap=plot_gap(transfer_summary(items, draws=100)),
                history=plot_history([dict(method="finetune", history=log)]))
    for f in figs.values(): f.savefig(io.BytesIO(), format="png")   # runs the layout
    return figs


def boxes(fig):
    "Where each visible text stands, in pixels"
    hidden = {t.label1 for ax in fig.axes for axis in (ax.xaxis, ax.yaxis) for t in axis.get_major_ticks()
              if not min(axis.get_view_interval()) <= t.get_loc() <= max(axis.get_view_interval())}
    found = [t for t in fig.findobj(Text) if t not in hidden and t.get_visible() and t.get_text().strip() and t.get_window_extent().width > 0]
    return [(t.get_text(), t.get_window_extent()) for t in found]


@pytest.mark.parametrize("name", ["scores", "heat", "differences", "gap", "history"])
def test_no_text_overlaps_or_leaves_the_figure(figures, name):
    fig, texts = figures[name], boxes(figures[name])
    assert len(texts) > 4
    for i, (a, p) in enumerate(texts):
        inside = fig.bbox.padded(1)
        assert inside.x0 <= p.x0 and p.x1 <= inside.x1 and inside.y0 <= p.y0 and p.y1 <= inside.y1, a
        for b, q in texts[i + 1:]:
            dx, dy = min(p.x1, q.x1) - max(p.x0, q.x0), min(p.y1, q.y1) - max(p.y0, q.y0)
            assert dx <= 1 or dy <= 1, (a, b)


@pytest.mark.parametrize("name", ["scores", "heat", "differences", "gap"])
def test_caption_is_drawn_and_states_what_it_must(figures, name):
    fig = figures[name]
    drawn = " ".join(" ".join(t.get_text() for t in fig.texts).split())
    assert drawn == " ".join(fig.caption.split())
    assert "eeds: 3" in fig.caption and "items are resampled" in fig.caption and "95%" in fig.caption
    if name in ("scores", "heat", "gap"): assert "Items per language: 60" in fig.caption
    if name == "gap": assert "Transfer gap = score of the source language minus" in fig.caption


def test_recipes_differ_without_colour(items):
    fig = plot_scores(pd.concat([items[items.recipe == "salt"].assign(recipe=f"r{i}") for i in range(10)]), draws=20)
    style = {(l.get_marker(), l.get_markerfacecolor() == "white") for l in fig.axes[0].get_lines() if l.get_marker() not in ("None", None, "") and not l.get_label().startswith("_run")}
    assert len(style) == 10


@pytest.mark.parametrize("name, what", [("heat", lambda v: v), ("differences", lambda v: -np.abs(v))])
def test_heat_map_darkens_with_lower_scores_or_larger_differences(figures, name, what):
    "In grey too; and numbers have contrast"
    grey = [.2126, .7152, .0722]
    ax = figures[name].axes[0]
    mesh = ax.collections[0]
    light, value = mesh.get_facecolors()[:, :3] @ grey, what(np.asarray(mesh.get_array()).ravel())
    order = np.argsort(value)
    assert (np.diff(light[order]) > -.09).all() and np.corrcoef(value, light)[0, 1] > .9
    for t, l in zip(ax.texts, light): assert (t.get_color() == "black") == (l > .45) or .3 < l < .6


def test_no_difference_is_white(items):
    same = compare(items[items.recipe.isin(RECIPES[:1])].pipe(lambda x: pd.concat([x, x.assign(recipe="same")])), "finetune", draws=20)
    for table in same, compare(items, "finetune", draws=20).assign(difference=lambda t: t.difference.where(t.lang != "sw", 0.)):
        mesh = plot_heatmap(table).axes[0].collections[0]
        mesh.update_scalarmappable()
        none = np.asarray(mesh.get_array()).ravel() == 0
        assert none.any() and (mesh.get_facecolors()[none][:, :3] > .95).all()


def test_ten_lines_differ_without_colour():
    looks = [line_style(i) for i in range(10)]
    assert len({(s["marker"], s["mfc"] == "white", str(s["ls"])) for s in looks}) == 10
    assert all(a["ls"] != b["ls"] for a, b in zip(looks, looks[1:]))


def test_source_first_and_marked_then_by_score(figures, items):
    labels = [t.get_text() for t in figures["scores"].axes[0].get_yticklabels()]
    assert labels[0] == "English · en (source)" and figures["scores"].axes[0].get_yticklabels()[0].get_fontweight() == "bold"
    base = summary(items[items.recipe == "finetune"], draws=20).set_index("lang").score.drop("en").sort_values(ascending=False)
    assert [l.split(" · ")[1] for l in labels[1:]] == [*base.index]


def test_names_that_the_font_lacks_fall_back_to_codes(recwarn):
    register_language(Language("qzy", "ภาษาไทย", script="Thai"))
    fig = plot_scores(simulated_items({"r": dict(en=.8, qzy=.6)}, seeds=2, items=20), draws=20)
    fig.savefig(io.BytesIO(), format="png")
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == ["English · en (source)", "qzy"]
    assert not [w for w in recwarn if "missing from" in str(w.message)]


def test_gap_numbers(figures, items):
    t = transfer_summary(items, draws=20)
    shown = [x.get_text() for x in figures["gap"].axes[0].texts]
    for g in t.gap: assert f"gap {100 * g:.1f}" in shown
    moved = 100 * (t.targets - t.targets[0])[1:]
    for m in moved: assert f"{m:+.1f}".replace("-", "−") in shown


def test_differences_whose_interval_holds_zero_stand_in_brackets(figures, items):
    d = compare(items, "finetune", draws=100)
    langs = d[~d.lang.isin(["mean of all", "transfer gap"])]
    shown = [t.get_text() for t in figures["differences"].axes[0].texts]
    assert sum(s.startswith("(") for s in shown) == (langs.verdict == "unclear").sum()


def test_missing_languages_leave_empty_cells(items):
    some = items[~((items.recipe == "salt") & (items.lang == "sw"))]
    fig = plot_heatmap(some, draws=20)
    fig.savefig(io.BytesIO(), format="png")
    assert len(fig.axes[0].texts) == 16 * 5 - 1
    plot_scores(some, draws=20).savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("call, says", [
    (lambda x: plot_scores(pd.DataFrame(dict(a=[1]))), "expected items"),
    (lambda x: plot_scores(pd.concat([x.assign(recipe=f"r{i}") for i in range(11)]), draws=5), "plot_heatmap"),
    (lambda x: plot_gap(x, baseline="z", draws=5), "choose one of"),
    (lambda x: plot_gap(pd.concat([x, x.assign(task="b")]), draws=5), "one task"),
    (lambda x: plot_history([]), "empty"),
])
def test_bad_input_names_the_fix(call, says):
    x = simulated_items({"r": dict(en=.8, de=.6)}, seeds=2, items=5)
    with pytest.raises(XlnbError, match=says): call(x)


def test_below_five_seeds_there_are_dots_and_no_intervals(items):
    few = plot_scores(items, draws=20)
    drawn = lambda fig: sum(len(a) > 0 for c in fig.axes[0].containers for a in c[2][0].get_segments())
    assert drawn(few) == 0
    assert "fewer than five seeds" in few.caption
    dots = [l for l in few.axes[0].get_lines() if l.get_label().startswith("_run")]
    assert sum(len(l.get_xdata()) for l in dots) == 3 * 5 * 15       # a dot for every seed
    enough = plot_scores(pd.concat([items.assign(seed=items.seed + 3 * i) for i in range(2)]), draws=20)
    assert "fewer than five" not in enough.caption and drawn(enough) > 60


def test_tables_carry_their_runs_into_every_figure(items):
    "Whether items or a table is given; and the caption says what is drawn"
    dots = lambda fig: sum(len(l.get_xdata()) for l in fig.axes[0].get_lines() if l.get_label().startswith("_run"))
    assert dots(plot_scores(summary(items, draws=20))) == 3 * 5 * 15
    gap = plot_gap(transfer_summary(items, draws=20))
    assert dots(gap) == 2 * 3 * 5
    assert "a small dot one seed" in gap.caption and "a line its interval" not in gap.caption
    bare = summary(items, draws=20)
    bare.attrs.pop("runs")
    fig = plot_scores(bare)
    assert dots(fig) == 0 and "small dot" not in fig.caption and "a line its interval" not in fig.caption

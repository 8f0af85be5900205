"Effects of a factorial against their definitions: points, what runs and items add to an interval, what is refused"
import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from xlnb.core import XlnbError
from xlnb.evaluation.factorial import factorial_effects, plot_effects, pooled_difference

ENCODERS = ["one"] * 3 + ["two"] * 2      # five runs, not as many on each


def made(scores, encoders=ENCODERS):
    "Items of {recipe: (runs, items)}: two targets around each score, and English at a quarter of it"
    rows = []
    for recipe, x in scores.items():
        for run, (e, line) in enumerate(zip(encoders, x)):
            for lang, value in (("en", line / 4), ("aa", line - .125), ("bb", line + .125)):
                rows.append(pd.DataFrame(dict(task="t", budget="", encoder=e, recipe=recipe, seed=run, lang=lang,
                                              id=[f"i{k:03}" for k in range(len(line))], correct=value)))
    return pd.concat(rows)


def scores(recipes, items=40, seed=0):
    r = np.random.default_rng(seed)
    return {c: r.random((len(ENCODERS), items)) for c in recipes}


def over_encoders(x):
    "Mean over the runs of each encoder, then over encoders: of (runs, ...)"
    return (x[:3].mean(0) + x[3:].mean(0)) / 2


def row(d, encoders=ENCODERS, **options):
    return pooled_difference(made(dict(old=np.zeros_like(d), new=d), encoders), "new", "old", **options)


def test_runs_alone_give_quantiles_of_student():
    "All items alike: the spread of runs within encoders, pooled, with as many degrees of freedom as runs less encoders"
    runs = np.array([.02, .05, .08, .01, .04])
    found = row(np.repeat(runs[:, None], 30, 1), draws=400, level=.9)
    sd = np.sqrt((2 * .03**2 + 2 * .015**2) / 3)
    point = (.05 + .025) / 2
    drawn = point + student.ppf((np.arange(400) + .5) / 400, 3) * sd * np.sqrt(1 / 3 + 1 / 2) / 2
    wanted = dict(points=100 * point, sd_runs=100 * sd, low=100 * np.quantile(drawn, .05), high=100 * np.quantile(drawn, .95),
                  p=2 * (1 + (drawn <= 0).sum()) / 401, runs=5, items=30)
    assert {k: found[k] for k in wanted} == pytest.approx(wanted)
    assert (found["on one"], found["on two"]) == pytest.approx((5, 2.5)) and found["effect"] == "new minus old"
    assert found["sentence"] == f"+3.8 points [{found['low']:.1f}, {found['high']:.1f}], n = 5 runs x 30 items"


@pytest.mark.parametrize("alike, encoders", [(True, ENCODERS), (False, ENCODERS), (False, ["one"] * 2)])
def test_items_alone_are_resampled(alike, encoders):
    "Runs with one mean: items are drawn again; what is luck of one run on one item is taken out of their spread"
    r = np.random.default_rng(1)
    d = r.normal(0, .1, 50) + r.normal(0, 0. if alike else .1, (len(encoders), 50))
    d += .03 - d.mean(1, keepdims=True)
    found = row(d, encoders, draws=300, seed=7)
    mean = over_encoders(d) if len(d) == 5 else d.mean(0)
    all_runs, of_mean = np.mean([np.var(line) for line in d]) / 50, np.var(mean) / 50
    shrink = np.sqrt(max(0, 1 - max(0, all_runs - of_mean) / (len(d) - 1) / of_mean))
    assert shrink == pytest.approx(1) if alike else .5 < shrink < .95
    w = np.random.default_rng(7).multinomial(50, np.full(50, 1 / 50), 300) / 50
    drawn = .03 + shrink * (w @ mean - .03)
    wanted = dict(points=3, low=100 * np.quantile(drawn, .025), high=100 * np.quantile(drawn, .975), sd_runs=0)
    assert {k: found[k] for k in wanted} == pytest.approx(wanted, abs=1e-9)


def test_effects_of_three_factors():
    "With a method minus without, over all combinations of the others; and what one adds with another minus without"
    recipes = ["".join(c) or "0" for k in range(4) for c in itertools.combinations("ABC", k)]
    x = scores(recipes)
    factors = {a: lambda recipe, a=a: a in recipe for a in "ABC"}
    mean = {c: 100 * over_encoders(x[c]).mean() for c in recipes}
    with_, both = (lambda a: np.mean([v for c, v in mean.items() if a in c]) - np.mean([v for c, v in mean.items() if a not in c])), {}
    for a, b in itertools.combinations("ABC", 2):
        group = lambda here, there: np.mean([v for c, v in mean.items() if ((a in c), (b in c)) == (here, there)])
        both[f"{a} x {b}"] = group(1, 1) - group(0, 1) - group(1, 0) + group(0, 0)
    wanted = {a: with_(a) for a in "ABC"} | both
    found = factorial_effects(made(x), factors, draws=100).set_index("effect")
    assert found.points.to_dict() == pytest.approx(wanted) and [*found.index] == [*wanted]
    english = factorial_effects(made(x), factors, "source", draws=100).set_index("effect")
    assert english.points.to_dict() == pytest.approx({k: v / 4 for k, v in wanted.items()})
    assert found.equals(factorial_effects(made(x), factors, draws=100).set_index("effect"))
    for part in ("Effects in percent points on the mean of the targets: 8 recipes, 5 runs on 2 encoders, 40 items.",
                 "Intervals (95%)", "(3 degrees of freedom)"): assert part in found.attrs["caption"]
    assert "on the source: 8 recipes" in english.attrs["caption"]


def test_what_is_refused():
    x = scores(["A", "B"])
    both, f = made(x), {"A": lambda recipe: recipe == "A"}
    single = lambda names: made({k: x[k][:len(names)] for k in x}, names)
    for items, says, factors, options in (
            (pd.concat([both, both.assign(budget="more")]), "one task and budget", f, {}),
            (both, "is unknown", f, dict(score="target")), (both, "source=", f, dict(source="de")),
            (both[both.lang != "en"], "source=", f, {}), (both[both.lang == "en"], "no items of targets", f, {}),
            (both[(both.id != "i001") | (both.seed > 0)], "lack items", f, {}),
            (single(["one", "two"]), "two seeds", f, {}), (both[both.recipe == "A"], "lacks 1 of 2", f, {}),
            (both, "the same methods", {"all": lambda recipe: True}, {}),
            (both[(both.recipe == "A") == (both.seed < 2)], "No run has all", f, {})):
        with pytest.raises(XlnbError, match=says): factorial_effects(items, factors, **options)
    with pytest.raises(XlnbError, match="No items of the recipe 'C': there are A, B"): pooled_difference(both, "C", "A")
    with pytest.warns(UserWarning, match="1 of 5 runs"): left = factorial_effects(both[(both.seed != 0) | (both.recipe != "A")], f)
    assert left.runs.tolist() == [4]
    pd.testing.assert_frame_equal(left, factorial_effects(both[both.seed != 0], f), rtol=1e-12)
    assert "1 encoder," in factorial_effects(single(["one", "one"]), f).attrs["caption"]


def test_a_figure_of_effects():
    table = pd.DataFrame({"points": [1., 2.], "low": [0., 1.5], "high": [3., 2.5], "on x": [.5, 1.8], "on y": [1.5, 2.2]}, index=["A", "B"])
    ax = plot_effects(table, title="both")
    drawn = [(line.get_marker(), [*map(float, line.get_xdata())], [*map(float, line.get_ydata())]) for line in ax.lines[:-1]]
    assert drawn == [("None", [0, 3], [0, 0]), ("s", [1], [0]), ("o", [.5], [.25]), ("^", [1.5], [.25]),
                     ("None", [1.5, 2.5], [1, 1]), ("s", [2], [1]), ("o", [1.8], [1.25]), ("^", [2.2], [1.25])]
    assert [line.get_label() for line in ax.lines if not line.get_label().startswith("_")] == ["on x", "on y"]
    assert ax.get_ylim() == pytest.approx((1.6, -.6)) and [t.get_text() for t in ax.get_yticklabels()] == ["A", "B"]
    assert [*ax.lines[-1].get_xdata()] == [0, 0] and ax.get_title() == "both" and plot_effects(table, ax) is ax
    plt.close(ax.figure)


def test_items_of_each_encoders_own():
    "Where encoders have other test rows, those of each are resampled by themselves: variances add"
    r = np.random.default_rng(0)
    same = np.repeat(r.random((1, 400)), 4, 0)                # all runs alike, so that items alone are left
    shared, own = (row(same, ["one", "one", "two", "two"], own_items=o, draws=20000) for o in (False, True))
    wide = lambda x: x["high"] - x["low"]
    expected = 2 * 196 * same[0].std() / 20
    assert shared["points"] == pytest.approx(own["points"])
    assert wide(shared) == pytest.approx(expected, rel=.05) and wide(own) == pytest.approx(expected / 2 ** .5, rel=.05)

"""Scores, intervals and differences: what must hold for any items, and whether intervals keep their promise."""
import re
import shutil
import subprocess
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.stats import chi2, norm
from sklearn.metrics import accuracy_score

from xlnb.core import XlnbError
from xlnb.evaluation.statistics import (AGGREGATES, DEFINITION, METRICS, bootstrap, compare, effect, failed_runs, holm, metric_of, p_value,
    paired_difference, score_table, scores, sd_interval, simulated_items, summary, transfer_gap, transfer_summary)

pytestmark = pytest.mark.filterwarnings("ignore:one s:UserWarning")
FAST = settings(max_examples=25, deadline=None)


@st.composite
def items(draw, metric=None):
    "Any items: some languages, seeds and rows, some of the rows missing, in any order"
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    langs = ["en", *draw(st.lists(st.sampled_from(["de", "sw", "zh", "qaa"]), unique=True, min_size=1))]
    seeds, n = draw(st.integers(1, 4)), draw(st.integers(2, 30))
    frame = pd.DataFrame([dict(lang=l, seed=s, id=str(i)) for l in langs for s in range(seeds) for i in range(n)])
    if metric == "entity F1": frame[["tp", "fp", "fn"]] = rng.integers(0, 4, (len(frame), 3))
    else: frame["correct"] = rng.integers(0, 2, len(frame))
    lost = frame.id.isin(rng.choice(n, rng.integers(0, n // 2 + 1), replace=False).astype(str)) & (frame.lang == langs[-1])
    return frame[~lost].assign(task="any", encoder="e", recipe="r")


any_items = st.one_of(items(), items("entity F1"))


def made(x, langs, **keys):
    "Items of an array (runs, items, languages); NaN: there is none"
    rows = [dict(lang=l, seed=s, id=f"i{i:02}", correct=x[s, i, k]) for k, l in enumerate(langs) for s in range(x.shape[0]) for i in range(x.shape[1])]
    return pd.DataFrame(rows).dropna().assign(**dict(task="t", encoder="e", recipe="r", budget="9 rows") | keys)


def interval_by_definition(x, drawn, seed_rng, low, high, level):
    "Point, interval, p and runs of one statistic: its value in each run, and in each run on items that are drawn again"
    there = ~np.isnan(x)
    g, chi = seed_rng
    n, point, mean = there.sum(), x[there].mean(), drawn[:, there].mean(1)
    V, U = mean.var(), drawn[:, there].var(0).mean()
    own = max(0, (U - V) / (n - 1)) if n > 1 else 0
    items = (np.sqrt(np.clip(1 - own / (V or 1), 0, 1)) if n > 1 else 1) * (mean - point)
    runs = sum(g[:, s] * (x[s] - point) for s in np.flatnonzero(there)) / np.sqrt(n * chi[:, n - 2]) if n > 1 else 0 * items
    wide = lambda d: np.subtract(*np.quantile(d, [.975, .025]))
    if n > 1 and wide(items + runs) < wide(mean - point): items = mean - point
    moved = point + items + runs
    a, b = np.clip(np.quantile(moved, [(1 - level) / 2, (1 + level) / 2]), low, high)
    p = min(1, 2 * (1 + min((moved <= 0).sum(), (moved >= 0).sum())) / (len(moved) + 1))
    return dict(score=point, low=min(a, point), high=max(b, point), p=p, seeds=n)


def statistics_by_definition(arrays, first, draws, level=.95, seed=0):
    "Languages in their order, mean of targets, mean of all, gap; of two arrays: their difference"
    r_items, r_seeds = np.random.default_rng(seed).spawn(2)
    (S, I, L), most = arrays[0].shape, len(arrays)
    again = r_items.integers(0, I, (draws, I))
    def every(x):
        targets = [k for k in range(L) if k != first]
        more = [x[..., targets].mean(-1), x.mean(-1), x[..., first] - x[..., targets].mean(-1)]
        return np.stack([*(x[..., k] for k in (first, *targets)), *more], -1)
    sides = [(every(x.mean(1)), every(np.stack([x[:, i].mean(1) for i in again]))) for x in arrays]
    x, drawn = (sides[0][i] - (sides[1][i] if most == 2 else 0) for i in (0, 1))
    rng = r_seeds.standard_normal((draws, S)), r_seeds.chisquare(np.arange(1, S + 1), (draws, S))
    ends = [(-1. if most == 2 else 0., 1.)] * (L + 2) + [(-float(most), float(most))]
    return pd.DataFrame([interval_by_definition(x[:, k], drawn[:, :, k], rng, *ends[k], level) for k in range(L + 3)]), [s[0] for s in sides]


def right_or_wrong(seeds, items, p=(.5, .8, .6), seed=0):
    r = np.random.default_rng(seed)
    return ((r.random((1, items, 3)) + r.random((seeds, items, 3))) / 2 < np.array(p) + r.normal(0, .03, (seeds, 1, 3))).astype(float)


LANGS, ROWS = ["de", "en", "fr"], ["en", "de", "fr", *AGGREGATES]


@pytest.mark.parametrize("seeds, lacking, level", [(5, 0, .95), (4, 2, .9), (3, 2, .8), (2, 0, .95), (1, 0, .95)])
def test_intervals_by_their_definition(seeds, lacking, level):
    "Runs and items, one run alone, and a language that lacks runs; in a gap only the runs that all languages have"
    x = right_or_wrong(seeds, 14)
    x[seeds - lacking:, :, 2] = np.nan
    wanted, (of_runs,) = statistics_by_definition([x], 1, 150, level, seed=3)
    found = bootstrap(made(x, LANGS), draws=150, level=level, seed=3)
    assert [*found.lang] == ROWS and [*found["items"]] == [14] * 6
    pd.testing.assert_frame_equal(found[["score", "low", "high", "seeds"]], wanted[["score", "low", "high", "seeds"]], check_dtype=False)
    for sd, runs in zip(found.sd_seeds, of_runs.T):
        runs = runs[~np.isnan(runs)]
        assert sd == pytest.approx(np.std(runs, ddof=1) if len(runs) > 1 else np.nan, nan_ok=True)


def test_runs_that_agree_by_chance_are_no_surer_than_their_items():
    x = right_or_wrong(2, 20)
    x[1] = x[0][::-1]      # the same score, on other items
    wanted, _ = statistics_by_definition([x], 1, 200)
    found = bootstrap(made(x, LANGS), draws=200)
    pd.testing.assert_frame_equal(found[["score", "low", "high"]], wanted[["score", "low", "high"]])
    mean = x.mean(0)[:, 1]
    again = np.random.default_rng(0).spawn(2)[0].integers(0, 20, (200, 20))
    assert found.low[0] == pytest.approx(np.quantile(mean[again].mean(1), .025)) and (found.sd_seeds[:3] == 0).all()


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_difference_by_its_definition(seeds):
    a, b = right_or_wrong(seeds, 14), right_or_wrong(seeds, 14, (.4, .8, .3), seed=1)
    b[:, :, 1] = a[:, :, 1]    # English alike
    wanted, (of_a, of_b) = statistics_by_definition([a, b], 1, 150, .9, seed=2)
    found = paired_difference(made(a, LANGS), made(b, LANGS, recipe="s"), draws=150, level=.9, seed=2)
    wide = (wanted.high - wanted.low) > [.5] * 5 + [1.]
    low, high = wanted.low.mask(wide), wanted.high.mask(wide)
    assert [*found.lang] == ROWS and [*found.seeds] == [seeds] * 6 and [*found["items"]] == [14] * 6
    for name, v in dict(difference=wanted.score, low=low, high=high, a=of_a.mean(0), b=of_b.mean(0)).items():
        assert [*found[name]] == pytest.approx([*v], nan_ok=True), name
    p = wanted.p.mask([True] + [seeds == 1] * 5)
    assert [*found.p] == pytest.approx([*p], nan_ok=True)
    in_family = [np.nan, *np.clip(holm(p[1:3]), 0, 1)] if seeds > 1 else [np.nan] * 3
    assert [*found.p_holm] == pytest.approx([*in_family, np.nan, np.nan, np.nan], nan_ok=True)
    word = lambda l, h, up, down: up if l > 0 else down if h < 0 else "unclear"
    words = ["identical", *(word(l, h, "better", "worse") for l, h in zip(wanted.low[1:5], wanted.high[1:5])), word(wanted.low[5], wanted.high[5], "larger", "smaller")]
    assert [*found.verdict] == (words if seeds > 1 else ["one run"] * 6)
    assert [*found.effect] == [effect(*v) for v in zip(wanted.score, low, high, [seeds] * 6, [14] * 6)]
    how = "and the mean over seeds is moved by their deviations with weights of Student's t, " if seeds > 1 else "there is one run, so the luck of runs is left out, "
    says = "Verdict: whether the interval excludes zero. p_holm: Holm's correction of p over the languages. " if seeds > 1 else "One run gives no verdict. "
    left = "Intervals wider than half the scale are left out. " if wide.any() else ""
    assert found.caption == (f"Difference in accuracy: a = e/r/9 rows minus b = e/s/9 rows, paired by item, language and seed. Intervals (90%): items are "
                             f"resampled, {how}150 draws. {left}Shared seeds: {seeds}. {says}{DEFINITION} Source: en.")


def test_tables_by_their_numbers():
    "What each table takes of the same estimates: numbers, order, texts and captions"
    x, y = right_or_wrong(3, 14), right_or_wrong(2, 14, seed=1)
    y[:, 10:, 2] = np.nan
    items = pd.concat([made(x, LANGS), made(y, LANGS, recipe="s")])
    a, _ = statistics_by_definition([x], 1, 100)
    s = summary(items, draws=100)
    assert [*s.recipe] == ["r"] * 3 + ["s"] * 3 and [*s.lang] == ROWS[:3] * 2 and [*s["items"]] == [14] * 5 + [10] and [*s.seeds] == [3] * 3 + [2] * 3
    assert [*s.score] == pytest.approx([*a.score[:3], y[:, :, 1].mean(), y[:, :, 0].mean(), np.nanmean(y[:, :, 2])])
    says = ("Accuracy, mean over seeds. Budget: 9 rows. Seeds: t/e/r/9 rows 3, t/e/s/9 rows 2. Items per language: 10 to 14. Intervals (95%): items are "
            "resampled, and the mean over seeds is moved by their deviations with weights of Student's t, 100 draws. ")
    left = "Intervals wider than half the scale are left out. "
    assert s.caption.replace(left, "") == says
    assert len(s.attrs["runs"]) == 15 and s.attrs["runs"][0] == dict(task="t", encoder="e", recipe="r", budget="9 rows", seed=0, sample=0, lang="de", score=x[0, :, 0].mean())
    one = made(x, LANGS)
    assert [*scores(one)["items"]] == [14] * 9 and [*scores(items)["items"]] == [14] * 13 + [10] * 2
    t = transfer_summary(one, draws=100).iloc[0]
    for k, name in ((0, "source"), (3, "targets"), (4, "all"), (5, "gap")):
        wide = a.high[k] - a.low[k] > (1 if name == "gap" else .5)
        assert (t[name], t[f"{name}_low"], t[f"{name}_high"]) == pytest.approx((a.score[k], *([np.nan] * 2 if wide else a.loc[k, ["low", "high"]])), nan_ok=True)
    worst = a.score[:3].idxmin()
    assert (t.worst, t.worst_score, t.sd_langs, t.seeds, t["items"]) == (ROWS[worst], a.score[worst], pytest.approx(np.std(a.score[:3])), 3, 14)
    ends = transfer_summary(one, draws=100).attrs["runs"]
    assert [r["source"] for r in ends] == pytest.approx(x[:, :, 1].mean(1)) and [r["targets"] for r in ends] == pytest.approx(x[:, :, [0, 2]].mean((1, 2)))
    assert [r["seed"] for r in ends] == [0, 1, 2]
    table = score_table(one, draws=100)
    text = lambda k: f"{a.score[k]:.3f}" + (f" [{a.low[k]:.3f}, {a.high[k]:.3f}]" if a.high[k] - a.low[k] <= (1 if k == 5 else .5) else "")
    assert [*table.index] == [*ROWS, "worst language", "sd over languages"] and [*table.columns] == ["r"]
    assert [*table.r] == [*map(text, range(6)), f"{ROWS[worst]} {a.score[worst]:.3f}", f"{np.std(a.score[:3]):.3f}"]
    assert table.caption.replace(left, "") == says.replace("t/e/r/9 rows 3, t/e/s/9 rows 2", "3").replace("10 to 14", "14") + f"{DEFINITION} Source: en. Spread: standard deviation over all languages."
    assert "runs" not in summary(made(right_or_wrong(5, 8), LANGS), draws=50).attrs


def test_a_table_shows_three_digits_and_its_caption():
    t = summary(made(right_or_wrong(2, 14), LANGS), draws=50)
    lines, rest = repr(t).splitlines(), " ".join(t.caption.split())
    assert f"{t.score[0]:.3f}" in lines[1] and f"{t.score[0]:.4f}" not in lines[1] and max(map(len, lines[4:])) <= 110
    assert " ".join(lines[4:]) == rest and f"<td>{t.score[0]:.3f}</td>" in t._repr_html_() and f"<p><em>{t.caption[:20]}" in t._repr_html_()
    long = pd.concat([t] * 30)
    assert len(repr(long).splitlines()) > 90 and type(long) is type(t) and type(t[["lang"]]) is type(t) and type(t)(dict(a=[1])).caption == ""


def test_failed_runs_at_the_edge():
    "Two standard errors above the most frequent label, above guessing, or above zero where answers are no labels"
    def run(right, n=100, seed=0, **more):
        return pd.DataFrame(dict(lang="en", id=[f"{k:03}" for k in range(n)], correct=[1.] * right + [0.] * (n - right), seed=seed, encoder="e", recipe="r")).assign(**more)
    half, most = ["a", "b"] * 50, ["a", "a", "b", "a"] * 25
    for edge, base, more in ((60, .5, dict(label=half)), (83, .75, dict(label=most)), (33, .25, dict(label=half, chance=.25)), (33, .25, dict(chance=[.2, .3] * 50))):
        found = failed_runs(pd.concat([run(edge, **more), run(edge + 1, seed=1, **more)]))
        assert found[["seed", "score", "majority"]].values.tolist() == [pytest.approx([0, edge / 100, base])]
        assert not len(failed_runs(run(edge, **more).assign(lang="de"))) and not len(failed_runs(run(edge, **more).assign(encoder="none")))
    few = lambda labels: len(failed_runs(run(0, 8, label=labels)))
    assert few(["a", "b"] * 4) == 1 and few(["a", "b"] * 3 + ["a", "c"]) == 0 and len(failed_runs(run(0))) == 0
    f1 = lambda *v: pd.DataFrame(dict(lang="en", id=["1", "2"], f1=v, em=v))
    assert failed_runs(f1(0., 0.)).majority.tolist() == [0.] and not len(failed_runs(f1(0., .01)))


def test_captions_count_what_went_wrong():
    x = made(right_or_wrong(3, 40, (.8, .9, .8)), LANGS).assign(label="a", chance=.1, stopped=None, budget="")
    x["prediction"] = x.id
    x.loc[x.seed == 1, "stopped"] = "no gain"
    x.loc[(x.seed != 1) & (x.lang == "en"), "prediction"] = "a"
    x.loc[(x.seed == 2) & (x.lang == "en"), "correct"] = 0.
    clean = ("Accuracy, mean over seeds. Seeds: 3. Items per language: 40. Intervals (95%): items are resampled, and the mean over seeds is moved by their "
             "deviations with weights of Student's t, 50 draws. ")
    # two of three runs say one thing in English, one of them fails, one was stopped
    wrong = ("Runs that give one answer throughout in the source, kept in all means: r 2 of 3. Failed runs (source within two standard errors of the most "
             "frequent label, or of guessing), kept in all means: r 1 of 3. Runs that stopped early and count with their starting weights, kept in all means: r 1 of 3. ")
    left = "Intervals wider than half the scale are left out. "
    assert summary(x, draws=50).caption.replace(left, "") == clean + wrong
    assert summary(x.assign(prediction=x.id, stopped="", chance=0.)[x.seed < 2], draws=50).caption.replace(left, "") == clean.replace("Seeds: 3", "Seeds: 2")


def test_small_formulas():
    assert effect(.018, .0099, .0271, 5, 300) == "+1.8 points [1.0, 2.7], n = 5 seeds x 300 items"
    assert effect(-.0001, np.nan, np.nan, 1, 7) == "+0.0 points, n = 1 seed x 7 items" and effect(-.5, -.6, -.0001, 2, 1).startswith("-50.0 points [-60.0, 0.0], n = 2 seeds")
    assert p_value(np.array([-1., 0, 1, 2])) == 1 and p_value(np.ones(9)) == pytest.approx(.2) and p_value(-np.ones(19)) == pytest.approx(.1)
    assert [*p_value(np.array([[1., -1.], [2., 1.], [3., 1.]]))] == pytest.approx([.5, 1.]) and p_value(np.array([-1.] + [1.] * 38)) == pytest.approx(.1)
    sd, low, high = sd_interval([1., 2., 4., 5.], level=.9)
    assert sd == pytest.approx(np.sqrt(10 / 3)) and (low, high) == pytest.approx([sd * np.sqrt(3 / chi2.ppf(q, 3)) for q in (.95, .05)])
    assert sd_interval([1., 2.])[1] == pytest.approx(np.sqrt(.5 / chi2.ppf(.975, 1)))
    with pytest.raises(XlnbError, match="spread of 1 run cannot"): sd_interval([1.])
    assert transfer_gap(dict(en=.9, de=.5, fr=.6)) == pytest.approx(.35) and transfer_gap(dict(en=.9, de=.5), "de") == pytest.approx(-.4)
    with pytest.raises(XlnbError, match=r"not \['en'\]"): transfer_gap(dict(en=.5))
    x = made(right_or_wrong(1, 6), LANGS)
    with pytest.raises(XlnbError, match="has no row: choose 'languages', or a list of en, de, fr, mean of targets"):
        compare(pd.concat([x, x.assign(recipe="s")]), "r", family=["mean", "x"], draws=20)
    with pytest.raises(XlnbError, match="'t' with items of 'u': compare within one task"): paired_difference(x, x.assign(task="u"))
    with pytest.raises(XlnbError, match="same seeds and languages"): paired_difference(x, x.assign(seed=5))
    with pytest.raises(XlnbError, match="'seeds' names no part of a comparison: choose among task, encoder, recipe, budget"): compare(x, dict(seeds=1))
    with pytest.raises(XlnbError, match="baseline or recipe with recipe 'z': there are 'r'"): compare(x, "z")
    with pytest.warns(UserWarning, match=r"paired on 15 rows that both have \(of 18 and 15\)"): paired_difference(x, x[x.id != "i00"], draws=20)


def test_made_up_items_have_their_truth():
    x = simulated_items({"a": dict(en=.9, de=.6), "b": dict(en=.7)}, seeds=4, items=5000, sd_seed=0., seed=1)
    means = x.groupby(["recipe", "lang"]).correct.mean()
    assert {*means.index} == {("a", "en"), ("a", "de"), ("b", "en")} and [means["a", "en"], means["a", "de"], means["b", "en"]] == pytest.approx([.9, .6, .7], abs=.015)
    assert {*x.seed} == {0, 1, 2, 3} and x.groupby(["recipe", "lang", "seed"]).id.nunique().eq(5000).all() and {*x.correct} == {0, 1} and {*x.task} == {*x.encoder} == {"simulated"}
    assert x.groupby(["recipe", "lang", "seed"]).correct.mean().groupby(["recipe", "lang"]).std().max() < .012
    easy = x[x.recipe == "a"].pivot_table(index="id", columns=["lang", "seed"], values="correct")
    alike = easy.corr().to_numpy()[np.triu_indices(8, 1)]
    assert (alike > .15).all()     # an item is easy or hard for all runs, in all languages
    lucky = simulated_items({"a": dict(en=.6)}, seeds=60, items=400, sd_seed=.5).groupby("seed").correct.mean()
    # luck on the scale of the score: half a unit, where a unit of the sum of hardness and noise is the root of two
    assert lucky.std() == pytest.approx(norm.pdf(norm.ppf(.6) * 1.5 / 2**.5) * .5 / 2**.5, rel=.25)


def test_a_family_counts_its_tests():
    x = {r: right_or_wrong(3, 14, (.4 + k / 10, .8, .5), seed=k) for k, r in enumerate("abc")}
    x["c"][:, :, 1] = x["a"][:, :, 1]      # nothing to test in English
    items = pd.concat([made(v, LANGS, recipe=r) for r, v in x.items()])
    found, single = compare(items, "a", draws=100), {r: paired_difference(*[items[items.recipe == k] for k in (r, "a")], draws=100) for r in "bc"}
    assert [*found.recipe] == ["b"] * 6 + ["c"] * 6 and [*found.lang] == ROWS * 2 and [*found.columns][:5] == ["task", "encoder", "recipe", "budget", "lang"]
    for r in "bc": assert [*found.difference[found.recipe == r]] == pytest.approx([*single[r].difference])
    tested = ~found.lang.isin(AGGREGATES) & found.p.notna()
    assert tested.sum() == 5 and [*found.p_holm[tested]] == pytest.approx([*holm(found.p[tested])]) and found.p_holm[~tested].isna().all()
    assert "p_holm: Holm's correction of p over a family of 5 (all languages, all comparisons). " in found.caption
    assert found.caption.startswith("Difference in accuracy: a = the row minus b = a, paired by item, ")
    two = compare(items, dict(recipe="a", encoder="e"), ["c", dict(recipe="b")], family=["en", "transfer gap"], draws=100)
    assert [*two.recipe.unique()] == ["c", "b"] and "over a family of 3 (en, transfer gap, all comparisons). " in two.caption and "minus b = a/e, paired" in two.caption
    assert two.p_holm.notna().sum() == 3


@FAST
@given(any_items, st.randoms(use_true_random=False))
def test_order_of_rows_and_seeds_does_not_matter(x, random):
    order = list(range(len(x)))
    random.shuffle(order)
    a, b = (bootstrap(f, draws=50).set_index("lang") for f in (x, x.iloc[order]))
    pd.testing.assert_frame_equal(a, b.loc[a.index])
    again = bootstrap(x.assign(seed=x.seed.map(lambda s: s * 7 + 1)), draws=50).set_index("lang")
    pd.testing.assert_frame_equal(a, again)


@FAST
@given(any_items)
def test_interval_holds_the_point_and_stays_possible(x):
    b = bootstrap(x, draws=200)
    assert (b.low <= b.score).all() and (b.score <= b.high).all()
    langs = b[b.lang != "transfer gap"]
    assert (langs.low >= 0).all() and (langs.high <= 1).all()


@FAST
@given(any_items)
def test_gap_identity(x):
    t, s = transfer_summary(x, draws=20).iloc[0], summary(x, draws=20).set_index("lang").score
    assert t.gap == pytest.approx(t.source - t.targets) == pytest.approx(transfer_gap(s))
    n = len(s)
    assert t["all"] == pytest.approx((t.source + (n - 1) * t.targets) / n)
    assert s[t.worst] == s.min() and t.sd_langs == pytest.approx(s.std(ddof=0))


@FAST
@given(any_items)
def test_summary_is_the_mean_over_seeds(x):
    s = scores(x).groupby("lang").score.mean()
    t = summary(x, draws=20).set_index("lang").score
    pd.testing.assert_series_equal(s.sort_index(), t.sort_index(), check_names=False)


@FAST
@given(any_items)
def test_identical_inputs_do_not_differ(x):
    d = paired_difference(x, x.sample(frac=1, random_state=1), draws=50)
    assert (d.difference == 0).all() and (d.low == 0).all() and (d.high == 0).all()
    assert d.verdict.isin(["identical", "both constant", "one run"]).all() and d.p.isna().all()


@FAST
@given(any_items)
def test_difference_is_antisymmetric(x):
    y = x.assign(correct=1 - x.correct) if "correct" in x else x.assign(tp=x.tp + 1)
    a, b = paired_difference(x, y, draws=50), paired_difference(y, x, draws=50)
    np.testing.assert_allclose(a.difference, -b.difference, atol=1e-12)
    np.testing.assert_allclose(a.low, -b.high, atol=1e-9)


@FAST
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm(p):
    adjusted, order = holm(p), np.argsort(p, kind="stable")
    assert (adjusted >= np.array(p) - 1e-12).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[order]) >= -1e-12).all()
    by_hand = np.maximum.accumulate([min(1, (len(p) - k) * p[i]) for k, i in enumerate(order)])
    np.testing.assert_allclose(adjusted[order], by_hand)


def test_holm_published_example():
    # Holm's procedure on four hypotheses, as in en.wikipedia.org/wiki/Holm-Bonferroni_method
    np.testing.assert_allclose(holm([.01, .04, .03, .005]), [.03, .06, .06, .02])
    assert len(holm([])) == 0


def test_accuracy_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 3, (2, 200))
    x = pd.DataFrame(dict(id=np.arange(200).astype(str), lang="en", correct=(y == p).astype(int)))
    assert scores(x).score[0] == pytest.approx(accuracy_score(y, p))


@pytest.mark.parametrize("seeds, sd_seed", [(3, .2), (5, .05)])
def test_intervals_of_aggregates_cover(seeds, sd_seed):
    truth = dict(en=.85, de=.7, sw=.55)
    true = pd.Series(truth | {"mean of targets": .625, "mean of all": .7, "transfer gap": .225})
    hit = []
    for r in range(120):
        b = bootstrap(simulated_items({"r": truth}, seeds=seeds, items=150, sd_seed=sd_seed, seed=r), draws=300, seed=r).set_index("lang")
        hit.append((b.low <= true[b.index]) & (true[b.index] <= b.high))
    rate = pd.concat(hit, axis=1).mean(axis=1)
    assert rate.between(.88, 1).all() and .92 <= rate.mean() <= .995, rate   # 120 repetitions: about ± 4 points each


def test_not_parallel_ids_give_the_same_interval():
    "Languages with ids of their own are resampled on their own, up to the noise of the draws"
    x = simulated_items({"r": dict(en=.8, de=.6)}, items=400)
    own = x.assign(id=x.lang + x.id)
    a, b = (bootstrap(f, draws=4000).set_index("lang") for f in (x, own))
    np.testing.assert_allclose(a.loc[["en", "de"], ["low", "high"]], b.loc[["en", "de"], ["low", "high"]], atol=.01)


def test_entity_f1_pools_counts():
    x = pd.DataFrame(dict(id=["1", "2"], lang="en", tp=[1, 0], fp=[0, 1], fn=[0, 1]))
    assert scores(x).score[0] == pytest.approx(.5)   # 2/(2+1+1), not the mean of 1 and 0 weighted by chance
    x = pd.DataFrame(dict(id=["1", "2"], lang="en", tp=[9, 0], fp=[0, 1], fn=[0, 0]))
    assert scores(x).score[0] == pytest.approx(18 / 19)
    nothing = pd.DataFrame(dict(id=["1"], lang="en", tp=[0], fp=[0], fn=[0]))
    assert scores(nothing).score[0] == 0


def test_several_tasks_with_different_metrics():
    a = simulated_items({"r": dict(en=.8, de=.6)}, items=20)
    b = a[["encoder", "recipe", "seed", "lang", "id"]].assign(task="ner", tp=1, fp=1, fn=0)
    x = pd.concat([a, b], ignore_index=True)
    got = summary(x, draws=20).set_index(["task", "lang"]).score
    assert got["ner", "en"] == pytest.approx(2 / 3) and got["simulated", "en"] == pytest.approx(a[a.lang == "en"].correct.mean())
    table = score_table(x, draws=20)
    assert [*table.columns] == ["simulated", "ner"] and "entity F1" in table.caption


def test_one_seed_warns_and_says_so():
    x = simulated_items({"r": dict(en=.8, de=.6)}, seeds=1)
    with pytest.warns(UserWarning, match="one seed only"): t = summary(x)
    assert "One seed, so" in t.caption
    with pytest.warns(UserWarning, match="one shared seed"): d = paired_difference(x, x)
    assert "there is one run" in d.caption
    with warnings.catch_warnings():   # controls have no luck to average over
        warnings.simplefilter("error")
        summary(x.assign(encoder="none"))


def test_unequal_seeds():
    x = simulated_items({"a": dict(en=.8, de=.6), "b": dict(en=.8, de=.6)}, seeds=3)
    t = summary(x[(x.recipe == "a") | (x.seed < 2)]).groupby("recipe").seeds.max()
    assert t["a"] == 3 and t["b"] == 2
    some = x[(x.recipe == "a") & ((x.lang == "en") | (x.seed < 2))]
    s = bootstrap(some).set_index("lang")
    assert s.seeds.to_dict() == {"en": 3, "de": 2} | dict.fromkeys(AGGREGATES, 2)
    per_seed = scores(some).pivot(index="seed", columns="lang", values="score").dropna()
    assert s.score["transfer gap"] == pytest.approx((per_seed.en - per_seed.de).mean())
    assert "differ in their number of seeds" in summary(some).caption
    with pytest.warns(UserWarning, match="paired on"): d = paired_difference(x[x.recipe == "a"], x[(x.recipe == "b") & (x.seed < 2)])
    assert (d.seeds == 2).all()


def test_verdicts():
    good = simulated_items({"a": dict(en=.8, de=.75), "b": dict(en=.8, de=.6)}, items=800, sd_seed=.01)
    d = paired_difference(good[good.recipe == "a"], good[good.recipe == "b"]).set_index("lang")
    assert d.verdict["de"] == "better" and d.verdict["mean of targets"] == "better" and d.verdict["transfer gap"] == "smaller"
    d = compare(good, "a").set_index("lang")
    assert d.verdict["de"] == "worse" and d.verdict["transfer gap"] == "larger" and d.recipe.iloc[0] == "b"


def test_tables_print_their_definition():
    x = simulated_items({"r": dict(en=.8, de=.6)}, seeds=2)
    for t in (transfer_summary(x), score_table(x), paired_difference(x, x)):
        assert " ".join(repr(t).split()).count(DEFINITION) == 1 and DEFINITION in t._repr_html_()
    assert summary(x).query("lang == 'en'").caption   # a part of a table keeps its caption


@pytest.mark.parametrize("call, says", [
    (lambda x: summary(x.iloc[:0]), "no items"),
    (lambda x: summary(pd.concat([x, x])), "twice"),
    (lambda x: summary(x.drop(columns="id")), "evaluate_model"),
    (lambda x: summary(x.drop(columns="correct")), "item_scores"),
    (lambda x: compare(x, "z"), "baseline"),
    (lambda x: compare(x[x.recipe == "a"], "a"), "another recipe"),
    (lambda x: paired_difference(x, x), "compare"),
    (lambda x: bootstrap(x), "summary"),
    (lambda x: transfer_gap({"de": .5}), "source"),
    (lambda x: metric_of("bleu"), ", ".join(METRICS)),
])
def test_bad_input_names_the_fix(call, says):
    x = simulated_items({"a": dict(en=.8, de=.6), "b": dict(en=.8, de=.6)}, seeds=2, items=5)
    with pytest.raises(XlnbError, match=says): call(x)


def test_a_table_without_source_has_no_gap():
    x = simulated_items({"r": dict(de=.8, sw=.6)}, seeds=2, items=50)
    t = score_table(x)
    assert t.loc["transfer gap", "r"] == "n/a" and "0." in t.loc["mean of all", "r"]


def two_recipes(seeds=5, **kw):
    return simulated_items({"a": dict(en=.8, de=.75), "b": dict(en=.8, de=.6)}, seeds=seeds, **kw)


def test_one_run_gives_no_verdict():
    x = two_recipes(seeds=1)
    for d in (paired_difference(x[x.recipe == "a"], x[x.recipe == "b"]), compare(x, "b")):
        assert d.p.isna().all() and d.p_holm.isna().all() and set(d.verdict) == {"one run"}
        assert "p_holm" not in d.caption and "no verdict" in d.caption


def test_what_never_changes_is_called_constant():
    x = two_recipes().assign(prediction="yes")
    x = x.assign(correct=(x.id.astype(int) % 3 == 0).astype(int))
    d = paired_difference(x[x.recipe == "a"], x[x.recipe == "b"], draws=50)
    assert (d.difference == 0).all() and set(d.verdict) == {"both constant"} and d.p.isna().all()
    y = two_recipes()
    d = paired_difference(y[y.recipe == "a"], y[y.recipe == "a"].assign(recipe="c"), draws=50)
    assert set(d.verdict) == {"identical"}


def test_captions_name_the_procedure():
    x = two_recipes()
    for t in (summary(x, draws=50), score_table(x, draws=50), compare(x, "b", draws=50)):
        assert "items are resampled" in t.caption and "Student" in t.caption and "bootstrap over seeds" not in t.caption


def test_an_interval_wider_than_half_the_scale_is_not_printed():
    x = two_recipes(seeds=2, items=20, sd_seed=1.5)
    s = summary(x, draws=500).set_index(["recipe", "lang"])
    wide = s[s.low.isna()]
    table = score_table(x, draws=500)
    assert len(wide) and "half the scale" in table.caption
    for recipe, lang in wide.index: assert "[" not in table.loc[lang, recipe]


def test_budget_is_a_key_and_samples_are_runs():
    x = two_recipes()
    few = pd.concat([x.assign(budget="64 examples", sample=0), x.assign(budget="64 examples", sample=1), x.assign(budget="", sample=0)])
    s = summary(few, draws=20)
    assert set(s.budget) == {"64 examples", ""}
    assert (s[s.budget == "64 examples"].seeds == 10).all() and (s[s.budget == ""].seeds == 5).all()
    assert "budget" in transfer_summary(few, draws=20) and "budget" in compare(few, "b", draws=20) and "budget" in scores(few)
    table = score_table(few, draws=20)
    assert ("64 examples", "a") in [tuple(c)[::-1] for c in table.columns]
    with pytest.raises(XlnbError, match="twice"): scores(pd.concat([x, x]))


def test_any_two_recipes_of_a_study_are_compared():
    x = pd.concat([simulated_items({r: dict(en=.8, de=p) for r, p in dict(plain=.6, a=.7, b=.75).items()}, seed=s).assign(encoder=e, task=t)
                   for s, (e, t) in enumerate([("e1", "t1"), ("e1", "t2"), ("e2", "t1")])])
    d = compare(x, "a", "b", family=["mean of targets"], draws=200)   # b against a, wherever both are
    assert set(d.recipe) == {"b"} and d[["encoder", "task"]].drop_duplicates().shape[0] == 3
    one = paired_difference(*[x[(x.recipe == r) & (x.encoder == "e2")] for r in "ba"], draws=200)
    got = d[d.encoder == "e2"]
    np.testing.assert_allclose(got.difference.to_numpy(), one.difference.to_numpy())
    across = compare(x[x.task == "t1"], dict(encoder="e1", recipe="a"), dict(encoder="e2", recipe="a"), draws=200)
    assert set(across.encoder) == {"e2"} and "e1" in across.caption
    # Holm within the family that is named
    p = d[d.lang == "mean of targets"].p.to_numpy()
    np.testing.assert_allclose(d[d.lang == "mean of targets"].p_holm, holm(p))
    assert d[d.lang != "mean of targets"].p_holm.isna().all() and "family" in d.caption
    d = compare(x, "plain", ["a", "b"], family=["de", "en"], draws=200)
    rows = d[d.lang.isin(["de", "en"])]
    np.testing.assert_allclose(rows.p_holm, holm(rows.p)); assert len(rows) == 12
    with pytest.raises(XlnbError, match="family"): compare(x, "a", family=["fr"], draws=20)


def test_effects_are_written_in_points():
    x = two_recipes()
    d = compare(x, "b", draws=200).set_index("lang").loc["de"]
    assert d.effect == f"{100 * d.difference:+.1f} points [{100 * d.low:.1f}, {100 * d.high:.1f}], n = 5 seeds x 300 items"


def test_failed_and_stopped_runs_are_counted_and_kept():
    x = two_recipes()
    rng = np.random.default_rng(0)
    x["label"] = np.where(x.id.astype(int) % 3 == 0, "yes", "no")          # the majority is two thirds
    bad = (x.recipe == "a") & (x.seed == 2)
    x.loc[bad, "correct"] = (x[bad].label == "no").astype(int)             # a run that says "no" to everything
    x["stopped"] = np.where((x.recipe == "b") & (x.seed == 1), "no gain", "")
    failed = failed_runs(x)
    assert failed[["recipe", "seed"]].values.tolist() == [["a", 2]]
    t = summary(x, draws=50)
    assert "failed runs" in t.caption.lower() and "a 1 of 5" in t.caption and "stopped" in t.caption.lower() and "b 1 of 5" in t.caption
    assert (t.seeds == 5).all()
    assert t.set_index(["recipe", "lang"]).score["a", "en"] == pytest.approx(x[(x.recipe == "a") & (x.lang == "en")].correct.mean())
    assert "failed" not in summary(two_recipes(), draws=50).caption.lower()

def test_captions_name_the_budget_that_all_rows_share():
    "What no column says stands in the caption"
    items = pd.DataFrame([dict(lang=l, id=i, gold=0, pred=i % 2, seed=s, task='t', encoder='e', recipe='finetune',
                               budget='3,000 rows, 300 tested', correct=float(i % 2))
                          for l in ('en', 'de') for i in range(6) for s in (0, 1)])
    for table in (score_table, summary, transfer_summary):
        assert 'Budget: 3,000 rows, 300 tested. ' in table(items, draws=50).caption, table.__name__
    both = pd.concat([items, items.assign(budget='all rows')])
    assert 'Budget:' not in score_table(both, draws=50).caption
    assert 'Budget:' not in score_table(items.drop(columns='budget'), draws=50).caption


@pytest.mark.skipif(not (shutil.which("pdflatex") or shutil.which("tectonic")), reason="there is no TeX here")
@pytest.mark.parametrize("kind", ["scores", "differences", "transfer", "stale"])
def test_a_table_compiles(kind, tmp_path):
    "As LaTeX, with its caption, whatever characters stand in the names"
    odd = r"salt(text='50%_a&b#1 {x} ~\y ^$',rate=0.5)+alsace"
    items = simulated_items({"finetune(batch_size=8)": dict(en=.9, de=.7, sw=.6), odd: dict(en=.9, de=.75, sw=.7)}, seeds=3, items=40)
    make = dict(scores=lambda: score_table(items, draws=50), differences=lambda: compare(items, "finetune(batch_size=8)"), transfer=lambda: transfer_summary(items))
    table = make.get(kind, make["scores"])()
    if kind == "stale": table.attrs["caption"] += " *Stale*: 2 of 4 cells (changed: data.tasks). *Note*: 50% of {rows} & co."
    text = table.to_latex()
    assert r"\caption{" in text and r"batch\_size=8" in text and r"50\%\_a\&b\#1" in text and not re.search(r"(?<!\\)[%#]", text)
    booktabs = r"\IfFileExists{booktabs.sty}{\usepackage{booktabs}}{\let\toprule\hline\let\midrule\hline\let\bottomrule\hline}"
    (tmp_path / "t.tex").write_text("\n".join([r"\documentclass{article}", booktabs, r"\begin{document}", text, r"\end{document}"]), encoding="utf-8")
    how = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error"] if shutil.which("pdflatex") else ["tectonic"]
    done = subprocess.run([*how, "t.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and (tmp_path / "t.pdf").stat().st_size > 1000, done.stdout[-2000:]

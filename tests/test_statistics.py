"""Scores, intervals and differences: what must hold for any items, and whether intervals keep their promise."""
import re
import shutil
import subprocess
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from sklearn.metrics import accuracy_score

from xlnb.core import XlnbError
from xlnb.evaluation.statistics import (AGGREGATES, DEFINITION, METRICS, bootstrap, compare, failed_runs, holm, metric_of, paired_difference, score_table,
    scores, simulated_items, summary, transfer_gap, transfer_summary)

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

"""A plan and its answer: schema, hash, correction, few seeds, missing cells, width."""
import json

import pandas as pd
import pytest

from test_study import encoder, small  # noqa: F401  fixtures
from xlnb.core import XlnbError, file_digest
from xlnb.evaluation.statistics import compare, holm, simulated_items
from xlnb.study.grid import Study
from xlnb.study.plan import more_seeds, primary_contrasts, read_plan

WRITTEN = dict(family="a page", smallest_difference=.02, target_half_width=.02,
               contrasts=[dict(a="salt", b="finetune", task="simulated", score=s) for s in ("targets", "source", "gap")])


@pytest.fixture
def plan(tmp_path):
    def write(**changes):
        (tmp_path / "plan.json").write_text(json.dumps(WRITTEN | changes))
        return read_plan(tmp_path / "plan.json")
    return write


def items(gain=.05, seeds=5, **kw):
    truth = {"finetune": dict(en=.8, de=.6, sw=.5), "salt": dict(en=.8, de=.6 + gain, sw=.5 + gain)}
    return simulated_items(truth, **dict(seeds=seeds, items=1000, sd_seed=.01) | kw)


def test_the_answer_is_that_of_a_paired_comparison(plan):
    made, table = items(), compare(items(), "finetune", "salt").set_index("lang")
    answer = primary_contrasts(made, plan()).set_index("score")
    for score, lang in (("targets", "mean of targets"), ("source", "en"), ("gap", "transfer gap")):
        row = answer.loc[score]
        assert [row.points / 100, row.low / 100, row.high / 100, row.p] == pytest.approx([table.loc[lang][k] for k in ("difference", "low", "high", "p")])
    assert answer.p_holm.tolist() == pytest.approx([*holm(answer.p)])   # over the three of the plan, not over languages
    assert answer.verdict.tolist() == ["better", "unclear", "smaller"]
    assert (answer.half_width * 2).tolist() == pytest.approx((answer.high - answer.low).tolist()) and {*answer.smallest} == {2.}
    assert "+5." in answer.sentence["targets"] and "n = 5 seeds x 1000 items" in answer.sentence["targets"]
    assert "are excluded; the plan set out to see 2.0" in answer.sentence["source"]
    assert "family: a page (Holm over 3)" in primary_contrasts(made, plan()).caption


def test_correction_takes_a_verdict_back(plan):
    many = [dict(a="salt", b="finetune", task="simulated")] + [dict(a=f"finetune(lr={i}e-5)", b="finetune", task="simulated") for i in range(1, 9)]
    made = items(.03, items=700, seed=3)
    made = pd.concat([made, *(simulated_items({"x": dict(en=.8, de=.6, sw=.5)}, seeds=5, items=700, sd_seed=.01, seed=9 + i).assign(recipe=f"finetune(lr={i}e-05)") for i in range(1, 9))])
    alone = primary_contrasts(made, plan(contrasts=many[:1])).iloc[0]
    among = primary_contrasts(made, plan(contrasts=many)).iloc[0]
    assert alone.p == among.p and among.p_holm > 7 * among.p
    assert (alone.verdict, among.verdict) == ("better", "unclear after correction")


def test_few_seeds_and_no_results(plan):
    few = primary_contrasts(items(seeds=4), plan())
    assert {*few.verdict} == {"too few seeds"} and few[["low", "high", "p", "p_holm"]].isna().all(axis=None)
    assert few.sentence[0].count("+") == 5 and "no verdict below 5 seeds" in few.sentence[0]   # the mean, and four runs
    made = items()
    lost = primary_contrasts(made[made.recipe == "finetune"], plan(), missing={0: ["cell 1", "cell 2"]})
    assert lost.verdict.tolist() == ["not answered"] * 3 and "Missing: cell 1, cell 2 (2 in all)" in lost.sentence[0] and lost.missing[0] == 2
    assert more_seeds(lost, plan()).more.all()


def test_width_alone_asks_for_seeds(plan):
    one, other = (primary_contrasts(items(g), plan()) for g in (.05, -.05))
    for answer in (one, other):
        asked = more_seeds(answer, plan(target_half_width=.005))
        assert asked.more.tolist() == (answer.half_width > .5).tolist() and (asked.about >= asked.seeds).all()
    assert not more_seeds(one, plan(target_half_width=.2)).more.any()


@pytest.mark.parametrize("changes, says", [
    (dict(contrasts=[]), "needs `contrasts`"), (dict(contrasts=[["salt", "finetune"]]), "without a or b"), (dict(family=3), "`family`"),
    (dict(contrasts=[dict(a="salt", b="finetune", task="xnli", score="en")]), "choose targets, source, gap"), (dict(smallest_difference=2), "such as .015"),
    (dict(target_half_width=None), "target_half_width"), (dict(contrasts=[dict(a="salt(x=1)", b="finetune", task="xnli")]), "no option 'x'"),
    (dict(contrasts=[dict(a="salt", b="finetune", task="xnli", lang="de")]), "'lang'")])
def test_what_is_no_plan(plan, changes, says):
    with pytest.raises(XlnbError, match=says): plan(**changes)


def test_several_encoders_are_named(plan):
    made = pd.concat([items(), items(seed=1).assign(encoder="other")])
    with pytest.raises(XlnbError, match="several encoders"): primary_contrasts(made, plan())
    named = [c | dict(encoder="other") for c in WRITTEN["contrasts"]]
    assert primary_contrasts(made, plan(contrasts=named)).seeds.tolist() == [5] * 3


def test_a_study_answers_its_plan(small, tmp_path):  # noqa: F811
    file, arms = tmp_path / "plan.json", ["finetune(epochs=1)", "finetune(epochs=1,lr=1e-3)"]
    file.write_text(json.dumps(WRITTEN | dict(contrasts=[dict(a=arms[1], b=arms[0], task="lab-inference"), dict(a="salt", b=arms[0], task="lab-inference")])))
    study = small(recipes=arms, plan=file).run(progress=False)
    assert {i["plan"] for _, i in study.finished()} == {file_digest(file)[:16]}
    answer = study.primary()
    assert answer.verdict.tolist() == ["too few seeds", "not answered"] and "another plan" not in answer.caption
    assert "salt on lab-inference, which is no part of the study" in answer.sentence[1]
    paths = study.report(tmp_path / "report")
    assert "## Primary contrasts" in open(paths["summary.md"]).read() and len(pd.read_csv(paths["primary.csv"])) == 2
    wider = small(recipes=arms, seeds=5, plan=file)
    answer = wider.primary()
    assert answer.missing[0] == 6 and "seed 2" in answer.sentence[0] and "(6 in all)" in answer.sentence[0]
    file.write_text(file.read_text().replace("0.02", "0.03"))
    assert "4 of 4 records were made under another plan" in small(recipes=arms, plan=file).primary().caption
    with pytest.raises(XlnbError, match="no plan to answer"): small(recipes=arms).primary()
    other = Study("lab-tags", small().encoders, "finetune", 1, store=tmp_path / "other", langs=["qal"], plan=file)
    assert study.primary(other).missing[0] == 0


def test_what_a_plan_leaves_open(plan, small, tmp_path):  # noqa: F811
    file = tmp_path / "open.json"
    file.write_text(json.dumps(dict(primary=[["finetune(epochs=1,lr=BEST)", "finetune(epochs=1)"]], family="rates", smallest_visible_difference=.01,
                                    half_width_wanted=.02, question="which?")))
    study = small(recipes=["finetune(epochs=1)", "finetune(epochs=1,lr=1e-3)"], plan=file).run(progress=False)
    with pytest.raises(XlnbError, match="leaves BEST open"): study.primary()
    answer = study.primary(chosen=dict(BEST="1e-3"))
    assert answer.a[0] == "finetune(lr=0.001,epochs=1.0)" and answer.seeds[0] == 2 and study.more_seeds(chosen=dict(BEST=1e-3)).more[0]
    text = open(study.report(tmp_path / "report")["summary.md"]).read()
    assert "Not answered. The plan leaves BEST open" in text

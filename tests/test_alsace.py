"""ALSACE: the vote, the losses with their known gradients, one pass per language, the run and its controls."""
import copy
import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toy_alsace
from toy_alsace import LANGS, shared_stage, text, world
from xlnb.data.tasks import TASKS, own_task
from xlnb.methods.alsace.baselines import alsace_baselines
from xlnb.core import XlnbError
from xlnb.methods.alsace.losses import DIRECTIONS, alsace_loss, distillation_loss, language_pairs, pair_by_pair
from xlnb.methods.alsace.diagnostics import (calibration_change_measure, score_items, teacher_gains_measure, vote_accuracy_measure,
                                             votes_measure)
from xlnb.methods.alsace.method import ALSACE, distil
from xlnb.data.parallel import split_text
from xlnb.evaluation.scoring import ClozeScorer, Verbaliser
from xlnb.methods.alsace.vote import choose_teachers, confidence, normalise, oracle_teachers, plot_teachers, random_teachers, select_teachers, vote
from xlnb.training.schedule import Budget
from xlnb.training.stage import Method, run_method, seeded

XNLI = "en fr bg es de vi ru el zh th tr hi ar ur sw".split()


# --- the vote ---------------------------------------------------------------------------------------------------------
@st.composite
def distributions(draw):
    n, l, c = draw(st.integers(1, 12)), draw(st.integers(2, 7)), draw(st.integers(2, 4))
    r = np.random.default_rng(draw(st.integers(0, 10**6)))
    p = r.dirichlet(np.ones(c), (n, l))
    if draw(st.booleans()): p = np.round(p * 4) / 4 + 1e-9; p /= p.sum(-1, keepdims=True)  # many ties
    return p, r


@settings(max_examples=60, deadline=None)
@given(distributions(), st.booleans(), st.sampled_from(["sum", "softmax"]))
def test_selection_does_not_depend_on_order(case, leave_one_out, how):
    p, r = case
    langs = [f"l{i}" for i in range(p.shape[1])]
    rows, cols = r.permutation(len(p)), r.permutation(len(langs))
    a = select_teachers(p, langs, how, leave_one_out=leave_one_out)
    b = select_teachers(p[rows][:, cols], [langs[c] for c in cols], how, leave_one_out=leave_one_out)
    assert sorted(a.teachers) == sorted(b.teachers) and np.array_equal(a.R[cols], b.R) and np.array_equal(a.labels[rows], b.labels)
    assert abs(a.S.mean() - 1 / len(langs)) < 1e-12 and a.teachers
    assert sorted(a.teachers + a.students) == sorted(langs)


@settings(max_examples=40, deadline=None)
@given(distributions())
def test_vote_and_confidence_against_loops(case):
    p, _ = case
    labels, tied = vote(p)
    for i, row in enumerate(p):
        counts, mass = [0] * p.shape[2], [sorted(row[:, c]) for c in range(p.shape[2])]
        for lang in row: counts[int(np.argmax(lang))] += 1
        best = [c for c in range(p.shape[2]) if counts[c] == max(counts)]
        assert tied[i, 0] == (len(best) > 1)
        assert labels[i, 0] in best and all(np.sum(mass[labels[i, 0]]) >= np.sum(mass[c]) - 1e-9 for c in best)
    R = confidence(p, labels)
    for l in range(p.shape[1]): assert R[l] == pytest.approx(np.mean([p[i, l, labels[i, 0]] for i in range(len(p))]), abs=1e-12)


def test_vote_and_report_in_full():
    "Three languages, two rows: confidence by one label for all, one language alone, messages with their numbers"
    p = np.array([[[.8, .2], [.6, .4], [.3, .7]], [[.1, .9], [.2, .8], [.6, .4]]])
    assert confidence(p, [0, 1]) == pytest.approx([.85, .7, .35]) and confidence(p, np.array([[0, 0, 1], [1, 1, 0]])) == pytest.approx([.85, .7, .65])
    assert choose_teachers([.2, .5, .3], "abc", "top-2") == (["b", "c"], .3) and choose_teachers([.3, .4, .3], "cba", "top-2") == (["b", "a"], .3)
    assert [choose_teachers([.2, .5, .3], "abc", f"top-{k}")[1] for k in (1, 2, 3)] == [.5, .3, .2]
    with pytest.raises(XlnbError, match="non-negative"): confidence(np.array([[[-.2, 1.2]]]), [0])
    assert [len(random_teachers("abc", n)) for n in (1, 2, 3)] == [1, 2, 3] and oracle_teachers(p, [0, 1], "abc") == ["a", "b"] and oracle_teachers(p, [0, 1], "abc", 1) == ["a"]
    for n in (0, 4):
        with pytest.raises(XlnbError, match=f"{n} teachers can not be drawn from 3"): random_teachers("abc", n)
    alone = select_teachers(p[:, :1], ["a"])
    assert (alone.teachers, alone.students, alone.tied.tolist(), alone.labels.tolist()) == (["a"], [], [False, False], [0, 1])
    with pytest.raises(XlnbError, match=r"0\.184 to 0\.447 and their mean is 0\.333"): select_teachers(p, "abc", threshold=.5)


def test_a_figure_of_the_vote_and_its_roles():
    report = select_teachers(np.array([[[.9, .1], [.6, .4], [.8, .2]]]), "abc", threshold=.3)
    ax, = plot_teachers(report, title="who").axes
    bars = [(b.get_height(), b.get_hatch()) for b in ax.patches]
    assert bars == [(pytest.approx(.9), ""), (pytest.approx(.8), ""), (pytest.approx(.6), "///")]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["a", "c", "b"] and ax.get_ylim() == (0, 1) and (ax.get_title(), ax.get_ylabel()) == ("who", "confidence R")
    line, = ax.lines
    assert [*line.get_ydata()] == pytest.approx([.3 * 2.3] * 2)     # on the scale of R
    assert {*(t.get_text() for t in ax.get_legend().get_texts())} == {"teacher", "student", "threshold"} and not ax.get_legend().get_frame_on()


def test_equal_languages_all_teach():
    for how in ("sum", "softmax"):
        for k in range(2, 40): assert len(choose_teachers(normalise(np.full(k, 0.3), how), range(k))[0]) == k


def test_softmax_is_stricter_than_sum():
    r = np.random.default_rng(0)
    for _ in range(200):
        R = r.random(9)
        a, b = (set(choose_teachers(normalise(R, how), range(9))[0]) for how in ("sum", "softmax"))
        assert b <= a


# --- pairs and losses -------------------------------------------------------------------------------------------------
def test_pair_counts():
    assert len(language_pairs(XNLI, XNLI[:7])) == 77 and len(language_pairs(XNLI, strategy="all")) == 105
    pairs = language_pairs(XNLI, XNLI[:7])
    assert sum(i < 7 and j < 7 for i, j in pairs) == 21 and sum(i < 7 <= j for i, j in pairs) == 56 and len(set(pairs)) == 77


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_identical_versions_have_no_loss_and_no_gradient(direction):
    z = torch.randn(6, 1, 3, dtype=torch.float64).repeat(1, 5, 1).requires_grad_()
    loss = distillation_loss(z, language_pairs(XNLI[:5], XNLI[:2]), direction)
    (g,) = torch.autograd.grad(loss, z)
    assert loss.item() == pytest.approx(0, abs=1e-12) and g.abs().max() < 1e-12


def test_released_loss_on_given_logits():
    "As the authors compute it: KLDivLoss(log softmax of the stronger, softmax of the weaker), mean over pairs"
    strong = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], dtype=torch.float64, requires_grad=True)
    weak = torch.tensor([[0.3, 1.2, -0.4], [-2.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    released = torch.nn.KLDivLoss(reduction="none", log_target=False)(strong.log_softmax(-1), weak.softmax(-1)).sum(-1).mean()
    ours = distillation_loss(torch.stack([strong, weak], 1), [(0, 1)], "student_first")
    assert ours.item() == pytest.approx(released.item(), abs=1e-14)
    for a, b in zip(torch.autograd.grad(ours, (strong, weak)), torch.autograd.grad(released, (strong, weak))): torch.testing.assert_close(a, b)
    p1, p2 = strong.softmax(-1).detach(), weak.softmax(-1).detach()
    g1, g2 = torch.autograd.grad(distillation_loss(torch.stack([strong, weak], 1), [(0, 1)], "student_first"), (strong, weak))
    kl = (p2 * (p2 / p1).log()).sum(-1, keepdim=True)
    torch.testing.assert_close(g1, (p1 - p2) / 2)
    torch.testing.assert_close(g2, p2 * ((p2 / p1).log() - kl) / 2)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_detached_teacher_gets_no_gradient(direction):
    z = torch.randn(4, 5, 3, requires_grad=True)
    pairs = [(t, s) for t in (0, 1) for s in (2, 3, 4)]
    (g,) = torch.autograd.grad(distillation_loss(z, pairs, direction, detach_teacher=True), z)
    assert g[:, :2].abs().max() == 0 and g[:, 2:].abs().max() > 0


def test_one_pass_per_language_has_the_gradient_of_the_pairs(toy):
    ctx, model, _ = toy
    model, plan = copy.deepcopy(model).double(), shared_stage(ctx, copy.deepcopy(model))
    batch = plan.stage.collator(plan.stage.data[:4])
    ids, mask = (batch[k].view(4, len(LANGS), -1) for k in ("input_ids", "attention_mask"))
    def gradient(loss): return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), allow_unused=True) if g is not None])
    for options in (dict(), dict(direction="student_first"), dict(direction="jsd", temperature=2.0), dict(detach_teacher=True)):
        once = distillation_loss(model(input_ids=ids.flatten(0, 1), attention_mask=mask.flatten(0, 1)).logits.view(4, len(LANGS), -1), plan.pairs, **options)
        twice = pair_by_pair(lambda l: model(input_ids=ids[:, l], attention_mask=mask[:, l]).logits, plan.pairs, **options)
        assert once.item() == pytest.approx(twice.item(), abs=1e-12)
        torch.testing.assert_close(gradient(once), gradient(twice), atol=1e-12, rtol=1e-9)


def test_a_step_reads_every_language_once(toy):
    ctx, model, _ = toy
    model = copy.deepcopy(model)
    plan = ALSACE(text=text(), guard=None).plan(model, ctx)
    read = []
    model.register_forward_pre_hook(lambda m, a, kw: read.append(len(kw["input_ids"])), with_kwargs=True)
    plan.stage.loss(model, plan.stage.collator(plan.stage.data[:5]))
    assert read == [5 * len(LANGS)] and len(plan.pairs) > 1


# --- runs -------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def toy():
    yield world()
    TASKS.pop("toy-words", None)


def accuracy(model, ctx): return score_items(model, ctx).groupby("lang", sort=False).correct.mean().to_dict()


@pytest.mark.parametrize("options", [dict(lr=3e-4), dict(lr=3e-3, detach_teacher=True, anchor=1.0)])
def test_weak_languages_learn_and_english_stays(toy, options):
    ctx, model, _ = toy
    before = accuracy(model, ctx)
    done = distil(copy.deepcopy(model), ctx, ALSACE(text=text(200), epochs=8, **options))
    after = accuracy(done.model, ctx)
    assert before["en"] > 0.85 and "en" in done.report.teachers
    weakest = min(before, key=before.get)
    assert weakest in done.report.students and after[weakest] > before[weakest] + 0.05 and after["en"] > before["en"] - 0.05
    assert done.watched.agreement.iloc[1:].max() > done.watched.agreement.iloc[0]


def test_the_best_weights_are_kept_and_read_again(toy, tmp_path):
    ctx, model, _ = toy
    for out in (None, tmp_path):
        method = ALSACE(text=text(), lr=2e-3, epochs=4, evaluations=4, guard=None)
        done = distil(copy.deepcopy(model), replace(ctx, out=out), method)
        assert done.result.best == pytest.approx(done.watched.agreement[1:].max())
    last = distil(copy.deepcopy(model), ctx, replace(method, select="last"))
    assert last.result.best_step == last.result.steps == done.result.steps
    again = distil(copy.deepcopy(model), replace(ctx, out=tmp_path), method)  # finished: read, not run
    assert again.result.steps == done.result.steps and not again.plan.watch.log and again.result.extra == done.result.extra
    for a, b in zip(done.model.state_dict().values(), again.model.state_dict().values()): assert torch.equal(a, b)


COLLAPSE = dict(lr=0.3, epochs=30, batch_size=8)


def test_a_collapse_stops_the_run_and_gives_the_weights_back(toy, tmp_path):
    "A seed that is stopped keeps its result: that of the model it started from"
    ctx, model, _ = toy
    for out in (None, tmp_path):
        run = copy.deepcopy(model)
        (result,) = run_method(ALSACE(text=text(), **COLLAPSE), run, replace(ctx, out=out))
        assert "source" in result.stopped or "entropy" in result.stopped
        assert result.steps < 30 * 6 and result.model is run and not run.training
        for a, b in zip(model.state_dict().values(), run.state_dict().values()): assert torch.equal(a, b)
        assert result.extra["probability_change"] == 0
    again = copy.deepcopy(model)  # finished: read, not run
    (read,) = run_method(ALSACE(text=text(), **COLLAPSE), again, replace(ctx, out=tmp_path))
    assert read.stopped == result.stopped
    for a, b in zip(model.state_dict().values(), again.state_dict().values()): assert torch.equal(a, b)


def test_a_stopped_cell_has_items(toy, tmp_path):
    from xlnb.study.cell import run_cell
    items, info = run_cell(toy_cell(toy, tmp_path, ALSACE(text=text(), **COLLAPSE), epochs=5.), tmp_path / "out")
    plain, _ = run_cell(toy_cell(toy, tmp_path, None, epochs=5.), tmp_path / "plain")
    assert info["stages"][1]["stopped"] and not info["stages"][0]["stopped"]
    assert items.prediction.tolist() == plain.prediction.tolist()


# --- how far a run moves ----------------------------------------------------------------------------------------------
def test_defaults_move_predictions(toy):
    "Rate times steps follows the release's, within a bound; 65 steps of 2e-7 moved nothing"
    ctx, model, _ = toy
    done = distil(copy.deepcopy(model), ctx, ALSACE(text=text(200)))
    assert done.result.extra["probability_change"] > 0.01
    before, after = score_items(model, ctx), score_items(done.model, ctx)
    assert (before.prediction != after.prediction).any()


def test_rate_times_steps_follows_the_release():
    from types import SimpleNamespace as NS
    from xlnb.methods.alsace.method import RELEASED_TRAVEL, distillation_rate
    base = NS(config=NS(hidden_size=768))
    assert RELEASED_TRAVEL == pytest.approx(96_300 * 3e-8, rel=0.001)
    assert distillation_rate(base, 96_300) == pytest.approx(3e-8, rel=0.001)
    for steps in (1000, 10_000): assert distillation_rate(base, steps) * steps == pytest.approx(RELEASED_TRAVEL)
    assert distillation_rate(base, 10) == distillation_rate(base, 65) == pytest.approx(4e-6)  # a fifth of the rate of fine-tuning at most
    assert distillation_rate(NS(config=NS(hidden_size=128)), 65) > distillation_rate(base, 65)


def test_the_change_of_a_probability_is_that_of_the_chosen_weights(toy):
    from xlnb.evaluation.scoring import HeadScorer, label_logits, label_probs
    ctx, model, _ = toy
    done = distil(copy.deepcopy(model), ctx, ALSACE(text=text(), lr=3e-3, epochs=4, evaluations=4, guard=None))
    def held(m): return label_probs(label_logits(m, HeadScorer(ctx.task, ctx.tokenizer, 40), done.plan.held.rows))[0]
    assert done.result.extra["probability_change"] == pytest.approx(abs(held(done.model) - held(model)).mean(), abs=1e-6)


# --- what decides a result is in its key ------------------------------------------------------------------------------
def toy_cell(toy, folder, method, encoder="encoder", task=None, **finetune):
    from xlnb.study.cell import Cell
    from xlnb.methods.finetune import FineTune
    from xlnb.study.recipe import recipe
    ctx, _, mlm = toy
    if not (folder / encoder).exists():
        mlm.save_pretrained(folder / encoder)
        ctx.tokenizer.save_pretrained(folder / encoder)
    return Cell(task or ctx.task, str(folder / encoder), recipe([FineTune(**dict(lr=3e-3, select="last") | finetune), *([method] if method else [])]), 0, Budget(eval_examples=100, max_length=40), LANGS)


def test_validation_rows_of_targets_that_decide_are_in_the_key(toy, tmp_path):
    sets = {s: toy_alsace.rows(n, k, s) for k, (s, n) in enumerate(dict(train=40, validation=20, test=20).items())}
    def task(change):
        table = {l: {s: [dict(r) for r in sets[s][l]] for s in sets if s != "train" or l == "en"} for l in LANGS}
        if change: table["ur"]["validation"][3][change] = {"label": "high" if table["ur"]["validation"][3]["label"] == "low" else "low", "text": "ba bo"}[change]
        return own_task("toy-few", "sentence", table, labels=("low", "high"))
    def keys(**options): return [toy_cell(toy, tmp_path, ALSACE(**options), task=task(change)).key() for change in (None, None, "label", "text")]
    try:
        same, again, label, words = keys(text="validation")
        assert same == again == label != words  # as unlabelled text, the words decide
        same, again, label, words = keys(text=text(), teachers="oracle")
        assert same == again and len({same, label, words}) == 3
        assert len(set(keys(text=text()))) == 1  # neither reads them
    finally: TASKS.pop("toy-few", None)


def test_a_scorer_of_ones_own_gives_the_same_key_everywhere(toy, tmp_path):
    ctx, forms = toy[0], toy_alsace.words()
    def key(words): return toy_cell(toy, tmp_path, ALSACE(text=text(), scorer=ClozeScorer(ctx.task, ctx.tokenizer, Verbaliser("{text} {mask}", words), 40))).key()
    assert key((forms["en"][0], forms["en"][8])) == key((forms["en"][0], forms["en"][8])) != key((forms["en"][1], forms["en"][8]))
    def own(size): return toy_cell(toy, tmp_path, ALSACE(text=text(), scorer=OwnScorer(size))).key()
    assert own(3) == own(3) != own(4)  # another object, another address


class OwnScorer:
    "A scorer as a user may write one, without a `fingerprint`"
    def __init__(self, size): self.size, self.cache = size, None


# --- anchors ----------------------------------------------------------------------------------------------------------
def test_anchors_are_drawn_per_batch(toy):
    "All labelled rows serve in the end, beside any instance; only the first ones did"
    ctx, model, _ = toy
    plan = ALSACE(text=text(40), anchor=1.0, guard=None).plan(copy.deepcopy(model), ctx)
    rows = [plan.stage.data[i] for i in range(8)]
    def anchors(seed):
        with seeded(seed): batch = plan.stage.collator(rows)
        return [tuple(t.tolist()) + (int(y),) for t, y in zip(batch["anchor_input_ids"], batch["anchor_labels"])]
    drawn = [anchors(s) for s in range(40)]
    assert drawn[0] == anchors(0) != drawn[1] and all(len(set(d)) > 4 for d in drawn)
    assert len({a for d in drawn for a in d}) > 150  # of 320


def test_select_by_source_and_without_it(toy):
    ctx, model, _ = toy
    done = distil(copy.deepcopy(model), ctx, ALSACE(text=text(), steps=4, select="source", evaluations=2))
    assert done.result.best == pytest.approx(done.watched.source_accuracy[1:].max()) and done.result.steps == 4


def test_baselines_take_the_same_steps(toy):
    ctx, model, _ = toy
    recipes = alsace_baselines(None, text=text(40), epochs=2, batch_size=8, evaluations=1, guard=None)
    assert recipes["no distillation"] == [None]
    done = {name: distil(copy.deepcopy(model), ctx, after[0]) for name, (_, *after) in recipes.items() if after}
    assert {d.result.steps for d in done.values()} == {8}
    kept = done["self-training, all languages"].plan.stage.data
    assert len(kept) == 32 * len(LANGS) // 2 and len(done["self-training, source"].plan.stage.data) == 16
    assert done["random teachers"].report.source == "random" and len(done["random teachers"].report.teachers) == len(done["ALSACE"].report.teachers)
    assert done["source as the only teacher"].plan.pairs == [(0, 1), (0, 2), (0, 3)]
    assert "oracle" in done["oracle teachers (target labels)"].plan.stage.name


def test_measures_of_a_run(toy):
    from types import SimpleNamespace as NS
    ctx, start, _ = toy
    method, model = ALSACE(text=text(30), threshold="top-2", steps=2, evaluations=1, guard=None), copy.deepcopy(start)
    stages = [dict(extra=r.extra) for r in run_method(method, model, ctx)]
    run = NS(cell=NS(recipe=NS(methods=[method])), ctx=ctx, model=model, start=lambda: copy.deepcopy(start), stages=stages)
    votes = votes_measure(run)
    assert sum(r["value"] for r in votes if r["measure"] == "teaches") == 2
    assert {r["lang"] for r in votes if r["measure"] == "R"} == set(LANGS)
    right = {r["lang"]: r["value"] for r in vote_accuracy_measure(run) if r["measure"] == "vote: accuracy"}
    assert right[None] >= min(v for k, v in right.items() if k) and right.keys() == {None, *LANGS}
    gains = teacher_gains_measure(run)
    assert len(gains) == 2 * len(LANGS) and max(abs(r["value"]) for r in gains) < 0.5
    ece = calibration_change_measure(run)
    assert len(ece) == 2 * len(LANGS) and all(0 <= r["value"] <= 1 for r in ece)
    run.stages = [dict(extra={})]
    assert votes_measure(run) == vote_accuracy_measure(run) == teacher_gains_measure(run) == []


def test_the_sure_half_is_kept(toy):
    ctx, model, _ = toy
    from xlnb.evaluation.scoring import HeadScorer, label_logits, label_probs
    plan = ALSACE(text=text(40), objective="self-training-source").plan(copy.deepcopy(model), ctx)
    probs, _ = label_probs(label_logits(model, HeadScorer(ctx.task, ctx.tokenizer, 40), {"en": plan.text.rows["en"]}))
    sure = np.sort(probs[:, 0].max(-1))[::-1]
    kept = label_logits_of(model, plan.stage.data, ctx)
    assert len(kept) == 16 and min(kept) == pytest.approx(sure[15], abs=1e-6)


def label_logits_of(model, features, ctx):
    "The probability that the model gives its own label on each row that was kept"
    from xlnb.evaluation.scoring import HeadScorer
    from xlnb.training.stage import predict
    out = predict(model, features, HeadScorer(ctx.task, ctx.tokenizer, 40).collate)
    return [float(torch.tensor(z).double().softmax(-1)[f["labels"]]) for z, f in zip(out, features)]


def test_an_evaluation_split_warns(toy):
    ctx, model, _ = toy
    with pytest.warns(UserWarning, match="validation split"): ALSACE(text="validation", amount=20).plan(copy.deepcopy(model), ctx)
    hidden = replace_origin(split_text(ctx.task, "test", LANGS, n=30))
    with pytest.warns(UserWarning, match="100% of the unlabelled rows are in the test split"): ALSACE(text=hidden).plan(copy.deepcopy(model), ctx)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ALSACE(text=text()).plan(copy.deepcopy(model), ctx)


def replace_origin(t): return replace(t, evaluation=None)


def test_cloze_scores_in_translated_templates(toy):
    ctx, _, mlm = toy
    forms = toy_alsace.words()
    verbaliser = Verbaliser("{text} {mask}", (forms["en"][0], forms["en"][8]), {"ur": "{mask} {text}"}, {l: (forms[l][0], forms[l][8]) for l in LANGS})
    scorer = ClozeScorer(ctx.task, ctx.tokenizer, verbaliser, 40)
    model = copy.deepcopy(mlm)
    done = distil(model, ctx, ALSACE(text=text(30), scorer=scorer, steps=3, evaluations=1, guard=None, anchor=1.0))
    assert done.result.steps == 3 and np.isfinite(done.watched.confidence).all() and {"distil", "anchor"} <= {k for h in done.result.history for k in h}


def test_options_and_errors(toy):
    ctx, model, _ = toy
    assert isinstance(ALSACE(), Method) and (ALSACE.name, ALSACE.slot) == ("alsace", "after") and hash(ALSACE(teachers=["en"]))
    from xlnb.study.recipe import recipe
    assert recipe("finetune+alsace(threshold='top-3',direction=student_first,anchor=0.5,teachers=['en'])").after[0] == ALSACE(threshold="top-3", direction="student_first", anchor=0.5, teachers=("en",))
    with pytest.raises(XlnbError, match="direction"): recipe("finetune+alsace(direction=backwards)")
    with pytest.raises(XlnbError, match="unlabelled parallel text"): ALSACE().plan(model, ctx)
    with pytest.raises(XlnbError, match="not among the languages"): ALSACE(text=text(), teachers=("fr",)).plan(model, ctx)
    with pytest.warns(UserWarning, match="take no part"): plan = ALSACE(text=text().only(["en", "de"])).plan(copy.deepcopy(model), ctx)
    assert plan.langs == ["en", "de"]


def test_in_a_recipe(toy, tmp_path):
    from xlnb.study.cell import Cell, run_cell
    from xlnb.methods.finetune import FineTune
    from xlnb.study.recipe import recipe
    ctx, _, mlm = toy
    mlm.save_pretrained(tmp_path / "encoder")
    ctx.tokenizer.save_pretrained(tmp_path / "encoder")
    def cell(t): return Cell(ctx.task, str(tmp_path / "encoder"), recipe([FineTune(lr=3e-3, steps=3), ALSACE(text=t, steps=3, evaluations=1, guard=None)]), 0, Budget(eval_examples=20, max_length=40), LANGS)
    items, info = run_cell(cell(text()), tmp_path / "out")
    assert [s["method"] for s in info["stages"]] == ["finetune", "alsace"] and info["stages"][1]["stage"].startswith("distil ")
    assert len(items) == 20 * len(LANGS) and info["stages"][1]["extra"]["teachers"]["teachers"]
    assert cell(text()).key() == cell(text()).key() != cell(text(61)).key()


def test_rows_with_choices_are_split_between_rows():
    "A batch large enough for parts, as 32 instances in nine languages are, has the logits of the whole"
    from xlnb.data.tasks import get_task
    from xlnb.methods.alsace.method import logits_by_length
    from xlnb.models.heads import with_head

    model = with_head("lab", get_task("lab-choice"), seed=0).eval()
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 4000, (288, 2, 44), generator=g)
    mask = (torch.arange(44) < torch.randint(4, 45, (288, 2, 1), generator=g)).long()
    seen = []
    hook = model.register_forward_pre_hook(lambda m, args, kw: seen.append(kw["input_ids"].shape), with_kwargs=True)
    with torch.no_grad():
        parts = logits_by_length(model, dict(input_ids=ids, attention_mask=mask))
        hook.remove()
        whole = model(input_ids=ids, attention_mask=mask).logits
    assert len(seen) == 288 * 2 * 44 // 6000 and all(s[1] == 2 for s in seen) and sum(s[0] for s in seen) == 288
    assert parts.shape == (288, 2) and torch.allclose(parts, whole, atol=1e-5)

"""Two processes train as one: the same global batches, the same weights up to rounding."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import toy_alsace, toy_clism, toy_levels, toy_losses
from toy_processes import unsaid
from toy_stage import encoder, shared_objective, shared_stage, stage, told
from xlnb.core import XlnbError, sealed
from xlnb.data.tasks import TASKS
from xlnb.methods.clism.objective import TERMS
from xlnb.study.grid import Study
from xlnb.training.stage import Budget, run_stage

HERE = Path(__file__).parent
ATOL = 2e-5  # weights: sums over a batch are taken in another order


def launch(name, out):
    return subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
                           HERE / "toy_processes.py", name, out],
                          capture_output=True, text=True, timeout=500, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def tuned():
    "Context and fine-tuned model of ALSACE"
    ctx, model, _ = toy_alsace.world()
    yield ctx, model
    TASKS.pop("toy-words", None)


@pytest.fixture(scope="module")
def out(tmp_path_factory, tuned):
    """Folder of all runs of two processes. They need two launches only, since importing takes longer than training: the
    first ends in the middle of a run"""
    out = tmp_path_factory.mktemp("two")
    save_file(tuned[1].state_dict(), out / "tuned.safetensors")
    os.environ["TOY_TOKENIZER"] = str(out / "pieces")
    toy_losses.pieces()
    first = launch("first", out)
    assert first.returncode != 0 and not told(out / "resumed"), first.stderr[-3000:]
    assert list((out / "resumed").glob("checkpoint-*")), first.stderr[-3000:]
    second = launch("second", out)
    (out / "second.txt").write_text(second.stderr)
    (out / "second.code").write_text(str(second.returncode))
    return out


@pytest.fixture(scope="module")
def one():
    torch.set_num_threads(1)
    return run_stage(shared_stage(), encoder(dropout=0.0), seed=5)


def both(out, name):
    "What the two processes told of a run"
    lines = told(out / name)
    assert len(lines) == 2, (out / "second.txt").read_text()[-3000:]
    assert lines[0]["sum"] == lines[1]["sum"], "the processes ended with different weights"
    return lines


def total(result): return float(sum(v.double().sum() for v in result.model.state_dict().values()))


def same_weights(result, folder):
    saved = load_file(folder / "model" / "model.safetensors")
    for k, v in result.model.state_dict().items():
        if k in saved: torch.testing.assert_close(saved[k], v, atol=ATOL, rtol=0)


def check(one, out, name):
    two, _ = both(out, name)
    assert (two["steps"], two["tokens"]) == (one.steps, one.tokens)
    assert (two["best_step"], two["selection"]) == (one.best_step, one.selection)
    assert two["best"] == (one.best and pytest.approx(one.best, abs=1e-9))
    same_weights(one, out / name)
    return two


def test_two_processes_equal_one(one, out):
    for a, b in zip(one.history, check(one, out, "fresh")["history"]):
        assert a.keys() == b.keys() and a["step"] == b["step"]
        for k in a.keys() & {"loss", "task", "pull", "eval_accuracy"}: assert a[k] == pytest.approx(b[k], abs=1e-4)


def test_two_processes_resume(one, out): check(one, out, "resumed")


def test_two_processes_share_an_objective(out):
    "Its weights too; and means over unequal numbers of things are those of one process"
    torch.set_num_threads(1)
    one = run_stage(*shared_objective(), seed=5)
    for a, b in zip(one.history, check(one, out, "objective")["history"]):
        for k in ("loss", "task", "words"): assert a[k] == pytest.approx(b[k], rel=1e-4), k


def test_a_batch_that_cannot_be_shared(out):
    "The last run of the second launch"
    assert int((out / "second.code").read_text()) != 0
    assert "cannot be shared by 2 processes" in (out / "second.txt").read_text()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_need_be_said_to_share_a_run_on_a_cpu(out, precision):
    "Two processes in one folder are one run of half batches each, whatever the precision"
    one, other = both(out, precision)
    alone = run_stage(*unsaid(precision), seed=1)
    assert one["world"] == other["world"] == 2 and one["precision"] == precision
    assert one["tokens"] == other["tokens"] == alone.tokens, "each saw half of every batch"
    assert one["steps"] == 4 and one["sum"] == pytest.approx(total(alone), abs=1e-2)


def same_steps(one, two, but=("seconds",)):
    "Every log line: losses and their parts, norms of gradients, tokens, evaluations"
    assert len(one) == len(two)
    for a, b in zip(one, two):
        assert a.keys() == b.keys() and a["step"] == b["step"]
        for k in a.keys() - {*but}: assert a[k] == pytest.approx(b[k], rel=1e-4, abs=2e-6), (k, a["step"])


def moved(result, start):
    now = result.model.state_dict()
    return max(float((now[k] - v).abs().max()) for k, v in start.items() if k in now)


def shared(out, name, stage, model):
    "A run of one process against what two processes made of it: log, weights, and weights of the objective"
    torch.set_num_threads(1)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    one = run_stage(stage, model, seed=0)
    two, _ = both(out, name)
    same_steps(one.history, two["history"])
    assert one.steps == 5 and moved(one, start) > 100 * ATOL, "so small a change would hide a wrong gradient"
    same_weights(one, out / name)
    if (kept := out / name / "objective.safetensors").exists():
        own = stage.loss.state_dict()
        for k, v in load_file(kept).items(): torch.testing.assert_close(v, own[k], atol=ATOL, rtol=0)
    return one, two


@pytest.mark.parametrize("name", toy_losses.SHARED)
def test_five_steps_of_every_loss_are_those_of_one_process(out, name):
    "Its evaluations too, of a number of rows that two processes cannot share equally"
    one, _ = shared(out, name, *toy_losses.SHARED[name]())
    found = {k for h in one.history for k in h}
    for kind, parts in {"salt": ("task", "switched", "consistency"), "token": ("token", "word"), "one l": ("mse",),
                        "items": ("eval_right_6", "eval_logit_6"), "loss of": ("eval_loss",)}.items():
        assert not name.startswith(kind) or found >= {*parts}


@pytest.mark.parametrize("name", toy_losses.HALVES)
def test_what_is_compared_within_a_batch_is_as_in_smaller_batches(out, name):
    "Contrast and batch normalisation without gathering: two processes are two halves of a step of one"
    shared(out, name, *toy_losses.HALVES[name](2))


def test_pre_training_is_that_of_one_process(out, tmp_path):
    "One process writes the checkpoint, and both return the log"
    one = toy_losses.pretrained(tmp_path / "one")
    for two in both(out, "pretraining"): same_steps([h for h in one if "loss" in h],
                                                    [h for h in two["history"] if "loss" in h])
    held = lambda log: [h for h in log if "eval_en_loss" in h]
    assert len(held(one)) == 5
    same_steps(held(one), held(told(out / "pretraining")[0]["history"]))
    a, b = (load_file(f / "model.safetensors") for f in (tmp_path / "one", out / "pretraining"))
    assert a.keys() == b.keys()
    for k in a: torch.testing.assert_close(a[k], b[k], atol=ATOL, rtol=0)
    assert sealed(out / "pretraining") and not (out / "pretraining" / "training").exists()


def test_questions_and_masked_tokens_are_counted_over_both(out):
    "CLISM, with negatives gathered from both"
    model = toy_clism.encoder()
    stages, stage = toy_clism.shared_stage(model)
    one = run_stage(stage, model, seed=0)
    stages.close()
    two, _ = both(out, "clism")
    same_weights(one, out / "clism")
    for a, b in zip(one.history, two["history"]):
        for k in ("loss", "clism", *TERMS, "mlm"): assert a[k] == pytest.approx(b[k], abs=1e-4), (k, a["step"])


def test_structure_over_two_processes_is_that_of_one(out):
    "MMKD: gathered similarities give the loss and the gradient of the whole batch"
    one = run_stage(*toy_levels.structure_stage(), seed=0)
    two, _ = both(out, "structure")
    assert two["sum"] == pytest.approx(total(one), abs=1e-5)
    for a, b in zip(one.history, two["history"]): assert a["structure"] == pytest.approx(b["structure"], abs=1e-5)


def test_the_vote_of_two_processes_is_that_of_one(tuned, out):
    "ALSACE"
    ctx, model = tuned
    plan = toy_alsace.shared_stage(ctx, model)
    one = run_stage(plan.stage, model, seed=0)
    two, _ = both(out, "alsace")
    assert two["teachers"] == plan.report.teachers
    assert (two["steps"], two["tokens"], two["best_step"]) == (one.steps, one.tokens, one.best_step)
    same_weights(one, out / "alsace")
    for a, b in zip(one.history, two["history"]):
        for k in a.keys() & {"loss", "distil", "anchor", "eval_confidence"}:
            assert a[k] == pytest.approx(b[k], abs=1e-4)
        for k in a.keys() & {"eval_agreement", "eval_source_accuracy"}:
            assert a[k] == pytest.approx(b[k], abs=0.04)  # a prediction on the edge


@pytest.mark.parametrize("asked", ["by accelerate launch", "by an argument"])
def test_weights_in_parts_are_refused(asked, monkeypatch):
    "FSDP: on a CPU Accelerate would train whole copies without a word, elsewhere the model would be left in parts"
    if asked == "by accelerate launch": monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    plain = stage(evaluate=False, max_steps=1, **{"fsdp": True} if asked == "by an argument" else {})
    with pytest.raises(XlnbError, match="'toy' cannot run under FSDP.*distributed_type: MULTI_GPU.*accumulate="):
        run_stage(plain, encoder())


def test_a_study_is_not_mixed_between_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(XlnbError, match="under torchrun.*start the same call several times"):
        Study("lab-inference", store=tmp_path, budget=Budget(train_examples=8, eval_examples=4)).run()

"""Two processes train as one: the same global batches, the same weights up to rounding."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from toy_stage import collate, encoder, rows, shared_objective, shared_stage, told
from xlnb.core import XlnbError
from xlnb.study.grid import Study
from xlnb.training.schedule import Schedule
from xlnb.training.stage import Budget, Stage, run_stage, task_loss

HERE = Path(__file__).parent
ATOL = 2e-5  # weights: sums over a batch are taken in another order


def two_processes(out, stop=-1):
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", HERE / "toy_stage.py", "shared", out, str(stop)],
                         capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return run, told(out)


@pytest.fixture(scope="module")
def one():
    torch.set_num_threads(1)
    return run_stage(shared_stage(), encoder(dropout=0.0), seed=5)


def check(one, lines, out):
    assert len(lines) == 2 and lines[0]["sum"] == lines[1]["sum"], "the processes ended with different weights"
    two = lines[0]
    assert (two["steps"], two["tokens"], two["best_step"], two["selection"]) == (one.steps, one.tokens, one.best_step, one.selection)
    assert two["best"] == (one.best and pytest.approx(one.best, abs=1e-9))
    saved = load_file(out / "model" / "model.safetensors")
    for k, v in one.model.state_dict().items():
        if k in saved: torch.testing.assert_close(saved[k], v, atol=ATOL, rtol=0)


def test_two_processes_equal_one(one, tmp_path):
    run, lines = two_processes(tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    check(one, lines, tmp_path)
    for a, b in zip(one.history, lines[0]["history"]):
        assert a.keys() == b.keys() and a["step"] == b["step"]
        for k in a.keys() & {"loss", "task", "pull", "eval_accuracy"}: assert a[k] == pytest.approx(b[k], abs=1e-4)


def test_two_processes_resume(one, tmp_path):
    run, lines = two_processes(tmp_path, stop=20)
    assert run.returncode != 0 and not lines and list(tmp_path.glob("checkpoint-*"))
    run, lines = two_processes(tmp_path)
    assert run.returncode == 0, run.stderr[-3000:]
    check(one, lines, tmp_path)


def test_two_processes_share_an_objective(tmp_path):
    "Its weights too; and means over unequal numbers of things are those of one process"
    torch.set_num_threads(1)
    stage, model = shared_objective()
    one = run_stage(stage, model, seed=5)
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", HERE / "toy_stage.py", "objective", tmp_path],
                         capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert run.returncode == 0, run.stderr[-3000:]
    lines = told(tmp_path)
    check(one, lines, tmp_path)
    for a, b in zip(one.history, lines[0]["history"]):
        for k in ("loss", "task", "words"): assert a[k] == pytest.approx(b[k], rel=1e-4), k


def test_a_batch_that_cannot_be_shared(tmp_path):
    code = "from toy_stage import *; from xlnb.training.stage import run_stage; run_stage(stage(per_device_train_batch_size=15, use_cpu=True), encoder(), %r)" % str(tmp_path)
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python", sys.executable, "-c", code],
                         capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE)})
    assert run.returncode != 0 and "cannot be shared by 2 processes" in run.stderr


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_need_be_said_to_share_a_run_on_a_cpu(tmp_path, precision):
    "Two processes in one folder are one run of half batches each, whatever the precision"
    code = ("from toy_stage import *; from xlnb.training.schedule import Schedule; import torch.distributed as dist; from xlnb.training.stage import run_stage\n"
            f"stage = Stage('toy', rows(64), collate, task_loss, Schedule(steps=4, batch_size=16, lr=1e-2, precision='{precision}'))\n"
            f"tell(r'{tmp_path}', run_stage(stage, encoder(dropout=0.0), r'{tmp_path / 'run'}', seed=1), world=dist.is_initialized() and dist.get_world_size())")
    run = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--no-python", sys.executable, "-c", code],
                         capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])})
    assert run.returncode == 0, run.stderr[-3000:]
    one, other = told(tmp_path)
    stage = Stage("toy", rows(64), collate, task_loss, Schedule(steps=4, batch_size=16, lr=1e-2, precision=precision))
    alone = run_stage(stage, encoder(dropout=0.0), seed=1)
    assert one["world"] == other["world"] == 2 and one["sum"] == other["sum"] and one["precision"] == precision
    assert one["tokens"] == other["tokens"] == alone.tokens, "each saw half of every batch"
    assert one["steps"] == 4 and one["sum"] == pytest.approx(float(sum(v.double().sum() for v in alone.model.state_dict().values())), abs=1e-2)


def test_a_study_is_not_mixed_between_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(XlnbError, match="under torchrun.*start the same call several times"):
        Study("lab-inference", store=tmp_path, budget=Budget(train_examples=8, eval_examples=4)).run()

"What two processes run together, started as processes of their own: python toy_processes.py first|second FOLDER"
import json
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import TrainerCallback

import toy_alsace, toy_clism, toy_levels, toy_losses
from toy_stage import collate, encoder, rows, shared_objective, shared_stage, stage, tell
from xlnb.training.schedule import Schedule
from xlnb.training.stage import Stage, run_stage, task_loss


class Stop(TrainerCallback):
    "The end of a process in the middle of a run"
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 20: raise KeyboardInterrupt


def unsaid(precision):
    "A stage that says nothing of devices and processes"
    schedule = Schedule(steps=4, batch_size=16, lr=1e-2, precision=precision)
    return Stage("toy", rows(64), collate, task_loss, schedule), encoder(dropout=0.0)


def started(out, precision):
    "The first run of a process: nothing has been shared before"
    result = run_stage(*unsaid(precision), out / precision, seed=1)
    tell(out / precision, result, world=dist.is_initialized() and dist.get_world_size())


def interrupted(out, *callbacks):
    result = run_stage(shared_stage(save_steps=7), encoder(dropout=0.0), out / "resumed", seed=5, callbacks=callbacks)
    tell(out / "resumed", result)


def methods(out):
    "A stage of each method that counts, gathers or votes over all processes"
    model = toy_clism.encoder()
    stages, one = toy_clism.shared_stage(model)
    tell(out / "clism", run_stage(one, model, out / "clism", seed=0))
    stages.close()
    tell(out / "structure", run_stage(*toy_levels.structure_stage(), out / "structure", seed=0))
    ctx, model, _ = toy_alsace.world(tune=False)
    model.load_state_dict(load_file(out / "tuned.safetensors"))
    plan = toy_alsace.shared_stage(ctx, model)
    tell(out / "alsace", run_stage(plan.stage, model, out / "alsace", seed=0), teachers=plan.report.teachers)


def losses(out):
    "Every loss that is a mean over rows or tokens; and pre-training, which returns its log alone"
    for name in (*toy_losses.SHARED, *toy_losses.HALVES):
        tell(out / name, run_stage(*toy_losses.made(name), out / name, seed=0))
    log = toy_losses.pretrained(out / "pretraining")
    dist.barrier()  # before a file of ours is in its folder
    Path(out, "pretraining", f"result-{os.environ['RANK']}.json").write_text(json.dumps(dict(history=log, sum=0.)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    launch, out = sys.argv[1], Path(sys.argv[2])
    if launch == "first":
        started(out, "bf16")
        interrupted(out, Stop())
    else:
        started(out, "fp32")
        interrupted(out)
        tell(out / "fresh", run_stage(shared_stage(save_steps=7), encoder(dropout=0.0), out / "fresh", seed=5))
        tell(out / "objective", run_stage(*shared_objective(), out / "objective", seed=5))
        methods(out)
        losses(out)
        run_stage(stage(per_device_train_batch_size=15, use_cpu=True), encoder(), out / "unequal")  # ends the launch

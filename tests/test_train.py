"""One trainer: seeded, resumable after any interruption, honest in its log, clear about bad input."""
import gc
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback, get_linear_schedule_with_warmup

from toy_stage import Pulled, collate, encoder, headed, noisy_collate, rows, same, stage, weights
from xlnb.core import XlnbError, device
from xlnb.training.schedule import Budget, Schedule, best_precision
from xlnb.training.stage import Stage, StageStopped, predict, run_stage, seeded, task_loss
from xlnb.training.trainer import EpochSampler

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("one_thread")


class Stop(TrainerCallback):
    "Interrupts after a step, as Ctrl-C would."
    def __init__(self, step): self.step = step
    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step: raise KeyboardInterrupt


def test_same_seed_same_weights():
    a, b, c = (run_stage(stage(), encoder(), seed=s) for s in (1, 1, 2))
    assert same(weights(a.model), weights(b.model))
    assert not same(weights(a.model), weights(c.model))
    drop = lambda h: [{k: v for k, v in r.items() if k != "seconds"} for r in h]
    assert drop(a.history) == drop(b.history)


def test_seed_of_the_caller_is_left_alone():
    torch.manual_seed(7); expected = torch.rand(3)
    torch.manual_seed(7); run_stage(stage(64, evaluate=False, max_steps=3), encoder_kept()); got = torch.rand(3)
    assert torch.equal(got, expected)


def encoder_kept():
    with seeded(0): return encoder()


@pytest.mark.parametrize("evaluate", [False, True])
def test_a_stage_that_is_over_leaves_nothing_to_the_collector(evaluate, monkeypatch):
    "Its optimiser, twice the size of the weights, goes at once; so nothing is searched for before a CPU trains"
    kept, searched, enabled = [], [], gc.isenabled()
    class Keep(TrainerCallback):
        def on_train_begin(self, args, state, control, optimizer=None, **kwargs): kept.append(weakref.ref(optimizer))
    monkeypatch.setattr(gc, "collect", lambda *args: searched.append(args))
    gc.disable()
    try: run_stage(stage(64, evaluate=evaluate, max_steps=3), encoder(), callbacks=[Keep()])
    finally:
        if enabled: gc.enable()
    assert len(kept) == 1 and kept[0]() is None
    assert not searched or device() != "cpu"


def test_learns():
    r = run_stage(stage(num_train_epochs=8), encoder(), seed=0)
    assert r.best > 0.9 and r.selection == "source" and r.best_step in [h["step"] for h in r.history if "eval_accuracy" in h]


@pytest.mark.parametrize("accumulate", [1, 3])
def test_parts_sum_to_the_loss(accumulate):
    r = run_stage(stage(evaluate=False, gradient_accumulation_steps=accumulate, num_train_epochs=3, logging_steps=5), encoder(), seed=0)
    lines = [h for h in r.history if "loss" in h]
    assert len(lines) > 2 and lines[-1]["step"] == r.steps
    for h in lines: assert h["loss"] == pytest.approx(h["task"] + h["pull"], rel=1e-5)


@pytest.mark.parametrize("kind", ["pair", "tags", "span", "objective"])
def test_accumulation_is_the_same_as_a_large_batch(kind):
    "Two batches of four rows of unequal length give the gradient of one of eight: a plain gradient step shows it"
    def run(n):
        data, collator, model, loss = headed(kind)
        args = dict(max_steps=3, learning_rate=0.5, optim="sgd", max_grad_norm=0, lr_scheduler_type="constant", logging_steps=1,
                    per_device_train_batch_size=8 // n, gradient_accumulation_steps=n)
        return run_stage(Stage("toy", data, collator, loss, args=args), model, seed=0)
    start, a, b = weights(headed(kind)[2]), run(1), run(2)
    for x, y in zip(a.history, b.history):
        for k in {*x} - {"seconds"}: assert x[k] == pytest.approx(y[k], rel=1e-4), (kind, k)
    for k, x in weights(a.model).items():
        torch.testing.assert_close(weights(b.model)[k] - start[k], x - start[k], atol=1e-6, rtol=1e-3, msg=k)


@pytest.mark.parametrize("kind", ["pair", "tags", "span"])
def test_a_row_has_one_loss_alone_and_batched_with_a_longer_one(kind):
    data, collator, model, loss = headed(kind)
    short, long = sorted(data, key=lambda r: len(r["input_ids"]))[::len(data) - 1]
    batch = collator([short, long])
    with torch.no_grad(): alone, padded = (loss(model.eval(), {k: v[:1] for k, v in b.items()})[0] for b in (collator([short]), batch))
    assert alone.item() == pytest.approx(padded.item(), rel=1e-5)


def test_an_objective_resumes_and_hands_on(tmp_path):
    "Its weights are in the checkpoints; at the end the model is alone, with what it was given"
    class Handing(Pulled):
        def hand_on(self, model): model.config.direction = self.direction.weight.tolist()
    def make(): data, collator, model, _ = headed("objective"); return Stage("toy", data, collator, Handing(), Schedule(lr=1e-2, steps=6, batch_size=8)), model
    ends = []
    for out, stops in ((tmp_path / "whole", None), (tmp_path / "cut", 4)):
        if stops:
            s, model = make(); s.args["save_steps"] = 2
            with pytest.raises(KeyboardInterrupt): run_stage(s, model, out, callbacks=[Stop(stops)])
            assert list(out.glob("checkpoint-*"))
        s, model = make(); s.args["save_steps"] = 2
        r = run_stage(s, model, out)
        ends.append((weights(r.model), s.loss.direction.weight.tolist(), r.model.config.direction))
    assert same(ends[0][0], ends[1][0]) and ends[0][1:] == ends[1][1:] and ends[0][1] == ends[0][2] != Handing().direction.weight.tolist()
    s, model = make(); s.args["save_steps"] = 2
    again = run_stage(s, model, tmp_path / "whole") # finished: read back
    assert again.steps == 6 and model.config.direction == ends[0][1] and same(weights(again.model), ends[0][0]) and set(ends[0][0]) == set(weights(headed("objective")[2]))


def test_unused_weights_stay(tmp_path):
    class Partly(Pulled):
        def unused(self, model): return list(model.classifier.parameters())
    data, collator, model, _ = headed("objective")
    before = weights(model)
    run_stage(Stage("toy", data, collator, Partly(), Schedule(lr=1e-2, steps=2, batch_size=8)), model)
    moved = {k for k, v in weights(model).items() if not torch.equal(v, before[k])}
    assert moved and not any(k.startswith("classifier") for k in moved) and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("frozen, still", [("none", []), ("embeddings", ["embeddings"]), (1, ["embeddings", "layer.0"])])
def test_frozen_parts_stay(frozen, still):
    model = encoder(dropout=0.0)
    before = weights(model)
    r = run_stage(Stage("toy", rows(32), collate, schedule=Schedule(lr=1e-2, steps=2, frozen=frozen)), model)
    moved = {k for k, v in weights(model).items() if not torch.equal(v, before[k])}
    assert "classifier.dense.weight" in moved and not any(part in k for k in moved for part in still)
    assert any("embeddings" in k for k in moved) == (not still) and all(p.requires_grad for p in model.parameters()) and r.steps == 2


def test_a_guard_gives_the_starting_weights_back(tmp_path):
    class Guard(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2: raise StageStopped("collapsed")
    s = lambda guarded: Stage("toy", rows(64), collate, schedule=Schedule(lr=1e-2, steps=5), guarded=guarded)
    model = encoder(); before = weights(model)
    r = run_stage(s(True), model, tmp_path / "a", callbacks=[Guard()])
    assert r.stopped == "collapsed" and r.steps == 2 and same(weights(r.model), before) and r.measures["stopped"]
    again = run_stage(s(True), encoder(), tmp_path / "a")
    assert again.stopped == "collapsed" and same(weights(again.model), before)
    with pytest.raises(XlnbError, match="guarded=True"): run_stage(s(False), encoder(), callbacks=[Guard()])


def test_precision_and_attention_are_recorded_and_put_back():
    model = encoder()
    r = run_stage(Stage("toy", rows(32), collate, schedule=Schedule(steps=1, precision="bf16", attention="eager")), model)
    assert (r.precision, r.attention) == ("bf16", "eager") and model.config._attn_implementation == "sdpa"
    assert all(p.dtype == torch.float32 for p in model.parameters())
    if not torch.cuda.is_available():
        r = run_stage(Stage("toy", rows(32), collate, schedule=Schedule(steps=1)), encoder())
        assert (r.precision, r.attention) == ("fp32", "sdpa")
        with pytest.raises(XlnbError, match="needs a GPU"): run_stage(Stage("toy", rows(32), collate, schedule=Schedule(steps=1, precision="fp16")), encoder())


def test_a_cell_is_tested_in_the_precision_that_it_was_trained_in(monkeypatch, tmp_path):
    from xlnb.study.cell import Cell, run_cell
    from xlnb.study.recipe import recipe
    from xlnb.data.tasks import get_task
    from xlnb.training import trainer
    from xlnb.training.stage import Budget
    seen, was = [], torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda *a, **kw:
                        seen.append((kw["dtype"], kw.get("enabled", True))) or was(*a, **kw))
    cell = lambda r: Cell(get_task("lab-inference"), "lab", recipe(r), 0, Budget(train_examples=16, eval_examples=8), ("en",))
    items, info = run_cell(cell("finetune(steps=1,precision=bf16)"), tmp_path/"a")
    assert info["stages"][0]["precision"] == "bf16" and set(seen) == {(torch.bfloat16, True)}
    seen.clear()
    run_cell(cell("finetune(steps=1)"), tmp_path/"b")
    assert seen and not any(on for _, on in seen) # on a CPU 'auto' is fp32
    with trainer.mixed_precision(encoder(), "bf16"): assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16

def test_emulated_bf16_is_not_taken(monkeypatch):
    "A T4 says that it supports bf16, by emulation, which is slower than fp32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert best_precision() == "fp32" == best_precision("cuda") and Schedule().resolved(encoder()).precision == "fp32"
    with pytest.raises(XlnbError, match="not computed by this GPU"): Schedule(precision="bf16").resolved(encoder())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert best_precision() == "bf16" and best_precision(weights=1000) == "fp32"


def test_steps_belong_to_a_schedule():
    "A budget counts rows and lengths, so few labels never shorten a method before fine-tuning"
    assert "steps" not in Budget.__dataclass_fields__ and "steps" in Schedule.__dataclass_fields__
    with pytest.raises(XlnbError, match="steps belong to a method"): Budget(steps=3)
    assert Schedule(steps=9).part(1 / 3).arguments()["max_steps"] == 3


def test_it_is_the_plain_training_loop():
    "Against the loop that everyone would write: same batches, AdamW, linear schedule with warm-up, clipping."
    data, model = rows(256), encoder(dropout=0.0)
    s = Stage("toy", data, collate, args=dict(num_train_epochs=2, per_device_train_batch_size=16, learning_rate=3e-3, warmup_steps=0.1, weight_decay=0.0, logging_steps=1))
    ours = run_stage(s, encoder(dropout=0.0), seed=4)
    sampler = EpochSampler(256, data["length"][:], 16, 4)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.0, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 4, 32)
    model.train()
    losses = []
    for sampler.epoch in range(2):
        order = [i % 256 for i in sampler]
        for i in range(0, 256, 16):
            losses.append(model(**collate([data[j] for j in order[i:i + 16]])).loss)
            losses[-1].backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step(); schedule.step(); optimizer.zero_grad()
    assert ours.steps == 32
    assert [h["loss"] for h in ours.history] == pytest.approx([l.item() for l in losses], rel=1e-4), "losses, since AdamW enlarges rounding in weights"


def test_tokens_are_counted_without_padding():
    r = run_stage(stage(64, collator=collate, evaluate=False, num_train_epochs=2), encoder(), seed=0)
    assert r.tokens == 2 * sum(rows(64)["length"]) and r.steps == 8 and r.seconds > 0 and r.peak_memory > 1


@pytest.mark.parametrize("evaluate", [True, False])
@pytest.mark.parametrize("step", [5, 16, 33, 48])
def test_interrupted_run_ends_with_the_same_weights(tmp_path, evaluate, step):
    how = dict(evaluate=evaluate, save_steps=7, gradient_accumulation_steps=1)
    whole = run_stage(stage(**how), encoder(), tmp_path / "whole", seed=3)
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage(**how), encoder(), tmp_path / "cut", seed=3, callbacks=[Stop(step)])
    resumed = run_stage(stage(**how), encoder(), tmp_path / "cut", seed=3)
    assert same(weights(whole.model), weights(resumed.model))
    assert (whole.steps, whole.tokens, whole.best, whole.best_step) == (resumed.steps, resumed.tokens, resumed.best, resumed.best_step)
    assert [h for h in map(evals, whole.history) if h] == [h for h in map(evals, resumed.history) if h]


def evals(h): return {k: v for k, v in h.items() if k.startswith("eval_")}


def test_interrupted_twice_with_accumulation(tmp_path):
    how = dict(save_steps=3, gradient_accumulation_steps=3, eval_strategy="epoch")
    whole = run_stage(stage(**how), encoder(), seed=3)
    for step in (4, 13):
        with pytest.raises(KeyboardInterrupt): run_stage(stage(**how), encoder(), tmp_path, seed=3, callbacks=[Stop(step)])
    assert same(weights(whole.model), weights(run_stage(stage(**how), encoder(), tmp_path, seed=3).model))


@pytest.mark.parametrize("evaluate", ["1", "0"])
def test_killed_run_ends_with_the_same_weights(tmp_path, evaluate):
    whole = run_stage(stage(evaluate=evaluate == "1"), encoder(), seed=5)
    run = subprocess.Popen([sys.executable, HERE / "toy_stage.py", tmp_path / "run", evaluate], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.time() + 120
    while time.time() < deadline and not list((tmp_path / "run").glob("checkpoint-*/complete.json")): time.sleep(0.05)
    time.sleep(0.5)
    assert run.poll() is None, "the run ended before it could be killed"
    run.send_signal(signal.SIGKILL); run.wait()
    assert list((tmp_path / "run").glob("checkpoint-*"))
    resumed = run_stage(stage(evaluate=evaluate == "1", save_steps=7), encoder(), tmp_path / "run", seed=5)
    assert same(weights(whole.model), weights(resumed.model))


def test_half_written_checkpoint_is_removed_with_a_warning(tmp_path):
    how = dict(evaluate=False, save_steps=7)
    whole = run_stage(stage(**how), encoder(), seed=3)
    with pytest.raises(KeyboardInterrupt): run_stage(stage(**how), encoder(), tmp_path, seed=3, callbacks=[Stop(20)])
    (good,) = tmp_path.glob("checkpoint-*")
    shutil.copytree(good, tmp_path / "checkpoint-18"); (tmp_path / "checkpoint-18" / "complete.json").unlink()
    shutil.copytree(good, tmp_path / "checkpoint-19"); os.truncate(tmp_path / "checkpoint-19" / "optimizer.pt", 100)
    with pytest.warns(UserWarning, match="half written"):
        resumed = run_stage(stage(**how), encoder(), tmp_path, seed=3)
    assert same(weights(whole.model), weights(resumed.model))


def test_a_folder_that_moved(tmp_path):
    "The best weights (here: the worst accuracy, an early one) are found again."
    def worst(): s = stage(save_steps=7); s.greater_is_better, s.patience = False, None; return s
    whole = run_stage(worst(), encoder(), seed=3)
    with pytest.raises(KeyboardInterrupt): run_stage(worst(), encoder(), tmp_path / "a", seed=3, callbacks=[Stop(60)])
    shutil.move(tmp_path / "a", tmp_path / "b")
    resumed = run_stage(worst(), encoder(), tmp_path / "b", seed=3)
    assert whole.best_step == resumed.best_step < 48 and same(weights(whole.model), weights(resumed.model))


def test_finished_run_is_read_not_run_again(tmp_path):
    first = run_stage(stage(), encoder(), tmp_path, seed=3)
    start = time.time()
    again = run_stage(stage(), encoder(), tmp_path, seed=3)
    assert time.time() - start < 2 and same(weights(first.model), weights(again.model)) and again.history == first.history
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "result.json", "stage.json"]
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    json.dumps(again.measures)


def test_folder_of_another_run_is_refused(tmp_path):
    run_stage(stage(64, evaluate=False, max_steps=2), encoder(), tmp_path, seed=3)
    with pytest.raises(XlnbError, match="another run.*seed"): run_stage(stage(64, evaluate=False, max_steps=2), encoder(), tmp_path, seed=4)
    with pytest.raises(XlnbError, match="another run"): run_stage(stage(64, evaluate=False, max_steps=2), encoder(1), tmp_path, seed=3)


def test_early_stopping_and_best_weights():
    valid = rows(32, seed=1)
    seen = []
    def falling(logits): seen.append([l.copy() for l in logits]); return {"accuracy": 1 - 0.1 * len(seen)}
    s = Stage("toy", rows(64), collate, args=dict(num_train_epochs=20, per_device_train_batch_size=16, learning_rate=3e-3), eval_data=valid,
              compute_metrics=falling, metric="accuracy", patience=2)
    r = run_stage(s, encoder(), seed=0)
    assert r.steps == 3 * 4 and r.best_step == 4 and r.best == 0.9
    for a, b, c in zip(seen[0], predict(r.model, valid, collate), seen[-1]):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_evaluating_does_not_change_what_is_learnt():
    a = run_stage(stage(evaluate=False, max_steps=20), encoder(), seed=0)
    s = stage(max_steps=20, eval_steps=3); s.compute_metrics = lambda logits: {"accuracy": time.time()}
    b = run_stage(s, encoder(), seed=0)
    assert b.best_step == 20 and same(weights(a.model), weights(b.model))


def test_without_metrics_the_loss_chooses():
    s = stage(); s.compute_metrics = s.metric = None
    r = run_stage(s, encoder(), seed=0)
    lines = [h for h in r.history if "eval_loss" in h]
    assert r.best == min(h["eval_loss"] for h in lines)
    for h in lines: assert h["eval_loss"] == pytest.approx(h["eval_task"] + h["eval_pull"])


def test_oracle_is_named_in_log_and_result():
    s = stage(); s.oracle = "sw"
    r = run_stage(s, encoder(), seed=0)
    assert r.selection == "oracle:sw" and any("oracle_sw_accuracy" in h for h in r.history) and not any("eval_accuracy" in h for h in r.history)


def test_predict_keeps_the_order():
    data, model = rows(50, seed=2), encoder().eval()
    alone = [predict(model, data.select([i]), collate)[0] for i in range(50)]
    for a, b in zip(alone, predict(model, data, collate, batch_size=7)): np.testing.assert_allclose(a, b, atol=1e-5)
    assert len(predict(model, data.to_list(), collate)) == 50


@pytest.mark.parametrize("change, message", [
    (dict(data=[]), "no training rows"), (dict(data=None), "no training rows"), (dict(eval_data=[]), "no evaluation rows"),
    (dict(metric=None), "no metric"), (dict(eval_data=None), "patience but no eval_data"),
    (dict(args=dict(learning_rat=1)), "did you mean 'learning_rate'"), (dict(metric="f1"), "chooses by 'f1'"),
    (dict(loss=lambda m, b: (m(**b).loss * math.nan, {})), "loss is nan"),
    (dict(args=dict(learning_rate=1e30, max_grad_norm=0)), "lower learning_rate"),
    (dict(loss=lambda m, b: (m(**b).loss, {"grad_norm": 1})), "named 'grad_norm'"),
    (dict(loss=task_loss, collator=lambda rs: {k: v for k, v in collate(rs).items() if k != "labels"}), "no labels"),
])
def test_bad_input(change, message):
    s = stage(64)
    for k, v in change.items(): setattr(s, k, v)
    with pytest.raises(XlnbError, match=message): run_stage(s, encoder(), seed=0)


class Seen(torch.nn.Module):
    "Holds a model and remembers how it was asked"
    def __init__(self, model): super().__init__(); self.model, self.config, self.modes = model, model.config, []
    def forward(self, **inputs): self.modes.append(self.training); return self.model(**inputs)


def test_a_stage_may_see_the_model_otherwise(tmp_path):
    "A view that holds the model is trained, predicts and resumes; the model that was given is the result, and is what is kept"
    views, ends = [], {}
    def view(model): views.append(Seen(model)); return views[-1]
    def run(out=None, view=None, callbacks=(), **options):
        s = stage(64, max_steps=8, eval_steps=4, **options); s.view = view
        return run_stage(s, encoder(), out, seed=1, callbacks=callbacks)
    model = encoder()
    s = stage(64, max_steps=8, eval_steps=4); s.view = view
    r = run_stage(s, model, tmp_path / "view", seed=1)
    assert r.model is model and {True, False} == {*views[0].modes}
    plain = run(tmp_path / "plain")
    assert same(weights(model), weights(plain.model)) and [h.get("eval_accuracy") for h in r.history] == [h.get("eval_accuracy") for h in plain.history]
    kept = [load_file(tmp_path / k / "model/model.safetensors") for k in ("view", "plain")]
    assert same(*kept)
    again = run(tmp_path / "view", view)
    assert same(weights(again.model), weights(model))
    with pytest.raises(KeyboardInterrupt): run(tmp_path / "cut", view, [Stop(6)], save_steps=3)
    assert same(weights(run(tmp_path / "cut", view, save_steps=3).model), weights(model))


def test_every_stage_of_a_model_computes_in_its_own_precision():
    "The first stage leaves no mark that would keep a later one from 16 bits, or in them; a stage that fails neither"
    model, seen = encoder(), []
    model.roberta.encoder.layer[0].attention.self.query.register_forward_hook(lambda m, x, y: seen.append(y.dtype))
    def run(loss=task_loss, **args):
        seen.clear()
        how = dict(per_device_train_batch_size=8, max_steps=2, logging_steps=1) | args
        return run_stage(Stage("toy", rows(32), collate, loss, args=how), model).precision, {*seen}
    def broken(model, batch): return task_loss(model, batch)[0] * math.nan, {}
    assert run() == ("fp32", {torch.float32})
    for _ in range(2): assert run(bf16=True) == ("bf16", {torch.bfloat16})
    with pytest.raises(XlnbError, match="is nan"): run(broken, bf16=True)
    model.load_state_dict(encoder().state_dict())
    assert run() == ("fp32", {torch.float32}) and run(bf16=True) == ("bf16", {torch.bfloat16})


def test_batches_reach_a_gpu_while_it_computes(monkeypatch):
    "From pinned memory, without waiting for each copy; a CPU needs neither"
    import xlnb.training.stage as module
    def settings(device):
        monkeypatch.setattr(module, "device", lambda: device)
        found = module._settings(stage(), 0, "fp32")
        return found["dataloader_pin_memory"], found["accelerator_config"]
    assert settings("cuda") == (True, dict(split_batches=True, non_blocking=True))
    assert settings("cpu") == (False, dict(split_batches=True, non_blocking=False))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what is free")
def test_free_memory_goes_back_to_the_system():
    "A study would hold the memory of its largest stage otherwise"
    kept, used, held = [], [], psutil.Process().memory_info

    def loss(model, batch):
        pieces = [torch.ones(100_000) for _ in range(1000)]   # 400 MB, and behind them something that stays
        kept.append(torch.ones(10_000))
        used.append(held().rss)
        return task_loss(model, batch) if pieces else None

    start = held().rss
    one = stage(max_steps=3)
    one.loss = loss
    run_stage(one, encoder())
    assert max(used) - start > 300 * 2**20
    assert held().rss - start < 150 * 2**20

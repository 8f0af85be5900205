"""Settings of the papers by name: each value with a source, and what a run would take."""
import dataclasses
import json

import pytest

from xlnb import XlnbError, get_task, recipe
from xlnb.cli import main
from xlnb.study.store import Store
from test_study import encoder  # noqa: F401  a fixture
from xlnb.study.presets import GPUS, PRESETS, Preset, SHAPES, dry_run, estimate, get_preset, memory, operations, shape_of

WANTED = {"alsace-xnli-xlmr-large", "mmkd-mbert", "clism-xlmr-base", "salt-xnli-xlmr-base", "xtreme-xnli-mbert"}


def test_each_value_has_a_source():
    assert WANTED <= {*PRESETS}
    for p in PRESETS.values():
        assert (p.settings[["setting", "value", "source"]] != "").all(axis=None) and len(p.settings) > 6
        assert {*p.langs} <= {*get_task(p.task).langs} and {m.name for m in recipe(p.recipe).methods} == {*p.rows}
        assert shape_of(p.encoder) in SHAPES.values()
    salt = PRESETS["salt-xnli-xlmr-base"].settings
    assert salt.source.str.contains("reconstructed|abstract|size of the set").all()


@pytest.mark.parametrize("name,method,options", [
    ("alsace-xnli-xlmr-large", "alsace", dict(lr=3e-8, epochs=100, batch_size=32, amount=500, warmup=.2, weight_decay=5e-4, threshold="mean", direction="teacher_first")),
    ("mmkd-mbert", "mmkd", dict(lr=2e-5, batch_size=256, epochs=15, structure=10, sentence=1, warmup=2 / 15, decay="cosine", weight_decay=.01, clip=0, mask=.15)),
    ("clism-xlmr-base", "clism", dict(lr=1e-5, steps=15_000, batch_size=64, max_length=256, scale=20, longest=10, mask=.15, warmup=.1)),
    ("clism-xlmr-base", "finetune", dict(lr=3e-5, epochs=5, batch_size=32)), ("salt-xnli-xlmr-base", "salt", dict(rate=.3, copies=3, lr=2e-5, generator="pretrained", mixup="soft")),
    ("xtreme-xnli-xlmr-large", "finetune", dict(lr=3e-5, epochs=5, batch_size=32)), ("xtreme-xquad-mbert", "finetune", dict(lr=3e-5, epochs=3, weight_decay=1e-4))])
def test_a_recipe_has_the_values_of_the_table(name, method, options):
    made = next(m for m in recipe(get_preset(name).recipe).methods if m.name == method)
    assert {k: getattr(made, k) for k in options} == options


@pytest.mark.parametrize("name,method,steps", [
    ("xtreme-xnli-mbert", "finetune", 12_272 * 5), ("alsace-xnli-xlmr-large", "alsace", 1_300), ("mmkd-mbert", "mmkd", 41_016 * 15),
    ("clism-xlmr-base", "clism", 15_000), ("clism-xlmr-base", "finetune", 2_738 * 5), ("salt-xnli-xlmr-base", "salt", 12_272)])
def test_steps(name, method, steps): assert estimate(name).set_index("method").steps[method] == steps


def test_the_count_of_operations_and_memory():
    n, d, f, _, millions = base = SHAPES["xlm-roberta-base"]
    weights = n * (4 * d * d + 2 * d * f)                   # of the layers
    assert abs(operations(base, 1000, 1) / (6 * weights * 1000) - 1) < .001 and operations(base, 1, 128, False) * 3 == operations(base, 1, 128)
    assert memory(base, 0, 128) == pytest.approx(16 * millions / 1000) and memory(base, 8, 128) < memory(base, 16, 128) < memory(base, 16, 128, half=False)
    slow, fast = (estimate("salt-xnli-xlmr-base", g).hours.iloc[-1] for g in ("T4", "H100"))
    assert slow / fast == pytest.approx(GPUS["H100"][0] / GPUS["T4"][0])
    split = dataclasses.replace(get_preset("mmkd-mbert"), recipe="mmkd(batch_size=256,accumulate=8)+finetune(batch_size=32)")
    assert estimate(split).memory.iloc[0] < estimate("mmkd-mbert").memory.iloc[0]
    with pytest.raises(XlnbError, match="Choose T4"): estimate("mmkd-mbert", "A10")


def test_the_command_line(capsys):
    assert main(["run", "--preset", "alsace-xnli-xlmr-large", "--dry-run", "--gpu", "A100"]) == 0
    out = capsys.readouterr().out
    assert "3e-8  (summary of arXiv 2404.08491" in out and "not measured" in out and "1,300 steps" in out and "operations = 3 x 2" in out
    assert main(["run", "--preset", "mmkd-mbert", "--dry-run", "--json"]) == 0
    assert {r["method"] for r in json.loads(capsys.readouterr().out)["estimate"]} == {"mmkd", "finetune", "all"}
    for call, hint in ((["--preset", "mmkd", "--dry-run"], "mmkd-mbert"), (["--task", "xnli", "--dry-run"], "--preset"), ([], "--task")):
        assert main(["run", *call]) == 2
        assert hint in capsys.readouterr().err
    assert dry_run("clism-xlmr-base").count("reconstructed") >= 3
    assert "5.3e+16 operations, 7.8 GB, 3 minutes" in dry_run("salt-xnli-xlmr-base", "H200"), "not 0.0 hours"


def test_a_preset_runs(encoder, tmp_path, monkeypatch, capsys):  # noqa: F811
    "With a few rows, on a tiny encoder in a folder"
    monkeypatch.chdir(tmp_path)
    recipe = "finetune(lr=1e-4,batch_size=8,patience=None)+alsace(amount=8,batch_size=4,epochs=1)"
    mine = Preset("mine", "a paper", "lab-inference", "some/large-encoder", recipe, dict(finetune=16, alsace=8), {}, 48, seeds=(7,))
    monkeypatch.setitem(PRESETS, "mine", mine)
    few = ["--encoder", str(encoder), "--langs", "qal", "--train-examples", "16", "--eval-examples", "10", "--steps", "2", "--quiet"]
    assert main(["run", "--preset", "mine", *few]) == 0
    out = capsys.readouterr().out
    assert "lab-inference" in out and "qal" in out and (tmp_path / "runs" / "mine" / "report" / "summary.md").exists()
    info, = Store(tmp_path / "runs" / "mine").infos()
    assert info["cell"]["seed"] == 7 and info["cell"]["budget"]["max_length"] == 48 and "steps=2" in info["cell"]["recipe_name"]
    assert main(["run", "--preset", "mine", "--task", "lab-inference", *few]) == 0, "its own task may be named"


@pytest.mark.parametrize("call,hint", [
    (["--preset", "salt-xnli-xlmr-base", "--task", "sib200"], "is of the task xnli: leave out --task"), (["--preset", "salt-xnli"], "did you mean 'salt-xnli-xlmr-base'"),
    (["--preset", "mmkd-mbert", "--gpu", "T4"], "--gpu belongs to the estimate of --dry-run"), (["--preset", "mmkd-mbert", "--dry-run", "--gpu", "A10"], "Choose T4"),
    (["--preset", "mmkd-mbert", "--encoder", "lab", "--langs", "xx"], "xx"), (["--preset", "mmkd-mbert", "--encoder", "lab"], "mmkd needs parallel text"),
    (["--preset", "salt-xnli-xlmr-base", "--recipe", "sallt"], "sallt"), (["--task", "lab-inference", "--gpu", "T4"], "--dry-run")])
def test_what_does_not_go_together_is_one_sentence(call, hint, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["run", *call]) == 2
    said = capsys.readouterr().err
    assert hint in said and said.count("\n") == 1 and said.startswith("xlnb: ")

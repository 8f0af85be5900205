"""Prefixes of recipes: shared, equal to the bit, bounded; averages and measures that read them."""
import shutil
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import torch
from filelock import Timeout

from test_study import FEW, PLAIN, encoder, small  # noqa: F401  fixtures
from xlnb.core import XlnbError
from xlnb.study.cell import CellRun, run_cell
from xlnb.study.measures import register_measure
from xlnb.study.prefixes import Prefixes
from xlnb.study.recipe import recipe

ARMS = [f"{PLAIN}+alsace(amount=8,batch_size=4,epochs=1,lr={lr},guard=None)" for lr in (1e-3, 1e-4)]


@pytest.fixture
def cell(small): return small().grid[0]  # noqa: F811


def test_arms_share_one_fine_tuned_model(cell, tmp_path):
    cache = Prefixes(tmp_path / "cache")
    for i, arm in enumerate(ARMS):
        arm = replace(cell, recipe=recipe(arm))
        items, info = run_cell(arm, tmp_path / f"with-{i}", prefixes=cache)
        alone, other = run_cell(arm, tmp_path / f"without-{i}")
        pd.testing.assert_frame_equal(items, alone)
        assert [s["history"][-1].get("loss") for s in info["stages"]] == [s["history"][-1].get("loss") for s in other["stages"]]
    assert len(cache.keys()) == 3 and not (tmp_path / "with-1" / "0").exists()   # fine-tuned once, distilled twice


def test_only_what_changed_is_stored(cell, tmp_path):
    cache = Prefixes(tmp_path / "cache")
    run = CellRun(replace(cell, recipe=recipe("finetune(epochs=1,frozen=embeddings)")), tmp_path / "out", prefixes=cache)
    model, _ = run.made(1)
    names = set(cache.tensors(cache.keys()[0]))
    assert names and not any("embeddings" in n for n in names)
    again = CellRun(run.cell, tmp_path / "again", prefixes=cache).made(1)[0]
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


def test_a_prefix_without_snapshots_is_made_again_with_them(cell, tmp_path):
    cache, mean = Prefixes(tmp_path / "cache"), replace(cell, recipe=recipe(PLAIN + "+averaging(checkpoints=3)"))
    run_cell(cell, tmp_path / "plain", prefixes=cache)
    later, _ = run_cell(mean, tmp_path / "later", prefixes=cache)
    at_once, _ = run_cell(mean, tmp_path / "at once")
    pd.testing.assert_frame_equal(later, at_once)
    with pytest.raises(XlnbError, match="10 snapshots"): CellRun(replace(cell, recipe=recipe(PLAIN + "+averaging(checkpoints=11)")), tmp_path / "x", prefixes=cache).made(2)


def test_one_head_for_all_seeds(cell, tmp_path):
    heads = [CellRun(replace(cell, recipe=recipe("finetune(epochs=1,head_seed=0)"), seed=s), tmp_path).head().classifier.out_proj.weight for s in (0, 1)]
    assert torch.equal(*heads)


def test_the_oldest_goes_unless_it_is_in_use(tmp_path):
    cache = Prefixes(tmp_path)
    for key in "abc":
        with cache.hold(key): cache.save(key, {"w": torch.zeros(100)}, {})
    cache.limit = cache.size() / 2
    script = f"from xlnb.study.prefixes import Prefixes\nwith Prefixes({str(tmp_path)!r}).hold('a'): print('held', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    with pytest.raises(Timeout):
        with cache.hold("a", wait=False): pass
    cache.trim()
    assert "a" in cache.keys() and "b" not in cache.keys()
    other.communicate("\n")
    cache.limit = 0
    cache.trim()
    assert cache.keys() == []


def test_measures_of_stored_cells_train_nothing_again(small, tmp_path, monkeypatch):  # noqa: F811
    register_measure("norm", lambda run: [dict(measure="norm", value=float(sum(p.detach().norm() for p in run.model.parameters())))])
    own = dict(prefixes=Prefixes(tmp_path / "prefixes"))
    items = small(**own).run(progress=False).items()
    monkeypatch.setattr("xlnb.study.cell.run_method", lambda *a, **kw: pytest.fail("trained again"))
    first = small(measures="norm", **own).run(progress=False)
    table = first.measures_table("norm")
    assert table.seed.tolist() == [0, 1] and table.value.nunique() == 2
    pd.testing.assert_frame_equal(first.items(), items)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "prefixes")
    for file in first.store.files(): file.unlink()
    again = small(measures=["norm"], **own).run(progress=False)
    assert again.measures_table("norm").value.tolist() == table.value.tolist()

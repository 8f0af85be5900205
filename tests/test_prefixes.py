"""Prefixes of recipes: shared, equal to the bit, bounded; averages and measures that read them."""
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import pandas as pd
import pytest
import torch
from filelock import Timeout

from test_study import FEW, PLAIN, encoder, small  # noqa: F401  fixtures
from xlnb.core import XlnbError, cache_folder
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


def test_a_prefix_does_not_know_of_later_methods(cell, tmp_path):
    "CLISM gives the encoder one more token; MMKD before it is the same with and without CLISM after it"
    cache, start = Prefixes(tmp_path / "cache"), "mmkd(amount=8,steps=2,batch_size=4)+"
    run_cell(replace(cell, recipe=recipe(start + PLAIN)), tmp_path / "mmkd", prefixes=cache)
    both = replace(cell, recipe=recipe(f"{start}clism(amount=8,steps=2,batch_size=4)+{PLAIN}"))
    items, info = run_cell(both, tmp_path / "both", prefixes=cache)
    assert len(cache.keys()) == 4  # MMKD once, both, and two fine-tuned models
    for name, kept in {"alone": None, "other cache": Prefixes(tmp_path / "other")}.items():
        alone, other = run_cell(both, tmp_path / name, prefixes=kept)
        pd.testing.assert_frame_equal(items, alone)
        losses = [[[h.get("loss") for h in s["history"]] for s in i["stages"]] for i in (info, other)]
        assert losses[0] == losses[1]
    run = CellRun(both, tmp_path / "again", prefixes=cache)
    sizes = [len(run.tokenizer)]
    for n in (3, 1, 2):
        model = run.made(n)[0]
        assert model.get_input_embeddings().num_embeddings == len(run.tokenizer)
        sizes.append(len(run.tokenizer))
    assert sizes == [sizes[0], sizes[0] + 1, sizes[0], sizes[0] + 1]


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


def entry(folder, size, hours):
    "Something else that a cache holds, used so many hours ago"
    folder.mkdir(parents=True)
    (folder / "part-0.parquet").write_bytes(bytes(size))
    then = time.time() - 3600 * hours
    for p in folder / "part-0.parquet", folder: os.utime(p, (then, then))
    return folder


def test_one_limit_for_all_that_a_cache_holds(cell, tmp_path, monkeypatch):
    "Tables of switches and vectors of teachers count as weights do, and the oldest goes"
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path / "cache"))
    cache = Prefixes()
    with cache.hold("a"): cache.save("a", {"w": torch.zeros(1000)}, {})
    home = tmp_path / "cache"
    old, older, fresh = entry(home / "shared" / "switches" / "x", 5000, 3), entry(home / "teachers" / "y", 5000, 4), entry(home / "shared" / "vectors", 5000, .1)
    mine = entry(home / "mine", 5000, 9)    # nothing that the library has put there
    assert cache.size() > 19_000
    cache.limit = 14_500
    cache.trim()
    assert not older.exists() and old.exists() and fresh.exists() and cache.keys() == ["a"] and mine.exists()
    cache.limit = 0
    cache.trim()
    assert not old.exists() and fresh.exists() and cache.keys() == []     # one that was used within the hour is in use
    run = CellRun(cell, tmp_path / "out", prefixes=cache)
    assert run.ctx.shared == home / "shared"


def test_a_folder_of_ones_own_is_the_whole_cache(cell, tmp_path):
    cache = Prefixes(tmp_path / "own")
    assert CellRun(cell, tmp_path / "out", prefixes=cache).ctx.shared == tmp_path / "own" / "shared"
    table = entry(tmp_path / "own" / "shared" / "switches" / "x", 5000, 3)
    cache.limit = 1000
    with cache.hold("a"): cache.save("a", {"w": torch.zeros(10)}, {})
    assert not table.exists() and cache.keys() == ["a"]


def test_what_lies_in_the_cache_is_bounded():
    with pytest.raises(XlnbError, match="encoders, prefixes, shared, teachers"): cache_folder("more")


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

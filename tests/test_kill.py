"""A study that is killed, or meets a full disk, a read-only folder or another study, ends as an undisturbed one."""

import errno
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch
from filelock import FileLock

import toy_kill
from test_study import encoder, small  # noqa: F401  fixtures
from xlnb.core import CannotWrite, XlnbError, trim_cache
from xlnb.study import store
from xlnb.study.cell import CellRun
from xlnb.study.grid import Study
from xlnb.study.models import ABOUT
from xlnb.study.prefixes import Prefixes

SLOW = os.environ.get("XLNB_SLOW") == "1"
MOMENTS = 20 if SLOW else 3  # all with XLNB_SLOW=1, some minutes
WRITES = ["record", "checkpoint", "prefix", "cache", "epoch"] + ["third record", "states", "snapshot"] * SLOW
pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def context():
    return toy_kill.processes()


def cpu(process) -> float:
    "Seconds of computing: the same moment of a run however busy the machine is"
    try:
        return sum(psutil.Process(process.pid).cpu_times()[:2])
    except psutil.Error:
        return 0.0


@pytest.fixture(scope="module")
def undisturbed(context, encoder, tmp_path_factory):  # noqa: F811
    "Table and items of the study when nothing happens, the files that it leaves, and the seconds that it computes"
    root = tmp_path_factory.mktemp("undisturbed")
    process, seconds = toy_kill.started(context, encoder, root), 0.0
    while process.is_alive():
        seconds = max(seconds, cpu(process))
        time.sleep(0.02)
    assert process.exitcode == 0
    study = toy_kill.study(encoder, root)
    return study.table(), study.items(), study.store.files(), seconds


def ends_as(undisturbed, encoder, root):  # noqa: F811
    "Resumed, the study is the undisturbed one to the bit, and nothing is left of what was interrupted"
    table, items, files, _ = undisturbed
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        study = toy_kill.study(encoder, root).run(progress=False)
    assert not study.failed
    odd = [str(w.message) for w in said if "half written" not in str(w.message) and "finished cell" in str(w.message)]
    assert not odd, odd  # no half record was met
    pd.testing.assert_frame_equal(study.items(), items)
    pd.testing.assert_frame_equal(study.table(), table)
    assert sorted(p.name for p in study.store.root.iterdir()) == sorted(p.name for p in files)
    assert not [p for p in (Path(root) / "cache").rglob("*.tmp") if time.time() - p.stat().st_mtime > 3600]
    return study


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_at_any_moment(moment, context, encoder, undisturbed, tmp_path, ended=[]):  # noqa: F811
    "SIGKILL after a share of the computing that a seed draws, once or twice, then resumed"
    r = random.Random(f"moment-{moment}")
    for share in sorted(r.random() for _ in range(1 + moment % 2)):
        process = toy_kill.started(context, encoder, tmp_path)
        while process.is_alive() and cpu(process) < share * undisturbed[3]:
            time.sleep(0.002)
        process.kill()
        process.join()
        ended.append(process.exitcode)
    stored = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("*.parquet")}
    ends_as(undisturbed, encoder, tmp_path)
    assert all(p.stat().st_mtime_ns == t for p, t in stored.items())  # what was finished is not computed again
    print(f"processes ended with {ended[-1 - moment % 2:]} and left {len(stored)} cells")
    assert ended.count(-signal.SIGKILL) * 2 > len(ended)  # some may have been quicker


@pytest.mark.parametrize("where", WRITES)
def test_killed_within_a_write(where, context, encoder, undisturbed, tmp_path):  # noqa: F811
    "Half a cell record, checkpoint, prefix or part of a shared table is on the disk, or an epoch is just over"
    process = toy_kill.started(context, encoder, tmp_path, where)
    process.join()
    assert -process.exitcode in (signal.SIGKILL, signal.SIGXFSZ), process.exitcode
    ends_as(undisturbed, encoder, tmp_path)
    left = [p.name for p in tmp_path.rglob(".*.tmp")]
    assert not left or where == "cache", left


# ---------------------------------------------------------------- no room, no permission


@pytest.fixture
def little_room(tmp_path):
    "A disk of its own of half a megabyte"
    at = tmp_path / "disk"
    at.mkdir()
    made = (
        sys.platform == "linux"
        and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "none", at], capture_output=True).returncode
    )
    if not made:
        pytest.skip("no file system can be mounted here")
    yield at
    subprocess.run(["umount", "-l", at], check=True)


def test_a_full_disk(little_room, encoder, undisturbed):  # noqa: F811
    "The study ends at once with one sentence, keeps its finished cells, and goes on when there is room"
    filler = little_room / "filler"
    filler.write_bytes(bytes(200_000))
    (little_room / "cache").mkdir()
    study = toy_kill.study(encoder, little_room)
    with pytest.raises(CannotWrite, match="Cannot write to .*No space left|half written"):
        study.run(progress=False)
    stored = len(study.store.files())
    assert stored < 6 and all(study.store.read(f) for f in study.store.files())
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", little_room], check=True)
    assert len(ends_as(undisturbed, encoder, little_room).store.files()) == 6


@pytest.mark.parametrize("size", [1000, 5000, 30_000])
def test_a_file_that_cannot_grow(size, encoder, undisturbed, tmp_path):  # noqa: F811
    "Whichever library meets the limit, at whichever file: the same sentence, and nothing is lost"
    study = toy_kill.study(encoder, tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(CannotWrite, match=r"Cannot write to .*(File too large|half written).*make room"):
            study.run(progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not study.store.files()
    if SLOW or size == 5000:
        ends_as(undisturbed, encoder, tmp_path)


@pytest.mark.parametrize("what", ["runs", "cache"])
def test_a_folder_that_is_read_only(what, encoder, tmp_path):  # noqa: F811
    "Named in one sentence, before anything is trained; what is stored there is read all the same"
    folder = tmp_path / what
    folder.mkdir()
    study = toy_kill.study(encoder, tmp_path)
    if os.geteuid():
        folder.chmod(0o500)
    elif subprocess.run(
        f"mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}", shell=True, capture_output=True
    ).returncode:
        pytest.skip("no folder can be made read-only for this user")
    try:
        with pytest.raises(CannotWrite, match=f"Cannot write to .*{what}"):
            study.run(progress=False)
        if what == "runs":
            assert study.cells().state.tolist() == ["missing"] * 6
    finally:
        if os.geteuid():
            folder.chmod(0o700)
        else:
            subprocess.run(["umount", "-l", folder], check=True)


def test_a_finished_study_in_a_read_only_folder(small):  # noqa: F811
    study = small(seeds=1).run(progress=False)
    if os.geteuid():
        study.store.root.chmod(0o500)
    elif subprocess.run(
        f"mount --bind {study.store.root} {study.store.root} && mount -o remount,bind,ro {study.store.root}",
        shell=True,
        capture_output=True,
    ).returncode:
        pytest.skip("no folder can be made read-only for this user")
    try:
        assert small(seeds=1).run(progress=False).items().equals(study.items())
    finally:
        if os.geteuid():
            study.store.root.chmod(0o700)
        else:
            subprocess.run(["umount", "-l", study.store.root], check=True)


def test_a_full_disk_ends_a_study_in_an_executor(small, monkeypatch):  # noqa: F811
    "At once, with the same sentence, instead of a failure of every cell"
    from concurrent.futures import ThreadPoolExecutor

    written, whole = [], store.write_parquet

    def write(path, *args, **kwargs):
        written.append(path)
        if len(written) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, *args, **kwargs)

    monkeypatch.setattr(store, "write_parquet", write)
    study = small(seeds=3)
    with ThreadPoolExecutor(1) as pool, pytest.raises(CannotWrite, match="No space left.*make room"):
        study.run(pool, progress=False)
    assert len(study.store.files()) == 1 and not study.failed
    monkeypatch.undo()
    assert small(seeds=3).run(progress=False).cells().state.tolist() == ["stored"] * 3


def test_half_of_a_teacher_or_of_a_tokenizer_is_not_read(tmp_path, monkeypatch):
    "Both are written file by file, and a process may end between two of them"
    from transformers import PreTrainedTokenizerFast
    from xlnb.methods.mmkd import teacher
    from xlnb.training.pretraining import pretrain

    half, made = tmp_path / "teacher", []
    half.mkdir()
    for name in ("pretraining.json", "config.json"):
        (half / name).write_text("{}")
    (half / "model.safetensors").write_bytes(bytes(10))
    monkeypatch.setattr(teacher, "_pretrain_teacher", lambda out, how: made.append(out))
    assert teacher.lab_teacher(half) == str(half) and made == [half]
    (half / "pretraining.json").unlink()  # a checkpoint of somebody's own is taken as it is
    assert teacher.lab_teacher(half) == str(half) and made == [half]
    how = dict(steps=1, batch_size=2, block_size=16, vocab_size=40, progress=False)
    save, texts = PreTrainedTokenizerFast.save_pretrained, ["the dog sleeps", "a cat eats"] * 20

    def cut(self, folder, **kwargs):
        save(self, folder, **kwargs)
        (Path(folder) / "tokenizer_config.json").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(PreTrainedTokenizerFast, "save_pretrained", cut)
        with pytest.raises(KeyboardInterrupt):
            pretrain(texts, tmp_path / "run", **how)
    assert not list((tmp_path / "run").rglob("tokenizer.json"))
    assert pretrain(texts, tmp_path / "run", **how) and (tmp_path / "run" / "tokenizer_config.json").exists()


# ---------------------------------------------------------------- others at the same store


def test_what_another_study_computes_is_not_tidied_away(small):  # noqa: F811
    "A cell that is stored may be computed anew by another process, with its lock and its folder"
    study = small().run(progress=False)
    keys = [k for k, _ in study.keys().values()]
    root = study.store.root
    for key in keys:
        (root / f".{key}.work").mkdir()
    with FileLock(root / f".{keys[0]}.lock"):
        done = threading.Thread(target=small().run, kwargs=dict(progress=False))
        done.start()
        done.join()
        assert (root / f".{keys[0]}.work").exists() and (root / f".{keys[0]}.lock").exists()
        assert not (root / f".{keys[1]}.work").exists()  # nobody is at that one
    small().run(progress=False)
    assert sorted(root.iterdir()) == study.store.files()


def test_two_studies_of_which_one_is_killed(context, encoder, undisturbed, tmp_path):  # noqa: F811
    "They share the cells of one store; the other goes on with what the dead one has begun"
    first, second = (toy_kill.started(context, encoder, tmp_path, where) for where in ("", "third record"))
    second.join()
    first.join()
    assert first.exitcode == 0 or second.exitcode == 0
    ends_as(undisturbed, encoder, tmp_path)


# ---------------------------------------------------------------- the cache at its limit


def test_a_cache_at_its_limit_never_drops_what_runs(encoder, undisturbed, tmp_path):  # noqa: F811
    "Not a byte may stay: every prefix goes as soon as the next one is written, and no result changes"
    study = toy_kill.study(encoder, tmp_path, prefixes=Prefixes(tmp_path / "cache", limit=0))
    study.run(progress=False)
    assert not study.failed
    pd.testing.assert_frame_equal(study.items(), undisturbed[1])


def test_a_prefix_that_another_study_drops_is_made_again(small, tmp_path, monkeypatch):  # noqa: F811
    "Between the moment that it is there and the moment that its snapshots are read"
    cell = small(recipes="finetune(epochs=1,batch_size=8)+averaging(checkpoints=2)").grid[0]
    cache, hold, dropped = Prefixes(tmp_path / "cache"), Prefixes.hold, []
    run = CellRun(cell, tmp_path / "out", prefixes=cache)
    run.made(1)

    def held(self, key, wait=True):
        if held.armed and not dropped:
            dropped.append(shutil.rmtree(self.root / key))
        return hold(self, key, wait)

    made = CellRun.made

    def made_then_armed(self, n, **kw):
        out = made(self, n, **kw)
        held.armed = True
        return out

    held.armed = False
    monkeypatch.setattr(Prefixes, "hold", held)
    monkeypatch.setattr(CellRun, "made", made_then_armed)
    assert len(list(run.snapshots(2))) == 2 and len(dropped) == 1


def test_what_killed_processes_have_left_does_not_stay(tmp_path):
    "Half a prefix is removed by the next who makes it, any other within a day"
    cache = Prefixes(tmp_path / "cache")
    left = [cache.root / ".a-123-456.tmp", cache.root / ".b-123-456.tmp", cache.root / ".ab-1-2.tmp"]
    for p in left:
        p.mkdir(parents=True)
        (p / "weights.safetensors").write_bytes(bytes(1000))
    with cache.hold("a"):
        cache.save("a", {"w": torch.zeros(3)}, {})
    assert [p.exists() for p in left] == [False, True, True] and cache.keys() == ["a"]
    then = time.time() - 25 * 3600
    for p in (left[1] / "weights.safetensors", left[1]):
        os.utime(p, (then, then))
    trim_cache([cache.root], 10**9)
    assert [p.exists() for p in left] == [False, False, True]


# ---------------------------------------------------------------- one process, many cells


def test_a_result_does_not_depend_on_what_ran_before(encoder, undisturbed, tmp_path):  # noqa: F811
    "In another order, after other methods, with other numbers drawn and other settings left behind"
    import random as python_random
    import numpy as np

    reversed_recipes = toy_kill.RECIPES[::-1]
    first = Study(
        "lab-spans",
        encoder,
        ["finetune(steps=2)", "mmkd(steps=2)+finetune(steps=1)", "clism(steps=1)+finetune(steps=1)"],
        1,
        toy_kill.study(encoder, tmp_path).budgets,
        "qal",
        tmp_path / "first",
        prefixes=False,
    ).run(progress=False)
    assert not first.failed
    torch.manual_seed(99)
    python_random.seed(99)
    np.random.seed(99)
    torch.rand(7)
    study = toy_kill.study(encoder, tmp_path, seeds=[1, 0], prefixes=False)
    study = Study(
        study.tasks,
        encoder,
        reversed_recipes + ["finetune(steps=2)+alsace(amount=8,batch_size=4,epochs=1)"],
        [1, 0],
        study.budgets,
        "qal",
        tmp_path / "other",
        prefixes=False,
    )
    items = study.run(progress=False).items()
    keys = ["recipe", "seed", "lang", "id"]
    shown = lambda t: t[t.recipe.isin({*undisturbed[1].recipe})].sort_values(keys, ignore_index=True)[
        sorted(undisturbed[1])
    ]
    pd.testing.assert_frame_equal(shown(items), shown(undisturbed[1]))


def test_a_model_that_is_half_written_is_not_kept(small, monkeypatch):  # noqa: F811
    "While a cell is computed anew, its earlier model is not offered; with a model that is whole, measures write none"
    study = small(seeds=1, keep_models=True).run(progress=False)
    (key,) = [k for k, _ in study.keys().values()]
    about = study.store.root / "models" / key / ABOUT
    assert about.exists()

    def stopped(*args, **kwargs):
        raise RuntimeError("stopped while the model is written")

    with monkeypatch.context() as m:
        m.setattr("xlnb.study.grid.save_finetuned", stopped)
        assert not small(seeds=1, keep_models=True, measures=["cost"]).run(progress=False).failed and about.exists()
    with monkeypatch.context() as m:
        m.setattr("xlnb.study.cell.save_finetuned", stopped)
        m.setattr("xlnb.study.grid._changed", lambda cell, info: ["core"])
        with pytest.warns(UserWarning, match="stopped while"):
            small(seeds=1, keep_models=True).run(progress=False)
    with pytest.raises(XlnbError, match="keeps no models"):
        small(seeds=1, keep_models=True).kept_models()
    assert small(seeds=1, keep_models=True).run(progress=False).kept_models().folder.tolist() == [str(about.parent)]

"""Studies on Ray: the same results, what is sent, two workers, and one that is killed."""

import importlib.util
import inspect
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from test_study import PLAIN, encoder, reference, same, small  # noqa: F401  fixtures
from toy_ray import KilledOnce
from xlnb.study.grid import RayExecutor
from xlnb.study.recipe import METHODS, recipe

HERE = Path(__file__).parent
installed = pytest.mark.skipif(
    not importlib.util.find_spec("ray"), reason="Ray is not installed: pip install 'xlnb[ray]'"
)


def test_what_ray_is_given(small, reference, monkeypatch):  # noqa: F811
    "A plain function, as Ray takes no other, and the call of a job as data; a stand-in runs them as two workers"
    given = []
    with ThreadPoolExecutor(2) as workers:

        def remote(**resources):
            def take(f):
                if not inspect.isfunction(f):
                    raise TypeError("The @ray.remote decorator must be applied to either a function or a class.")

                def send(*args):
                    given.append((f, args, resources))
                    return SimpleNamespace(future=lambda: workers.submit(pickle.loads(pickle.dumps(f)), *args))

                return SimpleNamespace(remote=send)

            return take

        monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **options: None, remote=remote))
        same(small().run("ray", progress=False), reference)
    assert len(given) == 2 and all(r == dict(num_cpus=1) and pickle.dumps(args) for _, args, r in given)
    assert all(inspect.ismethod(args[0]) and inspect.isfunction(f) for f, args, _ in given)


@pytest.fixture(scope="module")
def two_workers():
    "A cluster of two workers on this machine, which import what the tests import"
    ray = pytest.importorskip("ray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "PYTHONPATH", os.pathsep.join(filter(None, [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH")]))
        )
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield RayExecutor(num_cpus=2, include_dashboard=False)
    ray.shutdown()


@installed
def test_two_workers(two_workers, small, reference):  # noqa: F811
    same(small().run(two_workers, progress=False), reference)


@installed
def test_a_killed_worker_costs_its_cell_s_work_and_nothing_else(
    two_workers, small, tmp_path, monkeypatch
):  # noqa: F811
    "The cell is begun again by another worker; all others are computed once, with the results of an undisturbed study"
    monkeypatch.setitem(METHODS, "killed_once", KilledOnce)
    mark = tmp_path / "mark"
    arm = recipe([recipe(PLAIN).during, KilledOnce(mark=str(mark))])
    study = small(recipes=[arm], seeds=4).run(two_workers, progress=False)
    assert study.cells().state.tolist() == ["stored"] * 4 and not study.failed
    begun = [line.split() for line in mark.read_text().splitlines()]
    assert sorted(seed for seed, _ in begun) == ["0", "1", "1", "2", "3"]
    first, second = [worker for seed, worker in begun if seed == "1"]
    assert first != second and not list(study.store.root.glob(".*"))
    plain = small(seeds=4, store=tmp_path / "undisturbed").run(progress=False)
    columns = ["lang", "id", "seed", "prediction", "correct"]
    pd.testing.assert_frame_equal(study.items()[columns], plain.items()[columns])

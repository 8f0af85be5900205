"""What every test leaves as it found it."""
import functools
import gc
import os
import tempfile

import pytest

_CACHE = tempfile.TemporaryDirectory(prefix="xlnb-test-")
os.environ["XLNB_CACHE"] = _CACHE.name   # no test reads what an earlier run has made


# What takes a minute or more, longest first. Begun last, one of these would be left to a single process at the end.
LONG = ("test_site test_salt test_study test_train test_clism test_tutorial test_train_distributed test_cli "
        "test_kill test_alsace test_statistics").split()


def pytest_collection_modifyitems(items):
    "Long files first; `--no-loadscope-reorder` keeps this order where files are dealt out to processes"
    place = {name: i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


def pytest_collection_finish():
    "What is imported by now stays; else every training would look through a million objects for garbage"
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def rows_written_once():
    "A laboratory takes seconds to write the rows of a split, which are the same each time (tests/test_lab.py)"
    from xlnb.lab.worlds import Lab
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Lab, "dataset", functools.cache(Lab.dataset))
        yield


@pytest.fixture(autouse=True)
def same_tasks():
    "A task that a test registers, as a folder of one's own does, is gone after it"
    from xlnb.data.tasks import TASKS
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)


@pytest.fixture
def one_thread():
    "One thread, as in a process of a grid, and as before afterwards"
    import torch
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

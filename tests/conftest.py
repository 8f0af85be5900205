"""What every test leaves as it found it."""
import os
import tempfile

import pytest

_CACHE = tempfile.TemporaryDirectory(prefix="xlnb-test-")
os.environ["XLNB_CACHE"] = _CACHE.name   # no test reads what an earlier run has made


@pytest.fixture(autouse=True)
def same_tasks():
    "A task that a test registers, as a folder of one's own does, is gone after it"
    from xlnb.data.tasks import TASKS
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)

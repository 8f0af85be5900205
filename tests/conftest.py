"""What every test leaves as it found it."""
import pytest


@pytest.fixture(autouse=True)
def same_tasks():
    "A task that a test registers, as a folder of one's own does, is gone after it"
    from xlnb.data.tasks import TASKS
    before = dict(TASKS)
    yield
    TASKS.clear()
    TASKS.update(before)

"""What makes a stored cell stale: the modules that it runs, and nothing else."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import xlnb

SCRIPT = '''
import json, sys
from pathlib import Path
from xlnb.data.tasks import get_task
from xlnb.study.cell import Cell
from xlnb.study.recipe import recipe
from xlnb.study.version import clear_versions
from xlnb.training.stage import Budget
import xlnb

root = Path(xlnb.__file__).parent
task = lambda name: get_task(name)
cells = {f'{kind} {r}': Cell(task(name), encoder, recipe(r), 0, Budget(), ('en',))
         for kind, name, encoder in (('lab', 'lab-inference', 'lab'), ('real', 'xnli', 'xlm-roberta-base'))
         for r in ('finetune', 'salt', 'finetune+alsace', 'mmkd+finetune', 'clism+finetune')}
def versions():
    clear_versions()
    return {name: c.code() for name, c in cells.items()}

start, out = versions(), {}
for file in sorted(root.rglob('*.py')):
    was = file.read_text()
    for what, more in (('comment', '\\n# a comment\\n'), ('code', '\\n_added = 1\\n')):
        file.write_text(was + more)
        now = versions()
        name = '.'.join(file.relative_to(root).with_suffix('').parts)
        out.setdefault(name, {})[what] = [c for c in cells if now[c] != start[c]]
    file.write_text(was)
print(json.dumps(out))
'''


@pytest.fixture(scope="module")
def stale(tmp_path_factory):
    "{module: {'comment' or 'code': the cells that such a change makes stale}}, tried in a copy of the package"
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(xlnb.__file__).parent, copy / "xlnb", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=copy,
                          env={**os.environ, "PYTHONPATH": str(copy), "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_comments_make_nothing_stale(stale): assert {m: s["comment"] for m, s in stale.items() if s["comment"]} == {}


def test_a_method_s_modules_make_its_own_cells_stale(stale):
    owner = dict(salt="salt", alsace="finetune+alsace", mmkd="mmkd+finetune", clism="clism+finetune")
    for module, found in stale.items():
        folder, _, rest = module.partition("methods.")[2].partition(".")
        if folder not in owner: continue
        if rest in ("__init__", "baselines", "diagnostics", "cost"): assert set(found["code"]) <= {f"lab {owner[folder]}", f"real {owner[folder]}"}, module
        else: assert found["code"] == [f"{kind} {owner[folder]}" for kind in ("lab", "real")], module


def test_search_of_candidates_is_read(stale): assert stale["methods.salt.candidates"]["code"] == ["lab salt", "real salt"]


def test_the_laboratory_makes_only_its_own_cells_stale(stale):
    for module in ("lab.worlds", "lab.grammar"): assert {c.split()[0] for c in stale[module]["code"]} == {"lab"}, module
    assert "lab clism+finetune" in stale["lab.worlds"]["code"]    # Lab.corpus makes its passages
    assert "lab mmkd+finetune" in stale["lab.worlds"]["code"]     # and what the English teacher reads


def test_what_every_cell_runs_makes_all_stale(stale):
    for module in ("training.stage", "training.trainer", "models.encoders", "core", "study.cell", "evaluation.predict"):
        assert len(stale[module]["code"]) == 10, module


def test_what_decides_no_score_makes_nothing_stale(stale):
    for module in ("evaluation.statistics", "evaluation.plots", "study.store", "study.grid", "study.recipe", "cli", "__init__"):
        assert stale[module]["code"] == [], module

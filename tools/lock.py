"""Write locks/py3XX.txt: the exact version of everything that `settings.ini` asks for, on the Python that runs this.

    python3.11 tools/lock.py        # or: make lock PYTHON=python3.11

pip resolves the open ranges in an empty environment without installing them; the answer is written as plain
`name==version` lines. They are used as constraints (`pip install -c`), so an install takes from them only what it needs.
Left out are the CUDA libraries that torch brings on some platforms: torch itself names their exact versions.
"""
import configparser, json, re, subprocess, sys, tempfile, venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"  # chosen by hand, the same for every Python
BUILD = ["pip", "setuptools", "wheel", "setuptools_scm"]  # the last one builds seqeval, which has no wheel
SKIP = re.compile(r"nvidia-|cuda-|triton$")


def wanted():
    cfg = configparser.ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    groups = "requirements", "dev_requirements", "docs_requirements"
    return [r for g in groups for r in cfg["DEFAULT"][g].split()] + [cfg["DEFAULT"]["real_requirements"].split(";")[0]]


def resolve():
    with tempfile.TemporaryDirectory() as tmp:
        venv.create(tmp, with_pip=True)
        pip = [str(Path(tmp) / "bin/python"), "-m", "pip"]
        subprocess.run([*pip, "install", "-q", "-U", "pip"], check=True)
        report = Path(tmp) / "report.json"
        subprocess.run([*pip, "install", "-q", "--dry-run", "--ignore-installed", "--report", report, TORCH, *BUILD, *wanted()], check=True)
        items = json.loads(report.read_text())["install"]
    pairs = ((i["metadata"]["name"], i["metadata"]["version"].split("+")[0]) for i in items)
    return sorted({re.sub(r"[-_.]+", "-", n).lower(): v for n, v in pairs if not SKIP.match(n)}.items())


if __name__ == "__main__":
    minor = "%d.%d" % sys.version_info[:2]
    out = ROOT / "locks" / f"py{minor.replace('.', '')}.txt"
    out.parent.mkdir(exist_ok=True)
    head = f"# Exact versions for Python {minor}; made by `make lock PYTHON=python{minor}` from settings.ini.\n"
    rows = resolve()
    out.write_text(head + "".join(f"{n}=={v}\n" for n, v in rows))
    print(f"{out.relative_to(ROOT)}: {len(rows)} packages")

"""Write locks/py3XX.txt: the exact version of everything that `settings.ini` asks for, on the Python that runs this.

    python3.11 tools/lock.py        # or: make lock PYTHON=python3.11

pip resolves the open ranges in an empty environment without installing them; the answer is written as plain
`name==version` lines. They are used as constraints (`pip install -c`): an install takes from them only what it needs.
Every version must run on the first release of its Python too (Debian 12 has 3.11.2): what asks for a later one is held
back to the newest that does not.
Left out are the CUDA libraries that torch brings on some platforms: torch itself names their exact versions.
"""
import configparser, json, re, subprocess, sys, tempfile, venv
from pathlib import Path

try: from packaging.specifiers import SpecifierSet
except ImportError: from pip._vendor.packaging.specifiers import SpecifierSet  # of every interpreter that has pip

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"  # chosen by hand, the same for every Python
BUILD = ["pip", "setuptools", "wheel", "setuptools_scm"]  # the last one builds seqeval, which has no wheel
SKIP = re.compile(r"nvidia-|cuda-|triton$")


def wanted():
    cfg = configparser.ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    groups = "requirements", "dev_requirements", "docs_requirements"
    return [r for g in groups for r in cfg["DEFAULT"][g].split()] + [cfg["DEFAULT"]["real_requirements"].split(";")[0]]


def install(pip, *args):
    "What pip would install for these arguments: the report's items"
    with tempfile.TemporaryDirectory() as tmp:
        report = Path(tmp) / "report.json"
        try_only = "-q", "--dry-run", "--ignore-installed", "--report", report
        subprocess.run([*pip, "install", *try_only, *args], check=True)
        return json.loads(report.read_text())["install"]


def too_new(items, first):
    "Names of the items that do not run on Python `first`, e.g. 3.11.0"
    asked = {i["metadata"]["name"]: i["metadata"].get("requires_python") or "" for i in items}
    return [name for name, spec in asked.items() if not SpecifierSet(spec).contains(first)]


def resolve():
    first, held = "%d.%d.0" % sys.version_info[:2], []
    with tempfile.TemporaryDirectory() as tmp:
        venv.create(tmp, with_pip=True)
        pip = [str(Path(tmp) / "bin/python"), "-m", "pip"]
        subprocess.run([*pip, "install", "-q", "-U", "pip"], check=True)
        while late := too_new(items := install(pip, TORCH, *BUILD, *wanted(), *held), first):
            old = ["--no-deps", "--only-binary=:all:", f"--python-version={first}", f"--target={tmp}/none"]
            held += [f"{n}<={install(pip, *old, n)[0]['metadata']['version']}" for n in late]
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

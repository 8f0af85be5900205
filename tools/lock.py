"""Write locks/py3XX.txt: the exact version of everything that `settings.ini` asks for, on the Python that runs this.

    python3.11 tools/lock.py        # or: make lock PYTHON=python3.11
    python3.11 tools/lock.py --oldest   # locks/oldest-py310.txt, whichever Python runs it

pip resolves the open ranges in an empty environment without installing them; the answer is written as plain
`name==version` lines. They are used as constraints (`pip install -c`): an install takes from them only what it needs.
Every version must run on the first release of its Python too (Debian 12 has 3.11.2): what asks for a later one is held
back to the newest that does not.
Left out are the CUDA libraries that torch brings on some platforms: torch itself names their exact versions.

There are locks for Python 3.10 to 3.13. On each of them everything has a wheel, but for seqeval, which is built from
source on every Python; only the extra `words`, which no lock holds, has nothing for 3.10.

The oldest lock has the lowest versions that `settings.ini` admits on the lowest Python that it admits, as uv resolves
them (`--resolution lowest-direct`): what the package itself needs is as old as may be, what that needs in turn, and
what tests and pages need, as new as fits. `make test-oldest PYTHON=python3.10` runs the tests on it.
"""
import configparser, json, re, subprocess, sys, tempfile, venv
from pathlib import Path

try: from packaging.specifiers import SpecifierSet
except ImportError: from pip._vendor.packaging.specifiers import SpecifierSet  # of every interpreter that has pip

ROOT = Path(__file__).resolve().parent.parent
TORCH = "torch==2.13.0"  # chosen by hand, the same for every Python
BUILD = ["pip", "setuptools", "wheel", "setuptools_scm"]  # the last one builds seqeval, which has no wheel
SKIP = re.compile(r"nvidia-|cuda-|triton$")


def settings():
    cfg = configparser.ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    return cfg["DEFAULT"]


def needed():
    cfg = settings()
    return cfg["requirements"].split() + [r.split(";")[0] for r in cfg["real_requirements"].strip().splitlines()]


def wanted(): return needed() + [r for g in ("dev_requirements", "docs_requirements") for r in settings()[g].split()]


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


def oldest(python):
    "The same of the lowest versions that are admitted, on a Python of this version"
    pins = lambda text: {r.split("==")[0]: r.split("==")[1] for r in text.split() if "==" in r}
    with tempfile.TemporaryDirectory() as tmp:
        venv.create(tmp, with_pip=True)
        subprocess.run([Path(tmp, "bin/python"), "-m", "pip", "install", "-q", "uv"], check=True)
        how = ["--no-header", "--no-annotate", "--color=never", "-q", f"--python-version={python}", "-"]
        def compiled(requirements, *args):
            done = subprocess.run([Path(tmp, "bin/uv"), "pip", "compile", *args, *how], input="\n".join(requirements),
                                  stdout=subprocess.PIPE, text=True, check=True, cwd=tmp)
            return pins(re.sub(r" *[;#].*", "", done.stdout))
        def name(r): return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", r)[0]).lower()
        newest = compiled([*BUILD, *wanted()])
        tools = {*map(name, [*BUILD, *wanted()])} - {*map(name, needed())}
        rows = compiled([*needed(), *(f"{n}=={newest[n]}" for n in sorted(tools))], "--resolution=lowest-direct")
    return sorted((n, v.split("+")[0]) for n, v in rows.items() if not SKIP.match(n))


if __name__ == "__main__":
    low, minor = sys.argv[1:] == ["--oldest"], "%d.%d" % sys.version_info[:2]
    if low: minor = settings()["min_python"]
    out = ROOT / "locks" / f"{'oldest-' * low}py{minor.replace('.', '')}.txt"
    out.parent.mkdir(exist_ok=True)
    what, how = ("Oldest", "python tools/lock.py --oldest") if low else ("Exact", f"make lock PYTHON=python{minor}")
    head = f"# {what} versions for Python {minor}; made by `{how}` from settings.ini.\n"
    rows = oldest(minor) if low else resolve()
    out.write_text(head + "".join(f"{n}=={v}\n" for n, v in rows))
    print(f"{out.relative_to(ROOT)}: {len(rows)} packages")

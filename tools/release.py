"""Is this tree ready to be released? Checks, builds wheel and sdist, tries them in empty environments.

    make release                           # with every Python from 3.10 on that is found
    make release PYTHONS="python3.12"      # with the Pythons that are named
    python tools/release.py --licences     # only the list of licences, of what is installed

Nothing is published: uploading and tagging are done by a person, and the last lines say how.
"""
import configparser, os, re, shutil, subprocess, sys, tarfile, tempfile, venv, zipfile
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST = 14  # Python 3.14 is the newest that is looked for; without a wheel of torch it is left out
OPEN = re.compile(r"MIT|BSD|Apache|ISC|PSF|Python|MPL|HPND|Unlicense|Historical|CC0|Unicode", re.I)
NEEDED = ["LICENSE", "README.md", "settings.ini", "setup.py", "xlnb/__init__.py", "xlnb/py.typed",
          "xlnb/assets/lab_encoder/config.json", "xlnb/assets/lab_english/model.safetensors",
          "xlnb/assets/me5_head/head.safetensors"]
faults = []


def settings():
    cfg = configparser.ConfigParser(delimiters=["="])
    cfg.read(ROOT / "settings.ini", encoding="utf-8")
    return cfg["DEFAULT"]


def say(name, fault="", note=""):
    "One line about a check"
    print(f"{'-- ' if fault else 'ok '}{name}{': ' + fault if fault else f' ({note})' if note else ''}", flush=True)
    if fault: faults.append(name)


def run(*argv, cwd=ROOT):
    done = subprocess.run([*map(str, argv)], cwd=cwd, capture_output=True, text=True)
    return done.returncode, (done.stdout + done.stderr).strip()


def versions(version):
    "One version everywhere, with a day in the list of changes, in a tree without changes"
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(rf"^## {re.escape(version)} \((.*?)\)", changes, re.M)
    dated = heading and re.fullmatch(r"\d{4}-\d\d-\d\d", heading[1])
    there = heading[0] if heading else "none"
    say("changes", "" if dated else f"CHANGELOG.md needs the heading '## {version} (YYYY-MM-DD)', not '{there}'")
    cited = re.search(r"^version:\s*\"?([\w.]+)", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    there = cited[1] if cited else "no version"
    say("citation", "" if there == version else f"CITATION.cff says {there}, settings.ini {version}")
    made = re.search(r'__version__ = "(.*?)"', (ROOT / "xlnb/__init__.py").read_text(encoding="utf-8"))
    fault = "" if made and made[1] == version else f"xlnb/__init__.py says {made and made[1]}: run nbdev_export"
    say("version", fault, version)
    changed = run("git", "status", "--porcelain")[1]
    say("tree", "commit or remove " + changed.splitlines()[0] if changed else "")


def licence_of(package):
    "What the metadata of an installed package say"
    about = metadata(package)
    of_class = [c.rpartition(" :: ")[2] for c in about.get_all("Classifier") or [] if c.startswith("License ::")]
    said = about.get("License-Expression") or "; ".join(of_class) or (about.get("License") or "").strip().split("\n")[0]
    return about["Version"], said[:60]


def licences(requirements, out):
    "A list of what the package needs, with licences; what is unknown or not open is a fault"
    rows, odd = [], []
    for name in (re.match(r"[\w.-]+", r)[0] for r in requirements.split()):
        try: version, licence = licence_of(name)
        except PackageNotFoundError: version, licence = "not installed", ""
        rows.append(f"{name:20} {version:14} {licence}")
        if not OPEN.search(licence) or re.search(r"\bA?GPL", licence): odd.append(f"{name} ({licence or 'unknown'})")
    out.parent.mkdir(exist_ok=True)
    out.write_text("\n".join(rows) + "\n", encoding="utf-8")
    say("licences", "look at " + ", ".join(odd) if odd else "", f"{len(rows)} requirements, {out.relative_to(ROOT)}")


def built(dist):
    "Wheel and sdist, with what they must hold"
    shutil.rmtree(ROOT / "build", ignore_errors=True), shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    for kind in "sdist", "wheel":
        code, text = run(sys.executable, "-c", f"from setuptools import build_meta as b; b.build_{kind}('dist')")
        if code: say(kind, text.splitlines()[-1])
    found = [*dist.glob("*.whl")], [*dist.glob("*.tar.gz")]
    names = zipfile.ZipFile(found[0][0]).namelist(), [n.partition("/")[2] for n in tarfile.open(found[1][0]).getnames()]
    wanted = [f for f in NEEDED if f.startswith("xlnb/")], NEEDED
    for kind, file, there, need in zip(("wheel", "sdist"), found, names, wanted):
        lost = [f for f in need if f not in there]
        size = file[0].stat().st_size / 1e6
        say(kind, f"lacks {', '.join(lost)}" if lost else "", f"{file[0].name}, {size:.1f} MB, {len(there)} files")
    return found[0][0], found[1][0]


def tried(python, file):
    "Install a file alone and run the script of the README"
    name = f"{file.suffix.removeprefix('.').replace('gz', 'sdist').replace('whl', 'wheel')} on {Path(python).name}"
    code, tag = run(python, "-c", "import sys, venv; print('py%d%d' % sys.version_info[:2])")
    if code: return say(name, "this Python does not run: " + tag.splitlines()[0][:200])
    lock = ROOT / "locks" / f"{tag}.txt"
    with tempfile.TemporaryDirectory() as tmp:
        code, text = run(python, "-m", "venv", tmp)
        pip = [f"{tmp}/bin/python", "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        if lock.exists(): pip += ["-c", lock]
        code = code or run(*pip, "-U", "pip", "setuptools", "wheel", "setuptools_scm")[0]
        if not code: code, text = run(*pip, "--no-build-isolation", file, cwd=tmp)
        if code: return say(name, "cannot be installed: " + text.splitlines()[-1][:200])
        script = Path(tmp, "script.py")
        script.write_text(run(sys.executable, "tools/readme.py", "--script")[1], encoding="utf-8")
        code, text = run("env", "HF_HUB_OFFLINE=1", f"{tmp}/bin/python", script, cwd=tmp)
        fault = "the script of the README fails: " + text.splitlines()[-1][:200] if code else ""
        say(name, fault, "exact versions" if lock.exists() else "open ranges")


def main(pythons):
    cfg = settings()
    versions(cfg["version"])
    wheel, sdist = built(ROOT / "dist")
    licences(cfg["requirements"], ROOT / "dist" / "licences.txt")
    code, text = run(sys.executable, "-m", "pytest", "-q", "tests/test_outputs.py")
    unseen = "" if os.environ.get("XLNB_DATA") else ", rows not compared as XLNB_DATA names no mirror"
    say("outputs without rows of closed sets", text.splitlines()[-1] if code else "", text.splitlines()[-1] + unseen)
    found = filter(None, (shutil.which(f"python3.{n}") for n in range(10, NEWEST + 1)))
    pythons = pythons or [p for p in found if not run(p, "-c", "import venv")[0]]
    for p in pythons: tried(p, wheel)
    if pythons: tried(pythons[-1], sdist)
    v = cfg["version"]
    left = ["make test, and `xlnb verify` on the stores that a page prints as stale",
            f"git tag v{v} && git push --tags",
            f"twine upload {wheel.relative_to(ROOT)} {sdist.relative_to(ROOT)}",
            "the release on the page of the repository, with the entry of CHANGELOG.md",
            f"pages that say `pip install .` from a clone: once the index has {v}, `pip install xlnb`",
            f"the cell of every page that installs on Colab: `git clone -b v{v}`, once the tag is there"]
    print(f"\n{'Not ready: ' + ', '.join(faults) + '.' if faults else 'Ready.'} What remains for a person:")
    for n, what in enumerate(left, 1): print(f"  {n}. {what}")
    return bool(faults)


if __name__ == "__main__":
    if sys.argv[1:] != ["--licences"]: sys.exit(main(sys.argv[1:]))
    licences(settings()["requirements"], ROOT / "dist" / "licences.txt")
    print((ROOT / "dist" / "licences.txt").read_text(encoding="utf-8"), end="")
    sys.exit(bool(faults))

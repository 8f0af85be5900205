"""`make release`: what it refuses and says of licences; builds and environments are tried by the command itself."""

import glob
import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def release(tmp_path, monkeypatch):
    "The tool, at work on a small tree"
    spec = importlib.util.spec_from_file_location("release", ROOT / "tools" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "xlnb").mkdir()
    (tmp_path / "CITATION.cff").write_text("version: 1.2.0\n")
    (tmp_path / "xlnb" / "__init__.py").write_text('__version__ = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.0 (2026-11-29)\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "run", lambda *argv, **options: (0, ""))
    return module


def test_one_version_everywhere(release, capsys):
    release.versions("1.2.0")
    assert release.faults == []
    (release.ROOT / "CHANGELOG.md").write_text("# Changes\n\n## 1.2.0 (unreleased)\n")
    release.versions("1.2.0")
    assert (
        release.faults == ["changes"]
        and "needs the heading '## 1.2.0 (YYYY-MM-DD)', not '## 1.2.0 (unreleased)'" in capsys.readouterr().out
    )
    release.faults.clear()
    release.versions("1.3.0")
    assert release.faults == ["changes", "citation", "version"]


def test_what_is_not_open_or_not_known_is_named(release, monkeypatch, capsys):
    known = {
        "one": ("1.0", "MIT License"),
        "two": ("2.0", "GNU GPL 3"),
        "three": ("3.0", ""),
        "four": ("4.0", "BSD-3-Clause"),
    }
    monkeypatch.setattr(release, "licence_of", lambda name: known[name])
    release.licences("one>=1 two three four<5", release.ROOT / "licences.txt")
    assert release.faults == ["licences"] and "look at two (GNU GPL 3), three (unknown)" in capsys.readouterr().out
    assert len((release.ROOT / "licences.txt").read_text().splitlines()) == 4


def test_the_licence_of_what_is_installed(release):
    assert release.licence_of("numpy")[1].startswith("BSD")


def test_the_list_of_licences_by_itself(release, monkeypatch):
    release.licences("numpy scipy>=1", release.ROOT / "dist" / "licences.txt")
    rows = (release.ROOT / "dist" / "licences.txt").read_text().splitlines()
    assert [r.split()[0] for r in rows] == ["numpy", "scipy"] and all("BSD" in r for r in rows) and release.faults == []


@pytest.fixture(scope="module")
def audit():
    "The workflow that looks at what is installed"
    yaml = pytest.importorskip("yaml")
    return yaml.safe_load((ROOT / ".github/workflows/audit.yml").read_text(encoding="utf-8"))


def test_the_audit_runs_weekly_and_where_locks_change(audit):
    when = audit[True]  # "on", as YAML reads it
    minute, hour, day, month, weekday = when["schedule"][0]["cron"].split()
    assert day == month == "*" and weekday.isdigit()
    assert all("locks/**" in when[event]["paths"] for event in ("push", "pull_request"))


def test_the_audit_reads_every_lock(audit, tmp_path):
    "Each is given to pip-audit, a stand-in here; a fault in the oldest versions is a warning, elsewhere an error"
    script = next(s["run"] for s in audit["jobs"]["vulnerabilities"]["steps"] if "for lock in" in s.get("run", ""))
    found = re.search(r"for lock in (\S+);", script)[1]
    locks = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "locks").iterdir())
    assert sorted(glob.glob(found, root_dir=ROOT)) == locks and any("oldest" in l for l in locks)
    stand_in = tmp_path / "pip-audit"
    for bad, code in ("none", 0), ("locks/oldest-py310.txt", 0), ("locks/py312.txt", 1):
        stand_in.write_text(f'#!/bin/sh\necho "read $2"; [ "$2" != {bad} ]\n')
        stand_in.chmod(0o755)
        done = subprocess.run(
            ["bash", "-ec", script],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env=dict(PATH=f"{tmp_path}:/usr/bin:/bin"),
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert re.findall(r"^read (\S+)$", done.stdout, re.M) == locks
        assert [*re.findall(r"^::(\w+) file=(\S+?)::", done.stdout, re.M)] == (
            [("warning" if "oldest" in bad else "error", bad)] if bad != "none" else []
        )


def test_the_audit_lists_licences(audit):
    steps = [s.get("run", "") for s in audit["jobs"]["licences"]["steps"]]
    assert "python tools/release.py --licences" in steps and any(
        s.endswith(" .") and s.startswith("pip install") for s in steps
    )

"""`make release`: what it refuses, and what it says of licences; the builds and environments are tried by the command itself."""
import importlib.util
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
    assert release.faults == ["changes"] and "needs the heading '## 1.2.0 (YYYY-MM-DD)', not '## 1.2.0 (unreleased)'" in capsys.readouterr().out
    release.faults.clear()
    release.versions("1.3.0")
    assert release.faults == ["changes", "citation", "version"]


def test_what_is_not_open_or_not_known_is_named(release, monkeypatch, capsys):
    known = {"one": ("1.0", "MIT License"), "two": ("2.0", "GNU GPL 3"), "three": ("3.0", ""), "four": ("4.0", "BSD-3-Clause")}
    monkeypatch.setattr(release, "licence_of", lambda name: known[name])
    release.licences("one>=1 two three four<5", release.ROOT / "licences.txt")
    assert release.faults == ["licences"] and "look at two (GNU GPL 3), three (unknown)" in capsys.readouterr().out
    assert len((release.ROOT / "licences.txt").read_text().splitlines()) == 4


def test_the_licence_of_what_is_installed(release): assert release.licence_of("numpy")[1].startswith("BSD")

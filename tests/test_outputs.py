"Committed outputs show nothing of the machine that made them"

import json, re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PATHS = re.compile(
    r"(?<![\w.~:/-])/(?:home|root|tmp|work|mnt|opt|srv|var|usr|Users|private)/[\w.-]+|[A-Z]:\\\\Users|0x[0-9a-f]{9,}"
)


def strings(value):
    "All strings in a piece of JSON"
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for o in (value.values() if isinstance(value, dict) else value):
            yield from strings(o)


@pytest.mark.parametrize("path", sorted((ROOT / "nbs").rglob("*.ipynb")), ids=lambda o: o.stem)
def test_no_machine_path_in_outputs(path):
    if ".ipynb_checkpoints" in path.parts:
        pytest.skip("a copy of the editor")
    for i, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        for out in cell.get("outputs", []):
            data = {k: v for k, v in out.get("data", {}).items() if not k.startswith("image/png")}
            for o in strings([out.get("text", []), data, out.get("traceback", []), out.get("evalue", "")]):
                assert not (found := PATHS.search(o)), f"{path.name}, cell {i}: {found[0]}"


def test_the_check_finds_paths():
    for bad in "saved to /tmp/x/y", "'/home/me/a'", "<A object at 0x7f0011223344>", "(/root/.cache":
        assert PATHS.search(bad)
    for good in "https://a.org/home/me", "runs/lab/x", "and/or", "in ../shared/data", "0x7f":
        assert not PATHS.search(good)


def test_run_all_leaves_slow_cells_out_unless_they_are_asked_for(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "from xlnb.core import skip_slow\nskip_slow()",
        "#| slow\nprint('hours')",
        "#| eval: false\nprint('days')",
        "print('stored')",
    ]

    def said(asked):
        if asked:
            monkeypatch.setenv("XLNB_SLOW", "1")
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
        NotebookClient(nb, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        return [c.outputs[0].text.split(":")[0].strip() for c in nb.cells[1:]]

    monkeypatch.delenv("XLNB_SLOW", raising=False)
    assert said(False) == ["left out, as it is slow"] * 2 + ["stored"]
    assert said(True) == ["hours", "days", "stored"]


def test_a_page_with_slow_cells_leaves_them_out_at_first():
    import glob, json, re

    for path in sorted(glob.glob(str(Path(__file__).parent.parent / "nbs" / "**" / "*.ipynb"), recursive=True)):
        texts = [
            "".join(c["source"])
            for c in json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
            if c["cell_type"] == "code"
        ]
        slow = [
            i
            for i, t in enumerate(texts)
            if re.match(r"(#\|.*\n)*#\|\s*(slow|eval:\s*false)\s*\n", t) and "nbdev_export" not in t
        ]
        assert not slow or any("skip_slow()" in t for t in texts[: slow[0]]), path


def test_no_page_is_printed_as_an_earlier_commit_made_it():
    "Every page runs with the code of today"
    for path in sorted((ROOT / "nbs").rglob("*.ipynb")):
        assert "Printed as it was made" not in path.read_text(encoding="utf-8"), path.name

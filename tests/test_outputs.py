"Committed outputs show nothing of the machine that made them, and no row of a set that may not be shared"

import html, json, os, re
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


# --- rows of sets that may not be shown
DATA, LONG = os.environ.get("XLNB_DATA"), 30
OPEN = re.compile(r"CC BY|CC0|Apache|MIT|BSD|free for any purpose")


def texts(value):
    "All texts in a value of a table; words in a list are a text too"
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        yield from ([" ".join(value)] if value and all(isinstance(o, str) for o in value) else [])
        for o in value:
            yield from texts(o)
    elif isinstance(value, str):
        yield value


def shown(cells):
    "The beginnings that a text could have which is shown in the outputs of cells: every run of so many characters"
    outputs = [o for c in cells for o in c.get("outputs", [])]
    said = [o.get("text", []) for o in outputs] + [v for o in outputs for k, v in o.get("data", {}).items() if k.startswith("text/")]
    plain = " ".join(re.sub(r"<[^>]+>", "", html.unescape("".join("".join(p) for p in said))).split())
    return {plain[i : i + LONG] for i in range(len(plain) - LONG + 1)}


def rows_in(windows, folder):
    "Texts of the tables of a set that are among what is shown; short ones are nobody's"
    import pyarrow.parquet as pq
    for file in folder.rglob("*.parquet"):
        for column in pq.read_table(file).columns:
            for text in (" ".join(t.split()) for v in column.to_pylist() for t in texts(v)):
                if len(text) >= LONG and text[:LONG] in windows:
                    yield text


@pytest.mark.skipif(not DATA, reason="XLNB_DATA is not set: the mirror is not at hand")
def test_no_row_is_shown_of_a_set_that_may_not_be_shared():
    "Of the sets of the mirror only those are shown whose licence allows it, as the tasks state it"
    from xlnb.data.tasks import TASKS
    from xlnb.data.tico19 import tico19
    may = {t.folder for t in TASKS.values() if t.folder and OPEN.search(t.licence)}
    may |= {f.__name__ for f in [tico19] if OPEN.search(f.__doc__)}  # text that no task has
    assert "mrpc" not in may and "geomlama" not in may and "sib200" in may
    windows = set().union(*(shown(json.loads(p.read_text(encoding="utf-8"))["cells"]) for p in (ROOT / "nbs").rglob("*.ipynb")))
    found = {d.name: next(rows_in(windows, d), None) for d in sorted(Path(DATA).iterdir()) if d.is_dir() and d.name not in may}
    assert {"mrpc", "geomlama"} <= {*found} and not {k: v for k, v in found.items() if v}


def test_the_check_finds_rows(tmp_path):
    import pandas as pd
    pd.DataFrame(dict(s=["short", "Nobody is allowed to show this very sentence."], w=[["a"], "None may show these words of a sentence".split()])
                 ).to_parquet(tmp_path / "a.parquet")
    page = lambda text: [dict(outputs=[dict(data={"text/html": ["<td>Nobody is allowed", f"</td> {text}"]})])]
    assert [*rows_in(shown(page("to show this <b>very</b> sentence. short")), tmp_path)] == ["Nobody is allowed to show this very sentence."]
    assert [*rows_in(shown(page("None may show these words of a sentence")), tmp_path)] == ["None may show these words of a sentence"]
    assert [*rows_in(shown(page("to sleep. short")), tmp_path)] == []

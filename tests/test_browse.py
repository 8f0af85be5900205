"The page of all scores holds every published record and finds new ones; the glossary and llms.txt are in step"

import json, re, shutil, sys
from pathlib import Path

import pytest

from xlnb import Store
from xlnb.core import XlnbError, digest

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT / "nbs"
PAGE = NBS / "03_browse.ipynb"
AGAIN = "a store has changed: make results RESULTS=nbs/03_browse.ipynb"


def cells(path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def source(cell):
    return "".join(cell["source"])


def shown():
    "The data that the page carries"
    outputs = [
        "".join(o.get("data", {}).get("text/html", ""))
        for c in cells(PAGE)
        if c["cell_type"] == "code"
        for o in c["outputs"]
    ]
    return json.loads(
        next(
            re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)[0]
            for html in outputs
            if 'class="browse"' in html
        )
    )


@pytest.fixture(scope="module")
def page():
    "Names that the cells of the page define, without what they compute"
    names = {}
    for c in cells(PAGE):
        if c["cell_type"] == "code" and re.search(r"^(import|def) ", source(c), re.M) and "#| hide" not in source(c):
            exec("\n".join(l for l in source(c).splitlines() if not l.startswith("[")), names)
    return names


@pytest.fixture(scope="module")
def data():
    return shown()


def test_page_holds_every_published_record(page, data):
    stores = page["stores"](NBS)
    assert len(stores) >= 2
    assert data["state"] == digest([[i["key"], i["provenance"]["date"]] for s in stores for i in s.infos()]), AGAIN
    rows = [dict(zip(data["columns"], r)) for r in data["rows"]]
    there = {(r["title"], r["task"], r["recipe"], r["encoder"], r["budget"]) for r in rows}
    for s in stores:
        title = source(cells(page["page_of"](s))[0]).splitlines()[0].removeprefix("# ")
        for i in s.infos():
            c = i["cell"]
            assert (title, c["task"]["name"], c["recipe_name"], c["encoder_name"], c["budget_name"]) in there, AGAIN


def test_page_uses_today_s_table_and_nothing_from_elsewhere(data):
    fragment = (NBS / "browse.html").read_text(encoding="utf-8")
    html = next(
        h
        for c in cells(PAGE)
        if c["cell_type"] == "code"
        for o in c["outputs"]
        if 'class="browse"' in (h := "".join(o.get("data", {}).get("text/html", "")))
    )
    assert [part for part in fragment.split("@DATA@") if part.strip() not in html] == [], AGAIN
    assert re.findall(r"https?:|src=|@import|url\(", fragment) == []


def test_intervals_need_five_runs(data):
    rows = [dict(zip(data["columns"], r)) for r in data["rows"]]
    for r in rows:
        assert len(r["runs"]) == r["seeds"] and min(r["runs"]) - 0.011 <= r["score"] <= max(r["runs"]) + 0.011
        assert r["low"] is None or r["seeds"] >= 5 and r["low"] <= r["score"] <= r["high"]
    assert {r["language"] for r in rows} >= {"mean of targets", "English (en)", "Swahili (sw)"}

    def table(r):
        return r["title"], r["task"], r["encoder"], r["recipe"], r["budget"]

    means = {table(r): r["score"] for r in rows if r["language"] == "mean of targets"}
    for key, score in means.items():
        targets = [
            r["score"] for r in rows if table(r) == key and r["language"] not in ("mean of targets", "English (en)")
        ]
        assert abs(sum(targets) / len(targets) - score) < 0.02


def test_a_new_store_finds_its_page(page, tmp_path):
    (tmp_path / "study" / "store").mkdir(parents=True)
    new = tmp_path / "study" / "store" / "fresh.zip"
    shutil.copy(NBS / "study" / "store" / "lab_baseline.zip", new)
    [store] = page["stores"](tmp_path)
    with pytest.raises(XlnbError, match="name the store after its page"):
        page["page_of"](store)
    reader = tmp_path / "study" / "40_reader.ipynb"
    reader.write_text("Store('store/fresh.zip')")
    assert page["page_of"](store) == reader
    packer = tmp_path / "methods" / "45_packer.ipynb"
    packer.parent.mkdir()
    packer.write_text("Store('../study/runs/fresh').pack('../study/store/fresh.zip')")
    assert page["page_of"](store) == packer
    named = tmp_path / "study" / "50_fresh.ipynb"
    named.write_text("{}")
    assert page["page_of"](store) == named


# --- glossary and llms.txt --------------------------------------------------------------------------------------------
def terms():
    "(term, meaning, title of the page, page) of the glossary"
    text = "".join(source(c) for c in cells(NBS / "02_glossary.ipynb"))
    return re.findall(r"^\| \*\*(.+?)\*\* \| (.+?) \| \[(.+?)\]\((.+?)\) \|$", text, re.M)


def test_glossary_leads_to_pages_that_use_its_terms():
    found = terms()
    assert len(found) > 40 and [t for t, *_ in found] == sorted({t for t, *_ in found}, key=str.lower)
    for term, meaning, title, page in found:
        text = "\n".join(map(source, cells(NBS / page)))
        first = next(source(c) for c in cells(NBS / page) if c["cell_type"] == "markdown")
        assert re.sub(r"s$", "", term.lower()) in text.lower(), f"{page} does not use the word {term}"
        assert first.startswith(f"# {title}\n"), f"{page} has another title"
        assert meaning.endswith(".") and meaning.count(". ") == 0 and meaning[0].isupper(), f"{term}: one sentence"


def test_glossary_has_the_vocabulary():
    wanted = "language task encoder head method recipe stage cell study seed source target baseline".split()
    known = " ".join(f"{t} {m}" for t, m, *_ in terms())
    assert [w for w in wanted if w not in known] == []
    assert {"cell", "recipe", "transfer gap", "parallel text", "budget", "store", "record"} <= {t for t, *_ in terms()}


def test_llms_txt_says_what_every_page_holds():
    pytest.importorskip("yaml")
    sys.path.insert(0, str(ROOT / "tools"))
    import pages

    text = pages.overview()
    head, *sections = re.split(r"^## ", text, flags=re.M)
    assert re.match(r"# \S.*\n\n> \S.*\n\n\S", head)
    entries = re.findall(r"^- \[(.+?)\]\((\S+)\): (\S.+)$", text, re.M)
    base = pages.config()["website"]["site-url"].rstrip("/")
    listed = [p for _, ps in pages.sections(pages.config()) for p in ps]
    assert [e[1] for e in entries[: len(listed)]] == [f"{base}/{pages.docname(p)}.html" for p in listed]
    assert [e[0] for e in entries[: len(listed)]] == [pages.heading_of(p)[0] for p in listed]
    assert sections[-1].startswith("Optional\n") and all(re.match(r"[^\n]+\n\n- \[", s) for s in sections)
    assert "`" not in text and "](" not in head

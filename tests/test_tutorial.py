"""The first tutorial as a stranger does it: from the command line, and in a plain script; own labels, own language, no task of ours."""
import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

NOUNS = dict(animal="dog cat horse goat".split(), food="bread apple soup rice".split(), vehicle="boat cart bus train".split())
ALSACE = "finetune(steps=8,batch_size=16)+alsace(text=\"parallel.csv\",amount=40)"
RECIPES = "finetune(steps=8,batch_size=16)", 'salt(steps=8,batch_size=16,text="text")', ALSACE


def vorian(word): return word[::-1]  # a language that nobody has: English words, read backwards


def sentences(n, seed):
    "Texts in both languages, with what they are about"
    r, out = random.Random(seed), []
    for _ in range(n):
        label = r.choice([*NOUNS])
        words = ["the", r.choice("farmer doctor king queen".split()), r.choice("watched found lost".split()), "the", r.choice(NOUNS[label])]
        out.append(dict(en=" ".join(words) + ".", qtv=" ".join(map(vorian, words)) + ".", label=label))
    return out


def write(file, rows, columns):
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, columns)
        out.writeheader(), out.writerows(rows)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    "A folder with the files of the tutorial, and nothing else"
    here = tmp_path_factory.mktemp("stranger")
    for lang, split, n in ("en", "train", 120), ("en", "validation", 30), ("en", "test", 30), ("qtv", "test", 30):
        write(here / "topics" / lang / f"{split}.csv", [dict(text=s[lang], label=s["label"]) for s in sentences(n, split)], ["text", "label"])
    plain = sentences(60, "unlabelled")
    (here / "text").mkdir()
    (here / "text" / "qtv.txt").write_text("\n".join(s["qtv"] for s in plain), encoding="utf-8")
    write(here / "parallel.csv", [dict(en=s["en"], qtv=s["qtv"]) for s in plain], ["en", "qtv"])
    write(here / "new.csv", [dict(text=s["qtv"], source=i) for i, s in enumerate(plain[:5])], ["text", "source"])
    (here / "topics" / "task.json").write_text('{"kind": "sentence"}')
    return here


def call(here, *argv):
    "A command in that folder, in a process of its own that reads no benchmark"
    env = {k: v for k, v in os.environ.items() if k != "XLNB_DATA"} | dict(HF_HUB_OFFLINE="1", COLUMNS="120")
    done = subprocess.run([sys.executable, *map(str, argv)], cwd=here, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def printed(here):
    "What the study prints: three recipes, two runs each, models kept"
    return call(here, "-m", "xlnb", "study", "--task", "topics", "--language", "qtv=Vorian", "--encoder", "lab", "--recipe", *RECIPES, "--seeds", "2",
                "--max-length", "24", "--save-models", "--out", "runs/topics", "--quiet")


@pytest.fixture(scope="module")
def models(here, printed): return {p.parent: json.loads(p.read_text()) for p in (here / "runs" / "topics" / "models").glob("*/xlnb.json")}


def test_study_of_an_own_language_from_the_command_line(here, printed, models):
    assert "qtv Vorian" in printed and "salt" in printed and "alsace" in printed
    assert len(models) == 6 and {m["encoder"] for m in models.values()} == {"lab"}
    assert all(m["labels"] == ["animal", "food", "vehicle"] for m in models.values())
    scores = list(csv.DictReader((here / "runs/topics/report/scores.csv").open(encoding="utf-8")))
    assert {(r["recipe"].partition("(")[0], r["lang"]) for r in scores} >= {("finetune", "qtv"), ("salt", "qtv")}
    assert {r["items"] for r in scores if r["lang"] == "qtv"} == {"30"}
    switched = [json.loads(i)["stages"][0]["extra"]["switches"] for i in infos(here) if '"salt' in i]
    assert switched, "SALT has switched words, although only the name of the language is known"


def infos(here):
    "The records of the cells, as text"
    script = "import json; from xlnb import Store\nfor i in Store('runs/topics').infos(): print(json.dumps(i, default=str))"
    return call(here, "-c", script).splitlines()


def test_predictions_are_a_csv_that_other_programs_read(here, models):
    folder = next(f for f, m in models.items() if "alsace" in m["recipe"])
    call(here, "-m", "xlnb", "predict", folder, "new.csv", "--out", "answers.csv")
    rows = list(csv.DictReader((here / "answers.csv").open(encoding="utf-8")))
    assert [r["source"] for r in rows] == [*"01234"] and list(rows[0]) == ["text", "source", "prediction", "p(animal)", "p(food)", "p(vehicle)"]
    for r in rows:
        p = {k[2:-1]: float(v) for k, v in r.items() if k.startswith("p(")}
        assert abs(sum(p.values()) - 1) < 1e-4 and max(p, key=p.get) == r["prediction"]
    plain = """import json, sys
from transformers import pipeline
print(json.dumps(pipeline('text-classification', sys.argv[1])(sys.argv[2:])))
assert not [m for m in sys.modules if m.split('.')[0] == 'xlnb']"""
    found = json.loads(call(here, "-c", plain, folder, *(r["text"] for r in rows)))
    assert [f["label"] for f in found] == [r["prediction"] for r in rows]
    assert all(abs(f["score"] - float(r[f"p({r['prediction']})"])) < 1e-3 for f, r in zip(found, rows))


SCRIPT = """
from xlnb import Budget, Study, get_task, register_language
from xlnb.languages import Language, language
register_language(Language('qtv', 'Vorian'))
study = Study('topics', encoders='lab', recipes=%r, seeds=2, budget=Budget(max_length=24), keep_models=True, store='runs/topics')
study.run(progress=False)
assert set(study.cells().state) == {'stored'}, study.cells()
study.figure().savefig('scores.pdf')
study.table().to_latex('scores.tex')
print(len(study.kept_models()), language('qtv').name, *get_task('topics').langs)
""" % (RECIPES,)


def test_a_plain_script_finds_the_same_cells_and_writes_figure_and_table(here, printed):
    (here / "script.py").write_text(SCRIPT)
    before = {p: p.stat().st_mtime_ns for p in (here / "runs" / "topics").glob("*.parquet")}
    assert call(here, "script.py").split() == ["6", "Vorian", "en", "qtv"]
    assert before and before == {p: p.stat().st_mtime_ns for p in before}, "nothing is computed twice"
    assert (here / "scores.pdf").read_bytes().startswith(b"%PDF-")
    text = (here / "scores.tex").read_text(encoding="utf-8")
    assert r"\caption{Accuracy" in text and r"batch\_size" not in text.partition(r"\caption")[0] and "qtv" in text

"""Studies: keys, resuming, broken files, several processes, failures."""
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest

from xlnb.core import XlnbError
from xlnb.evaluation.statistics import score_table, summary
from xlnb.study.recipe import METHODS, recipe
from xlnb.study.cell import Cell, rows_read
from xlnb.study.prefixes import Prefixes
from xlnb.study.store import Store
from xlnb.training.stage import Method
from xlnb.study.grid import Job, Study
from xlnb.data.tasks import get_task, own_task
from xlnb.training.stage import Budget

PLAIN = "finetune(epochs=1)"
FEW = dict(recipes=PLAIN, budget=Budget(train_examples=64, eval_examples=20, max_length=48), langs=["qal"])


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    "A tiny encoder with random weights, so that no test depends on the packaged one"
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    from xlnb.training.pretraining import train_tokenizer
    task, folder = get_task("lab-inference"), tmp_path_factory.mktemp("encoders") / "tiny"
    rows = [r for lang in ("en", "qal") for r in task.load(lang, "test", limit=100)]
    tokenizer = train_tokenizer([r["text_a"] for r in rows] + [r["text_b"] for r in rows], vocab_size=200)
    ids = dict(pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                              intermediate_size=64, max_position_embeddings=64, **ids)
    torch.manual_seed(0)
    XLMRobertaForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def small(encoder, tmp_path):
    "A study of two cells, with its own store"
    return lambda **kw: Study("lab-inference", **dict(encoders=encoder, seeds=2, store=tmp_path / "runs", **FEW) | kw)


@pytest.fixture(scope="session")
def reference(encoder, tmp_path_factory):
    "Items and report of the same two cells, computed without any trouble"
    study = Study("lab-inference", encoder, seeds=2, store=tmp_path_factory.mktemp("reference"), **FEW).run(progress=False)
    paths = study.report(tmp_path_factory.mktemp("report"))
    return study.items(), Path(paths["scores.csv"]).read_bytes()


def command(encoder, out, *more):
    return [sys.executable, "-c", "import sys; from xlnb.cli import main; sys.exit(main())", "run", "--task", "lab-inference", "--encoder", encoder,
            "--recipe", PLAIN, "--langs", "qal", "--train-examples", "64", "--eval-examples", "20", "--max-length", "48", "--out", str(out), "--quiet", *more]


def same(study, reference):
    pd.testing.assert_frame_equal(study.items(), reference[0])


def test_a_second_run_computes_nothing(small, reference, monkeypatch):
    same(small().run(progress=False), reference)
    monkeypatch.setattr("xlnb.study.grid.run_cell", lambda *a, **kw: pytest.fail("computed again"))
    same(small().run(progress=False), reference)
    assert sorted(small().store.root.iterdir()) == small().store.files()


def test_keys(small, encoder, tmp_path):
    cell = small().grid[0]
    other = [replace(cell, seed=7), replace(cell, langs=("en", "qcy")), replace(cell, budget=replace(cell.budget, train_examples=65)),
             replace(cell, recipe=recipe("finetune(lr=1e-3)")), replace(cell, task=get_task("lab-paraphrase"))]
    keys = [c.key() for c in [cell, *other]]
    assert len({*keys}) == len(keys)
    assert keys == [c.key() for c in [cell, *other]]
    moved = tmp_path / "elsewhere" / "tiny"
    moved.parent.mkdir()
    moved.symlink_to(encoder)
    assert replace(cell, encoder=str(moved)).key() == cell.key()


def test_a_changed_row_or_weight_changes_the_key(small, encoder, tmp_path):
    import shutil
    cell = small().grid[0]

    def one_label_off(lang, split):
        rows = cell.task.loader(lang, split)
        first = lambda r, i: {"label": (r["label"] + 1) % 3 if (i, split, lang) == (0, "test", "qal") else r["label"]}
        return rows.map(first, with_indices=True)

    full = replace(cell, budget=Budget())
    assert replace(full, task=replace(cell.task, loader=one_label_off)).key() != full.key()
    changed = Path(shutil.copytree(encoder, tmp_path / "tiny"))
    weights = changed / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    assert replace(cell, encoder=str(changed)).key() != cell.key()


def test_truncated_stale_and_foreign_files(small, reference):
    study = small().run(progress=False)
    first, second = study.store.files()
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])  # no footer
    data = bytearray(second.read_bytes())
    data[40:60] = bytes(20)  # a footer, but a broken page
    second.write_bytes(data)
    (study.store.root / "mine.parquet").write_text("not parquet")
    with pytest.warns(UserWarning) as said: study.run(progress=False)
    text = " ".join(str(w.message) for w in said)
    assert first.name in text and second.name in text and "mine.parquet" in text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        same(study, reference)


def test_kill_and_resume(encoder, tmp_path, reference):
    out = tmp_path / "runs"
    process = subprocess.Popen(command(encoder, out, "--seeds", "2"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 600
    while process.poll() is None and not list(out.glob("*.parquet")) and time.time() < deadline: time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = list(out.glob("*.parquet"))
    assert done, process.stderr.read()
    stamps = {p: p.stat().st_mtime_ns for p in done}
    study = Study("lab-inference", encoder, seeds=2, store=out, **FEW).run(progress=False)
    assert all(p.stat().st_mtime_ns == t for p, t in stamps.items())
    same(study, reference)
    assert Path(study.report(tmp_path / "report")["scores.csv"]).read_bytes() == reference[1]
    assert sorted(out.iterdir()) == study.store.files()


def test_two_processes_on_one_store(encoder, tmp_path, reference):
    out = tmp_path / "runs"
    other = subprocess.Popen(command(encoder, out, "--seeds", "2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while other.poll() is None and not list(out.glob(".*.lock")): time.sleep(.02)   # it has begun its first cell
    study = Study("lab-inference", encoder, seeds=2, store=out, **FEW).run(progress=False)
    said = other.communicate()
    assert other.returncode == 0 and "finetune" in said[0], said
    assert (out / "report" / "scores.csv").read_bytes() == reference[1]   # both say the same
    assert Path(study.report(tmp_path / "report")["scores.csv"]).read_bytes() == reference[1]
    assert len(list(out.glob("*.parquet"))) == 2 and not list(out.glob(".*"))
    same(study, reference)


def test_threads_of_one_process_take_turns(small, reference, monkeypatch):
    "They share its random numbers, and models while they are loaded: side by side, weights stayed untied"
    from concurrent.futures import ThreadPoolExecutor
    inside, seen, whole = [], [], Job.store

    def store(job, progress):
        inside.append(job)
        seen.append(len(inside))
        whole(job, progress)
        inside.remove(job)

    monkeypatch.setattr(Job, "store", store)
    with ThreadPoolExecutor(2) as pool: same(small().run(pool, progress=False), reference)
    assert seen == [1, 1]


@dataclass(frozen=True)
class Moody(Method):
    name: ClassVar = "moody"
    slot: ClassVar = "after"
    how: str = "fail"

    def stages(self, model, ctx):
        if ctx.seed == 1: raise KeyboardInterrupt if self.how == "interrupt" else RuntimeError("not today")
        yield from ()


@pytest.fixture
def moody(monkeypatch): monkeypatch.setitem(METHODS, "moody", Moody)


def test_one_failing_cell(small, moody):
    study = small(recipes=PLAIN + "+moody")
    with pytest.warns(UserWarning, match="seed 1 failed: RuntimeError: not today"): study.run(progress=False)
    assert study.cells().state.tolist() == ["stored", "failed"]
    assert len(study.failed) == 1 and "Traceback" in next(iter(study.failed.values()))[1]


def test_an_interrupted_study_keeps_what_is_finished(small, moody, tmp_path):
    study = small(recipes=PLAIN + "+moody(how=interrupt)", prefixes=Prefixes(tmp_path / "prefixes"))
    with pytest.raises(KeyboardInterrupt): study.run(progress=False)
    assert study.cells().state.tolist() == ["stored", "missing"]
    assert len(study.prefixes.keys()) == 3  # both of the stored cell, and what the running one had finished


def test_executor(small, reference):
    class AtOnce:
        def submit(self, f, *args):
            future = Future()
            future.set_result(f(*args))
            return future

    study = small().run(AtOnce(), progress=False)
    same(study, reference)


def test_earlier_code(small, monkeypatch):
    made = small().run(progress=False).items()
    code = Cell.code
    monkeypatch.setattr(Cell, "code", lambda self, *a: code(self, *a) | {"xlnb.training.stage": "later"})
    later = small()
    assert later.cells().state.tolist() == ["stale", "stale"] and set(later.cells().changed) == {"training.stage"}
    pd.testing.assert_frame_equal(later.items(), made)   # a page reads it all the same
    with monkeypatch.context() as m:
        m.setattr("xlnb.study.grid.run_cell", lambda *a, **kw: pytest.fail("computed again"))
        assert len(small(keep_stale=True).run(progress=False).items()) == 2 * 2 * 20
    assert later.run(progress=False).cells().state.tolist() == ["stored", "stored"]
    assert len(later.store.files()) == 2   # in the place of the stale ones


def test_tables_say_what_is_stale_and_what_was_stopped(small):
    study = small().run(progress=False)
    path = study.store.files()[0]
    items, info = study.store.read(path)
    study.store.write(path, items, info | dict(code=info["code"] | {"xlnb.core": "other"}, stopped=["the entropy fell"]))
    caption = small().table().attrs["caption"]
    assert "*Stale*: 1 of 2 cells" in caption and "changed: core" in caption
    assert "Stopped by a guard" in caption and "1 of 2 runs" in caption
    direct = score_table(small().items()).attrs["caption"]   # a table of the rows alone says it too
    assert "stopped early" in direct.lower() and "1 of 2" in direct
    assert "Stopped by a guard" in small().notes("lab-inference") and not small().notes("lab-spans")


def test_what_decides_a_result_is_in_the_key(small, tmp_path):
    cell = small().grid[0]
    spans = replace(cell, task=get_task("lab-spans"))
    assert replace(spans, task=replace(spans.task, metric="mlqa")).key() != spans.key()
    oracle = replace(cell, recipe=recipe("finetune(select='oracle:qal')"))
    assert rows_read(oracle.recipe.during, oracle) == [("qal", "validation")]

    def one_row_off(lang, split):
        def change(r, i):
            here = (i, split, lang) == (0, "validation", "qal")
            return {"label": (r["label"] + here) % 3, "text_a": r["text_a"] + " " * here + "x" * here}
        return cell.task.loader(lang, split).map(change, with_indices=True)

    other, full = replace(cell.task, loader=one_row_off), Budget()
    for r, differs in (("finetune(select='oracle:qal')", True), ("salt(select='oracle:qal',candidates=dictionary,dictionary=lab)", True),
                       ("finetune+alsace(teachers=oracle)", True), ("finetune+alsace(text=validation)", True), ("finetune", False)):
        a = replace(cell, recipe=recipe(r), budget=full)
        assert (replace(a, task=other).key() != a.key()) == differs, r


def test_a_custom_scorer_has_one_key_in_every_process():
    script = """
from dataclasses import replace
from xlnb.data.tasks import get_task
from xlnb.study.cell import Cell
from xlnb.study.recipe import recipe
from xlnb.methods.alsace.method import ALSACE
from xlnb.training.stage import Budget
import sys
class Scorer:
    def __init__(self, scale): self.scale = scale
finetune = recipe('finetune').during
for scale in (1, 1, 2): print(Cell(get_task('lab-inference'), 'lab', recipe([finetune, ALSACE(scorer=Scorer(scale))]), 0, Budget(train_examples=8, eval_examples=8), ('en', 'qal')).key())
"""
    first, second = (subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split() for _ in range(2))
    assert first == second and first[0] == first[1] != first[2]


def test_a_store_alone(small, reference):
    small().run(progress=False)
    store = Store(small().store.root)
    pd.testing.assert_frame_equal(store.items(), reference[0])
    pd.testing.assert_frame_equal(store.table(), small().table())
    info = store.finished()[0][1]
    assert info["stages"][0]["history"] and info["provenance"]["versions"]["torch"] and info["cell"]["budget"]["train_examples"] == 64


@pytest.mark.parametrize("wrong, says", [
    (dict(tasks="xlni"), "xnli"), (dict(langs="xx"), "Unknown language"), (dict(langs="fi"), "has no fi"), (dict(recipes="fintune"), "finetune"),
    (dict(recipes="finetune(lr=big)"), "takes a number or None"), (dict(recipes="finetune(lr=0)"), "above 0"), (dict(seeds=0), "above zero"),
    (dict(encoders="./nowhere"), "no such folder"), (dict(store="/proc/nowhere"), "Cannot write"), (dict(data="/nowhere", tasks="sib200", langs=None), "does not exist"),
    (dict(budget="x"), "no budget"), (dict(prefixes="x"), "Prefixes\\('x'\\)"), (dict(metrics={"foo": "x"}), "'foo'"), (dict(metrics="foo"), "no dict"),
    (dict(tasks=[]), "tasks=\\[\\]"), (dict(encoders=[]), "encoders=\\[\\]"), (dict(recipes=[]), "recipes=\\[\\]"), (dict(budget=[]), "budget=\\[\\]"),
    (dict(langs=[]), "langs=\\[\\]"), (dict(budget=100), "no budget"), (dict(store=3), "no place"), (dict(encoders=3), "names no encoder"),
    (dict(data=3), "names no"), (dict(recipes=3), "no method"), (dict(budget=Budget(eval_examples=20, max_length=1)), "max_length=1 leaves no room"),
    (dict(steps=3), "finetune\\(steps=3\\)"), (dict(max_length=3), "Budget\\(max_length=3\\)"), (dict(seed=3), "'seeds'")])
def test_mistakes_are_found_before_anything_runs(small, wrong, says):
    tasks = wrong.pop("tasks", "lab-inference")
    made = dict(FEW, seeds=1, encoders=small().encoders, store=small().store) | wrong
    with pytest.raises(XlnbError, match=says): Study(tasks, **made).run(progress=False)


def test_a_tokenizer_that_cannot_be_used_costs_no_cell(small, encoder, tmp_path):
    from shutil import copytree
    from transformers import AutoTokenizer
    bare = copytree(encoder, tmp_path / "bare")
    for f in [*bare.glob("tokenizer*"), *bare.glob("*.model"), *bare.glob("vocab*")]: f.unlink()
    larger = copytree(encoder, tmp_path / "larger")
    tok = AutoTokenizer.from_pretrained(encoder)
    tok.add_tokens([f"[new{i}]" for i in range(100_000 // 100)])
    tok.save_pretrained(larger)
    for folder, says in (bare, "has no tokenizer"), (larger, "knows .* tokens and the encoder has"):
        made = small(encoders=folder, store=tmp_path / f"of-{folder.name}")
        with pytest.raises(XlnbError, match=says): made.run(progress=False)
        assert not made.failed and not made.store.files()


def test_what_a_method_lacks_is_said_with_its_name(tmp_path):
    "English labels and a test set in another language, no text: refused before the first cell, by the method that asks"
    from xlnb import own_task
    rows = [dict(id=str(i), text=f"a day {i}", label=["dry", "wet"][i % 2]) for i in range(20)]
    task = own_task("weather", "sentence", {"en": dict(train=rows, validation=rows, test=rows), "sw": dict(test=rows)})
    for r, says in {"salt": "salt: ", "translate_train": "translate_train: ", "finetune+alsace": "alsace: .*text=",
                    "mmkd+finetune": "mmkd.*text=", "clism+finetune": "clism.*text="}.items():
        made = Study(task, recipes=["finetune(steps=1)", r], store=tmp_path)
        with pytest.raises(XlnbError, match=f"^{says}"): made.run(progress=False)
        assert not made.store.files()


def test_a_budget_has_no_steps():
    with pytest.raises(XlnbError, match=r"finetune\(steps=3\)"): Budget(steps=5)


def test_an_encoder_without_a_masked_lm_head(small, encoder, reference, tmp_path):
    "Plain fine-tuning needs the body only"
    from transformers import AutoModel, AutoTokenizer
    AutoModel.from_pretrained(encoder).save_pretrained(tmp_path / "tiny")
    AutoTokenizer.from_pretrained(encoder).save_pretrained(tmp_path / "tiny")
    same(small(encoders=tmp_path / "tiny").run(progress=False), reference)


def test_process_pool(small, reference):
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool: same(small().run(pool, progress=False), reference)


def test_few_examples(tmp_path):
    sizes = [Budget(train_examples=n, eval_examples=6, sample=s) for n in (4, 8) for s in range(2)]
    study = Study("lab-spans", recipes="finetune(select=last,epochs=1)", seeds=1, budgets=sizes, store=tmp_path, langs=["qal"]).run(progress=False)
    assert study.failed == {} and len(study.store.files()) == 4
    rows = {(b.train_examples, b.sample): set(get_task("lab-spans").load("en", "train", limit=b.train_examples, seed=b.sample)["id"]) for b in sizes}
    assert rows[4, 0] < rows[8, 0] and rows[4, 0] != rows[4, 1]   # a larger sample adds rows; another sample has others
    assert len({cell.key() for cell in study.grid}) == 4
    curve = study.curve(draws=50)
    assert curve.examples.tolist() == [4, 8] and curve.seeds.tolist() == [2, 2]


def record_of_each(study): return [study.store.read(f)[1] for f in study.store.files()]


def test_a_measure_has_its_own_code(small, monkeypatch):
    made = small(measures=["retrieval", "cost"]).run(progress=False)
    info = record_of_each(made)[0]
    assert "xlnb.evaluation.retrieval" in info["measure_code"]["retrieval"] and "xlnb.evaluation.retrieval" not in info["code"]
    for f in made.store.files():
        items, info = made.store.read(f)
        code = {m: h | {"xlnb.evaluation.retrieval": "earlier"} for m, h in info["measure_code"].items()}
        made.store.write(f, items, info | dict(measure_code=code, measures={m: [] for m in info["measures"]}))
    study = small(measures=["retrieval", "cost"])
    assert study.cells().state.tolist() == ["stored"] * 2 and set(study.cells().stale_measures) == {"retrieval"}
    assert "*Stale measure*: retrieval (changed: evaluation.retrieval)" in study.table().attrs["caption"]
    monkeypatch.setattr("xlnb.study.grid.run_cell", lambda *a, **kw: pytest.fail("computed again"))
    study.run(progress=False)
    assert set(study.cells().stale_measures) == {""}
    assert all(i["measures"]["retrieval"] and not i["measures"]["cost"] for i in record_of_each(study))


def test_a_stale_cell_that_is_kept_gets_no_measure(small, monkeypatch):
    made = small().run(progress=False).items()
    code = Cell.code
    monkeypatch.setattr(Cell, "code", lambda self, *a: code(self, *a) | {"xlnb.training.stage": "later"})
    monkeypatch.setattr("xlnb.study.cell.run_method", lambda *a, **kw: pytest.fail("trained again"))
    with pytest.warns(UserWarning, match="'calibration' is not recorded with 2 stored cells: the cell is stale and kept"):
        study = small(keep_stale=True, measures=["calibration"]).run(progress=False)
    assert study.cells().state.tolist() == ["stale"] * 2 and not study.failed
    pd.testing.assert_frame_equal(study.items(), made)


def test_a_measure_that_does_not_fit_costs_no_cell(encoder, tmp_path, monkeypatch):
    few = dict(FEW, encoders=encoder, seeds=1, store=tmp_path, measures=["calibration", "cost"])
    with pytest.warns(UserWarning, match="'calibration' is not recorded with 1 stored cells: .*leave this measure out"):
        study = Study("lab-tags", **few).run(progress=False)
    info, = record_of_each(study)
    assert not study.failed and [*info["measures"]] == ["cost"] and [*info["refused"]] == ["calibration"]
    monkeypatch.setattr("xlnb.study.grid.measured", lambda *a, **kw: pytest.fail("asked again"))
    Study("lab-tags", **few).run(progress=False)


@pytest.mark.parametrize("r, most", [("finetune+averaging(checkpoints=50)", 10), ("finetune(steps=3)+averaging(checkpoints=4)", 3)])
def test_more_snapshots_than_there_are(small, r, most):
    with pytest.raises(XlnbError, match=f"that has {most}"): small(recipes=r).run(progress=False)
    assert not small().store.files()


@pytest.mark.parametrize("r, budget, most", [
    ("finetune(epochs=1)+averaging(checkpoints=5)", Budget(train_examples=64, eval_examples=4), 4),
    ("finetune(epochs=1, batch_size=32, accumulate=2)+averaging(checkpoints=5)", Budget(train_examples=64, eval_examples=4), 2),
    ("salt(epochs=.5)+averaging(checkpoints=3)", Budget(train_examples=16, eval_examples=4), 1)])
def test_more_snapshots_than_the_rows_give(encoder, tmp_path, r, budget, most):
    "Rows, batch and epochs say how long a run is, before it begins"
    study = Study("lab-inference", encoder, ["finetune", r], 1, budget, "qal", tmp_path, prefixes=Prefixes(tmp_path / "prefixes"))
    with pytest.raises(XlnbError, match=f"that has {most}"): study.run(progress=False)
    assert not study.store.files()


def test_windows_of_long_texts_are_counted(encoder, tmp_path):
    "A passage that is read in several windows gives more rows to train on"
    few = Budget(train_examples=12, eval_examples=2, max_length=64)
    study = Study("lab-spans", encoder, "finetune(epochs=1, batch_size=4)+averaging(checkpoints=6)", 1, few, "qal", tmp_path, prefixes=Prefixes(tmp_path / "prefixes"))
    cell, = study.grid
    study.keys()
    assert study.steps(cell) > 3


def test_runs_at_chance_are_counted_where_labels_are_not_fixed(encoder, tmp_path):
    "Of multiple choice the kind knows what guessing gives; cells that were stored before it was recorded are counted too"
    few = Budget(train_examples=16, eval_examples=40)
    study = Study("lab-choice", encoder, "finetune(steps=1, lr=1e-9)", 2, few, "qal", tmp_path, prefixes=False).run(progress=False)
    assert study.items().chance.unique().tolist() == [.5] and "chance" not in study.store.read(study.store.files()[0])[0]
    assert "2 of 2" in summary(study.items()).caption and "failed runs" in study.table().caption.lower()
    assert "2 of 2" in summary(Store(tmp_path).items()).caption
    for file in study.store.files():
        items, info = study.store.read(file)
        study.store.write(file, items, {k: v for k, v in info.items() if k != "chance"})
    assert "2 of 2" in summary(study.items()).caption
    plain = Study("lab-inference", encoder, "finetune(steps=1)", 1, FEW_ROWS, "qal", tmp_path / "b", prefixes=False).run(progress=False)
    assert "chance" not in plain.items()    # the most frequent label says it


FEW_ROWS = Budget(train_examples=16, eval_examples=8)


def test_what_is_odd_about_rows_and_runs_is_said(encoder, tmp_path):
    "Test rows that were trained on, a test split of one label, a label in two spellings, one answer throughout"
    from xlnb import own_task
    rows = [dict(id=str(i), text=f"day {i}", label=["dry", "wet"][i % 2]) for i in range(8)]
    task = own_task("odd", "sentence", {"en": dict(train=rows, validation=rows, test=rows), "sw": dict(test=rows[::2])}, labels=["dry", "wet", "Wet"])
    study = Study(task, encoder, "finetune(lr=1e-9,steps=1)", seeds=1, store=tmp_path).run(progress=False)
    report = study.report(tmp_path / "report")
    for text in study.table().caption, (tmp_path / "report/summary.md").read_text():
        for part in ("100% of the test rows in en are training rows", "All test rows have one label: sw", "differ only in spelling: wet, Wet", "one answer throughout"):
            assert part in text, (part, text)
    assert report


def test_captions_name_the_rules_of_a_score(encoder, tmp_path):
    made = Study("lab-spans", encoder, "finetune(steps=1)", seeds=1, budget=Budget(train_examples=8, eval_examples=4), langs="qal", store=tmp_path)
    assert "Scored by the rules of squad." in made.run(progress=False).table().caption


def test_rows_left_out_are_said_below_the_table(encoder, tmp_path):  # noqa: F811
    rows = lambda *texts: [dict(id=str(i), text=t, label=("dry", "wet")[i % 2]) for i, t in enumerate(texts)]
    task = own_task("gappy", "sentence", {"en": dict(train=rows(*"abcd"), validation=rows(*"ab"), test=rows(*"abcd")),
                                          "sw": dict(test=rows("a", "NS", "", "d"))}, labels=("dry", "wet"), drop=("NS", ""))
    study = Study(task, encoder, "finetune(steps=1)", 1, store=tmp_path / "runs", prefixes=False).run(progress=False)
    said = "Rows of the test split left out, as they lack a text or a label: sw 2."
    assert said in study.notes() and said in study.table().caption
    paths = study.report(tmp_path / "report")
    assert said in Path(paths["summary.md"]).read_text() and len(study.items()) == 4 + 2


def test_a_packed_store_is_read_where_its_rows_are_not(encoder, tmp_path):  # noqa: F811
    from xlnb.study.verify import check_store
    task = get_task("lab-inference")
    study = lambda task, store, **more: Study(task, encoder, "finetune(steps=1)", 1, Budget(train_examples=8, eval_examples=6), "qal", store=store, prefixes=False, **more)
    here = study(task, tmp_path / "s").run(progress=False)
    here.store.pack(tmp_path / "s.zip")
    def nowhere(code, split): raise XlnbError("no mirror here")
    away = replace(task, loader=nowhere)
    assert study(away, tmp_path / "s.zip").table().equals(here.table()) and [*study(away, tmp_path / "s.zip").cells().state] == ["stored"]
    with pytest.raises(XlnbError, match="no mirror"): check_store(study(away, tmp_path / "s.zip"))
    with pytest.raises(XlnbError, match="no mirror"): study(away, tmp_path / "s").table()
    with pytest.raises(XlnbError, match="no mirror"): Study(away, encoder, "finetune(steps=2)", 1, store=tmp_path / "s.zip").table()
    check_store(study(task, tmp_path / "s.zip"))

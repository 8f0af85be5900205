"What a key is made of: which rows are asked for, what of a method counts, and when two cells share an encoder"
import types
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from datasets import Dataset

from xlnb.core import XlnbError, digest, plain
from xlnb.data.tasks import get_task
from xlnb.study import cell as module
from xlnb.study.cell import Cell, CellRun, data_fingerprint, encoder_label, rows_digest, rows_read
from xlnb.study.recipe import Recipe, recipe
from xlnb.training.stage import Budget, Method, Tuning

BUDGET = Budget(train_examples=5, eval_examples=3, max_length=48, sample=7)


class Rows:
    "In the place of a task: it keeps what it was asked for"
    source = "en"
    def __init__(self, trains=True, lacks=""): self.kind, self.lacks, self.asked = types.SimpleNamespace(trains=trains), lacks, []
    def load(self, lang, split, data=None, limit=None, seed=0):
        if lang == self.lacks: raise XlnbError(f"no {lang}")
        self.asked.append((lang, split, data, limit, seed))
        return types.SimpleNamespace(to_dict=lambda: dict(text=[lang + split]))
    def identity(self): return dict(name="rows")


@dataclass(frozen=True)
class First(Method):
    name: ClassVar[str] = "first"
    slot: ClassVar[str] = "before"
    shared: ClassVar[bool] = True
    by: int = 0


@dataclass(frozen=True)
class Own(First):
    name: ClassVar[str] = "own"
    shared: ClassVar[bool] = False


@dataclass(frozen=True)
class Bare:
    "One that says nothing of sharing"
    name: ClassVar[str] = "bare"
    slot: ClassVar[str] = "before"
    def fits(self, recipe): pass
    def reads(self, cell): return []
    def fingerprint(self, cell): return None


@dataclass(frozen=True)
class During(Tuning):
    "Another that cells may share up to fine-tuning, but not with it"
    name: ClassVar[str] = "during"
    shared: ClassVar[bool] = True
    by: int = 0


@dataclass(frozen=True)
class Last(Method):
    name: ClassVar[str] = "last"
    slot: ClassVar[str] = "after"
    rows: tuple = ()
    file: str = ""
    more: str = ""
    def reads(self, cell): return [*self.rows]
    def fingerprint(self, cell): return self.more


def cell_of(*before, after=(), during=None, **options):
    made = dict(task=Rows(), encoder="nothing", recipe=Recipe(during or During(), before, after), seed=4, budget=BUDGET, langs=("en", "qal"))
    return Cell(**made | options)


@pytest.fixture
def weights(monkeypatch):
    "The name of an encoder in the place of its weights, which this counts"
    asked = []
    monkeypatch.setattr(module, "encoder_fingerprint", lambda name: asked.append(name) or f"weights of {name}")
    return asked


def test_rows_of_a_key():
    "Training and validation rows of the source, and test rows of every language: as many, and of the draw, that the budget says"
    test = [("en", "test", "here", 3, 0), ("qal", "test", "here", 3, 0)]
    for task, wanted in ((Rows(), [("en", "train", "here", 5, 7), ("en", "validation", "here", 3, 0), *test]), (Rows(trains=False), test)):
        found = data_fingerprint(task, ("en", "qal"), BUDGET, "here")
        assert task.asked == wanted
        assert found == digest([[lang, split, digest(dict(text=[lang + split]))] for lang, split, *_ in wanted])
    assert rows_digest(Rows(), []) == digest([])


def test_what_a_key_is_made_of(weights):
    after = Last(rows=(("qal", "train"), ("qal", "validation"), ("qal", "test")), file="/a/folder/words.txt", more="a text")
    cell = cell_of(First(by=2), after=(after,), data="here")
    made = cell.made_of(cell.recipe.methods)
    assert cell.task.asked == [("qal", "train", "here", 5, 7), ("qal", "validation", "here", 3, 0), ("qal", "test", "here", None, 0)]
    assert rows_read(after, cell) == [*after.rows] and made["reads"] == rows_digest(Rows(), [(l, s, None, 0) for l, s in after.rows])
    assert made["encoder"] == "weights of nothing" and made["more"] == [None, None, "a text"]
    assert (made["budget"], made["seed"]) == (plain(BUDGET), 4)
    assert [m["method"] for m in made["recipe"]] == ["first", "during", "last"] and made["recipe"][0]["by"] == 2
    assert made["recipe"][2]["file"] == "words.txt"     # wherever it lies
    assert cell.made_of([Last()])["reads"] is None
    whole = dict(task=dict(name="rows"), langs=cell.langs, data=data_fingerprint(Rows(), cell.langs, BUDGET)) | made
    assert cell.identity() == whole and cell.key() == digest(whole)


def test_cells_of_a_study_read_once(weights):
    memo, cell = {}, cell_of(after=(Last(rows=(("qal", "train"),)),))
    keys = [replace(cell, seed=s).key(memo) for s in (0, 1, 0)]
    assert len(cell.task.asked) == 5 and weights == ["nothing"] and keys[0] == keys[2] != keys[1]
    assert replace(cell, encoder="other").key(memo) != cell.key(memo) and weights == ["nothing", "other"]
    for other in (replace(cell, data="there"), replace(cell, langs=("en",)), replace(cell, budget=replace(BUDGET, sample=8))): other.key(memo)
    assert len(cell.task.asked) == 5 + 5 + 3 + 5    # other languages are no other rows of the method


def test_what_cannot_be_read_is_said_with_the_names_of_the_methods(weights):
    reads = lambda *langs: Last(rows=tuple((l, "train") for l in langs))
    cell = cell_of(First(), after=(reads("qal"), reads("qcy")), task=Rows(lacks="qcy"))
    with pytest.raises(XlnbError, match="^last[+]last: no qcy$"): cell.made_of(cell.recipe.methods)
    def lacks(self, cell): raise XlnbError("last lacks a text")
    class Refuses(Last): fingerprint = lacks
    with pytest.raises(XlnbError, match="^last lacks a text$"): cell.made_of([Refuses()])


def test_how_a_cell_is_called(tmp_path, monkeypatch):
    folder = tmp_path / "tiny"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    names = ["somebody/model", "random:somebody/model", str(folder), f"random:{folder}", str(tmp_path / "link")]
    assert [*map(encoder_label, names)] == ["somebody/model", "random:somebody/model", "tiny", "random:tiny", "tiny"]
    (tmp_path / "zoo" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert [encoder_label(f"{r}zoo/tiny") for r in ("", "random:")] == ["tiny", "random:tiny"]    # wherever it stands in the alphabet
    task = types.SimpleNamespace(name="rows")
    cell = cell_of(First(by=2), task=task, encoder=str(folder))
    assert cell.label == "rows tiny first(by=2)+during (5 rows, 3 tested, 48 tokens) sample 7 seed 4"
    assert replace(cell, budget=replace(BUDGET, sample=0)).label == "rows tiny first(by=2)+during (5 rows, 3 tested, 48 tokens) seed 4"


@pytest.fixture
def prefix(weights, monkeypatch):
    "The name of the weights after some methods of a cell; `code` and `made` are what it takes for the code and the machine"
    state = types.SimpleNamespace(code={"m": "1"}, made=dict(machine=dict(cores=2), versions=dict(torch="2"), date="today", commit="a"))
    monkeypatch.setattr(Cell, "code", lambda self, methods=None: state.code | {m.name: "1" for m in methods})
    monkeypatch.setattr(Cell, "uses_lab", lambda self: self.encoder == "lab")
    monkeypatch.setattr(module, "provenance", lambda: state.made)
    def key(cell, n, max_length=48):
        run = object.__new__(CellRun)
        run.cell, run.trained = cell, len(cell.recipe.before) + 1
        run.ctx = types.SimpleNamespace(budget=replace(cell.budget, max_length=max_length))
        return run.prefix_key(n)
    key.state = state
    return key


class Other(Rows):
    "Other rows of one split"
    def __init__(self, split="train"): super().__init__(), setattr(self, "split", split)
    def load(self, lang, split, *args, **options):
        rows = super().load(lang, split, *args, **options).to_dict()
        return types.SimpleNamespace(to_dict=lambda: rows | dict(more=1) if split == self.split else rows)


def test_an_encoder_that_cells_share(prefix):
    "Its name has neither the task nor how many rows are read, unless a method on the way asks for the task"
    cell = cell_of(First(), First(by=1), after=(Last(),))
    name = lambda c=cell, n=2, **options: prefix(c, n, **options)
    alike = [replace(cell, task=Other()), replace(cell, budget=replace(BUDGET, train_examples=6, eval_examples=2, sample=1)),
             replace(cell, recipe=Recipe(During(by=3), cell.recipe.before)), replace(cell, data="there")]
    assert {name(c) for c in alike} == {name()}
    german = Rows()
    german.source = "de"
    unlike = [replace(cell, seed=5), replace(cell, langs=("en", "qcy")), replace(cell, encoder="other"), replace(cell, encoder="lab"),
              replace(cell, task=german), replace(cell, recipe=Recipe(During(), (First(), First(by=2)))), replace(cell, recipe=Recipe(During(), (First(by=1),) * 2))]
    keys = [name(), name(n=1), name(max_length=47), *map(name, unlike)]
    assert len({*keys}) == len(keys)
    for method in (Own(), Bare()):
        own = cell_of(First(), method)
        assert name(own, 1) == name(replace(own, task=Other()), 1) and name(own) != name(replace(own, task=Other()))


def test_a_model_that_is_fine_tuned_is_of_its_task(prefix):
    cell = cell_of(First(), after=(Last(),))
    assert prefix(cell, 2) == prefix(replace(cell, task=Other("test")), 2) == prefix(replace(cell, recipe=Recipe(During(), (First(),))), 2)
    named = types.SimpleNamespace(**vars(cell.task), source="en", load=cell.task.load, identity=lambda: dict(name="another"))
    unlike = [replace(cell, task=Other()), replace(cell, task=Other("validation")), replace(cell, task=named), replace(cell, budget=replace(BUDGET, train_examples=6)),
              replace(cell, recipe=Recipe(During(by=3), (First(),))), replace(cell, langs=("en",)), replace(cell, seed=5)]
    keys = [prefix(c, 2) for c in (cell, *unlike)] + [prefix(cell, 3)]
    assert len({*keys}) == len(keys)


def test_code_machine_and_versions_name_a_prefix(prefix):
    cell = cell_of(First())
    before, made = prefix(cell, 1), prefix.state.made
    prefix.state.made = made | dict(date="tomorrow", commit="b")
    assert prefix(cell, 1) == before
    for other in (dict(machine=dict(cores=3)), dict(versions=dict(torch="3"))):
        prefix.state.made = made | other
        assert prefix(cell, 1) != before
    prefix.state.made, prefix.state.code = made, {"m": "2"}
    assert prefix(cell, 1) != before


def test_a_cell_of_a_task_reads_its_rows():
    "The same with a registered task: one training row more or other, and only where it is read"
    rows = Dataset.from_dict(dict(id=[str(k) for k in range(9)], text_a=[f"a{k} b" for k in range(9)], text_b=["b c"] * 9, label=[0, 1, 2] * 3))
    task = get_task("lab-inference")
    given = lambda at: replace(task, loader=lambda lang, split: rows.map(lambda r: {"text_a": r["text_a"] + "x" * ((lang, split, r["id"]) == at)}))
    name = lambda at, langs=("en", "qal"), **budget: data_fingerprint(given(at), langs, Budget(eval_examples=9, **budget))
    same = name(None)
    assert same == name(("qal", "train", "0")) == name(("qal", "validation", "0")) == name(("qcy", "test", "0"))
    for at in (("en", "train", "8"), ("en", "validation", "8"), ("en", "test", "8"), ("qal", "test", "0")): assert name(at) != same
    assert name(None, train_examples=8) != same and name(None, train_examples=8, sample=1) != name(None, train_examples=8)
    assert recipe("finetune").during.reads(None) == []

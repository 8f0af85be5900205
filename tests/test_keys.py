"Objects among options: their digests, their names, and recipes that hold them"
import dataclasses, functools, os, subprocess, sys

import pytest

from xlnb.core import XlnbError, digest, plain
from xlnb.data.tasks import get_task
from xlnb.evaluation.scoring import HeadScorer
from xlnb.methods.alsace.method import ALSACE
from xlnb.methods.clism.method import CLISM
from xlnb.methods.finetune import FineTune
from xlnb.models.encoders import load_encoder, load_tokenizer
from xlnb.methods.mmkd.method import MMKD
from xlnb.study.grid import Study
from xlnb.study.recipe import Recipe


class Scorer:
    __hash__ = None
    def __init__(self, by=1): self.by = by

class Slotted:
    __slots__ = "a",
    def __init__(self, a): self.a = a

class Closed:
    "An object that shows nothing of what it holds"
    __slots__ = ()
    def __repr__(self): return "<Closed at 0x7f0000000000>"


def scale(x, by): return x * by


def test_a_set_has_the_same_digest_in_every_process():
    code = "from xlnb.core import digest; print(digest(dict(a={'x','y','z','w'}, b=frozenset([1, 2]))))"
    run = lambda seed: subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                                      env=os.environ | {"PYTHONHASHSEED": seed}).stdout
    assert run("1") == run("2")


def test_what_an_object_holds_decides_its_digest():
    part = functools.partial
    assert digest(part(scale, by=2)) == digest(part(scale, by=2)) != digest(part(scale, by=3))
    assert digest(Slotted(1)) == digest(Slotted(1)) != digest(Slotted(2))
    assert digest(lambda x: x + 1) != digest(lambda x: x + 2)
    assert digest(lambda x: len(x)) != digest(lambda x: sum(x))
    make = lambda by: lambda x: x * by
    assert digest(make(2)) == digest(make(2)) != digest(make(3))
    with pytest.raises(XlnbError, match="fingerprint"): digest(Closed())


def with_scorer(scorer): return Recipe(FineTune(steps=2), after=(ALSACE(scorer=scorer),))


def recursive(step):
    def again(x): return x if x <= 0 else again(x - step)
    return again


def test_what_holds_itself_has_a_digest():
    assert digest(recursive(1)) == digest(recursive(1)) != digest(recursive(2))
    def even(x): return x == 0 or odd(x - 1)
    def odd(x): return x != 0 and even(x - 1)
    assert len(digest(even)) == 16 and digest(even) != digest(odd)
    loop = Scorer()
    loop.by = [{"back": loop}, {loop.__init__.__name__}]
    assert digest(loop) == digest(loop) and digest({"a": loop}) != digest({"a": Scorer()})
    held = lambda x: x in {held}    # in a set, which is put in order by what JSON makes of it
    assert len(digest({held})) == 16
    twice = Scorer(3)
    assert digest([twice, twice]) == digest([Scorer(3), Scorer(3)])     # seen again, not in itself


def test_a_bound_method_is_what_it_is_bound_to():
    class Scaled:
        def __init__(self, by): self.by = by
        def score(self, x): return x * self.by
    assert digest(Scaled(1).score) == digest(Scaled(1).score) != digest(Scaled(2).score)


def test_a_tokenizer_and_a_model_are_their_content(tmp_path):
    import copy, torch
    one = load_tokenizer("lab")
    before = digest(one)
    for name in "here", "there":
        one.save_pretrained(tmp_path / name)
        load_encoder("lab").config.save_pretrained(tmp_path / name)
    a, b = (load_tokenizer(str(tmp_path / name)) for name in ("here", "there"))
    assert a.name_or_path != b.name_or_path and digest(a) == digest(b) == before
    a(["a b", "c"], padding=True, truncation=True, max_length=3)    # what a call has asked for stays in the tokenizer
    assert digest(a) == before
    task = get_task("lab-inference")
    assert digest(HeadScorer(task, a)) == digest(HeadScorer(task, b)) and str(with_scorer(HeadScorer(task, a))) == str(with_scorer(HeadScorer(task, b)))
    b.add_tokens(["[NEW]"])
    assert digest(HeadScorer(task, a)) != digest(HeadScorer(task, b))
    layer = torch.nn.Linear(2, 2)
    other = copy.deepcopy(layer)
    assert digest(layer) == digest(other)
    with torch.no_grad(): other.bias += 1
    assert digest(layer) != digest(other)

def test_a_recipe_names_an_object_without_its_address():
    assert "0x" not in str(with_scorer(Scorer())) and "scorer=Scorer-" in str(with_scorer(Scorer()))
    assert str(with_scorer(Scorer())) == str(with_scorer(Scorer())) != str(with_scorer(Scorer(2)))
    assert "0x" not in str(with_scorer([Scorer()]))
    head = str(with_scorer(HeadScorer(get_task("lab-inference"), load_tokenizer("lab"))))
    assert len(head) < 80 and "scorer=HeadScorer-" in head and head.count("\n") == 0


def test_recipes_with_objects_and_lists_are_cells_of_a_study(tmp_path):
    made = with_scorer(Scorer()), with_scorer(Scorer()), with_scorer(Scorer(2))
    assert made[0] == made[1] != made[2] and len({*made}) == 2
    study = Study("lab-inference", "lab", list(made), seeds=1, store=tmp_path)
    assert len(study.grid) == 2
    for m in (MMKD, CLISM):
        lists = [Recipe(FineTune(steps=2), before=(m(text=x),)) for x in (["a", "b"], ("a", "b"))]
        assert len(Study("lab-inference", "lab", lists, seeds=1, store=tmp_path).grid) == 1


def test_what_holds_itself_names_how_far_up():
    loop = {}
    loop["a"] = [{"b": loop}]
    assert plain([[loop]]) == [[{"a": [{"b": {"held by itself": 3}}]}]]
    assert plain(({"b", "a"}, (1, None), functools.partial(scale, by=2))) == [
        ["a", "b"], [1, None], dict(partial=f"{__name__}.scale", args=[], options=dict(by=2))]


@dataclasses.dataclass
class Later:
    by: int = 1
    more: int = dataclasses.field(default=1, metadata=dict(added=True))


class Free:
    def __init__(self, **held): self.__dict__.update(held)


def test_neither_order_nor_time_is_in_a_digest():
    one, other = {Free(x=3, y=0), Free(x=1, y=2)}, {Free(x=3, y=0), Free(y=2, x=1)}
    assert digest(one) == digest(other) != digest({Free(x=3, y=0), Free(x=2, y=1)})
    uses = lambda: later
    before = digest(uses)      # what it closes over is not there yet
    later = 1
    assert len(before) == 16 and digest(uses) != before


def test_an_option_that_came_later_counts_once_it_is_given():
    assert plain(Later()) == {"class": "Later", "by": 1} and digest(Later()) != digest(Later(2))
    for more in (0, 2): assert plain(Later(more=more)) == {"class": "Later", "by": 1, "more": more}

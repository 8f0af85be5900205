"""Ways in that once ended in a wall: what a method asks for, what is odd about rows, tags of other schemes,
checkpoints as others saved them."""

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from test_study import encoder  # noqa: F401  a fixture
from xlnb.core import XlnbError
from xlnb.data import sources
from xlnb.data.tasks import own_task
from xlnb.study.cell import Cell
from xlnb.study.grid import Study
from xlnb.study.notes import data_notes
from xlnb.study.recipe import recipe
from xlnb.training.stage import Budget


def day(i, label=None, **more):
    return dict(id=str(i), text=f"a day {'abcdefghijklmnopqrst'[i]}", label=label or ("dry", "wet")[i % 2]) | more


def refusal(method, tmp_path):
    "What a study says of a method, where there are English labels and a test set in Swahili, and no text"
    rows = [day(i) for i in range(20)]
    task = own_task("weather", "sentence", {"en": dict(train=rows, validation=rows, test=rows), "sw": dict(test=rows)})
    study = Study(task, recipes=["finetune(steps=1)", method], store=tmp_path)
    with pytest.raises(XlnbError) as said:
        study.run(progress=False)
    assert not study.store.files()
    return str(said.value)


@pytest.mark.parametrize(
    "method, give",
    [
        ("salt", "give text= a folder of sw.txt, ..., {'sw': texts}, or a table with a column 'lang'"),
        ("finetune+alsace", "text="),
        ("mmkd+finetune", "give text= a ParallelText"),
        ("clism+finetune", "give text= a ParallelText"),
        ("translate_train", "put translated ones into sw/train.csv, or give own_task {'sw': {'train': rows}} too"),
    ],
)
def test_what_to_give_is_named(method, give, tmp_path):
    said = refusal(method, tmp_path)
    assert give in said and said.startswith(method.removeprefix("finetune+").partition("+")[0])


def test_translated_rows_of_ones_own_are_trained_on(encoder, tmp_path):  # noqa: F811
    rows = [day(i) for i in range(8)]
    task = own_task(
        "weather", "sentence", {"en": dict(train=rows, validation=rows, test=rows), "sw": dict(train=rows, test=rows)}
    )
    study = Study(task, encoder, "translate_train(steps=1)", seeds=1, store=tmp_path).run(progress=False)
    assert not study.failed and set(study.items().lang) == {"en", "sw"}


# --- what a reader of a table is told
NOTES = {
    "a label that is only in the test": (
        "No training row has the label 'wet', test rows have it (en, sw).",
        dict(train=[day(i, "dry") for i in range(4)], sw=[day(0, "wet"), day(1, "dry")]),
    ),
    "inputs that are mostly cut": (
        "More than half of the inputs are cut at 16 tokens: sw.",
        dict(sw=[day(i, text="the day is long and " * 9) for i in range(4)]),
    ),
    "letters that the encoder does not know": (
        "More than a fifth of the tokens are unknown to the encoder: sw.",
        dict(sw=[day(i, text=f"ՀԱՅ {i}") for i in range(4)]),
    ),
    "rows without a translation": (
        "Rows of the test split left out, as they lack a text or a label: sw 2.",
        dict(sw=[day(0), day(1), day(2, text="NS"), day(3, text=" ")]),
    ),
    "one label throughout": ("All test rows have one label: sw.", dict(sw=[day(i, "wet") for i in range(4)])),
    "test rows that were trained on": (
        "100% of the test rows in en are training rows.",
        dict(train=[day(i) for i in range(4)], en=[day(i) for i in range(4)]),
    ),
    "nothing odd": (None, {}),
}


@pytest.mark.parametrize("odd", NOTES)
def test_what_is_odd_about_rows_is_said(odd):
    says, rows = NOTES[odd]
    given = (
        dict(train=[day(i) for i in range(4)], en=[day(i + 10) for i in range(4)], sw=[day(i + 10) for i in range(4)])
        | rows
    )
    task = own_task(
        "weather",
        "sentence",
        {"en": dict(train=given["train"], test=given["en"]), "sw": dict(test=given["sw"])},
        labels=("dry", "wet"),
        drop=("NS", ""),
    )
    assert data_notes(Cell(task, "lab", recipe("finetune"), 0, Budget(max_length=16), ("en", "sw"))) == (
        [says] if says else []
    )


# --- tags of other schemes, a source without labels
@pytest.mark.parametrize(
    "tags, rule",
    [("I-P I-P O", "conll"), ("B-P E-P O", "conll"), ("PER PER O", "words"), ("PROPN PROPN VERB", "words")],
)
def test_tags_of_other_schemes_are_trained_and_scored(tags, rule, encoder, tmp_path):  # noqa: F811
    rows = [dict(id=str(i), tokens=["Ada", "King", "wrote"], tags=tags.split()) for i in range(8)]
    task = own_task("names", "tags", {"en": dict(train=rows, validation=rows, test=rows), "sw": dict(test=rows)})
    study = Study(task, encoder, "finetune(epochs=25,lr=1e-2)", seeds=1, store=tmp_path).run(progress=False)
    scores = study.scores()
    assert (
        not study.failed and task.metric == rule and scores.score.tolist() == [1, 1]
    ), "what was learnt by heart is right throughout"
    assert f"Scored by the rules of {rule}" in study.table().caption


def copa(path, config, split, **options):
    "As on the Hub: the English test labels are kept secret"
    return Dataset.from_list(
        [
            dict(
                idx=i,
                premise=f"A {config} {i}",
                question="cause",
                choice1="B",
                choice2="C",
                label=-1 if (path, split) == ("aps/super_glue", "test") else i % 2,
            )
            for i in range(5 if split == "validation" else 4)
        ]
    )


def test_secret_english_labels_do_not_cost_a_study(encoder, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sources, "load_dataset", copa)
    with pytest.warns(UserWarning, match="so English is tested on its validation rows"):
        study = Study(
            "xcopa", encoder, "finetune(steps=1)", seeds=1, langs=["sw", "zh"], data="hub", store=tmp_path
        ).run(progress=False)
    assert not study.failed and study.items().groupby("lang").size().to_dict() == dict(en=5, sw=4, zh=4)


# --- checkpoints and data sets as others saved them
def test_tied_weights_under_the_other_name(encoder, tmp_path):  # noqa: F811
    from shutil import copytree

    from xlnb.models.encoders import load_encoder

    folder = copytree(encoder, tmp_path / "other")
    found = load_file(folder / "model.safetensors")
    words = found.pop("roberta.embeddings.word_embeddings.weight")
    save_file(found | {"lm_head.decoder.weight": words}, folder / "model.safetensors", metadata=dict(format="pt"))
    model = load_encoder(str(folder))
    assert torch.equal(model.get_input_embeddings().weight, words) and torch.equal(
        model.get_output_embeddings().weight, words
    )


def test_a_data_set_that_is_a_script_is_read_from_its_copy(monkeypatch):
    asked = []

    def fake(path, config=None, split=None, revision=None, data_dir=None):
        asked.append((path, config, data_dir, revision, split))
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found set.py")
        return Dataset.from_list([dict(a=1)])

    monkeypatch.setattr(sources, "load_dataset", fake)
    assert sources.read_hub("me/set", "sw", "test").to_list() == [dict(a=1)]
    assert asked == [("me/set", "sw", None, None, "test"), ("me/set", None, "sw", "refs/convert/parquet", "test")]


@pytest.mark.parametrize("size", [10, 3000])
def test_a_report_for_which_there_is_no_room(size, encoder, tmp_path, capsys):  # noqa: F811
    "As on a full disk: files cannot grow beyond a size that a table does not fit in, or a figure does not"
    import resource

    from xlnb.cli import main

    few = Budget(train_examples=16, eval_examples=8)
    Study("lab-inference", encoder, "finetune(steps=1)", seeds=1, budget=few, langs="qal", store=tmp_path / "runs").run(
        progress=False
    )
    capsys.readouterr()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        code = main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page")])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr()
    last = said.err.splitlines()[-1]  # after the warning that one seed says little
    assert (
        (code, said.out) == (2, "")
        and f"Cannot write to {tmp_path / 'page'}" in last
        and "make room" in last
        and "Traceback" not in said.err
    )
    assert (
        main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page")]) == 0
        and (tmp_path / "page" / "summary.md").stat().st_size
    )

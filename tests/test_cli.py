"""The command line: help, mistakes, exit codes, output."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from safetensors.torch import load_file

from test_study import encoder  # noqa: F401  a fixture
from xlnb.cli import main

MIRROR = os.environ.get("XLNB_DATA")
FEW = "--langs qal --train-examples 64 --eval-examples 20 --max-length 48 --quiet".split()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    "Each test in a folder of its own, offline, without a mirror"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XLNB_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with warnings.catch_warnings():
        yield


def call(*argv):
    try:
        return main([str(a) for a in argv])
    except SystemExit as e:
        return e.code


def few(encoder, *more):
    "The command of a small study"
    return ["run", "--task", "lab-inference", "--encoder", encoder, *FEW, *more]


def shell(*argv, **env):
    return subprocess.run(
        [sys.executable, "-m", "xlnb", *map(str, argv)], capture_output=True, text=True, env={**os.environ, **env}
    )


def test_help_is_light():
    code = (
        "import sys, xlnb.cli\ntry: xlnb.cli.main(['run', '--help'])\nexcept SystemExit: pass\n"
        "assert not {'torch', 'pandas', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout and "exit codes:" in done.stdout


def test_every_command_has_help(capsys):
    for command in ("run", "study", "pretrain", "tasks", "languages", "report", "pack", "unpack", "predict", "verify"):
        assert call(command, "--help") == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 110


def test_the_package_is_light():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, xlnb; assert not {'torch', 'numpy', 'pandas', 'fastcore'} & set(sys.modules)",
        ]
    )
    assert done.returncode == 0


PUBLIC = """predict_texts FineTune SALT ALSACE MMKD CLISM Averaging Method register_method recipe Study Store Budget
Schedule get_task list_tasks own_task register_task register_language load_encoder load_finetuned
save_finetuned predict parallel_text pretrain score_table compare verify plot_curve plot_gap plot_heatmap
plot_history plot_scores XlnbError published_numbers against_published""".split()


def test_public_names():
    import xlnb

    assert sorted(dir(xlnb)) == sorted(PUBLIC)
    examples = "\n".join(
        "".join(c["source"])
        for p in Path(__file__).parents[1].glob("nbs/**/*.ipynb")
        if "_lab_" not in p.name
        for c in json.loads(p.read_text())["cells"]
        if c["cell_type"] == "code" and "#| export" not in "".join(c["source"])
    )
    for name in PUBLIC:
        found = getattr(xlnb, name)
        assert found.__doc__ and not found.__doc__.startswith(f"{name}("), name
        assert re.search(rf"\b{found.__name__}\b", examples), f"no page has an example of {name}"
    with pytest.raises(AttributeError, match="public names"):
        xlnb.nothing


def own_task(folder, rows, **described):
    "A folder that is a task: English and Swahili rows"
    for lang in ("en", "sw"):
        for split in ("train", "validation", "test"):
            (folder / lang).mkdir(parents=True, exist_ok=True)
            text = [
                json.dumps(r)
                for r in (
                    rows
                    if (lang, split) == ("sw", "test")
                    else [dict(text="a b", label="no"), dict(text="b a", label="yes")]
                )
            ]
            (folder / lang / f"{split}.jsonl").write_text("\n".join(text))
    (folder / "task.json").write_text(json.dumps(dict(kind="sentence", labels=["no", "yes"]) | described))
    return folder


def mistakes(encoder, here):
    from transformers import GPT2Config

    GPT2Config().save_pretrained(here / "decoder")
    half = here / "half"
    half.mkdir()
    for f in Path(encoder).iterdir():
        (half / f.name).write_bytes(f.read_bytes()[:3000] if f.suffix == ".safetensors" else f.read_bytes())
    run = ["run", "--encoder", encoder, *FEW, "--task"]
    lab = ["run", "--task", "lab-inference", *FEW, "--encoder"]
    own = lambda name, rows, **kw: [
        "run",
        "--encoder",
        encoder,
        "--recipe",
        "finetune(epochs=1)",
        "--quiet",
        "--task",
        own_task(here / name, rows, **kw),
    ]
    return {
        "unknown task": (run + ["lab-infrence"], "lab-inference"),
        "unknown language": (lab + [encoder, "--langs", "qal,xx"], "Unknown language 'xx'"),
        "a language that the task lacks": (lab + [encoder, "--langs", "sw"], "has no sw"),
        "unknown recipe": (lab + [encoder, "--recipe", "finetone"], "finetune"),
        "unknown option": (lab + [encoder, "--recipe", "finetune(rate=1)"], "no option 'rate'"),
        "no encoder": (lab + ["./nowhere"], "no such folder"),
        "no encoder but a decoder": (lab + [here / "decoder"], "left to right"),
        "half an encoder": (lab + [half], "half-written"),
        "no network for the encoder": (lab + ["someone/some-encoder"], "the network"),
        "no network for the data": (
            run[:1] + ["--encoder", encoder, "--task", "sib200", "--langs", "sw", "--data", "hub"],
            "mirror",
        ),
        "no such mirror": (
            run[:1] + ["--encoder", encoder, "--task", "sib200", "--langs", "sw", "--data", "nowhere"],
            "does not exist",
        ),
        "a mirror without the task": (
            run[:1] + ["--encoder", encoder, "--task", "sib200", "--langs", "sw", "--data", here],
            "sib200",
        ),
        "empty text": (own("blank", [dict(text=" ", label="no")]), "text"),
        "text that is none": (own("number", [dict(text=3, label="no")]), "text"),
        "a label outside the set": (own("label", [dict(text="a", label="maybe")]), "maybe"),
        "an unknown kind": (own("kind", [dict(text="a", label="no")], kind="poem"), "poem"),
        "nowhere to write": (lab + [encoder, "--out", "/proc/nowhere"], "Cannot write"),
        "an empty store": (["report", here / "empty"], "no finished cell"),
        "nothing to pack": (["pack", here / "empty", here / "empty.zip"], "nothing to pack"),
        "a packed store of another name": (["pack", here / "empty", here / "empty.tar"], "empty.tar.zip"),
        "no text": (["pretrain", "--text", "nothing.txt", "--out", "mine"], "nothing.txt"),
        "no task": (["run"], "--task"),
        "no command": (["fly"], "fly"),
        "bad seeds": (["run", "--task", "xnli", "--seeds", "none"], "none"),
        "bad number": (["run", "--task", "xnli", "--steps", "0"], "above zero"),
        "a preset with a task": (["study", "--preset", "lab", "--task", "lab-inference", *FEW], "leave out --preset"),
        "several recipes of run": (
            run + ["lab-inference", "--recipe", "finetune", "salt"],
            "joined by '+', and `study` takes",
        ),
        "a mistyped option": (run + ["lab-inference", "--eval-example", "3"], "did you mean --eval-examples"),
        "an input without room": (lab + [encoder, "--max-length", "1"], "max_length=1 leaves no room"),
    }


def test_mistakes_are_one_sentence(encoder, tmp_path, capsys):  # noqa: F811
    for name, (argv, says) in mistakes(encoder, tmp_path).items():
        capsys.readouterr()
        code, (out, err) = call(*argv), capsys.readouterr()
        lines = [l for l in err.splitlines() if l.strip()]
        assert code == 2, (name, code, out, err)
        assert len(lines) == 1 and lines[0].startswith("xlnb") and says in err, (name, err)
        assert not out, (name, out)


@pytest.mark.parametrize("place", ["/proc/page", "/dev/null/page"])
def test_nowhere_to_write_a_report(encoder, place, capsys):  # noqa: F811
    assert call(*few(encoder, "--seeds", "1", "--recipe", "finetune(steps=1)", "--out", "runs/x")) == 0
    capsys.readouterr()
    for command in (
        ("report", "runs/x", "--out", place),
        ("pack", "runs/x", f"{place}/x.zip"),
        ("unpack", "runs/x", f"{place}/x"),
    ):
        assert call(*command) == 2
        err = capsys.readouterr().err
        assert f"Cannot write to {place}" in err and err.count("\n") == 1, err


def test_debug_shows_where(capsys):
    assert call("run", "--task", "xlni", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_mistake_in_a_shell(tmp_path):
    done = shell("run", "--task", "lab-inference", "--langs", "zz")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)


def test_run_and_report(encoder, tmp_path, capsys):  # noqa: F811
    argv = few(encoder, "--seeds", "2", "--out", "runs/a")
    assert call(*argv) == 0
    out, err = capsys.readouterr()
    assert "Transfer gap = score of the source" in " ".join(out.split()) and not err
    number, interval = r"-?\d\.\d{3}", r" \[-?\d\.\d{3}, -?\d\.\d{3}\]"  # of 20 rows; a wide interval is left out
    assert re.search(rf"^en English +{number}(?:{interval})?$", out, re.M)
    assert re.search(rf"^transfer gap +{number}{interval}$", out, re.M)
    for path in re.findall(r"^\w+: +(runs/\S+)$", out, re.M):
        assert Path(path).stat().st_size
    assert call(*argv) == 0
    assert capsys.readouterr().out == out
    assert call("report", "runs/a", "--out", "page") == 0
    assert capsys.readouterr().out == out.replace("runs/a/report", "page")
    assert call("report", "runs/a", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {r["lang"] for r in told["scores"]} == {"en", "qal"} and told["failed"] == {}
    assert call("pack", "runs/a", "page.zip") == 0 and "2 cells" in capsys.readouterr().out
    assert call("report", "page.zip") == 0
    assert capsys.readouterr().out == out.replace("runs/a/report", "page/report")
    assert call("unpack", "page.zip", "runs/b") == 0 and call("report", "runs/b", "--out", "runs/a/report") == 0
    assert capsys.readouterr().out.endswith(out)
    next(Path("runs/a").glob("*.parquet")).write_bytes(b"half")
    assert call("report", "runs/a") == 0
    assert "is not a finished cell" in capsys.readouterr().err


@pytest.mark.parametrize("data, task, units", [("there", "xnli:nli_en", True), (None, "xnli", False)])
def test_the_real_preset_is_laid_out(tmp_path, monkeypatch, data, task, units):
    from xlnb.study.grid import real_study

    monkeypatch.setattr("xlnb.study.grid.device", lambda: "cpu")
    monkeypatch.setattr("xlnb.study.grid.multiplies_bf16", lambda: units)  # else bf16 takes longer than fp32
    if data:
        (tmp_path / data).mkdir(), monkeypatch.setenv("XLNB_DATA", str(tmp_path / data))
    study = real_study()
    assert [t.name for t in study.tasks] == [task] and study.encoders == ["me5-small"] and len(study.grid) == 15
    assert [m.name for r in study.recipes for m in r.methods] == ["finetune", "salt", "finetune", "averaging"]
    assert {
        (r.during.steps, r.during.frozen, r.during.precision, r.during.pooling, r.during.lr) for r in study.recipes
    } == {(300, 4, "bf16" if units else "auto", "mean", 2e-4)}
    assert study.recipes[0].during == study.recipes[2].during  # one fine-tuning for both
    assert len(study.grid[0].langs) == 15 and study.budgets[0].eval_examples == 400


def test_the_lab_preset_is_laid_out(tmp_path):
    "Every method once, in the set-up in which runs differ less"
    from xlnb.study.grid import lab_study
    from xlnb.study.recipe import plain_recipes

    study = lab_study(tmp_path)
    assert (len(study.seeds), study.budgets[0].train_examples, study.budgets[0].eval_examples) == (5, 3000, 300)
    assert [[m.name for m in r.methods] for r in study.recipes] == [
        [m.name for m in r.methods] for r in plain_recipes()
    ]
    for r in study.recipes:
        assert (r.during.batch_size, r.during.frozen, r.during.pooling) == (32, 1, "mean")
    [alsace] = [m for r in study.recipes for m in r.after if m.name == "alsace"]
    assert (alsace.amount, alsace.lr, alsace.anchor) == (300, 7e-5, 1)


@pytest.mark.skipif(not MIRROR, reason="needs the mirror of the benchmarks")
def test_the_real_preset_in_small(capsys, monkeypatch):
    monkeypatch.setenv("XLNB_DATA", MIRROR)
    argv = [
        "study",
        "--preset",
        "real",
        "--encoder",
        "lab",
        "--recipe",
        "finetune(batch_size=4,select=last)",
        "finetune(batch_size=4,select=last)+averaging(checkpoints=2)",
        "--steps",
        "2",
        "--seeds",
        "2",
        "--train-examples",
        "8",
        "--eval-examples",
        "6",
        "--langs",
        "de",
        "--quiet",
    ]
    assert call(*argv) == 0
    out = capsys.readouterr().out
    assert re.search(r"^de German", out, re.M) and "runs/real/report/scores.csv" in out
    assert (
        Path("runs/real/report/xnli-nli_en.png").stat().st_size and len(list(Path("runs/real").glob("*.parquet"))) == 4
    )
    assert call(*argv) == 0 and capsys.readouterr().out == out  # resumed: the same


def test_verify(encoder, capsys):  # noqa: F811
    assert call(*few(encoder, "--recipe", "finetune(epochs=1)", "--seeds", "2", "--out", "runs/a")) == 0
    capsys.readouterr()
    verify = ["verify", "runs/a", "--sample", "1", "--quiet", "--encoder", f"{Path(encoder).name}={encoder}"]
    assert call(*verify) == 0
    assert "1 equal" in capsys.readouterr().out
    file = next(Path("runs/a").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-9])
    assert call(*verify, "--json") == 1
    assert {r["outcome"] for r in json.loads(capsys.readouterr().out)} == {"corrupted", "equal"}


def test_devices(monkeypatch, capsys):
    monkeypatch.delenv("XLNB_DEVICE", raising=False)
    assert call("verify", "nowhere", "--device", "cpu") == 2 and os.environ.pop("XLNB_DEVICE") == "cpu"
    assert call("verify", "nowhere", "--device", "tpu") == 2
    for name in (["tasks"], ["languages"], ["report", "nowhere"]):
        assert call(*name, "--device", "cpu") == 2 and "XLNB_DEVICE" not in os.environ


def test_a_warning_is_said_once_and_a_baseline_must_be_there(encoder, capsys):  # noqa: F811
    assert call(*few(encoder, "--recipe", "finetune(epochs=1)", "--seeds", "1", "--out", "runs/one")) == 0
    assert capsys.readouterr().err.count("one seed only") == 1
    assert call("report", "runs/one", "--baseline", "salt") == 2
    err = capsys.readouterr().err
    assert "'salt'" in err and "only of finetune(epochs=1" in err


def test_a_curve_and_a_metric(encoder, capsys):  # noqa: F811
    few = [a if a != "64" else "16,32" for a in FEW]
    assert (
        call(
            "run",
            "--task",
            "lab-tags",
            "--encoder",
            encoder,
            *few,
            "--recipe",
            "finetune(epochs=1)",
            "--seeds",
            "1",
            "--metric",
            "conll",
            "--out",
            "runs/c",
        )
        == 0
    )
    from xlnb.study.store import Store

    assert {(i["cell"]["budget"]["train_examples"], i["cell"]["task"]["metric"]) for i in Store("runs/c").infos()} == {
        (16, "conll"),
        (32, "conll"),
    }


def test_a_plain_terminal(encoder, tmp_path):  # noqa: F811
    done = shell(*few(encoder, "--seeds", "1"), COLUMNS="40", PYTHONIOENCODING="ascii", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii() and max(map(len, done.stdout.split("Table:")[0].splitlines())) <= 42


def test_a_failing_cell_ends_with_one(encoder, monkeypatch, capsys):  # noqa: F811
    from test_study import Moody
    from xlnb.study.recipe import METHODS

    monkeypatch.setitem(METHODS, "moody", Moody)
    argv = few(encoder, "--recipe", "finetune+moody")
    assert call(*argv, "--seeds", "0,1") == 1
    out, err = capsys.readouterr()
    assert "not today" in err and "Traceback" not in err and "transfer gap" in out
    assert call(*argv, "--seeds", "1,1") == 1
    assert capsys.readouterr().out == ""
    assert call(*argv[:-1], "finetune+moody(how=interrupt)", "--seeds", "1,2") == 130
    assert "goes on" in capsys.readouterr().err


def test_pretrain(tmp_path, capsys):
    Path("a.txt").write_text("\n".join(f"the {w} door is open" for w in "red blue green old new".split()))
    argv = [
        "pretrain",
        "--text",
        "a.txt",
        "--out",
        "mine",
        "--steps",
        "2",
        "--vocab-size",
        "40",
        "--layers",
        "1",
        "--hidden",
        "32",
        "--batch-size",
        "2",
        "--block-size",
        "16",
    ]
    assert call(*argv) == 0
    said = capsys.readouterr()
    assert "Encoder in mine" in said.out and Path("mine/config.json").exists() and "{" not in said.out + said.err
    assert not [
        p for p in Path.cwd().rglob("*") if p.is_dir() and p.name != "mine"
    ], "no checkpoints are left, here or there"
    argv[argv.index("mine")] = "quietly"
    assert call(*argv, "--quiet") == 0
    assert "%|" in said.err and capsys.readouterr().err == "", "a bar, and none if it is not wanted"


def test_a_model_is_kept_and_predicts(tmp_path, encoder, capsys):  # noqa: F811
    "Own data and an own language: labels, a kept model with its card, predictions as CSV, plain Transformers"
    import pandas as pd
    from xlnb.languages import unregister_language

    rows = [dict(text=f"{'a rain' if i % 2 else 'the sun'} {i}", label=("dry", "wet")[i % 2]) for i in range(24)]
    for file, some in {"train": rows, "validation": rows[:8], "test": rows[:8], "qtv/test": rows[8:16]}.items():
        (tmp_path / "weather/qtv").mkdir(parents=True, exist_ok=True)
        pd.DataFrame(some).to_csv(tmp_path / f"weather/{file}.csv", index=False)
    (tmp_path / "weather/task.json").write_text('{"kind": "sentence"}')
    run = [
        "run",
        "--task",
        "weather",
        "--encoder",
        encoder,
        "--recipe",
        "finetune(steps=2)",
        "--seeds",
        "1",
        "--quiet",
        "--out",
        "runs/w",
    ]
    assert call(*run) == 2 and "Unknown language 'qtv'" in capsys.readouterr().err
    assert call(*run, "--language", "qtv") == 2 and "--language qtv=Name" in capsys.readouterr().err
    assert (
        call(*run, "--language", "qtv=Vorian") == 0
        and "qtv Vorian" in capsys.readouterr().out
        and not Path("runs/w/models").exists()
    )
    assert call(*run, "--save-models") == 0  # asked for later, the model is kept without another result
    (folder,) = Path("runs/w/models").iterdir()
    card = (folder / "README.md").read_text()
    for part in (
        "- en",
        "pipeline_tag: text-classification",
        "finetune(steps=2)",
        "| qtv | Vorian |",
        "95% interval",
        "Licence of the data: not stated",
        "hf upload",
        "`AutoModelForSequenceClassification.from_pretrained('.').push_to_hub",
    ):
        assert part in card, part
    assert "- qtv" not in card
    Path("new.csv").write_text("text\nthe sun NA\nnull\n")
    capsys.readouterr()
    assert call("predict", folder, "new.csv", "--out", "predictions.csv") == 0
    made = pd.read_csv("predictions.csv", keep_default_na=False)
    assert [*made] == ["text", "prediction", "p(dry)", "p(wet)"] and made.text.tolist() == ["the sun NA", "null"]
    assert abs(made[["p(dry)", "p(wet)"]].sum(axis=1) - 1).max() < 1e-6
    code = (
        "from transformers import pipeline\n"
        f"found = pipeline('text-classification', {str(folder)!r})(['the sun NA', 'null'])\n"
        "print(*[p['label'] for p in found])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == made.prediction.tolist(), done.stderr
    unregister_language("qtv")


@pytest.mark.parametrize(
    "task, cls, how",
    [
        ("lab-tags", "AutoModelForTokenClassification", "pipeline('token-classification', '.')"),
        ("lab-spans", "AutoModelForQuestionAnswering", "AutoModelForQuestionAnswering.from_pretrained('.')"),
        ("lab-choice", "AutoModelForMultipleChoice", "AutoModelForMultipleChoice.from_pretrained('.')"),
    ],
)
def test_a_card_says_what_works(task, cls, how, encoder, tmp_path, monkeypatch):  # noqa: F811
    "Its lines for plain Transformers run, and what it shares has the head that was trained"
    import torch
    import transformers
    from xlnb.study.grid import Study
    from xlnb.training.stage import Budget

    few = Budget(train_examples=8, eval_examples=4, max_length=96)
    study = Study(task, encoder, "finetune(steps=1)", 1, few, "qal", tmp_path / "s", keep_models=True)
    (folder,) = study.run(progress=False).kept_models().folder
    card, found = Path(folder, "README.md").read_text(), {}
    assert f"{cls}.from_pretrained('.').push_to_hub" in card and how in card
    monkeypatch.chdir(folder)
    exec(card.partition("```python\n")[2].partition("from xlnb")[0], found)
    kept = getattr(found["model"], "model", found["model"])
    assert type(kept) is type(getattr(transformers, cls).from_pretrained("."))
    last = [*kept.state_dict()][-1]
    assert torch.equal(kept.state_dict()[last], load_file("model.safetensors")[last])


def test_rows_are_named_as_in_ones_own_files(encoder, tmp_path):  # noqa: F811
    "A kept model knows what the columns were called that it was trained on"
    from xlnb import own_task as own, predict_texts
    from xlnb.core import XlnbError
    from xlnb.study.grid import Study

    rows = [dict(sentence=f"{'a rain' if i % 2 else 'the sun'} {i}", label=("dry", "wet")[i % 2]) for i in range(8)]
    task = own("named", "sentence", {"en": dict(train=rows, validation=rows, test=rows)}, columns=dict(text="sentence"))
    study = Study(task, encoder, "finetune(steps=1)", 1, store=tmp_path / "s", keep_models=True).run(progress=False)
    (folder,) = study.kept_models().folder
    ways = [[dict(sentence="a rain")], [dict(text="a rain")], ["a rain"]]
    assert len({predict_texts(folder, w)["p(wet)"][0] for w in ways}) == 1
    with pytest.raises(XlnbError, match="row 0 has no 'sentence' .there: words.*is asked by sentence"):
        predict_texts(folder, [dict(words="a rain")])


def test_a_study_with_nothing_to_do_is_shown_again(encoder, capsys, monkeypatch):  # noqa: F811
    from xlnb import cli
    from xlnb.study.grid import Study
    from xlnb.training.stage import Budget

    laid_out, budget = [], Budget(train_examples=16, eval_examples=10, max_length=48)

    def small(args, common):
        laid_out.append(args.out)
        return Study("lab-inference", encoder, "finetune(steps=1)", 1, budget, "qal", store=args.out)

    monkeypatch.setattr(cli, "_preset", small)
    study = lambda *more: (call("study", "--out", "runs/lab", "--quiet", *more), capsys.readouterr())
    code, worker = study("--cells-only")
    assert (
        code == 0
        and worker.out == ""
        and list(Path("runs/lab").glob("*.parquet"))
        and not Path("runs/lab/report").exists()
    )
    code, first = study()
    assert code == 0 and "Summary: " in first.out and len(laid_out) == 2
    code, again = study()
    assert code == 0 and again == first and len(laid_out) == 2, "shown again, warnings too, and not laid out"
    code, worker = study("--cells-only")
    assert (code, worker.out, worker.err, len(laid_out)) == (0, "", "", 2)
    for changed in Path("runs/lab").glob("*.parquet"), [Path("runs/lab/report/scores.csv")]:
        for f in changed:
            os.utime(f)
        assert study()[0] == 0
    assert len(laid_out) == 4 and study()[1].out == first.out and len(laid_out) == 4
    monkeypatch.setenv("XLNB_DATA", "elsewhere")
    assert study()[0] == 0 and len(laid_out) == 5
    assert study("--seeds", "2")[0] == 0 and len(laid_out) == 6, "a call with options is another study"


def test_bars_in_a_log_are_not_nested(encoder, tmp_path, capsys):  # noqa: F811
    from xlnb.study.grid import Study
    from xlnb.training.stage import Budget

    Study(
        "lab-inference",
        encoder,
        "finetune(steps=2)",
        1,
        Budget(train_examples=16, eval_examples=10, max_length=48),
        "qal",
        store=tmp_path / "s",
    ).run()
    bars = {
        b.partition(":")[0].strip()
        for b in capsys.readouterr().err.replace("\r", "\n").splitlines()
        if "it/s" in b or "%|" in b
    }
    assert bars == {"cells"}, "one bar where text is not overwritten"

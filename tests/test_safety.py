"""Nothing that a folder, a file or a text holds is run as code; what is written tells nothing of machine or user."""

import ast
import dataclasses
import json
import os
import pickle
import pickletools
import re
import shutil
import stat
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from test_study import FEW, PLAIN, encoder, small  # noqa: F401  fixtures
from test_train import Stop
from toy_stage import encoder as toy_encoder, same, stage, weights
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

import xlnb
from xlnb.core import XlnbError, seal
from xlnb.data.tasks import get_task, own_task
from xlnb.evaluation.scoring import Verbaliser, default_scorer, load_seq2seq
from xlnb.methods.mmkd.teacher import Teacher, TeacherCache
from xlnb.methods.salt.candidates import Prompts
from xlnb.models.encoders import load_encoder, load_tokenizer
from xlnb.models.heads import give_pointer, load_finetuned, save_encoder, save_finetuned, with_head
from xlnb.study.cell import CellRun
from xlnb.study.grid import Study, _travelling
from xlnb.study.models import predict_texts
from xlnb.study.prefixes import Prefixes
from xlnb.study.recipe import METHODS, recipe
from xlnb.study.store import Store
from xlnb.training.pretraining import pretrain
from xlnb.training.stage import Budget, make_encoder, run_stage

PACKAGE = Path(xlnb.__file__).parent
TASK = get_task("lab-inference")
FEW_STEPS = dict(steps=1, batch_size=2, block_size=16, progress=False)
ROWS = [dict(text_a="a", text_b="b")]


class Evil:
    "Whoever unpickles it makes the file `marker`"

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return open, (self.marker, "w")


@pytest.fixture
def marker(tmp_path):
    "A file that is there as soon as somebody has run what was planted; it never is"
    yield (path := tmp_path / "was run")
    assert not path.exists()


def test_what_is_planted_would_run(tmp_path):
    "Else the other tests prove nothing"
    marker, file = tmp_path / "marker", tmp_path / "file"
    torch.save(Evil(marker), file)
    for read in (lambda: torch.load(file, weights_only=False), lambda: pickle.loads(pickle.dumps(Evil(marker)))):
        read()
        assert marker.exists()
        marker.unlink()


# ---------------------------------------------------------------- weights


def only_pickled(folder, marker):
    "A checkpoint whose weights are a pickle that plants something"
    for f in folder.glob("*.safetensors"):
        f.unlink()
    torch.save(dict(weight=torch.zeros(2), planted=Evil(marker)), folder / "pytorch_model.bin")
    return folder


def only_shards(folder, marker):
    "The same in shards with an index"
    only_pickled(folder, marker).joinpath("pytorch_model.bin").rename(folder / "pytorch_model-00001-of-00001.bin")
    index = dict(metadata={}, weight_map=dict(weight="pytorch_model-00001-of-00001.bin"))
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def under_another_name(folder, marker):
    "A pickle that is called safetensors"
    only_pickled(folder, marker).joinpath("pytorch_model.bin").rename(folder / "model.safetensors")
    return folder


PLANTED = [only_pickled, only_shards, under_another_name]


@pytest.fixture(params=PLANTED)
def bad(request, encoder, tmp_path, marker):  # noqa: F811
    return str(request.param(Path(shutil.copytree(encoder, tmp_path / "planted")), marker))


@pytest.fixture(scope="session")
def texts():
    return [r["text_a"] for r in TASK.load("en", "test", limit=30)]


def test_only_safetensors_are_read_as_weights(bad, encoder, texts, tmp_path):  # noqa: F811
    "Every function that reads a checkpoint refuses it with one sentence; a tokenizer is no weights and is read"
    from xlnb.methods.clism.method import CLISM

    tok = load_tokenizer(bad)
    other = tok.train_new_from_iterator(texts, 100)  # another vocabulary: then the body alone is kept
    study = Study(TASK, bad, PLAIN, 1, FEW["budget"], "qal", tmp_path / "runs", prefixes=False)
    readers = [
        lambda: load_encoder(bad),
        lambda: load_encoder("random:" + bad),
        lambda: Teacher(bad),
        lambda: with_head(bad, TASK),
        lambda: load_finetuned(bad, TASK),
        lambda: predict_texts(bad, ROWS, TASK),
        lambda: load_seq2seq(bad),
        lambda: make_encoder(bad, CLISM(steps=1), tmp_path / "made"),
        lambda: pretrain(texts, tmp_path / "a", tok, init=bad, **FEW_STEPS),
        lambda: pretrain(texts, tmp_path / "b", other, init=bad, **FEW_STEPS),
        lambda: study.run(progress=False),
    ]
    for read in readers:
        with pytest.raises(XlnbError, match="safetensors|half-written|copy|encoder-decoder|AutoModelForSeq2SeqLM"):
            read()
    assert not study.store.files()
    with pytest.raises(XlnbError, match="safetensors|half-written"):
        recipe(f"mmkd(teacher={bad!r})+finetune").before[0].teaches(load_encoder(encoder), _Context(tok))


class _Context:
    def __init__(self, tokenizer):
        self.task, self.tokenizer, self.budget = TASK, tokenizer, Budget(max_length=16)


def test_an_encoder_decoder_and_a_kept_model(encoder, tmp_path, marker):  # noqa: F811
    kept = tmp_path / "kept"
    save_finetuned(with_head(encoder, TASK), load_tokenizer(encoder), kept, TASK)
    assert len(predict_texts(kept, ROWS, TASK)) == 1
    small_t5 = T5Config(vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(small_t5).save_pretrained(tmp_path / "t5")
    assert load_seq2seq(str(tmp_path / "t5"))
    for plant in PLANTED:
        for folder, read in (tmp_path / "t5", load_seq2seq), (kept, lambda f: predict_texts(f, ROWS, TASK)):
            bad = plant(Path(shutil.copytree(folder, tmp_path / f"{plant.__name__}-{folder.name}")), marker)
            with pytest.raises(XlnbError, match="safetensors|half-written"):
                read(str(bad))


def test_a_pickle_in_the_place_of_a_pointer(encoder, tmp_path, marker):  # noqa: F811
    model, tok = load_encoder(encoder), load_tokenizer(encoder)
    tok.add_special_tokens({"additional_special_tokens": ["[QUE]"]})
    model.resize_token_embeddings(len(tok), mean_resizing=False)
    give_pointer(model, tok)
    folder = Path(save_encoder(model, tok, tmp_path / "pointing"))
    assert hasattr(load_encoder(str(folder)), "pointer")
    torch.save(Evil(marker), folder / "pointer.safetensors")
    with pytest.raises(XlnbError, match="pointer.safetensors"):
        load_encoder(str(folder))


def test_a_prefix_that_is_a_pickle_is_made_again(small, tmp_path, marker):  # noqa: F811
    "Of the very length that is recorded; a further pickle beside it is not looked at"
    cache, cell = Prefixes(tmp_path / "prefixes"), small().grid[0]
    first, _ = CellRun(cell, tmp_path / "first", prefixes=cache).made(1)
    (key,) = cache.keys()
    file = cache.root / key / "weights.safetensors"
    planted = pickle.dumps(Evil(marker))
    file.write_bytes(planted + bytes(file.stat().st_size - len(planted)))
    (file.parent / "weights.bin").write_bytes(planted)
    again, _ = CellRun(cell, tmp_path / "again", prefixes=cache).made(1)
    assert same(first.state_dict(), again.state_dict()) and cache.tensors(key)


def test_arrays_of_a_cache_hold_no_pickles(tmp_path, marker):
    "Objects in an .npy file are a pickle: vectors of teachers and of vocabularies are refused"
    for name in ("sentence", "words", "keys", "start"):
        np.save(tmp_path / f"{name}.npy", np.array([Evil(marker)], dtype=object), allow_pickle=True)
    with pytest.raises(XlnbError, match="sentence.npy.*delete"):
        TeacherCache(tmp_path)


# ---------------------------------------------------------------- what the Trainer leaves to go on from

STATES = "optimizer.pt", "scheduler.pt", "rng_state.pth"
HOW = dict(n=64, save_steps=3, evaluate=False, num_train_epochs=2)  # 8 steps


@pytest.fixture(scope="module")
def whole():
    torch.set_num_threads(1)
    return weights(run_stage(stage(**HOW), toy_encoder(), seed=3).model)


def cut(out, step=4, **how):
    "A run that stopped, and its checkpoints"
    with pytest.raises(KeyboardInterrupt):
        run_stage(stage(**HOW | how), toy_encoder(), out, seed=3, callbacks=[Stop(step)])
    return sorted(out.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))


@pytest.mark.parametrize("name", [*STATES, "model.safetensors", "pytorch_model.bin", "scaler.pt"])
@pytest.mark.parametrize("sealed_again", [True, False])
def test_a_planted_state_is_not_run(name, sealed_again, whole, tmp_path, marker):
    "Training says so and starts from the last good state, also where whoever planted it has set the sizes right"
    (here,) = cut(tmp_path / "run")
    if name == "pytorch_model.bin":
        (here / "model.safetensors").unlink()
    torch.save(Evil(marker), here / name)
    if sealed_again:
        seal(here)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = run_stage(stage(**HOW), toy_encoder(), tmp_path / "run", seed=3)
    assert same(weights(again.model), whole)
    if name != "scaler.pt" or sealed_again:
        assert any(here.name in str(w.message) and "from the start" in str(w.message) for w in said)


def test_the_best_checkpoint_is_the_last_good_state(tmp_path, marker):
    "Where the newest was tampered with, the one before it is taken; where the best is gone, its run starts anew"
    how = dict(evaluate=True, num_train_epochs=4, eval_steps=4)
    whole = run_stage(stage(**HOW | how), toy_encoder(), tmp_path / "whole", seed=3)
    best, last = cut(tmp_path / "a", 15, **how)
    torch.save(Evil(marker), last / "rng_state.pth")
    seal(last)
    with pytest.warns(UserWarning, match=f"from {best.name}"):
        again = run_stage(stage(**HOW | how), toy_encoder(), tmp_path / "a", seed=3)
    assert same(weights(again.model), weights(whole.model)) and again.best_step == whole.best_step
    best, last = cut(tmp_path / "b", 15, **how)
    torch.save(Evil(marker), best / "model.safetensors")
    with pytest.warns(UserWarning, match="from the start"):
        again = run_stage(stage(**HOW | how), toy_encoder(), tmp_path / "b", seed=3)
    assert same(weights(again.model), weights(whole.model)) and again.best_step == whole.best_step


def test_nothing_else_is_unpickled_on_resuming(whole, tmp_path, monkeypatch):
    "Three files of the folder that this run has made, and those for tensors alone"
    (here,) = cut(tmp_path / "run")
    read, load = [], torch.load

    def seen(file, *args, **kw):
        read.append((Path(file).parent == here, Path(file).name, kw.get("weights_only")))
        return load(file, *args, **kw)

    monkeypatch.setattr(torch, "load", seen)
    monkeypatch.setattr(pickle, "load", lambda *a, **kw: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "loads", lambda *a, **kw: pytest.fail("unpickled"))
    assert same(weights(run_stage(stage(**HOW), toy_encoder(), tmp_path / "run", seed=3).model), whole)
    assert {name for _, name, _ in read} == {*STATES} and all(ours and safe is True for ours, _, safe in read)
    assert not list((tmp_path / "run").rglob("*.pt")) + list((tmp_path / "run").rglob("*.bin"))  # and none is left


def test_the_folder_of_another_run_is_not_read(tmp_path, marker):
    "Its states are never opened: what it belongs to is compared first"
    (here,) = cut(tmp_path / "run")
    for name in STATES:
        torch.save(Evil(marker), here / name)
    seal(here)
    with pytest.raises(XlnbError, match="belongs to another run"):
        run_stage(stage(**HOW), toy_encoder(1), tmp_path / "run", seed=3)


# ---------------------------------------------------------------- code


def calls():
    "Every call in the package: file, line, what is called, its keywords"
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                yield file.relative_to(PACKAGE).as_posix(), node, ast.unparse(node.func), {
                    k.arg: ast.unparse(k.value) for k in node.keywords
                }


def test_no_call_that_runs_what_it_reads():
    "No unpickling, no evaluation, no shell, no unpacking of archives onto the disk, no code of a checkpoint"
    odd = []
    for file, node, name, how in calls():
        last = name.split(".")[-1]
        bad = re.fullmatch(
            r"(torch|pickle|joblib|marshal|shelve|dill|yaml|np|numpy|pd|pandas)\."
            r"(load|loads|open|read_pickle|unsafe_load)",
            name,
        ) and not (name in ("np.load", "numpy.load") and how.get("allow_pickle") == "False")
        bad = bad and not (name == "torch.load" and how.get("weights_only") == "True")
        bad = (
            bad
            or name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen")
            or how.get("shell") == "True"
        )
        bad = (
            bad
            or last in ("extractall", "extract")
            and name != "re.extract"
            or how.get("trust_remote_code", "False") != "False"
        )
        bad = bad or last == "from_pretrained" and how.get("trust_remote_code") != "False"
        bad = bad or last in ("format", "format_map") and "." in name and not isinstance(node.func.value, ast.Constant)
        if bad:
            odd.append(f"{file}:{node.lineno} {name}")
    shape = "study/recipe.py"  # the shapes of `plain_recipes`, which are written there
    assert [o for o in odd if not o.startswith(shape)] == [] and len(odd) == 1


REMOTE = (
    "import pathlib; pathlib.Path({marker!r}).touch()\nfrom transformers import XLMRobertaConfig as EvilConfig, "
    "XLMRobertaForMaskedLM as EvilModel, PreTrainedTokenizerFast as EvilTokenizer\n"
)


@pytest.fixture(params=["xlm-roberta", "evil"])
def remote(request, encoder, tmp_path, marker, monkeypatch):  # noqa: F811
    "A checkpoint with code of its own, under a type that Transformers knows and under one that it does not"
    folder = Path(shutil.copytree(encoder, tmp_path / "remote"))
    (folder / "evil.py").write_text(REMOTE.format(marker=str(marker)))
    names = ("AutoModel", "AutoModelForMaskedLM", "AutoModelForSequenceClassification", "AutoModelForSeq2SeqLM")
    config = json.loads((folder / "config.json").read_text())
    config |= dict(
        model_type=request.param,
        auto_map=dict(
            AutoConfig="evil.EvilConfig",
            AutoTokenizer=["evil.EvilTokenizer", "evil.EvilTokenizer"],
            **{n: "evil.EvilModel" for n in names},
        ),
    )
    (folder / "config.json").write_text(json.dumps(config))
    tokens = folder / "tokenizer_config.json"
    tokens.write_text(
        json.dumps(
            json.loads(tokens.read_text())
            | dict(
                tokenizer_class="EvilTokenizer",
                auto_map=dict(AutoTokenizer=["evil.EvilTokenizer", "evil.EvilTokenizer"]),
            )
        )
    )
    monkeypatch.setattr("builtins.input", lambda *a: "y")  # whoever is asked says yes
    return request.param, str(folder)


def test_code_of_a_checkpoint_is_not_run(remote, texts, tmp_path):
    "Read, saved, read again, gone on with: what Transformers knows is its own class, what it does not know is refused"
    kind, folder = remote
    readers = [
        lambda: load_encoder(folder),
        lambda: load_tokenizer(folder),
        lambda: with_head(folder, TASK),
        lambda: Teacher(folder),
        lambda: load_finetuned(folder, TASK),
        lambda: load_seq2seq(folder),
        lambda: predict_texts(folder, ROWS, TASK),
        lambda: pretrain(texts, tmp_path / "a", load_tokenizer(folder), init=folder, **FEW_STEPS),
        lambda: save_encoder(load_encoder(folder), load_tokenizer(folder), tmp_path / "saved"),
        lambda: load_tokenizer(tmp_path / "saved"),
        lambda: load_encoder(tmp_path / "saved"),
    ]
    for read in readers:
        try:
            made = read()
        except XlnbError:
            continue
        assert type(made).__module__.split(".")[0] != "transformers_modules"
    if kind == "xlm-roberta":
        assert type(load_encoder(folder)).__name__ == "XLMRobertaForMaskedLM"
    else:
        with pytest.raises(XlnbError, match="code of its own|'evil'"):
            load_encoder(folder)


def test_the_tokenizer_of_a_run_brings_no_code(texts, tmp_path, marker, monkeypatch):
    "It lies in the folder of a run that was stopped, where it is found again"
    out = tmp_path / "run"
    monkeypatch.setattr("builtins.input", lambda *a: "y")
    with monkeypatch.context() as m:
        m.setattr("xlnb.training.pretraining.MaskedLM.forward", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pretrain(texts, out, vocab_size=80, **FEW_STEPS)
    (file,) = out.rglob("tokenizer_config.json")
    (file.parent / "evil.py").write_text(REMOTE.format(marker=str(marker)))
    file.write_text(
        json.dumps(
            json.loads(file.read_text())
            | dict(tokenizer_class="EvilTokenizer", auto_map=dict(AutoTokenizer=["evil.EvilTokenizer"] * 2))
        )
    )
    trained = []
    monkeypatch.setattr("xlnb.training.pretraining.train_tokenizer", lambda *a, **kw: trained.append(1))
    assert pretrain(texts, out, vocab_size=80, **FEW_STEPS) and not trained  # it was read
    assert load_tokenizer(out) and not (out / "training").exists()


# ---------------------------------------------------------------- archives


@pytest.fixture(scope="module")
def packed(encoder, tmp_path_factory):  # noqa: F811
    "One cell in a file"
    at = tmp_path_factory.mktemp("packed")
    study = Study(
        TASK,
        encoder,
        "finetune(steps=1)",
        1,
        Budget(train_examples=8, eval_examples=4, max_length=32),
        "qal",
        at / "runs",
        prefixes=False,
    )
    return study.run(progress=False).store.pack(at / "runs.zip")


@pytest.mark.parametrize(
    "name",
    [
        "/etc/a-{key}.parquet",
        "../a-{key}.parquet",
        "x/../../a-{key}.parquet",
        "C:\\a-{key}.parquet",
        "..\\a-{key}.parquet",
        "x/a-{key}.parquet",
        "link",
        "../note.txt",
        "~/a-{key}.parquet",
    ],
)
def test_an_archive_with_odd_members_is_refused(name, packed, tmp_path):
    "Absolute, upwards, in folders or a link: refused with its name, before anything is written"
    info = packed.infos()[0]
    hostile = Path(shutil.copy(packed.root, tmp_path / "hostile.zip"))
    with zipfile.ZipFile(packed.root) as old, zipfile.ZipFile(hostile, "a") as z:
        member = zipfile.ZipInfo(name.format(key=info["key"]))
        member.filename = name.format(key=info["key"])  # as it is given, whatever the system
        if name == "link":
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
        z.writestr(member, "/etc/passwd" if name == "link" else old.read(packed.files()[0].name))
    before = sorted(tmp_path.rglob("*"))
    store = Store(hostile)
    for use in (
        store.files,
        store.items,
        store.infos,
        lambda: store.unpack(tmp_path / "out" / "again"),
        lambda: store.write(store.root / packed.files()[0].name, *packed.read(packed.files()[0])),
    ):
        with pytest.raises(XlnbError, match="no packed store of xlnb"):
            use()
    assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------- templates and recipes

HOSTILE = [
    "{0.__class__}",
    "{text_a.__class__.__mro__}",
    "{text_a!r:>9}",
    "{text_a[0]}",
    "{__import__('os').getcwd()}",
    "%(text_a)s",
    "{{text_a}}",
]


@pytest.mark.parametrize("what", HOSTILE)
def test_a_template_is_text(what, encoder):  # noqa: F811
    "Names of columns in braces are put in; all else stays as it is written"
    from xlnb.evaluation.scoring import _fill

    made = Verbaliser(what + " {mask}", ("Yes", "No", "Maybe"))
    before, after = _fill(made.template, dict(text_a="A", text_b="B"))
    assert before.strip() == what.replace("{text_a}", "A") and after == ""
    words = Verbaliser("{text_a} {mask}", ("{text_a}", "{0.__class__}", "{mask}"))
    assert words.of()[1] == words.words  # a label word is nothing else
    with pytest.raises(XlnbError, match="asks for {HOME}"):
        _fill("${HOME} {mask}", dict(text_a="A"))
    held = dict(text_a="{text_b.__class__}{text_b}", text_b="{mask}")
    assert _fill("{text_a} {mask} {text_b}", held) == (held["text_a"] + " ", " " + held["text_b"])  # nor are texts


@pytest.mark.parametrize(
    "what",
    [
        "{word.__class__}",
        "{word.__class__.__mro__}",
        "{language[0]}",
        "{word!r}",
        "{word:>9999}",
        "{0}",
        "{}",
        "{unknown}",
    ],
)
def test_the_prompt_of_salt_is_text(what, encoder):  # noqa: F811
    "Its three places are put in and nothing is looked up in them; a word with braces is a word"
    tok = load_tokenizer(encoder)
    made = Prompts(tok, "prompt", '"{word}" in {language}: "{mask}".')
    assert tok.decode(made("de", "{mask.__class__}")[0]) == tok.decode(
        tok('"{mask.__class__}" in German: "', add_special_tokens=False).input_ids
    )
    with pytest.raises(XlnbError, match="prompt"):
        Prompts(tok, "prompt", what + " {word} {mask}")("de", "dog")


@pytest.mark.parametrize(
    "spec",
    [
        "finetune(lr=__import__('os').getcwd())",
        "finetune(lr=().__class__)",
        "finetune(**{'lr': 1})",
        "finetune(*[1])",
        "__import__('os')+finetune",
        "finetune(lr=[x for x in (1,)])",
        "finetune(lr=f'{1}')",
        "(lambda: finetune)()",
        "finetune(lr=9**9**9)",
        "finetune.__class__",
        "finetune()()",
        "finetune(lr=" + "(" * 3000 + ")" * 3000 + ")",
        "finetune(lr=" + "-" * 9000 + "1)",
        "+".join(["finetune"] * 3000) + "+1",
        "finetune\0",
        "finetune(lr=print)",
        "finetune(select=open)",
        "os.system",
        "finetune;import os",
        "finetune(lr:=1)",
        "{finetune}",
    ],
)
def test_a_recipe_is_read_and_not_run(spec):
    "Names of methods, and options that are plain values"
    with pytest.raises(XlnbError) as said:
        recipe(spec)
    assert len(str(said.value)) < 700


# ---------------------------------------------------------------- what results tell

SECRETS = dict(
    HF_TOKEN="hf_NeverWrittenAnywhere",
    AWS_SECRET_ACCESS_KEY="aws/NeverWritten+Anywhere",
    USER="someuserxyz",
    LOGNAME="someuserxyz",
    HOSTNAME="somehostxyz",
)


def strings(folder):
    "All that files say: of Parquet the schema with its records and every value, of others their bytes"
    for file in (f for f in folder.rglob("*") if f.is_file()):
        yield file, file.name
        if file.suffix == ".parquet":
            yield file, str(pq.read_schema(file).metadata)
            yield file, pq.read_table(file).to_pandas().to_csv()
        elif file.suffix == ".zip":
            with zipfile.ZipFile(file) as z:
                for n in z.namelist():
                    yield file, n
                    if n.endswith(".json"):
                        yield file, z.read(n).decode()
                    else:
                        yield file, pq.read_table(z.open(n)).to_pandas().to_csv() + str(
                            pq.read_schema(z.open(n)).metadata
                        )
        else:
            yield file, file.read_bytes().decode("latin-1")


def test_results_tell_nothing_of_machine_and_user(encoder, tmp_path, monkeypatch):  # noqa: F811
    "A study with a task of one's own, an encoder, a dictionary and a text from folders; kept models, report, packed store"
    for k, v in SECRETS.items():
        monkeypatch.setenv(k, v)
    here = tmp_path / "home of someuserxyz"
    mine = Path(shutil.copytree(encoder, here / "mine"))
    rows = [dict(id=str(i), text=f"day {i} is {w}", label=w) for i, w in enumerate(["dry", "wet"] * 6)]
    for code in ("en", "sw"):
        (here / "task" / code).mkdir(parents=True)
        for split in ("train", "validation", "test"):
            (here / "task" / code / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (here / "pairs.jsonl").write_text(
        "\n".join(json.dumps(dict(id=str(i), en=f"day {i} is dry", sw=f"siku {i} ni kavu")) for i in range(8))
    )
    (here / "dictionary").mkdir()
    (here / "dictionary" / "en-sw.txt").write_text("day siku\nis ni\ndry kavu\n")
    task = own_task(
        "weather",
        "sentence",
        {c: {s: here / "task" / c / f"{s}.jsonl" for s in ("train", "validation", "test")} for c in ("en", "sw")},
        labels=("dry", "wet"),
    )
    recipes = [
        "finetune(steps=2)",
        f"salt(steps=2,candidates=dictionary,dictionary={str(here / 'dictionary')!r})",
        f"mmkd(steps=2,text={str(here / 'pairs.jsonl')!r},teacher={str(mine)!r})+finetune(steps=2)",
    ]
    study = Study(
        task,
        mine,
        recipes,
        1,
        Budget(max_length=24),
        store=here / "runs",
        prefixes=Prefixes(here / "prefixes"),
        keep_models=True,
        measures=["cost"],
    ).run(progress=False)
    assert not study.failed and len(study.store.files()) == 3
    study.store.pack(here / "runs" / "packed.zip")
    study.report(here / "runs" / "report")
    never = [
        *SECRETS.values(),
        str(tmp_path),
        str(Path.home()) + "/",
        str(PACKAGE.parent),
        "home of someuserxyz",
        str(Path(os.sys.prefix)),
    ]
    told = [
        (f.relative_to(here).as_posix(), n, text[max(0, text.find(n) - 60) : text.find(n) + 90])
        for f, text in strings(here / "runs")
        for n in never
        if n in text
    ]
    assert not told, told
    keys = {c: k for c, (k, _) in study.keys().items()}
    moved = Study(task, mine, recipes, 1, Budget(max_length=24), store=here / "runs", prefixes=False)
    assert {c: k for c, (k, _) in moved.keys().items()} == keys and len(moved.items()) == len(study.items())


# ---------------------------------------------------------------- what travels


def test_a_travelling_cell_is_data(small, encoder):  # noqa: F811
    """What is sent to another process is a `Job`: names, numbers and texts in objects of classes that the receiver
    imports itself.

    Guaranteed: the plain `pickle` of the standard library, which writes functions and classes as names and never as
    code, can write the call that an executor is given; all names in it are of modules of the package, of Python or of
    libraries that it requires; a task whose rows are read by a function of one's own travels as its name, and is looked
    up where it arrives. Not guaranteed: that an object among a method's options is data.
    One that plain pickle cannot write is refused by `RayExecutor`, whose own pickle would send its code along.
    """
    task = own_task(
        "mine",
        "sentence",
        {"en": {s: [dict(id="0", text="a", label="x")] for s in ("train", "validation", "test")}},
        labels=("x", "y"),
        keep=lambda row, code: True,
    )
    for study in (small(), Study(task, encoder, "finetune(lr=1e-3)+averaging", 1, store=small().store)):
        for job in study.jobs(Path("/nowhere")):
            sent = pickle.dumps(_travelling(job).finish)
            names = {arg.split()[0] for op, arg, _ in pickletools.genops(sent) if op.name == "GLOBAL"}
            texts = [arg for op, arg, _ in pickletools.genops(sent) if "UNICODE" in op.name]
            names |= {
                t for t, nxt in zip(texts, texts[1:]) if re.fullmatch(r"[a-z_]+(\.\w+)+", t) and nxt.isidentifier()
            }
            assert {n.split(".")[0] for n in names} <= {
                "xlnb",
                "builtins",
                "pathlib",
                "functools",
                "collections",
                "datasets",
                "_codecs",
                "copyreg",
            }, names
            assert pickle.loads(sent).__self__.key == job.key


def test_code_among_the_options_does_not_travel(small, monkeypatch):  # noqa: F811
    "An option that is a function written on the spot is refused before anything is sent"
    import sys
    from types import SimpleNamespace
    from xlnb.methods.alsace.method import ALSACE
    from xlnb.study.grid import RayExecutor

    sent = []

    def remote(**resources):
        return lambda f: SimpleNamespace(remote=lambda *a: SimpleNamespace(future=lambda: sent.append((f, a))))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **kw: None, remote=remote))
    study = small(seeds=1, recipes=[[recipe(PLAIN).during, ALSACE(scorer=lambda *a: None)]])
    with pytest.raises(XlnbError, match="module"):
        RayExecutor().submit(_travelling(study.jobs(Path("/nowhere"))[0]).finish)
    assert not sent
    RayExecutor().submit(_travelling(small(seeds=1).jobs(Path("/nowhere"))[0]).finish)
    ((call, args),) = sent
    assert call.__module__ == "xlnb.study.grid" and type(pickle.loads(pickle.dumps(args))[0].__self__).__name__ == "Job"


def test_a_task_that_is_another_one_where_it_arrives_is_refused(small):  # noqa: F811
    "It goes by its name; rows that are not those of the study never come under its keys"
    from concurrent.futures import ThreadPoolExecutor

    longer = lambda lang, split: TASK.loader(lang, split).map(lambda r: dict(text_a=r["text_a"] + " x"))
    study = Study(
        dataclasses.replace(TASK, loader=longer),
        small().encoders,
        PLAIN,
        1,
        Budget(train_examples=8, eval_examples=4),
        "qal",
        small().store,
    )
    with ThreadPoolExecutor(1) as pool, pytest.warns(UserWarning, match="is another one in the process that computes"):
        study.run(pool, progress=False)
    assert not study.store.files()

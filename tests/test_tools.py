"""Tools that no page runs: pages as on Colab, lock files, a laboratory encoder from another seed."""
import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


@pytest.fixture
def tool():
    def load(name):
        spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    return load


def test_a_page_is_prepared_for_colab(tool, tmp_path):
    "The first page clones and installs into a folder of its own; the others only go where they stand"
    colab = tool("colab")
    for page in PAGES:
        was = [c for c in json.loads(page.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
        was = ["".join(c["source"]) for c in was]
        for first in (True, False):
            start, *now = [c.source for c in colab.prepared(page, tmp_path, first, "laboratory").cells if c.cell_type == "code"]
            changed = [(a, b) for a, b in zip(was, now, strict=True) if a != b]
            assert "import google.colab" in start
            assert len(changed) == any(colab.INSTALLS in s for s in was), page.name
            for a, b in changed:
                compile("\n".join(l for l in b.splitlines() if not l.startswith("#|")), page.name, "exec")
                assert str(tmp_path) in b and "'/content" not in b and ("git clone" in b) == first
                assert f"xlnb/{page.relative_to(ROOT).parent}" in b


def test_pages_with_a_scale_are_prepared_at_another(tool, tmp_path):
    "One line is another, and two pages have it"
    colab, changed = tool("colab"), []
    for page in PAGES:
        cells = lambda scale: [c.source for c in colab.prepared(page, tmp_path, False, scale).cells]
        for a, b in zip(cells("laboratory"), cells("small"), strict=True):
            if a != b: changed.append(page.stem); assert b == a.replace("SCALE = 'laboratory'", "SCALE = 'small'")
    assert changed == ["105_own_data", "107_colab"]


def test_what_asks_for_a_later_python_is_held_back(tool):
    asked = dict(old=">=3.8", none=None, late=">=3.11.5", capped="<3.11,>=3.9")
    items = [dict(metadata=dict(name=n, requires_python=spec)) for n, spec in asked.items()]
    assert tool("lock").too_new(items, "3.11.0") == ["late", "capped"]


def test_a_laboratory_encoder_from_another_seed(tool, tmp_path):
    "A five-hundredth of steps and text: three parts, one after the other, and two seeds differ"
    from xlnb.models.encoders import load_encoder, load_tokenizer
    made = tool("lab_encoder")
    for seed in (1, 2):
        made.make(seed, tmp_path / f"run{seed}", shrink=500)
        made.keep(tmp_path / f"run{seed}", tmp_path / f"lab-{seed}")
    one, two, lab = (load_encoder(n) for n in (str(tmp_path / "lab-1"), str(tmp_path / "lab-2"), "lab"))
    shapes = lambda m: {k: v.shape for k, v in m.state_dict().items()}
    assert shapes(one) == shapes(two) == shapes(lab) and len(load_tokenizer(str(tmp_path / "lab-1"))) == 4000
    words = [m.get_input_embeddings().weight for m in (one, two)]
    assert not torch.equal(*words) and all(w.isfinite().all() for w in words)
    steps = {p: max(x["step"] for x in json.loads((tmp_path / "lab-1" / f"{p}.json").read_text())) for p in made.PARTS}
    assert steps == dict(short=6, long=10, pairs=4)
    assert torch.equal(load_encoder(str(tmp_path / "run1" / "pairs")).get_input_embeddings().weight, words[0])


def test_a_laboratory_encoder_that_is_pre_trained_otherwise(tool, tmp_path):
    "Longer, wider, with translations: each changes what it says and nothing else"
    from xlnb.lab.worlds import Lab
    from xlnb.models.encoders import load_encoder
    made, lab = tool("lab_encoder"), Lab()
    made.make(1, tmp_path / "run", shrink=500, longer=2, hidden=160, parallel=1000)
    made.keep(tmp_path / "run", tmp_path / "lab-x")
    steps = {p: max(x["step"] for x in json.loads((tmp_path / "lab-x" / f"{p}.json").read_text())) for p in made.PARTS}
    assert steps == dict(short=12, long=20, pairs=8)
    model = load_encoder(str(tmp_path / "lab-x"))
    assert (model.config.hidden_size, model.config.intermediate_size) == (160, 640)
    assert (tmp_path / "lab-x" / "model.safetensors").stat().st_size < 4.2e6
    pairs, known = made.translated(lab, "qso", 4), lab.parallel(4, ["en", "qso"], "pre-training")
    assert pairs[1] == f"{known['en'][1]}\n{known['qso'][1]}" and pairs[2] == f"{known['qso'][2]}\n{known['en'][2]}"
    own, others = ({*lab.parallel(2000, ["en"], split)["en"]} for split in ("pre-training", "train"))
    assert len(own & others) < 0.02 * len(own), "two drawn sentences are the same now and then"


def test_a_laboratory_encoder_of_another_family(tool, tmp_path):
    "Its tokenizer is made from its own languages, in scripts and words that `lab` never saw"
    from xlnb.lab.grammar import drawn_family
    from xlnb.lab.worlds import Lab
    from xlnb.models.encoders import load_encoder, load_tokenizer
    made, lab = tool("lab_encoder"), Lab(1, drawn_family(1))
    made.make(0, tmp_path / "run", shrink=500, family=1)
    made.keep(tmp_path / "run", tmp_path / "family-1")
    own, usual = load_tokenizer(str(tmp_path / "family-1")), load_tokenizer("lab")
    text = {k: lab.corpus(k, 30)[-1] for k in lab.langs if k != "en"}
    pieces = {n: sum(len(t(x, add_special_tokens=False).input_ids) for x in text.values()) for n, t in (("own", own), ("usual", usual))}
    assert own.get_vocab() != usual.get_vocab() and pieces["own"] < .95 * pieces["usual"]
    logged = json.loads((tmp_path / "family-1" / "pairs.json").read_text())
    assert {k.split("_")[1] for x in logged for k in x if k.startswith("eval_")} >= {*lab.langs}
    assert load_encoder(str(tmp_path / "family-1")).config.vocab_size == len(own)


def test_speed_on_a_device(tool, tmp_path, capsys):
    "Every recipe is measured, with and without compilation; operations are those that PyTorch counts in a step of its own"
    gpu = tool("gpu")
    gpu.main(["--tiny", "--out", str(tmp_path / "new" / "gpu.json")])
    out = json.loads((tmp_path / "new" / "gpu.json").read_text())
    lines = {l["name"]: l for l in out["lines"]}
    if Version(torch.__version__) < Version("2.11"):  # the script asks for 2.11; what does not compile before is named
        assert all("compiled" in x["what"] and "torch.compile failed" in x["why"] for x in out["skipped"])
    else:
        assert not out["skipped"] and {f"{k}, compiled" for k in gpu.WORKED} < {*lines}
    assert {k for k in lines if "compiled" not in k} == {*gpu.WORKED, "evaluation"}
    assert out["torch"] == torch.__version__ and {"device", "driver", "date", "commit", "transformers", "seconds"} <= {*out}
    table = capsys.readouterr().out
    assert all(name in table for name in lines) and "measured / estimated" in table
    for name, l in lines.items():
        rate = l["operations_per_step"] * l["steps_per_second"] if "operations_per_step" in l else l["rate"]
        assert l["rate"] == pytest.approx(rate) and l["share_of_measured"] == pytest.approx(rate / out["measured_peak"]["fp32"])
        assert l["tokens_per_second"] > 0 and (l.get("graphs", 0) > 0) == name.endswith("compiled")
    for name, frozen in (("finetune", False), ("finetune, frozen embeddings", True)):
        l = lines[name]
        assert l["operations_per_step"] == counted_operations(l["batch"], 32, frozen)
        assert l["tokens_per_step"] == l["batch"] * 32 and l["attention"] == "sdpa"
        assert l["measured_to_estimated"]["operations_per_step"] == pytest.approx(1., abs=.1)
    passes = lines["evaluation"]
    assert passes["operations_total"] == counted_operations(32, 32, training=False)
    assert lines["salt"]["inputs_per_step"] == 2 * lines["salt"]["batch"]
    assert lines["finetune+alsace"]["inputs_per_step"] == 4 * lines["finetune+alsace"]["batch"]


def counted_operations(rows, length, frozen=False, training=True):
    "What PyTorch counts in one step of a model of this shape"
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification
    config = XLMRobertaConfig(vocab_size=4100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
                              num_labels=3, attn_implementation="eager")
    model = XLMRobertaForSequenceClassification(config)
    if frozen: model.base_model.embeddings.requires_grad_(False)
    with FlopCounterMode(display=False) as count:
        out = model(torch.randint(5, 4000, (rows, length)), labels=torch.zeros(rows, dtype=torch.long))
        if training: out.loss.backward()
    return count.get_total_flops()


def test_operations_of_every_objective(tool, tmp_path):
    "Counted from the shapes of a batch, and by PyTorch in a step of the method on it"
    from torch.utils.flop_counter import FlopCounterMode
    gpu = tool("gpu")
    texts, tokenizer = gpu.Texts(gpu.TINY), gpu.load_tokenizer("lab")
    texts.folder, task = tmp_path, texts.task(gpu.TINY.rows, 8)
    encoder = gpu.XLMRobertaForMaskedLM(gpu.TINY.config())
    headed = gpu.with_head(encoder, task)
    for model in (encoder, headed): model.set_attn_implementation("eager")   # whose products are all counted
    for name in ("salt", "finetune+alsace", "mmkd+finetune", "clism+finetune"):
        case = gpu.prepared(name, gpu.TINY, texts, task, encoder, headed, tokenizer)
        gpu.drop_pointer(case.model)
        batch = case.stage.collator(case.stage.data[:8])
        with FlopCounterMode(display=False) as count: case.stage.loss(case.model, batch)[0].backward()
        assert sum(gpu.operations(case.method, gpu.TINY, gpu.shapes(batch)).values()) == count.get_total_flops(), name


def test_the_batch_is_looked_for_within_memory_and_time(tool, tmp_path, monkeypatch, capsys):
    "Twice the batch as long as that is faster, fits and can be filled; what there is no time for is named"
    import time
    from types import SimpleNamespace
    gpu = tool("gpu")
    run, case = gpu.trial, SimpleNamespace(name="salt", size=gpu.BASE, method="salt", stage=SimpleNamespace(data=range(256)))
    def look(speeds, until=time.monotonic() + 99):
        made = lambda case, batch, *a: speeds.get(batch) and dict(batch=batch, tokens_per_second=speeds[batch], memory=1.)
        monkeypatch.setattr(gpu, "trial", made)
        tried, best, why = gpu.search(case, until)
        return [t["batch"] for t in tried], best and best["batch"], why
    assert look({16: 10, 32: 20, 64: 30}) == ([16, 32, 64, 128], 64, "memory")
    assert look({16: 10, 32: 20, 64: 20.1, 128: 99}) == ([16, 32, 64], 64, "no faster")
    assert look({16: 10, 32: 20, 64: 9}) == ([16, 32, 64], 32, "no faster")
    assert look({16 * 2**i: 2.**i for i in range(9)}) == ([16, 32, 64, 128, 256], 256, "rows")
    assert look({16: 10, 32: 20}, until=0) == ([16], 16, "time") and look({}) == ([16], None, "memory")
    report = gpu.Report(gpu.TINY, 0)
    gpu.plain(report, "salt", (), 1, [])
    gpu.compiled(report, case, dict(batch=16))
    assert report.out["skipped"] == [dict(what="salt", why="time"), dict(what="salt, compiled", why="time")]
    assert "left out: salt, compiled (time)" in capsys.readouterr().out
    known = {n: (gpu.published_peak(n) or {}).get("name") for n in ("NVIDIA H200", "NVIDIA A100-SXM4-80GB", "Tesla T4", "NVIDIA A10")}
    assert [*known.values()] == ["H200", "A100", "T4", None] and gpu.published_peak("NVIDIA L4")["peak"] == 121e12
    texts, encoder = gpu.Texts(gpu.TINY), gpu.XLMRobertaForMaskedLM(gpu.TINY.config())
    task = texts.task(gpu.TINY.rows, 8)
    real = gpu.prepared("finetune", gpu.TINY, texts, task, encoder, gpu.with_head(encoder, task), gpu.load_tokenizer("lab"))
    loss = real.stage.loss
    def full(model, batch):
        if len(batch["labels"]) > 8: raise torch.OutOfMemoryError("CUDA out of memory")
        return loss(model, batch)
    real.stage.loss = full
    assert run(real, 16, 1, 2, 0) is None and run(real, 8, 1, 2, 0)["steps"] == 1
    with pytest.raises(gpu.TimeUp, match="more than 0 seconds"), gpu.within(.1): time.sleep(20)


def test_the_memory_of_a_command_is_watched(tool, tmp_path):
    "A line after each while, with what the process holds and how many cells there are; the status is its own"
    watch, out, cells = tool("watch"), tmp_path / "memory.json", tmp_path / "runs"
    cells.mkdir()
    grown = f"import sys, time; a = b'x' * 80_000_000; open(r'{cells}/one.parquet', 'w'); time.sleep(2); sys.exit(3)"
    options = ["--store", str(cells), "--every", ".2"]
    assert watch.main([str(out), "a try", *options, "--", sys.executable, "-c", grown]) == 3
    seen = json.loads(out.read_text())
    assert seen["title"] == "a try" and {"machine", "date", "commit"} <= {*seen["made"]}
    lines = seen["lines"]
    assert len(lines) > 3 and max(x["bytes"] for x in lines) > 80e6 and lines[-1]["cells"] == 1
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    with pytest.raises(SystemExit):
        watch.main([str(out), "nothing to run"])


TOY = """# %% toy.ipynb #one
def more(x):
    return x + 1

# %% toy.ipynb #two
def less(x):
    return x - 1
"""


def test_errors_that_tests_notice(tool, tmp_path):
    "One that the tests see, one that only the page sees, one that never ends, and one that is no module"
    mutation = tool("mutation")
    for folder in "xlnb", "tests", "nbs": (tmp_path / folder).mkdir()
    (tmp_path / "settings.ini").write_text((ROOT / "settings.ini").read_text())
    (tmp_path / "xlnb" / "__init__.py").write_text("")
    (tmp_path / "xlnb" / "toy.py").write_text(TOY)
    (tmp_path / "tests" / "test_toy.py").write_text("from xlnb.toy import more\ndef test_more(): assert more(2) == 3\n")
    cells = [("one", "#| export\ndef more(x):\n    return x + 1"), ("two", "#| export\ndef less(x):\n    return x - 1"), ("is", "assert less(2) == 1")]
    cells = [dict(cell_type="code", id=k, source=v, metadata={}, outputs=[], execution_count=None) for k, v in cells]
    (tmp_path / "nbs" / "toy.ipynb").write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5)))
    def ended(was="", now="", page=False):
        with mutation.copy(tmp_path, "toy", TOY.replace(was, now), "toy" * page) as folder:
            on = (lambda at: mutation.run_page(at / "nbs" / "toy.ipynb")) if page else lambda at: mutation.run_tests("test_toy.py", tmp_path / "tests")
            return mutation.trial(folder, "xlnb.toy", on, limit=5)[0]
    assert [ended(), ended(page=True)] == ["survived"] * 2
    assert ended("x + 1", "x - 1") == "killed"
    assert [ended("x - 1", "x + 1", page) for page in (False, True)] == ["survived", "killed"]
    assert ended("return x + 1", "while True: pass") == "timeout" and ended("def more", "import nothing_like_this") == "broken"


def test_the_draw_of_errors(tool):
    "The same each time, a larger one begins with a smaller one, and every place is there before any comes again"
    mutation = tool("mutation")
    found = [("operator", k, (k // 4, 0)) for k in range(40)]
    first = mutation.drawn(found)
    assert first == mutation.drawn(found) != mutation.drawn(found, seed=1) and sorted(first) == found
    assert all(len({at for *_, at in first[n:n + 10]}) == 10 for n in range(0, 40, 10))
    lines, hints = mutation.spans("def f(x: 1 | 2):\n    return x\n\ndef g() -> 3: return 4\n", ["g"])
    assert lines == {4} and sorted(hints) == [((1, 9), (1, 14)), ((4, 11), (4, 12))]
    if importlib.util.find_spec("cosmic_ray") is None:
        with pytest.raises(SystemExit, match="pip install cosmic-ray"): mutation.operators()
        return
    made = {mutation.mutated(TOY, *m[:2])[1]["now"] for m in mutation.mutants(TOY)}
    assert {"return x - 1", "return x + 2", "return x + 0", "return x // 1"} <= made and "def more(x):" not in made
    assert mutation.mutated(TOY, "NumberReplacer", 3)[1] == dict(line=7, was="return x - 1", now="return x - 0")

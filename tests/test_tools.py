"""Tools that no page runs: pages as on Colab, lock files, a laboratory encoder from another seed."""
import importlib.util
import json
from pathlib import Path

import pytest
import torch

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
            start, *now = [c.source for c in colab.prepared(page, tmp_path, first).cells if c.cell_type == "code"]
            changed = [(a, b) for a, b in zip(was, now, strict=True) if a != b and b]
            assert "import google.colab" in start and all("eval: false" in a for a, b in zip(was, now) if a and not b)
            assert len(changed) == any(colab.INSTALLS in s for s in was), page.name
            for a, b in changed:
                compile("\n".join(l for l in b.splitlines() if not l.startswith("#|")), page.name, "exec")
                assert str(tmp_path) in b and "'/content" not in b and ("git clone" in b) == first
                assert f"xlnb/{page.relative_to(ROOT).parent}" in b


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

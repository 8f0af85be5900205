"""The masked-LM head of me5-small: clean text, masks, a restricted loss, and one small file that gives the head back."""
import numpy as np
import pandas as pd
import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertModel

from xlnb.core import XlnbError
from xlnb.data import open_text as ot
from xlnb.models import encoders, me5_head as mh
from xlnb.training.schedule import Schedule
from xlnb.training.stage import run_stage
from xlnb.training.trainer import Stage

PIECES, MASK = 60, 59


class Toy:
    "As much of a tokenizer as the masker asks for: pieces 4 to 58, every second one starts a word"
    cls_token_id, pad_token_id, sep_token_id, mask_token_id = 0, 1, 2, MASK
    def __len__(self): return PIECES
    def convert_ids_to_tokens(self, ids): return [("▁" if i % 2 == 0 else "") + f"w{i}" for i in ids]


def config(): return BertConfig(vocab_size=PIECES + 2, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
                                max_position_embeddings=40, pad_token_id=1, hidden_dropout_prob=.1)


def mlm():
    torch.manual_seed(0)
    return BertForMaskedLM(config()).eval()


def lines(n=40):
    random = np.random.default_rng(0)
    return {lang: [random.integers(4, 30, random.integers(3, 9)).tolist() for _ in range(k)] for lang, k in (("de", n), ("sw", n // 4))}


@pytest.fixture
def mirror(tmp_path):
    def put(folder, config, **columns):
        (tmp_path / folder / config).mkdir(parents=True)
        pd.DataFrame(columns).to_parquet(tmp_path / folder / config / "train-00000-of-00001.parquet")
    for name, (_, column, configs) in ot.OPEN_TEXT.items():
        for config in configs: put(name, config, **{column: [f"A line of {name} in {config}.", "Twice here", "Twice  here "]})
    put("bible_nt", "fra_geneve1669", text=["left out"])
    put("xnli", "en", premise=["twice HERE!"], label=[1])
    put("xquad", "xquad.de", id=["1"], context=["Before it. A line of udhr in de, so it is. A line of udhr in de! After it."])
    put("wikiann", "de", tokens=[["A", "line", "of", "tico19", "in", "en-sw", "."]])
    return tmp_path


def test_open_text_has_every_line_once_and_no_sentence_of_an_evaluation_set(mirror):
    text = ot.open_text(mirror)
    assert not text.text.eq("left out").any() and not text.duplicated(["lang", "text"]).any()
    assert set(text.lang) == {"ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"}
    left, removed = ot.without(text, ot.evaluation_sentences(mirror, ["xnli", "xquad", "wikiann"]))
    assert removed == {"xnli": 15, "xquad": 1, "wikiann": 1} and len(left) == len(text) - 17
    assert not left.text.isin(["Twice here", "A line of udhr in de.", "A line of tico19 in en-sw."]).any()
    with pytest.raises(XlnbError, match="mirror"): list(ot.evaluation_sentences(mirror, ["pud"]))


def test_small_languages_are_drawn_more_often_than_they_are_large():
    draws = mh.LineDraws(lines(), 3000, mh.Filling(beside=.5))
    small = np.mean(draws.at[:, 0] == 1)
    assert .30 < small < .37 and .46 < draws.beside.mean() < .54  # 10 ** .5 / (40 ** .5 + 10 ** .5) is a third
    row = next(draws[i] for i in range(99) if draws.beside[i])
    assert row["length"] == 2 * (len(row["input_ids"]) + 2) and draws["length"][:2] == [draws[0]["length"], draws[1]["length"]]
    assert sorted(map(tuple, [draws[i]["input_ids"] for i in np.flatnonzero(draws.at[:, 0] == 1)[:10]])) == sorted(map(tuple, lines()["sw"]))


@pytest.mark.parametrize("whole_words", [False, True])
def test_labels_are_what_the_masks_hide(whole_words):
    pieces = np.arange(4, 40)
    masker, ids = mh.Masker(Toy(), pieces, mh.Filling(mask=.3, whole_words=whole_words)), [4, 6, 7, 8, 9, 10, 12, 13]
    np.random.seed(0)
    for beside in (False, True) * 30:
        batch = masker([dict(input_ids=ids, beside=beside), dict(input_ids=[5, 6], beside=False)])
        x, y = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        size = 1 + (len(ids) + 2 if beside else 0)
        if beside: assert x[:size] == [0, *ids, 2, 2] and set(y[:size]) == {-100}
        own, asked = x[size:size + len(ids)], y[size:size + len(ids)]
        assert any(l >= 0 for l in asked) and all(l == -100 and a == b or l >= 0 and pieces[l] == b for a, b, l in zip(own, ids, asked))
        if whole_words: assert all((asked[i] >= 0) == (asked[i + 1] >= 0) for i in (1, 3, 6))
        assert (batch["attention_mask"] == (batch["input_ids"] != 1)).all()


def test_the_restricted_loss_is_the_softmax_over_the_pieces_that_occur():
    model, pieces = mlm(), np.arange(4, 30)
    with torch.no_grad(): model.cls.predictions.bias.normal_()
    batch = mh.Masker(Toy(), pieces, mh.Filling())([dict(input_ids=v, beside=False) for v in lines()["de"]])
    loss, parts = mh.RestrictedLoss(model, pieces)(model, batch)
    assert list(parts) == ["mlm"] and loss.requires_grad
    with torch.no_grad(): loss, parts = mh.RestrictedLoss(model, pieces)(model, batch)
    logits, hit = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[..., 4:30], batch["labels"] != -100
    assert torch.isclose(loss, torch.nn.functional.cross_entropy(logits[hit], batch["labels"][hit]), rtol=2e-2) and 0 <= parts["accuracy"] <= 1


@pytest.mark.parametrize("parts", [mh.Trained(), mh.Trained(rank=2), mh.Trained(rank=2, where="query-value", small=False), mh.Trained(layers=1)])
def test_the_file_gives_back_what_was_trained(parts, tmp_path, monkeypatch):
    model, pieces = mlm(), np.arange(4, 40)
    start = {k: v.clone() for k, v in model.base_model.state_dict().items()}
    mh.start_head(model, MASK, np.ones(PIECES), parts)
    stage = Stage("train", mh.LineDraws(lines(), 480, mh.Filling()), mh.Masker(Toy(), pieces, mh.Filling()), mh.RestrictedLoss(model, pieces),
                  Schedule(lr=1e-2, steps=30, batch_size=16))
    history = run_stage(stage, model).history
    assert history[-1]["mlm"] < history[0]["mlm"]
    words = model.get_input_embeddings().weight
    assert torch.equal(words, start["embeddings.word_embeddings.weight"])
    tensors = mh.head_tensors(model, start, pieces)
    assert any(k.startswith("low.") for k in tensors) == bool(parts.rank) and ("row" in tensors) == bool(parts.rank and parts.small)
    mh.save_head(tmp_path / "head", tensors, {"made": "here"})
    BertModel(config(), add_pooling_layer=False).save_pretrained(tmp_path / "body")
    state = BertModel.from_pretrained(tmp_path / "body", add_pooling_layer=False)
    state.load_state_dict(start)
    state.save_pretrained(tmp_path / "body")
    monkeypatch.setattr(encoders, "me5_small", lambda: str(tmp_path / "body"))
    monkeypatch.setattr(encoders, "HEAD_FILE", tmp_path / "head/head.safetensors")
    monkeypatch.setattr(encoders, "add_head", lambda m, f: mh.add_head(m, f, MASK))
    loaded, ids = encoders.load_encoder("me5-small", "masked_lm"), torch.tensor([[0, 5, MASK, 7, 2]])
    with torch.no_grad(): found, made = loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits
    assert isinstance(loaded, BertForMaskedLM) and torch.allclose(found[..., 4:40], made[..., 4:40], atol=3e-2)
    assert (found[..., 40:MASK] < -20).all()
    body = encoders.load_encoder("me5-small")  # without the head nothing of it comes along
    assert not hasattr(body, "cls") and all(torch.equal(v, start[k]) for k, v in body.state_dict().items())


def test_without_the_file_there_is_no_head_and_a_large_one_is_refused(tmp_path, monkeypatch):
    BertModel(config(), add_pooling_layer=False).save_pretrained(tmp_path / "body")
    monkeypatch.setattr(encoders, "me5_small", lambda: str(tmp_path / "body"))
    monkeypatch.setattr(encoders, "HEAD_FILE", tmp_path / "none.safetensors")
    with pytest.raises(XlnbError, match="no masked-LM head"): encoders.load_encoder("me5-small", "masked_lm")
    with pytest.raises(XlnbError, match="smaller rank"): mh.save_head(tmp_path, {"x": torch.zeros(100)}, {}, most=100)


def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(tmp_path):
    def run(out, stop=None):
        model, pieces = mlm(), np.arange(4, 40)
        mh.start_head(model, MASK, np.ones(PIECES), mh.Trained(rank=2))
        stage = Stage("train", mh.LineDraws(lines(), 96, mh.Filling()), mh.Masker(Toy(), pieces, mh.Filling()), mh.RestrictedLoss(model, pieces),
                      Schedule(lr=1e-2, steps=6, batch_size=16), args=dict(save_steps=2))
        class Stop(mh_callback()):
            def on_save(self, args, state, control, **kw):
                if state.global_step == stop: raise KeyboardInterrupt
        try: run_stage(stage, model, out, callbacks=[Stop()])
        except KeyboardInterrupt: return None
        return {k: v for k, v in model.state_dict().items()}
    whole = run(tmp_path / "a")
    assert run(tmp_path / "b", stop=4) is None
    again = run(tmp_path / "b")
    assert all(torch.equal(whole[k], again[k]) for k in whole)


def mh_callback():
    from transformers import TrainerCallback
    return TrainerCallback


@pytest.mark.parametrize("p1, size, kept", [(.3, 100, True), (.05, 100, False), (.3, 7_000_000, False)])
def test_a_head_is_kept_with_its_card_if_it_is_small_and_translates_words(p1, size, kept, tmp_path):
    import importlib.util, json
    from pathlib import Path
    spec = importlib.util.spec_from_file_location("tool", Path(__file__).parents[1] / "tools/me5_head.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    record = dict(text=dict(kept=[dict(lines=5)], removed=dict(xnli=2)), pieces=9, read=2e6, cool=[dict(step=1, loss=3., cpu=1800.)],
                  masked=[dict(beside=False, accuracy=.25), dict(beside=True, accuracy=.5)], translation=[dict(context="pair", p1=p1, p5=.5)])
    out = tmp_path / "out"
    for name in ("head", "train"): (out / name).mkdir(parents=True)
    (out / "options.json").write_text(json.dumps(dict(rank=24, steps=2)))
    (out / "head/record.json").write_text(json.dumps(record))
    (out / "train/result.json").write_text(json.dumps(dict(history=[dict(step=2, loss=4., tokens=10, cpu=1800.)])))
    (out / "head/head.safetensors").write_bytes(b"0" * size)
    if not kept:
        with pytest.raises(SystemExit, match="not kept"): tool.keep(out, tmp_path / "kept")
        return
    tool.keep(out, tmp_path / "kept")
    card = (tmp_path / "kept/README.md").read_text()
    assert "P@1 0.300" in card and "1.00 core-hours" in card and "rank 24" in card
    tool.collect(out, tmp_path / "store.json", "run")
    stored = json.loads((tmp_path / "store.json").read_text())["runs"]["run"]
    assert stored["finished"] and stored["history"] == [dict(step=2, loss=4., tokens=10, cpu=1800.)] and stored["masked"] == record["masked"]

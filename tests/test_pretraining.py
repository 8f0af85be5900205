"Pre-training is a stage like any other: one schedule, one way to resume, a folder that belongs to one run"
import json, math

import pytest, torch
from test_encoders import TEXTS, config, losses, sentences

from xlnb.core import XlnbError, sealed, weights_digest
from xlnb.models.encoders import load_encoder
from xlnb.training.pretraining import Pretraining, pack, pretrain, train_tokenizer
from xlnb.training.schedule import Schedule

SMALL = dict(steps=6, batch_size=4, block_size=24, lr=3e-3, logging_steps=1, progress=False)


@pytest.fixture(scope="module")
def tok(): return train_tokenizer(TEXTS["en"], vocab_size=80)


def weights(folder): return weights_digest(load_encoder(folder).state_dict())


def test_its_settings_are_those_of_every_training():
    assert issubclass(Pretraining, Schedule)
    with pytest.raises(XlnbError, match="pretrain: batch_size=9 cannot be split"): Pretraining(batch_size=9, accumulate=2)
    with pytest.raises(XlnbError, match="precision='bf15' is unknown: did you mean 'bf16'"): Pretraining(precision="bf15")


def test_a_finished_run_is_read_and_another_is_refused(tok, tmp_path):
    log = pretrain(TEXTS, tmp_path / "run", tok, config=config(), **SMALL)
    assert sealed(tmp_path / "run") and not (tmp_path / "run" / "training").exists()
    before = weights(tmp_path / "run")
    again = pretrain(TEXTS, tmp_path / "run", tok, config=config(), **SMALL)
    assert again == log == json.loads((tmp_path / "run" / "log.json").read_text()) and weights(tmp_path / "run") == before
    for change, says in (dict(steps=7), "steps is 6 there and 7 here"), (dict(mask=.3), "mask is 0.15 there"):
        with pytest.raises(XlnbError, match=says): pretrain(TEXTS, tmp_path / "run", tok, config=config(), **SMALL | change)
    with pytest.raises(XlnbError, match="texts is"): pretrain(TEXTS | dict(sw=sentences(9)), tmp_path / "run", tok, config=config(), **SMALL)


def test_smaller_batches_are_the_same_training(tok, tmp_path):
    "As the tokens of a whole step decide its loss, however it is split; plain SGD, so that rounding stays rounding"
    kw = SMALL | dict(batch_size=8, optim="sgd", clip=0., weight_decay=0.)
    a = pretrain(TEXTS, tmp_path / "a", tok, config=config(), **kw)
    b = pretrain(TEXTS, tmp_path / "b", tok, config=config(), accumulate=2, **kw)
    assert all(abs(losses(a)[k] - losses(b)[k]) < 1e-5 for k in losses(a))


def test_frozen_parts_and_epochs(tok, tmp_path):
    pretrain(TEXTS, tmp_path / "a", tok, config=config(), **SMALL)
    log = pretrain(TEXTS, tmp_path / "b", tok, init=str(tmp_path / "a"), frozen="embeddings", **SMALL | dict(steps=None, epochs=.1))
    a, b = (load_encoder(tmp_path / n).base_model for n in "ab")
    assert torch.equal(a.embeddings.word_embeddings.weight, b.embeddings.word_embeddings.weight)
    assert not torch.equal(a.encoder.layer[0].output.dense.weight, b.encoder.layer[0].output.dense.weight)
    blocks = sum(len(pack(v, tok, SMALL["block_size"])) for v in TEXTS.values())
    assert max(losses(log)) == math.ceil(.1 * blocks / SMALL["batch_size"])


def test_held_out_texts_are_logged_by_language(tok, tmp_path):
    held = dict(en=sentences(20, 9), sw=sentences(10, 8))
    log = pretrain(TEXTS, tmp_path / "a", tok, eval_texts=held, config=config(), **SMALL | dict(steps=10))
    found = {k: [r[k] for r in log if k in r] for k in ("eval_en_loss", "eval_sw_loss")}
    assert all(len(v) == 5 and v[-1] < v[0] for v in found.values())
    without = pretrain(TEXTS, tmp_path / "b", tok, config=config(), **SMALL | dict(steps=10))
    assert losses(log) == losses(without) and weights(tmp_path / "a") == weights(tmp_path / "b")


def test_a_config_that_is_given_stays_as_it_is(tok, tmp_path):
    mine = config()
    size = mine.vocab_size
    pretrain(TEXTS, tmp_path / "a", tok, config=mine, **SMALL | dict(steps=1))
    assert mine.vocab_size == size

"""Every encoder fine-tuned on every kind of task, every recipe once; all with XLNB_SLOW=1 (see tools/matrix.py)."""
import copy
import gc
import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from xlnb.core import XlnbError
from xlnb.data.tasks import Task
from xlnb.models.encoders import body, load_encoder, load_tokenizer, longest_input, masked_lm_head
from xlnb.models.heads import load_finetuned, save_finetuned, with_head

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("matrix", ROOT / "tools" / "matrix.py")
mx = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mx)
WHOLE = os.environ.get("XLNB_SLOW") == "1"
READ = [e for e in mx.ENCODERS if e != "mT5"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    gc.collect()
    gc.freeze()  # each run of the trainer looks through all that Python holds: not through the libraries again
    yield tmp_path_factory.mktemp("matrix")
    gc.unfreeze()


@pytest.fixture(scope="module")
def made(folder): return lambda name: mx.make(name, folder / "encoders")


def tried(encoder, kind, recipe, folder):
    found = mx.tried(encoder, kind, recipe, folder)
    assert mx.agrees(encoder, kind, recipe, found), (mx.expected(encoder, kind, recipe), found)


# ---------------------------------------------------------------- the matrix

@pytest.mark.parametrize("kind", mx.KINDS)
@pytest.mark.parametrize("encoder", mx.ENCODERS)
def test_plain_fine_tuning_of_every_encoder_on_every_kind(encoder, kind, folder):
    tried(encoder, kind, "finetune", folder)


ONCE = [("mBERT", "tags", "finetune+averaging"), ("LUKE", "choice", "translate_train"), ("XLM-R", "sentence", "tfidf"),
        ("mDeBERTa-v3", "pair", "salt"), ("mmBERT", "tags", "salt(candidates=neighbours)"),
        ("mBERT", "span", "salt(candidates=dictionary)"), ("LUKE", "reading", "finetune+alsace"),
        ("mmBERT", "reading", "mmkd+finetune"), ("me5-small", "sentence", "mmkd(token=0)+finetune"),
        ("mDeBERTa-v3", "span", "clism+finetune"), ("multilingual-e5", "span", "clism(mlm=0)+finetune"),
        ("mmBERT", "span", "pointer+finetune"), ("XLM-R", "span", "mmkd+clism+finetune"),
        ("XLM-R", "cloze", "mmkd+salt+alsace")]


@pytest.mark.parametrize("encoder, kind, recipe", ONCE)
def test_every_recipe_once(encoder, kind, recipe, folder): tried(encoder, kind, recipe, folder)


def test_no_recipe_is_left_out():
    from xlnb.study.recipe import METHODS
    assert {r for _, _, r in ONCE} == {*mx.RECIPES} - {"finetune"} == {*mx.recipes(mx.tasks()["pair"])} - {"finetune"}
    assert all(any(name in r for r in mx.RECIPES) for name in METHODS)
    assert {k.name for k in (t.kind for t in mx.tasks().values())} == {*mx.KINDS} - {"retrieval"}


REFUSED = [("me5-small", "pair", "salt"), ("multilingual-e5", "span", "clism+finetune"),
           ("me5-small", "tags", "mmkd+clism+finetune"), ("XLM-R", "span", "tfidf"),
           ("mT5", "retrieval", "mmkd+finetune")]


@pytest.mark.parametrize("encoder, kind, recipe", REFUSED)
def test_a_refusal_comes_before_any_training(encoder, kind, recipe, folder): tried(encoder, kind, recipe, folder)


@pytest.mark.skipif(not WHOLE, reason="set XLNB_SLOW=1 to try all combinations, a quarter of an hour")
@pytest.mark.parametrize("encoder, kind, recipe", mx.combinations() if WHOLE else [])
def test_everything(encoder, kind, recipe, folder): tried(encoder, kind, recipe, folder)


def test_what_is_stored_is_what_must_be():
    "The result on the page holds every combination, and each came out as was written down before"
    cells = json.loads((ROOT / "nbs/models/store/matrix.json").read_text(encoding="utf-8"))["cells"]
    every = [(e, k, r) for e in mx.ENCODERS for k in mx.KINDS for r in mx.RECIPES if mx.expected(e, k, r)]
    assert {(e, k, r) for e, rs in cells.items() for r, ks in rs.items() for k in ks} == {*every}
    assert [c for c in every if not mx.agrees(*c, cells[c[0]][c[2]][c[1]])] == []


# ---------------------------------------------------------------- what the tokenizers make of words and answers

@pytest.mark.parametrize("encoder", READ)
def test_a_model_that_is_right_scores_everything(encoder, made):
    "Tags on the tokens of their words and answers at their tokens, in every language, whatever the tokenizer"
    from xlnb.data.kinds.base import featurize
    from xlnb.evaluation.predict import decode
    tok = load_tokenizer(made(encoder))
    for lang in mx.LANGS:
        task, rows = mx.tasks()["tags"], mx.small_lab().dataset("lab-tags", lang, "test")
        feats = featurize(task, rows, tok, 32).to_list()
        sure = [np.eye(len(task.labels))[[max(y, 0) for y in f["labels"]]] for f in feats]
        assert decode(task, sure, feats, rows) == [[task.labels[t] for t in r["tags"]] for r in rows]
        task, rows = mx.tasks()["span"], mx.small_lab().dataset("lab-spans", lang, "test")
        feats = featurize(task, rows, tok, 64).to_list()
        sure = [[np.eye(len(f["input_ids"]))[f[k]] * (f["end_positions"] > 0)
                 for k in ("start_positions", "end_positions")] for f in feats]
        assert decode(task, sure, feats, rows) == [r["answers"]["text"][0] for r in rows]


@pytest.mark.parametrize("encoder", READ)
def test_words_are_the_same_to_every_tokenizer(encoder, made):
    "MMKD sees as many; a word by itself has the pieces that it has behind a space; [QUE] is one token"
    from xlnb.data.kinds.query import QUE, add_query
    from xlnb.data.pairs import word_pieces
    from xlnb.methods.salt.vocabulary import Segmenter
    tok, texts = load_tokenizer(made(encoder)), mx.sentences().rows["qal"]["text"][:20]
    assert [len(k) for k in word_pieces(tok, texts, None, 64, "spaces").keys] == [len(t.split()) + 2 for t in texts]
    seg, n = Segmenter(tok), 0
    for t in texts:
        ids = seg.pieces([t])[0][0]
        for u in seg.units(t):
            if u.start:
                n += 1
                assert [i for i in ids[u.first:u.last] if seg.surface[i]] == seg.word_ids(t[u.start:u.end])
    assert n == sum(len(t.split()) for t in texts) - len(texts)
    q = add_query(tok)
    assert tok(f"a {QUE} b")["input_ids"].count(q) == 1


# ---------------------------------------------------------------- lengths, heads, and a vocabulary that grows

@pytest.mark.parametrize("name", ["luke", "mpnet", "xlm-roberta", "bert"])
def test_positions_that_begin_behind_the_padding(name):
    "LUKE and MPNet count as RoBERTa does: of 20 positions 18 are left, where BERT has 20; one more is too long"
    from types import SimpleNamespace
    from transformers import AutoConfig, AutoModel
    more = dict(entity_vocab_size=8, entity_emb_size=8) if name == "luke" else {}
    config = AutoConfig.for_model(name, vocab_size=30, max_position_embeddings=20, pad_token_id=1, **mx.SIZE, **more)
    model = AutoModel.from_config(config).eval()
    n = longest_input(model, SimpleNamespace(model_max_length=10**9))
    assert n == (20 if name == "bert" else 18)
    assert body(model, input_ids=torch.full((1, n), 5)).shape[1] == n
    with pytest.raises((IndexError, RuntimeError)): model(input_ids=torch.full((1, n + 1), 5))


def test_heads_that_transformers_lacks(made, tmp_path):
    "EuroBERT answers and chooses: a linear map of its states, of their mean; saved under Transformers' names"
    encoder, tok = load_encoder(made("EuroBERT")), load_tokenizer(made("EuroBERT"))
    x = tok(["the dog sleeps .", "a cat"], padding=True, return_tensors="pt")
    span, choice = with_head(encoder, Task("s", "span")), with_head(encoder, Task("c", "choice"))
    states, mask = body(encoder, **x), x["attention_mask"]
    assert torch.allclose(torch.stack(span(**x)[:2], -1), span.qa_outputs(states), atol=1e-6)
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    assert torch.allclose(choice(**{k: v[None] for k, v in x.items()}).logits, choice.classifier(mean).T, atol=1e-6)
    embedded = dict(inputs_embeds=encoder.get_input_embeddings()(x["input_ids"])[None], attention_mask=mask[None])
    assert torch.allclose(choice(**embedded).logits, choice.classifier(mean).T, atol=1e-6)
    for model, task, name in ((span, Task("s", "span"), "EuroBertForQuestionAnswering"),
                              (choice, Task("c", "choice"), "EuroBertForMultipleChoice")):
        save_finetuned(model, tok, tmp_path / name, task)
        assert json.loads((tmp_path / name / "config.json").read_text())["architectures"] == [name]
        back = load_finetuned(tmp_path / name, task)
        assert type(back) is type(model)
        assert all(torch.equal(v, back.state_dict()[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("encoder", READ)
def test_a_pointer_takes_the_place_of_the_whole_head(encoder, made):
    "Also of ModernBERT's, which has several parts under other names; all weights that are left learn"
    from xlnb.models.heads import Pointer
    model = load_encoder(made(encoder))
    model.pointer, model.config.query_token_id = Pointer(model.config.hidden_size, seed=3), 7
    points = with_head(model, Task("s", "span"))
    assert {n for n, _ in points.named_children()} == {points.base_model_prefix, "pointer"}
    ids = torch.tensor([[5, 7, 9, 11]])
    out = points(input_ids=ids, start_positions=torch.tensor([2]), end_positions=torch.tensor([3]))
    states = body(points, input_ids=ids)[0]
    assert torch.allclose(out.start_logits[0], states @ points.pointer.start.weight @ states[1], atol=1e-6)


def test_the_head_of_mdeberta_survives_a_new_token(made, tmp_path):
    "It has BERT's names: its output embeddings are those of the words, so a part is found, a new row changes nothing"
    from transformers import AutoModelForMaskedLM
    from xlnb.data.kinds.query import add_query
    from xlnb.methods.salt.candidates import sliced_head
    from xlnb.models.heads import save_encoder
    name = made("mDeBERTa-v3")
    model, tok, theirs = load_encoder(name), load_tokenizer(name), mx.ENCODERS["mDeBERTa-v3"][0](mx.deberta_tokenizer())
    x = tok("the dog sleeps .", return_tensors="pt")
    want = theirs(**x).logits
    assert torch.allclose(model(**x).logits, want, atol=1e-6)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    states = body(model, **x)
    assert torch.allclose(sliced_head(model, [7, 9, 30])(states), want[..., [7, 9, 30]], atol=1e-6)
    add_query(tok, model)
    assert torch.allclose(masked_lm_head(model)(states)[..., :-1], want, atol=1e-6)
    save_encoder(model, tok, tmp_path / "grown")
    for load in (load_encoder, AutoModelForMaskedLM.from_pretrained):
        assert torch.equal(load(tmp_path / "grown")(**x).logits, model(**x).logits)


def test_what_a_later_method_lacks_is_said_before_an_earlier_one_trains(made, tmp_path):
    "MMKD without its token level could run on E5, SALT could not: neither does, in a cell or study; no key is written"
    from xlnb.study.cell import Cell, run_cell
    from xlnb.study.grid import Study
    from xlnb.training.stage import Budget
    recipe = mx.recipes(mx.tasks()["pair"])["mmkd(token=0)+finetune"]
    cell = Cell(mx.tasks()["pair"], made("me5-small"), recipe, 0, Budget(**mx.BUDGET), mx.LANGS)
    salt = copy.copy(cell.recipe)
    object.__setattr__(salt, "during", mx.recipes(mx.tasks()["pair"])["salt"].during)
    with mx.Watched() as seen:
        with pytest.raises(XlnbError, match="^salt: .*no masked-LM head.*neighbours"):
            run_cell(Cell(cell.task, cell.encoder, salt, 0, cell.budget, mx.LANGS), tmp_path / "cell")
        study = Study(cell.task, cell.encoder, ["finetune(steps=1)", salt], 1, cell.budget, list(mx.LANGS),
                      tmp_path / "study")
        with pytest.raises(XlnbError, match="^salt: .*no masked-LM head"): study.run(progress=False)
    assert seen.n == 0 and not study.store.files()


def test_pre_training_with_the_marks_and_embeddings_of_eurobert(made):
    "Blocks begin with its begin of text; its embeddings are no part of the layers that may be frozen"
    from xlnb.training.pretraining import _layers_of, pack
    model, tok = load_encoder(made("EuroBERT")), load_tokenizer(made("EuroBERT"))
    blocks = pack(["the dog sleeps .", "a cat"], tok, 8)
    assert (blocks[:, 0] == tok.bos_token_id).all() and (blocks == tok.eos_token_id).sum() == 2
    kept = {id(p) for p in _layers_of(model)}
    assert id(model.get_input_embeddings().weight) not in kept
    assert len(kept) == len([*model.base_model.parameters()]) - 1


def test_mt5_scores_labels_and_is_distilled(made):
    "What an encoder-decoder can do, outside of a study: ALSACE on the scores of a verbaliser"
    from xlnb.evaluation.scoring import Seq2SeqScorer, Verbaliser, load_seq2seq
    from xlnb.methods.alsace.method import ALSACE, distil
    from xlnb.training.stage import Budget, Context
    tok, model, task = load_tokenizer(made("mT5")), load_seq2seq(made("mT5")), mx.tasks()["pair"]
    verbaliser = Verbaliser("{text_a} ? {mask} , {text_b}", ("dog", "cat", "house"))
    scorer = Seq2SeqScorer(task, tok, verbaliser, max_length=96)
    ctx = Context(task, made("mT5"), tok, 0, Budget(**mx.BUDGET), langs=mx.LANGS)
    before = copy.deepcopy(model.state_dict())
    method = ALSACE(scorer=scorer, amount=10, steps=2, batch_size=4, evaluations=1, guard=None, select="last")
    done = distil(model, ctx, method)
    assert done.report.teachers and all(np.isfinite(h["loss"]) for h in done.result.history if "loss" in h)
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())

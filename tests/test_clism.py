"""CLISM + CACR: the pointer, inputs in every script, the losses and their limits, the method before fine-tuning, few examples."""
import copy, dataclasses, json, math, warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer
from transformers import (AutoConfig, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, BertTokenizerFast, TrainerCallback, XLMRobertaConfig, XLMRobertaForMaskedLM)

from toy_clism import LANGS, context, encoder
from toy_tokenizer import mirror, real_tokenizer
from xlnb.models.word_alignment import align_words
from xlnb.study.cell import Cell, run_cell
from xlnb.methods.clism.baselines import PointerHead, clism_ablations, clism_baselines, projection_table, watch_contrast
from xlnb.models.encoders import encoder_fingerprint, load_encoder, load_tokenizer
from xlnb.models.heads import POINTERS, Pointer, give_pointer, load_finetuned, pointer_logits, save_encoder, with_head
from xlnb.evaluation.predict import evaluate_model
from xlnb.data.kinds.base import featurize
from xlnb.lab.worlds import Lab
from xlnb.cli import main
from xlnb.core import XlnbError
from xlnb.methods.clism.method import CLISM
from xlnb.methods.finetune import FineTune
from xlnb.data.parallel import parallel_text
from xlnb.data.kinds.query import QUE, add_query, set_query_kinds, uses_query
from xlnb.study.recipe import METHODS, plain_recipes, recipe
from xlnb.methods.clism.losses import cacr_loss, contrast, pointer_loss
from xlnb.methods.clism.collator import SpanCollator, recurring_inputs, span_inputs
from xlnb.methods.clism.projection import lab_pairs, span_pairs
from xlnb.data.words import split_words
from xlnb.methods.clism.spans import CapitalEntities, RandomSpans, recurring_spans, span_size
from xlnb.methods.clism.objective import TERMS, SpanObjective, shortcut_table
from xlnb.study.grid import Study
from xlnb.data.tasks import get_task
from xlnb.training.schedule import Schedule
from xlnb.training.stage import Budget, Method, Stage, make_encoder, run_method, run_stage

HERE = Path(__file__).parent
PARTS = ("clism", *TERMS, "mlm")
small = lambda **options: CLISM(**dict(amount=30, batch_size=8, lr=1e-3, steps=3) | options)
same = lambda a, b: a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module", autouse=True)
def one_thread(): torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lab(): return Lab()


SENTENCES = {  # an English sentence, its translation with the positions of two names, in scripts that pieces treat differently
    "ar": ("Ana Lind saw Cairo.", "رأت آنا ليند القاهرة.", ("آنا ليند", "القاهرة")), "hi": ("Ana Lind saw Delhi.", "आना लिंड ने दिल्ली देखी।", ("आना लिंड", "दिल्ली")),
    "zh": ("Ana Lind saw Beijing.", "安娜·林德看见了北京。", ("安娜·林德", "北京")), "th": ("Ana Lind saw Bangkok.", "อานา ลินด์เห็นกรุงเทพ", ("อานา ลินด์", "กรุงเทพ")),
    "ru": ("Ana Lind saw Moscow.", "Ана Линд увидела Москву.", ("Ана Линд", "Москву")), "el": ("Ana Lind saw Athens.", "Η Άνα Λιντ είδε την Αθήνα.", ("Άνα Λιντ", "Αθήνα")),
    "de": ("Ana Lind saw Cologne.", "Ana Lind sah Köln.", ("Ana Lind", "Köln")), "vi": ("Ana Lind saw Hanoi.", "Ana Lind đã thấy Hà Nội.", ("Ana Lind", "Hà Nội")), "ur": ("Ana Lind saw Lahore.", "آنا لِنڈ نے لاہور دیکھا۔", ("آنا لِنڈ", "لاہور"))}


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory, lab):
    "A folder with a BERT-type encoder that knows some letters of every script"
    texts = [t for s in SENTENCES.values() for t in s[:2]] * 4 + [t for l in LANGS for t in lab.corpus(l, 60)]
    made = BertWordPieceTokenizer(lowercase=False, strip_accents=False)
    made.train_from_iterator(texts, vocab_size=900, min_frequency=1, show_progress=False)
    folder = tmp_path_factory.mktemp("bert")
    made.save_model(str(folder))
    tok = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False, strip_accents=False, model_max_length=128)
    torch.manual_seed(0)
    BertForMaskedLM(BertConfig(vocab_size=len(tok), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=128, hidden_dropout_prob=0.0,
                               attention_probs_dropout_prob=0.0)).save_pretrained(folder)
    tok.save_pretrained(folder)
    return str(folder)


def tokenizer_of(name, wordpiece): return load_tokenizer("lab") if name == "lab" else load_tokenizer(wordpiece) if name == "wordpiece" else copy.deepcopy(real_tokenizer())


# --- inputs -----------------------------------------------------------------------------------------------------------
def characters(tok, spans, f, s, e):
    "The characters of the translation of tokens s to e"
    text = spans[f["row"]]["target"]
    offs = tok(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return text[offs[s - f["target"][0]][0]:offs[e - f["target"][0]][1]].strip()


@pytest.mark.parametrize("name", ["lab", pytest.param("real", marks=mirror), "wordpiece"])
def test_gold_positions_survive_tokenization_in_every_script(name, wordpiece, lab):
    tok = tokenizer_of(name, wordpiece)
    q, checked = add_query(tok), 0
    rows = []
    for code, (source, target, answers) in SENTENCES.items():
        sw, tw = split_words(source), split_words(target)
        words = lambda part: [k for k, (a, b) in enumerate(tw) if a < target.index(part) + len(part) and b > target.index(part)]
        aligned = [[i, j] for i in (0, 1) for j in words(answers[0])] + [[3, j] for j in words(answers[1])]
        rows.append(dict(id=code, source=source, target=target, source_words=[list(w) for w in sw], target_words=[list(w) for w in tw], alignments=aligned,
                         entities=[dict(start=0, end=8, label="PER"), dict(start=13, end=len(source) - 1, label="LOC")]))
    sets = [(Dataset.from_list(rows), 60)] + [(lab_pairs(lab, l, 30), 40) for l in lab.langs[1:]]
    for pairs, most in sets:
        spans = span_pairs(pairs, tok, most=most)
        for f in span_inputs(spans, tok, 512):
            asked = spans[f["row"]]["questions"]
            assert len(f["queries"]) == len(asked) and [f["input_ids"][p] for p in f["queries"]] == [q] * len(asked)
            for s, e, question in zip(f["starts"], f["ends"], asked):
                got = characters(tok, spans, f, s, e)
                assert question["answer"] in got and len(got) <= len(question["answer"]) + (name == "real") * 3, (got, question["answer"])  # a piece may hold a neighbour's mark
                checked += 1
    assert checked > 200
    first = {s["id"]: [k["answer"] for k in s["questions"]] for s in span_pairs(sets[0][0], tok, most=60)}
    assert sum(len(v) for v in first.values()) >= 14, "most names of every script are asked for"


def test_queries_side_by_side_ask_each_for_its_own():
    "Three queries in a row: the head reads three states"
    tok, model = load_tokenizer("lab"), encoder()
    q = add_query(tok, model); give_pointer(model, tok)
    source, target = "Ana Lind Oslo sings", "Oslo Ana Lind canta"
    row = dict(id="1", source=source, target=target, source_words=[list(o) for o in split_words(source)], target_words=[list(o) for o in split_words(target)], alignments=[[0, 1], [1, 2], [2, 0]],
               entities=[dict(start=source.index(e), end=source.index(e) + len(e), label="X") for e in ("Ana", "Lind", "Oslo")])
    spans = span_pairs(Dataset.from_list([row]), tok)
    assert spans[0]["masked"] == "[QUE] [QUE] [QUE] sings"
    f, = span_inputs(spans, tok)
    assert [characters(tok, spans, f, s, e) for s, e in zip(f["starts"], f["ends"])] == ["Ana", "Lind", "Oslo"]
    batch = SpanCollator(tok, mask=0)([f])
    assert batch["rows"].tolist() == [0, 0, 0] and batch["pair_input_ids"][0, batch["positions"]].tolist() == [q] * 3
    h = model.base_model(input_ids=batch["pair_input_ids"]).last_hidden_state
    start, _ = model.pointer(h, batch["rows"], batch["positions"], batch["pair_attention_mask"])
    assert len({tuple(r.tolist()) for r in start}) == 3


@settings(max_examples=25, deadline=None)
@given(st.integers(10, 60), st.integers(0, 40))
def test_what_is_cut_is_not_asked(length, first):
    tok = load_tokenizer("lab")
    add_query(tok)
    spans = _spans(tok).select(range(first, first + 12))
    rows = span_inputs(spans, tok, length, empty=True)
    batch = SpanCollator(tok)(rows)
    lens = batch["pair_attention_mask"].sum(1)
    assert lens.max() <= length and len(batch["rows"]) == sum(len(r["queries"]) for r in rows)
    assert (batch["ends"] < lens[batch["rows"]] - 1).all() and (batch["starts"] <= batch["ends"]).all() and (batch["positions"] < batch["starts"]).all()
    for r, s, e in zip(*(batch[k].tolist() for k in ("rows", "starts", "ends"))): assert batch["target_mask"][r, s:e + 1].all()
    with torch.no_grad(): assert all(torch.isfinite(v) for v in SpanObjective(Pointer(32))(_encoder(), batch)[1].values())


_made = {}
def _spans(tok): return _made.setdefault("spans", span_pairs(lab_pairs(Lab(), "qcy", 60), tok))
def _encoder():
    if "model" not in _made: _made["model"] = encoder(); add_query(load_tokenizer("lab"), _made["model"])
    return _made["model"]


def test_recurring_spans_from_their_definition(lab):
    tok = load_tokenizer("lab")
    add_query(tok)
    texts = lab.corpus("en", 60)
    found = recurring_spans(texts, tok, questions=4)
    assert recurring_spans(texts, tok, questions=4) == found != recurring_spans(texts, tok, questions=4, seed=1)
    for text, p in zip(texts, found):
        parts = p["masked"].split(QUE)
        assert len(parts) - 1 == len(p["answers"]) <= 4
        back = parts[0]
        for (a, b), rest in zip(p["answers"], parts[1:]): back += p["masked"][a:b] + rest
        assert back == text, "each query's answer is what it replaced"
    assert sum(len(p["answers"]) for p in found) > 60
    assert not any(r["answers"] for r in recurring_spans(["no word twice here", f"a {QUE} a {QUE} b b"], tok))


def test_recurring_spans_do_not_overlap():
    tok = load_tokenizer("lab")
    add_query(tok)
    found, = recurring_spans(["ra ra ra ra ra ra"], tok, most=30)
    whole = ["ra ra ra"]
    parts = [p.strip() for p in found["masked"].split(QUE)]
    assert [p for p in parts if p] == whole and [found["masked"][a:b] for a, b in found["answers"]] == whole
    found, = recurring_spans(["ra ra"], tok)
    assert sorted(found["masked"].split()) == sorted([QUE, "ra"])
    found, = recurring_spans(["xo ra ra ra ra"], tok, most=30)
    assert found["masked"].count(QUE) == 1 and found["masked"].split().count("ra") == 2
    assert [found["masked"][a:b] for a, b in found["answers"]] == ["ra ra"]


def test_names_in_a_row_are_one_entity():
    "With linking words between them, two at most; a comma ends one, and a number stands by itself"
    find = CapitalEntities([])
    find.names = {"Kofi", "Annan", "Bank", "Delft"}
    for text, wanted in {
            "saw Kofi Annan, Delft and 12 others": ["Kofi Annan", "Delft", "12"], "Bank of the Delft": ["Bank of the Delft"], "Bank of the la Delft": ["Bank", "Delft"],
            "Kofi of": ["Kofi"], "Kofi of the men": ["Kofi"], "12 Kofi 13": ["12", "Kofi", "13"], "Kofi  Annan": ["Kofi", "Annan"], "of Kofi Annan Bank Delft": ["Kofi Annan Bank Delft"]}.items():
        found, = find([text])
        assert [text[a:b] for a, b, _ in found] == wanted and [k for *_, k in found] == ["NUMBER" if w.isdigit() else "NAME" for w in wanted]


def test_drawn_spans_by_their_numbers():
    "As many as asked on average, as long, none over another, none longer than allowed"
    texts = [" ".join(f"word{k}x{n}" for k in range(40)) for n in range(400)]
    for per_text, more, most in ((1.25, .5, 3), (2., 0., 5), (3., .9, 4)):
        drawn = RandomSpans(per_text, more, most)(texts)
        words = [[len(t[a:b].split()) for a, b, _ in spans] for t, spans in zip(texts, drawn)]
        assert {*map(len, words)} == {int(per_text), -int(-per_text // 1)}
        assert np.mean([*map(len, words)]) == pytest.approx(per_text, abs=.06)
        length = sum(more**k for k in range(most))
        assert np.mean(sum(words, [])) == pytest.approx(length, abs=.12 * length) and max(sum(words, [])) == (most if more else 1)
        for spans in drawn: assert all(b <= c for (_, b, _), (c, _, _) in zip(spans, spans[1:]))
    for (a, b), n in {(0, 4): 2, (0, 2): 1, (1, 3): 2, (2, 3): 1, (4, 5): 0}.items():    # tokens without characters do not count
        assert span_size([(0, 0), (0, 2), (2, 2), (2, 4), (4, 4)], a, b) == n
    for wrong in (dict(per_text=.9), dict(more=1.), dict(more=-.1), dict(most=0)):
        with pytest.raises(XlnbError, match="at least 1"): RandomSpans(**wrong)


def test_question_and_tags_of_switched_rows_stay_in_step():
    "SALT's map of characters to places counts the [QUE] behind a question"
    tok = load_tokenizer("lab")
    add_query(tok)
    set_query_kinds(tok, ["span", "tags"])
    task = get_task("lab-spans")
    rows = task.load("en", "validation", limit=20)
    for f, r, (where,) in zip(featurize(task, rows, tok, 256), rows, task.kind.token_map(task, list(rows), tok, 256)):
        assert [list(o[1:]) for o in where["context"]] == [list(f["offsets"][o[0]]) for o in where["context"]]


# --- head and losses --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", POINTERS)
def test_pointer_gradients(kind):
    torch.manual_seed(0)
    head = Pointer(6, kind).double()
    states, mask, rows, places = torch.randn(2, 5, 6, dtype=torch.double, requires_grad=True), torch.tensor([[1] * 5, [1, 1, 1, 0, 0]]), torch.tensor([0, 0, 1]), torch.tensor([1, 3, 0])
    loss = lambda h: pointer_loss(*head(h, rows, places, mask), torch.tensor([1, 3, 0]), torch.tensor([2, 3, 2]))
    assert torch.autograd.gradcheck(loss, (states,))
    loss(states).backward()
    assert states.grad[1, 3:].abs().max() == 0, "padding teaches nothing"
    assert all(p.grad is not None for p in head.parameters())


def test_loss_limits():
    "Nothing known costs the logarithm of the choices, all known nothing, the temperature to the letter has next to no effect"
    flat = pointer_logits(torch.zeros(3, 4), torch.randn(2, 7, 4), torch.tensor([0, 1, 1]), torch.tensor([[1] * 7, [1] * 4 + [0] * 3]))
    at = torch.tensor([0, 1, 2])
    assert pointer_loss(flat, flat, at, at).item() == pytest.approx(2 * (math.log(7) + 2 * math.log(4)) / 3, abs=1e-5)
    sure = torch.full((3, 7), -60.0).scatter(1, at[:, None], 60.0)
    assert pointer_loss(sure, sure, at, at).item() == 0
    eye = torch.eye(64)
    total, terms = cacr_loss(eye, eye, eye)
    assert total.item() < 1e-5 and set(terms) == set(TERMS)
    assert contrast(eye, eye, 1 / 20).item() == pytest.approx(4.110, abs=2e-3) and math.log(64) == pytest.approx(4.159, abs=1e-3)  # the two numbers of the argument about the temperature
    same_ = torch.ones(5, 3)
    assert cacr_loss(same_, same_, same_)[0].item() == pytest.approx(3 * math.log(5), abs=1e-5)


def test_gradient_of_the_whole_objective_in_double():
    tok, model = load_tokenizer("lab"), encoder(size=8)
    add_query(tok, model)
    model, objective = model.double(), SpanObjective(Pointer(8, "qass").double())
    spans = _spans(load_tokenizer("lab")).select(range(6))
    torch.manual_seed(0)
    batch = SpanCollator(tok)(span_inputs(spans, tok))
    w = model.base_model.encoder.layer[0].output.dense.weight
    loss = objective(model, batch)[0]
    (g,) = torch.autograd.grad(loss, w)
    d, eps = torch.randn_like(w), 1e-6
    with torch.no_grad():
        w += eps * d; up = objective(model, batch)[0]; w -= 2 * eps * d; down = objective(model, batch)[0]; w += eps * d
    assert ((up - down) / (2 * eps)).item() == pytest.approx((g * d).sum().item(), rel=1e-4)


# --- the method -------------------------------------------------------------------------------------------------------
def test_registered_and_spelled():
    assert isinstance(CLISM(), Method) and METHODS["clism"]
    r = recipe("clism(amount=500,scale=0.05,terms=('target-plain',),without=('qal',))+finetune")
    assert recipe(str(r)) == r and r.before == (CLISM(amount=500, scale=0.05, terms=("target-plain",), without=("qal",)),)
    assert recipe("clism+finetune") in plain_recipes()
    with pytest.raises(XlnbError, match="is unknown"): recipe("clism(head=bilinear)+finetune")
    with pytest.raises(XlnbError, match="cacr=0"): recipe("clism(spans=recurring)+finetune")


@pytest.mark.parametrize("options", [dict(gather=True), dict(accumulate=2), dict(empty=True), dict(longest=2), dict(mask=0.3), dict(langs=("qge",)), dict(head="qass", query_kinds=("span", "tags")), dict(max_length=24),
                                     dict(steps=2)], ids=str)
def test_every_option_trains(options):
    (result,) = run_method(small(**options), encoder(), context())
    assert result.steps == options.get("steps", 3) and np.isfinite([h["loss"] for h in result.history]).all() and {*PARTS} <= result.history[0].keys()


# --- frozen embeddings ------------------------------------------------------------------------------------------------
def moved_rows(model, before):
    "Rows of the embeddings that are not equal to the bit"
    after = model.get_input_embeddings().weight
    return (after.detach().view(torch.int32) != before.view(torch.int32)).any(1).nonzero().flatten().tolist()


def embeddings(model): return model.get_input_embeddings().weight.detach().clone()


@pytest.mark.parametrize("options", [dict(), dict(accumulate=2), dict(mlm=0.0)], ids=str)
@pytest.mark.parametrize("frozen", ["embeddings", 1])
def test_the_row_of_the_query_trains_where_embeddings_are_frozen(frozen, options):
    "Before fine-tuning, with an output layer that shares the weights; all older rows stay to the bit, despite weight decay"
    model, ctx = encoder(), context()
    add_query(ctx.tokenizer, model)
    before = embeddings(model)
    run_method(small(frozen=frozen, weight_decay=0.1, **options), model, ctx)
    assert moved_rows(model, before) == [ctx.tokenizer.convert_tokens_to_ids(QUE)]
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert all(p.requires_grad for p in model.parameters())
    before = embeddings(model)  # nothing is left behind
    run_method(small(), model, ctx)
    assert len(moved_rows(model, before)) > 10


@pytest.mark.parametrize("name", ["lab-spans", "lab-tags"])
def test_the_row_of_the_query_trains_in_fine_tuning(name):
    task = get_task(name)
    model, ctx = encoder(), context(task=task)
    PointerHead(query_kinds=("span", "tags")).prepare(model, ctx)
    tuned = with_head(model, task)
    before = embeddings(tuned)
    run_method(FineTune(steps=3, frozen=1, select="last", lr=1e-3), tuned, dataclasses.replace(ctx, budget=Budget(train_examples=16)))
    assert moved_rows(tuned, before) == [ctx.tokenizer.convert_tokens_to_ids(QUE)]


def test_a_resumed_run_with_frozen_embeddings_ends_as_an_uninterrupted_one(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4: raise KeyboardInterrupt
    ends = []
    for out, runs in ((tmp_path / "whole", [[]]), (tmp_path / "cut", [[Stop()], []])):
        for callbacks in runs:
            model, ctx = encoder(), context()
            add_query(ctx.tokenizer, model)
            before = embeddings(model)
            stage = next(small(steps=6, frozen="embeddings", weight_decay=0.1).stages(model, ctx))
            stage.args["save_steps"] = 3
            try: run_stage(stage, model, out, callbacks=callbacks)
            except KeyboardInterrupt: assert list(out.glob("checkpoint-3"))
        assert moved_rows(model, before) == [ctx.tokenizer.convert_tokens_to_ids(QUE)]
        ends.append(model.state_dict())
    assert same(*ends)


ARCHITECTURES = dict(bert={}, roberta={}, albert=dict(embedding_size=16), distilbert={}, electra=dict(embedding_size=16), modernbert=dict(num_hidden_layers=2), **{"deberta-v2": dict(relative_attention=True, pos_att_type=["p2c"])})


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("tied", [True, False])
def test_only_the_new_row_trains_in_every_architecture(kind, tied):
    tok = load_tokenizer("lab")
    sizes = dict(vocab_size=len(tok) + 3, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=130, pad_token_id=1)
    config = AutoConfig.for_model(kind, **sizes | ARCHITECTURES[kind], tie_word_embeddings=tied)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager")
    q = add_query(tok, model)
    before = embeddings(model)
    ids = [*tok("Ana sings")["input_ids"], q]
    row = dict(input_ids=ids, attention_mask=[1] * len(ids))
    data = [row | dict(labels=row["input_ids"])] * 8
    collate = lambda rows: {k: torch.tensor([r[k] for r in rows]) for k in rows[0]}
    run_stage(Stage("toy", data, collate, schedule=Schedule(lr=1e-2, steps=3, batch_size=4, weight_decay=0.1, frozen="embeddings")), model)
    assert moved_rows(model, before) == [q]


def test_all_parts_are_learnt():
    (result,) = run_method(small(lr=3e-3, steps=None, epochs=15, batch_size=16), encoder(), context(budget=Budget(max_length=64)))
    first, last = ({k: np.mean([h[k] for h in rows]) for k in PARTS} for rows in (result.history[:4], result.history[-4:]))
    assert all(last[k] < first[k] for k in PARTS), (first, last)
    assert result.history[0]["loss"] == pytest.approx(sum(result.history[0][k] for k in PARTS), abs=1e-3)


def test_same_seed_same_encoder():
    ends = []
    for seed in (0, 0, 1):
        model = encoder(0.1)
        run_method(small(), model, context(seed=seed))
        ends.append(model.state_dict())
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


def test_resumed_run_ends_as_an_uninterrupted_one(tmp_path):
    "The pointer is part of the checkpoint"
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4: raise KeyboardInterrupt
    ends = []
    for out, runs in ((tmp_path / "whole", [[]]), (tmp_path / "cut", [[Stop()], []])):
        for callbacks in runs:
            model = encoder()
            stages = small(steps=6).stages(model, context(budget=Budget(max_length=64)))
            stage = next(stages)
            stage.args["save_steps"] = 3
            try: run_stage(stage, model, out, callbacks=callbacks)
            except KeyboardInterrupt: assert list(out.glob("checkpoint-3"))
            stages.close()
            assert type(model) is XLMRobertaForMaskedLM and "forward" not in vars(model)
        ends.append(model.state_dict())
    assert same(*ends) and any(k.startswith("pointer.") for k in ends[0])


def test_a_finished_run_is_read_back(tmp_path):
    ends = []
    for _ in range(2):
        model = encoder()
        (result,) = run_method(small(), model, context(out=tmp_path))
        ends.append((model.state_dict(), result.history))
    assert same(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]


@pytest.mark.parametrize("kind", ["lab", "wordpiece"])
def test_the_checkpoint_is_one_of_plain_transformers(kind, wordpiece, tmp_path):
    "Same outputs, same tokens, whatever the type of encoder; our loader gives the pointer back too"
    name = dict(lab="lab", wordpiece=wordpiece)[kind]
    folder, result = make_encoder(name, small(steps=2), tmp_path, langs=("qal", "qge"))
    plain, tok, own = AutoModelForMaskedLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), load_encoder(folder)
    x = tok(f"Ana {QUE} sings", "Ana canta", return_tensors="pt")
    assert torch.equal(plain.eval()(**x).logits, own(**x).logits) and plain.config.vocab_size == len(tok) == own.get_input_embeddings().num_embeddings
    assert (x["input_ids"] == tok.convert_tokens_to_ids(QUE)).sum() == 1 and not hasattr(plain, "pointer") and own.pointer.kind == "linear"
    model, task = with_head(folder, get_task("lab-spans")), get_task("lab-spans")
    assert same(model.pointer.state_dict(), own.pointer.state_dict()) and uses_query(load_tokenizer(folder), "span")
    items = evaluate_model(task, model, load_tokenizer(folder), ("qal",), budget=Budget(eval_examples=10))
    assert len(items) == 10 and encoder_fingerprint(folder) != encoder_fingerprint(name)
    again, _ = make_encoder(folder, small(steps=1), tmp_path / "more", langs=("qal",))  # goes on from there
    assert len(load_tokenizer(again)) == len(tok) and not same(load_encoder(again).pointer.state_dict(), Pointer(model.config.hidden_size).state_dict())


@pytest.mark.parametrize("kind", ["span", "tags", "pair", "choice", "cloze"])
def test_every_kind_of_task_takes_the_encoder(kind, tmp_path):
    task = next(get_task(t) for t in ("lab-spans", "lab-tags", "lab-inference", "lab-choice", "lab-probe") if str(get_task(t).kind) == kind)
    model, ctx = encoder(), context(task=task)
    run_method(small(query_kinds=("span", "tags")), model, ctx)
    tuned = with_head(model, task)
    run_method(FineTune(steps=2), tuned, dataclasses.replace(ctx, budget=Budget(train_examples=16, eval_examples=10)))
    assert len(evaluate_model(task, tuned, ctx.tokenizer, ("en", "qal"), budget=Budget(eval_examples=10))) == 20


@pytest.mark.parametrize("name", ["lab-spans", "lab-tags"])
def test_a_fine_tuned_model_is_read_back(name, tmp_path):
    "It answers the same, by its pointer where it has one, and can be trained on"
    task, budget = get_task(name), Budget(train_examples=16, eval_examples=10)
    model, ctx = encoder(), context(task=task)
    run_method(small(query_kinds=("span", "tags")), model, ctx)
    tuned = with_head(model, task)
    run_method(FineTune(steps=2), tuned, dataclasses.replace(ctx, budget=budget))
    back = load_finetuned(save_encoder(tuned, ctx.tokenizer, tmp_path / "tuned"), task)
    assert type(back) is type(tuned) and same(tuned.state_dict(), back.state_dict()) and hasattr(back, "pointer") == task.kind.finds_span
    tok = load_tokenizer(tmp_path / "tuned")
    one, two = (evaluate_model(task, m, t, ("en", "qal"), budget=budget) for m, t in ((tuned, ctx.tokenizer), (back, tok)))
    assert one.equals(two)
    run_method(FineTune(select="last", steps=2), back, dataclasses.replace(ctx, tokenizer=tok, budget=budget))
    assert not same(tuned.state_dict(), back.state_dict())


@pytest.mark.parametrize("with_", ["mmkd(amount=20,batch_size=8,teacher='student',steps=2)+clism(amount=20,batch_size=8,steps=2)+finetune", "clism(amount=20,batch_size=8,steps=2)+mmkd(amount=20,batch_size=8,teacher='student',steps=2)+finetune",
                                   "clism(amount=20,batch_size=8,steps=2)+salt", "clism(amount=20,batch_size=8,steps=2)+salt(mixup=hard)"])
def test_other_methods_beside_it(with_, tmp_path):
    cell = Cell(get_task("lab-spans"), "lab", recipe(with_), 0, Budget(train_examples=24, eval_examples=10), ("en", "qal"))
    items, info = run_cell(cell, tmp_path)
    assert len(items) == 20 and len(info["stages"]) == len(cell.recipe.methods)


def test_cells_share_the_encoder(tmp_path, monkeypatch):
    "Two tasks, one pre-training; and the second cell is what it would be alone"
    runs, start = [], CLISM.stages
    monkeypatch.setattr(CLISM, "stages", lambda self, model, ctx: runs.append(ctx.task.name) or start(self, model, ctx))
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path / "one"))
    kw = dict(encoders="lab", recipes="clism(amount=20,batch_size=8,steps=2)+finetune", seeds=1, budget=Budget(train_examples=16, eval_examples=10), langs=["qal"])
    both = Study(["lab-spans", "lab-tags"], store=tmp_path / "both", **kw).run(progress=False)
    assert both.failed == {} and runs == ["lab-spans"]
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path / "another"))
    alone = Study("lab-tags", store=tmp_path / "alone", **kw).run(progress=False)
    assert runs == ["lab-spans", "lab-tags"]
    assert both.items()[both.items().task == "lab-tags"].prediction.tolist() == alone.items().prediction.tolist()
    assert max(p.stat().st_size for p in both.store.files()) < 200_000, "a fingerprint is no copy of the text"


def test_the_key_knows_text_and_options(tmp_path):
    rows = [dict(id=i, lang=l, text=f"{t} {i}") for i in range(8) for l, t in (("en", "Ana sings"), ("qal", "ba da"))]
    cell = lambda **kw: Cell(get_task("lab-spans"), "lab", recipe([CLISM(**kw), FineTune()]), 0, Budget(train_examples=8, eval_examples=8), ("en", "qal")).key()
    text, other = parallel_text(rows, "sib200"), parallel_text(rows[:-2], "sib200")
    keys = [cell(amount=20), cell(amount=21), cell(amount=20, scale=0.05), cell(amount=20, alignments="counts"), cell(amount=20, alignments="lab"), cell(text=text, entities="capitals"), cell(text=other, entities="capitals")]
    assert len({*keys}) == len(keys) and keys[0] == cell(amount=20)


def test_command_line(tmp_path):
    argv = ["run", "--task", "lab-spans", "--encoder", "lab", "--recipe", "clism(amount=20,batch_size=8,steps=2)+finetune", "--langs", "qal", "--train-examples", "16", "--eval-examples", "10",
            "--steps", "2", "--seeds", "1", "--out", str(tmp_path / "out"), "--quiet"]
    with warnings.catch_warnings(): assert main(argv) == 0
    assert len(list((tmp_path / "out").glob("*.parquet"))) == 1


def test_passages_are_sentences_as_they_follow_each_other():
    "So that what recurs is what a text speaks of"
    said = [f"Sentence {i} is about Ana." for i in range(40)]
    text = parallel_text([dict(id=str(i), lang=l, text=s) for i, s in enumerate(said) for l in ("en", "qal")], "sib200")
    method, ctx = CLISM(text=text, spans="recurring", cacr=0.0, amount=30), context(langs=("en", "qal"))
    found = " ".join(method.passages(ctx, 64))
    at = [found.find(s) for s in said]
    assert sum(k >= 0 for k in at) == 30 and (drawn := [k for k in at if k >= 0]) == sorted(drawn)
    model = encoder()
    method.prepare(model, ctx)
    assert any(r["queries"] for r in method.inputs(model, ctx))


# --- controls and few examples ----------------------------------------------------------------------------------------
def test_baselines_have_one_head():
    "From the plain encoder to CLISM + CACR: the same pointer, as many steps"
    arms = clism_baselines(small(head="qass"))
    assert [*arms] == ["plain encoder with pointer", "MLM only", "random spans", "recurring spans", "CLISM", "CLISM + CACR"]
    assert {m.head for m in arms.values()} == {"qass"} and {m.query_kinds for m in arms.values()} == {("span",)}
    assert {m.steps for m in arms.values() if isinstance(m, CLISM)} == {3} and not [*PointerHead().stages(encoder(), context())]
    cell = Cell(get_task("lab-spans"), "lab", recipe("pointer+finetune(steps=1)"), 0, Budget(train_examples=4, eval_examples=4), ("en", "qal"))
    assert recipe("pointer+finetune") not in plain_recipes() and cell.recipe.before == (PointerHead(),)


def test_controls_differ_in_what_they_say():
    controls = clism_ablations(held_out=("qal",))
    assert len({*controls.values()}) == len(controls) and "MLM only" in controls
    assert all(m.cacr == 0 for m in controls.values() if m.spans == "recurring")
    assert {k: v for k, v in clism_ablations(CLISM(head="qass")).items()}.keys() == controls.keys() - {"head of Splinter", "no text in qal"}


def test_random_spans_are_projected_as_entities_are(lab):
    tok = load_tokenizer("lab")
    pairs = lab_pairs(lab, "qal", 80)
    spans = span_pairs(pairs, tok, find=RandomSpans())
    assert 40 < sum(map(len, spans["questions"])) and {q["label"] for r in spans["questions"] for q in r} == {"RANDOM"}
    table = projection_table({"random": CLISM(amount=80, spans="random"), "counts": CLISM(amount=80, alignments="counts")}, context(langs=("en", "qal")))
    assert table.answers[0] == 1 and 0 < table.answers[1] < 1 and table.precision[0] < 1


def test_the_shortcut_shows():
    "Trained on the term of one pass alone, that term falls; encoded apart it is another matter"
    table, histories = watch_contrast(encoder(), context(budget=Budget(max_length=64)), {"joint": small(amount=60, steps=30, clism=0.0, mlm=0.0, terms=TERMS[:1], batch_size=16)}, held=32)
    assert table.loc["joint", ("loss", "one pass")] < table.loc["before", ("loss", "one pass")]
    assert table.loc["joint", ("loss", "one pass")] < table.loc["joint", ("loss", "apart")]
    assert {*histories["joint"][0]} & {*PARTS} == {TERMS[0]}


# --- what decides a result, and what an encoder can read --------------------------------------------------------------
@pytest.mark.parametrize("options", [dict(), dict(spans="recurring", cacr=0.0)], ids=["pairs", "passages"])
def test_inputs_are_no_longer_than_the_encoder_reads(options):
    "Positions of the encoder count, where its tokenizer names no limit"
    torch.manual_seed(0)
    ctx = context()
    ctx.tokenizer.model_max_length = int(1e30)
    model = XLMRobertaForMaskedLM(XLMRobertaConfig(vocab_size=len(ctx.tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=22, pad_token_id=1))
    (result,) = run_method(small(**options), model, ctx)
    assert result.steps and np.isfinite([h["loss"] for h in result.history]).all()


def test_equal_sentences_are_no_negatives():
    "An English sentence that is paired with two languages is twice in the batch, and is not contrasted with itself"
    masked, target, plain = torch.randn(3, 4, 8, dtype=torch.double)
    same = torch.tensor([[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    def slow(anchor, positive):
        cos, total = torch.cosine_similarity(anchor[:, None], positive[None], dim=-1), 0.0
        for i in range(4): total -= math.log(math.exp(20 * cos[i, i]) / sum(math.exp(20 * cos[i, j]) for j in range(4) if j == i or not same[i, j]))
        return total / 4
    assert contrast(target, masked, same=same).item() == pytest.approx(slow(target, masked), abs=1e-9)
    assert cacr_loss(masked, target, plain, same=same)[0].item() == pytest.approx(slow(target, masked) + slow(plain, masked) + slow(target, plain), abs=1e-9)
    tok, model = load_tokenizer("lab"), encoder()
    add_query(tok, model)
    rows = [span_inputs(span_pairs(lab_pairs(Lab(), lang, 8), tok), tok, empty=True)[0] for lang in ("qal", "qge")]
    with torch.no_grad(): parts = SpanObjective(Pointer(32), dict.fromkeys(TERMS, 1.0))(model, SpanCollator(tok, mask=0)(rows))[1]
    assert [v.item() for v in parts.values()] == [0.0] * 3, "the same English sentence twice: there is no negative"


def test_the_key_knows_the_text_of_the_laboratory(monkeypatch):
    "Passages in which spans recur are text like any other"
    key = lambda: Cell(get_task("lab-spans"), "lab", recipe([CLISM(spans="recurring", cacr=0.0, amount=20), FineTune()]), 0, Budget(train_examples=8, eval_examples=8), ("en", "qal")).key()
    before, corpus = key(), Lab.corpus
    assert key() == before
    monkeypatch.setattr(Lab, "corpus", lambda self, *args: [t + "." for t in corpus(self, *args)])
    assert key() != before


@pytest.mark.parametrize("lang,text", [("zh", "张伟住在北京。李娜也住在北京，她认识张伟。"), ("th", "สมชายอยู่กรุงเทพ มาลีไปกรุงเทพกับสมชาย"), ("ja", "田中は東京に住む。山田も東京で田中に会う。"), ("km", "សុខារស់នៅភ្នំពេញ ចាន់ទៅភ្នំពេញជាមួយសុខា")])
def test_spans_of_text_that_is_written_without_spaces(lang, text):
    "Random and recurring spans are made of words, not of whole clauses"
    tok = load_tokenizer("lab")
    add_query(tok)
    spans = [text[a:b] for a, b, _ in RandomSpans(per_text=4)([text])[0]]
    assert len(spans) >= 3 and max(map(len, spans)) <= 10, spans
    (found,) = recurring_spans([text], Characters(), most=10)
    assert found["answers"] and {found["masked"][a:b] for a, b in found["answers"]} & {"北京", "张伟", "กรุงเทพ", "สมชาย", "東京", "田中", "ភ្នំពេញ", "សុខា"}, found


class Characters:
    "Every character is a token"
    def __call__(self, texts, **_): return dict(offset_mapping=[[(i, i + 1) for i in range(len(t))] for t in ([texts] if isinstance(texts, str) else texts)])


def test_the_budget_cuts_no_pre_training(tmp_path):
    "Few labels, few steps of fine-tuning: the spans get all their steps"
    cell = Cell(get_task("lab-spans"), "lab", recipe([small(steps=None), FineTune(steps=1)]), 0, Budget(train_examples=4, eval_examples=4, max_length=64), ("en", "qal"))
    _, info = run_cell(cell, tmp_path)
    assert [s["steps"] for s in info["stages"]] == [4, 1]

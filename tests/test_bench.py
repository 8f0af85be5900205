"What `make bench` does, at a tiny size: both sides compute the same, ratios come out, what is stored stays"

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))
from bench import command, loops, measure  # noqa: E402
from bench.comparisons import COMPARISONS, SIZES, TINY, Comparison, Sides, get_comparison  # noqa: E402
from bench.growth import AXES  # noqa: E402
from bench.limits import LIMITS  # noqa: E402
from xlnb.core import XlnbError  # noqa: E402

WHOLE = os.environ.get("XLNB_SLOW") == "1"


@pytest.fixture(autouse=True)
def alone(one_thread):
    pass


@pytest.mark.parametrize("name", COMPARISONS)
def test_both_sides_compute_the_same(name, tmp_path):
    "Losses, gradients, candidates, answers or weights; the sentence says which"
    said = COMPARISONS[name].make(TINY, "lab", tmp_path).same()
    what = (
        "losses of all steps",
        "same words in the same order",
        "batches of 24 inputs",
        "gradients in double",
        "losses of all four levels",
        "loss of a batch",
        "inputs with their questions",
        "answers",
        "all weights",
        "cells, of which",
    )
    assert sum(w in said for w in what) == 1, said


def test_a_table_of_ratios_comes_out(tmp_path, capsys):
    names = ["alsace-pairs", "clism-data", "store"]
    stored = command.Stored(tmp_path / "new" / "speed.json")
    assert command.run(command.plan(False, names), stored, threads=1, tiny=True) == []
    found = json.loads(stored.path.read_text())["comparisons"]["lab"]
    assert list(found) == names
    for r in found.values():
        assert len(r["ratios"]) == len(r["rounds"]) == TINY.pairs and r["min"] <= r["median"] <= r["max"]
        assert {"processor", "cores", "threads"} <= {*r["made"]["machine"]} and {"date", "commit", "versions"} <= {
            *r["made"]
        }
        assert r["checked"] and r["took"] > 0
    (one,) = found["alsace-pairs"]["rounds"]
    assert found["alsace-pairs"]["ratios"] == [pytest.approx(one["seconds"]["other"] / one["seconds"]["here"])]
    assert found["store"]["ratios"] == [r["seconds"]["here"] for r in found["store"]["rounds"]]
    assert "wanted at least 50" in capsys.readouterr().out

    before = stored.path.read_text()  # a second run measures nothing, unless it is asked to
    assert command.run(command.plan(False, names), command.Stored(stored.path), threads=1, tiny=True) == []
    assert stored.path.read_text() == before and capsys.readouterr().out.count("stored already") == 3
    command.run(command.plan(False, ["store"]), again := command.Stored(stored.path), threads=1, tiny=True, again=True)
    assert again.found["comparisons"]["lab"]["store"]["took"] != found["store"]["took"]
    assert again.found["comparisons"]["lab"]["clism-data"] == found["clism-data"]


def test_what_was_measured_survives_an_interrupt(tmp_path, monkeypatch, capsys):
    def measured(part, encoder, name, *rest):
        if name == "finetune-grouped":
            raise KeyboardInterrupt
        if name == "finetune-random":
            raise RuntimeError("no memory")
        return dict(
            ratio="seconds", target=None, met=None, min=1.0, median=1.0, max=1.0, others=0.5, size=command.mark(TINY, 1)
        )

    monkeypatch.setattr(command, "measured", measured)
    file = tmp_path / "speed.json"
    ask = ["--tiny", "--threads", "1", "--out", str(file)]
    monkeypatch.setattr(command, "quiet", lambda: None)
    assert command.main(ask) == 130
    assert [*json.loads(file.read_text())["comparisons"]["lab"]] == ["finetune-padding"]
    assert "is not measured again" in capsys.readouterr().out
    assert command.main([*ask, "finetune-padding", "finetune-random"]) == 1
    out = capsys.readouterr().out
    assert "finetune-padding: stored already" in out and "failed: comparisons/finetune-random on lab" in out


def test_a_wrong_name_gives_one_clear_error(capsys):
    with pytest.raises(XlnbError, match="no comparison 'finetune-padded': did you mean 'finetune-padding'"):
        get_comparison("finetune-padded")
    for names, said in (
        (["mmkd-relase"], "there is no comparison 'mmkd-relase': did you mean 'mmkd-release'"),
        (["limits/slat"], "there is no stage 'slat': did you mean 'salt'"),
        (["growth/row"], "there is no curve 'row': did you mean 'rows'"),
        (["limit/salt"], "there is no part 'limit': did you mean 'limits'"),
    ):
        assert command.main(names) == 2
        err = capsys.readouterr().err
        assert err.startswith(said) and len(err.strip().splitlines()) == 1


def test_what_is_measured_when():
    short, full = command.plan(False), command.plan(True)
    assert {e for _, e, _ in short} == {"lab"} and {e for _, e, _ in full} == {"lab", "me5-small"} == {*SIZES}
    assert [n for p, _, n in short if p == "growth"] == ["languages"]
    assert (
        {n for p, _, n in full if p == "growth"}
        == {*AXES}
        >= {"languages", "length", "rows", "seeds", "test-languages"}
    )
    assert command.plan(False, ["limits"]) == [("limits", "lab", k) for k in LIMITS]
    assert command.plan(True, ["growth/length"]) == [("growth", e, "length") for e in ("lab", "me5-small")]


def test_pairs_are_interleaved_and_counted_by_their_units():
    ran = []
    sides = [
        measure.Side(lambda made, n=n: ran.append((n, made)), lambda n=n: n, units) for n, units in (("a", 2), ("b", 1))
    ]
    found = measure.interleaved(*sides, 4)
    assert "".join(n for n, _ in ran) == "abbaabba" and all(n == made for n, made in ran)
    assert len(found) == 4 and {*found[0]["seconds"]} == {"here", "other"}
    c = lambda ratio, target: Comparison("x", "x", "a", "b", lambda: Sides, ratio, target)
    seconds = dict(here=2.0, other=6.0)
    assert c("faster", 3.0).value(seconds) == 3.0 and c("faster", 3.0).met(3.0) and not c("faster", 3.0).met(2.9)
    assert (
        c("time", 0.3).value(seconds) == pytest.approx(1 / 3)
        and not c("time", 0.3).met(1 / 3)
        and c("time", 0.3).met(0.3)
    )
    assert c("seconds", 2.0).value(seconds) == 2.0 and c("seconds", None).met(2.0) is None


def test_spread_slope_memory_and_rate():
    assert measure.spread([3.0, 1.0, 2.0, 10.0]) == dict(min=1.0, median=2.5, max=10.0)
    assert measure.slope([(x, 5 * x**1.5) for x in (1, 2, 4, 8)]) == pytest.approx(1.5)
    before, _ = measure.resident(), measure.peak(reset=True)
    held = np.ones(8_000_000)  # 64 MB
    assert 50e6 < measure.peak() - before < 200e6 and held.sum() == 8e6
    assert measure.matrix_rate(128, 3, 2) > 1e8
    with measure.Clock() as clock:
        sum(range(10_000))
    assert 0 < clock.seconds < 5 and (clock.others is None or 0 <= clock.others <= 1)


def test_baselines_group_lengths_and_leave_no_row_out():
    lengths = [3 + i % 7 for i in range(396)]
    for batches in (loops.random_batches(396, 8), loops.grouped_batches(lengths, 8)):
        for epoch in (0, 1):
            assert sorted(i for b in batches(epoch) for i in b) == [*range(396)] and len(batches(epoch)) == 50
        assert batches(0) != batches(1)
    waste = lambda batches: sum(max(lengths[i] for i in b) * len(b) for b in batches(0)) - sum(lengths)
    assert waste(loops.grouped_batches(lengths, 8)) < 0.3 * waste(loops.random_batches(396, 8))


def test_padding_of_the_examples_and_of_the_release():
    from xlnb.models.encoders import load_tokenizer

    tok = load_tokenizer("lab")
    rows = [
        dict(input_ids=tok(t)["input_ids"], attention_mask=tok(t)["attention_mask"], labels=1) for t in ("a b", "c")
    ]
    data = loops.fixed_rows(rows, tok, 32)
    assert {len(x) for x in data["input_ids"]} == {32} and [sum(m) for m in data["attention_mask"]] == [
        len(r["input_ids"]) for r in rows
    ]
    batch = dict(token_input_ids=torch.ones(2, 5), token_labels=torch.ones(2, 5), word_input_ids=torch.ones(2, 5))
    wide = loops.widened(batch, 9, 7)
    assert (
        wide["token_input_ids"][0].tolist() == [1] * 5 + [7] * 4
        and wide["token_labels"][0].tolist() == [1] * 5 + [-100] * 4
    )
    assert wide["word_input_ids"].shape == (2, 5)


@pytest.mark.skipif(not WHOLE, reason="a process for each stage and curve: XLNB_SLOW=1 runs it")
def test_every_stage_and_curve_is_measured(tmp_path):
    jobs, stored = command.plan(True, ["limits", "growth"]), command.Stored(tmp_path / "speed.json")
    jobs = [j for j in jobs if j[1] == "lab"]
    assert command.run(jobs, stored, threads=1, tiny=True) == []
    assert {*stored.found["limits"]["lab"]} == {*LIMITS} and {*stored.found["growth"]["lab"]} == {*AXES}
    for r in stored.found["limits"]["lab"].values():
        assert 0 < r["share"] < 1.5 and 0 <= r["padding"] < 1 and 0 <= r["waiting"] < 1 and r["need"] > 0
    for r in stored.found["growth"]["lab"].values():
        assert len(r["points"]) == 2 and np.isfinite(r["slope"]) and all(p["median"] > 0 for p in r["points"])

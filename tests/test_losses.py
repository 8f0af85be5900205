"""Properties of the losses of methods: bounds, symmetries, what must not matter; loops that follow the equations."""
import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from transformers.modeling_outputs import QuestionAnsweringModelOutput

from xlnb.core import XlnbError
from xlnb.methods.alsace.losses import (DIRECTIONS, alsace_loss, distillation_loss, divergence, label_log_probs,
                                        language_pairs, pair_by_pair, prediction_entropy)
from xlnb.methods.clism.losses import cacr_loss, contrast, mean_state, pointer_logits, pointer_loss
import xlnb.methods.mmkd.losses as mmkd
from xlnb.methods.mmkd.losses import sentence_alignment, structure_loss, vector_mse, word_contrast
from xlnb.methods.mmkd.method import MMKD
import xlnb.training.losses as losses
from xlnb.training.losses import counted, labelled, output_loss, step_shares, token_loss

quick = settings(max_examples=40, deadline=None)
seeds, small, scales = st.integers(0, 10**6), st.integers(1, 5), st.sampled_from([.1, 1., 30.])


def normal(seed, *shape, scale=1.):
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def close(a, b, tolerance=1e-9):
    a, b = (torch.as_tensor(x, dtype=torch.float64) for x in (a, b))
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def log_softmax(z):
    "By hand, of one row"
    top = max(z)
    total = math.log(sum(math.exp(v - top) for v in z)) + top
    return [v - total for v in z]


def cosine(a, b): return float(a @ b / (a.norm() * b.norm()))


# --- a task's own loss ------------------------------------------------------------------------------------------------
@quick
@given(seeds, st.integers(1, 12), st.integers(2, 6), scales)
def test_token_loss(seed, n, vocabulary, scale):
    z = normal(seed, n, vocabulary, scale=scale)
    labels = torch.randint(vocabulary, (n,), generator=torch.Generator().manual_seed(seed))
    labels[torch.rand(n, generator=torch.Generator().manual_seed(seed + 1)) < .4] = -100
    each = [-log_softmax(z[i].tolist())[labels[i]] for i in range(n) if labels[i] >= 0]
    loss = token_loss(z, labels)
    close(loss, sum(each) / len(each) if each else 0.)
    close(loss, token_loss(z + 7., labels))                                    # a constant for all words
    moved = torch.where((labels == -100)[:, None], z + normal(seed + 2, n, vocabulary), z)
    close(loss, token_loss(moved, labels))                                     # positions that are not asked
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    close(loss, token_loss(z[order], labels[order]))
    assert loss >= 0


@quick
@given(seeds, st.lists(st.integers(0, 7), min_size=1, max_size=6))
def test_shares_make_a_mean_over_things(seed, counts):
    values = [normal(seed + i, c) for i, c in enumerate(counts)]
    shares = step_shares(counts)
    if sum(counts):
        means = (v.mean() if len(v) else 0. for v in values)
        close(sum(w * m for w, m in zip(shares, means)) / len(counts), torch.cat(values).mean())
    else: assert shares == [1.] * len(counts)


def test_shares_of_parts():
    "Each part by its own count; one that no batch has weighs one; batches of other processes count in the sums"
    assert step_shares([dict(a=0, b=2), dict(a=0, b=4)]) == [dict(a=1., b=2 * 2 / 6), dict(a=1., b=2 * 4 / 6)]
    assert step_shares([dict(a=1, b=2)], dict(a=4, b=8), 3) == [dict(a=3 / 4, b=3 * 2 / 8)]
    assert step_shares([2, 3], 10, 4) == [4 * 2 / 10, 4 * 3 / 10] and step_shares([2, None]) == [None, None]
    y = torch.tensor([[1, -100], [0, 2]])
    assert counted(dict(labels=y)) == 3 and counted(dict(start_positions=y[:, 0])) == 2 and counted(dict(input_ids=y)) is None


def test_token_loss_and_shares_say_what_is_wrong():
    with pytest.raises(XlnbError, match=r"vocabulary\) = \(2, 3, 5\) need labels of the shape \(2, 3\), not \(2, 4\)"): token_loss(normal(0, 2, 3, 5), torch.zeros(2, 4).long())
    out = QuestionAnsweringModelOutput(loss=torch.tensor(2.), start_logits=normal(0, 2, 3), end_logits=normal(1, 2, 3))
    at = dict(start_positions=torch.tensor([0, 2]), end_positions=torch.tensor([1, 2]))
    close(output_loss(out, dict(labels=1)), 2.), close(output_loss(out, at), 2.)
    close(output_loss(QuestionAnsweringModelOutput(loss=torch.tensor(2.)), at | dict(attention_mask=torch.ones(2, 3))), 2.)    # a head with a loss of its own
    with pytest.raises(XlnbError, match="no labels, only input_ids"): output_loss(QuestionAnsweringModelOutput(), dict(input_ids=1))


def test_rows_and_shares_of_several_processes(monkeypatch):
    "Rows of all in their order, and the gradient that all have for one's own; by itself a process has its own rows"
    state = SimpleNamespace(on=True, n=2)
    x = normal(0, 2, 3).requires_grad_()
    def every(parts, own):
        for k, p in enumerate(parts): p.copy_(own.detach() + k)
    monkeypatch.setattr(losses, "dist", SimpleNamespace(is_available=lambda: True, is_initialized=lambda: state.on, get_world_size=lambda: state.n,
                                                        get_rank=lambda: 1, all_gather=every, all_reduce=lambda g: g.mul_(3)))
    rows, weights = losses.gathered(x), normal(1, 4, 3)
    close(rows, torch.cat([x, x + 1]))
    (rows * weights).sum().backward()
    close(x.grad, 3 * weights[2:])
    state.n = 1
    assert losses.gathered(x) is x
    state.on, state.n = False, 2
    assert losses.gathered(x) is x


@quick
@given(seeds, st.integers(1, 4), st.integers(2, 8), st.integers(1, 5))
def test_span_loss_leaves_padding_out(seed, n, length, padding):
    z = [normal(seed + i, n, length) for i in (0, 1)]
    at = [torch.randint(length, (n,), generator=torch.Generator().manual_seed(seed + i)) for i in (2, 3)]
    def loss(start, end, mask):
        out = QuestionAnsweringModelOutput(start_logits=start, end_logits=end)
        return output_loss(out, dict(start_positions=at[0], end_positions=at[1], attention_mask=mask))
    each = [-log_softmax(row.tolist())[int(i)] for logits, ends in zip(z, at) for row, i in zip(logits, ends)]
    whole = loss(*z, torch.ones(n, length))
    close(whole, sum(each) / len(each))
    longer = [torch.cat([x, normal(seed + 9, n, padding, scale=50.)], 1) for x in z]
    mask = torch.cat([torch.ones(n, length), torch.zeros(n, padding)], 1)
    close(whole, loss(*longer, mask))


# --- ALSACE -----------------------------------------------------------------------------------------------------------
@quick
@given(seeds, small, st.integers(2, 5), scales, st.sampled_from(DIRECTIONS))
def test_divergence(seed, n, labels, scale, direction):
    p, q = (normal(seed + i, n, labels, scale=scale).log_softmax(-1) for i in (0, 1))
    d = divergence(p, q, direction)
    assert (d >= -1e-12).all()
    close(divergence(p, p, direction), torch.zeros(n))
    order = torch.randperm(labels, generator=torch.Generator().manual_seed(seed))
    close(d, divergence(p[:, order], q[:, order], direction))
    other = divergence(q, p, direction)
    if direction in ("symmetric", "jsd"): close(d, other)
    else: close(other, divergence(p, q, "student_first" if direction == "teacher_first" else "teacher_first"))
    if direction == "jsd": assert (d <= math.log(2) + 1e-12).all()
    kl = lambda a, b: sum(math.exp(x) * (x - y) for x, y in zip(a.tolist(), b.tolist()))
    middle = ((p.exp() + q.exp()) / 2).log()
    by_hand = dict(teacher_first=lambda i: kl(p[i], q[i]), student_first=lambda i: kl(q[i], p[i]),
                   symmetric=lambda i: (kl(p[i], q[i]) + kl(q[i], p[i])) / 2,
                   jsd=lambda i: (kl(p[i], middle[i]) + kl(q[i], middle[i])) / 2)[direction]
    close(d, torch.tensor([by_hand(i) for i in range(n)]), 1e-7)


@quick
@given(seeds, small, st.integers(2, 5), st.integers(2, 4), st.sampled_from(DIRECTIONS), st.sampled_from([.5, 1., 3.]))
def test_distillation(seed, n, langs, labels, direction, temperature):
    z = normal(seed, n, langs, labels, scale=3.)
    codes = [f"l{i}" for i in range(langs)]
    pairs = language_pairs(codes, codes[:1 + seed % (langs - 1)])
    o = dict(direction=direction, temperature=temperature)
    loss = distillation_loss(z, pairs, **o)
    by_hand = [divergence((z[i, a] / temperature).log_softmax(-1), (z[i, b] / temperature).log_softmax(-1), direction)
               for i in range(n) for a, b in pairs]
    close(loss, temperature**2 * torch.stack(by_hand).mean())
    close(loss, pair_by_pair(lambda i: z[:, i], pairs, **o))
    order = torch.randperm(langs, generator=torch.Generator().manual_seed(seed)).tolist()
    close(loss, distillation_loss(z[:, order], [(order.index(a), order.index(b)) for a, b in pairs], **o))
    close(loss, distillation_loss(z + normal(seed + 1, n, langs, 1), pairs, **o))  # a constant for all labels of a row
    # a label that these instances have not
    absent = torch.cat([z, normal(seed + 2, n, langs, 1, scale=9.)], -1)
    mask = torch.ones(n, labels + 1, dtype=torch.bool)
    mask[:, -1] = False
    close(loss, distillation_loss(absent, pairs, mask=mask, **o))
    close(label_log_probs(absent, mask)[..., :-1], label_log_probs(z))
    rows, y = normal(seed + 3, 3, labels), torch.arange(3) % labels
    total, parts = alsace_loss(z, pairs, rows, y, .5, **o)
    close(total, loss + .5 * F.cross_entropy(rows, y)), close(parts["distil"], loss)


def test_divergence_where_something_is_certain():
    "0 log 0 is 0; what one side rules out and the other does not is infinitely far in one direction"
    sure, half = (torch.tensor(p, dtype=torch.float64).log() for p in ([0., 1.], [.5, .5]))
    far = dict(teacher_first=math.log(2), student_first=math.inf, symmetric=math.inf, jsd=(math.log(4 / 3) + .5 * math.log(2) + .5 * math.log(2 / 3)) / 2)
    assert {d: divergence(sure, half, d).item() for d in DIRECTIONS} == pytest.approx(far)
    assert {divergence(sure, sure, d).item() for d in DIRECTIONS} == {0.}


def test_distillation_refuses_what_does_not_fit():
    codes, z = ["a", "b", "c"], normal(0, 2, 3, 4)
    for ranking in (["a", "b"], ["a", "b", "d"], ["a", "a", "b", "c"], ["b", "c"]):
        with pytest.raises(XlnbError, match="differ"): language_pairs(codes, ["a"], ranking=ranking)
    one = "".join([*"teachers"])
    assert language_pairs(codes, ["b"], strategy=one) == [(1, 0), (1, 2)] and language_pairs(codes, ["b", "c"], strategy="".join([*"listed"])) == [(1, 2)]
    for strategy, n, pairs in (("top", 2, [(0, 1)]), ("top", 3, [(0, 1), (0, 2), (1, 2)]), ("ends", 1, [(0, 2)]),
                               ("ends", 3, [(0, 1), (0, 2), (1, 2)]), ("all", None, [(0, 1), (0, 2), (1, 2)])):
        assert language_pairs(codes, strategy="".join([*strategy]), n=n) == pairs
    for n in (None, 0, 4):
        with pytest.raises(XlnbError, match="between 1 and 3"): language_pairs(codes, strategy="ends", n=n)
    for wrong in (z[0], z[None]):
        with pytest.raises(XlnbError, match="have the shape"): label_log_probs(wrong)
    for temperature in (0, -1.):
        with pytest.raises(XlnbError, match="above zero"): label_log_probs(z, temperature=temperature)


@quick
@given(seeds, st.integers(1, 30), st.integers(2, 6))
def test_entropy_of_predictions_in_several_languages(seed, n, labels):
    z = normal(seed, n, 3, labels)
    assert prediction_entropy(z) == pytest.approx(prediction_entropy(z.reshape(-1, labels)))


@quick
@given(seeds, st.integers(1, 30), st.integers(2, 6))
def test_entropy_of_predictions(seed, n, labels):
    z = normal(seed, n, labels)
    e = prediction_entropy(z)
    assert 0 <= e <= 1 + 1e-12
    order = torch.randperm(labels, generator=torch.Generator().manual_seed(seed))
    close(e, prediction_entropy(z[:, order]))
    assert prediction_entropy(torch.eye(labels)) == pytest.approx(1) and prediction_entropy(torch.eye(labels)[:1]) == 0


# --- MMKD -------------------------------------------------------------------------------------------------------------
@quick
@given(seeds, small, st.integers(1, 6), st.integers(1, 4), st.sampled_from(["dot", "cosine"]),
       st.sampled_from([.2, 1.]))
def test_word_contrast(seed, n, words, size, similarity, temperature):
    t, s = normal(seed, n, words, size), normal(seed + 1, n, words, size)
    g = torch.Generator().manual_seed(seed)
    keys, scored = torch.rand(n, words, generator=g) < .8, torch.rand(n, words, generator=g) < .5
    o = dict(similarity=similarity, temperature=temperature)
    loss, sim = word_contrast(t, s, scored, keys, **o), cosine if similarity == "cosine" else lambda a, b: float(a @ b)
    per_sentence = []
    for i in range(n):
        there = [k for k in range(words) if keys[i, k]]
        each = [-log_softmax([sim(t[i, j], s[i, k]) / temperature for k in there])[there.index(j)]
                for j in there if scored[i, j]]
        if each: per_sentence.append(sum(each) / len(each))
    close(loss, sum(per_sentence) / len(per_sentence) if per_sentence else 0., 1e-6)
    assert loss >= -1e-9
    padded = [torch.cat([x, normal(seed + 2, n, 2, size, scale=9.)], 1) for x in (t, s)]
    more = [torch.cat([m, torch.full((n, 2), v)], 1) for m, v in ((scored, True), (keys, False))]
    close(loss, word_contrast(*padded, *more, **o))                             # words that are not there
    order = torch.randperm(words, generator=g)
    close(loss, word_contrast(t[:, order], s[:, order], scored[:, order], keys[:, order], **o))


def test_words_far_apart_have_no_gradient_that_a_cpu_is_slow_with():
    "Below the normal numbers of fp32, each multiplication costs as much as a hundred others"
    g = torch.Generator().manual_seed(0)
    t, s = 2.8 * torch.randn(2, 4, 7, 16, generator=g)
    s = torch.cat([s[:1], t[1:]]).requires_grad_()   # one sentence is read wrongly; in the others all words are found
    there, tiny = torch.ones(4, 7, dtype=torch.bool), torch.finfo(torch.float32).tiny
    small = lambda x: int(((x != 0) & (x.abs() < tiny)).sum())
    found, = torch.autograd.grad(word_contrast(t, s, there, there), s)
    z = (t.double() @ s.double().mT).flatten(0, 1)
    wanted, = torch.autograd.grad(torch.nn.functional.cross_entropy(z, torch.arange(7).repeat(4)), s)
    assert small(wanted) and not small(found)
    assert float((found - wanted).abs().max()) <= 1e-6 * float(wanted.abs().max())


@quick
@given(seeds, small, st.integers(1, 6), st.floats(.01, 100))
def test_sentence_alignment(seed, n, size, factor):
    a, b = normal(seed, n, size), normal(seed + 1, n, size)
    loss = sentence_alignment(a, b)
    close(loss, sum(2 - 2 * cosine(x, y) for x, y in zip(a, b)) / n)
    close(loss, (F.normalize(a, dim=-1) - F.normalize(b, dim=-1)).square().sum(-1).mean())
    close(loss, sentence_alignment(factor * a, b)), close(loss, sentence_alignment(b, a))
    close(sentence_alignment(a, factor * a), 0.), close(sentence_alignment(a, -a), 4.)
    assert -1e-9 <= loss <= 4 + 1e-9


@quick
@given(seeds, st.integers(2, 6), st.integers(2, 5), st.booleans(), st.sampled_from([.1, 1.]))
def test_structure_loss(seed, n, size, mask_diagonal, temperature):
    s, t = normal(seed, n, size), normal(seed + 1, n, size + 2)
    o = dict(temperature=temperature, mask_diagonal=mask_diagonal)
    loss = structure_loss(s, t, **o)
    rows = []
    for i in range(n):
        others = [j for j in range(n) if j != i or not mask_diagonal]
        p, q = (log_softmax([cosine(x[i], x[j]) / temperature for j in others]) for x in (t, s))
        rows.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q)))
    close(loss, sum(rows) / n, 1e-6)
    assert loss >= -1e-9
    close(structure_loss(s, s, **o), 0.)
    turn = torch.linalg.qr(normal(seed + 2, size, size))[0]
    close(loss, structure_loss(5 * s @ turn, t, **o), 1e-7)                     # neither length nor axes matter
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    close(loss, structure_loss(s[order], t[order], **o))


@pytest.mark.parametrize("mask_diagonal", [False, True])
def test_structure_loss_over_processes(mask_diagonal, monkeypatch):
    "What three processes find, each from its own rows against all, is on average the loss of the whole batch"
    s, t = normal(0, 9, 4), normal(1, 9, 5)
    whole = {4: F.normalize(s, dim=-1), 5: F.normalize(t, dim=-1)}
    monkeypatch.setattr(mmkd, "gathered", lambda x: whole[x.shape[1]])
    def part(rank):
        monkeypatch.setattr(mmkd.dist, "get_rank", lambda: rank)
        own = slice(3 * rank, 3 * rank + 3)
        return structure_loss(s[own], t[own], mask_diagonal=mask_diagonal, gather=True)
    close(sum(part(rank) for rank in range(3)) / 3, structure_loss(s, t, mask_diagonal=mask_diagonal))


def test_weights_of_words_sentences_and_structure():
    assert mmkd.LEVELS == dict(token=1., word=1., sentence=1., structure=10., mse=0.) == MMKD().weights
    s, t = normal(0, 4, 3), normal(1, 4, 3)
    close(structure_loss(s, t), structure_loss(s, t, 1., False, False))


def test_sentence_and_word_losses_refuse_other_shapes():
    x = normal(0, 3, 4)
    for student, teacher in ((x, x[:2]), (x[:2], x)):
        with pytest.raises(XlnbError, match="give the same ones"): structure_loss(student, teacher)
        with pytest.raises(XlnbError, match="one shape"): sentence_alignment(student, teacher)
        with pytest.raises(XlnbError, match="one shape"): word_contrast(student[None], teacher[None], *[torch.ones(1, 3).bool()] * 2)
    with pytest.raises(XlnbError, match=r"not \(3, 2\), \(3, 3\) and \(3, 4\)"): vector_mse(x[:, :2], x[:, :3], x)
    for temperature in (0, -1.):
        with pytest.raises(XlnbError, match="above zero"): structure_loss(x, x, temperature)
        with pytest.raises(XlnbError, match="above zero"): word_contrast(x[None], x[None], *[torch.ones(1, 3).bool()] * 2, temperature=temperature)


@quick
@given(seeds, small, st.integers(1, 5))
def test_vector_mse(seed, n, size):
    source, target, teacher = (normal(seed + i, n, size) for i in range(3))
    loss = vector_mse(source, target, teacher)
    close(loss, sum(float((x - teacher).square().sum()) for x in (source, target)) / (n * size))
    close(loss, vector_mse(target, source, teacher))
    move = normal(seed + 3, size)
    close(loss, vector_mse(source + move, target + move, teacher + move))
    close(vector_mse(teacher, teacher, teacher), 0.)


# --- CLISM + CACR -----------------------------------------------------------------------------------------------------
@quick
@given(seeds, st.integers(1, 4), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3))
def test_pointing(seed, questions, positions, size, padding):
    states, query = normal(seed, 2, positions, size), normal(seed + 1, questions, size)
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(2, (questions,), generator=g)
    starts, ends = (torch.randint(positions, (questions,), generator=g) for _ in range(2))
    logits = pointer_logits(query, states, rows, torch.ones(2, positions))
    by_hand = [[float(query[q] @ states[rows[q], i]) for i in range(positions)] for q in range(questions)]
    close(logits, torch.tensor(by_hand, dtype=torch.float64))
    loss = pointer_loss(logits, 2 * logits, starts, ends)
    close(loss, sum(-log_softmax(z)[a] - log_softmax([2 * v for v in z])[b]
                    for z, a, b in zip(by_hand, starts.tolist(), ends.tolist())) / questions)
    longer = torch.cat([states, normal(seed + 2, 2, padding, size, scale=9.)], 1)
    mask = torch.cat([torch.ones(2, positions), torch.zeros(2, padding)], 1)
    padded = pointer_logits(query, longer, rows, mask)
    close(loss, pointer_loss(padded, 2 * padded, starts, ends))
    assert loss >= 0


@quick
@given(seeds, small, st.integers(1, 6), st.integers(1, 4))
def test_mean_state(seed, n, positions, width):
    x = normal(seed, n, positions, width)
    mask = torch.rand(n, positions, generator=torch.Generator().manual_seed(seed)) < .6
    mean = mean_state(x, mask)
    sums = [sum((x[i, j] for j in range(positions) if mask[i, j]), torch.zeros(width).double()) for i in range(n)]
    by_hand = [total / max(1, int(mask[i].sum())) for i, total in enumerate(sums)]
    close(mean, torch.stack(by_hand))
    close(mean, mean_state(torch.where(mask[..., None], x, normal(seed + 1, n, positions, width, scale=9.)), mask))


@quick
@given(seeds, st.integers(1, 5), st.integers(0, 3), st.integers(1, 4), st.sampled_from([.05, 1., 20.]))
def test_contrast(seed, n, more, width, scale):
    a, p, first = normal(seed, n, width), normal(seed + 1, n + more, width), seed % (more + 1)
    loss = contrast(a, p, scale, first)
    z = [[scale * cosine(x, y) for y in p] for x in a]
    close(loss, sum(-log_softmax(row)[i + first] for i, row in enumerate(z)) / n, 1e-6)
    assert -1e-9 <= loss <= math.log(n + more) + 2 * scale + 1e-9
    close(loss, contrast(3 * a, .5 * p, scale, first), 1e-7)
    same = torch.rand(n, n + more, generator=torch.Generator().manual_seed(seed)) < .5
    fewer = contrast(a, p, scale, first, same)
    assert fewer <= loss + 1e-9                                                 # fewer negatives are never harder
    kept = [[j for j in range(n + more) if not same[i, j] or j == i + first] for i in range(n)]
    each = [-log_softmax([row[j] for j in there])[there.index(i + first)]
            for i, (row, there) in enumerate(zip(z, kept))]
    close(fewer, sum(each) / n, 1e-6)
    total, terms = cacr_loss(a, a + .1, p[:n], scale)
    close(total, contrast(a + .1, a, scale) + contrast(p[:n], a, scale) + contrast(a + .1, p[:n], scale))
    assert list(terms) == ["target-masked", "plain-masked", "target-plain"]


def test_contrast_refuses_what_does_not_fit():
    a, p = normal(0, 2, 3), normal(1, 3, 3)
    for first in (-1, 2):
        with pytest.raises(XlnbError, match="each needs its positive"): contrast(a, p, first=first)
    for scale in (0, -1.):
        with pytest.raises(XlnbError, match="above zero"): contrast(a, p, scale)
    z = normal(2, 2, 5).requires_grad_()
    none = pointer_loss(z[:0], z[:0], *[torch.zeros(0, dtype=torch.long)] * 2)
    close(none, torch.tensor(0.)), none.backward()
    close(z.grad, torch.zeros(2, 5))


def test_no_loss_makes_a_gpu_wait():
    "A number that Python reads, or a choice by truth values, holds it up at every step"
    from torch.utils._python_dispatch import TorchDispatchMode
    found = []
    class Waits(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.name() in ("aten::_local_scalar_dense", "aten::nonzero"): found.append(function.name())
            return function(*args, **(kwargs or {}))
    z, y = normal(0, 6, 9).requires_grad_(), torch.tensor([1, -100, 3, -100, 0, 8])
    words, scored = normal(1, 3, 4, 5), torch.tensor([[True, False, True, False], [False] * 4, [False, False, False, True]])
    pairs, logits = torch.tensor([(0, 1), (0, 2)]), normal(2, 4, 3, 2)
    with Waits():
        token_loss(z, y).backward()
        word_contrast(words, words + 1, scored, torch.ones_like(scored))
        structure_loss(words[0], words[1])
        structure_loss(words[0], words[1], mask_diagonal=True)
        distillation_loss(logits, pairs)
        share = labelled(dict(labels=y))
        assert not found
        assert counted(dict(labels=y)) == 4 and found
    assert share == 4
    close(z.grad[[1, 3]].abs().sum(), 0)
    close(distillation_loss(logits, pairs), distillation_loss(logits, [(0, 1), (0, 2)]))
    close(word_contrast(words, words + 1, scored, torch.ones_like(scored)),
          word_contrast(words[[0, 2]], words[[0, 2]] + 1, scored[[0, 2]], torch.ones_like(scored[[0, 2]])))
    close(token_loss(z[:0], y[:0]), 0)
    close(structure_loss(words[0, :1], words[1, :1], mask_diagonal=True), 0)

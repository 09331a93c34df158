"""The public functions: ids, lengths, masks, objectives, counts."""

import itertools
import uuid
from fractions import Fraction
from math import comb

import hypothesis.strategies as st
import numpy as np
import oracle
import pytest
import torch
from hypothesis import given
from test_promises import identical

import pkpo_kernels
import pkpo_kernels.numpy
from pkpo_kernels import _grouping, functional


def ids_of_every_kind(numbers):
    """The same prompts named in every way that people name them."""
    names = [str(uuid.UUID(int=i)) for i in range(max(numbers, default=0) + 1)]
    yield torch.tensor(numbers, dtype=torch.int64)
    yield torch.tensor(numbers, dtype=torch.int32)
    yield torch.tensor([2**62 - 3 * i for i in numbers], dtype=torch.int64)
    yield torch.tensor([-i for i in numbers], dtype=torch.int64)
    yield np.array(numbers, dtype=np.int64)
    yield np.array(numbers, dtype=np.uint8)
    yield np.array([names[i] for i in numbers], dtype=object)
    yield np.array([names[i] for i in numbers], dtype=str)
    yield [names[i] for i in numbers]
    yield ["".join([names[i]]) for i in numbers]  # equal strings that are not the same object
    yield tuple((i, "prompt") for i in numbers)
    yield [float(i) for i in numbers]


def by_hand(numbers):
    groups = {}
    for i, number in enumerate(numbers):
        groups.setdefault(number, []).append(i)
    return groups


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("numbers", [[], [5], [3, 3, 3], [4, 1, 4, 0, 1, 4, 9], list(range(20))[::-1]])
def test_group_by(numbers, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(_grouping, "_numpy", None)
    groups = by_hand(numbers)
    order = [i for members in groups.values() for i in members]
    offsets = [0, *itertools.accumulate(len(members) for members in groups.values())]
    first = {number: g for g, number in enumerate(groups)}
    expected = [order, offsets, [first[number] for number in numbers]]
    for ids in ids_of_every_kind(numbers):
        assert [part.tolist() for part in pkpo_kernels.group_by(ids)] == expected, ids
        assert all(part.dtype == torch.int64 for part in pkpo_kernels.group_by(ids))
    assert [part.tolist() for part in functional._group_on_device(torch.tensor(numbers, dtype=torch.int64))] == expected


def test_ids_whose_hashes_collide():
    class Id:
        def __init__(self, value):
            self.value = value

        def __hash__(self):
            return 7

        def __eq__(self, other):
            return self.value == other.value

    numbers = torch.randint(0, 50, (300,), generator=torch.Generator().manual_seed(0)).tolist()
    _, _, got = pkpo_kernels.group_by([Id(i) for i in numbers])
    _, _, expected = pkpo_kernels.group_by(numbers)
    assert torch.equal(got, expected)


@given(
    numbers=st.lists(st.integers(0, 6), min_size=1, max_size=30),
    k=st.integers(1, 5),
    baseline=st.sampled_from(("none", "loo", "loo-1")),
    seed=st.integers(0, 2**32),
)
def test_ids_in_any_order(numbers, k, baseline, seed):
    """Every group gets what it gets alone, wherever its samples stand and whatever the ids are."""
    x = torch.randn(len(numbers), generator=torch.Generator().manual_seed(seed))
    y = pkpo_kernels.transform(x, k, baseline=baseline, group_ids=numbers)
    m = pkpo_kernels.max_at_k(x, k, group_ids=numbers)
    for g, members in enumerate(by_hand(numbers).values()):
        assert identical(y[members], torch.ops.pkpo.transform(x[members], torch.tensor(k), baseline=baseline))
        assert identical(m[g], torch.ops.pkpo.max_at_k(x[members], torch.tensor(k)))
    shuffle = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed + 1))
    shuffled = pkpo_kernels.transform(x[shuffle], k, baseline=baseline, group_ids=torch.tensor(numbers)[shuffle])
    assert identical(shuffled, y[shuffle])


def test_a_k_a_group():
    x = torch.randn(9, generator=torch.Generator().manual_seed(0))
    ids = ["c", "a", "c", "b", "a", "c", "b", "c", "a"]
    k = torch.tensor([3, 1, 2])  # of c, a, b: the order in which they first come
    y = pkpo_kernels.transform(x, k, group_ids=ids)
    for prompt, group_k in zip("cab", k):
        members = [i for i, name in enumerate(ids) if name == prompt]
        assert identical(y[members], torch.ops.pkpo.transform(x[members], group_k))


def test_lengths():
    x = torch.randn(9, generator=torch.Generator().manual_seed(0))
    expected = torch.ops.pkpo.transform(x, torch.tensor([0, 4, 4, 9]), torch.tensor(2))
    for lengths in ([4, 0, 5], torch.tensor([4, 0, 5]), torch.tensor([4, 0, 5]).int(), np.array([4, 0, 5])):
        assert identical(pkpo_kernels.transform(x, 2, lengths=lengths), expected)
    assert pkpo_kernels.max_at_k(x, 2, lengths=[4, 0, 5]).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.bool, torch.uint8, torch.int64])
def test_mask_and_objective(dtype):
    x = (3 * torch.randn(5, 6, generator=torch.Generator().manual_seed(0))).abs().to(dtype)
    mask = torch.rand(5, 6, generator=torch.Generator().manual_seed(1)) < 0.7
    floats = x if dtype.is_floating_point else x.float()
    padded = torch.where(mask, floats, torch.nan)
    assert identical(pkpo_kernels.transform(x, 3, mask=mask), torch.ops.pkpo.transform(padded, 3))
    assert identical(pkpo_kernels.max_at_k(x, 3, mask=mask), torch.ops.pkpo.max_at_k(padded, 3))
    # min@k is the max@k of the negated, negated: pass^k
    low = pkpo_kernels.max_at_k(x, 3, objective="min")
    assert low.dtype == floats.dtype
    for group, got in zip(floats.double().tolist(), low.double().tolist()):
        exact = -oracle.transform([-value for value in group], 3, "max_at_k")
        assert got == pytest.approx(float(exact), rel=1e-2 if dtype == torch.bfloat16 else 1e-6)
    y = pkpo_kernels.transform(x, 3, objective="min")
    assert identical(y, (0 - torch.ops.pkpo.transform(-floats, 3)))


def test_gradients_flow_through_ids_masks_and_objectives():
    x = torch.randperm(9, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    ids, mask = [1, 0, 1, 2, 0, 1, 2, 1, 0], torch.arange(9) != 4
    for function, k in ((pkpo_kernels.transform, 2), (pkpo_kernels.max_at_k, 2), (pkpo_kernels.max_at_k, [1, 2])):
        for keywords in ({"group_ids": ids}, {"lengths": [4, 5]}, {"mask": mask}, {"objective": "min"}):
            assert torch.autograd.gradcheck(lambda x, f=function, k=k, w=keywords: f(x, k, **w), (x,)), keywords


def test_compiles_with_lengths_and_mask():
    torch.compiler.reset()
    mask = torch.ones(3, 4, dtype=torch.bool)

    def step(x, k):
        return pkpo_kernels.transform(x, k, mask=mask, objective="min")

    x = torch.randn(3, 4)
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for k in (2, 3):
        assert identical(compiled(x, k), step(x, k))


# ---------------------------------------------------------------------------------------------------------- pass@k


def exact_pass_at_k(n, c, k):
    return 1 - Fraction(comb(n - c, k), comb(n, k))


@pytest.mark.parametrize("function", [pkpo_kernels.pass_at_k, pkpo_kernels.numpy.pass_at_k])
def test_pass_at_k_of_every_small_count(function):
    for n in range(1, 16):
        c, k = list(range(n + 1)), list(range(1, n + 1))
        curve = function(n, c, k)
        assert tuple(curve.shape) == (n + 1, n)
        for i, j in itertools.product(c, k):
            assert float(curve[i, j - 1]) == pytest.approx(float(exact_pass_at_k(n, i, j)), rel=1e-13, abs=0)


@pytest.mark.parametrize("function", [pkpo_kernels.pass_at_k, pkpo_kernels.numpy.pass_at_k])
def test_pass_at_k_up_to_a_million(function):
    """Relative to each value itself, the smallest too."""
    cases = [(10**6, c, k) for c in (1, 2, 17, 1000, 7000) for k in (1, 2, 16, 300, 7000)]
    cases += [(10**6, 500_000, 500_000), (10**6, 999_999, 1), (10**6, 1, 999_999), (65_536, 3, 1024), (1000, 1, 1000)]
    for n, c, k in cases:
        # C(n-c, k) / C(n, k) has min(c, k) factors: exact without the binomials themselves
        wrong = Fraction(1)
        numerator = denominator = 1
        for i in range(min(c, k)):
            numerator *= n - max(c, k) - i
            denominator *= n - i
            if i > 8000:
                numerator = 0  # beyond every digit
                break
        wrong = Fraction(numerator, denominator) if numerator > 0 else Fraction(0)
        exact = float(1 - wrong)
        assert float(function(n, c, k)) == pytest.approx(exact, rel=1e-13, abs=0), (n, c, k)


def test_pass_at_k_agrees_with_max_at_k_of_the_samples():
    rewards = torch.rand(20, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64) < 0.3
    for k in (1, 3, 12):
        estimate = pkpo_kernels.pass_at_k(12, rewards.sum(-1), k)
        torch.testing.assert_close(estimate, torch.ops.pkpo.max_at_k(rewards.double(), k), rtol=1e-13, atol=1e-15)


def test_pass_at_k_shapes():
    n, c = torch.tensor([[10], [20]]), torch.tensor([0, 5, 10])
    assert pkpo_kernels.pass_at_k(n, c, 4).shape == (2, 3)
    assert pkpo_kernels.pass_at_k(n, c, [4]).shape == (2, 3, 1)
    assert pkpo_kernels.pass_at_k(n, c, torch.tensor([1, 4])).shape == (2, 3, 2)
    assert pkpo_kernels.pass_at_k(10, 5, 4).shape == ()
    assert pkpo_kernels.pass_at_k(10, torch.zeros(0, dtype=torch.int64), [1, 2]).shape == (0, 2)


# ------------------------------------------------------------------------------------------------------------ errors

X, V = torch.zeros(3, 4), torch.zeros(10)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda f: f([0.0], 1), "rewards must be a tensor, got list; pkpo_kernels.numpy takes arrays"),
        (lambda f: f(X, 2, objective="least"), 'objective must be "max" or "min", got "least"'),
        (lambda f: f(V, 2, lengths=[10], group_ids=[0] * 10), "give group_ids or lengths, not both"),
        (lambda f: f(X.to(torch.complex64), 2), "rewards must be float64, float32"),
        (lambda f: f(X, 2, mask=X), "mask must be bool, got float32"),
        (lambda f: f(X, 2, mask=X[:2] == 0), r"mask must have shape \(3, 4\), got \(2, 4\)"),
        (lambda f: f(X, 2, lengths=[3, 4]), r"rewards must have shape \(N,\) with group_ids or lengths, got \(3, 4\)"),
        (lambda f: f(V, 2, lengths=[3, 4]), "lengths must add up to the number of rewards, 10, got 7"),
        (lambda f: f(V, 2, lengths=[12, -2]), "lengths must not be negative, got -2"),
        (lambda f: f(V, 2, lengths=[2.5, 7.5]), "lengths must be integers, got float64"),
        (lambda f: f(V, 2, lengths=[[10]]), r"lengths must have shape \(G,\), got \(1, 1\)"),
        (lambda f: f(V, 2, group_ids=[1, 2]), "group_ids must have one id a reward, 10, got 2"),
        (lambda f: f(V, 2, group_ids=[[1]] * 10), "group_ids must be hashable: unhashable type: 'list'"),
        (lambda f: f(V, 2, group_ids="abcdefghij"), "group_ids must be a sequence with one id a sample, got str"),
        (lambda f: f(V, 2, group_ids=7), "group_ids must be a sequence with one id a sample, got int"),
        (lambda f: f(V, 2, group_ids=V), "group_ids must be integers, got float32"),
        (lambda f: f(V, 2, group_ids=V[None].long()), r"group_ids must have shape \(N,\), got \(1, 10\)"),
        (lambda f: f(V, 0, lengths=[10]), "k must be at least 1, got 0"),
        (lambda f: f(V, 2.0), "k must be an integer or an integer tensor, got float"),
        (lambda f: f(V, True), "k must be an integer or an integer tensor, got bool"),
        (lambda f: f(V, "2"), "k must be an integer or an integer tensor, got str"),
    ],
)
@pytest.mark.parametrize("name", ["transform", "max_at_k"])
def test_errors(name, call, message):
    with pytest.raises(RuntimeError, match=f"^pkpo_kernels.{name}: {message}"):
        call(getattr(pkpo_kernels, name))


def test_errors_of_a_list_of_k():
    for k, message in (
        ([2.5], "k must be integers, got float64"),
        ([], "k must hold at least"),
        ([[1]], "k must hold at"),
    ):
        with pytest.raises(RuntimeError, match=f"^pkpo_kernels.max_at_k: {message}"):
            pkpo_kernels.max_at_k(X, k)


@pytest.mark.parametrize(
    "args,message",
    [
        ((10, 11, 2), "num_correct must be between 0 and num_samples = 10, got 11"),
        ((10, [3, -1], 2), "num_correct must be between 0 and num_samples = 10, got -1"),
        (([10, 4], 1, 5), "k must be between 1 and num_samples = 4, got 5"),
        ((10, 1, [1, 0]), "k must be between 1 and num_samples = 10, got 0"),
        ((10.0, 1, 2), "num_samples must be integers, got float64"),
    ],
)
def test_pass_at_k_errors(args, message):
    with pytest.raises(RuntimeError, match=f"^pkpo_kernels.pass_at_k: {message}"):
        pkpo_kernels.pass_at_k(*args)
    with pytest.raises(ValueError, match=f"^pkpo_kernels.numpy.pass_at_k: {message}"):
        pkpo_kernels.numpy.pass_at_k(*args)

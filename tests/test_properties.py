"""What must hold for every input, on inputs that hypothesis makes up."""

import hypothesis.strategies as st
import oracle
import pytest
import torch
from backends import BACKENDS
from compare import BOUND, relative_error_of
from hypothesis import given
from test_promises import identical

every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
baselines = st.sampled_from(("none", "loo", "loo-1"))


@st.composite
def groups(draw, smallest=2, elements=None):
    """(x float64 (n,), k, baseline) with k allowed"""
    if elements is None:
        reals = st.floats(-1e6, 1e6, allow_nan=False, allow_subnormal=False)
        elements = st.one_of(reals, st.integers(-2, 2).map(float))
    values = draw(st.lists(elements, min_size=smallest, max_size=40))
    baseline = draw(baselines)
    k = draw(st.integers(1, len(values) - (baseline == "loo")))
    return torch.tensor(values, dtype=torch.float64), k, baseline


@every_backend
@given(group=groups())
def test_is_exact(backend, group):
    x, k, baseline = group
    for dtype, bound in BOUND.items():
        values = x.to(dtype)
        y = backend.transform(values, k, baseline=baseline)
        assert relative_error_of(y, oracle.transform(values.tolist(), k, baseline)) <= bound


@every_backend
@given(group=groups(), seed=st.integers(0, 2**32))
def test_permuting_the_samples_permutes_the_output(backend, group, seed):
    x, k, baseline = group
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    assert identical(
        backend.transform(x, k, baseline=baseline)[order], backend.transform(x[order], k, baseline=baseline)
    )


@every_backend
@given(group=groups(elements=st.integers(-1000, 1000).map(float)), shift=st.integers(-(2**30), 2**30))
def test_loo_1_ignores_a_constant(backend, group, shift):
    """Bit for bit where the sum is exact, as it is for integers."""
    x, k, _ = group
    assert identical(backend.transform(x, k), backend.transform(x + shift, k))


@every_backend
@given(group=groups(), exponent=st.integers(-40, 40))
def test_scaling_the_rewards_scales_the_output(backend, group, exponent):
    """Bit for bit for powers of two."""
    x, k, baseline = group
    scale = 2.0**exponent
    assert identical(
        scale * backend.transform(x, k, baseline=baseline), backend.transform(scale * x, k, baseline=baseline)
    )
    assert identical(scale * backend.max_at_k(x, k), backend.max_at_k(scale * x, k))


@every_backend
@given(group=groups())
def test_a_higher_reward_never_gets_less(backend, group):
    x, k, baseline = group
    y = backend.transform(x, k, baseline=baseline)
    order = x.argsort()
    tolerance = 1e-12 * y.abs().max()
    assert (y[order].diff() >= -tolerance).all()
    equal = x[:, None] == x
    assert (y[:, None] == y)[equal].all(), "equal rewards, equal outputs"


@every_backend
@given(group=groups())
def test_the_shares_add_up(backend, group):
    """sum_i s_i = k max_at_k"""
    x, k, _ = group
    total = backend.transform(x, k, baseline="none").sum()
    torch.testing.assert_close(
        total, k * backend.max_at_k(x, k), rtol=1e-11, atol=1e-11 * float(x.abs().max()) + 1e-300
    )


@every_backend
@given(group=groups())
def test_loo_1_is_a_gain(backend, group):
    """For k >= 2 nothing is negative, and a sample among the k - 1 lowest gets nothing."""
    x, k, _ = group
    if k >= 2:
        y = backend.transform(x, k)
        assert (y >= 0).all()
        assert (y[x.argsort()[: k - 1]] == 0).all()


@every_backend
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    seed=st.integers(0, 2**32),
    baseline=baselines,
    data=st.data(),
)
def test_grouped_equals_dense_equals_padded(backend, lengths, seed, baseline, data):
    """Bit for bit, forward and backward, with any k a group."""
    generator = torch.Generator().manual_seed(seed)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    x = (2 * torch.randn(sum(lengths), generator=generator)).round() / 2
    x = torch.where(torch.rand(x.shape, generator=generator) < 0.1, torch.nan, x)
    grad = torch.randn(x.shape, generator=generator)
    k = torch.tensor(data.draw(st.lists(st.integers(1, 12), min_size=len(lengths), max_size=len(lengths))))
    y = backend.transform(x, offsets, k, baseline=baseline)
    gx = backend.transform_backward(grad, x, offsets, k, baseline=baseline)
    m = backend.max_at_k(x, offsets, k)
    width = max(max(lengths), 1)
    padded = torch.full((len(lengths), width), torch.nan)
    padded_grad = torch.full((len(lengths), width), 7.0)
    for g, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist())):
        padded[g, : end - begin], padded_grad[g, : end - begin] = x[begin:end], grad[begin:end]
    padded_y = backend.transform(padded, k, baseline=baseline)
    padded_gx = backend.transform_backward(padded_grad, padded, k, baseline=baseline)
    assert identical(m, backend.max_at_k(padded, k))
    for g, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist())):
        assert identical(y[begin:end], padded_y[g, : end - begin])
        assert identical(gx[begin:end], padded_gx[g, : end - begin])
        assert (padded_y[g, end - begin :] == 0).all()
        present = x[begin:end][~x[begin:end].isnan()]
        clamped = oracle.clamp(baseline, len(present), int(k[g]))
        if clamped >= 1:
            alone = backend.transform(present, clamped, baseline=baseline)
            assert identical(y[begin:end][~x[begin:end].isnan()], alone)

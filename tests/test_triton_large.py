"""Triton's kernel of large groups in its interpreter, with chunks so small that groups of a few hundred samples are sorted in
several, merged, and weighed across their borders."""

import oracle
import pytest
import torch
from backends import BACKENDS
from compare import BOUND, relative_error_of
from samples import x as random

pytestmark = pytest.mark.skipif("triton interpreted" not in BACKENDS, reason="needs TRITON_INTERPRET=1")


@pytest.fixture
def launch(monkeypatch):
    from pkpo_kernels.triton import launch

    monkeypatch.setattr(launch, "LOG_CHUNK", 5)
    monkeypatch.setattr(launch, "LARGEST", {False: 32, True: 32})
    return launch


def group(n, dtype, kind):
    values = random(n).to(dtype)
    if kind == "ties":
        values = (values * 2).round()
    if kind == "absent":
        values[::3] = torch.nan
    return values


@pytest.mark.parametrize("sorted_from", [33, 1000], ids=["sorted by torch", "merged"])
@pytest.mark.parametrize("kind", ["plain", "ties", "absent"])
@pytest.mark.parametrize("dtype", BOUND)
@pytest.mark.parametrize("form", ["none", "loo", "loo-1"])
def test_against_exact_arithmetic(launch, monkeypatch, form, dtype, kind, sorted_from):
    monkeypatch.setattr(launch, "SORTED_FROM", sorted_from)
    backend = BACKENDS["triton interpreted"]
    for n in (33, 150):
        values = group(n, dtype, kind)
        present = ~values.isnan()
        for k in (1, 3):
            exact = oracle.transform(values[present].tolist(), k, form)
            y = backend.transform(values[None], k, baseline=form)[0]
            assert relative_error_of(y[present], exact) <= BOUND[dtype]
            assert not y[~present].any()
            for offsets in (torch.tensor([0, 5, n]), torch.tensor([0, n])):
                ragged = backend.transform(values, offsets, torch.tensor(k), baseline=form)
                begin = int(offsets[-2])
                exact = oracle.transform(values[begin:][present[begin:]].tolist(), k, form)
                assert relative_error_of(ragged[begin:][present[begin:]], exact) <= BOUND[dtype]


@pytest.mark.parametrize("sorted_from", [33, 1000], ids=["sorted by torch", "merged"])
@pytest.mark.parametrize("kind", ["plain", "ties", "absent"])
def test_gradient_equals_that_of_one_chunk(launch, monkeypatch, kind, sorted_from):
    """Of float64, where a few roundings differ; test_gradients.py compares the one chunk with exact numbers."""
    backend, values, grad = (
        BACKENDS["triton interpreted"],
        group(150, torch.float64, kind)[None],
        random(1, 150).double(),
    )
    for form in ("none", "loo", "loo-1"):
        monkeypatch.setattr(launch, "SORTED_FROM", sorted_from)
        monkeypatch.setattr(launch, "LARGEST", {False: 32, True: 32})
        chunked = backend.transform_backward(grad, values, 3, baseline=form)
        monkeypatch.setattr(launch, "LARGEST", {False: 512, True: 512})
        torch.testing.assert_close(
            chunked, backend.transform_backward(grad, values, 3, baseline=form), rtol=0, atol=1e-15
        )


def test_a_workspace_that_holds_anything_reaches_nothing_outside(launch, monkeypatch):
    """As where offsets fall and groups write over each other's part of it."""
    monkeypatch.setattr(launch, "SORTED_FROM", 33)
    monkeypatch.setattr(torch.Tensor, "sort", lambda x, dim: (x, torch.full_like(x, 2**20, dtype=torch.int64)))
    around = torch.zeros(3 * 2**20)
    values = around[2**20 : 2**20 + 50][None]
    y = BACKENDS["triton interpreted"].transform(values, 2)
    assert y.shape == (1, 50) and not around.any()


def test_flags_are_in_the_kernels_order():
    """A compiled kernel takes them by their place."""
    from pkpo_kernels.triton import launch

    flags = launch.flags_of("transform", "loo-1", "float32", False, False, False)
    for kernel, _, own in (launch.group_kernel(flags, "float32", 4, True, 1), launch.large_kernel(flags, True)):
        assert kernel.arg_names[-len(own) :] == list(own)

"""Triton's kernel of large groups in its interpreter, with chunks so small that groups of a few hundred samples are sorted in
several, merged, and weighed across their borders."""

import types

import oracle
import pytest
import torch
from backends import BACKENDS
from compare import BOUND, relative_error_of
from samples import x as random
from triton.backends.compiler import GPUTarget

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


@pytest.mark.always
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


def test_machine_code_is_kept_by_what_is_compiled_in(monkeypatch):
    """Compiled for the flags, the device, the types, and whether tensors begin at multiples of 16 bytes; launched with
    whatever numbers."""
    from pkpo_kernels.triton import launch

    compilations, launches = [], []

    class Kernel:
        def __getitem__(self, grid):
            def compile_and_run(*arguments, OP, SIZE, num_warps, **options):
                compilations.append((grid, arguments[2:], SIZE, num_warps))
                return Compiled()

            return compile_and_run

    class Compiled:
        def __getitem__(self, grid):
            return lambda *arguments: launches.append((grid, arguments[2:]))

    driver = types.SimpleNamespace(device=0, get_current_target=lambda: GPUTarget("cuda", 90, 32))
    driver.get_current_device = lambda: driver.device
    monkeypatch.setattr(launch, "INTERPRETED", False)
    monkeypatch.setattr(launch.triton.runtime, "driver", types.SimpleNamespace(active=driver))
    transform = launch.OPS["transform"]
    variant, x, y = launch.Variant(Kernel(), 128, {"OP": transform, "SIZE": 7}), torch.zeros(9), torch.zeros(8)

    variant.launch(3, [x, y], (10, 11))
    assert compilations == [((3,), (10, 11), 7, 4)] and not launches
    variant.launch(5, [x, y], (12, 13))
    variant.launch(6, [y, x], (12, 14))
    assert launches == [((5, 1, 1), (12, 13, transform, 7)), ((6, 1, 1), (12, 14, transform, 7))]
    for others in ([x[1:], y], [x, y.double()], [x, y[1:]]):
        variant.launch(5, others, (12, 15))
    driver.device = 1
    variant.launch(5, [x, y], (12, 16))
    assert len(compilations) == 5 and len(launches) == 2

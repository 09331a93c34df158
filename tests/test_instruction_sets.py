"""The CPU library on every instruction set that the machine has: the same bits from all of them, whichever way a group is
sorted, and the choice between them."""

import hashlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from backends import CPU
from compare import BOUND, relative_error_of
from test_choice import python
from test_promises import identical

import pkpo_kernels
import pkpo_kernels.numpy as pk
from pkpo_kernels import _backends
from pkpo_kernels import _numpy as numpy_module

every_isa = pytest.mark.parametrize("cpu", CPU.values(), ids=CPU)
SIZES = (1, 2, 3, 5, 8, 9, 16, 17, 31, 33, 64, 65, 100, 129, 257, 512, 513, 1000, 1025, 2048, 2049, 3000, 5000, 8193)


def batch(groups, n, dtype=torch.float32, seed=0):
    """Groups of every kind side by side: normal, with ties, of two values, with absent samples, with infinite ones."""
    generator = torch.Generator().manual_seed(seed + n)
    x = torch.randn(groups, n, generator=generator, dtype=torch.float64)
    x[1::6] = (2 * x[1::6]).round()
    x[2::6] = (x[2::6] > 0).double()
    x[3::6][torch.rand(x[3::6].shape, generator=generator) < 0.3] = torch.nan
    x[4::12][torch.rand(x[4::12].shape, generator=generator) < 0.2] = torch.inf
    x[5::6] = torch.where(x[5::6] > 0.5, 2.5, -1.0)
    return x.to(dtype)


def gradients(x, seed=0):
    """Of very different sizes, so that the order in which they are added shows in the bits."""
    generator = torch.Generator().manual_seed(seed)
    exponent = torch.randint(-20, 20, x.shape, generator=generator)
    return (torch.randn(x.shape, generator=generator, dtype=torch.float64) * 2.0**exponent).to(x.dtype)


def runs(k):
    """Everything that has a result for a group."""
    for form in ("none", "loo", "loo-1"):
        yield f"transform {form}", lambda cpu, x, g, form=form: cpu.transform(x, k, baseline=form)
        yield f"backward {form}", lambda cpu, x, g, form=form: cpu.transform_backward(g, x, k, baseline=form)
    yield "max_at_k", lambda cpu, x, g: cpu.max_at_k(x, k)
    yield "max_at_k backward", lambda cpu, x, g: cpu.max_at_k_backward(g[..., 0].contiguous(), x, k)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_all_give_the_same_bits(dtype):
    first, *others = CPU.values()
    for n in SIZES:
        x = batch(20, n, dtype)
        g = gradients(x)
        for name, run in runs(torch.tensor(min(3, n))):
            expected = run(first, x, g)
            for other in others:
                assert identical(run(other, x, g), expected), (n, name)


def test_all_give_the_same_bits_of_ragged_groups():
    first, *others = CPU.values()
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(0, 90, (300,), generator=generator)
    lengths[::50] = torch.tensor([200, 700, 1024, 1025, 130, 2049])
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    k = torch.randint(1, 100, (300,), generator=generator)
    x = batch(1, int(offsets[-1]))[0].round(decimals=1)
    x[torch.rand(x.shape, generator=generator) < 0.1] = torch.nan
    g = gradients(x)
    for form in ("none", "loo", "loo-1"):
        y = first.transform(x, offsets, k, baseline=form)
        gx = first.transform_backward(g, x, offsets, k, baseline=form)
        for other in others:
            assert identical(other.transform(x, offsets, k, baseline=form), y)
            assert identical(other.transform_backward(g, x, offsets, k, baseline=form), gx)
        for i in range(0, 300, 7):  # and of each group by itself
            part = slice(int(offsets[i]), int(offsets[i + 1]))
            if lengths[i] > 0:
                alone = first.transform(x[part], k[i], baseline=form)
                assert identical(alone, y[part]), (i, lengths[i], k[i])
                assert identical(first.transform_backward(g[part], x[part], k[i], baseline=form), gx[part])
    assert all(identical(cpu.max_at_k(x, offsets, [1, 5]), first.max_at_k(x, offsets, [1, 5])) for cpu in others)


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_group_alone_has_the_bits_it_has_in_a_batch(cpu, dtype):
    """Alone it fills one lane, or is sorted by itself; of two values it is counted only where all beside it are."""
    for n in SIZES:
        x = batch(20, n, dtype)
        g = gradients(x)
        for name, run in runs(torch.tensor(min(3, n))):
            together = run(cpu, x, g)
            for i in range(0, 20, 3):
                assert identical(run(cpu, x[i], g[i]), together[i]), (n, name, i)


@every_isa
def test_every_n_up_to_130(cpu):
    """Each number of samples has a network of its own, or fills one up."""
    for n in range(13, 131):
        x = batch(24, n, seed=1)[[0, 1, 3]]
        for form, k in (("loo-1", 4), ("loo", n // 2), ("none", n)):
            y = cpu.transform(x, k, baseline=form)
            for values, got in zip(x.tolist(), y):
                values = [None if value != value else value for value in values]
                if n % 8 in (0, 1, 7) or form == "loo-1":
                    assert relative_error_of(got, oracle.transform(values, k, form)) <= BOUND[torch.float32], (n, form)


@every_isa
def test_networks_of_many_columns(cpu):
    """Whatever part of a merge is not there. For k = 2 the weights are 2 q / (n (n - 1)), so that NumPy can tell."""
    random = np.random.default_rng(0)
    for n in range(36, 8193, 28):
        x = (random.permuted(np.tile(np.arange(n), (16, 1)), axis=1) ** 2.0).astype(np.float32)
        g = random.standard_normal(x.shape).astype(np.float32)
        order = x.argsort(axis=1)
        weighed = 2 * np.arange(n) / (n * (n - 1))
        gaps = np.diff(np.take_along_axis(x, order, 1).astype(np.float64), axis=1, prepend=0)
        above = np.take_along_axis(g, order, 1).astype(np.float64)[:, ::-1].cumsum(axis=1)[:, ::-1]
        y = cpu.transform(torch.from_numpy(x), 2).numpy()
        expected = (weighed * gaps).cumsum(axis=1)
        assert np.abs(np.take_along_axis(y, order, 1) - expected).max() <= 1e-6 * expected.max(), n
        gx = cpu.transform_backward(torch.from_numpy(g), torch.from_numpy(x), 2).numpy()
        expected = -np.diff(weighed * above, axis=1, append=0)
        assert np.abs(np.take_along_axis(gx, order, 1) - expected).max() <= 1e-6 * np.abs(expected).max(), n


@every_isa
def test_gradients_of_very_different_sizes(cpu):
    """2^1000 beside 1 and 2^-1000: where a sum cannot be exact it must still be right."""
    x = torch.arange(8.0, dtype=torch.float64)
    for scale in (1.0, 2.0**1000, 2.0**-1000, 2.0**-1060):
        g = torch.tensor([1.0, -1.0, 0.5, 3.0, -2.0, 1.0, 1.0, 1.0], dtype=torch.float64) * scale
        gx = cpu.transform_backward(g, x, 3)
        exact = oracle.gradient(x.tolist(), g.tolist(), 3, "loo-1")
        assert relative_error_of(gx, exact, scale=Fraction(scale)) <= Fraction(1, 10**13)
    g = torch.tensor([1.0, torch.inf, 0, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert cpu.transform_backward(g, x, 1, baseline="none").isinf().any()


@every_isa
def test_nothing_is_written_behind_a_row(cpu):
    """Rows are written a register at a time; what follows the last one must stay."""
    for n in range(1, 40):
        x = np.random.default_rng(n).standard_normal((19, n)).astype(np.float32)
        memory = np.full(19 * n + 64, 7.0, np.float32)
        name = next(name for name, candidate in CPU.items() if candidate is cpu).split()[1]
        before = numpy_module.isa()
        numpy_module.set_isa(name)
        try:
            pk.transform(x, min(3, n), out=memory[32 : 32 + 19 * n].reshape(19, n), threads=1)
        finally:
            numpy_module.set_isa(before)
        assert (memory[:32] == 7).all() and (memory[32 + 19 * n :] == 7).all()
        y = cpu.transform(torch.from_numpy(x), min(3, n)).numpy()
        assert np.array_equal(memory[32 : 32 + 19 * n].reshape(19, n), y)


@every_isa
def test_the_same_bits_on_every_machine(cpu):
    """As they come out on x86-64 and aarch64, of GCC and Clang. Where the arithmetic changes, so do they; then the changelog
    says so."""
    values, bits = np.random.RandomState(0), hashlib.sha256()  # whose numbers never change
    for n in (*range(2, 70), 100, 128, 500, 1000, 5000, 20_000):
        for dtype in ("float32", "float64", "float16"):
            x, grad = (torch.from_numpy(values.uniform(-2, 2, (3, n)).astype(dtype)) for _ in range(2))
            for k in (1, n // 2, n):
                for baseline in ("none", "loo", "loo-1"):
                    if k < n or baseline != "loo":
                        bits.update(cpu.transform(x, k, baseline=baseline).numpy().tobytes())
                bits.update(cpu.max_at_k(x, k).numpy().tobytes())
                bits.update(cpu.transform_backward(grad, x, k).numpy().tobytes())
    assert bits.hexdigest() == "ea8bddfbbd233cff5692fd2618ec86d6398701d14070b491b94c200da788b67a"


# ----------------------------------------------------------------------------------------------------------- the choice


def test_the_best_is_chosen():
    assert _backends.cpu_isa_in_use() == _backends.available_cpu_isas()[0] == numpy_module.available_isas()[0]
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    for isa, flag in (("avx512", "avx512bw"), ("avx2", "avx2")):
        assert (f" {flag} " in flags) == (isa in _backends.available_cpu_isas())
    assert f"compiled CPU library, {_backends.cpu_isa_in_use()} (" in pkpo_kernels.info()


@pytest.mark.parametrize("isa", _backends.available_cpu_isas())
def test_the_environment_chooses(isa):
    script = "import pkpo_kernels, pkpo_kernels.numpy as n; print(pkpo_kernels.info(), n._numpy.isa(), sep='\\n')"
    printed = python(script, PKPO_CPU_ISA=isa).stdout
    assert f"compiled CPU library, {isa} (" in printed and printed.splitlines()[-1] == isa


def test_one_that_the_machine_does_not_have_is_an_error():
    allowed = ", ".join(_backends.available_cpu_isas())
    message = f'instruction set must be one that this machine has, {allowed}, got "sse9"'
    for module in ("pkpo_kernels", "pkpo_kernels.numpy"):
        failed = python(f"import {module}", PKPO_CPU_ISA="sse9")
        assert failed.returncode == 1 and message in failed.stderr and "PKPO_CPU_ISA" in failed.stderr
    with pytest.raises(RuntimeError, match="pkpo::_cpu_isa: instruction set must be one that"):
        torch.ops.pkpo._cpu_isa("sse9")
    with pytest.raises(ValueError, match="instruction set must be one that"):
        numpy_module.set_isa("sse9")

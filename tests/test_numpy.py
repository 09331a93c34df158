"""The NumPy functions: the same bits as the ops, on arrays of any layout, in a process without torch."""

import subprocess
import sys
import threading
import time

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from test_functional import by_hand

import pkpo_kernels
import pkpo_kernels.numpy as pk

BASELINES = ("none", "loo", "loo-1")
DTYPES = ("float64", "float32", "float16", "bool", "uint8", "int8", "int16", "int32", "int64")


def array(shape, dtype="float32", seed=0):
    values = 3 * np.random.default_rng(seed).standard_normal(shape)
    return values > 0 if dtype == "bool" else np.abs(values).astype(dtype)


def identical(a, b):
    """An array and a tensor, bit for bit."""
    return (
        a.dtype == b.numpy().dtype
        and a.shape == tuple(b.shape)
        and np.ascontiguousarray(a).tobytes() == b.contiguous().numpy().tobytes()
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_same_bits_as_the_ops(dtype):
    x = array((3, 4, 9), dtype)
    tensor = torch.from_numpy(x)
    mask = array((3, 4, 9), "bool", seed=1)
    k = np.arange(1, 13).reshape(3, 4)
    for baseline in BASELINES:
        for objective in ("max", "min"):
            same = {"baseline": baseline, "objective": objective}
            assert identical(pk.transform(x, 3, **same), pkpo_kernels.transform(tensor, 3, **same))
            assert identical(pk.transform(x, k, **same), pkpo_kernels.transform(tensor, torch.from_numpy(k), **same))
            expected = pkpo_kernels.transform(tensor, 3, mask=torch.from_numpy(mask), **same)
            assert identical(pk.transform(x, 3, mask=mask, **same), expected)
    assert identical(pk.max_at_k(x, 3), pkpo_kernels.max_at_k(tensor, 3))
    assert identical(pk.max_at_k(x, k), pkpo_kernels.max_at_k(tensor, torch.from_numpy(k)))
    assert identical(pk.max_at_k(x, [1, 3, 9]), pkpo_kernels.max_at_k(tensor, [1, 3, 9]))
    assert identical(pk.max_at_k(x, [1, 3], objective="min"), pkpo_kernels.max_at_k(tensor, [1, 3], objective="min"))


@given(
    numbers=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    k=st.integers(1, 5),
    baseline=st.sampled_from(BASELINES),
)
def test_ids_and_lengths(numbers, k, baseline):
    x = array(len(numbers), seed=len(numbers))
    tensor = torch.from_numpy(x)
    for ids in (numbers, np.array(numbers), [str(i) for i in numbers]):
        expected = pkpo_kernels.transform(tensor, k, baseline=baseline, group_ids=ids)
        assert identical(pk.transform(x, k, baseline=baseline, group_ids=ids), expected)
        assert identical(pk.max_at_k(x, k, group_ids=ids), pkpo_kernels.max_at_k(tensor, k, group_ids=ids))
    lengths = [len(members) for members in by_hand(numbers).values()]
    expected = pkpo_kernels.transform(tensor, k, baseline=baseline, lengths=lengths)
    assert identical(pk.transform(x, k, baseline=baseline, lengths=lengths), expected)
    several = [1, k, 40]
    assert identical(pk.max_at_k(x, several, lengths=lengths), pkpo_kernels.max_at_k(tensor, several, lengths=lengths))


def layouts(x):
    """The same values, laid out in every way that NumPy has."""
    yield "contiguous", x
    yield "Fortran", np.asfortranarray(x)
    yield "reversed", x[::-1, :, ::-1].copy()[::-1, :, ::-1]
    wide = np.zeros((*x.shape[:2], 3 * x.shape[2]), x.dtype)
    wide[..., 1::3] = x
    yield "strided", wide[..., 1::3]
    yield "swapped axes", x.transpose(2, 0, 1).copy().transpose(1, 2, 0)
    fields = np.zeros(x.shape, np.dtype([("pad", "u1"), ("value", x.dtype)]))
    fields["value"] = x
    yield "unaligned", fields["value"]
    yield "other byte order", x.astype(x.dtype.newbyteorder())
    read_only = x.copy()
    read_only.flags.writeable = False
    yield "read only", read_only


@pytest.mark.parametrize("layout", [name for name, _ in layouts(np.zeros((2, 3, 4)))])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int32"])
def test_layouts(layout, dtype):
    plain = array((3, 4, 9), dtype)
    x = dict(layouts(plain))[layout]
    expected, expected_max = pk.transform(plain, 3), pk.max_at_k(plain, 3)
    np.testing.assert_array_equal(pk.transform(x, 3), expected, strict=True)
    np.testing.assert_array_equal(pk.max_at_k(x, 3), expected_max, strict=True)
    np.testing.assert_array_equal(pk.max_at_k(x, [3, 4])[..., 0], expected_max, strict=True)
    if layout != "read only" and dtype != "int32":
        out = dict(layouts(np.full((3, 4, 9), np.nan, dtype)))[layout]
        if out.dtype == expected.dtype:
            assert pk.transform(x, 3, out=out) is out
            np.testing.assert_array_equal(out, expected)
    # one dimension, strided, with groups of any lengths
    line = np.repeat(plain.reshape(-1), 2)[::2]
    np.testing.assert_array_equal(pk.transform(line, 3, lengths=[9] * 12).reshape(expected.shape), expected)


def test_expanded_groups():
    x = np.broadcast_to(array(9), (5, 9))
    np.testing.assert_array_equal(pk.transform(x, 3), np.broadcast_to(pk.transform(x[0], 3), (5, 9)))


def test_out_over_the_rewards():
    x = array((50, 9))
    expected = pk.transform(x, 3)
    same = x.copy()
    assert pk.transform(same, 3, out=same) is same
    np.testing.assert_array_equal(same, expected)
    binary = (x > 2).astype(np.float32)
    expected = pk.transform(binary, 3)
    np.testing.assert_array_equal(pk.transform(binary, 3, out=binary), expected)
    memory = np.zeros(51 * 9, np.float32)
    memory[: 50 * 9] = x.reshape(-1)
    shifted = memory[9:].reshape(50, 9)  # every group's output lies on the next group's rewards
    pk.transform(memory[: 50 * 9].reshape(50, 9), 3, out=shifted)
    np.testing.assert_array_equal(shifted, pk.transform(x, 3))
    for out, call in (
        (np.empty((50,), np.float32), lambda out: pk.max_at_k(x, 3, out=out)),
        (np.empty((100,), np.float32)[::2], lambda out: pk.max_at_k(x, 3, out=out)),
        (np.empty((2, 50), np.float32).T, lambda out: pk.max_at_k(x, [1, 3], out=out)),
        (np.empty((50 * 9), np.float32), lambda out: pk.transform(x.reshape(-1), 3, group_ids=[7] * 450, out=out)),
    ):
        result = call(out)
        assert result is out
        np.testing.assert_array_equal(result, call(None))


def test_zero_copy():
    """A bulk call on one thread takes no memory of the size of the array beside its output."""
    import tracemalloc

    x, out = array((2000, 64)), np.empty((2000, 64), np.float32)
    tracemalloc.start()
    pk.transform(x, 4, out=out, threads=1)
    pk.transform(np.asfortranarray(x.T).T, 4, out=out, threads=1)
    strided = np.empty((2000, 128), np.float32)[:, ::2]
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    pk.transform(strided, 4, out=out, threads=1)
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert peak < x.nbytes / 100


def test_threads_change_no_bit():
    x = array((4000, 16))
    lengths = np.random.default_rng(0).integers(0, 40, 3200)
    values = array(int(lengths.sum()))
    for threads in (2, 3, 7):
        np.testing.assert_array_equal(pk.transform(x, 3, threads=threads), pk.transform(x, 3, threads=1))
        got = pk.transform(values, 3, lengths=lengths, threads=threads)
        np.testing.assert_array_equal(got, pk.transform(values, 3, lengths=lengths, threads=1))
        np.testing.assert_array_equal(pk.max_at_k(x, [1, 3], threads=threads), pk.max_at_k(x, [1, 3], threads=1))


def test_other_threads_run_meanwhile():
    """The interpreter's lock is released: another Python thread counts on during one long call."""
    x = array((1, 2_000_000), "float64")
    counts, done = [0], threading.Event()

    def count():
        while not done.is_set():
            counts[0] += 1
            time.sleep(0)

    other = threading.Thread(target=count)
    other.start()
    time.sleep(0.05)
    before = counts[0]
    pk.transform(x, 3, threads=1)
    during = counts[0] - before
    done.set()
    other.join()
    assert during > 10


def test_bfloat16():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = array((20, 9)).astype(ml_dtypes.bfloat16)
    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    for objective in ("max", "min"):
        y = pk.transform(x, 3, objective=objective)
        assert y.dtype == x.dtype
        expected = pkpo_kernels.transform(tensor, 3, objective=objective)
        np.testing.assert_array_equal(y.view(np.int16), expected.view(torch.int16).numpy())


def test_without_torch():
    """In a process where torch cannot be imported."""
    script = """
import sys
sys.modules["torch"] = None
import numpy as np
import pkpo_kernels.numpy as pk
print(pk.transform(np.array([[0.0, 1.0, 3.0]]), 2).tolist(), pk.pass_at_k(10, 3, 5), pk.group_by(["b", "a", "b"])[0].tolist())
import pkpo_kernels
print(pkpo_kernels.__version__)
try:
    pkpo_kernels.transform
except ImportError as error:
    print(error)
from pkpo_kernels import __main__
"""
    done = subprocess.run([sys.executable, "-c", script, "info"], capture_output=True, text=True)
    assert "[[0.0, 0.3333333333333333, 1.6666666666666665]] 0.9166666666666666 [0, 2, 1]" in done.stdout, done.stderr
    assert "pkpo_kernels.transform needs torch >= 2.10" in done.stdout
    assert "torch            not importable" in done.stdout


X, V = np.zeros((3, 4)), np.zeros(10)


@pytest.mark.parametrize(
    "call,message",
    [
        (lambda f: f(X, 5), "k must be between 1 and n = 4, got 5"),
        (lambda f: f(X, 0), "k must be between 1 and n = 4, got 0"),
        (lambda f: f(X, 2.0), "k must be integers, got float64"),
        (lambda f: f(X, np.ones(4, int)), r"k must be one integer or one value a group, \(3,\), got shape \(4,\)"),
        (lambda f: f(X, np.array([1, 0, 2])), "k must be at least 1, got 0"),
        (lambda f: f(X, 2, objective="least"), 'objective must be "max" or "min", got \'least\''),
        (lambda f: f(X.astype(complex), 2), "rewards must be float64, .* or int64, got complex128"),
        (lambda f: f(X.astype(str), 2), "rewards must be float64, .* or int64, got <U32"),
        (lambda f: f(X[:, :0], 1), r"rewards must have n >= 1 samples a group, got shape \(3, 0\)"),
        (lambda f: f(X[0, 0], 1), r"rewards must have shape \(..., n\), got an array with no dimension"),
        (lambda f: f(X, 2, mask=X), "mask must be bool, got float64"),
        (lambda f: f(X, 2, mask=X[:2] == 0), r"mask must have shape \(3, 4\), got \(2, 4\)"),
        (lambda f: f(V, 2, lengths=[10], group_ids=[0] * 10), "give group_ids or lengths, not both"),
        (lambda f: f(X, 2, lengths=[4]), r"rewards must have shape \(N,\) with group_ids or lengths, got \(3, 4\)"),
        (lambda f: f(V, 2, lengths=[3, 4]), "lengths must add up to the number of rewards, 10, got 7"),
        (lambda f: f(V, 2, lengths=[12, -2]), "lengths must not be negative, got -2"),
        (lambda f: f(V, 2, lengths=[5.0, 5.0]), "lengths must be integers, got float64"),
        (lambda f: f(V, 2, group_ids=[1, 2]), "group_ids must have one id a reward, 10, got 2"),
        (lambda f: f(X, 2, threads=0), "threads must be an integer of at least 1, got 0"),
        (lambda f: f(X, 2, out=np.zeros(5)), r"out must have shape \(.*\), got \(5,\)"),
        (lambda f: f(X, 2, out=[0.0]), "out must be a NumPy array, got list"),
    ],
)
@pytest.mark.parametrize("name", ["transform", "max_at_k"])
def test_errors(name, call, message):
    with pytest.raises(ValueError, match=f"^pkpo_kernels.numpy.{name}: {message}"):
        call(getattr(pk, name))


def test_more_errors():
    with pytest.raises(ValueError, match='baseline must be "none", "loo" or "loo-1", got \'x\''):
        pk.transform(X, 2, baseline="x")
    with pytest.raises(ValueError, match="k must be between 1 and n - 1 = 3, got 4"):
        pk.transform(X, 4, baseline="loo")
    with pytest.raises(ValueError, match="out must be float64, got float32"):
        pk.transform(X, 2, out=np.zeros((3, 4), np.float32))
    frozen = np.zeros((3, 4))
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out must be writeable"):
        pk.transform(X, 2, out=frozen)
    with pytest.raises(ValueError, match=r"k must be between 1 and n = 4, got \[2, 5\]"):
        pk.max_at_k(X, [2, 5])
    with pytest.raises(ValueError, match=r"k must be at least 1, got \[0\]"):
        pk.max_at_k(X, [0])
    with pytest.raises(ValueError, match=r"^pkpo_kernels.numpy.max_at_k: k must be integers, got float64"):
        pk.max_at_k(X, [2.5])
    for k in ([], [[1, 2]]):
        with pytest.raises(
            ValueError, match=r"^pkpo_kernels.numpy.max_at_k: k must hold at least one integer and no list"
        ):
            pk.max_at_k(X, k)
    with pytest.raises(TypeError, match=r"^pkpo_kernels.numpy.transform: group_ids must be hashable"):
        pk.transform(V, 2, group_ids=[[]] * 10)
    with pytest.raises(
        ValueError, match=r"^pkpo_kernels.numpy.group_by: group_ids must have shape \(N,\), got \(1, 2\)"
    ):
        pk.group_by(np.zeros((1, 2), int))


def test_no_groups():
    nothing = np.zeros(0)
    for keywords in ({"lengths": []}, {"group_ids": []}):
        assert pk.transform(nothing, 2, **keywords).shape == (0,)
        assert pk.max_at_k(nothing, 2, **keywords).shape == (0,)
        assert pk.max_at_k(nothing, [1, 2], **keywords).shape == (0, 2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the process through Linux's /proc")
def test_no_thread_to_be_had():
    """Where memory for further threads' stacks runs out, the calling thread does their pieces."""
    script = """
import sys; sys.modules["torch"] = None
import resource, numpy as np, pkpo_kernels.numpy as pk
x = np.random.default_rng(0).standard_normal((5000, 16))
expected, out = pk.transform(x, 3, threads=1), np.empty_like(x)
resource.setrlimit(resource.RLIMIT_STACK, (2**23, 2**23))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**25, used + 2**25))  # room for some three stacks, not for eighteen
print(np.array_equal(pk.transform(x, 3, threads=19, out=out), expected))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "True", done.stderr

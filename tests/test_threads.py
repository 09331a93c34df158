"""Calls from many threads at once, torch's ops and NumPy's functions: each has the bits that it has alone. Under a Python
without the interpreter's lock too, which importing the package does not bring back."""

import random
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from compare import BOUND, relative_error_of
from oracle import transform as exact_transform
from test_choice import python

import pkpo_kernels
import pkpo_kernels.numpy as pk

THREADS = 4


def jobs():
    """Functions without arguments, each of another n, k and form: what is kept for one serves no other."""
    generator = torch.Generator().manual_seed(0)
    for n in (2, 5, 8, 16, 33, 64, 200, 700, 3000):
        groups = max(1, 6000 // n)
        x = torch.randn(groups, n, generator=generator)
        grad = torch.randn(groups, n, generator=generator)
        offsets = torch.arange(0, groups * n + 1, n)
        ids = torch.randint(groups, (groups * n,), generator=generator)
        for k in {1, n // 2, n}:
            for baseline in ("none", "loo-1") if k == n else ("none", "loo", "loo-1"):
                yield lambda x=x, k=k, baseline=baseline: torch.ops.pkpo.transform(x, k, baseline=baseline)
            yield lambda x=x, k=k: torch.from_numpy(pk.transform(x.numpy(), k))
            yield lambda x=x, k=k, o=offsets: torch.ops.pkpo.transform(x.view(-1), o, torch.tensor(k))
            yield lambda x=x, k=k, g=grad: gradient(x, k, g)
            yield lambda x=x, k=k: torch.ops.pkpo.max_at_k(x.double(), [1, k])
        yield lambda x=x, ids=ids: pkpo_kernels.transform(x.view(-1), 1, group_ids=ids)
        yield lambda ids=ids: torch.from_numpy(pk.group_by([str(i) for i in ids.tolist()])[0])


def gradient(x, k, grad):
    x = x.clone().requires_grad_()
    torch.ops.pkpo.transform(x, k).backward(grad)
    return x.grad


def test_the_same_bits_as_alone():
    every = list(jobs())
    alone = [job() for job in every]
    together = Barrier(THREADS)

    def wrong(thread):
        order = list(range(len(every))) * 4
        random.Random(thread).shuffle(order)
        together.wait()
        return [i for i in order if not torch.equal(every[i](), alone[i])]

    with ThreadPoolExecutor(THREADS) as threads:
        assert list(threads.map(wrong, range(THREADS))) == [[]] * THREADS


def test_they_are_right():
    """Threads that have not called anything yet, and begin at once."""
    x = torch.randn(8, 21, generator=torch.Generator().manual_seed(1))
    exact = [exact_transform([float(value) for value in row], 6, "loo-1") for row in x]
    together = Barrier(THREADS)

    def called(thread):
        together.wait()
        return torch.ops.pkpo.transform(x, 6), torch.from_numpy(pk.transform(x.numpy(), 6))

    with ThreadPoolExecutor(THREADS) as threads:
        for results in threads.map(called, range(THREADS)):
            for y in results:
                assert max(map(relative_error_of, y, exact)) <= BOUND[torch.float32]


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has the lock in any case")
def test_the_lock_stays_away():
    script = "import sys, pkpo_kernels, pkpo_kernels.numpy as pk; pk.pass_at_k(4, 2, 1); print(sys._is_gil_enabled())"
    done = python(script, PYTHONWARNINGS="error")
    assert done.stdout == "False\n", done.stderr

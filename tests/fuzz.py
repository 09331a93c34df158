"""Random calls of everything compiled, made to be run with the sanitizers in: ``make sanitize``. Of the ops and the NumPy
module on the CPU library, or with ``--backend "cuda on cpu"`` of the ops on the CUDA kernels compiled for the CPU.

Arguments of random shapes, strides, dtypes and contents, right ones and wrong ones. A call must give the reference's
result, or raise an error that names the op: never crash, never read out of bounds, never hand out what was not written.
"""

import argparse
import contextlib
import random
import time
from collections import Counter

import numpy as np
import torch
from backends import BACKENDS, Ops

import pkpo_kernels
import pkpo_kernels.numpy as pk
from pkpo_kernels import reference

BASELINES = ("none", "loo", "loo-1")
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
DTYPES += (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


class Fuzzer:
    def __init__(self, seed, ops=None):
        self.ops = ops or Ops()
        self.kinds = [self.dense, self.dense, self.tensor_k, self.grouped, self.grouped, self.curve]
        self.kinds += [] if ops else [self.arrays]
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.seen = Counter()

    def values(self, *shape):
        """Rewards of a random dtype and layout."""
        r = self.random
        x = torch.randn(shape, generator=self.generator, dtype=torch.float64) * 10.0 ** r.randint(-3, 3)
        kind = r.randrange(6)
        if kind == 0:
            x = (x > 0).double()
        elif kind == 1:
            x = x.round().clamp(-2, 2)
        dtype = r.choice(DTYPES)
        x = x.clamp(-100, 100).abs().to(dtype) if dtype == torch.uint8 else x.clamp(-100, 100).to(dtype)
        if dtype.is_floating_point:
            kind = r.randrange(8)
            if kind == 0 and dtype != torch.float16:
                x = x * 3e36  # up to 3e38, so that differences overflow
            elif kind == 1:
                x = x + 1000
            for special, chance in ((torch.nan, 0.3), (torch.inf, 0.05), (-torch.inf, 0.05)):
                if r.random() < chance:
                    x = torch.where(torch.rand(shape, generator=self.generator) < r.random(), special, x).to(dtype)
        return self.laid_out(x)

    def laid_out(self, x):
        """The same tensor with other strides, in a larger memory."""
        if x.dim() == 0 or self.random.random() < 0.4:
            return x
        step = [self.random.randint(1, 3) for _ in x.shape]
        memory = torch.zeros([size * s + 1 for size, s in zip(x.shape, step)], dtype=x.dtype)
        order = self.random.sample(range(x.dim()), x.dim())
        memory = memory.permute(order).contiguous().permute([order.index(d) for d in range(x.dim())])
        view = memory[tuple(slice(0, size * s, s) for size, s in zip(x.shape, step))]
        view.copy_(x)
        return view

    def size(self):
        few, many = self.random.randint(1, 300), self.random.randint(300, 20_000)
        return many if self.random.random() < 0.02 else self.random.choice((0, 1, 1, 2, 3, 5, 8, 16, 17, few, few))

    def k(self, n):
        return self.random.choice((1, 2, self.random.randint(1, max(n, 1)), n, n, self.random.randint(-3, n + 3)))

    def index(self, values):
        return self.laid_out(torch.tensor(values, dtype=self.random.choice((torch.int32, torch.int64))))

    def offsets(self):
        """(offsets, N): mostly right."""
        r = self.random
        lengths = [self.size() for _ in range(r.randint(0, 12))]
        offsets = [0]
        for length in lengths:
            offsets.append(offsets[-1] + length)
        total = offsets[-1]
        if r.random() < 0.3:
            i = r.randrange(len(offsets))
            offsets[i] += r.choice((-1, 1, 1000, -1000, 2**31 - 1 - offsets[i], -(2**31)))
            offsets[i] = max(-(2**31), min(2**31 - 1, offsets[i]))
        return offsets, total

    def call(self):
        kind = self.random.choice(self.kinds)
        try:
            with self.circumstances():
                kind()
            self.seen[f"{kind.__name__}: result"] += 1
        except (RuntimeError, ValueError) as error:
            assert str(error).startswith("pkpo"), error
            self.seen[f"{kind.__name__}: error"] += 1

    @contextlib.contextmanager
    def circumstances(self):
        """Of the CUDA kernels: the batch and the GPU for which they are chosen."""
        with contextlib.ExitStack() as stack:
            if hasattr(self.ops, "small_batches_fit"):
                if self.random.random() < 0.5:
                    stack.enter_context(self.ops.small_batches_fit(self.random.choice((1, 4, 100, 10**6))))
                for context in (self.ops.a_launch_for_each_pass, self.ops.little_shared_memory):
                    if self.random.random() < 0.3:
                        stack.enter_context(context())
            yield

    def compare(self, op, plain, x, *args, grad=None, scale=0.0, **keywords):
        """The op with the reference: its result, or its error raised."""
        grads = () if grad is None else (grad,)
        expected, wrong = outcome(plain, *grads, x, *args, **keywords)
        y, error = outcome(op, *grads, x, *args, **keywords)
        contents_alone = not self.ops.checks_contents and any(isinstance(value, torch.Tensor) for value in args)
        if error or (wrong and not contents_alone):
            assert error and wrong, f"{op}: {error}; the reference: {wrong}"
            raise error
        if not wrong:  # else anything, but read from where there is something
            if grad is None:
                expected = but_for_tiny_weights(y, expected, plain, x, *args, **keywords)
            same(y, expected, scale)
        return y

    def check(self, name, x, *args, **keywords):
        """The op and its gradient."""
        backward, grouped = f"{name}_backward", "_grouped" if len(args) == 2 else ""
        scale = largest(x) if name == "max_at_k" else 0.0
        y = self.compare(getattr(self.ops, name), getattr(reference, name + grouped), x, *args, scale=scale, **keywords)
        if x.dtype.is_floating_point:
            grad = self.laid_out(torch.randn(y.shape, generator=self.generator).to(x.dtype))
            op, plain = getattr(self.ops, backward), getattr(reference, backward + grouped)
            self.compare(op, plain, x, *args, grad=grad, scale=float(grad.abs().sum()), **keywords)

    def either(self, x, *args):
        if self.random.random() < 0.6:
            self.check(
                "transform",
                x,
                *args,
                baseline=self.random.choice((*BASELINES, "loo-1", "lo" if self.random.random() < 0.1 else "loo")),
            )
        else:
            self.check("max_at_k", x, *args)

    def shape(self):
        size = self.size()
        others = self.random.randint(0, 3 if size <= 300 else 1)
        return [self.random.choice((0, 1, 2, 3, 7)) for _ in range(others)] + [size]

    def dense(self):
        shape = self.shape()
        self.either(self.values(*shape), self.k(shape[-1]))

    def tensor_k(self):
        shape = self.shape()
        groups = shape[:-1] if self.random.random() < 0.9 else shape
        k = torch.zeros(groups if self.random.random() < 0.7 else ()).long().apply_(lambda _: abs(self.k(shape[-1])))
        self.either(self.values(*shape), self.laid_out(k.to(self.random.choice((torch.int32, torch.int64)))))

    def grouped(self):
        offsets, total = self.offsets()
        groups = len(offsets) - 1
        if self.random.random() < 0.5:
            k = self.index(abs(self.k(20)) + (self.random.random() < 0.9))
        else:
            k = self.index([abs(self.k(20)) + (self.random.random() < 0.99) for _ in range(groups)])
        self.either(self.values(total), self.index(offsets), k)

    def curve(self):
        shape = self.shape()
        x, ks = self.values(*shape), [self.k(shape[-1]) for _ in range(self.random.randint(1, 4))]
        if self.random.random() < 0.5:
            self.compare(self.ops.max_at_k, reference.max_at_k_curve, x, ks, scale=largest(x))
        else:
            offsets, total = self.offsets()
            x, offsets = self.values(total), self.index(offsets)
            plain = reference.max_at_k_curve_grouped
            self.compare(self.ops.max_at_k, plain, x, offsets, ks, scale=largest(x))

    def arrays(self):
        """The NumPy module on any strides, negative ones too, and into any; beside the op."""
        r = self.random
        shape = self.shape()
        tensor = self.values(*shape)
        if tensor.dtype == torch.bfloat16:
            tensor = tensor.float()
        flips = tuple(slice(None, None, r.choice((1, -1))) for _ in shape)
        x = tensor.numpy()[flips]
        tensor = torch.from_numpy(x.copy(order="C"))
        keywords = {"objective": r.choice(("max", "min"))}
        k = self.k(shape[-1])
        if r.random() < 0.4:
            x, tensor = x.reshape(-1), tensor.reshape(-1)
            ids = [r.randrange(5) for _ in range(len(x) + (r.random() < 0.1))]
            keywords["group_ids"] = r.choice((ids, np.array(ids, dtype=np.int64), [str(i) for i in ids]))
            k = abs(k) + 1
        threads = r.choice((1, 2))
        if r.random() < 0.5:
            y = pkpo_kernels.transform(tensor, k, **keywords)
            out = self.laid_out(torch.empty_like(y)).numpy()
            got = pk.transform(x, k, threads=threads, out=out if r.random() < 0.5 else None, **keywords)
        else:
            k = [abs(k), 1, 2] if r.random() < 0.3 else k
            y = pkpo_kernels.max_at_k(tensor, k, **keywords)
            out = self.laid_out(torch.empty_like(y)).numpy()
            got = pk.max_at_k(x, k, threads=threads, out=out if r.random() < 0.5 else None, **keywords)
        assert np.array_equal(got, y.numpy(), equal_nan=True)


def outcome(function, *args, **keywords):
    """(result, None) or (None, error)"""
    try:
        return function(*args, **keywords), None
    except (RuntimeError, ValueError) as error:
        return None, error


def but_for_tiny_weights(y, expected, plain, x, *args, **keywords):
    """An infinite reward whose weight, or what it is formed from, is below the smallest normal number may count nothing:
    there, y."""
    if not x.isinf().any():
        return expected
    weights = plain(torch.where(x.isfinite(), 0.0, x.clamp(-1, 1)).double(), *args, **keywords)
    tiny = torch.finfo(torch.promote_types(x.dtype, torch.float32)).tiny
    return torch.where(expected.isinf() & (weights.abs() < 1e3 * tiny), y, expected)


def largest(x):
    """Of its finite values."""
    finite = x[x.isfinite()]
    return float(finite.double().abs().max()) if finite.numel() else 0.0


def same(y, expected, scale=0.0):
    """Close at the precision of the dtype; infinite and absent at the same places."""
    assert y.dtype == expected.dtype and y.shape == expected.shape
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-5}.get(y.dtype, 1e-2)
    atol = tolerance * (largest(expected) + scale) + 1e-30
    torch.testing.assert_close(y, expected, rtol=0, atol=atol, equal_nan=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", choices=BACKENDS, help="of tests/backends.py; otherwise what serves the CPU")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    fuzzer, end = Fuzzer(arguments.seed, BACKENDS.get(arguments.backend)), time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        fuzzer.call()
    name = arguments.backend or pkpo_kernels.__path__[0]
    print(f"{sum(fuzzer.seen.values())} random calls of {name}, seed {arguments.seed}: all right")
    for what, count in sorted(fuzzer.seen.items()):
        print(f"  {what:<18} {count:>8}")
    assert len(fuzzer.seen) == 2 * len(set(fuzzer.kinds)), "every kind of call both succeeded and failed"


if __name__ == "__main__":
    main()

"""Kinds of rewards that the ops must get right; each gives n values as float64, seeded."""

import torch


def _generator(n):
    return torch.Generator().manual_seed(n)


def gaussian(n):
    return torch.randn(n, generator=_generator(n), dtype=torch.float64)


def binary(n):
    return (torch.rand(n, generator=_generator(n)) < 0.3).double()


def few_ones(n):
    x = torch.zeros(n, dtype=torch.float64)
    x[torch.randperm(n, generator=_generator(n))[: min(8, n)]] = 1
    return x


def ties(n):
    return torch.randint(-2, 4, (n,), generator=_generator(n)).double()


def ascending(n):
    return torch.arange(n, dtype=torch.float64) / 7


def descending(n):
    return -ascending(n)


def equal(n):
    return torch.full((n,), 0.7, dtype=torch.float64)


def offset(n):
    """A constant 10^6 times the spread."""
    return torch.rand(n, generator=_generator(n), dtype=torch.float64) + 1e6


def huge(n):
    return gaussian(n) * 1e30


def mixed(n):
    """Sixty powers of ten in one group."""
    exponent = torch.randint(-30, 30, (n,), generator=_generator(n)).double()
    return gaussian(n) * 10.0**exponent


def subnormal(n):
    """Of float32 on the way in, of float64 too where they are made for it: see `for_dtype`."""
    return torch.randint(-50, 50, (n,), generator=_generator(n)).double() * 2.0**-149


KINDS = (gaussian, binary, few_ones, ties, ascending, descending, equal, offset, huge, mixed, subnormal)


def for_dtype(kind, n, dtype):
    x = kind(n)
    if kind is subnormal and dtype == torch.float64:
        x = x * 2.0**-925
    return x.to(dtype)

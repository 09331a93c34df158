"""Sorting the groups of a program: a bitonic network over the hypercube (Batcher, 1968), of a reward's order and the number
of its sample as one integer. All entries of a group differ, so the sorted order is one and the same however it was reached.

Absent samples, NaN, come last.
"""

import triton
import triton.language as tl

from .hypercube import any_of, exchange, previous


@triton.jit
def key_of(x):
    """Integers in the order of the values; NaN above all of them."""
    bits = x + 0.0  # -0 becomes 0
    if x.dtype == tl.float32:
        bits = bits.to(tl.int32, bitcast=True)
        return tl.where(x != x, 0x7FFFFFFF, bits ^ ((bits >> 31) & 0x7FFFFFFF))
    else:
        bits = bits.to(tl.int64, bitcast=True)
        return tl.where(x != x, 0x7FFFFFFFFFFFFFFF, bits ^ ((bits >> 63) & 0x7FFFFFFFFFFFFFFF))


@triton.jit
def value_of(key):
    if key.dtype == tl.int32:
        return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    else:
        return (key ^ ((key >> 63) & 0x7FFFFFFFFFFFFFFF)).to(tl.float64, bitcast=True)


@triton.jit
def takes_smaller(rank, bit: tl.constexpr, stage: tl.constexpr, log_n: tl.constexpr):
    """Of an exchange in the given stage, runs of 2**stage: which ranks keep the smaller. Runs ascend and descend by turns,
    the last one ascends."""
    if stage < log_n:
        return ((rank >> bit) & 1) == ((rank >> stage) & 1)
    else:
        return ((rank >> bit) & 1) == 0


@triton.jit
def order(x, rank, bit: tl.constexpr, stage: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    other = exchange(x, bit, dims)
    return tl.where(takes_smaller(rank, bit, stage, log_n), tl.minimum(x, other), tl.maximum(x, other))


@triton.jit
def sort_integers(x, rank, log_n: tl.constexpr, dims: tl.constexpr):
    for stage in tl.static_range(1, log_n + 1):
        for step in tl.static_range(stage):
            x = order(x, rank, stage - 1 - step, stage, log_n, dims)
    return x


@triton.jit
def order_pairs(key, sample, rank, bit: tl.constexpr, stage: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    other_key = exchange(key, bit, dims)
    other_sample = exchange(sample, bit, dims)
    smaller = (key < other_key) | ((key == other_key) & (sample < other_sample))
    keep = smaller == takes_smaller(rank, bit, stage, log_n)
    return tl.where(keep, key, other_key), tl.where(keep, sample, other_sample)


@triton.jit
def sort_pairs(key, sample, rank, log_n: tl.constexpr, dims: tl.constexpr):
    for stage in tl.static_range(1, log_n + 1):
        for step in tl.static_range(stage):
            key, sample = order_pairs(key, sample, rank, stage - 1 - step, stage, log_n, dims)
    return key, sample


@triton.jit
def sort_by_long_keys(x, sample, rank, log_n: tl.constexpr, dims: tl.constexpr):
    """Values and samples by rank."""
    if x.dtype == tl.float32:
        packed = (key_of(x).to(tl.int64) << 32) | sample.to(tl.int64)
        packed = sort_integers(packed, rank, log_n, dims)
        return value_of((packed >> 32).to(tl.int32)), (packed & 0xFFFFFFFF).to(tl.int32)
    else:
        key, sample = sort_pairs(key_of(x), sample, rank, log_n, dims)
        return tl.where(key == 0x7FFFFFFFFFFFFFFF, float("nan"), value_of(key)), sample


@triton.jit
def sort_by_short_keys(x, sample, rank, log_n: tl.constexpr, dims: tl.constexpr):
    """Samples by rank, of float32: sorted by a key without its last bits, the sample's number in their place."""
    numbers: tl.constexpr = (1 << log_n) - 1
    packed = (key_of(x) & ~numbers) | sample
    return sort_integers(packed, rank, log_n, dims) & numbers


@triton.jit
def are_in_order(x, rank, log_n: tl.constexpr, dims: tl.constexpr):
    """Whether no value, absent ones last, is below the one before it."""
    return any_of(x < previous(x, rank, log_n, dims)) == 0

"""Groups that a program holds in registers: 2**LOG_ROWS groups of up to 2**LOG_N samples, one launch.

rows -> hypercube -> sorted -> weighed -> to their samples
"""

import triton
import triton.language as tl

from .hypercube import any_of, products_from, sum_of_groups
from .sort import are_in_order, sort_by_long_keys, sort_by_short_keys
from .weigh import MAX_AT_K, clamp_k, factors, weigh, weigh_gradient

TRANSFORM = tl.constexpr(0)
MAXIMUM = tl.constexpr(1)
BACKWARD = tl.constexpr(2)

# How float32 rewards are sorted: by the bits that their type has, which leaves room for the sample's number; by the leading
# ones, looking whether that was enough; by all of them. float64 is sorted by all of them.
SHORT = tl.constexpr(0)
SHORT_THEN_LONG = tl.constexpr(1)
LONG = tl.constexpr(2)


@triton.jit
def load_values(pointer, at, is_there, WIDE: tl.constexpr, BOOLEAN: tl.constexpr):
    """Elements as they are weighed, NaN where there is none."""
    x = tl.load(pointer + at, mask=is_there, other=0)
    if BOOLEAN:
        x = x != 0
    x = x.to(tl.float64 if WIDE else tl.float32)
    return tl.where(is_there, x, float("nan"))


@triton.jit
def results_of(y, kind: tl.constexpr, WIDE: tl.constexpr):
    """As elements of the result's type: a zero is never negative, half types are rounded once, from float32."""
    if WIDE == 0:
        y = y.to(tl.float32)
    y = y + 0.0
    if kind == tl.bfloat16:
        # To nearest, ties to even, wherever it runs: the interpreter cuts.
        bits = y.to(tl.int32, bitcast=True)
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        y = tl.where(y == y, rounded, 0x7FC0).to(tl.int16).to(tl.bfloat16, bitcast=True)
    return y.to(kind)


@triton.jit
def store_results(pointer, y, is_there, WIDE: tl.constexpr):
    tl.store(pointer, results_of(y, pointer.dtype.element_ty, WIDE), mask=is_there)


@triton.jit
def extent_of(offsets, group, is_group, width, samples, RAGGED: tl.constexpr):
    """Where groups begin and how many samples they have; never outside of the samples."""
    if RAGGED:
        begin = tl.load(offsets + group, mask=is_group, other=0).to(tl.int64)
        end = tl.load(offsets + group + 1, mask=is_group, other=0).to(tl.int64)
        begin = tl.minimum(tl.maximum(begin, 0), samples)
        return begin, tl.minimum(tl.maximum(end, begin), samples) - begin
    else:
        return group * width, tl.where(is_group, width, 0)


@triton.jit
def k_of(k_tensor, k_value, group, is_group, TENSOR_K: tl.constexpr, K_PER_GROUP: tl.constexpr):
    if TENSOR_K:
        if K_PER_GROUP:
            return tl.load(k_tensor + group, mask=is_group, other=1).to(tl.int64)
        else:
            return tl.load(k_tensor).to(tl.int64) + group * 0
    else:
        return k_value + group * 0


@triton.jit
def weights_of(rank, n, k, FORM: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    w, _ = products_from(factors(rank, n, k, FORM), log_n, dims)
    return w


@triton.jit
def weights(
    nothing, rank, n, k, width, FORM: tl.constexpr, DIFFER: tl.constexpr, LOG_N: tl.constexpr, LOG_ROWS: tl.constexpr
):
    """w by rank. Where all groups of the program have as many samples and the same k, formed once for all of them."""
    DIMS: tl.constexpr = LOG_N + LOG_ROWS
    if DIFFER:
        w = weights_of(rank, n, k, FORM, LOG_N, DIMS)
    else:
        w = tl.zeros([2] * DIMS, tl.float64)
        if any_of((n != width.to(tl.int32)) & (n > 0)):
            w = weights_of(rank, n, k, FORM, LOG_N, DIMS)
        else:
            one_rank = tl.reshape(tl.arange(0, 1 << LOG_N), [1] * LOG_ROWS + [2] * LOG_N) + nothing
            one_n = tl.zeros([1] * DIMS, tl.int32) + width.to(tl.int32)
            one_k = tl.max(tl.reshape(k, [1 << LOG_ROWS]), 0) + one_n * 0
            w = w + weights_of(one_rank, one_n, one_k, FORM, LOG_N, DIMS)
    return w


@triton.jit
def weigh_some(
    nothing,
    first_group,
    group,
    begin,
    size,
    is_ours,
    rewards,
    grad,
    offsets,
    k_tensor,
    out,
    count,
    width,
    samples,
    k_value,
    stride,
    OP: tl.constexpr,
    FORM: tl.constexpr,
    RAGGED: tl.constexpr,
    TENSOR_K: tl.constexpr,
    K_PER_GROUP: tl.constexpr,
    WIDE: tl.constexpr,
    BOOLEAN: tl.constexpr,
    KEYS: tl.constexpr,
    FULL: tl.constexpr,
    LOG_N: tl.constexpr,
    LOG_ROWS: tl.constexpr,
):
    """2**LOG_ROWS groups from this one on, but for those that are not ours; ``group``, ``begin`` and ``size`` are of each.
    ``nothing`` is 0: where the compiler does not know that, what follows from it is computed here, not far ahead in registers
    that other code needs."""
    DIMS: tl.constexpr = LOG_N + LOG_ROWS
    N: tl.constexpr = 1 << LOG_N
    ROWS: tl.constexpr = 1 << LOG_ROWS

    size = tl.where(is_ours, size, 0).to(tl.int32)

    # Rows as they lie in memory, so that neighbouring threads load neighbouring samples.
    flat_group = first_group + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, N)[None, :] + nothing
    if FULL:
        at = first_group * N + (tl.arange(0, ROWS)[:, None] * N + column)
        is_there = (flat_group < count) & (column >= 0)
    else:
        flat_begin, flat_size = extent_of(offsets, flat_group, flat_group < count, width, samples, RAGGED)
        at = flat_begin + column
        is_there = (column < flat_size) & (flat_size <= N)
    x = tl.reshape(load_values(rewards, at, is_there, WIDE, BOOLEAN), [2] * DIMS)

    index = tl.reshape(tl.arange(0, ROWS * N), [2] * DIMS)
    rank = (index & (N - 1)) + nothing
    n = sum_of_groups((x == x).to(tl.int32), LOG_N, DIMS)
    k = clamp_k(k_of(k_tensor, k_value, group, group < count, TENSOR_K, K_PER_GROUP), n, FORM)

    if KEYS == LONG:
        x, sample = sort_by_long_keys(x, rank, rank, LOG_N, DIMS)
    else:
        unsorted = x
        sample = sort_by_short_keys(x, rank, rank, LOG_N, DIMS)
        x = load_values(rewards, begin + sample, sample < size, WIDE, BOOLEAN)
        if KEYS == SHORT_THEN_LONG:
            if are_in_order(x, rank, LOG_N, DIMS) == 0:
                x, sample = sort_by_long_keys(unsorted, rank, rank, LOG_N, DIMS)

    w = weights(nothing, rank, n, k, width, FORM, RAGGED | K_PER_GROUP, LOG_N, LOG_ROWS)
    if OP == BACKWARD:
        if FORM == MAX_AT_K:
            gy = tl.load(grad + group, mask=is_ours, other=0).to(tl.float64)
            gy = tl.where((rank == 0) & (n > 0), gy, 0.0)
        else:
            gy = tl.load(grad + begin + sample, mask=rank < n, other=0).to(tl.float64)
        y = weigh_gradient(x, gy, w, rank, n, k, FORM, LOG_N, DIMS)
    else:
        y = weigh(x, w, rank, n, k, FORM, LOG_N, DIMS)

    if OP == MAXIMUM:
        y = tl.where(n > 0, y, float("nan"))
        store_results(out + group * stride + rank.to(tl.int64) * 0, y, is_ours & (rank == 0), WIDE)
    else:
        y = tl.where((rank < n) & (k > 0), y, 0.0)
        store_results(out + begin + sample, y, sample < size, WIDE)


# Of no integer of a call is anything compiled into a kernel.
INTEGERS = ("count", "width", "samples", "k_value", "stride", "smallest")


@triton.jit(do_not_specialize=INTEGERS)
def weigh_groups(
    rewards,
    grad,
    offsets,
    k_tensor,
    out,
    count: tl.int64,
    width: tl.int64,
    samples: tl.int64,
    k_value: tl.int64,
    stride: tl.int64,
    smallest: tl.int64,
    OP: tl.constexpr,
    FORM: tl.constexpr,
    RAGGED: tl.constexpr,
    TENSOR_K: tl.constexpr,
    K_PER_GROUP: tl.constexpr,
    WIDE: tl.constexpr,
    BOOLEAN: tl.constexpr,
    KEYS: tl.constexpr,
    FULL: tl.constexpr,
    LOG_N: tl.constexpr,
    LOG_ROWS: tl.constexpr,
):
    """Groups of ``smallest`` to 2**LOG_N samples; others are left alone. ``FULL``: every group has 2**LOG_N. ``out`` has one
    value a sample, with MAXIMUM one a group, ``stride`` elements apart; ``grad`` likewise."""
    first_group = tl.program_id(0).to(tl.int64) << LOG_ROWS
    group = first_group + tl.reshape(tl.arange(0, 1 << LOG_ROWS), [2] * LOG_ROWS + [1] * LOG_N)
    begin, size = extent_of(offsets, group, group < count, width, samples, RAGGED)
    is_ours = (group < count) & (size >= smallest) & (size <= (1 << LOG_N))
    if any_of(is_ours) == 0:
        return
    weigh_some(
        0,
        first_group,
        group,
        begin,
        size,
        is_ours,
        rewards,
        grad,
        offsets,
        k_tensor,
        out,
        count,
        width,
        samples,
        k_value,
        stride,
        OP,
        FORM,
        RAGGED,
        TENSOR_K,
        K_PER_GROUP,
        WIDE,
        BOOLEAN,
        KEYS,
        FULL,
        LOG_N,
        LOG_ROWS,
    )

"""Groups of any size, a program each, in chunks of 2**LOG_C ranks: sorted chunk by chunk and merged in a workspace (or sorted
already), then weighed in passes over the chunks, which carry sums from one to the next.
"""

import triton
import triton.language as tl

from .group import BACKWARD, INTEGERS, MAXIMUM, extent_of, k_of, load_values, store_results
from .hypercube import max_of_groups, products_from, sum_of_groups
from .sort import key_of, sort_integers, sort_pairs, value_of
from .weigh import (
    MAX_AT_K,
    clamp_k,
    cut,
    cuts_for,
    end_of,
    factors,
    finite_part,
    gradients_of_gaps,
    has_down,
    infinite_part,
    put_together,
    quotient,
    scan,
    size_of,
    sums_down,
    too_large,
)


@triton.jit
def value_sorted(keys, at, is_there, WIDE: tl.constexpr, SORTED: tl.constexpr):
    """Values by rank, NaN where absent or not there."""
    if SORTED:
        x = tl.load(keys + at, mask=is_there, other=float("nan"))
    elif WIDE:
        key = tl.load(keys + at, mask=is_there, other=0x7FFFFFFFFFFFFFFF)
        x = tl.where(key == 0x7FFFFFFFFFFFFFFF, float("nan"), value_of(key))
    else:
        x = value_of((tl.load(keys + at, mask=is_there, other=0x7FFFFFFFFFFFFFFF) >> 32).to(tl.int32))
    return x


@triton.jit
def sample_sorted(keys, numbers, at, is_there, size, WIDE: tl.constexpr, SORTED: tl.constexpr):
    """Samples by rank, of a group of ``size``. Where offsets fall, groups write over each other's part of the workspace,
    which then holds anything: none reaches outside of its group for that."""
    if WIDE | SORTED:
        sample = tl.load(numbers + at, mask=is_there, other=0).to(tl.int64)
    else:
        sample = tl.load(keys + at, mask=is_there, other=0) & 0xFFFFFFFF
    return tl.minimum(tl.maximum(sample, 0), size - 1)


@triton.jit
def gradient_sorted(
    grad, group, keys, numbers, begin, rank, n, size, FORM: tl.constexpr, WIDE: tl.constexpr, SORTED: tl.constexpr
):
    """Incoming gradients by rank, 0 where absent; of max_at_k the group's, at rank 0."""
    if FORM == MAX_AT_K:
        gy = tl.load(grad + group + rank * 0, mask=(rank == 0) & (n > 0), other=0)
    else:
        sample = sample_sorted(keys, numbers, begin + rank, rank < n, size, WIDE, SORTED)
        gy = tl.load(grad + begin + sample, mask=rank < n, other=0)
    return gy.to(tl.float64)


@triton.jit
def sort_chunks(
    rewards, keys, numbers, begin, size, index, WIDE: tl.constexpr, BOOLEAN: tl.constexpr, LOG_C: tl.constexpr
):
    C: tl.constexpr = 1 << LOG_C
    for chunk in range(0, size, C):
        sample = chunk + index
        x = load_values(rewards, begin + sample, sample < size, WIDE, BOOLEAN)
        if WIDE:
            key, number = sort_pairs(key_of(x), sample.to(tl.int32), index, LOG_C, LOG_C)
            tl.store(numbers + begin + sample, number, mask=sample < size)
        else:
            key = sort_integers((key_of(x).to(tl.int64) << 32) | sample, index, LOG_C, LOG_C)
        tl.store(keys + begin + sample, key, mask=sample < size)


@triton.jit
def merge_runs(keys, numbers, to_keys, to_numbers, begin, size, run, index, WIDE: tl.constexpr, LOG_C: tl.constexpr):
    """Sorted runs of ``run`` entries, a power of two, become runs twice as long: an entry goes behind the entries before it
    in its own run and, found by bisection, in the one beside."""
    C: tl.constexpr = 1 << LOG_C
    for chunk in range(0, size, C):
        place = chunk + index
        is_there = place < size
        key = tl.load(keys + begin + place, mask=is_there, other=0)
        number = index.to(tl.int32)
        if WIDE:
            number = tl.load(numbers + begin + place, mask=is_there, other=0)
        own = place & -run
        beside = own ^ run
        low = place * 0
        high = tl.minimum(tl.maximum(size - beside, 0), run) + low
        width = run
        while width > 0:
            middle = (low + high) >> 1
            asks = is_there & (low < high)
            at = begin + beside + middle
            other = tl.load(keys + at, mask=asks, other=0)
            is_before = other < key
            if WIDE:
                is_before = is_before | ((other == key) & (tl.load(numbers + at, mask=asks, other=0) < number))
            low = tl.where(asks & is_before, middle + 1, low)
            high = tl.where(asks & (is_before == 0), middle, high)
            width = width >> 1
        to = begin + tl.minimum(own, beside) + (place - own) + low
        tl.store(to_keys + to, key, mask=is_there)
        if WIDE:
            tl.store(to_numbers + to, number, mask=is_there)


@triton.jit
def ties_end(keys, begin, size, n, x, ABOVE: tl.constexpr, WIDE: tl.constexpr, SORTED: tl.constexpr):
    """The first rank whose value is not below x, or with ABOVE is above it."""
    low = tl.zeros_like(x).to(tl.int64)
    high = low + n
    width = size
    while width > 0:
        middle = (low + high) >> 1
        asks = low < high
        other = value_sorted(keys, begin + middle, asks, WIDE, SORTED)
        if ABOVE:
            goes_on = other <= x
        else:
            goes_on = other < x
        low = tl.where(asks & goes_on, middle + 1, low)
        high = tl.where(asks & (goes_on == 0), middle, high)
        width = width >> 1
    return low


@triton.jit(do_not_specialize=INTEGERS)
def weigh_large_groups(
    rewards,
    grad,
    offsets,
    k_tensor,
    out,
    keys,
    numbers,
    results,
    carried,
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
    SORTED: tl.constexpr,
    LOG_C: tl.constexpr,
):
    """Groups of ``smallest`` samples or more; others are left alone. SORTED: ``keys`` holds every group's values in
    ascending order, ``numbers`` their samples; else both have room for two numbers a sample (``numbers`` with WIDE alone).
    ``results`` has room for a float64 a sample, ``carried`` for three a chunk: samples / 2**LOG_C + count + 1 of them."""
    C: tl.constexpr = 1 << LOG_C
    ONE: tl.constexpr = [1] * LOG_C
    group = tl.program_id(0).to(tl.int64)
    begin, size = extent_of(offsets, group, group < count, width, samples, RAGGED)
    if (size < smallest) | (group >= count):
        return
    index = tl.reshape(tl.arange(0, C), [2] * LOG_C).to(tl.int64)
    chunk_at = carried + 3 * (begin // C + group)
    nothing = tl.zeros(ONE, tl.float64)
    nowhere = tl.zeros(ONE, tl.int64)

    if SORTED == 0:
        sort_chunks(rewards, keys, numbers, begin, size, index, WIDE, BOOLEAN, LOG_C)
        tl.debug_barrier()
        spare_keys = keys + samples
        spare_numbers = numbers + samples
        run = size * 0 + C
        while run < size:
            merge_runs(keys, numbers, spare_keys, spare_numbers, begin, size, run, index, WIDE, LOG_C)
            tl.debug_barrier()
            keys, spare_keys = spare_keys, keys
            numbers, spare_numbers = spare_numbers, numbers
            run = run * 2

    # How many are present, and for gradients the largest.
    n = tl.zeros(ONE, tl.int64)
    largest = nothing
    for chunk in range(0, size, C):
        rank = chunk + index
        x = value_sorted(keys, begin + rank, rank < size, WIDE, SORTED)
        n = n + sum_of_groups((x == x).to(tl.int32), LOG_C, LOG_C)
        if OP == BACKWARD:  # absent samples come last: n counts all that are present up to here
            gy = gradient_sorted(grad, group, keys, numbers, begin, rank, n, size, FORM, WIDE, SORTED)
            largest = tl.maximum(largest, max_of_groups(size_of(gy), LOG_C, LOG_C))
    k = clamp_k(k_of(k_tensor, k_value, group, group < count, TENSOR_K, K_PER_GROUP) + n * 0, n, FORM).to(tl.int64)
    has_answer = k > 0
    chunks = (size + C - 1) // C

    if OP == BACKWARD:
        first_cut, second_cut = cuts_for(largest, n)
        beyond = nothing + 1
        high_sum = nothing
        low_sum = nothing
        for i in range(0, chunks):
            at = chunks - 1 - i
            rank = at * C + index
            w, all = products_from(factors(rank, n, k, FORM), LOG_C, LOG_C)
            tl.store(chunk_at + 3 * at + nowhere, beyond)
            tl.store(chunk_at + 3 * at + 1 + nowhere, high_sum)
            tl.store(chunk_at + 3 * at + 2 + nowhere, low_sum)
            beyond = beyond * all
            gy = gradient_sorted(grad, group, keys, numbers, begin, rank, n, size, FORM, WIDE, SORTED)
            high, low = cut(gy, first_cut, second_cut)
            high_sum = high_sum + sum_of_groups(high, LOG_C, LOG_C)
            low_sum = low_sum + sum_of_groups(low, LOG_C, LOG_C)
        end = end_of(high_sum + low_sum, n, k, FORM)
        tl.debug_barrier()
        high_below = nothing
        low_below = nothing
        for at in range(0, chunks):
            rank = at * C + index
            beyond = tl.load(chunk_at + 3 * at + nowhere)
            high_above = tl.load(chunk_at + 3 * at + 1 + nowhere)
            low_above = tl.load(chunk_at + 3 * at + 2 + nowhere)
            w, _ = products_from(factors(rank, n, k, FORM), LOG_C, LOG_C)
            gy = gradient_sorted(grad, group, keys, numbers, begin, rank, n, size, FORM, WIDE, SORTED)
            high, low = cut(gy, first_cut, second_cut)
            h, high_below, low_below = gradients_of_gaps(
                high, low, high_below, low_below, high_above, low_above, w * beyond, rank, n, k, FORM, LOG_C, LOG_C
            )
            tl.store(results + begin + rank, h, mask=rank < n)
        tl.debug_barrier()
        for at in range(0, chunks):
            rank = at * C + index
            x = value_sorted(keys, begin + rank, rank < size, WIDE, SORTED)
            sample = sample_sorted(keys, numbers, begin + rank, rank < size, size, WIDE, SORTED)
            is_answer = (rank < n) & has_answer
            first = ties_end(keys, begin, size, n, x, False, WIDE, SORTED)
            after = ties_end(keys, begin, size, n, x, True, WIDE, SORTED)
            gx = tl.load(results + begin + first, mask=is_answer, other=0)
            gx = gx - tl.where(after < n, tl.load(results + begin + after, mask=is_answer & (after < n), other=0), end)
            gx = quotient(gx, tl.maximum(after - first, 1).to(tl.float64))
            store_results(out + begin + sample, tl.where(is_answer, gx, 0.0), rank < size, WIDE)
    else:
        lowest = value_sorted(keys, begin + nowhere, n > 0, WIDE, SORTED)
        x_top = value_sorted(keys, begin + n - 1, n > 0, WIDE, SORTED)
        is_wild = (n > 0) & (too_large(lowest) | too_large(x_top))
        parts = 1 + tl.max(tl.reshape(is_wild.to(tl.int32), [1]), 0)
        for part in range(0, parts):
            top = tl.where(part == 0, finite_part(x_top, is_wild), infinite_part(x_top))
            beyond = nothing + 1
            above = nothing
            for i in range(0, chunks):
                at = chunks - 1 - i
                rank = at * C + index
                w, all = products_from(factors(rank, n, k, FORM), LOG_C, LOG_C)
                tl.store(chunk_at + 3 * at + nowhere, beyond)
                tl.store(chunk_at + 3 * at + 1 + nowhere, above)
                if has_down(k, FORM):
                    gap = gaps(keys, begin, rank, n, part, is_wild, WIDE, SORTED)
                    _, sum = sums_down(gap, w * beyond, rank, n, k, FORM, LOG_C, LOG_C)
                    above = above + sum.to(tl.float64)
                beyond = beyond * all
            tl.debug_barrier()
            below = nothing
            for at in range(0, chunks):
                rank = at * C + index
                beyond = tl.load(chunk_at + 3 * at + nowhere)
                above = tl.load(chunk_at + 3 * at + 1 + nowhere)
                w, _ = products_from(factors(rank, n, k, FORM), LOG_C, LOG_C)
                gap = gaps(keys, begin, rank, n, part, is_wild, WIDE, SORTED)
                y, below = scan(gap, top, w * beyond, rank, n, k, below, above, FORM, LOG_C, LOG_C)
                if part == 1:
                    finite = tl.load(results + begin + rank, mask=rank < n, other=0).to(y.dtype)
                    y = put_together(finite, y, top, is_wild, n, k, FORM)
                tl.store(results + begin + rank, y.to(tl.float64), mask=rank < n)
            tl.debug_barrier()
        if OP == MAXIMUM:
            y = tl.load(results + begin + nowhere, mask=n > 0, other=float("nan"))
            store_results(out + group * stride + nowhere, y, nowhere == 0, WIDE)
        else:
            # Equal rewards get the result of the first of them.
            for at in range(0, chunks):
                rank = at * C + index
                x = value_sorted(keys, begin + rank, rank < size, WIDE, SORTED)
                sample = sample_sorted(keys, numbers, begin + rank, rank < size, size, WIDE, SORTED)
                is_answer = (rank < n) & has_answer
                first = ties_end(keys, begin, size, n, x, False, WIDE, SORTED)
                y = tl.load(results + begin + first, mask=is_answer, other=0)
                store_results(out + begin + sample, y, rank < size, WIDE)


@triton.jit
def gaps(keys, begin, rank, n, part, is_wild, WIDE: tl.constexpr, SORTED: tl.constexpr):
    """Of the finite part of the values, or of the infinite one."""
    x = value_sorted(keys, begin + rank, rank < n, WIDE, SORTED)
    before = value_sorted(keys, begin + rank - 1, (rank < n) & (rank > 0), WIDE, SORTED)
    x = tl.where(part == 0, finite_part(x, is_wild), infinite_part(x))
    before = tl.where(part == 0, finite_part(before, is_wild), infinite_part(before))
    return tl.where((rank < n) & (rank > 0), x - before, 0.0)

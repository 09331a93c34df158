"""Rows of 2, 4, 8, 12, 16, 20 and so on to 512 samples, many of them, with one k and in float32 arithmetic, as rewards mostly
come: programs go over the rows in turns, with coefficients that are formed once, and a thread has 16 samples, or room for
them, that lie one after another, from memory to memory.

The sort moves values alone. Each of its exchanges is kept as a bit; taken back, from the last one to the first, they bring
the results to where the rewards were. Where a reward is absent, infinite or close to it, weigh_some() does the rows of the
program's turn when it is through with the others: a group has the same bits there as here.

What many exchanges have in one block of code is compiled badly: predicates, of which a thread has seven, wait for being
kept, packed into registers, and LLVM has 64 of them packed into an integer. is_so() ends a block.

Registers decide how many warps there are to take turns. The usual way holds a row's values, one coefficient of each, and the
exchanges; what is rare, k = 1 and rows that are not usual, comes from numbers of which the compiler does not know that
they are the same as before, or it would compute all that ahead of the loop and hold it there.
"""

import triton
import triton.language as tl

from .group import INTEGERS, MAXIMUM, any_of, k_of, results_of, store_results, weigh_some, weights_of
from .hypercube import neighbour, previous, sum_of_groups, sums_after, sums_before, value_at
from .sort import takes_smaller
from .weigh import LOO, LOO_1, clamp_k, down_of, down_of_mean, has_down, share_among_equal, too_large, top_of, up_of

# Stands where a row has no sample: above all that are_usual() lets pass, and finite, as its distance from them is.
BEYOND = tl.constexpr(1e38)


@triton.jit
def place_of(thread, piece, item, LOG_N: tl.constexpr, LOG_THREADS: tl.constexpr):
    """Which of the turn's places a sample has, where every row has 2**LOG_N: one of the four of a thread's piece, of which it
    has four. They lie one after another, those of all threads side by side where rows fit into them: then neighbouring
    threads load neighbouring ones."""
    if LOG_N <= 2:
        return (piece << (LOG_THREADS + 2)) + (thread << 2) + item
    else:
        return (thread << 4) + (piece << 2) + item


@triton.jit
def row_of(LOG_N: tl.constexpr, LOG_THREADS: tl.constexpr):
    """Of all samples, as a hypercube."""
    number = tl.reshape(tl.arange(0, 16 << LOG_THREADS), [2] * (LOG_THREADS + 4))
    return place_of(number >> 4, (number >> 2) & 3, number & 3, LOG_N, LOG_THREADS) >> LOG_N


@triton.jit
def where_is(PIECE: tl.constexpr, pointer, width, FULL: tl.constexpr, LOG_N: tl.constexpr, LOG_THREADS: tl.constexpr):
    """Pointers to the samples of every thread's piece, and whether they are there."""
    thread = tl.arange(0, 1 << LOG_THREADS)[:, None]
    place = place_of(thread, PIECE, tl.arange(0, 4)[None, :], LOG_N, LOG_THREADS)
    if FULL:
        return pointer + place, place >= 0
    else:
        N: tl.constexpr = 1 << LOG_N
        return pointer + (place // N * width + place % N), place % N < width


@triton.jit
def load_rows(
    pointer, width, BOOLEAN: tl.constexpr, FULL: tl.constexpr, LOG_N: tl.constexpr, LOG_THREADS: tl.constexpr
):
    """As a hypercube, 0 where there is no sample. What is joined is in one thread."""
    at, is_there = where_is(0, pointer, width, FULL, LOG_N, LOG_THREADS)
    first = tl.load(at, mask=is_there, other=0)
    at, is_there = where_is(1, pointer, width, FULL, LOG_N, LOG_THREADS)
    second = tl.load(at, mask=is_there, other=0)
    at, is_there = where_is(2, pointer, width, FULL, LOG_N, LOG_THREADS)
    third = tl.load(at, mask=is_there, other=0)
    at, is_there = where_is(3, pointer, width, FULL, LOG_N, LOG_THREADS)
    fourth = tl.load(at, mask=is_there, other=0)
    x = tl.permute(tl.join(tl.join(first, third), tl.join(second, fourth)), [0, 2, 3, 1])
    x = tl.reshape(x, [2] * (LOG_THREADS + 4))
    if BOOLEAN:
        x = x != 0
    return x.to(tl.float32)


@triton.jit
def store_rows(pointer, y, width, FULL: tl.constexpr, LOG_N: tl.constexpr, LOG_THREADS: tl.constexpr):
    y = results_of(y, pointer.dtype.element_ty, 0)
    even, odd = tl.split(tl.permute(tl.reshape(y, [1 << LOG_THREADS, 2, 2, 4]), [0, 3, 1, 2]))
    first, third = tl.split(even)
    second, fourth = tl.split(odd)
    at, is_there = where_is(0, pointer, width, FULL, LOG_N, LOG_THREADS)
    tl.store(at, first, mask=is_there)
    at, is_there = where_is(1, pointer, width, FULL, LOG_N, LOG_THREADS)
    tl.store(at, second, mask=is_there)
    at, is_there = where_is(2, pointer, width, FULL, LOG_N, LOG_THREADS)
    tl.store(at, third, mask=is_there)
    at, is_there = where_is(3, pointer, width, FULL, LOG_N, LOG_THREADS)
    tl.store(at, fourth, mask=is_there)


@triton.jit
def is_so(row, samples, number: tl.constexpr):
    """True, of a row of the turn and how many samples there are in all, but the compiler does not know it; nor that it is so
    for one number if it is for another."""
    return row - number < samples


@triton.jit
def kept_as(bit: tl.constexpr, stage: tl.constexpr, log_items: tl.constexpr):
    """The bit that an exchange in a thread is kept as, of 30 for 512 samples. From the upper ones on: LLVM has an integer
    without them packed with another."""
    if stage <= log_items:
        return 1 << (30 - (stage * (stage - 1) // 2 + bit))
    else:
        return 1 << (30 - (log_items * (2 * stage - log_items - 1) // 2 + bit))


@triton.jit
def number_of(bit: tl.constexpr, stage: tl.constexpr, log_items: tl.constexpr):
    """Of an exchange across threads, of 15 for 512 samples."""
    return (stage - log_items) * (stage - log_items - 1) // 2 + bit - log_items


@triton.jit
def keep_across(across, moves, rank, number: tl.constexpr, log_items: tl.constexpr, dims: tl.constexpr):
    """The bits of a thread's samples, half of an integer, which takes the place of one of them: a register for two exchanges,
    not one for every sample."""
    item = rank & ((1 << log_items) - 1)
    bits = sum_of_groups(moves.to(tl.int32) << (item + (number % 2 << log_items)), log_items, dims)
    return tl.where(item == number // 2, across | bits, across)


@triton.jit
def kept_across(across, rank, number: tl.constexpr, log_items: tl.constexpr, dims: tl.constexpr):
    """What keep_across() was told of every sample."""
    item = rank & ((1 << log_items) - 1)
    bits = value_at(across, item, number // 2, log_items, dims)
    return (bits & (1 << (item + (number % 2 << log_items)))) != 0


@triton.jit
def flipped(x, rank, bits: tl.constexpr, log_n: tl.constexpr):
    """Negated where an odd number of these bits of the rank are set."""
    odd = rank & 0
    for bit in tl.static_range(log_n):
        if bits & (1 << bit):
            odd = odd ^ (rank >> bit)
    return x * tl.where((odd & 1) != 0, -1.0, 1.0)


@triton.jit
def order_in_thread(
    x,
    in_thread,
    rank,
    bit: tl.constexpr,
    stage: tl.constexpr,
    log_n: tl.constexpr,
    log_items: tl.constexpr,
    dims: tl.constexpr,
):
    other = neighbour(x, bit, dims)
    smaller = takes_smaller(rank, bit, stage, log_n)
    moves = tl.where(smaller, x > other, x < other)
    x = tl.where(smaller, tl.minimum(x, other), tl.maximum(x, other))
    # Both move or neither: one bit for two.
    both = tl.reshape(tl.max(moves.to(tl.int32), dims - 1 - bit), in_thread.shape) != 0
    return x, tl.where(both, in_thread | kept_as(bit, stage, log_items), in_thread)


@triton.jit
def order_across(x, across, rank, bit: tl.constexpr, stage: tl.constexpr, log_items: tl.constexpr, dims: tl.constexpr):
    """Of values that are negated where the rank has this bit."""
    negated = neighbour(x, bit, dims)
    across = keep_across(across, negated > -x, rank, number_of(bit, stage, log_items), log_items, dims)
    return tl.minimum(x, -negated), across


@triton.jit
def order_stage(
    x, in_thread, across, rank, stage: tl.constexpr, log_n: tl.constexpr, log_items: tl.constexpr, dims: tl.constexpr
):
    """Runs of 2**stage ascend, and descend where the next bit of the rank is set: negated there, if that bit is not in the
    thread, they ascend too. For the next stage's first exchange they are to be negated by that very bit."""
    LOG_RUN: tl.constexpr = log_n if log_n < log_items else log_items  # of the longest that a thread turns round itself
    if (stage >= log_items) & (stage < log_n):
        x = flipped(x, rank, 1 << stage, log_n)
    for step in tl.static_range(stage):
        if stage - 1 - step >= log_items:
            x, across = order_across(x, across, rank, stage - 1 - step, stage, log_items, dims)
            # Negated for this exchange no more, but for the next one, if that is across threads too.
            x = flipped(x, rank, (3 << (stage - 2 - step)) & -(1 << log_items), log_n)
        else:
            x, in_thread = order_in_thread(x, in_thread, rank, stage - 1 - step, stage, LOG_RUN, log_items, dims)
    return x, in_thread, across


@triton.jit
def sort_values(x, rank, row, samples, log_n: tl.constexpr, log_items: tl.constexpr, dims: tl.constexpr):
    """Values by rank, and the exchanges: a bit each, for two samples in a thread and for one across threads."""
    across = tl.zeros_like(x).to(tl.int32)
    in_thread = tl.max(across, dims - 1)
    for stage in tl.static_range(1, log_n + 1):
        if stage < log_items:
            x, in_thread, across = order_stage(x, in_thread, across, rank, stage, log_n, log_items, dims)
        else:
            if is_so(row, samples, stage):
                x, in_thread, across = order_stage(x, in_thread, across, rank, stage, log_n, log_items, dims)
    return x, in_thread, across


@triton.jit
def take_back(
    y, in_thread, across, rank, bit: tl.constexpr, stage: tl.constexpr, log_items: tl.constexpr, dims: tl.constexpr
):
    if bit >= log_items:
        moves = kept_across(across, rank, number_of(bit, stage, log_items), log_items, dims)
    else:
        moves = tl.expand_dims(in_thread & kept_as(bit, stage, log_items), dims - 1 - bit) != 0
    return tl.where(moves, neighbour(y, bit, dims), y)


@triton.jit
def bring_back(
    y, in_thread, across, rank, row, samples, log_n: tl.constexpr, log_items: tl.constexpr, dims: tl.constexpr
):
    """The exchanges of a sort taken back. In groups of 16 and 32 a thread has 80 and 112 pairs to look at."""
    for back in tl.static_range(log_n):
        for bit in tl.static_range(log_n - back):
            if (log_n == 4) | (log_n == 5):
                if is_so(row, samples, 10 + (back * log_n + bit) // 2):
                    y = take_back(y, in_thread, across, rank, bit, log_n - back, log_items, dims)
            else:
                y = take_back(y, in_thread, across, rank, bit, log_n - back, log_items, dims)
    return y


@triton.jit
def first_group_of(turn, count, LOG_ROWS: tl.constexpr):
    """The last turn's rows are the last ones, though some be of the turn before too."""
    return tl.minimum(tl.cast(turn, tl.int64) << LOG_ROWS, count - (1 << LOG_ROWS))


@triton.jit
def are_usual(x):
    """A sum that is moderate has no other terms."""
    return too_large(tl.sum(tl.reshape(tl.abs(x), [x.numel]), 0)) == 0


@triton.jit(do_not_specialize=INTEGERS)
def weigh_rows(
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
    LOG_ITEMS: tl.constexpr,
):
    """2**LOG_ROWS rows or more, so many of them at a time, of 2**LOG_N samples or, not FULL, fewer, a multiple of four; else
    as weigh_groups()."""
    DIMS: tl.constexpr = LOG_N + LOG_ROWS
    LOG_THREADS: tl.constexpr = DIMS - LOG_ITEMS
    N: tl.constexpr = 1 << LOG_N
    ROWS: tl.constexpr = 1 << LOG_ROWS
    # Rows of weigh_some(), whose threads have two samples each, of the longest rows four.
    LOG_FEWER: tl.constexpr = LOG_ROWS - 3 if LOG_ROWS > 3 else 0

    rank = tl.reshape(tl.arange(0, ROWS * N), [2] * DIMS) & (N - 1)
    one_rank = tl.reshape(tl.arange(0, N), [1] * LOG_ROWS + [2] * LOG_N)
    if FULL:
        size = tl.full([], N, tl.int32)
    else:
        size = tl.multiple_of(width.to(tl.int32), 4)
    n = tl.zeros([1] * DIMS, tl.int32) + size
    k = clamp_k(k_of(k_tensor, k_value, n.to(tl.int64), n > 0, TENSOR_K, False), n, FORM)
    w = weights_of(one_rank, n, k, FORM, LOG_N, DIMS)
    zero = tl.zeros([2] * DIMS, tl.float32)
    if FORM != LOO_1:
        down = zero + down_of(w, one_rank, n, k, tl.float32, FORM)
    top = top_of(n, k, FORM).to(tl.float32)
    if (FORM == LOO) | (FORM == LOO_1):
        up = zero + up_of(w, one_rank, n, k, FORM).to(tl.float32)

    turns = ((count + ROWS - 1) >> LOG_ROWS).to(tl.int32)
    left = 0
    for turn in range(tl.program_id(0), turns, tl.num_programs(0)):
        first_group = first_group_of(turn, count, LOG_ROWS)
        x = load_rows(rewards + first_group * size, size, BOOLEAN, FULL, LOG_N, LOG_THREADS)
        if are_usual(x):
            if FULL == 0:
                x = tl.where(rank < n, x, BEYOND)
            x, in_thread, across = sort_values(x, rank, first_group, samples, LOG_N, LOG_ITEMS, DIMS)
            below = previous(x, rank, LOG_N, DIMS)
            gap = x - below
            has_equal = any_of((x == below) & (rank > 0) & (rank < n))
            y = zero
            if FORM != LOO_1:
                after, _ = sums_after(down * gap, LOG_N, DIMS)
                y = top * value_at(x, rank, n - 1, LOG_N, DIMS) - after
            if (FORM == LOO) | (FORM == LOO_1):
                terms = up * gap
                before, _ = sums_before(terms, LOG_N, DIMS)
                y = y + (before + terms)
            if FORM == LOO_1:
                if has_down(k, FORM):
                    same = is_so(first_group, samples, 0)
                    its_x, its_up = tl.where(same, x, 0.0), tl.where(same, up, 0.0)
                    gap = its_x - previous(its_x, rank, LOG_N, DIMS)
                    if FULL == 0:
                        gap = tl.where(rank < n, gap, 0.0)
                    after, _ = sums_after(down_of_mean(its_up, n) * gap, LOG_N, DIMS)
                    y = y - after
            if OP == MAXIMUM:
                at = (first_group + row_of(LOG_N, LOG_THREADS)) * stride
                store_results(out + at, y, rank == 0, 0)
            else:
                if has_equal:
                    y = share_among_equal(y, x, LOG_N, DIMS)
                y = bring_back(y, in_thread, across, rank, first_group, samples, LOG_N, LOG_ITEMS, DIMS)
                store_rows(out + first_group * size, y, size, FULL, LOG_N, LOG_THREADS)
        else:
            left += 1
    if left > 0:
        for turn in range(tl.program_id(0), turns, tl.num_programs(0)):
            first_group = first_group_of(turn, count, LOG_ROWS)
            x = load_rows(rewards + first_group * size, size, BOOLEAN, FULL, LOG_N, LOG_THREADS)
            if are_usual(x) == 0:
                for part in range(1 << (LOG_ROWS - LOG_FEWER)):
                    nothing = tl.where(left > turns + part, 1, 0)
                    its_first = first_group + (part << LOG_FEWER)
                    group = its_first + tl.reshape(tl.arange(0, 1 << LOG_FEWER), [2] * LOG_FEWER + [1] * LOG_N)
                    weigh_some(
                        nothing,
                        its_first,
                        group,
                        group * size,
                        group * 0 + size,
                        group < count,
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
                        LOG_FEWER,
                    )

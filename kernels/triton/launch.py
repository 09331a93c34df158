"""Which kernels a call needs, in which shape, and their launch. Tensors come in, nothing is allocated but what ``empty``
gives; torch is not imported.

Shapes. A thread holds four samples, for gradients, and for float64 in groups of 65 to 128, two: with more, registers spill
(tests/test_triton_compile.py allows none). 128 threads take as many groups as fit; a larger group takes more threads, up to
1,024 samples, for gradients 512. Beyond that a program goes over its group in chunks, in a workspace; rows of more than
8,192 samples come sorted by torch, whose sort uses the whole device for a row. Groups that differ in size have their sizes
known on the device alone: there is a launch for sizes up to twice the mean, and one for every eightfold of it, each leaving
the others' groups alone. Of many rows of up to 512 samples, a power of two or a multiple of four, a thread has 16, and
programs take turns (rows.py).

Nothing but types and flags is compiled into a kernel: neither k nor a number of groups or samples. A compiled kernel is
kept by those and launched past Triton's own look-up; which launches a call needs is kept by its kinds and numbers.
"""

import functools
import os

import triton

from . import group, large, rows, weigh

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
LARGEST = {False: 1024, True: 512}  # of a group that is held in registers; True: for gradients
LARGEST_ROW = 512  # of those that rows.py takes
LOG_ITEMS = 4  # of the samples that a thread has there
SORTED_FROM = 8193
LOG_CHUNK = 14 if INTERPRETED else 9
OPS = {"transform": group.TRANSFORM.value, "max_at_k": group.MAXIMUM.value, "backward": group.BACKWARD.value}
FORMS = {"none": weigh.NONE.value, "loo": weigh.LOO.value, "loo-1": weigh.LOO_1.value, "max_at_k": weigh.MAX_AT_K.value}
# Types whose values leave 13 bits of a float32 free.
SHORT = ("float16", "bfloat16", "bool", "uint8", "int8")
WIDE = ("float64", "int32", "int64")

_variants = {}


def log2_above(n):
    return max(1, (n - 1).bit_length())


def shape_of(log_n, backward, wide, count):
    """(log2 of the groups of a program, threads)."""
    per_thread = 2 if backward or (wide and log_n == 7) else 4
    if INTERPRETED:  # one program after another: few large ones
        return min(max(0, 17 - log_n), (count - 1).bit_length()), 128
    log_rows = max(0, (128 * per_thread).bit_length() - 1 - log_n)
    return log_rows, max(128, (1 << log_n) // per_thread)


def keys_of(dtype, log_n):
    if dtype in SHORT:
        return group.SHORT.value
    return group.SHORT_THEN_LONG.value if dtype not in WIDE and log_n <= 8 else group.LONG.value


def flags_of(op, form, dtype, ragged, tensor_k, k_per_group):
    """What is compiled into either kernel."""
    return {
        "OP": OPS[op],
        "FORM": FORMS[form],
        "RAGGED": ragged,
        "TENSOR_K": tensor_k,
        "K_PER_GROUP": k_per_group,
        "WIDE": dtype in WIDE,
        "BOOLEAN": dtype == "bool",
    }


def group_kernel(flags, dtype, log_n, full, count):
    """(kernel, threads, what is compiled in)."""
    log_rows, threads = shape_of(log_n, flags["OP"] == OPS["backward"], flags["WIDE"], count)
    more = {"KEYS": keys_of(dtype, log_n), "FULL": full, "LOG_N": log_n, "LOG_ROWS": log_rows}
    return group.weigh_groups, threads, flags | more


def shape_of_rows(log_n, count):
    """(log2 of the rows of a turn, threads)."""
    if INTERPRETED:  # as many rows as there may be
        return max(LOG_ITEMS - log_n, min(17 - log_n, count.bit_length() - 1)), 128
    return 7 + LOG_ITEMS - log_n, 128


def rows_kernel(flags, dtype, width, count):
    """(kernel, threads, what is compiled in), or None where it is no call for rows.py."""
    log_n = log2_above(width)
    log_rows, threads = shape_of_rows(log_n, count)
    if flags["OP"] == OPS["backward"] or flags["RAGGED"] or flags["K_PER_GROUP"] or flags["WIDE"]:
        return None
    full = width == 1 << log_n
    if (not full and width % 4) or width > LARGEST_ROW or count < 1 << log_rows:
        return None
    more = {"KEYS": keys_of(dtype, log_n), "FULL": full, "LOG_N": log_n, "LOG_ROWS": log_rows}
    return rows.weigh_rows, threads, flags | more | {"LOG_ITEMS": LOG_ITEMS}


def large_kernel(flags, is_sorted):
    """(kernel, threads, what is compiled in)."""
    threads = 256 if flags["OP"] == OPS["backward"] else 128
    return large.weigh_large_groups, threads, flags | {"SORTED": is_sorted, "LOG_C": LOG_CHUNK}


def most_registers(kernel, flags):
    """Of a thread, on NVIDIA. All that it can have: left to itself, ptxas spills a few in some kernels, so that more threads
    fit. For many rows so few that a multiprocessor holds five, four or three programs of 128 threads, where none spills with
    them: the more warps there are, the more instructions take their turns while others wait."""
    if kernel is not rows.weigh_rows:
        return 255
    log_n, full, form = flags["LOG_N"], flags["FULL"], flags["FORM"]
    if form == FORMS["loo"]:
        return 168 if full and log_n <= 7 else 255
    if log_n <= 3:
        return 128 if form == FORMS["max_at_k"] else 96
    if log_n <= (6 if full else 4):
        return 128
    return 168 if log_n <= (8 if full else 7) else 255


def options_of(kernel, threads, flags, target):
    """For Triton's compiler. No contraction: a group has the same bits in whichever shape it is computed. And gradients it
    shall not optimize: on an H200 some of equal rewards came out wrong, every time, from the machine code of ptxas 12.8 and
    13.0, and right without their optimizations."""
    options = {"num_warps": threads // target.warp_size, "enable_fp_fusion": False}
    if target.backend == "cuda" and threads <= 256:
        options["maxnreg"] = most_registers(kernel, flags)
    if target.backend == "cuda" and flags["OP"] == OPS["backward"]:
        options["ptx_options"] = "--opt-level=0"
    return options


def rooms(ragged, largest, width, samples, count):
    """[(smallest, log2 of the largest)] of the groups of each launch that holds them in registers."""
    if not ragged:
        return [(0, log2_above(width))] if width <= largest else []
    found, smallest = [], 0
    room = log2_above(max(8, min(2 * samples // count, 256)))
    while True:
        found.append((smallest, room))
        smallest = (1 << room) + 1
        if smallest > min(samples, largest):
            return found
        room = min(room + 3, log2_above(min(samples, largest)))


@functools.cache
def processors(device):
    return triton.runtime.driver.active.utils.get_device_properties(device)["multiprocessor_count"]


def most_programs():
    """Of a kernel whose programs take turns: more than the device runs at once."""
    return 1 if INTERPRETED else 8 * processors(triton.runtime.driver.active.get_current_device())


class Variant:
    """A kernel and what is compiled into it: flags, threads; for each device and kind of tensors the machine code."""

    def __init__(self, kernel, threads, flags):
        self.kernel, self.threads, self.flags = kernel, threads, flags
        self.values = tuple(flags.values())
        self.compiled = {}

    def launch(self, programs, tensors, numbers):
        """tensors, then integers, then what is compiled in, in the kernel's order."""
        if INTERPRETED:
            self.kernel[(programs,)](*tensors, *numbers, **self.flags)
            return
        device = triton.runtime.driver.active.get_current_device()
        first = tensors[0]  # stands for what the call does not have, too
        key = (device, kind_of(first), *[None if x is first else kind_of(x) for x in tensors])
        compiled = self.compiled.get(key)
        if compiled is None:
            target = triton.runtime.driver.active.get_current_target()
            options = options_of(self.kernel, self.threads, self.flags, target)
            self.compiled[key] = self.kernel[(programs,)](*tensors, *numbers, **self.flags, **options)
        else:
            compiled[(programs, 1, 1)](*tensors, *numbers, *self.values)


def kind_of(x):
    """What Triton compiles in of a tensor: its type, whether it begins at a multiple of 16 bytes, on AMD whether it ends
    within 2 GB."""
    return x.dtype, x.data_ptr() % 16 == 0, x.untyped_storage().nbytes() < 2**31


def variant(kernel, threads, flags):
    return _variants.setdefault((kernel, threads, *flags.values()), Variant(kernel, threads, flags))


@functools.lru_cache(maxsize=1024)
def launches_in_registers(op, form, dtype, ragged, tensor_k, k_per_group, largest, count, width, samples):
    """[(variant, programs, whether these take turns, size of the smallest group)] of groups that are held in registers."""
    common = flags_of(op, form, dtype, ragged, tensor_k, k_per_group)
    if found := rows_kernel(common, dtype, width, count):
        return [(variant(*found), -(-count // (1 << found[2]["LOG_ROWS"])), True, 0)]
    launches = []
    for smallest, log_n in rooms(ragged, largest, width, samples, count):
        found = group_kernel(common, dtype, log_n, not ragged and width == 1 << log_n, count)
        launches.append((variant(*found), -(-count // (1 << found[2]["LOG_ROWS"])), False, smallest))
    return launches


def enqueue(op, form, dtype, rewards, grad, offsets, k, k_value, out, count, width, stride, empty, sort):
    """One call. ``grad``, ``offsets`` and ``k`` may be None; ``dtype`` is the rewards', by name, which are bytes for bool.
    ``empty(count, dtype)`` makes a workspace, ``sort()`` gives rows of rewards sorted as they are weighed, and their
    samples."""
    ragged, samples = offsets is not None, rewards.numel()
    kinds = op, form, dtype, ragged, k is not None, k is not None and k.dim() > 0
    pointers = [rewards, *(rewards if x is None else x for x in (grad, offsets, k)), out]
    integers = (count, width, samples, k_value, stride)
    largest = LARGEST[op == "backward"]
    for its_variant, programs, in_turns, smallest in launches_in_registers(*kinds, largest, count, width, samples):
        its_variant.launch(min(programs, most_programs()) if in_turns else programs, pointers, (*integers, smallest))
    if (samples if ragged else width) > largest:
        flags, is_sorted = flags_of(*kinds), not ragged and width >= SORTED_FROM
        if is_sorted:
            entries = sort()
        else:
            entries = empty(2 * samples, "int64"), empty(2 * samples if flags["WIDE"] else 1, "int32")
        chunks = (samples >> LOG_CHUNK) + count + 1
        workspace = [*entries, empty(samples, "float64"), empty(3 * chunks, "float64")]
        variant(*large_kernel(flags, is_sorted)).launch(count, pointers + workspace, (*integers, largest + 1))

"""What the CUDA kernels should take, from their machine code: python -m bench estimate [--architecture 90].

For every kind of kernel that does a group in one launch: the instructions that a thread issues for each of its samples, by
what they are for and by the units that execute them, counted in the code that nvcc makes (needs nvcc, but no GPU); the bytes
that have to move; and which of them is the limit on an H200. Shared memory that is accessed in the samples' order, or where
runs are merged, takes as many turns as lanes meet on a bank by chance. For larger groups every pass over them. A limit of
throughput: what waits of its own add is measured (bench/gpu.py). The more warps a multiprocessor holds, of 64 at most, the
more of those waits others fill. Writes bench/results/estimate_sm90.txt.

Counted is the way that a call usually takes: transform of float32, loo-1 with k >= 2, groups of one size that fill their
teams, no absent samples, no ties, no infinite rewards, keys that 32 bits tell apart. It is the shortest way through the
kernel's control flow from the load of one tile to the load of the next that comes by the stages of the work in turn; by those
in a loop as often as the loop runs.
"""

import collections
import functools
import heapq
import math
import re
import subprocess
import tempfile
from fractions import Fraction
from pathlib import Path

from bench import report
from bench.machine import described, in_words
from setup import nvcc

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "kernels" / "cuda"

# Of an H200 (SXM), from NVIDIA's datasheet: 4.8 TB a second of memory, of which a copy is taken to reach nine tenths; 67
# TFLOPS of float32, which count an instruction of a thread twice (multiply and add). A multiprocessor issues as many
# instructions as it can do of those, 128 a clock, but its units do not all keep up (compute capability 9.0 in the CUDA C++
# Programming Guide, "Arithmetic Instructions").
BANDWIDTH = 4.8e12 * 0.9
ISSUED = 67e12 / 2
SHARE = {
    "issue": 1,
    "ALU": 64 / 128,
    "multiply": 64 / 128,
    "float64": 64 / 128,
    "exchange": 32 / 128,
    "convert": 16 / 128,
}

# Beside issuing them: what executes instructions that are not the ALU's (integers, comparisons, minima, selections, votes).
# Nothing that could be the limit for memory, control, uniform registers, and float32, which keeps up with the issue.
UNITS = {
    "issue": "LDG STG LDGSTS LDGDEPBAR DEPBAR LDC S2R S2UR R2UR CS2R FADD FMUL FFMA "
    "BRA BRX BSSY BSYNC BREAK BAR WARPSYNC EXIT NOP",
    "exchange": "LDS STS SHFL",
    "float64": "DADD DMUL DFMA DSETP",
    "convert": "F2F F2I I2F MUFU POPC FLO",
}
UNIT_OF = {name: unit for unit, names in UNITS.items() for name in names.split()}


def unit(name):
    """What executes an instruction, and how many turns of 32 lanes and 4 bytes it takes."""
    name, *how = name.split(".")
    turns = 4 if "128" in how else 2 if "64" in how else 1
    found = UNIT_OF.get(name) or ("issue" if name[0] == "U" else "multiply" if name.startswith("IMAD") else "ALU")
    return found, turns if found == "exchange" else 1


# A multiprocessor of compute capability 9.0: in each of four parts 16,384 registers, which a warp has in pieces of 256; and
# shared memory, of which every block takes 1,024 bytes more than its own.
PARTS, REGISTERS, PIECE = 4, 16384, 256
SHARED, OF_BLOCK = 228 * 1024, 1024


def warps_at_once(code, threads):
    """How many warps of blocks of so many threads a multiprocessor holds; memory asked for at the launch is not counted."""
    of_warp = -(-32 * code.registers // PIECE) * PIECE
    warps = PARTS * (REGISTERS // of_warp)
    of_block = threads // 32
    return min(warps // of_block, SHARED // (code.shared + OF_BLOCK), 64 // of_block) * of_block


SMALL = (1, 2, 4, 8, 16, 32)  # threads of a group that shares a warp; 16 samples each
TINY = (2, 4, 8)  # samples of a group that a thread has
QUICK = (2, 4, 8, 16, 32)  # threads of a group that has one for each sample


@functools.cache
def crowd(lanes):
    """How many of so many lanes, that access as many banks of shared memory at random, meet on the fullest on average."""
    # Of the lanes^lanes ways to choose banks those with at most m on each are lanes! times the coefficient of x^lanes in
    # (1 + x + x^2/2! + ... + x^m/m!)^lanes.
    expected = 0
    for most in range(lanes):
        ways = [Fraction(1)] + [Fraction(0)] * lanes
        for _ in range(lanes):
            ways = [
                sum(ways[have - more] / math.factorial(more) for more in range(min(most, have) + 1))
                for have in range(lanes + 1)
            ]
        expected += 1 - math.factorial(lanes) * ways[lanes] / lanes**lanes
    return float(expected)


def nvcc_version():
    shown = subprocess.run([nvcc(), "--version"], check=True, capture_output=True, text=True).stdout
    return f"nvcc {re.search(r'V([0-9.]+)', shown)[1]}"


def disassemble(source, architecture):
    """Function -> its Code."""
    import triton

    [nvdisasm] = Path(triton.__file__).parent.rglob("nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        flags = ["-std=c++20", "-O3", "-fmad=false", "-lineinfo", f"-arch=sm_{architecture}", f"-I{ROOT / 'kernels'}"]
        flags += ["-Xptxas=-v", '-DPKPO_CUDA_ARCHS=""']
        done = subprocess.run(
            [nvcc(), *flags, "-cubin", str(KERNELS / source), "-o", cubin], check=True, capture_output=True, text=True
        )
        text = subprocess.run([nvdisasm, "-gi", "-c", cubin], check=True, capture_output=True, text=True).stdout
    functions = {part.split()[0]: Code(part) for part in text.split("//--------------------- .text.")[1:]}
    for report_of in done.stderr.split("Compiling entry function '")[1:]:
        code = functions[report_of.split("'")[0]]
        code.registers = int(re.search(r"Used (\d+) registers", report_of)[1])
        code.shared = int((re.search(r"(\d+) bytes smem", report_of) or [0, 0])[1])
    return functions


class Code:
    """The instructions of a kernel, each with the lines of source that it was inlined through, from the kernel inwards."""

    def __init__(self, text):
        self.lines, self.names, self.following = [], [], []
        lines, fresh, labels, jumps = (), False, {}, []
        for line in text.splitlines():
            if line.strip().startswith("//## File"):
                file, number = re.match(r'.*?"([^"]+)", line (\d+)', line).groups()
                lines = ((Path(file).name, int(number)), *(lines if fresh else ()))
                fresh = True
            elif label := re.match(r"(\.L_\w+):", line):
                labels[label[1]] = len(self.names)
            elif found := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\d+ )?([\w.]+)(.*)", line):
                fresh = False
                conditional, name, rest = found.groups()
                target = re.search(r"`\((\.L_\w+)\)", rest)
                # BRA.DIV leads to the way that is taken where a warp has parted: never here.
                jumps.append(target[1] if target and name.startswith("BRA") and name != "BRA.DIV" else None)
                ends = (jumps[-1] or name in ("EXIT", "RET")) and not conditional
                self.following.append([] if ends else [len(self.names) + 1])
                self.lines.append(lines)
                self.names.append(name)
        for following, target in zip(self.following, jumps, strict=True):
            if target:
                following.append(labels[target])

    def find(self, operation, *lines):
        """The instructions of this name, or any, that come from all these lines, if any are told."""
        found = {
            i
            for i, name in enumerate(self.names)
            if operation in (None, name.split(".")[0]) and set(lines) <= set(self.lines[i])
        }
        assert found, (operation, lines)
        return found

    def shortest_way(self, stages):
        """The instructions on the shortest way from one of the first stage to one of the last by those between, in turn."""
        heap = [(1, i, 1) for i in stages[0]]
        best, before = {(i, 1): 1 for i in stages[0]}, {}
        while heap:
            steps, i, stage = heapq.heappop(heap)
            if stage == len(stages):
                way = [(i, stage)]
                while way[-1] in before:
                    way.append(before[way[-1]])
                return [i for i, _ in reversed(way)]
            for following in self.following[i]:
                if following >= len(self.names):
                    continue
                key = following, stage + (following in stages[stage])
                if steps + 1 < best.get(key, math.inf):
                    best[key], before[key] = steps + 1, (i, stage)
                    heapq.heappush(heap, (steps + 1, *key))
        raise ValueError("no way leads through all stages")


@functools.cache
def line(file, text):
    """The one line of a file of kernels that has this text."""
    lines = (KERNELS / file).read_text().split("\n")
    [number] = [i + 1 for i, line in enumerate(lines) if text in line]
    return file, number


def levels_of_sort(code, threads):
    """The stages of a sort in a warp, whose levels and the exchanges of each are loops."""
    exchanging = code.find("SHFL", line("sort.cuh", "e[i] = fminf(e[i], -exchange"))
    merging = code.find("FMNMX", line("sort.cuh", "merge_in_thread<I>(e)"))
    for level in range(1, round(math.log2(threads)) + 1):
        yield from [{min(exchanging)}] * level + [{min(merging)}]


def searched(code, merging, steps):
    """The stages of a merge that is called on this line, of runs in which its place takes so many steps to find."""
    searching = code.find("LDS", merging, line("sort.cuh", "if (less(shelf.get(b + diagonal"))
    return [*([{min(searching)}] * steps), code.find("LDS", merging, line("sort.cuh", "const Entry head = shelf.get"))]


def merge_of(code, merging, items, number):
    """The stages of a merge of a block's warps, the first of them number 0."""
    put = code.find("STS", merging, line("sort.cuh", "shelf.put(thread * I + i"))
    return [put, *searched(code, merging, round(math.log2(32 * items)) + number)]


def way_of_tiny(code, items):
    """From one tile to the next, 8 samples a thread; ties make no difference."""
    load = min(code.find("LDG", line("tiny.cuh", "const auto fetch_next")))
    scan = code.find("FMUL", line("tiny.cuh", "scan(Team<1>(), c, ordered"), line("scan.cuh", "coefficient[i] *="))
    store = sorted(code.find("STG", line("tiny.cuh", "store_results(call, tile")))[: max(8 // items, 2)]
    return code.shortest_way([{load}, scan, *({i} for i in store), {load}])


def way_of_tiny_gradient(code, items):
    """From one tile to the next, 8 samples a thread, where no two rewards of a group are equal."""
    load = min(code.find("LDG", line("tiny_gradient.cuh", "fetch(tile + step);  // while")))
    plain = line("tiny_gradient.cuh", "return coefficient * sum")
    scan = code.find("DMUL", plain, line("tiny_gradient.cuh", "h[i] = times(up[i], above(i))"))
    in_turn = sorted(scan, key=lambda i: len(code.shortest_way([{load}, {i}])))  # of one row after another
    return code.shortest_way([{load}, *({i} for i in in_turn), {load}])


def ways_of_quick(architecture):
    """Of batches with a thread for each sample, where what counts is how long one takes, from its beginning to its end."""
    functions = disassemble("quick.cu", architecture)
    yield f"{'n':>6}{'instructions':>14}{'when rewards are there':>24}{'when ranks are':>16}"
    for lanes in QUICK:
        [code] = [code for name, code in functions.items() if f"quick_groupsILi{lanes}ELb1" in name]
        put = code.find("STS", line("quick.cuh", "sorted[its_rank] = x"))
        scan = code.find("FMUL", line("quick.cuh", "y = sum_up_to(team, coefficient[0] * gap)"))
        store = code.find("STG", line("quick.cuh", "if (is_sample) store_element"))
        way = code.shortest_way([{0}, put, scan, store, code.find("EXIT")])
        there = code.find(None, line("quick.cuh", "if (!team.any(is_sample && !is_in_range(x)))"))
        since = [max(i for i, at in enumerate(way) if at in stage) for stage in (there, put)]
        yield f"{lanes:>6}{len(way):>14}{len(way) - since[0]:>24}{len(way) - since[1]:>16}"


def scan_of(code):
    """Of groups that are plain, where a kernel has code for those alone; else of any."""
    terms = line("scan.cuh", "coefficient[i] *=")
    plain = line("group.cuh", "scan<groups == Groups::usual>(team, c, group.x")
    is_apart = any(plain in lines for lines in code.lines)
    return code.find("FMUL", plain if is_apart else line("group.cuh", "scan_any(team, c, group.x"), terms)


def way_of(code, threads, items, ties):
    """From one tile to the next."""
    if threads == 1 and items in TINY:
        return way_of_tiny(code, items)
    if threads > 32 and items == 32:
        return way_of_two_turns(code, threads, 16)
    if threads <= 32:
        load = code.find("LDGSTS", line("small.cuh", "copy_ahead(to + 4 * kWarp * i"))
        put = code.find("STS", line("warp.cuh", "values[group.sample[i]] = group.x[i]"))
    else:
        load = code.find("LDG", line("rows.cuh", "word[i] = reinterpret_cast<const uint4*>(start)"))
        put = code.find("STS", line("group.cuh", "to[group.sample[i]] = group.x[i]"))
    scan = scan_of(code)
    store = code.find("STG", line("rows.cuh", "store(to + i * 4 * threads"))
    stages = [load]
    if threads >= 8:
        stages += levels_of_sort(code, min(threads, 32))
    if ties:
        stages.append(code.find(None, line("sort.cuh", "any |= x[i - 1] > x[i]")))
    for merge in range(max(0, int(math.log2(threads / 32)))):
        stages += merge_of(code, line("block.cuh", "merge_warps<L>(e"), items, merge)
    if ties:
        find = code.find(None, line("group.cuh", "group.x[i] == (i ? group.x[i - 1] : before)"))
        share = code.find(None, line("scan.cuh", "y[i] = y[i - 1]")), code.find(None, line("scan.cuh", "y[i] = before"))
        stages += [find, scan, *share]
    else:
        stages.append(scan)
    return code.shortest_way([*stages, put, store, load])


def way_of_two_turns(code, threads, items):
    """From one group to the next, of as many samples as fit; each stage of the sort twice, once for each half."""
    load = code.find("LDG", line("rows.cuh", "word[i] = reinterpret_cast<const uint4*>(start)"))
    stages = []
    for _ in range(2):
        stages += [load] * (items // 8) + list(levels_of_sort(code, 32))
        for merge in range(round(math.log2(threads / 32))):
            stages += merge_of(code, line("block.cuh", "merge_warps<L>(e"), items, merge)
        stages.append(code.find("STS", line("two_turns.cuh", "put(both, first + team.thread * I, first)")))
    halves = {"rank": "put(merged, rank, 0)", "kTurn + rank": "both.put(rank + i, merged.get(rank + i))"}
    for rank, put in halves.items():
        merging = line("two_turns.cuh", f"merge_on_shelf<I>(both, 0, kTurn, kTurn, {rank}, e);")
        stages += searched(code, merging, round(math.log2(threads * items)))
        stages.append(code.find("STS", line("two_turns.cuh", put)))
    product = code.find(None, line("two_turns.cuh", "if (team.thread == 0) known.product = product"))
    terms = line("scan.cuh", "coefficient[i] *=")
    sum_up = code.find("FMUL", line("two_turns.cuh", "sums_of(team, c, group.x"), terms)
    scan = code.find("FMUL", line("two_turns.cuh", "scan_any(team, c, group.x"), terms)
    results = code.find("STS", line("two_turns.cuh", "results[both.place(rank0 + i)] = y[i]"))
    put = code.find("STS", line("group.cuh", "if (group.sample[i] < limit)"))
    store = code.find("STG", line("rows.cuh", "store(to + i * 4 * threads"))
    return code.shortest_way([*stages, product, sum_up, scan, results, scan, results, put, store, load])


def way_of_ragged(code, threads, items, kept):
    """From one tile to the next, of groups that have one k and, where their weights are kept, fill their threads."""
    load = code.find("LDG", line("rows.cuh", "word[i] = reinterpret_cast<const uint4*>(start)"))
    scan = scan_of(code)
    if kept:
        samples = code.find("LDS", line("group.cuh", "x[4 * j + i] = pieces"))
        put = code.find("STS", line("warp.cuh", "values[group.sample[i]] = group.x[i]"))
        store = code.find("STG", line("rows.cuh", "store(to + i * 4 * threads"))
        weights = []
    else:
        samples = code.find("LDS", line("group.cuh", "x[i] = number < size"))
        put = code.find("STS", line("group.cuh", "if (group.sample[i] < limit)"))
        store = code.find("STG", line("rows.cuh", "if (at < words) store("))
        weights = [code.find("LDS", line("ragged.cuh", "return steps[i]"))]
    sort = levels_of_sort(code, threads)
    return code.shortest_way([load] * (items // 8) + [samples, *sort, *weights, scan, put, store, load])


def count(code, way, items):
    """Instructions a sample: by what they are for, and by the unit that limits them."""
    parts = {
        line("small.cuh", "fetch(tile + step"): "rows in",
        line("block.cuh", "load_row<L, I>(batch"): "rows in",
        line("small.cuh", "store_row<kWarp, I>(values"): "rows out",
        line("block.cuh", "store_row<L, I>(values"): "rows out",
        line("block.cuh", "merge_warps<L>(e"): "merge",
        line("two_turns.cuh", "merge_on_shelf<I>(both, 0, kTurn, kTurn, rank, e)"): "merge",
        line("two_turns.cuh", "merge_on_shelf<I>(both, 0, kTurn, kTurn, kTurn + rank, e)"): "merge",
        line("two_turns.cuh", "put(both, first + team.thread * I, first)"): "merge",
        line("two_turns.cuh", "put(merged, rank, 0)"): "merge",
        line("two_turns.cuh", "if (is_any) put(both, kTurn + rank, 0)"): "merge",
        line("two_turns.cuh", "both.put(rank + i, merged.get(rank + i))"): "merge",
        line("two_turns.cuh", "sort_in_block<V, true>(team"): "sort in warps",
        line("two_turns.cuh", "set_weights_by_pieces<I>(team, known.shape, group.rank0"): "weights",
        line("two_turns.cuh", "store_row<L, 2 * I>(values"): "rows out",
        line("two_turns.cuh", "put_results(team, low"): "put",
        line("two_turns.cuh", "put_results(team, high"): "put",
        line("two_turns.cuh", "sums_of(team, c, group.x"): "scan",
        line("two_turns.cuh", "scan_any(team, c, group.x"): "scan",
        line("block.cuh", "sort_in_block<V, Memory::narrow>(team"): "sort in warps",
        line("warp.cuh", "sort_group<groups>(team, x, its.first"): "sort",
        line("tiny.cuh", "sort_in_thread(ordered);  // of values alone"): "sort",
        line("tiny.cuh", "scan(Team<1>(), c, ordered"): "scan",
        line("tiny.cuh", "find_results(x, ordered, y, result);  // of a plain group"): "put",
        line("tiny.cuh", "const auto fetch_next"): "rows in",
        line("tiny.cuh", "next.take(batch.dtype"): "rows in",
        line("tiny.cuh", "store_results(call, tile"): "rows out",
        line("tiny_gradient.cuh", "sort_in_thread(sorted);  // of rewards with"): "sort",
        line("tiny_gradient.cuh", "reward[i] == sorted[j].reward ? of_first"): "put",
        line("tiny_gradient.cuh", "fetch(tile + step);  // while"): "rows in",
        line("tiny_gradient.cuh", "next.take(batch.dtype"): "rows in",
        line("tiny_gradient.cuh", "next_gradient.take(batch.dtype"): "rows in",
        line("tiny_gradient.cuh", "store_results(call, tile"): "rows out",
        line("tiny_gradient.cuh", "x, result);  // of a plain group"): "scan",
        line("ragged.cuh", "load_row<kWarp, I>(batch"): "rows in",
        line("ragged.cuh", "store_row<kWarp, I>(values"): "rows out",
        line("ragged.cuh", "return steps[i]"): "weights",
        line("coefficients.cuh", "put_weights(team, own, w)"): "weights",
        line("group.cuh", "scan_any(team, c, group.x"): "scan",
        line("group.cuh", "scan<groups == Groups::usual>(team, c, group.x"): "scan",
        line("warp.cuh", "values[group.sample[i]] = group.x[i]"): "put",
        line("warp.cuh", "put_results(team, group, has_answer"): "put",
        line("block.cuh", "put_results(again, group, shape"): "put",
    }
    at_random = {
        line("warp.cuh", "value[i] = values[sample[i]]"),
        line("block.cuh", "value[i] = values[sample[i]]"),
        line("group.cuh", "to[group.sample[i]] = group.x[i]"),
        line("warp.cuh", "values[group.sample[i]] = group.x[i]"),
        line("warp.cuh", "sample[i] < its.size ? own[sample[i]]"),
        line("group.cuh", "if (group.sample[i] < limit)"),
        line("sort.cuh", "if (less(shelf.get(b + diagonal"),
        line("sort.cuh", "const Entry head = shelf.get"),
    }
    what, units = collections.Counter(), collections.Counter()
    for i in way:
        what[next((part for where, part in parts.items() if where in code.lines[i]), "else")] += 1 / items
        name, turns = unit(code.names[i])
        if code.names[i].startswith(("LDS", "STS")) and at_random & set(code.lines[i]):
            turns *= crowd(32 // turns)
        units["issue"] += 1 / items
        if name != "issue":
            units[name] += turns / items
    return what, units


# Of groups that no block holds: the passes over their tiles (kernels/cuda/radix.cuh, large.cuh), what of a sample of float32
# moves in each, and how often. Of those that sort most instructions come once for a thread's 16 samples of a full tile.
PASSES = [
    ("count, of rewards", 4, 1, None),
    ("scatter, of rewards", 4 + 8, 1, None),
    ("count", 4, 3, "CountDigitsIfLb0"),
    ("scatter", 8 + 8, 3, "ScatterDigitsIfLb0"),
    ("sum", 4, 1, None),
    ("finish", 8 + 4, 1, None),
]


def passes(architecture):
    functions = disassemble("large.cu", architecture)
    yield f"{'pass':<20}{'times':>6}{'bytes':>7}{'instructions':>14}{'ps of work':>12}{'ps of memory':>14}"
    for name, moved, times, kernel in PASSES:
        line = f"{name:<20}{times:>6}{moved:>7}"
        if kernel:
            [code] = [code for function, code in functions.items() if kernel in function]
            _, units = count(code, range(len(code.names)), 16)
            work = max(number / (ISSUED * SHARE[unit]) for unit, number in units.items())
            line += f"{units['issue']:>14.0f}{1e12 * work:>12.2f}{1e12 * moved / BANDWIDTH:>14.2f}"
        else:
            line += f"{'':>26}{1e12 * moved / BANDWIDTH:>14.2f}"
        yield line
    total = sum(moved * times for _, moved, times, _ in PASSES)
    yield f"All of them: {total} bytes, {total / 8:.1f} times those of a copy."


def block_of(threads, items):
    """Threads of a block."""
    return threads if threads > 32 else 64 if items == 32 else 128


def main():
    parser = report.options(__doc__, "groups of up to 256 samples only")
    parser.add_argument("--architecture", default="90")
    arguments = parser.parse_args()
    if not nvcc():
        raise SystemExit("bench.estimate needs nvcc, and there is none here")
    architecture = arguments.architecture
    out = [
        f"Predicted, not measured: float32, loo-1, sm_{architecture}, on an H200. bench/estimate.py says how.",
        f"Compiled with {nvcc_version()}; {in_words(described())}",
    ]
    small = disassemble("small_usual.cu", architecture)
    block = {} if arguments.quick else disassemble("block.cu", architecture)
    ragged = disassemble("ragged.cu", architecture)
    tiny = disassemble("tiny.cu", architecture)
    kinds = [(tiny, f"tiny_groupsILi{items}ELb1", 1, items) for items in TINY]
    kinds += [(small, f"small_groupsIfLi16ELi{threads}ELNS0_2OpE0ELb1", threads, 16) for threads in SMALL]
    in_two_turns = []
    largest = disassemble("small_largest.cu", architecture)
    kinds.append((largest, "small_groupsIfLi32ELi32ELNS0_2OpE0ELb1", 32, 32))
    if block:
        kinds += [
            (block, f"block_groupsIfLi{threads}ELi16ELNS0_2OpE0ELb1", threads, 16) for threads in (64, 128, 256, 512)
        ]
        in_two_turns = [
            (disassemble("two_turns.cu", architecture), "two_turn_groupsIfLi512ELi16ELNS0_2OpE0ELb1", 512, 32)
        ]
    ragged_kinds = [(ragged, "ragged_groupsIfLi16ELNS0_2OpE0ELb1", threads, 16) for threads in SMALL]
    tables = {  # what kernels, the way through them, bytes of memory a sample
        "Rewards that differ:": (kinds + in_two_turns, lambda code, *shape: way_of(code, *shape, ties=False), 8),
        "Rewards with ties, as 0 and 1:": (kinds, lambda code, *shape: way_of(code, *shape, ties=True), 8),
        "Rewards that differ, in groups given by offsets, of one size and aligned:": (
            ragged_kinds,
            lambda code, *shape: way_of_ragged(code, *shape, kept=True),
            8,
        ),
        "Rewards that differ, in groups given by offsets, of nearly as many samples:": (
            ragged_kinds,
            lambda code, *shape: way_of_ragged(code, *shape, kept=False),
            8,
        ),
        "Gradients, of rewards that differ:": (
            [(tiny, f"tiny_gradientsILi{items}E", 1, items) for items in TINY],
            lambda code, _, items: way_of_tiny_gradient(code, items),
            12,
        ),
    }
    copy = 8 / BANDWIDTH
    for heading, (rows, way, moved) in tables.items():
        memory = moved / BANDWIDTH
        table = (
            f"{'n':>6}{'threads':>9}{'registers':>11}{'warps':>7}{'instructions':>14}{'ps of work':>12}{'ps of memory':>14}"
            f"{'of a copy':>11}  limit"
        )
        out += ["", heading, table]
        details = []
        for functions, kind, threads, items in rows:
            [code] = [code for name, code in functions.items() if kind in name]
            of_a_thread = 8 if threads == 1 and items in TINY else items
            what, units = count(code, way(code, threads, items), of_a_thread)
            times = {name: number / (ISSUED * SHARE[name]) for name, number in units.items()} | {"memory": memory}
            limit = max(times, key=times.get)
            work = max(time for name, time in times.items() if name != "memory")
            out.append(
                f"{threads * items:>6}{threads:>9}{code.registers:>11}{warps_at_once(code, block_of(threads, items)):>7}"
                f"{units['issue']:>14.0f}{1e12 * work:>12.2f}{1e12 * memory:>14.2f}{times[limit] / copy:>11.2f}  {limit}"
            )
            details += [
                f"{threads * items:>6}  " + ", ".join(f"{part} {number:.0f}" for part, number in what.most_common()),
                f"{'':>6}  " + ", ".join(f"{name} {number:.0f}" for name, number in units.most_common()),
            ]
        out += [
            "",
            "Instructions a sample, for what; and what executes them (exchange: shared memory, shuffles):",
            *details,
        ]
    out += ["", "Batches with a thread for each sample, instructions of a thread:", *ways_of_quick(architecture)]
    if not arguments.quick:
        out += ["", "Groups of more than 8,192 samples, of any size, for a sample:", *passes(architecture)]
    text = "\n".join(out) + "\n"
    print(text)
    if not arguments.quick:
        (report.RESULTS / f"estimate_sm{architecture}.txt").write_text(text)


if __name__ == "__main__":
    main()

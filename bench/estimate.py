"""What the CUDA kernels should take, from their machine code: python -m bench estimate [--architecture 90].

For every kind of kernel that does a group in one launch: the instructions that a thread issues for each of its samples, by
what they are for, counted in the code that nvcc makes (needs nvcc, but no GPU); the bytes that have to move; and which of the
two is the limit on an H200. For larger groups the bytes. A prediction, written before a GPU has measured anything: what a GPU
measures tests it. Writes bench/results/estimate_sm90.txt.

Counted is the way that a call usually takes: transform of float32, loo-1 with k >= 2, groups of one size that fill their
teams, no absent samples, no ties, no infinite rewards, keys that 32 bits tell apart. Every instruction is attributed to the
lines of source that it was inlined through; lines off that way count nothing, lines in loops as often as the loop runs.
"""

import collections
import math
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench import report
from bench.machine import described, in_words

ROOT = Path(__file__).parent.parent
KERNELS = ROOT / "kernels" / "cuda"

# Of an H200 (SXM), from NVIDIA's datasheet: 4.8 TB a second of memory, of which a copy is taken to reach nine tenths; 67
# TFLOPS of float32, which count an instruction of a thread twice (multiply and add), a multiprocessor having as many lanes
# for them as it issues instructions for.
BANDWIDTH = 4.8e12 * 0.9
THREAD_INSTRUCTIONS = 67e12 / 2
ITEMS = 8


def nvcc():
    return shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"


def nvcc_version():
    shown = subprocess.run([nvcc(), "--version"], check=True, capture_output=True, text=True).stdout
    return f"nvcc {re.search(r'V([0-9.]+)', shown)[1]}"


def disassemble(source, architecture):
    """Function -> [(lines of source from the kernel inwards, instruction)]."""
    import triton

    [nvdisasm] = Path(triton.__file__).parent.rglob("nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernels.cubin"
        flags = ["-std=c++20", "-O3", "-fmad=false", "-lineinfo", f"-arch=sm_{architecture}", f"-I{ROOT / 'kernels'}"]
        subprocess.run(
            [nvcc(), *flags, '-DPKPO_CUDA_ARCHS=""', "-cubin", str(KERNELS / source), "-o", cubin], check=True
        )
        text = subprocess.run([nvdisasm, "-gi", "-c", cubin], check=True, capture_output=True, text=True).stdout
    functions = {}
    for part in text.split("//--------------------- .text.")[1:]:
        lines, fresh, code = (), False, []
        for line in part.splitlines():
            if line.strip().startswith("//## File"):
                file, number = re.match(r'.*?"([^"]+)", line (\d+)', line).groups()
                lines = ((Path(file).name, int(number)), *(lines if fresh else ()))
                fresh = True
            elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?(\S+)", line):
                fresh = False
                code.append((lines, instruction[1]))
        # Behind the last exit stand the ways that are taken where a warp has parted, and divisions of extreme numbers.
        last = max(i for i, (_, name) in enumerate(code) if name.startswith("EXIT"))
        functions[part.split()[0]] = code[: last + 1]
    return functions


class Source:
    """Ranges of lines, found by their text."""

    def __init__(self):
        self.files = {path.name: path.read_text().split("\n") for path in KERNELS.iterdir()}

    def lines(self, file, first, last=None):
        """From the one line that has `first` to the next that has `last`."""
        lines = self.files[file]
        [begin] = [i for i, line in enumerate(lines) if first in line]
        end = begin if last is None else next(i for i in range(begin, len(lines)) if last in lines[i])
        return {(file, i + 1) for i in range(begin, end + 1)}


def rules():
    """[(lines, what for, how often)]: the first counts that has any line of an instruction. What for: None of lines that
    a usual call does not come to. How often they run: a number, or a function of the threads of a group."""
    lines = Source().lines
    merges = lambda threads: math.log2(threads / 32)  # noqa: E731
    searched = lambda threads: merges(threads) * (math.log2(256) + merges(threads) / 2)  # noqa: E731
    return [
        (lines("sort.cuh", "while (low < high)", "return low"), "merge: search", searched),
        (lines("block.cuh", "merge_warps<L>(e"), "merge", merges),
        (lines("small.cuh", "__shared__ __align__(16) V values", "__syncthreads();"), None, 0),
        (lines("block.cuh", "const Team<L> team;", "n_of_w = 0xff"), None, 0),
        (lines("small.cuh", "if (team.any(group.n != n_of_common", "    }"), None, 0),
        (lines("block.cuh", "if (group.n != n_of_w)", "    }"), None, 0),
        (lines("small.cuh", "absent > 0"), None, 0),
        (lines("block.cuh", "if (!sorted) {", "  }"), None, 0),
        (lines("small.cuh", "typename E::Entry e[I]", "// So many blocks"), None, 0),
        (lines("scan.cuh", "if (in_parts) {", "V finite[I]"), None, 0),
        (lines("scan.cuh", "const auto sign", "// "), None, 0),
        (lines("group.cuh", "share_result(team, tied"), None, 0),
        (lines("scan.cuh", "if (team.any(c.shape.has_down", "if (c.shape.has_up"), None, 0),
        (lines("coefficients.cuh", "__device__ double top()", "factor"), None, 0),
        (lines("coefficients.cuh", "scale = ratio(ratio(1, N), N - 1)", "top = "), None, 0),
        # Copies of whole rows: 16 bytes an instruction, counted below.
        (lines("small.cuh", "load_chunk(batch.rewards", "load_element"), None, 0),
        (lines("small.cuh", "store_chunk(values", "store_element"), None, 0),
        (lines("block.cuh", "store_chunk(values"), None, 0),
        (lines("block.cuh", "load_chunk(batch.rewards"), None, 0),
        (lines("device.cuh", "int64_t begin = index_at", "return {begin"), None, 0),  # groups that differ in size
        # Of the other types and forms.
        (lines("device.cuh", "return float_of_half(static", "static_cast<const int16_t"), None, 0),
        (lines("coefficients.cuh", "double>(rank0 + i) * N * scale", "double>(rank0 + i) * scale)"), None, 0),
        (lines("small.cuh", "const int64_t g = tile", "V* own"), "find the groups", 1),
        (lines("small.cuh", "group.n = count_present"), "count", 1),
        (lines("small.cuh", "sort_group<I, L>"), "sort", 1),
        (lines("block.cuh", "sort_in_block<V>(team"), "sort in warps", 1),
        (lines("block.cuh", "unpack<V>(team"), "unpack", 1),
        (lines("group.cuh", "scan_any(team, c, group.x, top"), "scan", 1),
        (lines("group.cuh", "weigh(team, c, group, result)"), "ends, ties", 1),
        (lines("small.cuh", "put_results(group"), "put", 1),
        (lines("block.cuh", "put_results(group"), "put", 1),
    ]


def count(code, threads, table):
    """Instructions a sample, by what they are for."""
    counts = collections.Counter()
    for lines, _ in code:
        for where, what, times in table:
            if not where.isdisjoint(lines):
                if what:
                    counts[what] += times(threads) if callable(times) else times
                break
        else:
            counts["else"] += 1
    counts["rows in, out"] = 4 * ITEMS  # 4 for 16 bytes: where from, where to, load, store
    return {what: number / ITEMS for what, number in counts.items()}


def large_bytes(n):
    """Of a sample in the passes of kernels/cuda/large.cuh: 4 read and an entry of 8 written by the sort of a tile, both ways
    for every merge; the entries read for the weights and the sums; read, and results of 8 written; both read, 4 written."""
    merges = math.ceil(math.log2(n / 4096))
    return (4 + 8) + 16 * merges + 8 + 8 + (8 + 8) + (8 + 8 + 4)


def main():
    parser = report.options(__doc__, "groups of up to 256 samples only")
    parser.add_argument("--architecture", default="90")
    arguments = parser.parse_args()
    architecture = arguments.architecture
    table = rules()
    out = [
        f"Predicted, not measured: float32, loo-1, sm_{architecture}, on an H200. bench/estimate.py says how.",
        f"Compiled with {nvcc_version()}; {in_words(described())}",
        "",
    ]
    out.append(
        f"{'n':>6}{'threads':>9}{'instructions':>14}{'ns of issue':>13}{'ns of memory':>14}{'of a copy':>11}  limit"
    )
    details = []
    small = disassemble("small.cu", architecture)
    block = {} if arguments.quick else disassemble("block.cu", architecture)
    kinds = [(small, f"small_groupsIfLi8ELi{threads}E", threads) for threads in (1, 2, 4, 8, 16, 32)]
    kinds += [(block, f"block_groupsIfLi{threads}E", threads) for threads in (64, 128, 256, 512) if block]
    for functions, kind, threads in kinds:
        [code] = [code for name, code in functions.items() if kind + "LNS0_2OpE0" in name]
        parts = count(code, threads, table)
        instructions = sum(parts.values())
        issue, memory = instructions / THREAD_INSTRUCTIONS, 8 / BANDWIDTH
        limit = "issue" if issue > memory else "memory"
        out.append(
            f"{threads * ITEMS:>6}{threads:>9}{instructions:>14.0f}{1e9 * issue:>13.2e}{1e9 * memory:>14.2e}"
            f"{max(issue, memory) / memory:>11.2f}  {limit}"
        )
        details.append(f"{threads * ITEMS:>6}  " + ", ".join(f"{what} {number:.0f}" for what, number in parts.items()))
    out += ["", "Instructions a sample:", *details]
    out += ["", "Larger groups, bytes a sample over those of a copy (8), where memory is the limit:"]
    out += [f"{n:>10}  {large_bytes(n):>4}  {large_bytes(n) / 8:>5.1f}" for n in (8192, 65536, 10**6, 10**8)]
    text = "\n".join(out) + "\n"
    print(text)
    if not arguments.quick:
        (report.RESULTS / f"estimate_sm{architecture}.txt").write_text(text)


if __name__ == "__main__":
    main()

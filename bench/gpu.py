"""The CUDA kernels, and Triton's, beside their peers, as ratios measured side by side on the GPU that is there: python -m
bench gpu.

Peers: torch's own ops (sort, gather, cumsum, scatter), eager and compiled; ``torch.sort`` of the values alone; a copy of
them on the device; ``torch.neg`` of them; CUB's segmented sort, where there is nvcc; the loop over prompts in NumPy. Bulk
sizes are timed by events around calls that take turns, with inputs that together exceed the cache; small ones as replays of
a captured graph. Writes bench/results/<gpu>.json and .md after every part, and .png at the end: what fails, hangs, breaks
the process that has the GPU, or is not reached, takes nothing else with it.
"""

import contextlib
import multiprocessing
import os
import re
import subprocess
import sys
import time
import traceback
from concurrent import futures
from functools import partial

import torch

import pkpo_kernels
from bench import cub, peers, report
from bench.machine import described
from bench.timing import summary
from bench.worker import Worker
from pkpo_kernels import _choice

K = 2
NAN = float("nan")
SIZES = (2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 10_000, 1_000_000)
BULK_BYTES = 256 << 20
ROTATED_BYTES = 256 << 20  # several times the cache of the largest GPUs
GROWTH = [(10**exponent, n) for n in (16, 256) for exponent in range(7)]  # groups of n, up to 2.6e8 samples
BUSY_CYCLES = 2_000_000  # a millisecond
PART = 60  # seconds after which a part of the benchmark is given up
transform = torch.ops.pkpo.transform
backward = torch.ops.pkpo._transform_backward


def backend_of(function):
    name = getattr(function, "backend", None)
    return pkpo_kernels.use_backend(name) if name else contextlib.nullcontext()


def warm_up(seconds=1.0):
    """Until the clocks of a GPU that had nothing to do are up."""
    x = torch.randn(4096, 4096, device="cuda")
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds:
        x @ x
        torch.cuda.synchronize()


def those_that_work(candidates, attempt):
    """(name -> ``attempt(function)`` of the candidates that it succeeds for, name -> what went wrong of the others). Raises
    where one left this process without a GPU."""
    working, failed = {}, {}
    for name, function in candidates.items():
        try:
            with backend_of(function):
                working[name] = attempt(function)
            torch.cuda.synchronize()
        except Exception as error:
            working.pop(name, None)
            failed[name] = {"failed": described_error(error)}
            traceback.print_exc()
            try:
                torch.cuda.synchronize()
            except Exception:
                raise RuntimeError(f"{name} left no GPU: {described_error(error)}") from error
    return working, failed


def described_error(error):
    return f"{type(error).__name__}: {error}".split("\n")[0][:300]


def time_calls(candidates, inputs, rounds, enqueued=True):
    """candidates: name -> function of one input. Events around each round, a call for every input; by turns. ``enqueued``:
    the device is kept busy until the calls are enqueued, so that their own time on the host does not count. Of one whose
    first call fails there is ``{"failed": why}`` in the place of a timing."""

    def first_call(function):
        function(inputs[0])
        return function

    candidates, failed = those_that_work(candidates, first_call)
    samples = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, function in candidates.items():
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            with backend_of(function):
                if enqueued:
                    torch.cuda._sleep(BUSY_CYCLES)
                begin.record()
                for x in inputs:
                    function(x)
                end.record()
            end.synchronize()
            samples[name].append(begin.elapsed_time(end) / 1e3 / len(inputs))
    return {name: summary(values)._asdict() for name, values in samples.items()} | failed


def time_graphs(candidates, inputs, rounds):
    """The same, of calls captured one after another and replayed: what is left is the device's time."""

    def captured(function):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            function(inputs[0])
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            kept = [function(x) for x in inputs]
        del kept
        return lambda _: graph.replay()

    replays, failed = those_that_work(candidates, captured)
    timings = time_calls(replays, [None], rounds)
    a_call = {
        name: timing if "failed" in timing else {key: value / len(inputs) for key, value in timing.items()}
        for name, timing in timings.items()
    }
    return a_call | failed


def several(make, bytes_each, count=None):
    """Inputs that together exceed the cache."""
    count = count or max(1, min(64, ROTATED_BYTES // max(bytes_each, 1)))
    return [make() for _ in range(count)]


def has_triton():
    return _choice.problems()["triton"] is None


def on_triton(function):
    """A candidate that is timed with Triton as the backend."""
    function.backend = "triton"
    return function


def bulk(n, rounds):
    """256 MB of float32 in groups of n."""
    groups = max(1, BULK_BYTES // 4 // n)
    inputs = several(lambda: torch.randn(groups, n, device="cuda"), 4 * groups * n)
    out = torch.empty_like(inputs[0])
    k = min(K, n)
    offsets, k_tensor = torch.arange(0, groups * n + 1, n, device="cuda"), torch.tensor(k, device="cuda")
    binary = inputs[0] > 0
    zeros_and_ones, half = binary.float(), inputs[0].bfloat16()
    compiled = torch.compile(peers.torch_formulation, dynamic=False)
    torch.compiler.reset()
    return time_calls(
        {
            **({"CUB": lambda x: cub.segmented_sort()(x)} if cub.nvcc() else {}),
            "op": lambda x: transform(x, k),
            "copy": lambda x: out.copy_(x),
            "torch.sort": lambda x: x.sort(-1),
            "torch": lambda x: peers.torch_formulation(x, k),
            "torch compiled": lambda x: compiled(x, k),
            "backward": lambda x: backward(x, x, k),
            **({"Triton": on_triton(lambda x: transform(x, k))} if has_triton() else {}),
            **({"Triton backward": on_triton(lambda x: backward(x, x, k))} if has_triton() else {}),
            "grouped": lambda x: transform(x.view(-1), offsets, k_tensor),
            "bfloat16": lambda _: transform(half, k),
            "bool": lambda _: transform(binary, k),
            "0/1": lambda _: transform(zeros_and_ones, k),
        },
        inputs,
        rounds,
    )


def compile_ahead(n):
    """What takes seconds the first time, into the caches of torch and of Triton."""
    x, k = torch.randn(max(1, BULK_BYTES // 4 // n), n, device="cuda"), min(K, n)
    torch.compile(peers.torch_formulation, dynamic=False)(x, k)
    if has_triton():
        with pkpo_kernels.use_backend("triton"):
            transform(x, k)
            backward(x, x, k)
    torch.cuda.synchronize()


def training(rounds):
    """1,024 prompts of 16 samples: the kernels' time in a graph, and an eager call's; grouped: by offsets."""
    inputs = [torch.randn(1024, 16, device="cuda") for _ in range(50)]
    offsets, k = torch.arange(0, 1024 * 16 + 1, 16, device="cuda"), torch.tensor(4, device="cuda")
    ours = {"op": lambda x: transform(x, 4), "grouped": lambda x: transform(x.view(-1), offsets, k)}
    triton = {"Triton": on_triton(lambda x: transform(x, 4))} if has_triton() else {}
    graphs = time_graphs({**ours, "torch.neg": torch.neg, **triton}, inputs, rounds)
    compiled = torch.compile(peers.torch_formulation, dynamic=False)
    eager = {
        **ours,
        "torch": lambda x: peers.torch_formulation(x, 4),
        "torch compiled": lambda x: compiled(x, 4),
        "torch.neg": torch.neg,
        **triton,
    }
    calls = time_calls(eager, inputs, rounds, enqueued=False)
    array = inputs[0].cpu().double().numpy()
    begin = time.perf_counter()
    peers.numpy_loop(array, 4)
    calls["NumPy loop"] = {"median": time.perf_counter() - begin}
    return {"graph": graphs, "eager": calls}


def growth(groups, n, rounds):
    """As a graph, beside torch.neg."""
    bytes_each = 4 * n * groups
    inputs = several(lambda: torch.randn(groups, n, device="cuda"), bytes_each, 1 if bytes_each > 1e8 else 20)
    timings = time_graphs({"op": lambda x: transform(x, 4), "torch.neg": torch.neg}, inputs, rounds)
    return {"samples": groups * n, **timings}


def machine():
    smi = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    driver = subprocess.run(smi, capture_output=True, text=True, check=False).stdout.strip().split("\n")[0]
    return {"gpu": torch.cuda.get_device_name(), "driver": driver} | described("triton")


def median(row, name):
    """Seconds; NaN where it was not measured."""
    return row.get(name, {}).get("median", NAN)


def said(number, form):
    return format(number, form) if number == number else "?"


def growth_lines(results):
    for shape, row in results.get("growth", {}).items():
        if "samples" not in row:
            continue
        op, neg = median(row, "op"), median(row, "torch.neg")
        yield f"{shape:>14} in a graph: {1e9 * op / row['samples']:.4g} ns a sample, {op / neg:.2f} x torch.neg"


def picture(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    sizes = [int(n) for n in results["bulk"]]
    for name in ("copy", "op", "Triton", "backward", "torch.sort", "CUB", "torch", "torch compiled"):
        rates = [
            8e-9 * max(1, BULK_BYTES // 4 // n) * n / median(row, name)
            for n, row in zip(sizes, results["bulk"].values())
        ]
        if any(rate == rate for rate in rates):
            axes.loglog(sizes, rates, marker="o", label=name)
    axes.set_xlabel("samples a group")
    axes.set_ylabel("GB/s (8 bytes a sample)")
    axes.set_title(f"{results['machine']['gpu']}, float32, 256 MB")
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches="tight")


def words_and_rows(results):
    """Of bench/results/<gpu>.md."""
    about = results["machine"]
    graph, eager = (results.get("training", {}).get(way, {}) for way in ("graph", "eager"))
    kernel, neg, by_offsets = (1e6 * median(graph, name) for name in ("op", "torch.neg", "grouped"))
    fastest = min(
        (eager[name]["median"] for name in ("torch", "torch compiled") if "median" in eager.get(name, {})), default=NAN
    )
    call = median(eager, "op")
    by_offsets = f", {by_offsets:.2f} us by offsets" if by_offsets == by_offsets else ""
    words = (
        f"`make gpu`: {about['gpu']}, driver {about['driver']}, torch {about['versions']['torch']}, Triton "
        f"{about['versions']['triton']}, commit {about['commit']}; float32, 256 MB in groups of n; medians, times over "
        "that of a copy of the rewards on the device.\n\n"
        f"1,024 groups of 16: {said(kernel, '.2f')} us in a CUDA graph, {said(kernel / neg, '.2f')} times `torch.neg`"
        f"{by_offsets}; an eager call {said(1e6 * call, '.1f')} us, {said(call / fastest, '.3f')} of the faster one of "
        "torch's own ops, eager and compiled."
    )
    if failed := list(failures(results)):
        words += f"\n\nFailed: {'; '.join(failed)}."
    columns = {
        "op": "op",
        "backward": "backward",
        "grouped": "grouped",
        "on Triton": "Triton",
        "CUB's sort alone": "CUB",
        "`torch.sort` alone": "torch.sort",
        "torch's ops compiled": "torch compiled",
        "eager": "torch",
    }
    rows = [f"| n | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for n, row in results["bulk"].items():
        over = [
            said(median(row, name) / median(row, "copy"), ".3g") if name in row else "" for name in columns.values()
        ]
        rows.append(f"| {int(n):,} | {' | '.join(over)} |")
    return words, rows


def failures(results, at=()):
    """``where: why`` of every part and every candidate that failed."""
    for name, value in results.items():
        if name == "failed":
            yield f"{' '.join(at)}: {value}"
        elif isinstance(value, dict):
            yield from failures(value, (*at, name))


def measure(parts, results, keep, worker, seconds=PART):
    """parts: (names, function) each; what function returns, run by ``worker``, comes to stand in ``results`` at
    results[name][name]...; then keep(results)."""
    for (*outer, name), function in parts:
        place = results
        for key in outer:
            place = place.setdefault(key, {})
        try:
            place[name] = worker.run(function, seconds)
        except futures.TimeoutError:  # Python's own from 3.11 on
            place[name] = {"failed": f"not done in {seconds} s"}
        except Exception as error:
            place[name] = {"failed": described_error(error)}
            traceback.print_exc()
        keep(results)


def leave_gpu():
    """Ready for what comes next; fails where a fault left this process without a GPU."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def write(results):
    content = {key: value for key, value in results.items() if key != "machine"}
    report.save(name_of(results), results["machine"], content, *words_and_rows(results))


def name_of(results):
    return re.sub(r"[^a-z0-9]+", "_", results["machine"]["gpu"].lower())


def main():
    parser = report.options(__doc__, "fewer rounds and sizes")
    parser.add_argument("--compile", action="store_true", help="only what is compiled where it runs, for later")
    options = parser.parse_args()
    quick = options.quick
    if not torch.cuda.is_available():
        raise SystemExit("bench.gpu measures a GPU, and torch finds none here")
    if options.compile:
        at_once, spawn = max(1, os.cpu_count() // 2), multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(at_once, spawn) as processes:
            list(processes.map(compile_ahead, SIZES))
        return
    serving = pkpo_kernels.info()
    if "served by: compiled CUDA library" not in serving:
        raise SystemExit(f"the compiled CUDA library does not serve this GPU:\n{serving}")
    rounds = 5 if quick else 15
    sizes = (8, 64, 1024) if quick else SIZES
    results = {"machine": machine(), "bulk": {}}
    parts = [(("bulk", str(n)), partial(bulk, n, rounds)) for n in sizes]
    parts += [(("growth", f"{groups} x {n}"), partial(growth, groups, n, rounds)) for groups, n in GROWTH]
    parts += [(("training",), partial(training, rounds))]
    with Worker(warm_up, leave_gpu) as worker:
        measure(parts, results, (lambda _: None) if quick else write, worker)
    words, rows = words_and_rows(results)
    print(words, *rows, *growth_lines(results), sep="\n")
    if not quick:
        picture(results, report.RESULTS / f"{name_of(results)}.png")
        print(f"Written: bench/results/{name_of(results)}.json, .md and .png")
    sys.exit(any(failures(results)))


if __name__ == "__main__":
    main()

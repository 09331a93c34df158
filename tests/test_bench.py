"""The measurements run, through their one front door, and a quick run writes nothing. What they measure is not tested."""

import copy
import json
import os
import re
import subprocess
import sys
import time
from concurrent import futures
from functools import partial
from pathlib import Path

import pytest

from bench import gpu, gpu_session, report
from bench.worker import Worker

ROOT = Path(__file__).parent.parent


def bench(*words):
    command = [sys.executable, "-m", "bench", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def results():
    return {path.name: path.read_bytes() for path in (ROOT / "bench" / "results").iterdir()}


def test_quick_runs_write_nothing():
    before = results()
    done = bench("call", "grouping", "toy", "variance", "claims", "--quick")
    assert done.returncode == 0, done.stderr[-3000:]
    for heading in ("call, x of 8 x 8", "1 thread", "| k | learned theta", "exact gradient", "| trained for"):
        assert heading in done.stdout, heading
    assert results() == before


def nothing():
    pass


def fail():
    raise ValueError("as it says\nat length")


hang = partial(time.sleep, 600)
counted = 0


def count():
    global counted
    counted += 1
    return os.getpid(), counted


def fails_the_second_time():
    if counted == 2:
        raise RuntimeError("left without a GPU")


def test_a_process_that_is_broken_is_not_used_again():
    """What was done in it counts; it, like one that hangs, is gone."""
    with Worker(nothing, fails_the_second_time) as worker:
        done = [worker.run(count, 60) for _ in range(3)]
        assert [each for _, each in done] == [1, 2, 1]
        with pytest.raises(futures.TimeoutError):
            worker.run(hang, 1)
        assert worker.run(count, 60)[1] == 1
    for process, _ in done:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_every_result_says_where_it_was_measured():
    for name, content in results().items():
        if name.endswith((".json", ".txt")):
            assert all(word in content for word in (b"commit", b"torch", b"pkpo_kernels")), name


@pytest.mark.parametrize("words, message", [(["cpus"], "no measurement is called cpus"), (["cpu", "all", "x"], "x")])
def test_unknown_measurement(words, message):
    done = bench(*words)
    assert done.returncode and message in done.stderr and "claims" in done.stdout


def test_a_measurement_that_fails_ends_the_run():
    assert bench("call", "toy", "--no-such-option").returncode == 2


def test_the_estimate_finds_the_lines_that_it_counts_by():
    """Which it names by their text: each stands once in its file."""
    named = re.findall(r'line\("([\w.]+)", "([^"]+)"\)', (ROOT / "bench" / "estimate.py").read_text())
    assert len(named) > 15
    for file, text in named:
        lines = (ROOT / "kernels" / "cuda" / file).read_text().split("\n")
        assert sum(text in line for line in lines) == 1, (file, text)


def test_a_step_that_takes_too_long_leaves_no_process(tmp_path, capfd):
    """Neither its own nor those it started; the others' outcomes are told all the same."""
    kept = tmp_path / "process"
    steps = [
        gpu_session.Step("slow", ["sh", "-c", f"sleep 600 & echo $! > {kept}; wait"], 1),
        gpu_session.Step("wrong", ["sh", "-c", "echo as it says; exit 3"], 60),
        gpu_session.Step("right", ["true"], 60),
    ]
    outcomes = gpu_session.run(steps)
    assert [outcome.split(" in ")[0] for outcome in outcomes.values()] == ["FAILED (not done)", "FAILED (3)", "passed"]
    assert "as it says" in capfd.readouterr().out
    child = int(kept.read_text())
    for _ in range(100):  # until whoever inherits it has looked
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("its child still runs")


def test_a_test_that_breaks_its_process_leaves_the_others_a_gpu(tmp_path):
    """As a fault of a kernel does, after which every call to CUDA of the same process fails."""
    hook = f"import runpy\n\nhooks = runpy.run_path({str(ROOT / 'tests' / 'conftest.py')!r})\n"
    (tmp_path / "conftest.py").write_text(hook + "pytest_runtest_logfinish = hooks['pytest_runtest_logfinish']\n")
    (tmp_path / "test_faults.py").write_text(
        """
import pytest
import torch

is_lost = False


def synchronize():
    assert not is_lost


torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, synchronize


@pytest.mark.parametrize("i", range(8))
def test(i):
    global is_lost
    torch.cuda.synchronize()
    if i == 2:
        is_lost = True
        raise RuntimeError("as it says")
"""
    )
    command = [sys.executable, "-m", "pytest", "-v", "-n", "1", "-p", "no:cacheprovider", str(tmp_path)]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300).stdout
    assert "as it says" in said and "crashed while running" in said, said
    assert {int(i) for i in re.findall(r"PASSED test_faults.py::test\[(\d)\]", said)} == {0, 1, 3, 4, 5, 6, 7}, said


@pytest.fixture(scope="module")
def of_gpu():
    """What bench.gpu measured on a GPU."""
    return json.loads((report.RESULTS / "nvidia_h200.json").read_text())


def test_a_gpus_table_is_what_its_result_file_says(of_gpu):
    words, rows = gpu.words_and_rows(of_gpu)
    assert "\n".join([words, "", *rows, ""]) == (report.RESULTS / "nvidia_h200.md").read_text()


def test_a_candidate_that_fails_or_leaves_no_gpu(monkeypatch, capfd):
    candidates = {"right": lambda: 1, "wrong": fail, "also right": lambda: 2}
    monkeypatch.setattr("torch.cuda.synchronize", nothing)
    working, failed = gpu.those_that_work(candidates, lambda function: function())
    assert working == {"right": 1, "also right": 2} and failed == {"wrong": {"failed": "ValueError: as it says"}}
    monkeypatch.setattr("torch.cuda.synchronize", fail)
    with pytest.raises(RuntimeError, match="right left no GPU: ValueError: as it says"):
        gpu.those_that_work(candidates, lambda function: function())


def test_what_fails_on_a_gpu_takes_nothing_else_with_it(of_gpu, tmp_path, capfd):
    """Nor does what hangs, ends its process, or is not reached: after every part what there is is kept, and can be told."""
    bulk = of_gpu["bulk"]["16"] | {"Triton": {"failed": "RuntimeError: no room"}}
    kept = []
    results = {"machine": of_gpu["machine"], "bulk": {}}
    parts = [
        (("bulk", "8"), fail),
        (("bulk", "16"), partial(dict, bulk)),
        (("training",), partial(os._exit, 3)),
        (("growth", "1 x 16"), hang),
        (("growth", "10 x 16"), partial(dict, of_gpu["growth"]["10 x 16"])),
    ]
    with Worker(nothing, nothing) as worker:
        gpu.measure(parts, results, lambda results: kept.append(copy.deepcopy(results)), worker, seconds=5)
    assert [len(state["bulk"]) for state in kept] == [1, 2, 2, 2, 2]
    assert kept[-1]["bulk"]["16"] == bulk and "at length" in capfd.readouterr().err
    why = dict(line.split(": ", 1) for line in gpu.failures(kept[-1]))
    assert why.pop("training").startswith("BrokenProcessPool: ")
    assert why == {
        "bulk 8": "ValueError: as it says",
        "bulk 16 Triton": "RuntimeError: no room",
        "growth 1 x 16": "not done in 5 s",
    }
    for state in kept:
        words, rows = gpu.words_and_rows(state)
        assert "? us in a CUDA graph, ? times" in words and "bulk 8: ValueError: as it says" in words
    row = [cell.strip() for cell in rows[3].split("|")[1:-1]]
    assert row[0] == "16" and row[1] == f"{bulk['op']['median'] / bulk['copy']['median']:.3g}" and row[4] == "?"
    (line,) = gpu.growth_lines(kept[-1])
    neg = of_gpu["growth"]["10 x 16"]["torch.neg"]["median"]
    assert line.endswith(f"{of_gpu['growth']['10 x 16']['op']['median'] / neg:.2f} x torch.neg")
    gpu.picture(kept[-1], tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000

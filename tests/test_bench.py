"""The measurements run, through their one front door, and a quick run writes nothing. What they measure is not tested."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import gpu_session

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

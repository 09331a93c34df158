"""``make gpu``: everything that needs a GPU, in one go and without a network.

Builds the libraries in place for the GPU that is there, against the torch that is there, and compiles ahead what the
benchmark would compile when it runs; runs the benchmark, which has the GPU for itself; then the tests on it and
compute-sanitizer side by side. Goes on after a step that failed, and says at the end which did.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parent.parent
HANGS = 60  # seconds after which a test does
LINES = 40  # of what a step printed are shown, the last ones
# torch.compile starts no processes of its own: those of the first step are as many as there are cores for, and the benchmark
# finds what they compiled.
ONE_COMPILER = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}


class Step(NamedTuple):
    name: str
    command: list[str]
    seconds: int  # at most
    environment: dict[str, str] | None = None  # beside this process's


def phases():
    """Lists of steps: those of a list run side by side."""
    architecture = "{}.{}".format(*torch.cuda.get_device_capability())
    python = sys.executable
    build = [python, "setup.py", "--quiet", "build_ext", "--inplace"]
    yield [
        Step("build", build, 300, {"PKPO_CUDA_ARCHS": architecture}),
        Step("build CUB's sort", [python, "-m", "bench.cub"], 300),
        Step("compile Triton's kernels", [python, "-m", "bench.gpu", "--compile"], 300, ONE_COMPILER),
    ]
    yield [Step("info", [python, "-m", "pkpo_kernels", "info"], 60)]
    yield [Step("benchmark", [python, "-m", "bench.gpu"], 300, ONE_COMPILER)]
    checks = [
        tests("cuda", "gpu", "transform", "grouped", "gradients", "promises", "errors", "large_groups", "infinite"),
        tests("triton", "transform", "grouped", "gradients", "triton_rows", slow_every=11),
    ]
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    for tool in ("memcheck", "racecheck"):
        command = [sanitizer, "--tool", tool, "--error-exitcode", "1", python, "tests/gpu_calls.py"]
        checks.append(Step(tool, command if sanitizer else [], 150, {"PKPO_TEST_BACKENDS": "cuda"}))
    yield checks


def tests(backend, *names, slow_every=1):
    """``slow_every``: of Triton's hundreds of tests, each of which has a kernel or two compiled, for seconds. Of a test
    that hangs it is shown where; with pytest 9 and xdist its process ends, it counts as failed and the others go on."""
    command = [sys.executable, "-m", "pytest", "-q", *(f"tests/test_{name}.py" for name in names)]
    command += ["--slow-every", str(slow_every), "-o", f"faulthandler_timeout={HANGS}"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(max(1, min(6, os.cpu_count() // 2))), "-o", "faulthandler_exit_on_timeout=true"]
    return Step(f"tests of {backend}", command, 150, {"PKPO_TEST_BACKENDS": backend})


def end(process):
    """A process and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run(steps):
    """Runs them side by side, prints the end of what each had to say; name -> outcome."""
    running, outcomes = {}, {}
    begin = time.perf_counter()
    for step in steps:
        if not step.command:
            outcomes[step.name] = "left out: there is no such tool"
            continue
        log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | (step.environment or {})
        process = subprocess.Popen(
            step.command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        running[step.name] = step, process, log
    try:
        for name, (step, process, log) in running.items():
            try:
                code = process.wait(max(0.1, begin + step.seconds - time.perf_counter()))
                outcome = "passed" if code == 0 else f"FAILED ({code})"
            except subprocess.TimeoutExpired:
                end(process)
                outcome = "FAILED (not done)"
            outcomes[name] = f"{outcome} in {time.perf_counter() - begin:.0f} s"
            log.seek(0)
            print(f"\n== {name}: {outcomes[name]}", *log.read().splitlines()[-LINES:], sep="\n", flush=True)
    finally:
        for _, process, _ in running.values():
            end(process)
    return outcomes


def main():
    if not torch.cuda.is_available():
        raise SystemExit("make gpu needs an NVIDIA GPU, and torch finds none here")
    outcomes = {}
    for steps in phases():
        outcomes |= run(steps)
    print("\n" + "\n".join(f"{name:<20} {outcome}" for name, outcome in outcomes.items()))
    sys.exit(any("FAILED" in outcome for outcome in outcomes.values()))


if __name__ == "__main__":
    main()

"""``make gpu``: everything that needs a GPU, in one go and without a network.

Builds the libraries in place for the GPU that is there, against the torch that is there; runs the tests on it, the benchmark
and compute-sanitizer. Goes on after a step that failed, and says at the end which did.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
TESTS = ("gpu", "transform", "grouped", "gradients", "promises", "errors")


def main():
    if not torch.cuda.is_available():
        raise SystemExit("make gpu needs an NVIDIA GPU, and torch finds none here")
    architecture = "{}.{}".format(*torch.cuda.get_device_capability())
    python = sys.executable
    steps = {
        "build": ([python, "setup.py", "--quiet", "build_ext", "--inplace"], {"PKPO_CUDA_ARCHS": architecture}),
        "build for the CPU": ([python, "tests/cuda_on_cpu/build.py", "build/cuda_on_cpu"], {}),
        "info": ([python, "-m", "pkpo_kernels", "info"], {}),
        "tests": (
            [python, "-m", "pytest", "-q", *(f"tests/test_{name}.py" for name in TESTS)],
            {"PKPO_TEST_BACKENDS": "cuda,triton"},
        ),
        "benchmark": ([python, "-m", "bench.gpu"], {}),
    }
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    for tool in ("memcheck", "racecheck"):
        command = [sanitizer, "--tool", tool, "--error-exitcode", "1", python, "tests/gpu_calls.py"]
        steps[tool] = (command, {}) if sanitizer else None
    outcomes = {}
    for name, step in steps.items():
        print(f"\n== {name}", flush=True)
        if step is None:
            outcomes[name] = "left out: there is no compute-sanitizer"
            continue
        command, environment = step
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        begin = time.perf_counter()
        code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        outcomes[name] = f"{'passed' if code == 0 else f'FAILED ({code})'} in {time.perf_counter() - begin:.0f} s"
    print("\n" + "\n".join(f"{name:<20} {outcome}" for name, outcome in outcomes.items()))
    sys.exit(any("FAILED" in outcome for outcome in outcomes.values()))


if __name__ == "__main__":
    main()

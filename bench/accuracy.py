"""The largest error of every backend over the tests that compare it with exact rational arithmetic: python -m bench accuracy.

Runs those tests in an environment of `make test`: the libraries and the reference in one process, Triton's kernels in its
interpreter in another. Writes bench/results/accuracy.json, every form and dtype by itself, and accuracy.md.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import report
from bench.machine import described

ROOT = Path(__file__).parent.parent
TESTS = ("tests/test_transform.py", "tests/test_grouped.py", "tests/test_gradients.py")
PROCESSES = ({}, {"TRITON_INTERPRET": "1", "PKPO_TEST_BACKENDS": "triton interpreted"})
BOUNDS = {"float32": "1e-6", "float64": "1e-13"}
NAMES = {
    "cuda on cpu": "CUDA's sources, compiled for the CPU",
    "triton interpreted": "Triton's kernels, in its interpreter",
    "reference": "the reference, plain torch",
}


def measure(environment, quick):
    """[backend, form, dtype, error] of the tests in one process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "errors.json"
        only = "exact_arithmetic" if quick else "not 65536" if environment else ""
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", *TESTS, "--errors", file, "-k", only]
        subprocess.run(command, cwd=ROOT, env=os.environ | environment, check=True)
        return json.loads(file.read_text())


def table(errors):
    """Of each backend the worst over all forms."""
    lines = [
        "| backend | " + " | ".join(f"{dtype}, bound {bound} | its gradient" for dtype, bound in BOUNDS.items()) + " |",
        "|---|---|---|---|---|",
    ]
    for backend in dict.fromkeys(backend for backend, *_ in errors):
        cells = []
        for dtype in BOUNDS:
            of_dtype = [(form, error) for name, form, of, error in errors if (name, of) == (backend, dtype)]
            for gradient in (False, True):
                found = [error for form, error in of_dtype if form.startswith("gradient") == gradient]
                cells.append(f"{max(found):.1e}" if found else "")
        lines.append(f"| {NAMES.get(backend, backend)} | {' | '.join(cells)} |")
    return lines


def main():
    quick = report.options(__doc__, "gradients only").parse_args().quick
    errors = [error for environment in PROCESSES for error in measure(environment, quick)]
    lines = table(errors)
    print("\n".join(lines))
    if quick:
        return
    about = described("triton")
    words = (
        "`python -m bench accuracy`: the largest error over the largest exact value of its group, in the tests against "
        f"exact rational arithmetic; of a gradient, over the sum of the incoming ones. torch {about['versions']['torch']}, "
        f"Triton {about['versions']['triton']}."
    )
    report.write("accuracy", about, {"errors": errors}, words, lines)


if __name__ == "__main__":
    main()

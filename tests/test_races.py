"""The watch over races (cuda_on_cpu/races.h) sees those of kernels made to race, and none where there is none. `make
sanitize` has it look at the package's own."""

import re
import subprocess

import pytest
from cuda_on_cpu import build

# The kernels of racy.cu: where each races.
KERNELS = {
    "lanes": None,
    "lanes, no barrier": "shared",
    "lanes, a shuffle": "shared",
    "lanes, written too early": "shared",
    "warps": None,
    "warps, a barrier of each": "shared",
    "warps, written too early": "shared",
    "the same written": None,
    "others written": "shared",
    "counted": None,
    "counted, read too early": "shared",
    "bytes": None,
    "bytes of two": "global",
    "blocks": None,
    "blocks, one place": "global",
    "copies": None,
    "copies, of others": "shared",
    "grid": None,
    "grid, barriers of blocks": "global",
    "grid, not all of a block": "global",
    "grid, no fence": "global",
    "grid, never": "global",
}


@pytest.fixture(scope="module")
def racy(tmp_path_factory):
    version = subprocess.run([build.COMPILER, "--version"], capture_output=True, text=True).stdout
    if "clang" in version:
        pytest.skip("clang does not tell volatile reads from others")
    folder = tmp_path_factory.mktemp("racy")
    objects = build.compiled([build.HERE / "racy.cu"], folder, races=True)
    subprocess.run([build.COMPILER, "-pthread", *objects, "-o", str(folder / "racy")], check=True)
    return folder / "racy"


@pytest.mark.parametrize("name", KERNELS)
def test_races_are_seen(racy, name):
    done = subprocess.run([racy, name], capture_output=True, text=True, timeout=60)
    if KERNELS[name] is None:
        assert done.returncode == 0 and done.stdout == "no race\n", done.stderr
    else:
        first, *_ = done.stderr.split("\n")
        assert done.returncode and f"a race in {KERNELS[name]} memory" in first, done.stderr
        assert len(re.findall(r"racy\.cu:\d+", done.stderr)) >= 2, done.stderr


def test_every_kernel_is_tried():
    assert re.findall(r'^ +\{"(.*)", run', (build.HERE / "racy.cu").read_text(), re.M) == list(KERNELS)

"""The CUDA library as it is built: for the architectures asked for, within the registers, harmless beside a torch that
has no CUDA.

Looks at the wheel that ``make test`` builds where there is nvcc, and installs it in an environment of its own. That its
kernels are right is for the others to test: their sources on the CPU, and the library itself where there is a GPU.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
import triton

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "test-wheel"
WHEELS = sorted(FOLDER.glob("*.whl"))
pytestmark = pytest.mark.skipif(not WHEELS, reason="no wheel in build/test-wheel: there is no nvcc")

# Registers a thread, and bytes of shared memory that are not asked for at the launch. No kernel has a stack: no register is
# spilled, no array is in local memory.
LIMITS = {
    "tiny_groups": (128, 8 * 1024 + 64),
    "tiny_gradients": (128, 24 * 1024 + 64),
    "quick_groups": (96, 9 * 1024),
    "small_groupsIfLi4": (64, 14 * 1024),
    "small_groupsIdLi4": (64, 14 * 1024),
    **{f"small_groupsIfLi16ELi{threads}ELNS0_2OpE0ELb1": (80, 28 * 1024) for threads in (1, 2, 4, 8, 16)},
    "small_groupsIfLi32": (168, 29 * 1024),
    "small_groups": (128, 28 * 1024),
    "ragged_groupsIfLi4": (96, 14 * 1024),
    "ragged_groupsIfLi16ELNS0_2OpE0ELb0": (168, 31 * 1024),
    "ragged_groups": (128, 31 * 1024),
    "block_groups": (128, 6 * 1024),
    "two_turn_groups": (128, 6 * 1024),
    "large_groups_at_once": (128, 8 * 1024),
    "ScatterDigitsIf": (64, 1024),
    "ScatterDigitsId": (128, 1024),
    "FinishTiles": (128, 5 * 1024),
    "ScanGradients": (128, 1024),
    "SumTiles": (104, 1024),
    "": (64, 1024),  # the other passes over tiles
}


def reports():
    """(kernel, architecture, bytes of stack, registers, bytes of shared memory), as ptxas told while the wheel was built."""
    for path in sorted((FOLDER / "ptxas").glob("*.txt")):
        for kernel in path.read_text().split("Compiling entry function")[1:]:
            name, architecture = re.search(r"'(\w+)' for '(\w+)'", kernel).groups()
            stack = re.search(r"([0-9]+) bytes stack frame", kernel)[1]
            registers = re.search(r"Used ([0-9]+) registers", kernel)[1]
            shared = re.search(r"([0-9]+) bytes smem", kernel)
            yield name, architecture, int(stack), int(registers), int(shared[1]) if shared else 0


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A fresh environment that has the wheel, and of the one that the tests run in what the wheel depends on."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--target", site, WHEELS[0]], check=True)
    return site / "pkpo_kernels"


@pytest.fixture
def library(installed):
    return installed / "_cuda.so"


def run_installed(installed, *arguments):
    python = installed.parents[3] / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments], capture_output=True, text=True, check=False, cwd=installed.parents[3], env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_name_tells():
    assert re.search(r"\+cu[0-9]+\.sm80\.sm90-.*-manylinux_[0-9_]+_x86_64\.whl", WHEELS[0].name)


def test_what_it_needs_of_the_machine():
    """The platform of its name; and of other libraries torch's alone, which is loaded before ours."""
    show = [Path(sys.executable).parent / "auditwheel", "show", "--json", WHEELS[0]]
    shown = json.loads(subprocess.run(show, check=True, capture_output=True, text=True).stdout)
    assert shown["sym_tag"] in WHEELS[0].name
    assert list(shown["external_libs"]) == ["libtorch_cpu.so"]


def test_the_wheel_in_a_fresh_environment(installed):
    script = "import torch, pkpo_kernels; print(torch.ops.pkpo.transform(torch.tensor([[0.0, 1, 3]]), 2).tolist())"
    assert "[[0.0, 0.3333333432674408, 1.6666666269302368]]" in run_installed(installed, "-c", script)
    info = run_installed(installed, "-m", "pkpo_kernels", "info")
    assert str(installed) in info
    assert re.search("cpu +served by: compiled CPU library", info)
    if not torch.version.cuda:
        assert "CUDA library     not loaded (torch is built without CUDA)" in info


def test_registers_stack_and_shared_memory():
    kernels = list(reports())
    assert {architecture for _, architecture, *_ in kernels} == {"sm_80", "sm_90"}
    assert sum("small_groups" in name for name, *_ in kernels) == 2 * 68
    if "+cu130." not in WHEELS[0].name:
        pytest.skip("the limits are those of nvcc 13.0's code")
    for name, architecture, stack, registers, shared in kernels:
        allowed, shared_allowed = next(limits for kernel, limits in LIMITS.items() if kernel in name)
        assert stack == 0, (name, architecture, stack)
        assert registers <= allowed and shared <= shared_allowed, (name, architecture, registers, shared)


def test_it_holds_just_the_architectures_asked_for(library):
    """The names of the machine code's targets stand in the fat binary of every file of kernels."""
    [cuobjdump] = Path(triton.__file__).parent.rglob("cuobjdump")
    listed = subprocess.run([cuobjdump, "--list-elf", library], check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"sm_[0-9]+", listed)) == {"sm_80", "sm_90"}
    ptx = subprocess.run([cuobjdump, "--list-ptx", library], check=False, capture_output=True, text=True).stdout
    assert "compute_" not in ptx and "ptx" not in ptx


def test_size(library):
    """At most 8 MB an architecture."""
    assert Path(library).stat().st_size <= 2 * 8 * 10**6


def test_beside_a_torch_without_cuda(installed, library):
    """It opens, says why it cannot serve, registers if told to, and the CPU's ops are as before."""
    script = f"""
import ctypes, torch, pkpo_kernels
x = torch.randn(3, 5)
y = torch.ops.pkpo.transform(x, 2)
library = ctypes.CDLL({str(library)!r})
library.pkpo_cuda_problem.restype = ctypes.c_char_p
print(library.pkpo_cuda_problem())
library.pkpo_cuda_register()
assert torch.equal(torch.ops.pkpo.transform(x, 2), y)
"""
    run_installed(installed, "-c", script)

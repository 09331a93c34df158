"""The CUDA library as it is built: for the architectures asked for, within the registers, harmless beside a torch that
has no CUDA.

Looks at the wheel that ``make test`` builds where there is nvcc. That its kernels are right is for the others to test:
their sources on the CPU, and the library itself where there is a GPU.
"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import triton

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "build" / "test-wheel"
WHEELS = sorted(FOLDER.glob("*.whl"))
pytestmark = pytest.mark.skipif(not WHEELS, reason="no wheel in build/test-wheel: there is no nvcc")

# Bytes of stack that a kernel may use: the registers are not enough for float64 and for gradients in blocks of up to 512
# threads (128 registers each). Everything else has none.
STACK = {"small_groups": 32, "block_groups": 64, "finish_tiles": 64, "sum_tiles": 64, "finish_gradients": 32}


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
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(WHEELS[0]) as wheel:
        return wheel.extract("pkpo_kernels/_cuda.so", folder)


def test_the_name_tells():
    assert re.search(r"\+cu[0-9]+\.sm80\.sm90-", WHEELS[0].name)


def test_registers_stack_and_shared_memory():
    kernels = list(reports())
    assert {architecture for _, architecture, *_ in kernels} == {"sm_80", "sm_90"}
    assert sum("small_groups" in name for name, *_ in kernels) == 2 * 42
    for name, architecture, stack, registers, shared in kernels:
        allowed = max((limit for kernel, limit in STACK.items() if kernel in name), default=0)
        assert stack <= allowed, (name, architecture, stack)
        assert registers <= 170 and shared <= 48 * 1024, (name, architecture, registers, shared)


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


def test_beside_a_torch_without_cuda(library):
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
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

"""The package as it is installed: with and without a compiler, its symbols, its report."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import pkpo_kernels

ROOT = Path(__file__).parent.parent


def run(*command, **keywords):
    return subprocess.run(command, check=True, capture_output=True, text=True, **keywords)


def test_the_compiled_library_serves_the_cpu():
    """Where the tests run, a build that failed is a failure."""
    assert "cpu              served by: compiled CPU library" in pkpo_kernels.info()
    assert not any("reference" in line for line in pkpo_kernels.info().splitlines() if line.startswith("cpu "))


def test_info_command():
    printed = run(sys.executable, "-m", "pkpo_kernels", "info").stdout
    assert printed.strip() == pkpo_kernels.info().replace(
        f"threads          {torch.get_num_threads()}", re.search("threads +[0-9]+", printed)[0]
    )
    for expected in (pkpo_kernels.__version__, torch.__version__, "CPU library", "served by"):
        assert expected in printed


def test_only_stable_symbols_from_torch():
    """The C shim of the LibTorch stable ABI is C: a mangled name of torch, c10 or at would tie the library to one build."""
    library = ROOT / "pkpo_kernels" / "_cpu.so"
    symbols = run("nm", "-D", "--undefined-only", str(library)).stdout.split()
    assert any(symbol == "torch_library_impl" for symbol in symbols)
    assert not [symbol for symbol in symbols if re.match(r"_ZNK?S?[0-9]*(c10|2at|5torch)", symbol)]
    shim = [symbol for symbol in symbols if "torch" in symbol]
    assert all(re.match(r"(aoti_)?torch_\w+$", symbol) for symbol in shim)
    exported = run("nm", "-D", "--defined-only", "--extern-only", str(library)).stdout
    assert "pkpo" not in exported, "nothing of ours is exported: it registers itself when loaded"


@pytest.fixture(scope="module")
def wheel_without_compiler(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    archive = run("git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard").stdout
    for name in filter(None, archive.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    environment = os.environ | {"CC": "no-such-compiler", "CXX": "no-such-compiler"}
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-build-isolation", "--no-deps")
    run(*pip, "--target", str(folder / "site"), str(source), env=environment)
    return folder / "site"


def imported(module, folder, path):
    """What importing prints, in a process that starts in ``folder``."""
    environment = os.environ | {"PYTHONPATH": str(path)}
    # Without the finder of an editable installation, which has the libraries of this environment.
    script = "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f)]; import " + module
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment).stderr


def test_in_the_source_folder_where_nothing_is_built(wheel_without_compiler):
    """Where `pip install .` leaves the user: Python then imports the source, not what was installed."""
    source = wheel_without_compiler.parent / "source"
    for module in ("pkpo_kernels", "pkpo_kernels.numpy"):
        printed = imported(module, source, wheel_without_compiler)
        assert f"not built in the source folder, {source}," in printed.splitlines()[-1 if "numpy" in module else 0]
        assert "start Python in another folder" in printed and "--editable ." in printed


def test_numpy_without_a_compiler(wheel_without_compiler, tmp_path):
    printed = imported("pkpo_kernels.numpy", tmp_path, wheel_without_compiler)
    assert "ImportError: pkpo_kernels.numpy needs its compiled module" in printed
    assert "in the environment that has pybind11" in printed and "--force-reinstall ." in printed


@pytest.mark.parametrize("trainer, needed", [("trl", "TRL 1.0 to 1.16"), ("verl", "verl 0.9")])
def test_trainers_that_are_not_installed(trainer, needed, tmp_path):
    for module in ("transformers", trainer):  # as if they were not there
        (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError('No module named {module}')")
    printed = imported(f"pkpo_kernels.integrations.{trainer}", tmp_path, f"{tmp_path}{os.pathsep}{ROOT}")
    assert f"pkpo_kernels.integrations.{trainer} needs {needed} (pip install" in printed


def test_install_without_a_compiler(wheel_without_compiler, tmp_path):
    assert not list(wheel_without_compiler.rglob("*.so"))
    script = """
import warnings, torch
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import pkpo_kernels
    torch.ops.pkpo.transform(torch.eye(3), 2)
(warning,) = [str(w.message) for w in caught if "pkpo_kernels" in str(w.message)]
print(warning)
x = torch.tensor([[0.0, 1.0, 3.0]], requires_grad=True)
y = torch.ops.pkpo.transform(x, 2)
y.sum().backward()
print(y.tolist(), x.grad.tolist())
print(pkpo_kernels.info())
"""
    environment = os.environ | {"PYTHONPATH": str(wheel_without_compiler)}
    printed = run(sys.executable, "-c", script, env=environment, cwd=tmp_path).stdout
    assert "apt install g++" in printed and "--no-build-isolation" in printed, "the warning says what to install"
    assert "[[0.0, 0.3333333432674408, 1.6666666269302368]]" in printed
    assert "cpu              served by: reference" in printed
    assert str(wheel_without_compiler) in printed


def nvcc_of(folder, release):
    """A stand-in that tells its version."""
    path = folder / "bin" / "nvcc"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {release}, V{release}.1'\n")
    path.chmod(0o755)


def version_built(folder, **environment):
    """How the version ends of what ``PKPO_CUDA_ARCHS`` asks for; or the error."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=inherited | environment, check=False)
    if done.returncode:
        return done.stderr.splitlines()[-1]
    version = re.search("^Version: (.*)$", (folder / "pkpo_kernels.egg-info" / "PKG-INFO").read_text(), re.MULTILINE)[1]
    return version.removeprefix(pkpo_kernels.__version__)


@pytest.mark.parametrize(
    "archs, named", [("9.0", "+cu125.sm90"), ("8.0;9.0a, 12.0+PTX", "+cu125.sm80.sm90a.sm120"), ("None", "+cpu")]
)
def test_a_version_names_its_architectures(archs, named, tmp_path):
    nvcc_of(tmp_path, "12.5")
    assert version_built(tmp_path, PKPO_CUDA_ARCHS=archs, CUDA_HOME=str(tmp_path)) == named


@pytest.mark.parametrize(
    "archs, came", [("sm_90", "'sm_90' in 'sm_90'"), ("9.0 90", "'90' in '9.0 90'"), (" ", "nothing")]
)
def test_architectures_that_are_none(archs, came, tmp_path):
    error = version_built(tmp_path, PKPO_CUDA_ARCHS=archs)
    assert error == f"PKPO_CUDA_ARCHS must be architectures like '8.0 9.0+PTX', or 'none', got {came}"


def test_whose_nvcc(tmp_path):
    """That of CUDA_HOME before one that pip installed, that before the one of PATH."""
    nvcc_of(tmp_path / "home", "12.1")
    nvcc_of(tmp_path / "site" / "nvidia" / "cu13", "12.2")
    (tmp_path / "site" / "nvidia" / "__init__.py").touch()  # as CUDA 12's packages do
    nvcc_of(tmp_path / "path", "12.3")
    environment = {"PKPO_CUDA_ARCHS": "9.0", "PATH": f"{tmp_path / 'path' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] = str(tmp_path / "site")
    assert version_built(tmp_path, CUDA_HOME=str(tmp_path / "home"), **environment) == "+cu121.sm90"
    assert version_built(tmp_path, **environment) == "+cu122.sm90"
    error = version_built(tmp_path, CUDA_HOME=str(tmp_path), **environment)
    assert error.startswith(f"PKPO_CUDA_ARCHS is '9.0', but there is no nvcc in {tmp_path}: pip install 'cuda-toolkit[")


def test_one_version():
    assert pkpo_kernels.__version__ in (ROOT / "CHANGELOG.md").read_text()
    assert "0.1.0" not in (ROOT / "pyproject.toml").read_text() + (ROOT / "setup.py").read_text()

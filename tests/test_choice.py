"""Which backend serves: asked for in the environment or for a while, here and in other processes; what cannot be had is an
error."""

import os
import subprocess
import sys

import pytest
import torch
from compare import BOUND, relative_error_of
from oracle import transform as exact_transform

import pkpo_kernels
from pkpo_kernels import _backends, reference

transform = torch.ops.pkpo.transform
X = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def calls(monkeypatch):
    """How often the reference was reached."""
    seen = []
    monkeypatch.setattr(reference, "_sort", lambda *args, _sort=reference._sort: seen.append(args) or _sort(*args))
    return seen


def python(script, **environment):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ | environment, check=False
    )


def test_for_a_while(calls):
    transform(X, 2)
    assert not calls
    with pkpo_kernels.use_backend("reference"):
        assert "cpu              served by: reference" in pkpo_kernels.info()
        assert "asked for        reference" in pkpo_kernels.info()
        y = transform(X, 2)
        assert len(calls) == 1
        with pkpo_kernels.use_backend("cpu"):
            transform(X, 2)
            assert len(calls) == 1 and "served by: compiled CPU library" in pkpo_kernels.info()
        transform(X, 2)
        assert len(calls) == 2
    transform(X, 2)
    assert len(calls) == 2 and "asked for" not in pkpo_kernels.info()
    for values, got in zip(X.tolist(), y):
        assert relative_error_of(got, exact_transform(values, 2, "loo-1")) <= BOUND[torch.float32]


def test_every_form_and_the_gradient(calls):
    offsets, k = torch.tensor([0, 3, 7]), torch.tensor(2)
    with pkpo_kernels.use_backend("reference"):
        x = X.clone().requires_grad_()
        transform(x, 2).sum().backward()
        transform(X, k), transform(X[0], offsets, k)
        torch.ops.pkpo.max_at_k(X, 2), torch.ops.pkpo.max_at_k(X, [1, 2]), torch.ops.pkpo.max_at_k(X[0], offsets, k)
    assert len(calls) == 7
    assert x.grad is not None


def test_an_error_inside_leaves_nothing_behind(calls):
    with pytest.raises(ZeroDivisionError), pkpo_kernels.use_backend("reference"):
        raise ZeroDivisionError
    transform(X, 2)
    assert not calls


def test_it_stays_one_op_of_a_compiled_function(calls):
    compiled = torch.compile(lambda x: transform(x, 2) * 2, fullgraph=True, backend="aot_eager")
    plain = compiled(X)
    assert not calls
    with pkpo_kernels.use_backend("reference"):
        torch.testing.assert_close(compiled(X), plain)
    assert calls
    explained = torch._dynamo.explain(lambda x: transform(x, 2) * 2)(X)
    assert explained.graph_break_count == 0


@pytest.mark.parametrize("name", ["tritonn", "", "CPU"])
def test_unknown(name):
    message = rf"pkpo_kernels: the backend '{name}' is unknown. The backends are cpu: available; cuda: .+; triton: .+; "
    with pytest.raises(RuntimeError, match=message + "reference: available"), pkpo_kernels.use_backend(name):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_not_available(name):
    message = f"the backend '{name}' is not available here. The backends are cpu: available; cuda: "
    with pytest.raises(RuntimeError, match=message), pkpo_kernels.use_backend(name):
        pass
    done = python("import pkpo_kernels", PKPO_BACKEND=name)
    why = "not loaded (torch is built without CUDA)"
    if torch.version.cuda:
        why = "not built (install where there is nvcc"
    may_come = torch.version.cuda and (name == "triton" or _backends.CUDA_LIBRARY.exists())
    if may_come:  # whether there is a GPU shows when CUDA starts
        assert done.returncode == 0 and "pkpo_kernels" not in done.stderr  # importing Triton may have it say something
    else:
        assert done.returncode == 1
        assert f"ImportError: pkpo_kernels: the backend '{name}' (PKPO_BACKEND)" in done.stderr
        assert f"cuda: {why}" in done.stderr and "; triton: torch finds no GPU" in done.stderr


def test_the_environment_and_processes_started_from_here():
    info = [sys.executable, "-m", "pkpo_kernels", "info"]
    script = f"import pkpo_kernels, subprocess; print(pkpo_kernels.info(), flush=True); subprocess.run({info!r})"
    printed = python(script, PKPO_BACKEND="reference").stdout
    assert printed.count("served by: reference (plain torch)") == 2
    failed = python("import pkpo_kernels", PKPO_BACKEND="tensorflow")
    assert "ImportError: pkpo_kernels: the backend 'tensorflow' is unknown. The backends are cpu: " in failed.stderr


def test_triton_in_its_interpreter():
    """Asked for in the environment, Triton's kernels serve the tensors of the CPU, gradients and compiled functions too."""
    script = """
import torch, pkpo_kernels
x = torch.tensor([[0.0, 1.0, 3.0]], requires_grad=True)
y = torch.ops.pkpo.transform(x, 2)
y.sum().backward()
compiled = torch.compile(lambda x: torch.ops.pkpo.transform(x, 2), fullgraph=True, backend="aot_eager")
expected = torch.tensor([[0, 1 / 3, 5 / 3]])
torch.testing.assert_close(y.detach(), expected)
torch.testing.assert_close(compiled(x.detach()), expected)
torch.testing.assert_close(x.grad, torch.tensor([[-2 / 3, 0, 2 / 3]]))
print(pkpo_kernels.info())
"""
    done = python(script, PKPO_BACKEND="triton", TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr
    assert "cpu              served by: Triton kernels, in Triton's interpreter" in done.stdout


# A torch that has CUDA: start() starts it, transform() calls what serves its tensors then.
WITH_CUDA = """
import torch
torch.version.cuda, waiting = "13.0", []
torch.cuda._lazy_call = waiting.append
import pkpo_kernels
from pkpo_kernels import _backends
def start():
    for call in waiting:
        call()
def transform():
    on_cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
    return torch.ops.pkpo.transform.default.redispatch(on_cuda, torch.tensor([[0.0, 1.0, 3.0]]), 2).tolist()
"""
OF_REFERENCE = "[[0.0, 0.3333333432674408, 1.6666666269302368]]"


def test_it_holds_when_the_gpu_starts_later():
    """The CUDA library registers itself when torch starts CUDA, after the choice was made: it does not displace it."""
    script = f"""{WITH_CUDA}
class Library:
    exists = staticmethod(lambda: True)
_backends.CUDA_LIBRARY, stand_in = Library, torch.library.Library("pkpo", "IMPL")
def load(path):
    stand_in.impl("transform", lambda rewards, k, baseline="loo-1": rewards * 0 + 77, "CUDA", allow_override=True)
_backends.load_cuda_library = load
start()
print(transform())
"""
    done = python(script)
    assert "[[77.0, 77.0, 77.0]]" in done.stdout, done.stderr
    done = python(script, PKPO_BACKEND="reference")
    assert OF_REFERENCE in done.stdout, done.stderr


def test_over_the_kernels_of_triton():
    """Where those serve a GPU, what is asked for takes their place: of kernels in Python torch 2.10 and 2.11 refuse to
    register another, unless told."""
    script = f"""{WITH_CUDA}
impl = torch.library.Library.impl
def refusing(self, name, kernel, dispatch_key="", *, allow_override=False, **options):
    impl(self, name, kernel, dispatch_key, allow_override=allow_override, **options)
torch.library.Library.impl = refusing
_backends.CUDA_LIBRARY = _backends.CUDA_LIBRARY.parent / "not there"
start()
assert _backends._of_triton is not None
with pkpo_kernels.use_backend("reference"):
    print(transform())
"""
    done = python(script)
    assert OF_REFERENCE in done.stdout, done.stderr
    done = python(script, PKPO_BACKEND="reference")
    assert OF_REFERENCE in done.stdout, done.stderr

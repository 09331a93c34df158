"""Which backend serves the tensors of which device: the fastest that is there, or the one asked for.

A backend asked for is registered over the one that was, for the devices that it serves, and taken away again; torch
dispatches as ever, so that a call costs the same and ``torch.compile`` sees the op that it saw.
"""

from __future__ import annotations

import contextlib
import os
import warnings

import torch

from . import _backends, _triton, ops

BACKENDS = ("cpu", "cuda", "triton", "reference")

_forced: str | None = None
_override: list[torch.library.Library] = []


def problems() -> dict[str, str | None]:
    """Why each backend cannot serve here; None: it can."""
    triton = _triton.problem()
    if triton is None and not (torch.cuda.is_available() or _triton.is_interpreted()):
        triton = "torch finds no GPU (with TRITON_INTERPRET=1 Triton runs on the CPU, slowly, for tests)"
    if torch.cuda.is_available() and torch.version.cuda:
        torch.cuda.init()
    return {"cpu": _backends.cpu_problem, "cuda": _backends.cuda_problem, "triton": triton, "reference": None}


def _refuse(name: str, why: str, error: type[Exception]) -> None:
    each = "; ".join(f"{other}: {problem or 'available'}" for other, problem in problems().items())
    raise error(f"pkpo_kernels: the backend {name!r} {why}. The backends are {each}")


def forced() -> str | None:
    """The backend asked for, if one was."""
    return _forced


def _force(name: str | None) -> None:
    global _forced
    for library in _override:
        library._destroy()
    _override.clear()
    _forced = name
    implement = {"triton": _triton.implement, "reference": ops.implement_reference}.get(name)
    if implement is None:  # the compiled libraries are what is registered below
        return
    keys = ["CUDA"] if name == "triton" else ["CPU", "CUDA"]
    if name == "triton" and _triton.is_interpreted():
        keys.append("CPU")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel")
        for key in keys:
            _override.append(torch.library.Library("pkpo", "IMPL"))
            implement(_override[-1], key)


@contextlib.contextmanager
def use_backend(name: str):
    """Has the ops served by one backend, on the devices that it serves, inside a ``with`` block; the environment variable
    ``PKPO_BACKEND`` does so for a whole process.

    It holds for all threads. Around a compiled function it works as around any other; inside of one it is not understood.

    Parameters
    ----------
    name : str
        ``"cpu"`` (the compiled CPU library), ``"cuda"`` (the compiled CUDA library), ``"triton"`` (NVIDIA and AMD GPUs), or
        ``"reference"`` (plain torch, any device).

    Raises
    ------
    RuntimeError
        Unknown, or not available here: it lists those that are, and why each other is not.

    Examples
    --------
    >>> import torch, pkpo_kernels
    >>> with pkpo_kernels.use_backend("reference"):
    ...     torch.ops.pkpo.transform(torch.tensor([[0.0, 1.0, 3.0]]), 2)
    tensor([[0.0000, 0.3333, 1.6667]])
    """
    _check(name, RuntimeError)
    if problems()[name]:
        _refuse(name, "is not available here", RuntimeError)
    before = _forced
    _force(name)
    try:
        yield
    finally:
        _force(before)


def _check(name: str, error: type[Exception]) -> None:
    if name not in BACKENDS:
        _refuse(name, "is unknown", error)


def choose_from_environment() -> None:
    """Without starting CUDA: what only shows there is an error then (_backends.py), and what registers itself there, after
    the choice was made, is overridden again."""
    if torch.version.cuda or torch.version.hip:
        torch.cuda._lazy_call(lambda: _force(_forced))
    name = os.environ.get("PKPO_BACKEND")
    if not name:
        return
    _check(name, ImportError)
    has_gpu = torch.version.cuda or torch.version.hip
    unavailable = {
        "cpu": _backends.cpu_problem,
        "cuda": None if torch.version.cuda and _backends.CUDA_LIBRARY.exists() else _backends.cuda_problem,
        "triton": _triton.problem() or (None if has_gpu or _triton.is_interpreted() else "no GPU"),
        "reference": None,
    }
    if unavailable[name]:
        _refuse(name, "(PKPO_BACKEND) is not available here", ImportError)
    _force(name)

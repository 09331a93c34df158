"""What to say where a compiled library is missing. Works without torch."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent.parent
_IN_SOURCE = (_FOLDER / "setup.py").exists()
_PIP = "pip install --no-build-isolation --no-deps"
_COMPILER = "a C++20 compiler (g++ >= 11 or clang >= 14; Debian and Ubuntu: apt install g++)"


def why_not_built(without: str) -> str:
    """``without``: what was missing when the package was installed, as far as one can tell."""
    if _IN_SOURCE:
        return f"not built in the source folder, {_FOLDER}, from which Python imports pkpo_kernels here"
    return f"not built (this installation was made without {without})"


def how_to_build(needs: str) -> str:
    """``needs``: beside the compiler."""
    if _IN_SOURCE:
        return (
            "If it is installed, start Python in another folder. To build it in place, which needs "
            f"{_COMPILER} and {needs}: {_PIP} --editable ."
        )
    return (
        f"To build it, which needs {_COMPILER}, in the environment that has {needs} and in the source folder of "
        f"pkpo_kernels: {_PIP} --force-reinstall ."
    )

"""Triton's kernels compiled for GPUs that are not there. Compiling all for one architecture takes minutes: here every kernel
is compiled for one NVIDIA architecture, and every second one for one of AMD's; `python tests/triton_compile.py` compiles all
for all."""

import pytest

pytest.importorskip("triton")

from triton_compile import AMD, NVIDIA, compile_for, variants

VARIANTS = list(variants())


@pytest.mark.parametrize("i", range(len(VARIANTS)), ids=lambda i: " ".join(str(VARIANTS[i]).split()))
def test_compiles_without_spilling(i):
    # Neighbours differ in the width of their arithmetic: both kinds for each architecture.
    architecture = NVIDIA[(i + i // len(NVIDIA)) % len(NVIDIA)]
    usage = compile_for(architecture, VARIANTS[i])
    assert usage.spills == 0, (architecture, usage)
    if (i // 2) % 2 == 0:
        assert compile_for(AMD[i % len(AMD)], VARIANTS[i]).registers > 0


def test_each_kernel_is_among_them():
    """Of either kind, for every op and form."""
    assert {(v.op, v.form, v.log_n is None) for v in VARIANTS} == {
        (op, form, is_large)
        for op, forms in {
            "transform": ("none", "loo", "loo-1"),
            "max_at_k": ("max_at_k",),
            "backward": ("none", "loo", "loo-1", "max_at_k"),
        }.items()
        for form in forms
        for is_large in (False, True)
    }

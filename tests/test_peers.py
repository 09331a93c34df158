"""What the benchmarks compare with computes the same thing."""

import oracle
import pytest
import torch

from bench import peers


@pytest.mark.parametrize("peer", ["numpy_loop", "torch_formulation"])
def test_peer(peer):
    x = torch.randn(6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for k in (2, 4, 9):
        y = getattr(peers, peer)(x.numpy() if peer == "numpy_loop" else x, k)
        for group, got in zip(x, y):
            assert got.tolist() == pytest.approx(
                [float(v) for v in oracle.transform(group.tolist(), k, "loo-1")], abs=1e-12
            )

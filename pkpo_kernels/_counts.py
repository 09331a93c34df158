"""pass@k from counts, written once for torch and NumPy. ``xp`` is the module whose arrays come in, ``arange``
makes one like them."""

from __future__ import annotations

_BLOCK = 256
_CERTAIN = -50.0  # exp of this is below half a unit in the last place of 1


def pass_at_k(xp, arange, n, c, k):
    """1 - C(n-c, k) / C(n, k), for float64 arrays of one shape with 0 <= c <= n and 1 <= k <= n.

    The chance that no one of k is correct is a product, in which c and k may change places:

        C(n-c, k) / C(n, k) = prod_{i < min(c, k)} (1 - max(c, k) / (n - i))

    Its logarithm is summed, all terms of one sign, and 1 - exp(sum) taken by expm1: no digit is lost where pass@k is near
    0 or near 1. The sum passes -50, where nothing more can be seen, after at most sqrt(50 n) terms.
    """
    fewer, more = xp.minimum(c, k), xp.maximum(c, k)
    terms = 0 if 0 in fewer.shape else int(fewer.max())
    certain = n - c < k  # fewer than k are wrong
    log_all_wrong = xp.zeros_like(n)
    for begin in range(0, terms, _BLOCK):
        i = begin + arange(min(_BLOCK, terms - begin))
        counts = (i < fewer[..., None]) & ~certain[..., None]
        ratio = xp.where(counts, more[..., None] / xp.where(counts, n[..., None] - i, 1.0), 0.0)
        log_all_wrong = log_all_wrong + xp.log1p(-ratio).sum(-1)
        undecided = (fewer > begin + _BLOCK) & ~certain & (log_all_wrong > _CERTAIN)
        if not undecided.any():
            break
    return xp.where(certain, 1.0, -xp.expm1(log_all_wrong)) + 0.0

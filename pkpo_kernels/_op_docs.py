"""The docstrings of ``torch.ops.pkpo.transform`` and ``torch.ops.pkpo.max_at_k``: ops have none of their own."""

DOCS = {
    "transform": r"""The rewards of every group transformed so that the policy gradient on them is that of pass@k (max@k).

    Three forms, told apart by their arguments::

        transform(rewards, k, *, baseline="loo-1")            k an integer
        transform(rewards, k, *, baseline="loo-1")            k a tensor
        transform(rewards, offsets, k, *, baseline="loo-1")   groups of any lengths, one after another; k a tensor

    With the result as :math:`s_i`, :math:`\sum_i s_i \nabla \log p(x_i)` over the n samples of a group is an unbiased
    estimate of the gradient of the expected best of k rewards (Walder and Karkhanis, Pass@K Policy Optimization, 2025,
    arXiv 2505.15201). For ``baseline="loo-1"`` and k >= 2, with the rewards of a group sorted,

    .. math:: s_p = \sum_{q \le p} \frac{\binom{q}{k-1}}{\binom{n}{k}} (x_q - x_{q-1})

    Parameters
    ----------
    rewards : Tensor
        (..., n), or (N,) with ``offsets``; without unit. float64, float32, bfloat16, float16, bool, uint8, int8, int16,
        int32 or int64. NaN: an absent sample, left out of its group. An infinite reward acts as the limit of large ones.
    offsets : Tensor
        int32 or int64, (G + 1,), on the rewards' device: group g is ``rewards[offsets[g]:offsets[g + 1]]``. It begins with 0,
        does not fall and ends with N. On a GPU that is not checked, which would wait for the device: offsets are cut to
        [0, N] there, and offsets that fall are the caller's mistake.
    k : int or Tensor
        An integer: 1 <= k <= n, for "loo" at most n - 1; where samples are absent it is clamped to those present (for
        "loo" to one less). A tensor: int32 or int64, on the rewards' device, () or one value a group, (...) or (G,);
        clamped to [1, n] likewise on a GPU, where a captured CUDA graph reads it anew at every replay; on the CPU a value
        below 1 is an error.
    baseline : "loo-1", "loo" or "none"
        What a sample's share of the best of k is compared with. "loo-1" has the lowest variance.

    Returns
    -------
    Tensor
        Shape of ``rewards``; float64, float32, bfloat16 and float16 come out as they went in, bool and integers as float32.
        0 for absent samples. Differentiable in ``rewards``, twice; on the device of ``rewards``.

    Raises
    ------
    RuntimeError
        Before any work, naming the op, the argument, what came and what is allowed.

    Examples
    --------
    >>> rewards = torch.tensor([[0.0, 1.0, 3.0]])
    >>> torch.ops.pkpo.transform(rewards, 2)
    tensor([[0.0000, 0.3333, 1.6667]])
    >>> torch.ops.pkpo.transform(torch.tensor([[0.0, 1.0, 3.0, torch.nan]]), torch.tensor(2), baseline="none")
    tensor([[1.3333, 1.3333, 2.0000, 0.0000]])
    >>> torch.ops.pkpo.transform(torch.tensor([0.0, 1.0, 3.0, 0.0, 1.0]), torch.tensor([0, 3, 5]), torch.tensor(2))
    tensor([0.0000, 0.3333, 1.6667, 0.0000, 1.0000])
    """,
    "max_at_k": r"""The expected best of k samples of every group, drawn without replacement: the unbiased estimate of max@k.

    Five forms, told apart by their arguments::

        max_at_k(rewards, k)             k an integer
        max_at_k(rewards, k)             k a tensor
        max_at_k(rewards, offsets, k)    groups of any lengths, one after another; k a tensor
        max_at_k(rewards, ks)            ks a list of integers: a curve, on the CPU from one sort
        max_at_k(rewards, offsets, ks)

    .. math:: \binom{n}{k}^{-1} \sum_{|I| = k} \max_{i \in I} x_i = \sum_q \frac{\binom{q}{k-1}}{\binom{n}{k}} x_q

    with the rewards of a group sorted (arXiv 2505.15201). For rewards 0 and 1 it is pass@k.

    Parameters
    ----------
    rewards, offsets, k
        As for ``transform``; an integer k is at most n. A list holds at least one integer, each from 1 to n.

    Returns
    -------
    Tensor
        One value a group: (...) or (G,); for a list one for each k in the last dimension. Dtype as for ``transform``. NaN
        for a group without samples. Differentiable in ``rewards``, twice.

    Raises
    ------
    RuntimeError
        As for ``transform``.

    Examples
    --------
    >>> rewards = torch.tensor([[0.0, 1.0, 3.0]])
    >>> torch.ops.pkpo.max_at_k(rewards, 2)
    tensor([2.3333])
    >>> torch.ops.pkpo.max_at_k(rewards, [1, 2, 3])
    tensor([[1.3333, 2.3333, 3.0000]])
    """,
}

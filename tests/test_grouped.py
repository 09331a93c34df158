"""Ragged groups, absent samples and a k of its own for every group, against exact arithmetic."""

from fractions import Fraction
from itertools import pairwise

import oracle
import pytest
import torch
from backends import BACKENDS
from compare import BOUND, relative_error_of
from test_promises import identical
from test_transform import report

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_form = pytest.mark.parametrize("form", oracle.FORMS)


def ragged(seed, groups=60, longest=300):
    """Lengths 0 to 300, values of several kinds, from none to all of a group absent, k below, at and above its size."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, longest + 1, (groups,), generator=generator)
    lengths[:8] = torch.arange(8)  # the smallest too
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    x = torch.randn(int(offsets[-1]), generator=generator, dtype=torch.float64)
    kind = torch.repeat_interleave(torch.arange(groups) % 4, lengths)
    x = torch.where(kind == 1, (x > 0).double(), x)
    x = torch.where(kind == 2, x.round(), x)
    x = torch.where(kind == 3, 1e6 + x, x)
    share = torch.repeat_interleave(torch.tensor([0, 0, 0.1, 0.5, 0.95, 1])[torch.arange(groups) % 6], lengths)
    x = torch.where(torch.rand(len(x), generator=generator) < share, torch.nan, x)
    choice = torch.randint(0, 5, (groups,), generator=generator)
    k = torch.stack([torch.ones(groups).long(), (lengths // 2), lengths - 1, lengths, lengths + 5])[
        choice, torch.arange(groups)
    ]
    return x, offsets, k.clamp(min=1)


def exact_of(values, offsets, k, form):
    """The groups, None where absent, and what is expected of each."""
    for begin, end, group_k in zip(offsets[:-1].tolist(), offsets[1:].tolist(), k.expand(len(offsets) - 1).tolist()):
        group = [None if value != value else value for value in values[begin:end].tolist()]
        yield group, oracle.transform(group, group_k, form)


def errors_of(y, offsets, exact, form):
    """Of the groups that have a result, by number."""
    for g, (group, expected) in enumerate(exact):
        if form == "max_at_k" and expected is None:
            assert y[g].isnan()
        elif form == "max_at_k":
            largest = Fraction(max(abs(value) for value in group if value is not None))
            yield g, relative_error_of(y[g : g + 1], [expected], scale=largest)
        elif group:
            yield g, relative_error_of(y[offsets[g] : offsets[g + 1]], expected)


@every_form
@pytest.mark.parametrize("seed", [0, 1])
def test_ragged(form, seed, record_property):
    x, offsets, k = ragged(seed)
    for dtype, bound in BOUND.items():
        values = x.to(dtype)
        exact = list(exact_of(values, offsets, k, form))
        for name, backend in BACKENDS.items():
            for index in (offsets, offsets.int()):
                if form == "max_at_k":
                    y = backend.max_at_k(values, index, k)
                else:
                    y = backend.transform(values, index, k, baseline=form)
                for g, error in errors_of(y, offsets, exact, form):
                    assert error <= bound, (name, dtype, g, exact[g][0], k[g])
                    report(record_property, name, f"{form}", dtype, error)


@every_form
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "triton interpreted"])
@pytest.mark.parametrize("n", [4, 5, 16, 64])
def test_many_groups_of_one_size_and_some_larger_ones(backend, form, n):
    """What groups of one size have in common may be kept from some to the next: each gets what it gets among others."""
    ops = BACKENDS[backend]
    generator = torch.Generator().manual_seed(n)
    lengths = torch.full((600,), n)
    lengths[7::40] = 530  # after these few samples of a size, then many again
    lengths[::61] -= torch.randint(1, n, (10,), generator=generator)
    of_one_size = (lengths == n).nonzero().squeeze()
    with_absent = torch.arange(600) >= 300
    lengths[with_absent] *= 2  # of which half will be absent
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    x, grad = torch.randn(2, int(offsets[-1]), generator=generator)
    x[torch.repeat_interleave(with_absent, lengths) & (torch.arange(len(x)) % 2 == 0)] = torch.nan
    there = [slice(offsets[g], offsets[g + 1]) for g in of_one_size]
    rows, of_rows_grad = (torch.stack([values[s][~x[s].isnan()] for s in there]) for values in (x, grad))
    for k in (torch.tensor(2), torch.arange(600) % (n - 1) + 1):
        of_rows = k[of_one_size] if k.dim() else k
        if form == "max_at_k":
            assert identical(ops.max_at_k(x, offsets, k)[of_one_size], ops.max_at_k(rows, of_rows))
            continue
        y = ops.transform(x, offsets, k, baseline=form)
        gx = ops.transform_backward(grad, x, offsets, k, baseline=form)
        expected = ops.transform(rows, of_rows, baseline=form)
        expected_gx = ops.transform_backward(of_rows_grad, rows, of_rows, baseline=form)
        for s, row, row_gx in zip(there, expected, expected_gx):
            assert identical(y[s][~x[s].isnan()], row) and identical(gx[s][~x[s].isnan()], row_gx)


@every_form
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "triton interpreted"])
def test_groups_of_many_sizes_in_turn(backend, form):
    """Each is done with others of its size from all over the batch, and what is left with larger ones: each gets what
    it gets among others of its size alone."""
    ops = BACKENDS[backend]
    generator = torch.Generator().manual_seed(4)
    lengths = torch.cat([torch.randint(1, 21, (600,), generator=generator), torch.tensor([40, 90, 100, 700])])
    lengths = lengths[torch.randperm(len(lengths), generator=generator)]
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    x, grad = torch.randn(2, int(offsets[-1]), generator=generator)
    x[torch.rand(len(x), generator=generator) < 0.002] = torch.inf
    x[torch.rand(len(x), generator=generator) < 0.01] = torch.nan
    k = torch.tensor(3)
    if form == "max_at_k":
        y = ops.max_at_k(x, offsets, k)
    else:
        y, gx = ops.transform(x, offsets, k, baseline=form), ops.transform_backward(grad, x, offsets, k, baseline=form)
    for size in lengths.unique().tolist():
        groups = (lengths == size).nonzero().squeeze(1)
        at = offsets[groups, None] + torch.arange(size)
        if form == "max_at_k":
            assert identical(y[groups], ops.max_at_k(x[at], k.expand(len(at))))
        else:
            assert identical(y[at], ops.transform(x[at], k.expand(len(at)), baseline=form))
            assert identical(gx[at], ops.transform_backward(grad[at], x[at], k.expand(len(at)), baseline=form))


@every_form
@every_backend
def test_one_k_for_groups_of_many_sizes(backend, form):
    """Smaller than k, and larger."""
    x, offsets, _ = ragged(3, groups=40, longest=24)
    for k in (1, 2, 9, 50):
        if form == "max_at_k":
            y = BACKENDS[backend].max_at_k(x, offsets, torch.tensor(k))
        else:
            y = BACKENDS[backend].transform(x, offsets, torch.tensor(k), baseline=form)
        for g, error in errors_of(y, offsets, exact_of(x, offsets, torch.tensor(k), form), form):
            assert error <= BOUND[torch.float64], (k, g)


@every_form
@every_backend
def test_dense_with_a_k_a_group(backend, form):
    """The same as each group alone with its k, clamped."""
    backend = BACKENDS[backend]
    x = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    k = torch.randint(1, 10, (2, 5), generator=torch.Generator().manual_seed(1))
    for index in (k, k.int(), k.t().contiguous().t()):
        y = backend.max_at_k(x, index) if form == "max_at_k" else backend.transform(x, index, baseline=form)
        for i, j in torch.cartesian_prod(torch.arange(2), torch.arange(5)).tolist():
            clamped = oracle.clamp(form, 7, int(k[i, j]))
            if form == "max_at_k":
                alone = backend.max_at_k(x[i, j], clamped)
            else:
                alone = backend.transform(x[i, j], clamped, baseline=form)
            assert identical(y[i, j], alone)


@every_form
@every_backend
def test_gradient_of_ragged_groups(backend, form):
    x, offsets, k = ragged(2, groups=30, longest=12)
    backend = BACKENDS[backend]
    if form == "max_at_k":
        grad = torch.randn(len(offsets) - 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        gx = backend.max_at_k_backward(grad, x, offsets, k)
    else:
        grad = torch.randn(len(x), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        gx = backend.transform_backward(grad, x, offsets, k, baseline=form)
    for g, (begin, end) in enumerate(zip(offsets[:-1].tolist(), offsets[1:].tolist())):
        group = [None if value != value else value for value in x[begin:end].tolist()]
        incoming = grad[g].item() if form == "max_at_k" else grad[begin:end].tolist()
        exact = oracle.gradient(group, incoming, int(k[g]), form)
        scale = Fraction(sum(map(abs, [incoming] if form == "max_at_k" else incoming))) + 1
        assert not exact or relative_error_of(gx[begin:end], exact, scale=scale) <= 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.int8, torch.int32])
@every_backend
def test_wherever_the_rows_begin(backend, dtype):
    """Rows that begin between two multiples of 16 bytes, of groups of one size and of several: the same bits."""
    backend = BACKENDS[backend]
    for n in (3, 16, 64, 100, 700):
        generator = torch.Generator().manual_seed(n)
        rows = torch.randint(-9 if dtype.is_signed else 0, 9, (9, n), generator=generator).to(dtype)
        lengths = torch.randint(0, n + 1, (9,), generator=generator)
        offsets, k = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)), torch.tensor(2)
        flat = rows.flatten()[: int(offsets[-1])]
        dense, ragged = backend.transform(rows, 2), backend.transform(flat, offsets, k)
        for begin, end in pairwise(offsets.tolist()):
            if end - begin >= 2:
                assert identical(backend.transform(flat[begin:end].clone(), 2), ragged[begin:end])
        for shift in (1, 2, 3, 5, 8, 15):
            moved = torch.cat([torch.zeros(shift, dtype=dtype), rows.flatten()])[shift:]
            assert identical(backend.transform(moved.view(9, n), 2), dense)
            assert identical(backend.transform(moved[: len(flat)], offsets, k), ragged)


@every_backend
def test_a_million_groups_of_one(backend):
    backend = BACKENDS[backend]
    x = torch.randn(backend.most_groups, generator=torch.Generator().manual_seed(0))
    offsets, k = torch.arange(len(x) + 1), torch.tensor(3)
    assert torch.equal(backend.transform(x, offsets, k), torch.zeros_like(x))
    assert torch.equal(backend.transform(x, offsets, k, baseline="none"), x)
    assert torch.equal(backend.max_at_k(x, offsets, k), x)


@every_backend
def test_one_group_of_a_million(backend, record_property):
    """max_at_k and transform of 1..10^6 shuffled: sums in closed form, by counting (hockey stick)."""
    n, k = 10**6, 4
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    x = (order + 1).double()
    offsets = torch.tensor([0, n])
    m = BACKENDS[backend].max_at_k(x, offsets, torch.tensor(k))
    assert m.item() == pytest.approx(k * (n + 1) / (k + 1), rel=1e-13)  # the mean of the largest of k among 1..n
    # all gaps are 1, so y[p] = sum_{q <= p} C(q, k-1) / C(n, k) = C(p+1, k) / C(n, k), less q = 0, which is 0 for k > 1
    y = BACKENDS[backend].transform(x, offsets, torch.tensor(k))
    p = order.tolist()
    top = 1.0  # the exact value at the top rank: C(n, k) / C(n, k)
    for i in range(0, n, 997):
        exact = 1.0
        for j in range(k):
            exact *= (p[i] + 1 - j) / (n - j)
        assert abs(y[i].item() - exact) <= 1e-13 * top


@pytest.mark.skipif("cuda on cpu" not in BACKENDS, reason="only the CUDA kernels are launched")
@pytest.mark.parametrize("groups,n,launches", [(32, 16, 1), (512, 16, 2), (1024, 16, 3), (4096, 64, 3)])
def test_how_many_launches(groups, n, launches):
    """One more for groups that may take a block, and one more for larger ones."""
    backend, offsets = BACKENDS["cuda on cpu"], torch.arange(groups + 1) * n
    rewards, k = torch.ones(groups * n), torch.tensor(2)
    for op in (backend.transform, backend.max_at_k):
        with backend.small_batches_fit():
            before = backend.launches()
            op(rewards, offsets, k)
            assert backend.launches() - before == launches


@every_backend
def test_lengths_far_apart(backend):
    """One long group among many short ones: the reference must not pad all to the longest."""
    lengths = torch.ones(20_000).long()
    lengths[7] = 100_000
    offsets = torch.nn.functional.pad(lengths.cumsum(0), (1, 0))
    x = torch.randn(int(offsets[-1]), generator=torch.Generator().manual_seed(0))
    y = BACKENDS[backend].transform(x, offsets, torch.tensor(3))
    assert identical(y[7:100_007], BACKENDS[backend].transform(x[7:100_007], 3))
    assert (y[:7] == 0).all() and (y[100_007:] == 0).all()


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name.startswith("cpu")])
def test_more_coefficients_than_a_thread_keeps(backend):
    """Those of 600 k of 600 samples take more than the 4 MiB that it has for them: some are formed again."""
    n = 600
    x = torch.randint(-8, 9, (n,), generator=torch.Generator().manual_seed(0)).double()
    values = [int(value) for value in x.sort().values]
    expected = []
    for k in range(1, n + 1):
        draws, subsets, total = 0, 1, 0
        for q in range(k - 1, n):  # subsets: C(q, k - 1)
            draws += subsets
            total += values[q] * subsets
            subsets = subsets * (q + 1) // (q + 2 - k)
        expected.append(Fraction(total, draws))
    for ks in (range(1, n + 1), range(n, 0, -7), range(1, n + 1, 5)):
        y = BACKENDS[backend].max_at_k(x, list(ks))
        error = relative_error_of(y, [expected[k - 1] for k in ks], scale=Fraction(8))
        assert error <= BOUND[torch.float64]


@every_backend
def test_several_k_at_once(backend):
    """Bit for bit what each k gives alone; clamped in short groups."""
    backend = BACKENDS[backend]
    x = torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(0))
    x[0, 1, 3:] = torch.nan
    x[1, 1] = torch.nan
    ks = [1, 2, 5, 9]
    assert identical(backend.max_at_k(x, ks), torch.stack([backend.max_at_k(x, k) for k in ks], -1))
    offsets = torch.tensor([0, 2, 2, 50, 108])
    each = torch.stack([backend.max_at_k(x.flatten(), offsets, torch.tensor(k)) for k in ks], -1)
    assert identical(backend.max_at_k(x.flatten(), offsets, ks), each)
    assert backend.max_at_k(x[0, 0] > 0, ks).dtype == torch.float32


@pytest.mark.parametrize("backend", [name for name in BACKENDS if not BACKENDS[name].checks_contents])
def test_offsets_that_fall_reach_nothing_outside(backend):
    """Where the contents of offsets are not looked at, wrong ones give results without meaning, and groups around them are as
    they should be. The sanitizers watch the rest."""
    n = 20_000
    x = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    k = torch.tensor(2)
    for offsets in ([0, n, 0, n, 0, n], [0, 9000, 5000, n], [0, 3, 2**40, -5, n], [-7, n + 7], [n, 0]):
        y = BACKENDS[backend].transform(x, torch.tensor(offsets), k)
        gx = BACKENDS[backend].transform_backward(x, x, torch.tensor(offsets), k)
        assert y.shape == gx.shape == x.shape
    first = BACKENDS[backend].transform(x, torch.tensor([0, 9000, 5000, 5003, n]), k)[:5000]
    assert identical(first, BACKENDS[backend].transform(x[:9000], k)[:5000])

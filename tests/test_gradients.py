"""First- and second-order gradients of every form, against exact arithmetic and finite differences."""

from fractions import Fraction

import oracle
import pytest
import rewards
import torch
from backends import BACKENDS
from compare import relative_error_of
from test_promises import identical
from test_transform import report

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_form = pytest.mark.parametrize("form", oracle.FORMS)

# A gradient is a difference of sums of the incoming gradients: its error is that of the sums, not of the difference.
GRADIENT_BOUND = {torch.float64: 1e-13, torch.float32: 1e-6}


def backward(backend, form, grad, x, *args):
    if form == "max_at_k":
        return BACKENDS[backend].max_at_k_backward(grad, x, *args)
    return BACKENDS[backend].transform_backward(grad, x, *args, baseline=form)


def forward(form, x, *args):
    return (
        torch.ops.pkpo.max_at_k(x, *args) if form == "max_at_k" else torch.ops.pkpo.transform(x, *args, baseline=form)
    )


@every_form
@every_backend
@pytest.mark.parametrize("dtype", GRADIENT_BOUND)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 13])
def test_against_exact_arithmetic(backend, form, dtype, n, record_property):
    worst = 0
    generator = torch.Generator().manual_seed(n)
    for kind in (rewards.gaussian, rewards.binary, rewards.ties, rewards.equal, rewards.offset):
        x = rewards.for_dtype(kind, n, dtype)
        x[1:2] = torch.nan if n > 3 else x[1:2]  # an absent sample has no gradient
        values = [None if value != value else value for value in x.tolist()]
        for k in range(1, n + 1):
            if not oracle.allowed(form, n, k):
                continue
            shape = () if form == "max_at_k" else (n,)
            grad = torch.randn(shape, generator=generator, dtype=dtype)
            gx = backward(backend, form, grad, x, k)
            exact = oracle.gradient(values, grad.tolist(), k, form)
            scale = max(Fraction(float(grad.abs().sum())), *map(abs, exact))
            error = relative_error_of(gx, exact, scale=scale)
            assert error <= GRADIENT_BOUND[dtype], (kind.__name__, k)
            worst = max(worst, error)
    report(record_property, backend, f"gradient of {form}", dtype, worst)


@every_form
@pytest.mark.parametrize("backend", [name for name in BACKENDS if name != "reference"])
@pytest.mark.parametrize("dtype", GRADIENT_BOUND)
def test_permuting_equal_rewards_permutes_their_gradient(backend, form, dtype):
    """The sums of incoming gradients do not depend on the order in which equal rewards come to stand, bit for bit, though
    they are of very different sizes."""
    for n in (5, 16, 33, 300, 1500, 5000):
        generator = torch.Generator().manual_seed(n)
        x = torch.randn(n, generator=generator).round().to(dtype)
        size = 2.0 ** torch.randint(-20, 20, (n,), generator=generator)
        grad = (torch.randn(n, generator=generator, dtype=torch.float64) * size).to(dtype)
        order = torch.randperm(n, generator=generator)
        k = torch.tensor(2)
        if form == "max_at_k":
            gx, permuted = (backward(backend, form, grad[0], values, k) for values in (x, x[order]))
        else:
            gx = backward(backend, form, grad, x, k)
            permuted = backward(backend, form, grad[order], x[order], k)
        assert identical(permuted, gx[order]), n


def test_tied_rewards_share_the_gradient_equally():
    x = torch.tensor([2.0, 1.0, 2.0, 2.0, 5.0], requires_grad=True)
    torch.ops.pkpo.max_at_k(x, 2).backward()
    # max_at_k is sum w[q] x[q] with w = 0, 1/10, 2/10, 3/10, 4/10: the tied ones hold ranks 1 to 3
    torch.testing.assert_close(x.grad, torch.tensor([0.2, 0.0, 0.2, 0.2, 0.4]))
    assert len(set(x.grad[[0, 2, 3]].tolist())) == 1


@every_form
def test_autograd_reaches_the_backward_op(form):
    x = rewards.gaussian(12).float().reshape(3, 4).requires_grad_()
    y = forward(form, x, 2)
    grad = torch.randn_like(y)
    (gx,) = torch.autograd.grad(y, x, grad)
    assert torch.equal(gx, backward(next(iter(BACKENDS)), form, grad, x.detach(), 2))


def gradcheck_cases():
    offsets = torch.tensor([0, 3, 4, 6, 9])
    for form in oracle.FORMS:
        for k in (1, 2, 3):
            yield form, (2, 5), (k,), f"{form}-k{k}"
        yield form, (2, 5), (torch.tensor([2, 9]),), f"{form}-tensor_k"
        yield form, (9,), (offsets, torch.tensor([2, 1, 1, 4])), f"{form}-grouped"


CASES = list(gradcheck_cases())
every_case = pytest.mark.parametrize("form,shape,args", [case[:3] for case in CASES], ids=[case[3] for case in CASES])


@every_case
def test_gradcheck(form, shape, args):
    # distinct rewards, further apart than the step of the finite differences
    x = torch.randperm(10, generator=torch.Generator().manual_seed(0))[: torch.Size(shape).numel()]
    if x.numel() < torch.Size(shape).numel():
        raise AssertionError("too few distinct values")
    x = x.double().reshape(shape).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: forward(form, x, *args), (x,), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: forward(form, x, *args), (x,))


@every_case
def test_second_order_at_ties(form, shape, args):
    """grad of |grad transform|^2-like losses: the transpose of the backward map, which averages over ties."""
    x = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    y = forward(form, x, *args)
    grad = torch.randn(y.shape, dtype=torch.float64, requires_grad=True)
    (gx,) = torch.autograd.grad(y, x, grad, create_graph=True)
    tangent = torch.randn_like(gx)
    (ggrad,) = torch.autograd.grad(gx, grad, tangent, create_graph=True)
    # <tangent, J^T grad> = <J tangent, grad>, for every grad
    columns = [
        torch.autograd.grad(y, x, unit, retain_graph=True)[0]
        for unit in torch.eye(y.numel()).double().reshape(-1, *y.shape)
    ]
    expected = torch.stack([(column * tangent).sum() for column in columns]).reshape(y.shape)
    torch.testing.assert_close(ggrad, expected, rtol=1e-12, atol=1e-14)


def test_gradcheck_of_a_curve():
    rewards = torch.randperm(10, generator=torch.Generator().manual_seed(0)).double().reshape(2, 5).requires_grad_()
    offsets = torch.tensor([0, 3, 4, 10])
    for curve in (
        lambda r: torch.ops.pkpo.max_at_k(r, [1, 3, 5]),
        lambda r: torch.ops.pkpo.max_at_k(r.flatten(), offsets, [1, 3, 5]),
    ):
        assert torch.autograd.gradcheck(curve, (rewards,), check_forward_ad=True)
        assert torch.autograd.gradgradcheck(curve, (rewards,))


def test_bool_and_integer_rewards_have_no_gradient():
    y = torch.ops.pkpo.transform(torch.tensor([True, False, True]), 2)
    assert y.dtype == torch.float32 and not y.requires_grad

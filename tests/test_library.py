"""The ops as citizens of torch: opcheck, torch.compile, torch.func, autocast, layouts."""

import ctypes

import pytest
import torch
from samples import SAMPLES, strided, x

import pkpo_kernels  # noqa: F401

transform, max_at_k = torch.ops.pkpo.transform, torch.ops.pkpo.max_at_k
every_sample = pytest.mark.parametrize("sample", SAMPLES, ids=[sample.name for sample in SAMPLES])


@every_sample
def test_opcheck(sample):
    torch.library.opcheck(sample.op, sample.args, sample.keywords)
    first, *rest = sample.args
    if first.dtype.is_floating_point:
        torch.library.opcheck(sample.op, (first.detach().clone().requires_grad_(), *rest), sample.keywords)


@every_sample
def test_the_packet_finds_the_overload(sample):
    packet = getattr(torch.ops.pkpo, sample.op._schema.name.split("::")[1])
    expected = sample.op(*sample.args, **sample.keywords)
    torch.testing.assert_close(packet(*sample.args, **sample.keywords), expected, rtol=0, atol=0, equal_nan=True)


def test_a_zero_dimensional_k_is_not_read_as_a_number():
    """A captured CUDA graph may change k in place only where it reaches the op as a tensor."""
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Watch():
        transform(x(4, 6), torch.tensor(2))
        transform(x(4, 6), 2)
        max_at_k(x(10), torch.tensor([0, 10]), torch.tensor(2))
    assert transform.tensor_k in seen and transform.default in seen and max_at_k.grouped in seen


def test_a_call_that_needs_no_gradient_is_seen_by_whoever_watches():
    """Such a call goes past autograd, and past nothing else."""
    functions = []

    class Functions(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            functions.append(func)
            return func(*args, **(kwargs or {}))

    rewards = x(4, 6)
    with Functions():
        transform(rewards, 2)
    assert transform in functions or transform.default in functions
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        transform(rewards, 2)
        transform(rewards, 2, baseline="none")
    assert [event.count for event in profile.key_averages() if event.key == "pkpo::transform"] == [2]


def test_a_mode_may_make_the_rewards_need_a_gradient():
    leaf = x(4, 6).requires_grad_()

    class Instead(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(leaf, *args[1:], **(kwargs or {}))

    with Instead():
        y = transform(leaf.detach(), 2)
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
    (expected,) = torch.autograd.grad(transform.default(leaf, 2).square().sum(), leaf)
    assert gradient.abs().sum() > 0 and torch.equal(gradient, expected)


def test_a_subclass_may_hold_rewards_that_need_a_gradient():
    class Holder(torch.Tensor):
        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            inner = [argument.inner if isinstance(argument, Holder) else argument for argument in args]
            with torch._C.DisableTorchFunctionSubclass():
                return func(*inner, **(kwargs or {}))

    leaf = x(4, 6).requires_grad_()
    held = torch.zeros(4, 6).as_subclass(Holder)
    held.inner = leaf
    (gradient,) = torch.autograd.grad(transform(held, 2).square().sum(), leaf)
    (expected,) = torch.autograd.grad(transform.default(leaf, 2).square().sum(), leaf)
    assert gradient.abs().sum() > 0 and torch.equal(gradient, expected)


class Counter:
    """A compiler backend that counts how often it is asked."""

    def __init__(self):
        self.compilations = 0

    def __call__(self, graph, inputs):
        self.compilations += 1
        return graph.forward


def step(rewards, k, scale):
    """A training step around the op: a loss, and its gradient."""
    y = transform(rewards * scale, k) + transform(rewards, k, baseline="none")
    return (y * scale).sum() + max_at_k(rewards, k).sum()


@pytest.mark.parametrize("dynamic,expected", [(True, 1), (None, 2)])
def test_a_new_k_does_not_recompile(dynamic, expected):
    """With dynamic=None torch takes the first k for a constant and gives that up, once, when it sees a second."""
    torch.compiler.reset()
    counter = Counter()
    compiled = torch.compile(step, backend=counter, fullgraph=True, dynamic=dynamic)
    for k in (4, 2, 3, 5, 6, 8):
        rewards = x(3, 8).requires_grad_()
        scale = torch.tensor(2.0)
        loss = compiled(rewards, k, scale)
        torch.testing.assert_close(loss, step(rewards, k, scale))
    assert counter.compilations == expected


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_step_and_its_gradient(backend):
    torch.compiler.reset()
    compiled = torch.compile(step, backend=backend, fullgraph=True, dynamic=True)
    for k in (2, 3):
        rewards, scale = x(3, 8).requires_grad_(), torch.tensor(2.0)
        (gradient,) = torch.autograd.grad(compiled(rewards, k, scale), rewards)
        (expected,) = torch.autograd.grad(step(rewards, k, scale), rewards)
        torch.testing.assert_close(gradient, expected)


def test_compiled_grouped_and_tensor_k():
    torch.compiler.reset()

    def both(rewards, offsets, k):
        return transform(rewards, offsets, k), max_at_k(rewards, offsets, k), transform(rewards.reshape(2, -1), k[:2])

    args = x(10), torch.tensor([0, 3, 3, 10]), torch.tensor([2, 1, 4])
    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    for ours, expected in zip(compiled(*args), both(*args)):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("in_dim", [0, 1, 2])
def test_vmap(in_dim):
    rewards = x(3, 4, 5).movedim(2, (in_dim + 1) % 3)
    size = rewards.shape[in_dim]
    each = [rewards.select(in_dim, i) for i in range(size)]
    for op in (transform, max_at_k):
        got = torch.func.vmap(lambda r, op=op: op(r, 2), in_dims=in_dim)(rewards)
        assert torch.equal(got, torch.stack([op(r, 2) for r in each]))
        ks = torch.arange(1, size + 1)
        got = torch.func.vmap(lambda r, k, op=op: op(r, k), in_dims=(in_dim, 0))(rewards, ks)
        assert torch.equal(got, torch.stack([op(r, k) for r, k in zip(each, ks)]))
        got = torch.func.vmap(lambda k, op=op: op(each[0], k))(ks)
        assert torch.equal(got, torch.stack([op(each[0], k) for k in ks]))


def test_vmap_grouped():
    rewards = x(3, 10)
    offsets = torch.tensor([[0, 3, 10], [0, 5, 10], [0, 0, 10]])
    k = torch.tensor([2, 3])
    for op in (transform, max_at_k):
        expected = torch.stack([op(r, o, k) for r, o in zip(rewards, offsets)])
        got = torch.func.vmap(lambda r, o, op=op: op(r, o, k))(rewards, offsets)
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
        expected = torch.stack([op(r, offsets[0], torch.tensor(2)) for r in rewards])
        got = torch.func.vmap(lambda r, op=op: op(r, offsets[0], torch.tensor(2)))(rewards)
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)


def test_vmap_curve():
    rewards = x(3, 10)
    got = torch.func.vmap(lambda r: max_at_k(r, [1, 4]))(rewards)
    assert torch.equal(got, torch.stack([max_at_k(r, [1, 4]) for r in rewards]))
    offsets = torch.tensor([0, 3, 10])
    got = torch.func.vmap(lambda r: max_at_k(r, offsets, [1, 4]))(rewards)
    assert torch.equal(got, torch.stack([max_at_k(r, offsets, [1, 4]) for r in rewards]))


def test_func_grad_and_per_sample_gradients():
    rewards = x(4, 6).double()
    weight = torch.randn(6, dtype=torch.float64)

    def loss(r):
        return (transform(r, 3) * weight).sum() + max_at_k(r, 2)

    expected = []
    for r in rewards:
        r = r.clone().requires_grad_()
        expected.append(torch.autograd.grad(loss(r), r)[0])
    torch.testing.assert_close(torch.func.grad(loss)(rewards[0]), expected[0])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(rewards), torch.stack(expected))
    jacobian = torch.func.jacrev(lambda r: transform(r, 3))(rewards[0])
    torch.testing.assert_close(jacobian @ rewards[0], transform(rewards[0], 3))  # linear in the sorted rewards


def test_func_second_order():
    """The ops are linear between ties, so the second derivative of their square is twice the Gram matrix."""
    r = x(6).double()
    jacobian = torch.func.jacrev(lambda r: transform(r, 3))(r)
    hessian = torch.func.jacrev(torch.func.grad(lambda r: (transform(r, 3) ** 2).sum()))(r)
    torch.testing.assert_close(hessian, 2 * jacobian.T @ jacobian)


def test_autocast_computes_half_rewards_in_float32():
    rewards = x(4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for op in (transform, max_at_k):
            assert op(rewards, 3).dtype == torch.float32
            assert torch.equal(op(rewards.bfloat16(), 3), op(rewards.bfloat16().float(), 3))
            assert op(rewards.double(), 3).dtype == torch.float64
    assert transform(rewards.bfloat16(), 3).dtype == torch.bfloat16


def test_layouts():
    """Strides, expansion and leading dimensions change nothing; the output is contiguous."""
    rewards = strided()
    assert not rewards.is_contiguous()
    assert torch.equal(transform(rewards, 3), transform(rewards.contiguous(), 3))
    assert torch.equal(max_at_k(rewards, 3), max_at_k(rewards.contiguous(), 3))
    assert transform(rewards, 3).is_contiguous()
    row = x(6)
    assert torch.equal(transform(row.expand(4, 6), 3), transform(row, 3).expand(4, 6))
    assert torch.equal(transform(x(2, 3, 2, 6), 3), transform(x(2, 3, 2, 6).reshape(12, 6), 3).reshape(2, 3, 2, 6))
    assert max_at_k(x(2, 3, 2, 6), 3).shape == (2, 3, 2)
    assert max_at_k(row, 3).shape == ()
    assert transform(x(0, 6), 3).shape == (0, 6) and max_at_k(x(0, 6), 3).shape == (0,)
    gradient = torch.ops.pkpo._transform_backward(row.expand(4, 6), x(4, 6), 3)
    assert torch.equal(gradient, torch.ops.pkpo._transform_backward(row.expand(4, 6).contiguous(), x(4, 6), 3))


def test_jagged_nested_tensors():
    groups = [x(n) for n in (3, 1, 8)]
    rewards = torch.nested.as_nested_tensor(groups, layout=torch.jagged).detach().requires_grad_()
    weights = transform(rewards.values(), rewards.offsets(), torch.tensor([2, 1, 5]))
    weights = torch.nested.nested_tensor_from_jagged(weights, rewards.offsets())
    gradient = torch.autograd.grad(weights.values().square().sum(), rewards)[0]
    for group, k, y, gx in zip(groups, (2, 1, 5), weights.unbind(), gradient.unbind()):
        group.requires_grad_()
        expected = transform(group, k)
        assert torch.equal(y, expected) and torch.equal(gx, torch.autograd.grad(expected.square().sum(), group)[0])


def test_meta_tensors():
    rewards = x(4, 6).to("meta")
    assert transform(rewards, 3).shape == (4, 6) and transform(rewards, 3).device.type == "meta"
    assert max_at_k(rewards.to(torch.bool), 3).dtype == torch.float32


def test_inference_mode_and_requires_grad():
    rewards = x(4, 6).requires_grad_()
    assert transform(rewards, 3).requires_grad
    with torch.no_grad():
        assert not transform(rewards, 3).requires_grad
    with torch.inference_mode():
        assert torch.equal(transform(rewards, 3), transform(rewards.detach(), 3))


def test_forward_mode():
    r, tangent = x(2, 6).double(), torch.randn(2, 6, dtype=torch.float64)
    for op in (transform, max_at_k):
        jacobian = torch.func.jacrev(lambda r, op=op: op(r, 3))(r)
        expected = torch.einsum("...ij,ij->...", jacobian, tangent)
        torch.testing.assert_close(torch.func.jvp(lambda r, op=op: op(r, 3), (r,), (tangent,))[1], expected)
        torch.testing.assert_close(torch.func.jacfwd(lambda r, op=op: op(r, 3))(r), jacobian)
    f = lambda r: (transform(r, 3) ** 2).sum()  # noqa: E731
    torch.testing.assert_close(torch.func.hessian(f)(r), torch.func.jacrev(torch.func.jacrev(f))(r))


def test_calls_leave_no_memory_behind():
    """Bytes that malloc has handed out, before and after many calls. A few that each call keeps do not only add up: they
    lie between the results, whose memory the C library then cannot use again."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return  # not glibc
    fields = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    info = type("Info", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in fields.split()]})
    libc.mallinfo2.restype = info
    rewards, offsets, k = x(8, 6), torch.tensor([0, 20, 48]), torch.tensor(2)
    calls = (
        lambda: transform(rewards, 2, baseline="none"),
        lambda: transform(rewards, k),
        lambda: transform(rewards.flatten(), offsets, k),
        lambda: max_at_k(rewards, [1, 2]),
        lambda: torch.ops.pkpo._transform_backward(rewards, rewards, 2),
    )
    for call in calls:
        for _ in range(100):
            call()
        before = libc.mallinfo2().uordblks
        for _ in range(4000):
            call()
        assert libc.mallinfo2().uordblks - before < 4000 * 8

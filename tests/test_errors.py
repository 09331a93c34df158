"""Bad input gets an error before any work: the op, the argument, what came, what is allowed. Every backend says the same."""

import pytest
import torch
from backends import BACKENDS
from torch._subclasses.fake_tensor import FakeTensorMode

every_backend = pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)

X = torch.zeros(3, 4)
V = torch.zeros(10)
OFFSETS = torch.tensor([0, 4, 10])
K = torch.tensor(2)
DTYPES = "float64, float32, float16, bfloat16, bool, uint8, int8, int16, int32 or int64"


def offsets(*values, dtype=torch.int64):
    return torch.tensor(values, dtype=dtype)


# (arguments, keywords, message behind "pkpo::transform: "); the last True: known only from the contents of a tensor
CASES = {
    "k=0": ((X, 0), {}, "k must be between 1 and n = 4, got 0"),
    "k=-1": ((X, -1), {}, "k must be between 1 and n = 4, got -1"),
    "k>n": ((X, 5), {}, "k must be between 1 and n = 4, got 5"),
    "k>n without groups": ((X[:0], 5), {}, "k must be between 1 and n = 4, got 5"),
    "loo k=n": (
        (X, 4),
        {"baseline": "loo"},
        'baseline "loo" compares a sample with k of the n - 1 others, so k must be at most n - 1 = 3, got 4',
    ),
    "baseline": ((X, 2), {"baseline": "loo1"}, 'baseline must be "none", "loo" or "loo-1", got "loo1"'),
    "complex": ((X.to(torch.complex64), 2), {}, f"rewards must be {DTYPES}, got complex64"),
    "uint16": ((X.to(torch.uint16), 2), {}, f"rewards must be {DTYPES}, got "),
    "n=0": ((X[:, :0], 1), {}, "rewards must have n >= 1 samples a group, got shape (3, 0)"),
    "no dimension": ((X[0, 0], 1), {}, "rewards must have shape (..., n), got a tensor with no dimension"),
    "k float": ((X, K.float()), {}, "k must be int32 or int64, got float32"),
    "k shape": ((X, torch.ones(4).long()), {}, "k must have shape () or one value a group, (3,), got (4,)"),
    "k (1,)": ((X, torch.ones(1).long()), {}, "k must have shape () or one value a group, (3,), got (1,)"),
    "k contents": ((X, offsets(1, 0, 2)), {}, "k must be at least 1, got 0 for group 1", True),
    "k content": ((X, K - 5), {}, "k must be at least 1, got -3", True),
    "grouped 2-D": ((X, OFFSETS, K), {}, "rewards must have shape (N,) with offsets, got (3, 4)"),
    "offsets float": ((V, OFFSETS.float(), K), {}, "offsets must be int32 or int64, got float32"),
    "offsets 2-D": ((V, OFFSETS[None], K), {}, "offsets must have shape (G + 1,) for G groups, got (1, 3)"),
    "offsets empty": ((V, OFFSETS[:0], K), {}, "offsets must have shape (G + 1,) for G groups, got (0,)"),
    "offsets start": ((V, offsets(1, 4, 10), K), {}, "offsets must start at 0, got 1", True),
    "offsets fall": ((V, offsets(0, 4, 3, 10), K), {}, "offsets must not decrease, got 3 after 4 at index 2", True),
    "offsets below 0": ((V, offsets(0, -4, 10), K), {}, "offsets must not decrease, got -4 after 0 at index 1", True),
    "offsets end": ((V, offsets(0, 4, 9), K), {}, "offsets must end at the number of rewards, 10, got 9", True),
    "offsets past the end": (
        (V, offsets(0, 4, 2**40), K),
        {},
        "offsets must end at the number of rewards, 10, got 1099511627776",
        True,
    ),
    "grouped k shape": (
        (V, OFFSETS, torch.ones(3).long()),
        {},
        "k must have shape () or one value a group, (2,), got (3,)",
    ),
    "grouped k contents": ((V, OFFSETS, offsets(1, -1)), {}, "k must be at least 1, got -1 for group 1", True),
    "grouped baseline": ((V, OFFSETS, K), {"baseline": ""}, 'baseline must be "none", "loo" or "loo-1", got ""'),
}
# A group of 2**40 samples is refused for its length where lengths are looked at first.
ALTERNATIVES = {"offsets past the end": "a group must have at most 2**32 - 1 samples, got 1099511627772 in group 1"}

every_case = pytest.mark.parametrize("name", CASES)


def check(call, name, op, of_contents=True):
    args, keywords, message, *is_of_contents = CASES[name]
    if is_of_contents and not of_contents:
        return
    with pytest.raises(RuntimeError) as error:
        call(*args, **keywords)
    text = str(error.value).splitlines()[0]
    assert text.startswith((f"{op}: {message}", f"{op}: {ALTERNATIVES.get(name, message)}")), text


@every_case
@every_backend
def test_transform(backend, name):
    check(backend.transform, name, "pkpo::transform", backend.checks_contents)


@every_case
@every_backend
def test_max_at_k(backend, name):
    if not CASES[name][1]:  # it has no baseline
        check(backend.max_at_k, name, "pkpo::max_at_k", backend.checks_contents)


@every_case
@every_backend
def test_backward(backend, name):
    def call(rewards, *args, **keywords):
        return backend.transform_backward(rewards, rewards, *args, **keywords)

    if name not in ("complex", "uint16"):
        check(call, name, "pkpo::_transform_backward", backend.checks_contents)


@every_case
def test_compiled_calls_hear_of_it_while_tracing(name):
    args, _, _, *of_contents = CASES[name]
    if of_contents:
        return
    with FakeTensorMode() as mode:
        args = [mode.from_tensor(value) if isinstance(value, torch.Tensor) else value for value in args]

        def call(*_, **keywords):
            return torch.ops.pkpo.transform(*args, **keywords)

        check(call, name, "pkpo::transform")


@every_backend
def test_curve(backend):
    for args, message in (
        ((X, [2, 5]), "k must be between 1 and n = 4, got 5"),
        ((X, [0]), "k must be between 1 and n = 4, got 0"),
        ((V, OFFSETS, [3, 0]), "k must be at least 1, got 0"),
        ((V, OFFSETS.float(), [3]), "offsets must be int32 or int64, got float32"),
        ((V, offsets(0, 4, 9), [3]), "offsets must end at the number of rewards, 10, got 9"),
    )[: None if backend.checks_contents else -1]:
        with pytest.raises(RuntimeError) as error:
            backend.max_at_k(*args)
        assert str(error.value).splitlines()[0] == f"pkpo::max_at_k: {message}"
    curve = backend.max_at_k
    with pytest.raises(RuntimeError, match=r"pkpo::max_at_k: k must hold at least one integer, got \[\]"):
        curve(X, [])


@every_backend
def test_gradient_arguments(backend):
    with pytest.raises(RuntimeError, match=r"pkpo::_transform_backward: grad must have shape \(3, 4\), got \(4, 3\)"):
        backend.transform_backward(X.t(), X, 2)
    with pytest.raises(
        RuntimeError, match="pkpo::_transform_backward: grad must be float32 like the output, got float64"
    ):
        backend.transform_backward(X.double(), X, 2)
    with pytest.raises(RuntimeError, match=r"pkpo::_max_at_k_backward: grad must have shape \(3,\), got \(3, 4\)"):
        backend.max_at_k_backward(X, X, 2)
    with pytest.raises(RuntimeError, match=r"pkpo::_max_at_k_backward: grad must have shape \(2,\), got \(10,\)"):
        backend.max_at_k_backward(V, V, OFFSETS, K)
    with pytest.raises(RuntimeError, match="rewards must be a floating type to have a gradient, got int64"):
        backend.transform_backward(X, X.long(), 2)


def test_devices_that_differ():
    where = "must be on the device of rewards, meta, got cpu"
    with pytest.raises(RuntimeError, match=f"pkpo::transform: k {where}"):
        torch.ops.pkpo.transform(X.to("meta"), K)
    with pytest.raises(RuntimeError, match=f"pkpo::transform: offsets {where}"):
        torch.ops.pkpo.transform(V.to("meta"), OFFSETS, K.to("meta"))
    with pytest.raises(RuntimeError, match=f"pkpo::_transform_backward: grad {where}"):
        torch.ops.pkpo._transform_backward(X, X.to("meta"), 2)


def test_sparse_rewards():
    with pytest.raises(
        RuntimeError, match=r"pkpo::transform: rewards must be a dense \(strided\) tensor, got torch.sparse_coo"
    ):
        torch.ops.pkpo.transform(torch.eye(3).to_sparse(), 2)


FORMS = (
    "arguments must be (rewards, k), k an integer or an integer tensor, or (rewards, offsets, k), all tensors, "
    "and baseline="
)


@pytest.mark.parametrize(
    "args, keywords, got",
    [
        ((X, 2.0), {}, "Tensor, float"),
        ((X, [1, 2]), {}, "Tensor, list"),
        ((X, None), {}, "Tensor, NoneType"),
        ((X,), {}, "Tensor"),
        ((X,), {"k": None}, "Tensor, k=NoneType"),
        ((None, 2), {}, "NoneType, int"),
        (([[0.0, 1.0]], 2), {}, "list, int"),
        ((V, OFFSETS, 2), {}, "Tensor, Tensor, int"),
        ((V, None, K), {}, "Tensor, NoneType, Tensor"),
        ((X, 2), {"base": "loo"}, "Tensor, int, base=str"),
    ],
    ids=str,
)
def test_arguments_of_no_form(args, keywords, got):
    """torch's own message is a page; an undefined tensor for None would reach the kernels."""
    with pytest.raises(RuntimeError) as error:
        torch.ops.pkpo.transform(*args, **keywords)
    assert str(error.value) == f"pkpo::transform: {FORMS}, got ({got})"


def test_arguments_of_no_form_of_max_at_k():
    with pytest.raises(
        RuntimeError, match=r"pkpo::max_at_k: arguments must be .* list of integers.*got \(Tensor, str\)"
    ):
        torch.ops.pkpo.max_at_k(X, "2")

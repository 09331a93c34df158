"""Schedules of k over the steps of training. A large k looks for solutions to hard problems, k = 1 makes those found
reliable: the paper anneals from one to the other (Walder and Karkhanis, arXiv 2505.15201).

>>> schedule = Geometric(16, 1, steps=4)
>>> [schedule(step) for step in range(6)]
[16, 8, 4, 2, 1, 1]
>>> schedule.step(), schedule.k
(8, 8)
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping

__all__ = ["Constant", "Cosine", "Geometric", "Linear", "PassRate", "Schedule", "Step", "make"]


class Schedule(ABC):
    """What all schedules have. ``schedule(step)`` is k at a step, an integer of at least 1; ``schedule.k`` is k now, and
    :meth:`step` moves on.

    Parameters
    ----------
    n : int, optional
        The samples of a group. Given, a k beyond n is an error when the schedule is made.
    """

    def __init__(self, n: int | None = None):
        self.n = None if n is None else check_positive(type(self).__name__, "n", n)
        self.steps_taken = 0
        self._tensors: dict = {}

    def __call__(self, step: int) -> int:
        """k at a step, the first being 0. Depends on nothing else but, for :class:`PassRate`, what was measured."""
        if step < 0:
            raise ValueError(f"{type(self).__name__}: step must be at least 0, got {step}")
        return self._k_at(step)

    @abstractmethod
    def _k_at(self, step: int) -> int: ...

    @property
    def k(self) -> int:
        """k now."""
        return self(self.steps_taken)

    def step(self, pass_rate: float | None = None) -> int:
        """Moves one step on, and with it every tensor that :meth:`tensor` gave.

        Parameters
        ----------
        pass_rate : float, optional
            The share of right samples just measured, 0 to 1; only :class:`PassRate` looks at it.

        Returns
        -------
        int
            k from here on.
        """
        self._measure(pass_rate)
        self.steps_taken += 1
        self._fill()
        return self.k

    def _measure(self, pass_rate):  # noqa: B027  most schedules look at the step alone
        pass

    def tensor(self, device=None):
        """k as a tensor, int64 of shape (), one for each device: every :meth:`step` writes the new k into it, so that ops
        which took it, in a captured CUDA graph too, see k change. For ``torch.ops.pkpo.transform(rewards, k_tensor)``."""
        import torch

        device = torch.device("cpu" if device is None else device)
        if device not in self._tensors:
            self._tensors[device] = torch.tensor(self.k, device=device)
        return self._tensors[device]

    def _fill(self):
        for tensor in self._tensors.values():
            tensor.fill_(self.k)

    def state_dict(self) -> dict:
        """What changes as training goes on: plain numbers, for a checkpoint."""
        return {"steps_taken": self.steps_taken}

    def load_state_dict(self, state: Mapping) -> None:
        """Goes on from where :meth:`state_dict` was taken; tensors follow."""
        expected = self.state_dict().keys()
        if state.keys() != expected:
            raise ValueError(f"{type(self).__name__}: state must have {sorted(expected)}, got {sorted(state)}")
        for name, value in state.items():
            setattr(self, name, value)
        self._fill()

    def plot(self, steps: int, ax=None):
        """Draws k over the first ``steps`` steps, with matplotlib, on ``ax`` or on a new figure; gives the axes."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.subplots(figsize=(5, 3))[1]
        ax.step(range(steps), [self(step) for step in range(steps)], where="post", label=repr(self))
        ax.set(xlabel="step", ylabel="k", ylim=(0, None))
        return ax

    def __repr__(self):
        arguments = ", ".join(f"{name}={value}" for name, value in self._arguments().items())
        return f"{type(self).__name__}({arguments})"

    @abstractmethod
    def _arguments(self) -> dict: ...

    def _checked(self, name: str, k: int) -> int:
        k = check_positive(type(self).__name__, name, k)
        if self.n is not None and k > self.n:
            raise ValueError(f"{type(self).__name__}: {name} must be between 1 and n = {self.n}, got {k}")
        return k


class Constant(Schedule):
    """The same k always.

    >>> Constant(4)(1000)
    4
    """

    def __init__(self, k: int, *, n: int | None = None):
        super().__init__(n)
        self.value = self._checked("k", k)

    def _k_at(self, step):
        return self.value

    def _arguments(self):
        return {"k": self.value}


class Step(Schedule):
    """``start`` for so many steps, then ``end``: the paper's annealing, from a high k to 1.

    >>> schedule = Step(8, 1, steps=100)
    >>> schedule(99), schedule(100)
    (8, 1)
    """

    def __init__(self, start: int, end: int = 1, *, steps: int, n: int | None = None):
        super().__init__(n)
        self.start, self.end = self._checked("start", start), self._checked("end", end)
        self.steps = check_positive(type(self).__name__, "steps", steps)

    def _k_at(self, step):
        return self._between(min(step / self.steps, 1.0))

    def _between(self, share):
        """k where this share, 0 to 1, of the steps is done."""
        return self.end if share == 1 else self.start

    def _arguments(self):
        return {"start": self.start, "end": self.end, "steps": self.steps}


class Linear(Step):
    """From ``start`` to ``end`` in equal steps, rounded to the nearest integer.

    >>> [Linear(5, 1, steps=4)(step) for step in range(6)]
    [5, 4, 3, 2, 1, 1]
    """

    def _between(self, share):
        return _nearest(self.start + (self.end - self.start) * share)


class Geometric(Step):
    """From ``start`` to ``end`` in equal ratios: as long at 2 as at 16, so to say.

    >>> [Geometric(8, 1, steps=3)(step) for step in range(4)]
    [8, 4, 2, 1]
    """

    def _between(self, share):
        return _nearest(self.start * (self.end / self.start) ** share)


class Cosine(Step):
    """From ``start`` to ``end`` along half a cosine: slowly, fast, slowly.

    >>> [Cosine(9, 1, steps=4)(step) for step in range(5)]
    [9, 8, 5, 2, 1]
    """

    def _between(self, share):
        return _nearest(self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2)


class PassRate(Schedule):
    r"""Follows the measured pass rate p: the smallest k with which k samples hold a solution with the probability ``target``,

    .. math:: k = \lceil \log(1 - target) / \log(1 - p) \rceil

    between ``smallest`` and ``largest``. While little is solved k is large; as p grows it falls, to 1 at p = target.

    Parameters
    ----------
    largest : int
        k while nothing is solved; also the first k.
    target : float
        Between 0 and 1, both left out.
    memory : float
        0 to below 1: p is a running mean that keeps this share of itself and takes the rest from the rate just measured.
    smallest : int
    n : int, optional

    Examples
    --------
    >>> schedule = PassRate(16, target=0.5, memory=0.0)
    >>> [schedule.step(pass_rate=p) for p in (0.0, 0.1, 0.3, 0.6)]
    [16, 7, 2, 1]
    """

    def __init__(
        self, largest: int, *, target: float = 0.5, memory: float = 0.9, smallest: int = 1, n: int | None = None
    ):
        super().__init__(n)
        self.largest, self.smallest = self._checked("largest", largest), self._checked("smallest", smallest)
        if self.smallest > self.largest:
            raise ValueError(f"PassRate: smallest must be at most largest = {largest}, got {smallest}")
        if not 0 < target < 1:
            raise ValueError(f"PassRate: target must be between 0 and 1, both left out, got {target}")
        if not 0 <= memory < 1:
            raise ValueError(f"PassRate: memory must be from 0 to below 1, got {memory}")
        self.target, self.memory = target, memory
        self.pass_rate: float | None = None  # the running mean

    def _measure(self, pass_rate):
        if pass_rate is None:
            raise ValueError("PassRate: step must be given pass_rate, the share of right samples, got None")
        if math.isnan(pass_rate):
            return  # nothing could be scored
        if not 0 <= pass_rate <= 1:
            raise ValueError(f"PassRate: pass_rate must be between 0 and 1, got {pass_rate}")
        if self.pass_rate is None:
            self.pass_rate = float(pass_rate)
        else:
            self.pass_rate = self.memory * self.pass_rate + (1 - self.memory) * float(pass_rate)

    def _k_at(self, step):
        p = self.pass_rate
        if not p:
            return self.largest
        if p >= self.target:
            return self.smallest
        # Just above an integer is that integer: the quotient of logarithms is a few roundings off.
        k = math.ceil(math.log1p(-self.target) / math.log1p(-p) - 1e-9)
        return min(max(k, self.smallest), self.largest)

    def state_dict(self):
        return super().state_dict() | {"pass_rate": self.pass_rate}

    def _arguments(self):
        return {"largest": self.largest, "target": self.target, "memory": self.memory, "smallest": self.smallest}


KINDS = {kind.__name__.lower(): kind for kind in (Constant, Step, Linear, Geometric, Cosine)} | {"pass_rate": PassRate}


def make(spec: Schedule | Mapping | int, n: int | None = None) -> Schedule:
    """A schedule from what a configuration can hold.

    Parameters
    ----------
    spec : Schedule, mapping or int
        A schedule is given back as it is; an integer is a constant k; a mapping has ``kind`` ("constant", "step", "linear",
        "geometric", "cosine" or "pass_rate") and the arguments of that class.
    n : int, optional
        The samples of a group.

    Raises
    ------
    ValueError, TypeError
        For an unknown kind or argument, and for a k that is not between 1 and n.

    Examples
    --------
    >>> make({"kind": "linear", "start": 8, "end": 1, "steps": 100}, n=16)
    Linear(start=8, end=1, steps=100)
    """
    if isinstance(spec, Schedule):
        return spec
    if isinstance(spec, int) and not isinstance(spec, bool):
        return Constant(spec, n=n)
    if not isinstance(spec, Mapping):
        raise TypeError(f"annealing.make: spec must be a schedule, a mapping or an integer, got {type(spec).__name__}")
    arguments = dict(spec)
    kind = arguments.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f'annealing.make: kind must be one of {", ".join(KINDS)}, got "{kind}"')
    try:
        return KINDS[kind](**{"n": n} | arguments)
    except TypeError as error:
        raise TypeError(f"annealing.make: {re.sub(r'.*__init__..', kind, str(error))}") from None


def check_positive(of: str, name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{of}: {name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{of}: {name} must be at least 1, got {value}")
    return value


def _nearest(x: float) -> int:
    return math.floor(x + 0.5)

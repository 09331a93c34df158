"""Schedules of k: their values worked out by hand, their state, their tensors, their errors."""

import json
import math

import pytest
import torch

from pkpo_kernels import annealing
from pkpo_kernels.annealing import Constant, Cosine, Geometric, Linear, PassRate, Step, make


@pytest.mark.parametrize(
    "schedule,expected",
    [
        (Constant(4), [4, 4, 4, 4, 4, 4]),
        (Step(8, 1, steps=3), [8, 8, 8, 1, 1, 1]),
        (Linear(9, 1, steps=4), [9, 7, 5, 3, 1, 1]),
        (Linear(1, 4, steps=4), [1, 2, 3, 3, 4, 4]),  # 1.75, 2.5, 3.25: a half goes up
        (Geometric(16, 1, steps=4), [16, 8, 4, 2, 1, 1]),
        (Geometric(1, 27, steps=3), [1, 3, 9, 27, 27, 27]),
        (Cosine(9, 1, steps=4), [9, 8, 5, 2, 1, 1]),  # 9, 7.83, 5, 2.17, 1
        (Step(2, 2, steps=1), [2, 2, 2, 2, 2, 2]),
    ],
)
def test_values(schedule, expected):
    assert [schedule(step) for step in range(6)] == expected
    found = [schedule.k]
    for _ in range(5):
        found.append(schedule.step())
    assert found == expected


def test_pass_rate_gives_the_smallest_k_that_reaches_the_target():
    for percent in range(1, 100):
        p = percent / 100
        for target in (0.3, 0.5, 0.9):
            schedule = PassRate(64, target=target, memory=0.0)
            k = schedule.step(pass_rate=p)
            reached = 1 - (1 - p) ** k
            assert k == 64 or reached >= target - 1e-9
            assert k == 1 or 1 - (1 - p) ** (k - 1) < target


def test_pass_rate_remembers():
    schedule = PassRate(16, target=0.75, memory=0.5)
    assert schedule.k == 16
    assert schedule.step(pass_rate=0.5) == 2  # 1 - 0.5^2 = 0.75
    assert schedule.step(pass_rate=0.0) == 5  # p = 0.25: 1 - 0.75^5 = 0.763, ^4: 0.684
    assert schedule.step(pass_rate=math.nan) == 5
    assert schedule.step(pass_rate=1.0) == 2  # p = 0.625: 0.859, alone 0.625
    assert schedule.step(pass_rate=1.0) == 1  # p = 0.8125


def test_pass_rate_within_its_limits():
    schedule = PassRate(8, smallest=2, memory=0.0)
    assert [schedule.step(pass_rate=p) for p in (0.0, 1e-6, 0.5, 1.0)] == [8, 8, 2, 2]


@pytest.mark.parametrize(
    "make_one", [lambda: Geometric(16, 1, steps=6), lambda: PassRate(16, memory=0.5), lambda: Constant(3)]
)
def test_state_goes_through_json(make_one):
    schedule, rates = make_one(), (0.02, 0.1, 0.2, 0.4, 0.5)
    for rate in rates[:3]:
        schedule.step(pass_rate=rate)
    resumed = make_one()
    tensor = resumed.tensor()
    resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    assert resumed.k == schedule.k == tensor.item()
    for rate in rates[3:]:
        assert resumed.step(pass_rate=rate) == schedule.step(pass_rate=rate)


def test_the_tensor_is_written_in_place():
    schedule = Step(3, 1, steps=2)
    k = schedule.tensor()
    assert k.dtype == torch.int64 and k.shape == ()
    assert schedule.tensor() is k and schedule.tensor("cpu") is k
    rewards, pointer = torch.tensor([[0.0, 1.0, 3.0]]), k.data_ptr()
    found = []
    for _ in range(3):
        found.append(torch.ops.pkpo.max_at_k(rewards, k).item())
        schedule.step()
    assert k.data_ptr() == pointer
    assert found == [3.0, 3.0, pytest.approx(4 / 3)]


def test_plot():
    axes = Linear(4, 1, steps=3).plot(5)
    [line] = axes.lines
    assert line.get_ydata().tolist() == [4, 3, 2, 1, 1]
    assert axes.get_xlabel() == "step" and axes.get_ylabel() == "k"


def test_make():
    schedule = Linear(4, 1, steps=3)
    assert make(schedule) is schedule
    assert make(4)(9) == 4
    assert make({"kind": "pass_rate", "largest": 8, "target": 0.9}, n=8).target == 0.9
    for kind, cls in annealing.KINDS.items():
        arguments = {"constant": {"k": 2}, "pass_rate": {"largest": 2}}.get(kind, {"start": 2, "steps": 5})
        assert type(make({"kind": kind} | arguments, n=4)) is cls


@pytest.mark.parametrize(
    "call,kind,message",
    [
        (lambda: Constant(0), ValueError, "Constant: k must be at least 1, got 0"),
        (lambda: Constant(2.0), TypeError, "Constant: k must be an integer, got 2.0"),
        (lambda: Constant(True), TypeError, "Constant: k must be an integer, got True"),
        (lambda: Linear(9, 1, steps=3, n=8), ValueError, "Linear: start must be between 1 and n = 8, got 9"),
        (lambda: Cosine(1, 9, steps=3, n=8), ValueError, "Cosine: end must be between 1 and n = 8, got 9"),
        (lambda: Step(8, steps=0), ValueError, "Step: steps must be at least 1, got 0"),
        (lambda: Constant(1)(-1), ValueError, "Constant: step must be at least 0, got -1"),
        (
            lambda: PassRate(8, target=1.0),
            ValueError,
            "PassRate: target must be between 0 and 1, both left out, got 1.0",
        ),
        (lambda: PassRate(8, memory=1.0), ValueError, "PassRate: memory must be from 0 to below 1, got 1.0"),
        (lambda: PassRate(4, smallest=5), ValueError, "PassRate: smallest must be at most largest = 4, got 5"),
        (lambda: PassRate(8).step(), ValueError, "PassRate: step must be given pass_rate, .* got None"),
        (lambda: PassRate(8).step(1.5), ValueError, "PassRate: pass_rate must be between 0 and 1, got 1.5"),
        (lambda: Constant(1).load_state_dict({}), ValueError, r"state must have \['steps_taken'\], got \[\]"),
        (lambda: make({"kind": "cubic"}), ValueError, 'annealing.make: kind must be one of constant, .* got "cubic"'),
        (lambda: make({"kind": "linear", "start": 8}), TypeError, "annealing.make: linear missing 1 .*: 'steps'"),
        (lambda: make({"kind": "step", "start": 8, "stps": 1}), TypeError, "annealing.make: step got .* 'stps'"),
        (lambda: make("linear"), TypeError, "spec must be a schedule, a mapping or an integer, got str"),
        (lambda: make(9, n=8), ValueError, "Constant: k must be between 1 and n = 8, got 9"),
    ],
)
def test_errors(call, kind, message):
    with pytest.raises(kind, match=message):
        call()

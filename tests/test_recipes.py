"""The code in docs/training.md, run against stand-ins with the signatures of the trainers' hooks, and exact arithmetic."""

import re
import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
import torch

TEXT = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: re.findall(r"```python\n(.*?)```", part, re.S) for part in TEXT.split("\n## ")[1:]}

N, PROMPTS = 12, 5


@pytest.fixture
def rewards():
    return torch.randint(0, 5, (PROMPTS, N), generator=torch.Generator().manual_seed(0)).double() / 4


def expected(groups, k=8):
    """n s_i, prompt by prompt."""
    return [[float(N * s) for s in oracle.transform(group, k, "loo-1")] for group in groups.tolist()]


def run(section):
    [code] = SECTIONS[section]
    names = {}
    exec(compile(code, section, "exec"), names)
    return names


def stand_in(monkeypatch, name, **contents):
    for end in [i for i, c in enumerate(name) if c == "."]:
        monkeypatch.setitem(sys.modules, name[:end], types.ModuleType(name[:end]))
    module = types.ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def test_all_code_is_tested():
    assert {name for name, code in SECTIONS.items() if code} == {
        "Annealing",
        "A plain loop",
        "OpenRLHF",
        "rLLM",
        "slime",
        "Many machines",
    }


def test_annealing():
    names = run("Annealing")
    assert names["ks"] == [16, 8, 4, 2, 1] and names["k"].item() == 16


def test_plain_loop(rewards):
    order = torch.randperm(PROMPTS * N, generator=torch.Generator().manual_seed(1))
    ids = (torch.arange(PROMPTS * N) // N)[order]
    log_probs = torch.randn(PROMPTS * N, 3, dtype=torch.float64, requires_grad=True)
    run("A plain loop")["loss_of"](log_probs, rewards.flatten()[order], ids).backward()
    weights = torch.tensor(expected(rewards), dtype=torch.float64).flatten()[order]
    torch.testing.assert_close(log_probs.grad, (-weights / (PROMPTS * N))[:, None].expand(-1, 3))


def test_openrlhf(monkeypatch, rewards):
    class RemoteExperienceMaker:
        strategy = SimpleNamespace(args=SimpleNamespace(n_samples_per_prompt=N))

        def compute_advantages_and_returns(self, experiences, **kwargs):
            return experiences

    name = "openrlhf.trainer.ppo_utils.experience_maker"
    stand_in(monkeypatch, name, RemoteExperienceMaker=RemoteExperienceMaker)
    order = torch.randperm(PROMPTS * N, generator=torch.Generator().manual_seed(1))
    experiences = [
        SimpleNamespace(index=part.tolist(), rewards=rewards.flatten()[part]) for part in order.split([20, 5, 35])
    ]
    found = torch.empty(PROMPTS * N, dtype=torch.float64)
    for experience in run("OpenRLHF")["PKPOExperienceMaker"]().compute_advantages_and_returns(experiences):
        found[experience.index] = experience.rewards
    torch.testing.assert_close(found, torch.tensor(expected(rewards), dtype=torch.float64).flatten())


def test_rllm(monkeypatch, rewards):
    registry = {}

    def register_rllm_adv_estimator(name):
        return lambda function: registry.setdefault(name, function)

    name = "rllm.experimental.common.advantage"
    stand_in(monkeypatch, name, register_rllm_adv_estimator=register_rllm_adv_estimator)
    run("rLLM")
    groups = [rewards[0].numpy(), rewards[1, :4].numpy(), rewards[2].numpy()]
    found, returns = registry["pkpo"](rewards=groups, algorithm_config=None, traj_groups=[])
    assert returns is found
    for group, y in zip(groups, found, strict=True):
        exact = [float(len(group) * s) for s in oracle.transform(group.tolist(), 8, "loo-1")]
        np.testing.assert_allclose(y, exact, atol=1e-12)


def test_slime(rewards):
    samples = [
        SimpleNamespace(group_index=g, get_reward_value=lambda args, value=value: value)
        for value, g in zip(rewards.t().flatten().tolist(), list(range(PROMPTS)) * N)
    ]
    raw, found = run("slime")["post_process_rewards"](SimpleNamespace(), samples)
    assert raw == rewards.t().flatten().tolist()
    exact = torch.tensor(expected(rewards)).t().flatten().tolist()
    assert found == pytest.approx(exact, abs=1e-6)


def test_many_machines(rewards):
    found = run("Many machines")["advantages_of_this_rank"](
        rewards.flatten(), [f"p{i // N}" for i in range(PROMPTS * N)]
    )
    torch.testing.assert_close(found, torch.tensor(expected(rewards), dtype=torch.float64).flatten())

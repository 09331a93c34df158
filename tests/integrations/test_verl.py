"""The estimator ``pkpo`` through verl's own registry, DataProto and compute_advantage, here and on Ray's workers."""

import os
import subprocess
import sys
import uuid

import numpy as np
import oracle
import pytest

pytest.importorskip("verl")

import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.config import AlgoConfig
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage

from pkpo_kernels.integrations import verl as integration

PROMPTS, LENGTH = 12, 7


@pytest.fixture(autouse=True)
def fresh():
    integration._settings.clear()
    integration._loaded.clear()


def batch(seed=0, samples=96, unscored=True):
    """Responses of random lengths, their reward on the last token, prompts in any order."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randint(-8, 9, (samples,), generator=generator) / 4
    if unscored:
        score[::13] = torch.nan
    length = torch.randint(1, LENGTH + 1, (samples,), generator=generator)
    mask = (torch.arange(LENGTH) < length[:, None]).float()
    rewards = torch.zeros(samples, LENGTH)
    rewards[torch.arange(samples), length - 1] = score
    names = np.array([str(uuid.UUID(int=i)) for i in range(PROMPTS)], dtype=object)
    ids = names[torch.randint(0, PROMPTS, (samples,), generator=generator).numpy()]
    return DataProto.from_dict(
        tensors={"token_level_rewards": rewards, "response_mask": mask}, non_tensors={"uid": ids}
    ), score


def config(**pkpo):
    return OmegaConf.create({"adv_estimator": "pkpo", "norm_adv_by_std_in_grpo": False, "pkpo": pkpo})


def expected(ids, score, k, baseline="loo-1", scale="mean"):
    found = torch.zeros(len(ids), dtype=torch.float64)
    for name in set(ids):
        places = [i for i, id in enumerate(ids) if id == name]
        group = [None if score[i] != score[i] else score[i].item() for i in places]
        found[places] = torch.tensor(oracle.advantages(group, k, baseline, scale), dtype=torch.float64)
    return found


@pytest.mark.parametrize(
    "pkpo",
    [{}, {"k": 1}, {"k": 3, "scale": "sum"}, {"k": 100}, {"k": 2, "baseline": "loo"}, {"k": 5, "baseline": "none"}],
    ids=str,
)
def test_against_exact_arithmetic(pkpo):
    data, score = batch()
    data = compute_advantage(data, "pkpo", config=config(**pkpo))
    of_response = expected(
        data.non_tensor_batch["uid"], score, pkpo.get("k", 4), pkpo.get("baseline", "loo-1"), pkpo.get("scale", "mean")
    )
    of_token = of_response[:, None] * data.batch["response_mask"]
    torch.testing.assert_close(data.batch["advantages"].double(), of_token, rtol=1e-6, atol=1e-6)
    assert torch.equal(data.batch["advantages"], data.batch["returns"])
    assert data.batch["advantages"].dtype == torch.float32


def test_k_of_the_group_is_grpo_passk():
    """verl's grpo_passk, unnormalised, is loo-1 with k = n, in the paper's scale."""
    for seed in range(5):
        data, score = batch(seed, samples=192, unscored=False)
        score += torch.rand(len(score), generator=torch.Generator().manual_seed(seed))  # no ties: it picks one of them
        data.batch["token_level_rewards"] = score[:, None] * torch.eye(LENGTH)[0]
        ours = compute_advantage(data, "pkpo", config=config(k=192, scale="sum")).batch["advantages"].clone()
        theirs = compute_advantage(data, "grpo_passk", config=config()).batch["advantages"]
        assert theirs.count_nonzero() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_schedule_moves_with_every_call():
    pkpo = {"k_schedule": {"kind": "linear", "start": 4, "end": 1, "steps": 3}, "scale": "sum"}
    for k in (4, 3, 2, 1, 1):
        data, score = batch()
        data = compute_advantage(data, "pkpo", config=config(**pkpo))
        of_token = expected(data.non_tensor_batch["uid"], score, k, scale="sum")[:, None] * data.batch["response_mask"]
        torch.testing.assert_close(data.batch["advantages"].double(), of_token, rtol=1e-6, atol=1e-6)


def test_schedule_resumes():
    pkpo = {"k_schedule": {"kind": "linear", "start": 4, "end": 1, "steps": 3}}
    first = [compute_advantage(batch()[0], "pkpo", config=config(**pkpo)).batch["advantages"] for _ in range(2)]
    state = integration.state_dict()
    later = compute_advantage(batch()[0], "pkpo", config=config(**pkpo)).batch["advantages"]
    integration._settings.clear()
    integration.load_state_dict(state)
    assert torch.equal(compute_advantage(batch()[0], "pkpo", config=config(**pkpo)).batch["advantages"], later)
    second = compute_advantage(batch()[0], "pkpo", config=config(**pkpo, first_step=1)).batch["advantages"]
    assert torch.equal(second, first[1]) and not torch.equal(second, later)


def test_the_dataclass_of_verl_will_do():
    """It has no place for pkpo: the defaults hold."""
    data, score = batch()
    data = compute_advantage(data, "pkpo", config=AlgoConfig(adv_estimator="pkpo"))
    of_token = expected(data.non_tensor_batch["uid"], score, 4)[:, None] * data.batch["response_mask"]
    torch.testing.assert_close(data.batch["advantages"].double(), of_token, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "pkpo,message",
    [
        ({"k": 0}, "verl's estimator pkpo: k must be at least 1, got 0"),
        ({"kk": 2}, "algorithm.pkpo has k, k_schedule, baseline, scale, first_step, got kk"),
        ({"scale": "max"}, 'scale must be "sum", "mean" or "std", got "max"'),
        ({"baseline": "lo"}, 'baseline must be "none", "loo" or "loo-1", got "lo"'),
        ({"k_schedule": {"kind": "cubic"}}, "annealing.make: kind must be one of"),
    ],
)
def test_errors(pkpo, message):
    with pytest.raises(ValueError, match=message):
        compute_advantage(batch()[0], "pkpo", config=config(**pkpo))


def test_without_uid():
    data, _ = batch()
    del data.non_tensor_batch["uid"]
    with pytest.raises(ValueError, match="index, the uid of every response, must be given, got None"):
        compute_advantage(data, "pkpo", config=config())


def test_the_environment_variable_registers_it():
    code = (
        "from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY as r; "
        "assert r['pkpo'].__module__ == 'pkpo_kernels.integrations.verl'; print('registered')"
    )
    environment = os.environ | {"VERL_USE_EXTERNAL_MODULES": "pkpo_kernels.integrations.verl"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "registered", done.stderr[-2000:]


def test_on_two_workers_of_ray():
    import ray

    path = os.environ.get("PYTHONPATH", "")
    variables = {"PYTHONPATH": path, "VERL_USE_EXTERNAL_MODULES": "pkpo_kernels.integrations.verl"}
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": variables})
    try:

        @ray.remote(num_cpus=1)
        class Worker:
            def advantages(self, data, config):
                from verl.trainer.ppo.ray_trainer import compute_advantage

                return os.getpid(), compute_advantage(data, "pkpo", config=config).batch["advantages"]

        workers = [Worker.remote() for _ in range(2)]
        batches = [batch(seed)[0] for seed in range(2)]
        found = ray.get([worker.advantages.remote(data, config(k=3)) for worker, data in zip(workers, batches)])
    finally:
        ray.shutdown()
    assert len({pid for pid, _ in found}) == 2
    for data, (_, advantages) in zip(batches, found):
        assert torch.equal(advantages, compute_advantage(data, "pkpo", config=config(k=3)).batch["advantages"])


def test_it_is_the_registered_estimator():
    assert core_algos.get_adv_estimator_fn("pkpo") is integration.compute_pkpo_outcome_advantage

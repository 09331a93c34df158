"""verl's trainer, training for pass@k: importing this registers the advantage estimator ``pkpo``. Two lines change::

    + export VERL_USE_EXTERNAL_MODULES=pkpo_kernels.integrations.verl
      python -m verl.trainer.main_ppo ... \\
    -     algorithm.adv_estimator=grpo
    +     algorithm.adv_estimator=pkpo +algorithm.pkpo.k=8

verl imports the modules of that variable on the driver and on every Ray worker. The settings stand under ``algorithm.pkpo``:

=========== ========= ==========================================================================================
k           4         1 to the number of samples of a prompt (``actor_rollout_ref.rollout.n``); clamped in smaller groups
k_schedule  null      k over the steps, in place of k: ``{kind: geometric, start: 16, end: 1, steps: 500}``; see
                      :func:`pkpo_kernels.annealing.make`
baseline    loo-1     see :func:`pkpo_kernels.transform`
scale       mean      see :func:`pkpo_kernels.advantages`: verl's losses average over samples or tokens
first_step  0         where the schedule begins, after resuming
=========== ========= ==========================================================================================

verl does not tell an estimator the training step: every call counts as one. For verl 0.9.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

try:
    from verl.trainer.ppo.core_algos import register_adv_est
except ImportError as error:
    raise ImportError(
        f'pkpo_kernels.integrations.verl needs verl 0.9 (pip install "verl>=0.9,<0.10"): {error}'
    ) from error

from .._advantages import advantages
from ._settings import Settings, k_for, pass_rate, plain

__all__ = ["compute_pkpo_outcome_advantage", "load_state_dict", "state_dict"]

DEFAULTS = {"k": 4, "k_schedule": None, "baseline": "loo-1", "scale": "mean", "first_step": 0}

# The schedule goes on from call to call; by the settings it was made from.
_settings: dict[str, Settings] = {}
# States that were loaded before their settings were first used.
_loaded: dict = {}


@register_adv_est("pkpo")
def compute_pkpo_outcome_advantage(
    token_level_rewards: Tensor, response_mask: Tensor, index: np.ndarray | None = None, config=None, **others
) -> tuple[Tensor, Tensor]:
    """Advantages of pass@k from the rewards of whole responses; called by verl's ``compute_advantage``.

    Parameters
    ----------
    token_level_rewards : Tensor
        (bs, response_length) rewards of tokens; their sum is the response's. NaN: could not be scored; the advantage is 0.
    response_mask : Tensor
        (bs, response_length) 1 for the tokens of the response.
    index : array
        (bs,) the prompt of every response, verl's ``uid``, in any order.
    config : DictConfig, AlgoConfig or mapping, optional
        verl's ``algorithm`` section; ``pkpo`` in it holds the settings.

    Returns
    -------
    (Tensor, Tensor)
        Advantages (bs, response_length), those of a response on each of its tokens, and the same as returns.
    """
    op = "verl's estimator pkpo"
    if index is None:
        raise ValueError(f"{op}: index, the uid of every response, must be given, got None")
    settings = _settings_of(op, config)
    rewards = token_level_rewards.sum(-1)
    k = k_for(rewards, settings.schedule.k)
    of_response = advantages(rewards, index, k, baseline=settings.baseline, scale=settings.scale)
    settings.schedule.step(pass_rate=pass_rate(rewards))
    of_tokens = of_response.unsqueeze(-1) * response_mask
    return of_tokens, of_tokens


def state_dict() -> dict:
    """Where the schedules of this process are, for a checkpoint."""
    return {key: settings.schedule.state_dict() for key, settings in _settings.items()}


def load_state_dict(state: Mapping) -> None:
    """Goes on from where :func:`state_dict` was taken, with the same settings."""
    _loaded.update(state)
    for key, settings in _settings.items():
        if key in state:
            settings.schedule.load_state_dict(state[key])


def _settings_of(op, config) -> Settings:
    given = plain(config.get("pkpo", None) if config is not None else None) or {}
    unknown = given.keys() - DEFAULTS.keys()
    if unknown:
        raise ValueError(f"{op}: algorithm.pkpo has {', '.join(DEFAULTS)}, got {', '.join(sorted(unknown))}")
    values = DEFAULTS | given
    key = repr(sorted((name, plain(value)) for name, value in values.items()))
    if key not in _settings:
        made = Settings(op, {"k": values["k"]}, plain(values["k_schedule"]), values["baseline"], values["scale"])
        made.schedule.steps_taken = values["first_step"]
        if key in _loaded:
            made.schedule.load_state_dict(_loaded[key])
        _settings[key] = made
    return _settings[key]

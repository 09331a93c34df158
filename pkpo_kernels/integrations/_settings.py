"""What every integration is told: k or its schedule, baseline, scale."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .. import annealing
from .._advantages import SCALES
from .._checks import BASELINES


class Settings:
    """Checked once, before any work: ``of`` names where they come from in messages; k comes as {its name there: k}."""

    def __init__(self, of: str, k: dict[str, int], schedule, baseline: str, scale: str, n: int | None = None):
        if baseline not in BASELINES:
            raise ValueError(f'{of}: baseline must be "none", "loo" or "loo-1", got "{baseline}"')
        if scale not in SCALES:
            raise ValueError(f'{of}: scale must be "sum", "mean" or "std", got "{scale}"')
        largest = n and (n - 1 if baseline == "loo" else n)
        [(name, k)] = k.items()
        if schedule is None:
            annealing.check_positive(of, name, k)
            if largest is not None and k > largest:
                raise ValueError(
                    f"{of}: {name} must be between 1 and {largest} with {n} samples and {baseline}, got {k}"
                )
        try:
            self.schedule = annealing.make(k if schedule is None else schedule, n=largest)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{of}: k_schedule: {error}") from None
        self.baseline, self.scale = baseline, scale


def pass_rate(rewards: Tensor) -> float:
    """The share of right samples, for rewards that are 0 or 1; of others, those above 0. NaN where none could be scored."""
    present = rewards[~rewards.isnan()]
    return (present > 0).double().mean().item() if len(present) else float("nan")


def plain(spec):
    """A schedule's specification out of a configuration system's own mappings."""
    return dict(spec) if isinstance(spec, Mapping) else spec


def k_for(rewards: Tensor, k: int) -> Tensor:
    """A tensor: clamped where a group has fewer samples, as in evaluation."""
    return torch.tensor(k, device=rewards.device)

"""TRL's GRPO trainer, training for pass@k. Two lines change::

    - from trl import GRPOConfig, GRPOTrainer
    + from pkpo_kernels.integrations.trl import PKPOConfig as GRPOConfig, PKPOTrainer as GRPOTrainer
    - GRPOConfig(num_generations=16, ...)
    + GRPOConfig(num_generations=16, pass_at_k=8, ...)

Everything else, rewards, generation, losses, logging, evaluation, is TRL's own: the trainer lets TRL score the completions
and puts the advantages of pass@k in place of GRPO's. It overrides ``_calculate_rewards`` to see the rewards gathered over all
processes and ``_generate_and_score_completions`` to replace the advantages, as TRL's maintainers advise
(https://github.com/huggingface/trl/issues/4525); and ``_load_optimizer_and_scheduler``, to resume the schedule of k. For TRL
1.0 to 1.16.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any

import torch

try:
    from transformers import TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    raise ImportError(
        f'pkpo_kernels.integrations.trl needs TRL 1.0 to 1.16 (pip install "trl>=1.0,<1.17"): {error}'
    ) from error

from .._advantages import advantages
from ..functional import max_at_k
from ._settings import Settings, k_for, pass_rate, plain

__all__ = ["PKPOConfig", "PKPOTrainer"]

SCHEDULE_FILE = "pkpo_schedule.json"


@dataclass
class PKPOConfig(GRPOConfig):
    """``trl.GRPOConfig`` and what pass@k needs. ``scale_rewards`` has no effect: ``scale`` takes its place.

    Parameters
    ----------
    pass_at_k : int
        k of the pass@k (max@k for rewards other than 0 and 1) that is trained for: 1 to ``num_generations``, for
        ``baseline="loo"`` one less. k = 1 with scale "mean" is RLOO.
    baseline : "loo-1", "loo" or "none"
        See :func:`pkpo_kernels.transform`.
    k_schedule : dict, or such a one as JSON from a command line, optional
        k over the optimizer steps, in place of ``pass_at_k``: ``{"kind": "geometric", "start": 16, "end": 1,
        "steps": 500}``; see :func:`pkpo_kernels.annealing.make`. "pass_rate" follows the share of rewards above 0.
    scale : "mean", "std" or "sum"
        See :func:`pkpo_kernels.advantages`. TRL's losses average over samples, so "mean" keeps the step at the size of the
        leave-one-out advantage for every n; "std" is nearest to GRPO's ``scale_rewards="group"``; "sum", the paper's, makes
        steps n times smaller.
    report_at_k : list of int
        Which pass@k (max@k) to log beside the current k, of those that are at most ``num_generations``.
    """

    pass_at_k: int = field(default=4, metadata={"help": "k of the pass@k that is trained for."})
    baseline: str = field(default="loo-1", metadata={"help": '"loo-1", "loo" or "none".'})
    k_schedule: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "k over the steps, in place of pass_at_k: a mapping with kind and its arguments."},
    )
    scale: str = field(default="mean", metadata={"help": '"mean", "std" or "sum".'})
    report_at_k: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16], metadata={"help": "Which pass@k to log."})

    def __post_init__(self):
        if isinstance(self.k_schedule, str):  # from a command line
            self.k_schedule = json.loads(self.k_schedule)
        super().__post_init__()
        aggregation = getattr(self, "multi_objective_aggregation", "sum_then_normalize")
        if aggregation != "sum_then_normalize":
            raise ValueError(
                'PKPOConfig: multi_objective_aggregation must be "sum_then_normalize", pass@k being of one reward, '
                f'got "{aggregation}"'
            )
        if any(k < 1 for k in self.report_at_k):
            raise ValueError(f"PKPOConfig: report_at_k must be at least 1, got {self.report_at_k}")
        self.settings()

    def settings(self) -> Settings:
        k = {"pass_at_k": self.pass_at_k}
        return Settings("PKPOConfig", k, plain(self.k_schedule), self.baseline, self.scale, self.num_generations)


class PKPOTrainer(GRPOTrainer):
    """``trl.GRPOTrainer`` with the advantages of pass@k: arguments are GRPOTrainer's, ``args`` a :class:`PKPOConfig`.

    A completion that no reward function could score (None from all) gets the advantage 0 and is left out of its group.
    Logged beside TRL's own metrics: ``pkpo/k`` and, for the ks of ``report_at_k``, ``pass@k``, or ``max@k`` once a
    reward was neither 0 nor 1. The state of a schedule is saved with every checkpoint and resumed from it.
    """

    def __init__(self, *positional, **keywords):
        args = keywords.get("args", positional[2] if len(positional) > 2 else None)
        if not isinstance(args, PKPOConfig):
            raise TypeError(f"PKPOTrainer: args must be a PKPOConfig, got {type(args).__name__}")
        self.pkpo = args.settings()
        self._measure = "pass"
        super().__init__(*positional, **keywords)
        self.add_callback(_SaveSchedule(self))

    def _calculate_rewards(self, *positional, **keywords):
        self._rewards_per_func = super()._calculate_rewards(*positional, **keywords)
        return self._rewards_per_func

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        training = self.model.training
        schedule = self.pkpo.schedule
        rewards = self._rewards_of_all()
        n = self.num_generations if training else getattr(self, "num_generations_eval", self.num_generations)
        groups = rewards.view(-1, n)
        if training:
            # Batches are made once for several optimizer steps: k is that of the step that begins.
            schedule.steps_taken = self.state.global_step
        k = k_for(groups, schedule.k)
        of_all = advantages(groups, None, k, baseline=self.pkpo.baseline, scale=self.pkpo.scale).flatten()
        local = output["advantages"]
        if local.dim() != 1 or len(local) * self.accelerator.num_processes != len(of_all):
            raise RuntimeError(
                f"PKPOTrainer: expected one advantage for each of {len(of_all)} completions over "
                f"{self.accelerator.num_processes} processes, got shape {tuple(local.shape)} on this one: "
                "this release of TRL keeps them differently"
            )
        begin = self.accelerator.process_index * len(local)
        output["advantages"] = of_all[begin : begin + len(local)].to(local.dtype)
        self._log(groups, of_all, schedule.k, training)
        if training:
            schedule.step(pass_rate=pass_rate(rewards))
        return output

    def _rewards_of_all(self):
        """One reward a completion, gathered over all processes; NaN where no function could score it."""
        per_func = self._rewards_per_func
        rewards = (per_func * self.reward_weights.to(per_func.device)).nansum(1)
        return torch.where(per_func.isnan().all(1), torch.nan, rewards)

    def _log(self, groups, of_all, k, training):
        metrics = self._metrics["train" if training else "eval"]
        metrics["pkpo/k"].append(float(k))
        if ((groups != 0) & (groups != 1) & ~groups.isnan()).any():
            self._measure = "max"  # from here on: a metric keeps its name though a batch may hold only 0 and 1
        ks = [k for k in self.args.report_at_k if k <= groups.shape[1]]
        curve = max_at_k(groups.double(), ks).nanmean(0).tolist() if ks else []
        for k, value in zip(ks, curve):
            metrics[f"{self._measure}@{k}"].append(value)
        # The table of completions shows the advantages that are trained on.
        logged = self._logs["advantages"]
        for _ in range(min(len(of_all), len(logged))):
            logged.pop()
        logged.extend(of_all.tolist())

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        path = checkpoint and os.path.join(checkpoint, SCHEDULE_FILE)
        if path and os.path.isfile(path):
            with open(path) as file:
                self.pkpo.schedule.load_state_dict(json.load(file))


class _SaveSchedule(TrainerCallback):
    def __init__(self, trainer):
        self.trainer = trainer

    def on_save(self, args, state, control, **keywords):
        folder = os.path.join(args.output_dir, f"checkpoint-{state.global_step}")
        if state.is_world_process_zero and os.path.isdir(folder):
            with open(os.path.join(folder, SCHEDULE_FILE), "w") as file:
                json.dump(self.trainer.pkpo.schedule.state_dict(), file)

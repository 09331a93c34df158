"""The time of verl's ``compute_advantage`` with this package's estimator and with verl's own: python -m bench verl.

16,384 responses to 1,024 prompts in any order, ids as verl makes them (uuid strings in an object array).
"""

import uuid

import numpy as np
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.ray_trainer import compute_advantage

import pkpo_kernels.integrations.verl  # noqa: F401  registers pkpo
from bench import report
from bench.machine import described
from bench.timing import side_by_side

RESPONSES, PROMPTS = 16_384, 1_024
LENGTHS = (16, 128, 1024)
ESTIMATORS = ("pkpo", "grpo", "grpo_passk", "grpo_vectorized", "rloo_vectorized")


def batch(length):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.zeros(RESPONSES, length)
    rewards[:, -1] = torch.rand(RESPONSES, generator=generator).round()
    names = np.array([str(uuid.UUID(int=i)) for i in range(PROMPTS)], dtype=object)
    ids = names[torch.randperm(RESPONSES, generator=generator).numpy() % PROMPTS]
    tensors = {"token_level_rewards": rewards, "response_mask": torch.ones(RESPONSES, length)}
    return DataProto.from_dict(tensors=tensors, non_tensors={"uid": ids})


def main():
    quick = report.options(__doc__, "short responses only, few turns").parse_args().quick
    lengths, rounds = (LENGTHS[:1], 3) if quick else (LENGTHS, 9)
    torch.set_num_threads(2)
    config = OmegaConf.create({"norm_adv_by_std_in_grpo": False, "pkpo": {"k": 8}})
    results = {}
    for length in lengths:
        data = batch(length)
        candidates = {
            name: lambda name=name, data=data: compute_advantage(data, name, config=config) for name in ESTIMATORS
        }
        results[length] = {name: t._asdict() for name, t in side_by_side(candidates, rounds=rounds).items()}
    about = described("verl", "tensordict")
    words = (
        f"`make bench-verl`: milliseconds of verl's `compute_advantage` for {RESPONSES:,} responses to {PROMPTS:,} prompts, "
        f"median of {rounds} turns. verl {about['versions']['verl']}, torch {torch.__version__}, {about['cpu']}, 2 threads."
    )
    lines = [
        f"| estimator | {' | '.join(f'{length} tokens a response' for length in lengths)} |",
        "|---|" + "---|" * len(lengths),
    ]
    for name in ESTIMATORS:
        cells = [f"{1e3 * results[length][name]['median']:.1f}" for length in lengths]
        lines.append(f"| {'**pkpo**' if name == 'pkpo' else name} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if not quick:
        report.write("verl", about, {"results": results}, words, lines)


if __name__ == "__main__":
    main()

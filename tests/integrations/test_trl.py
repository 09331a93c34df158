"""PKPOTrainer in TRL's real training loop, alone and with groups split over two processes: its advantages are those that
exact arithmetic gives for the rewards of all processes, worked out here once more from the completions."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import oracle
import pytest

pytest.importorskip("trl")

import torch
import trl
from trl_run import holds_w3, length

from pkpo_kernels.integrations.trl import PKPOConfig, PKPOTrainer

RUN = Path(__file__).with_name("trl_run.py")


def run(tmp_path, processes=1, **options):
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, RUN, json.dumps(options), tmp_path], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(processes)]


def reward_of(completion):
    """0.25 length + 2 holds_w3 of those that could score it; None if neither could."""
    [a], [b] = length([completion]), holds_w3([completion])
    return None if a is None and b is None else 0.25 * (a or 0) + 2 * (b or 0)


def check(results, n, baseline="loo-1", scale="mean", mode="train", k=None):
    """The advantages of all ranks against exact arithmetic; gives how many groups there were, and the ks."""
    records = [[r for r in result["records"] if r["mode"] == mode] for result in results]
    groups, ks, unscored = 0, [], 0
    for batch in zip(*records, strict=True):
        prompts = [p for rank in batch for p in rank["prompts"]]
        rewards = [reward_of(c) for rank in batch for c in rank["completions"]]
        found = [a for rank in batch for a in rank["advantages"]]
        for rank in batch:
            assert rank["logged"][-len(found) :] == pytest.approx(found, rel=1e-6)
        ks.append(batch[0]["k"])
        for begin in range(0, len(rewards), n):
            assert len(set(prompts[begin : begin + n])) == 1
            group = rewards[begin : begin + n]
            assert found[begin : begin + n] == pytest.approx(
                oracle.advantages(group, k or int(ks[-1]), baseline, scale), abs=1e-5
            )
            unscored += group.count(None)
            groups += 1
    assert unscored > 0  # the case is among them
    return groups, ks


def test_groups_split_over_two_processes(tmp_path):
    results = run(tmp_path, processes=2, pass_at_k=3, max_steps=6)
    groups, ks = check(results, 8)
    assert groups == 6 and ks == [3] * 6
    # Each rank held half of every group.
    assert all(len(set(record["prompts"])) == 1 and len(record["prompts"]) == 4 for record in results[0]["records"])


@pytest.mark.parametrize(
    "options",
    [
        {"pass_at_k": 1},
        {"pass_at_k": 8, "scale": "sum"},
        {"pass_at_k": 4, "scale": "std"},
        {"pass_at_k": 4, "baseline": "loo", "loss_type": "dr_grpo"},
        {"pass_at_k": 2, "baseline": "none", "beta": 0.1},
        {"pass_at_k": 4, "num_iterations": 2, "gradient_accumulation_steps": 2, "loss_type": "grpo"},
        {"pass_at_k": 4, "steps_per_generation": 4, "mask_truncated_completions": True},
    ],
    ids=str,
)
def test_alone(options, tmp_path):
    options = {"per_device_train_batch_size": 16, "max_steps": 4} | options
    [result] = run(tmp_path, **options)
    groups, _ = check([result], 8, options.get("baseline", "loo-1"), options.get("scale", "mean"))
    generations = 4 // (options.get("num_iterations", 1) * (options.get("steps_per_generation", 1)))
    per_generation = 2 * options.get("gradient_accumulation_steps", 1) * options.get("steps_per_generation", 1)
    assert groups == generations * per_generation
    losses = [entry["loss"] for entry in result["history"] if "loss" in entry]
    assert len(losses) == 4 and all(math.isfinite(loss) for loss in losses)


def test_logs(tmp_path):
    [result] = run(tmp_path, per_device_train_batch_size=16, pass_at_k=4, report_at_k=[1, 2, 8, 64], max_steps=3)
    entries = [entry for entry in result["history"] if "loss" in entry]
    for record, entry in zip(result["records"], entries, strict=True):
        assert entry["pkpo/k"] == 4
        rewards = [reward_of(c) for c in record["completions"]]
        for k in (1, 2, 8):
            best = [float(oracle.transform(rewards[g : g + 8], k, "max_at_k")) for g in (0, 8)]
            assert entry[f"max@{k}"] == pytest.approx(sum(best) / 2, rel=1e-5)
        assert "max@64" not in entry and "pass@1" not in entry
        assert "rewards/length/mean" in entry and "reward" in entry  # TRL's own


def test_evaluation_with_fewer_samples_than_k(tmp_path):
    [result] = run(
        tmp_path, per_device_train_batch_size=16, per_device_eval_batch_size=8, pass_at_k=6, num_generations_eval=4
    )
    groups, _ = check([result], 4, mode="eval", k=6)
    assert groups == 8
    # The table of completions, as long as a training batch, holds the last two batches of evaluation.
    last, final = result["records"][-2:]
    assert final["logged"] == pytest.approx(last["advantages"] + final["advantages"], rel=1e-6)
    [entry] = [entry for entry in result["history"] if "eval_loss" in entry]
    assert entry["eval_max@4"] >= entry["eval_max@1"] and "eval_max@8" not in entry and entry["eval_pkpo/k"] == 6


def test_schedule_and_resumption(tmp_path):
    options = {
        "per_device_train_batch_size": 16,
        "max_steps": 6,
        "k_schedule": {"kind": "linear", "start": 8, "end": 2, "steps": 6},
        "save_strategy": "steps",
        "save_steps": 3,
    }
    (tmp_path / "whole").mkdir()
    [whole] = run(tmp_path / "whole", **options)
    assert check([whole], 8)[1] == [8, 7, 6, 5, 4, 3]
    (tmp_path / "resumed").mkdir()
    checkpoint = str(tmp_path / "whole" / "checkpoints" / "checkpoint-3")
    [resumed] = run(tmp_path / "resumed", **options, resume=checkpoint)
    assert check([resumed], 8)[1] == [5, 4, 3]


def test_schedule_goes_by_optimizer_steps(tmp_path):
    """Not by batches: each serves two steps here."""
    schedule = {"kind": "linear", "start": 8, "end": 2, "steps": 6}
    [result] = run(tmp_path, per_device_train_batch_size=16, max_steps=6, num_iterations=2, k_schedule=schedule)
    assert check([result], 8)[1] == [8, 6, 4]


def test_schedule_that_follows_the_pass_rate(tmp_path):
    options = {
        "per_device_train_batch_size": 16,
        "max_steps": 4,
        "k_schedule": {"kind": "pass_rate", "largest": 8, "target": 0.9999, "memory": 0.5},
        "save_strategy": "steps",
        "save_steps": 2,
    }
    [whole] = run(tmp_path, **options)
    p, ks = None, []
    for record in whole["records"]:
        ks.append(
            8 if not p else min(8, max(1, math.ceil(math.log(1 - 0.9999) / math.log(1 - p)))) if p < 0.9999 else 1
        )
        scored = [r for r in map(reward_of, record["completions"]) if r is not None]
        rate = sum(r > 0 for r in scored) / len(scored)
        p = rate if p is None else (p + rate) / 2
    assert check([whole], 8)[1] == ks and ks[-1] < 8
    assert whole["schedule"]["pass_rate"] == pytest.approx(p)
    saved = json.loads((tmp_path / "checkpoints" / "checkpoint-2" / "pkpo_schedule.json").read_text())
    (tmp_path / "resumed").mkdir()
    [resumed] = run(tmp_path / "resumed", **options, resume=str(tmp_path / "checkpoints" / "checkpoint-2"))
    assert resumed["records"][0]["k"] == ks[2]
    assert saved["pass_rate"] != resumed["schedule"]["pass_rate"]


@pytest.mark.parametrize(
    "options,message",
    [
        ({"pass_at_k": 9}, "PKPOConfig: pass_at_k must be between 1 and 8 with 8 samples and loo-1, got 9"),
        (
            {"pass_at_k": 8, "baseline": "loo"},
            "PKPOConfig: pass_at_k must be between 1 and 7 with 8 samples and loo, got 8",
        ),
        ({"baseline": "lo"}, 'PKPOConfig: baseline must be "none", "loo" or "loo-1", got "lo"'),
        ({"scale": "max"}, 'PKPOConfig: scale must be "sum", "mean" or "std", got "max"'),
        ({"k_schedule": {"kind": "cubic"}}, "PKPOConfig: k_schedule: annealing.make: kind must be one of"),
        (
            {"k_schedule": '{"kind": "linear", "start": 9, "steps": 5}'},
            "PKPOConfig: k_schedule: Linear: start must be between",
        ),
        ({"report_at_k": [0]}, r"PKPOConfig: report_at_k must be at least 1, got \[0\]"),
    ],
)
def test_errors(options, message, tmp_path):
    arguments = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "num_generations": 8}
    with pytest.raises((ValueError, TypeError), match=message):
        PKPOConfig(**arguments | options)


def test_another_aggregation_is_an_error(tmp_path):
    if "multi_objective_aggregation" not in PKPOConfig.__dataclass_fields__:
        pytest.skip(f"TRL {trl.__version__} has one aggregation")
    with pytest.raises(ValueError, match='multi_objective_aggregation must be "sum_then_normalize"'):
        PKPOConfig(output_dir=str(tmp_path), use_cpu=True, multi_objective_aggregation="normalize_then_sum")


def test_args_must_be_ours(tmp_path):
    with pytest.raises(TypeError, match="PKPOTrainer: args must be a PKPOConfig, got NoneType"):
        PKPOTrainer(model=torch.nn.Linear(1, 1), reward_funcs=length)

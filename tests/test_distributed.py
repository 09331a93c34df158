"""pkpo_kernels.distributed in 1 to 4 processes over gloo, beside a single process; and what a rank's error does."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch

from pkpo_kernels import distributed, transform

SAMPLES, GROUPS = 200, 17


def rewards_and_ids(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(SAMPLES, generator=generator).mul(4).round().div(4)
    rewards[::23] = torch.nan
    ids = torch.randint(0, GROUPS, (SAMPLES,), generator=generator)
    if not dtype.is_floating_point:
        rewards = rewards.nan_to_num()
    return rewards.to(dtype), ids


def owners(ranks):
    """The rank of every sample, at random and unevenly; the last of three or more has none."""
    share = torch.tensor([3.0, 1.0, 2.0, 0.0][: ranks if ranks < 3 else ranks - 1] + [0.0] * (ranks >= 3))[:ranks]
    return torch.multinomial(share, SAMPLES, replacement=True, generator=torch.Generator().manual_seed(ranks))


IDS = {
    "integers": lambda ids: ids,
    "int32": lambda ids: ids.int(),
    "numpy": lambda ids: ids.numpy(),
    "list": lambda ids: ids.tolist(),
    "strings": lambda ids: [f"prompt {i}" for i in ids.tolist()],
    "uuids": lambda ids: [uuid.UUID(int=i) for i in ids.tolist()],
    "mixed": lambda ids: [i if i % 2 else str(i).encode() for i in ids.tolist()],
}


def launch(ranks, scenario, tmp_path, timeout=120):
    """Runs ``scenario`` of this file on so many ranks; gives what each wrote."""
    begin = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, scenario, str(rank), str(ranks), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(ranks)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=timeout)
        assert process.returncode == 0, output
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks)]
    return results, time.monotonic() - begin


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_bit_for_bit_the_single_process(ranks, tmp_path):
    results, _ = launch(ranks, "values", tmp_path)
    who = owners(ranks)
    assert ranks < 3 or (who != ranks - 1).all()
    for name in ("float64", "float32", "bfloat16", "bool", "int64"):
        rewards, ids = rewards_and_ids(getattr(torch, name))
        whole = transform(rewards, 3, group_ids=ids)
        for kind in IDS:
            found = torch.empty(SAMPLES, dtype=whole.dtype)
            for rank, result in enumerate(results):
                found[who == rank] = torch.tensor(result[f"{name} {kind}"], dtype=torch.float64).to(whole.dtype)
            assert torch.equal(found, whole), (name, kind)
    # and against exact arithmetic
    rewards, ids = rewards_and_ids(torch.float64)
    found = torch.empty(SAMPLES, dtype=torch.float64)
    scaled = torch.empty(SAMPLES, dtype=torch.float64)
    for rank, result in enumerate(results):
        found[who == rank] = torch.tensor(result["float64 integers"], dtype=torch.float64)
        scaled[who == rank] = torch.tensor(result["advantages"], dtype=torch.float64)
    for g in range(GROUPS):
        group = [None if x != x else x for x in rewards[ids == g].tolist()]
        exact = [float(v) for v in oracle.transform(group, 3, "loo-1")]
        assert found[ids == g].tolist() == pytest.approx(exact, abs=1e-14)
        n = sum(x is not None for x in group)
        assert scaled[ids == g].tolist() == pytest.approx([n * v for v in exact], abs=1e-13)


EXPECTED = {
    "bad k": "rank 1: k must be at least 1, got 0",
    "bad ids": "rank 1: group_ids must be integers, strings, bytes or uuid.UUID, got tuple",
    "too few ids": "rank 1: group_ids must have one id a reward",
    "bad rewards": "rank 1: rewards must be a tensor, got list",
    "bad baseline": 'rank 1: pkpo::transform: baseline must be "none", "loo" or "loo-1", got "lo"',
    "bad timeout": "rank 1: timeout must be above 0 seconds, got -1",
    "requires grad": "rank 1: rewards must not require grad",
    "other k": "k must be the same on all ranks, got 3 on rank 0, 4 on rank 1",
    "other dtype": "the dtype of rewards must be the same on all ranks, got float32 on rank 0, float64 on rank 1",
    "other baseline": 'the other arguments must be the same on all ranks, got baseline "loo-1", objective "max" on rank 0, '
    'baseline "none", objective "max" on rank 1',
    "other ids": "group_ids must be integers on all ranks or on none, got integers on rank ",
}


def test_an_error_on_one_rank_is_an_error_on_all(tmp_path):
    results, seconds = launch(3, "errors", tmp_path)
    for name, expected in EXPECTED.items():
        for rank, result in enumerate(results):
            assert expected in result[name], (name, rank)
            assert result[name].startswith("pkpo_kernels.distributed.transform: "), result[name]
    # After an error the ranks still agree.
    assert all(result["afterwards"] for result in results)
    assert seconds < 100  # none waited for a time-out, which is 600 s


def test_a_rank_that_does_not_come(tmp_path):
    results, _ = launch(2, "absent", tmp_path)
    expected = "pkpo_kernels.distributed.transform: not all of 2 ranks answered; waited for at most timeout = 2 s"
    assert results[0]["error"].startswith(expected)
    assert results[0]["seconds"] < 20


def test_without_torch_distributed():
    rewards, ids = rewards_and_ids()
    y = distributed.transform(rewards, torch.tensor(3), group_ids=ids, objective="min", baseline="none")
    whole = transform(rewards, 3, group_ids=ids, objective="min", baseline="none")
    assert torch.equal(y, whole)
    with pytest.raises(RuntimeError, match=r"process_group was given, but torch\.distributed is not initialised"):
        distributed.transform(rewards, 3, group_ids=ids, process_group=object())
    with pytest.raises(RuntimeError, match=r"k must be one for all groups, .* got shape \(2,\)"):
        distributed.transform(rewards, torch.tensor([1, 2]), group_ids=ids)
    for too_large in ([2**63], np.array([2**63], dtype=np.uint64)):
        with pytest.raises(RuntimeError, match=r"integers must be from -2\*\*63 to 2\*\*63 - 1"):
            distributed.transform(rewards[:1], 3, group_ids=too_large)
    small = ids.numpy().astype(np.uint64)
    assert torch.equal(distributed.transform(rewards, 3, group_ids=small), transform(rewards, 3, group_ids=ids))


def values(rank, ranks):
    mine, found = owners(ranks) == rank, {}
    for name in ("float64", "float32", "bfloat16", "bool", "int64"):
        rewards, ids = rewards_and_ids(getattr(torch, name))
        for kind, of in IDS.items():
            y = distributed.transform(rewards[mine], 3, group_ids=of(ids[mine]))
            found[f"{name} {kind}"] = y.double().tolist()
    rewards, ids = rewards_and_ids(torch.float64)
    found["advantages"] = distributed.advantages(rewards[mine], ids[mine], 3).tolist()
    return found


def errors(rank, ranks):
    rewards, ids = rewards_and_ids()
    mine, bad = owners(ranks) == rank, rank == 1
    rewards, ids = rewards[mine], ids[mine]

    def error_of(rewards=rewards, k=3, group_ids=ids, **others):
        try:
            distributed.transform(rewards, k, group_ids=group_ids, **others)
        except RuntimeError as error:
            return str(error)
        return "none"

    found = {
        "bad k": error_of(k=0 if bad else 3),
        "bad ids": error_of(group_ids=[(i,) for i in ids.tolist()] if bad else ids),
        "too few ids": error_of(group_ids=ids[1:] if bad else ids),
        "bad rewards": error_of(rewards.tolist() if bad else rewards),
        "bad baseline": error_of(baseline="lo" if bad else "loo"),
        "bad timeout": error_of(timeout=-1 if bad else 60),
        "requires grad": error_of(rewards.clone().requires_grad_() if bad else rewards),
        "other k": error_of(k=4 if bad else 3),
        "other dtype": error_of(rewards.double() if bad else rewards),
        "other baseline": error_of(baseline="none" if bad else "loo-1"),
        "other ids": error_of(group_ids=[str(i) for i in ids.tolist()] if bad else ids),
    }
    whole_rewards, whole_ids = rewards_and_ids()
    whole = transform(whole_rewards, 3, group_ids=whole_ids)[mine]
    found["afterwards"] = torch.equal(distributed.transform(rewards, 3, group_ids=ids), whole)
    return found


def absent(rank, ranks):
    """Rank 1 lives, but does not call, until rank 0 has given up."""
    rewards, ids = rewards_and_ids()
    begin = time.monotonic()
    if rank == 1:
        while not (Path(sys.argv[4]) / "0.json").exists() and time.monotonic() < begin + 40:
            time.sleep(0.1)
        return {}
    try:
        distributed.transform(rewards, 3, group_ids=ids, timeout=2)
    except RuntimeError as error:
        return {"error": str(error), "seconds": time.monotonic() - begin}


def main():
    import torch.distributed as dist

    scenario, rank, ranks, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=ranks)
    found = {"values": values, "errors": errors, "absent": absent}[scenario](rank, ranks)
    (folder / f"{rank}.json").write_text(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # not waiting for a group that has lost a rank


if __name__ == "__main__":
    main()

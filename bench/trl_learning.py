"""``make learn``: TRL's trainer learns prompts that can be read in three ways, for k = 1, for k = 8, and from 8 down to 1.

A prompt is a number a of a ring of 12; the right answer is a + 1, a + 2 or a + 3, in half, three tenths and two tenths of the
cases. The verifier knows which, the model cannot. For one sample the best policy is the likeliest reading alone: pass@1 is
then 0.5, and pass@8 no more. For the best of 8 samples the policy shares its probability among the readings.
"""

import random

import matplotlib
import torch
import trl
from datasets import Dataset
from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback

from bench import report, tiny_llama
from bench.machine import described
from pkpo_kernels.integrations.trl import PKPOConfig, PKPOTrainer

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RING = 12
WORDS = [f"w{i}" for i in range(RING)]
READINGS = {1: 0.5, 2: 0.3, 3: 0.2}
SAMPLES, BATCH, STEPS, SEEDS = 16, 256, 300, (0, 1, 2)
TASKS = {
    "k = 1": {"pass_at_k": 1},
    "k = 8": {"pass_at_k": 8},
    "k from 8 to 1": {"k_schedule": {"kind": "geometric", "start": 8, "end": 1, "steps": STEPS}},
}


def prompts(count, seed):
    source = random.Random(seed)
    rows = []
    for _ in range(count):
        a, step = source.randrange(RING), source.choices(list(READINGS), list(READINGS.values()))[0]
        rows.append({"prompt": WORDS[a], "answer": WORDS[(a + step) % RING]})
    return Dataset.from_list(rows)


def is_right(completions, answer, **_):
    return [float(completion.strip() == right) for completion, right in zip(completions, answer)]


class Progress(TrainerCallback):
    def __init__(self, bar):
        self.bar = bar

    def on_step_end(self, args, state, control, **_):
        self.bar.update()


def train(task, seed, steps, bar):
    """{"before", "after"}: {"pass@1", "pass@8"} on held-out prompts; "path": [(step, pass@1, pass@8)] while training."""
    config = PKPOConfig(
        output_dir="build/learn",
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=1024,
        num_generations=SAMPLES,
        max_completion_length=1,
        max_steps=steps,
        logging_steps=10,
        learning_rate=2e-3,
        lr_scheduler_type="constant",
        report_at_k=[1, 8],
        seed=seed,
        **TASKS[task],
    )
    trainer = PKPOTrainer(
        model=tiny_llama.model(WORDS, seed),
        reward_funcs=is_right,
        args=config,
        train_dataset=prompts(4000, seed),
        eval_dataset=prompts(512, 99),
        processing_class=tiny_llama.tokenizer(WORDS),
        callbacks=[Progress(bar)],
    )
    trainer.remove_callback(PrinterCallback)  # there is a progress bar

    def measured():
        entry = trainer.evaluate()
        return {name: entry[f"eval_{name}"] for name in ("pass@1", "pass@8")}

    before = measured()
    trainer.train()
    path = [(e["step"], e["pass@1"], e["pass@8"]) for e in trainer.state.log_history if "pass@8" in e]
    return {"before": before, "after": measured(), "path": path}


def best(k):
    """The largest pass@k of any policy over the readings, on a fine grid of their three shares."""
    grid = torch.linspace(0, 1, 401, dtype=torch.float64)
    p, q = torch.meshgrid(grid, grid, indexing="ij")
    shares = torch.stack([p, q, 1 - p - q])
    value = sum(w * (1 - (1 - share) ** k) for w, share in zip(READINGS.values(), shares))
    return value[(shares >= 0).all(0)].max().item()


def main():
    quick = report.options(__doc__, "one seed, few steps").parse_args().quick
    seeds, steps = (SEEDS[:1], 20) if quick else (SEEDS, STEPS)
    torch.set_num_threads(2)
    results = {}
    with tqdm(total=steps * len(TASKS) * len(seeds), unit="step") as bar:
        for task in TASKS:
            bar.set_description(task)
            results[task] = [train(task, seed, steps, bar) for seed in seeds]
    optimum = {name: best(k) for name, k in (("pass@1", 1), ("pass@8", 8))}

    def span(task, when, name):
        values = [run[when][name] for run in results[task]]
        return f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})"

    table = ["| trained for | pass@1 before | after | pass@8 before | after |", "|---|---|---|---|---|"]
    for task in TASKS:
        cells = [span(task, when, name) for name in ("pass@1", "pass@8") for when in ("before", "after")]
        table.append(f"| {task} | {' | '.join(cells)} |")
    table.append(f"| the best any policy can do | | {optimum['pass@1']:.3f} | | {optimum['pass@8']:.3f} |")
    about = described("trl", "transformers") | {"seeds": SEEDS, "steps": STEPS, "samples of a prompt": SAMPLES}
    words = (
        f"`make learn`, {len(SEEDS)} seeds: mean (least to most) over 512 held-out prompts, {SAMPLES} samples each. "
        f"TRL {trl.__version__}, torch {torch.__version__}."
    )
    print("\n".join(table))
    if not quick:
        report.write("trl_learning", about, {"optimum": optimum, "results": results}, words, table)
        draw(results, optimum)


def draw(results, optimum):
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
    for axis, name, column in zip(axes, ("pass@1", "pass@8"), (1, 2)):
        for i, (task, runs) in enumerate(results.items()):
            steps = [point[0] for point in runs[0]["path"]]
            curves = torch.tensor([[point[column] for point in run["path"]] for run in runs])
            axis.plot(steps, curves.mean(0), color=f"C{i}", label=task)
            axis.fill_between(steps, curves.amin(0), curves.amax(0), color=f"C{i}", alpha=0.2, lw=0)
        axis.axhline(optimum[name], color="0.5", ls=":", label="the best any policy can do")
        axis.set(title=name, xlabel="step", ylim=(0, 1))
    axes[0].legend(loc="upper left", fontsize=8)
    figure.savefig(report.RESULTS / "trl_learning.png", dpi=130)


if __name__ == "__main__":
    main()

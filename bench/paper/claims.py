"""The three claims of the paper's abstract, on a small transformer: python -m bench claims.

(i) Training for k optimises pass@k: pass@j after training for k is best at j = k. (ii) A higher k solves more and harder
problems. (iii) Annealing k gives both pass@1 and pass@k.

A problem is a number a of a ring of 16 and a reading r of 1 to m, hidden from the policy, r being half as frequent as r - 1;
m, of 1, 2, 4 and 8, is its difficulty. The prompt shows m and a, the answer is the two numbers a + r, a + 2r. The policy, a
transformer with random weights (with --gpu a larger one, on a GPU), answers one of the 441 pairs of tokens nearly uniformly
at first. Its pass@j is computed, not sampled: from the probability p that it gives a problem's answer, 1 - (1 - p)^j.
"""

import math
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor

import matplotlib
import torch
from torch import nn
from tqdm import tqdm

from bench import report
from bench.machine import described
from pkpo_kernels import advantages, annealing

matplotlib.use("Agg")
from matplotlib import pyplot as plt

RING, DIFFICULTIES = 16, (1, 2, 4, 8)
TOKENS = RING + len(DIFFICULTIES) + 1  # numbers, difficulties, "answer"
KS = (1, 2, 4, 8, 16)
SAMPLES, PROMPTS, EVERY = 16, 64, 20


class Policy(nn.Module):
    """Logits of the next token after each of the tokens given."""

    def __init__(self, width=64, layers=2):
        super().__init__()
        self.tokens, self.places = nn.Embedding(TOKENS, width), nn.Embedding(5, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, TOKENS))
        with torch.no_grad():  # a weak start: nearly uniform
            self.head[1].weight.mul_(0.1)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.layers(self.tokens(tokens) + self.places(places), mask=mask, is_causal=True))


def frequencies(m):
    """Of the readings 1 to m."""
    weights = torch.tensor([2.0**-r for r in range(1, m + 1)], dtype=torch.float64)
    return weights / weights.sum()


def prompt(difficulty, a):
    """difficulty: the place in DIFFICULTIES."""
    return torch.stack([RING + difficulty, a, torch.full_like(a, TOKENS - 1)], -1)


def answer(a, reading):
    return torch.stack([(a + reading) % RING, (a + 2 * reading) % RING], -1)


def problems():
    """All of them: (prompts (P, 3), answers (P, 2), place of the difficulty (P,), share within its difficulty (P,))."""
    rows = []
    for place, m in enumerate(DIFFICULTIES):
        for a in range(RING):
            for r, share in enumerate(frequencies(m).tolist(), 1):
                rows.append((place, a, r, share / RING))
    place, a, r = (torch.tensor(column) for column in list(zip(*rows))[:3])
    return prompt(place, a), answer(a, r), place, torch.tensor([row[3] for row in rows], dtype=torch.float64)


def log_probs(policy, prompts, answers):
    logits = policy(torch.cat([prompts, answers[:, :1]], 1))[:, -2:]
    return logits.log_softmax(-1).gather(-1, answers[..., None]).squeeze(-1).sum(-1)


@torch.no_grad()
def sample(policy, prompts):
    tokens = prompts
    for _ in range(2):
        tokens = torch.cat([tokens, torch.multinomial(policy(tokens)[:, -1].softmax(-1), 1)], 1)
    return tokens[:, 3:]


@torch.no_grad()
def measure(policy, all_problems):
    """{"pass": (difficulties, KS) pass@j, "solved": (difficulties,) share of problems with pass@8 of at least a half}."""
    prompts, answers, place, share = all_problems
    p = log_probs(policy, prompts, answers).double().exp()
    passes = 1 - (1 - p[:, None]) ** torch.tensor(KS, device=p.device)
    at = range(len(DIFFICULTIES))
    solved = (passes[:, KS.index(8)] >= 0.5).double()
    return {
        "pass": [(passes * share[:, None])[place == d].sum(0).tolist() for d in at],
        "solved": [solved[place == d].mean().item() for d in at],
    }


def schedules(steps):
    fixed = {f"k = {k}": annealing.Constant(k) for k in KS}
    return fixed | {"k from 16 to 1": annealing.Geometric(16, 1, steps=max(1, steps * 5 // 6))}


def train(name, seed, steps, gpu):
    """[(step, what is measured)], the last after the last step."""
    torch.set_num_threads(1)  # runs go side by side
    torch.manual_seed(seed)
    schedule = schedules(steps)[name]
    device = "cuda" if gpu else "cpu"
    policy = (Policy(width=256, layers=6) if gpu else Policy()).to(device)
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-3)
    all_problems = [x.to(device) for x in problems()]
    share = torch.zeros(len(DIFFICULTIES), max(DIFFICULTIES))
    for d, m in enumerate(DIFFICULTIES):
        share[d, :m] = frequencies(m)
    path = []
    for step in range(steps):
        if step % EVERY == 0:
            path.append((step, measure(policy, all_problems)))
        difficulty = torch.randint(len(DIFFICULTIES), (PROMPTS,))
        a, reading = torch.randint(RING, (PROMPTS,)), torch.multinomial(share[difficulty], 1).squeeze(1) + 1
        prompts = prompt(difficulty, a).to(device).repeat_interleave(SAMPLES, 0)
        right = answer(a, reading).to(device).repeat_interleave(SAMPLES, 0)
        answers = sample(policy, prompts)
        rewards = (answers == right).all(1).view(PROMPTS, SAMPLES)
        weights = advantages(rewards, None, schedule(step)).flatten()
        loss = -(weights * log_probs(policy, prompts, answers)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [*path, (steps, measure(policy, all_problems))]


def best(k):
    """The largest pass@k of any policy, averaged over the difficulties: probability is given where it helps most
    (water-filling on the derivative w k (1 - p)^(k-1))."""
    total = 0.0
    for m in DIFFICULTIES:
        w = frequencies(m)
        if k == 1:
            total += w.max().item()
            continue
        low, high = 0.0, float(k)
        for _ in range(200):
            level = (low + high) / 2
            p = (1 - (level / (k * w)).clamp(max=1) ** (1 / (k - 1))).clamp(min=0)
            low, high = (level, high) if p.sum() > 1 else (low, level)
        total += (w * (1 - (1 - p) ** k)).sum().item()
    return total / len(DIFFICULTIES)


def interval(values):
    """Mean and half the width of its 95 % confidence interval (Student's t)."""
    t = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}[len(values)]
    return statistics.mean(values), t * statistics.stdev(values) / math.sqrt(len(values))


def shown(values):
    return "{:.3f} ± {:.3f}".format(*interval(values))


def mean_pass(measured, j):
    """pass@j over the difficulties."""
    return sum(row[KS.index(j)] for row in measured["pass"]) / len(DIFFICULTIES)


def tables(runs):
    """Markdown: (i) and (iii) pass@j, (ii) problems solved."""
    lines = ["| trained for | " + " | ".join(f"pass@{j}" for j in KS) + " |", "|---|" + "---|" * len(KS)]
    for name, paths in runs.items():
        cells = [shown([mean_pass(path[-1][1], j) for path in paths]) for j in KS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("| the best any policy can do | " + " | ".join(f"{best(j):.3f}" for j in KS) + " |")
    lines += [
        "",
        "| trained for | " + " | ".join(f"{m} reading{'s' * (m > 1)}" for m in DIFFICULTIES) + " |",
        "|---|---|---|---|---|",
    ]
    for name, paths in runs.items():
        cells = [shown([path[-1][1]["solved"][d] for path in paths]) for d in range(len(DIFFICULTIES))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def draw(runs, out):
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    final = {name: [[mean_pass(path[-1][1], j) for j in KS] for path in paths] for name, paths in runs.items()}
    for i, (name, paths) in enumerate(runs.items()):
        color = "black" if name not in [f"k = {k}" for k in KS] else plt.cm.viridis(i / len(KS))
        steps = [step for step, _ in paths[0]]
        for axis, j in zip(axes, (1, 8)):
            curves = torch.tensor([[mean_pass(measured, j) for _, measured in path] for path in paths])
            axis.plot(steps, curves.mean(0), color=color, label=name)
            axis.fill_between(steps, curves.amin(0), curves.amax(0), color=color, alpha=0.15, lw=0)
            axis.set(title=f"pass@{j}", xlabel="step", ylim=(0, 1))
        axes[2].plot(KS, torch.tensor(final[name]).mean(0), "o-", color=color, ms=3)
    axes[2].plot(KS, [best(j) for j in KS], ":", color="0.5", label="the best any policy can do")
    axes[2].set(title="pass@j after training", xlabel="j", xscale="log", ylim=(0, 1))
    axes[2].set_xticks(KS, [str(j) for j in KS])
    axes[0].legend(fontsize=7)
    axes[2].legend(fontsize=7)
    figure.savefig(out, dpi=130)


def main():
    parser = report.options(__doc__, "two seeds, few steps")
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--gpu", action="store_true", help="on an NVIDIA or AMD GPU, a policy of 3 million weights")
    arguments = parser.parse_args()
    seeds, steps = (2, EVERY) if arguments.quick else (arguments.seeds, arguments.steps)
    names = list(schedules(steps))
    jobs = [(name, seed, steps, arguments.gpu) for name in names for seed in range(seeds)]
    workers = 1 if arguments.gpu else os.cpu_count()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as processes:
        paths = list(tqdm(processes.map(train, *zip(*jobs)), total=len(jobs), unit="run"))
    runs = {name: paths[i * seeds : (i + 1) * seeds] for i, name in enumerate(names)}
    lines = tables(runs)
    print("\n".join(lines))
    if arguments.quick:
        return
    words = (
        f"`python -m bench claims{' --gpu' if arguments.gpu else ''} --steps {steps}`: {seeds} seeds, mean ± half of the "
        "95 % confidence interval. First pass@j over all difficulties; then the share of the problems of a difficulty that "
        "are solved: pass@8 is at least a half."
    )
    name = "claims_gpu" if arguments.gpu else "claims"
    about = described() | ({"gpu": torch.cuda.get_device_name()} if arguments.gpu else {})
    report.write(name, about, {"steps": steps, "seeds": seeds, "runs": runs}, words, lines)
    draw(runs, report.RESULTS / f"{name}.png")


if __name__ == "__main__":
    main()

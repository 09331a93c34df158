"""Runs the trainer as one rank of torchrun, or alone, and writes what it saw and what it gave: for test_trl.py."""

import json
import os
import sys
from pathlib import Path

import torch
from datasets import Dataset

from bench import tiny_llama
from pkpo_kernels.integrations.trl import PKPOConfig, PKPOTrainer

WORDS = [f"w{i}" for i in range(12)]
PROMPTS = [f"w{i % 12} w{i % 7}" for i in range(96)]


def length(completions, **_):
    """0 to 5, None for completions that begin with an even word: not scored."""
    return [None if c[:2] in ("w0", "w2", "w4") else float(len(c.split())) for c in completions]


def holds_w3(completions, **_):
    return [None if c[:2] in ("w0", "w2", "w6") else float("w3" in c.split()) for c in completions]


class Recorder(PKPOTrainer):
    """Writes down, batch by batch, this rank's prompts, completions and advantages."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        texts = self.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
        self.records.append(
            {
                "mode": "train" if self.model.training else "eval",
                "step": self.state.global_step,
                "prompts": [x["prompt"] for x in inputs],
                "completions": texts,
                "advantages": output["advantages"].tolist(),
                "k": self._metrics["train" if self.model.training else "eval"]["pkpo/k"][-1],
                "logged": list(self._logs["advantages"]),
            }
        )
        return output


def main():
    options = json.loads(sys.argv[1])
    out = Path(sys.argv[2])
    resume = options.pop("resume", None)
    torch.set_num_threads(1)
    arguments = {
        "output_dir": str(out / "checkpoints"),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "disable_tqdm": True,
        "per_device_train_batch_size": 4,
        "num_generations": 8,
        "max_completion_length": 5,
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "learning_rate": 1e-3,
        "reward_weights": [0.25, 2.0],
        "seed": 3,
    }
    config = PKPOConfig(**arguments | options)
    # From a folder: with beta, TRL loads the reference model from where the model came from.
    model, folder = tiny_llama.model(WORDS, hidden=32), str(out / "model")
    if int(os.environ.get("RANK", 0)) == 0:
        model.save_pretrained(folder)
    model.config._name_or_path = folder
    trainer = Recorder(
        model=model,
        reward_funcs=[length, holds_w3],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        eval_dataset=Dataset.from_dict({"prompt": PROMPTS[:8]}),
        processing_class=tiny_llama.tokenizer(WORDS),
    )
    trainer.records = []
    trainer.train(resume_from_checkpoint=resume)
    if config.eval_strategy != "no" or options.get("num_generations_eval"):
        trainer.evaluate()
    result = {
        "records": trainer.records,
        "history": trainer.state.log_history,
        "schedule": trainer.pkpo.schedule.state_dict(),
    }
    (out / f"{trainer.accelerator.process_index}.json").write_text(json.dumps(result))
    # Not by Python's own end: a thread of gloo that lets go of a tensor then aborts the process. Ending the process group
    # before does not help, since DistributedDataParallel holds it too.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()

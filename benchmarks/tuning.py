"""LoRA tuning against a plain transformers.Trainer, on the same examples, steps, model and cores.

    python -m benchmarks.tuning [--steps 12] [--quality-steps 0] [--quality-rows 1500] [--repeats 2]
        [--threads 2] [--history 12] [--dtype auto] [--store store]

Plain: float32, the batch padded to its longest, all logits, loss on the answer's tokens. Ours: the tuner as
the methods use it, its validation looks left out of the clock. Both take the same number of steps of 16
examples, the same rate, warm-up, LoRA and clipping. `--quality-steps N` tunes both for N steps with the same
loss (cross-entropy of the answer), no dropout, no warm-up and the same examples in the same order, so that what
is left of a difference is arithmetic, and prints the AUC of both on the same test rows, scored in float32 and
in bfloat16. `--dtype float32` tunes ours in the precision of the plain loop.
"""

import argparse
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.quickstart import Contest, make
from pipeline.evaluate.pointwise import auc
from pipeline.llm import tune, yes_no
from pipeline.llm.adapt import questions, yes_no_task
from pipeline.llm.ask import model_folder
from pipeline.llm.load import load_model, load_tokenizer
from pipeline.llm.reader import reader
from pipeline.llm.settings import Tuning
from pipeline.llm.tasks import Questions, YesNo
from pipeline.stage import Artefact


def examples(task: YesNo) -> list[dict[str, list[int]]]:
    """Prompt and answer, with labels on the answer's tokens only, as recipes for Trainer have them."""
    found = []
    for ids, label in zip(task.train.prompts, task.train.labels, strict=True):
        answer = list(task.endings[label])
        found.append({"input_ids": [*ids, *answer], "labels": [-100] * len(ids) + answer})
    return found


def padded(batch: list[Mapping[str, list[int]]]) -> dict[str, torch.Tensor]:
    longest = max(len(one["input_ids"]) for one in batch)
    fill = {"input_ids": 2, "labels": -100, "attention_mask": 0}
    rows = [{**one, "attention_mask": [1] * len(one["input_ids"])} for one in batch]
    return {
        key: torch.tensor([r[key] + [v] * (longest - len(r[key])) for r in rows]) for key, v in fill.items()
    }


def in_order(task: YesNo, settings: Tuning) -> list[dict[str, list[int]]]:
    """Examples as our tuner takes them, step by step."""
    rows, size = examples(task), settings.examples_per_step
    return [rows[i] for step in range(settings.steps or 0) for i in tune.step_rows(len(rows), step, size, 1)]


def plain(folder: Path, task: YesNo, settings: Tuning, into: Path) -> None:
    """Tune with transformers.Trainer and save the adapter."""
    from torch.utils.data import SequentialSampler
    from transformers import Trainer, TrainingArguments

    class InOrder(Trainer):
        """The trainer as it is, but for taking the examples as they come."""

        def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
            return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)  # type: ignore

    wrapped = tune.add_adapter(load_model(folder), settings, 1)
    arguments = TrainingArguments(
        output_dir=str(into / "trainer"),
        max_steps=settings.steps or 0,
        per_device_train_batch_size=settings.examples_per_step,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warm_up,
        lr_scheduler_type=settings.schedule,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        logging_strategy="no",
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        remove_unused_columns=False,
        seed=1,
    )
    rows: Any = in_order(task, settings)
    trainer = InOrder(model=wrapped, args=arguments, train_dataset=rows, data_collator=padded)  # type: ignore
    trainer.train()
    tune.write_adapter(wrapped, tune.trainable(wrapped.base_model.model), into)


def ours(folder: Path, task: YesNo, settings: Tuning, into: Path) -> None:
    """Tune as the methods do and save the adapter."""
    model = load_model(folder, tuning=True)
    wrapped = tune.add_adapter(model, settings, 1)
    tuned = tune.tune(model, task, settings, 1, into)
    tune.write_adapter(wrapped, tuned.weights, into)


def speed(folder: Path, task: YesNo, settings: Tuning, repeats: int) -> None:
    """Time of the steps alone: a run of N + 1 steps less a run of one, so that loading is not counted."""
    blind = replace(task, valid=Questions([], []))

    def timed(way: Any, steps: int) -> Any:
        chosen = settings.model_copy(update={"steps": steps, "evaluate_every": 10**6})

        def go() -> None:
            with tempfile.TemporaryDirectory() as into:
                way(folder, blind, chosen, Path(into))

        return go

    steps = settings.steps or 1
    ways = {
        (name, n): timed(way, n) for name, way in (("plain", plain), ("ours", ours)) for n in (1, steps + 1)
    }
    contest = Contest(ways)  # type: ignore[arg-type]
    contest.run(repeats)
    rows = steps * settings.examples_per_step
    taken = [i for s in range(steps) for i in tune.step_rows(len(task.train), s, settings.examples_per_step, 1)]
    tokens = sum(len(task.train.prompts[i]) for i in taken)
    print(f"{steps} steps of {settings.examples_per_step} examples, about {tokens / rows:.0f} tokens each")
    print(f"{'':8} {'wall s':>7} {'ratio':>6} {'cpu s':>7} {'ratio':>6} {'examples/s':>10} {'tokens/s':>9}")
    net = {
        clock: {name: times[(name, steps + 1)] - times[(name, 1)] for name in ("plain", "ours")}  # type: ignore[index]
        for clock, times in (("wall", contest.wall), ("cpu", contest.cpu))
    }
    for name in ("plain", "ours"):
        wall, cpu = net["wall"][name], net["cpu"][name]
        print(
            f"{name:8} {wall:7.2f} {net['wall']['plain'] / wall:6.2f} "
            f"{cpu:7.2f} {net['cpu']['plain'] / cpu:6.2f} "
            f"{rows / wall:10.2f} {tokens / wall:9.0f}"
        )


def quality(folder: Path, task: YesNo, settings: Tuning, steps: int, prompts: Artefact, test_rows: int) -> None:
    """AUC on drawn test rows after the same number of steps, of both adapters in both precisions."""
    chosen = settings.model_copy(
        update={"steps": steps, "evaluate_every": 10**6, "loss": "lm_answer", "dropout": 0.0, "warm_up": 0}
    )
    blind = replace(task, valid=Questions([], []), kind="lm_answer")
    rows = prompts.table("prompts").filter(part="test")
    test = questions(rows.sample(min(test_rows, rows.height), seed=1), load_tokenizer(folder))
    labels, leads = np.array(test.labels), {}
    for name, way in (("plain", plain), ("ours", ours)):
        with tempfile.TemporaryDirectory() as into:
            way(folder, blind, chosen, Path(into))
            for dtype in (torch.float32, torch.bfloat16):
                merged = reader(tune.merge_adapter(load_model(folder), Path(into)), dtype)
                logits = yes_no.score(merged, test.prompts, task.answers)
                leads[name, dtype] = yes_no.decide(logits, "difference").numpy()
                print(f"{name:8} {dtype} test AUC {auc(labels, leads[name, dtype]):.4f}", flush=True)
    print(f"after {steps} steps, on {len(labels)} test rows; against plain in float32: AUC, rank correlation")
    first = leads["plain", torch.float32]
    for (name, dtype), found in leads.items():
        alike = np.corrcoef(first.argsort().argsort(), found.argsort().argsort())[0, 1]
        print(f"{name:8} {dtype} {difference(labels, found, first)} {alike:.4f}")


def difference(labels: np.ndarray, one: np.ndarray, other: np.ndarray, draws: int = 500) -> str:
    """AUC of one less that of the other, with a 95 % bootstrap interval over rows."""
    rng, found = np.random.default_rng(0), []
    for _ in range(draws):
        i = rng.integers(0, len(labels), len(labels))
        found.append(auc(labels[i], one[i]) - auc(labels[i], other[i]))
    whole = auc(labels, one) - auc(labels, other)
    low, high = np.quantile(found, [0.025, 0.975])
    return f"{whole:+.4f} ({low:+.4f} to {high:+.4f})"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--steps", type=int, default=12)
    asked.add_argument("--quality-steps", type=int, default=0)
    asked.add_argument("--quality-rows", type=int, default=1500, help="test rows that the AUC is of")
    asked.add_argument("--repeats", type=int, default=2)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--history", type=int, default=12, help="movies of each prompt's history, at most")
    asked.add_argument("--store", type=Path, default=Path("store"))
    asked.add_argument("--dtype", default="auto", help="of our products in tuning; Trainer's are float32")
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    made = make(given.store, "tallrec/prompts", history=given.history, train_rows=None)
    folder = model_folder(made["language_model"])
    settings = Tuning(steps=given.steps, dtype=given.dtype)
    task = yes_no_task(made["tallrec/prompts"], folder, settings, 1)
    print(f"{given.threads} threads, load average {os.getloadavg()[0]:.1f}")
    if given.steps:
        speed(folder, task, settings, given.repeats)
    if given.quality_steps:
        quality(folder, task, settings, given.quality_steps, made["tallrec/prompts"], given.quality_rows)


if __name__ == "__main__":
    main()

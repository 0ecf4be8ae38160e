"""Yes/no scoring against a plain transformers loop, on the same prompts, model and cores.

    python -m benchmarks.yes_no [--rows 32] [--repeats 10] [--threads 2] [--store store] [--history 12]
        [--train-rows 256] [--only SET]

Plain: the checkpoint's float32, batches of 16 in the order given, padded, all logits. Prompts are those of
the quickstart with longer histories: `scattered` are drawn at random from its test rows, `users` are test rows
of as few users as it takes, as they come when every row of a user is scored, `all` are every test and
validation row, once, as a study scores them. The model is tuned first, on `--train-rows`.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from benchmarks.quickstart import Contest, make
from pipeline.evaluate.pointwise import auc
from pipeline.llm import yes_no
from pipeline.llm.ask import model_folder
from pipeline.llm.load import encode, load_model, load_tokenizer
from pipeline.llm.reader import Reader, reader
from pipeline.llm.tune import merge_adapter

BATCH = 16


def plain(model: Any, prompts: list[list[int]], answers: yes_no.Answers) -> torch.Tensor:
    """How far yes leads over no, (n,), by the loop that everybody writes first."""
    leads = []
    with torch.no_grad():
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            longest = max(map(len, batch))
            ids = torch.tensor([[2] * (longest - len(one)) + one for one in batch])
            mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in batch])
            logits = model(input_ids=ids, attention_mask=mask).logits[:, -1]
            leads.append(logits[:, answers.yes] - logits[:, answers.no])
    return torch.cat(leads)


def ours(reading: Reader, prompts: list[list[int]], answers: yes_no.Answers) -> torch.Tensor:
    return yes_no.decide(yes_no.score(reading, prompts, answers), "difference")


def choose(rows: pl.DataFrame, count: int) -> dict[str, pl.DataFrame]:
    order = np.random.default_rng(0).permutation(rows.height)[:count]
    some = {"scattered": rows[np.sort(order)], "users": rows.sort("user", "row").head(count)}
    return {**some, "all": rows}


def rank_correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    ranks = [values.argsort().argsort().double() for values in (one, other)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--rows", type=int, default=32)
    asked.add_argument("--repeats", type=int, default=10)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--store", type=Path, default=Path("store"))
    asked.add_argument("--history", type=int, default=12, help="movies of each prompt's history, at most")
    asked.add_argument("--only", choices=("scattered", "users", "all"))
    asked.add_argument("--train-rows", type=int, default=256, help="rows that the model is tuned on")
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    made = make(given.store, "tallrec/adapter", history=given.history, train_rows=given.train_rows)
    folder = model_folder(made["language_model"])
    table = made["tallrec/prompts"].table("prompts").filter(pl.col("part") != "train")
    tokenizer = load_tokenizer(folder)
    answers = yes_no.answer_ids(tokenizer, table["prompt"].to_list(), (" Yes", " No"))
    model = merge_adapter(load_model(folder), made["tallrec/adapter"].path)
    readers = {dtype: reader(model, dtype) for dtype in (torch.float32, torch.bfloat16)}
    print(f"{given.threads} threads, load average {os.getloadavg()[0]:.1f}")
    for name, rows in choose(table, given.rows).items():
        if given.only in (None, name):
            compare(
                name,
                rows,
                encode(tokenizer, rows["prompt"].to_list()),
                answers,
                (model, readers),
                1 if name == "all" else given.repeats,
            )


def compare(
    name: str,
    rows: pl.DataFrame,
    prompts: list[list[int]],
    answers: yes_no.Answers,
    held: tuple[Any, dict[torch.dtype, Reader]],
    repeats: int,
) -> None:
    model, readers = held
    ways = {
        "plain, float32": lambda: plain(model, prompts, answers),
        "ours, float32": lambda: ours(readers[torch.float32], prompts, answers),
        "ours, bfloat16": lambda: ours(readers[torch.bfloat16], prompts, answers),
    }
    contest = Contest(ways)
    contest.run(repeats)
    first, tokens = "plain, float32", sum(map(len, prompts))
    shortest, longest = min(map(len, prompts)), max(map(len, prompts))
    print(f"\n{name}: {rows.height} prompts of {rows['user'].n_unique()} users, {shortest}-{longest} tokens")
    print(
        f"{'':16} {'wall s':>7} {'ratio':>6} {'in one round':>15} {'cpu s':>7} {'ratio':>6} "
        f"{'tokens/s':>9} {'AUC':>7} {'rank r':>7}"
    )
    for way, result in contest.results.items():
        wall, cpu = contest.wall[way], contest.cpu[way]
        print(
            f"{way:16} {wall:7.2f} {contest.wall[first] / wall:6.2f} "
            f"{'{:.1f}-{:.1f}-{:.1f}'.format(*contest.ratios(way)):>15} "
            f"{cpu:7.2f} {contest.cpu[first] / cpu:6.2f} "
            f"{tokens / wall:9.0f} {auc(rows['label'], result.numpy()):7.4f} "
            f"{rank_correlation(result, contest.results[first]):7.4f}"
        )


if __name__ == "__main__":
    main()

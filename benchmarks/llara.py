"""LLaRA on MovieLens-100K over many draws of the candidates, against SASRec on the same lists.

    python -m benchmarks.llara [--draws 20] [--users 60] [--train-rows 256] [--threads 2] [--store store]
        [--variants hybrid text_only shuffled_vectors]

The published figures are of 95 sequences whose candidates are drawn once, so that much of a difference may be
the draw's. Here each variant is tuned once, as the quickstart would, and then orders random lists of 20 around
the same users' test targets, drawn anew for each seed. HR@1 of each: mean over draws, standard deviation over
draws, and the standard error over users of the mean over draws.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from assets.engine.declare import graph
from pipeline import study
from pipeline.collab.fitted import scores_of
from pipeline.collab.ranked import pair_scores
from pipeline.data.candidates import Used, pools, random_list, sampled
from pipeline.llm.answer import tuned_reader
from pipeline.llm.ask import model_folder
from pipeline.llm.choices import Lists, choices, stored, together
from pipeline.llm.load import choose_dtype, end_id, load_tokenizer
from pipeline.llm.titles import log_likelihoods
from pipeline.methods import llara
from pipeline.stage import Artefact, run
from pipeline.store import Store

ROOT = Path(__file__).parents[1]
LIST = "random_20"
Made = dict[tuple[str, str], Artefact]  # stage and variant


def make(store: Path, variants: list[str], users: int, train_rows: int) -> Made:
    """The quickstart's artefacts up to LLaRA's adapters."""
    stages = graph()
    asked = study.load(study.find(ROOT, "quickstart"))
    settings = {"variants": variants, "prompts": {"train_rows": train_rows, "lists": LIST}}
    data = {**asked.data, "rerank": {"candidates": {"users": users}}}
    asked = asked.model_copy(update={"methods": {"llara": settings}, "data": data})
    needed = {"llara/adapter"}
    for stage in reversed(stages.order):
        if stage.name in needed:
            needed |= set(stages.parents(stage))
    plan = stages.plan(asked, Store(store), ROOT)
    found = [run(planned.spec)[0] for planned in plan if planned.stage.name in needed]
    return {(artefact.stage, artefact.variant): artefact for artefact in found}


def redrawn(made: Made, users: int, seed: int) -> Lists:
    """Random lists around the test targets, drawn by this seed; the users are always the same."""
    split, dataset = made["next_item/split", "default"], made["dataset", "default"]
    queries = sampled(split.table("queries"), users, 1).filter(part="test")
    pool = pools(split.table("events"), split.metrics["kind"])
    used = Used(dataset.table("interactions"))
    return together(stored(queries, random_list(LIST, queries, used, pool, seed), LIST))


def by_llara(made: Made, variant: str, drawn: list[Lists]) -> np.ndarray:
    """Hits (draws, users) of a tuned variant."""
    prompts, model = made["llara/prompts", variant], made["language_model", "default"]
    folder = model_folder(model)
    tokenizer, end = load_tokenizer(folder), end_id(folder)
    _, reading = tuned_reader(folder, prompts, made["llara/adapter", variant], choose_dtype("auto"))
    settings = llara.LlaraPrompts.model_validate(dict(prompts.settings))
    inputs = {"dataset": made["dataset", "default"], "language_model": model}
    titles = llara.told(inputs, settings, tokenizer)
    hits = []
    for lists in drawn:
        rows = llara.rendered(lists, inputs, settings, variant, 0)
        asked = choices(rows, lists.candidates, titles, tokenizer, end)
        scores = log_likelihoods(reading, asked.prompts, asked.endings, label=variant)
        hits.append([int(one.argmax()) == own for one, own in zip(scores, asked.targets, strict=True)])
    return np.array(hits, dtype=np.float64)


def by_sasrec(made: Made, drawn: list[Lists]) -> np.ndarray:
    """Hits (draws, users) of the model whose vectors LLaRA shows."""
    split = made["next_item/split", "default"]
    scores, size = scores_of(made["next_item/sasrec", "default"], split), split.table("catalogue").height
    hits = []
    for lists in drawn:
        found = pair_scores(scores, split.table("queries"), lists.candidates.drop("place"), size)
        best = found.sort("user", "score", descending=[False, True], nulls_last=True).group_by(
            "user", maintain_order=True
        )
        hits.append(best.agg(pl.col("label").first())["label"].to_list())
    return np.array(hits, dtype=np.float64)


def tell(name: str, hits: np.ndarray) -> None:
    draws, users = hits.mean(1), hits.mean(0)
    error = users.std(ddof=1) / np.sqrt(len(users))
    print(f"{name:20} {draws.mean():.3f} {draws.std(ddof=1):10.3f} {error:10.3f}")


def main() -> None:
    asked: Any = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--draws", type=int, default=20)
    asked.add_argument("--users", type=int, default=60)
    asked.add_argument("--train-rows", type=int, default=256)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--store", type=Path, default=Path("store"))
    asked.add_argument("--variants", nargs="+", default=["hybrid", "text_only", "shuffled_vectors"])
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    made = make(given.store, given.variants, given.users, given.train_rows)
    drawn = [redrawn(made, given.users, seed) for seed in range(1, given.draws + 1)]
    print(f"{given.users} users, {given.draws} draws; chance .05\n{'':20} HR@1   draws' sd  users' se")
    tell("sasrec", by_sasrec(made, drawn))
    for variant in given.variants:
        tell(f"llara/{variant}", by_llara(made, variant, drawn))


if __name__ == "__main__":
    main()

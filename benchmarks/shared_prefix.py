"""What it saves to read a history once: titles and yes/no questions about the same user, shared against alone.

    python -m benchmarks.shared_prefix [--users 100] [--candidates 20] [--repeats 3] [--threads 2] [--store
    store]
        [--history 10] [--dtype float32] [--only titles]

Both ways are ours, with the same model, dtype, batch size and threads, and give the same scores. Titles: for
each user one prompt that lists their history and the candidates, and the likelihood of each candidate's title
after it; alone: every prompt is read again with every title behind it. Yes/no: for each user and candidate one
prompt, the history first and the candidate last; alone: every prompt is read whole. Users, histories and titles
are MovieLens-100K's; candidates are drawn by seed from what the user has not seen.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch

from benchmarks.quickstart import Contest, make
from pipeline.llm import titles, yes_no
from pipeline.llm.ask import model_folder
from pipeline.llm.load import encode, end_id, load_model, load_tokenizer
from pipeline.llm.reader import Ids, Reader, reader
from pipeline.methods.llara import without_years

LISTED = (
    "This user has watched {} in the previous. "
    "Choose the answer from the following {} movie titles: {}. Answer:"
)
ASKED = (
    "A user has given high ratings to the following movies: {}. Would they enjoy the movie titled {}? Answer:"
)
BATCH = 1024  # tokens of one pass


def worlds(
    events: pl.DataFrame, users: int, candidates: int, longest: int
) -> list[tuple[list[int], list[int]]]:
    """History and candidates of some users, drawn by seed."""
    rng = np.random.default_rng(0)
    walks = events.sort("row").group_by("user", maintain_order=True).agg("item").sort("user")
    items = events["item"].unique().sort().to_numpy()
    found = []
    for place in rng.permutation(walks.height)[:users]:
        seen = walks["item"][int(place)].to_list()
        fresh = rng.permutation(np.setdiff1d(items, seen))[:candidates]
        found.append((seen[-longest:], fresh.tolist()))
    return found


def titles_alone(reading: Reader, prompts: Sequence[Ids], endings: Sequence[Sequence[Ids]]) -> torch.Tensor:
    """Log-likelihoods (prompts * candidates,) where each title has a whole pass over its prompt."""
    texts = [
        ([*prompt, *ending[:-1]], ending)
        for prompt, some in zip(prompts, endings, strict=True)
        for ending in some
    ]
    found = torch.zeros(len(texts), dtype=torch.float64)

    def read(batch: list[int]) -> tuple[list[int], torch.Tensor]:
        with torch.inference_mode():
            return batch, whole(reading, [texts[i] for i in batch])

    for batch, summed in reading.each(read, yes_no.batches([len(text) for text, _ in texts], BATCH)):
        found[batch] = summed
    return found


def whole(reading: Reader, texts: Sequence[tuple[list[int], Ids]]) -> torch.Tensor:
    """Summed log-probabilities (n,) of the endings of some texts."""
    block = yes_no.pad([text for text, _ in texts], reading.device)
    places, tokens, owner = [], [], []
    for i, (text, ending) in enumerate(texts):
        first = i * block.shape[1] + len(text) - len(ending)
        places += range(first, first + len(ending))
        tokens += ending
        owner += [i] * len(ending)
    states = reading.states(block, torch.tensor(places, device=reading.device))
    number = torch.arange(len(places), device=reading.device)
    chosen = titles.log_probabilities(
        states, reading.outputs, number, torch.tensor(tokens, device=reading.device)
    )
    return torch.zeros(len(texts), dtype=torch.float64).index_add_(
        0, torch.tensor(owner), chosen.double().cpu()
    )


def titles_shared(reading: Reader, prompts: Sequence[Ids], endings: Sequence[Sequence[Ids]]) -> torch.Tensor:
    return torch.cat(titles.log_likelihoods(reading, prompts, endings, batch_tokens=BATCH))


def yes_no_alone(reading: Reader, prompts: Sequence[Ids], answers: yes_no.Answers) -> torch.Tensor:
    """Leads (n,) of yes where no prompt's beginning is shared."""
    leads, rows = torch.zeros(len(prompts)), yes_no.answer_rows(reading, answers)

    def read(batch: list[int]) -> tuple[list[int], torch.Tensor]:
        with torch.inference_mode():
            return batch, (yes_no.last_states(reading, [prompts[i] for i in batch]) @ rows.T).cpu()

    for batch, found in reading.each(read, yes_no.batches([len(prompt) for prompt in prompts], BATCH)):
        leads[batch] = found[:, 0] - found[:, 1]
    return leads


def yes_no_shared(reading: Reader, prompts: Sequence[Ids], answers: yes_no.Answers) -> torch.Tensor:
    return yes_no.decide(yes_no.score(reading, prompts, answers, BATCH), "difference")


def tell(name: str, prompts: Sequence[Ids], contest: Contest) -> None:
    alone, shared = contest.results.values()
    apart = float((alone - shared).abs().max())
    lengths = sorted(map(len, prompts))
    low, middle, high = contest.ratios("shared")
    print(f"{name}: {len(prompts)} prompts of {lengths[0]}-{lengths[len(lengths) // 2]}-{lengths[-1]} tokens")
    print(
        f"  alone {contest.wall['alone']:.2f} s, shared {contest.wall['shared']:.2f} s, "
        f"{contest.wall['alone'] / contest.wall['shared']:.2f} times "
        f"(rounds {low:.2f}-{middle:.2f}-{high:.2f}; of processor time "
        f"{contest.cpu['alone'] / contest.cpu['shared']:.2f}); "
        f"scores apart {apart:.1e} at most, of a spread of {float(alone.std()):.2f}"
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--users", type=int, default=100)
    asked.add_argument("--candidates", type=int, default=20)
    asked.add_argument("--repeats", type=int, default=3)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--store", type=Path, default=Path("store"))
    asked.add_argument("--history", type=int, default=10, help="movies of each history, at most")
    asked.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    asked.add_argument("--only", choices=("titles", "yes_no"))
    given = asked.parse_args()
    torch.set_num_threads(given.threads)
    made = make(given.store, "next_item/split", "language_model")
    folder = model_folder(made["language_model"])
    tokenizer, end = load_tokenizer(folder), end_id(folder)
    names = without_years(dict(made["dataset"].table("items").select("item", "title").iter_rows()))
    held = worlds(made["next_item/split"].table("events"), given.users, given.candidates, given.history)
    reading = reader(load_model(folder), getattr(torch, given.dtype))
    print(f"{given.dtype}, {given.threads} threads, load average {os.getloadavg()[0]:.1f}")

    def told(items: list[int]) -> str:
        return ", ".join(f'"{names[item]}"' for item in items)

    if given.only != "yes_no":
        texts = [LISTED.format(told(past), len(some), told(some)) for past, some in held]
        answers = [[f" {told([item])}" for item in some] for _, some in held]
        endings = [titles.endings_of(tokenizer, *one, end) for one in zip(texts, answers, strict=True)]
        prompts = encode(tokenizer, texts)
        contest = Contest(
            {
                "alone": lambda: titles_alone(reading, prompts, endings),
                "shared": lambda: titles_shared(reading, prompts, endings),
            }
        )
        contest.run(given.repeats)
        tell(f"titles, {given.users} users x {given.candidates}", prompts, contest)
    if given.only != "titles":
        texts = [ASKED.format(told(past), told([item])) for past, some in held for item in some]
        words = yes_no.answer_ids(tokenizer, texts, (" Yes", " No"))
        questions = encode(tokenizer, texts)
        contest = Contest(
            {
                "alone": lambda: yes_no_alone(reading, questions, words),
                "shared": lambda: yes_no_shared(reading, questions, words),
            }
        )
        contest.run(given.repeats)
        tell(f"yes/no, {given.users} users x {given.candidates}", questions, contest)


if __name__ == "__main__":
    main()

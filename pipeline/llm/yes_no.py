"""Yes or no from a causal language model, in one forward pass over each prompt.

    prompts -> token ids -> (sorted by length, shared beginnings read once) -> last hidden state -> two logits

Prompts are padded on the right and no mask is made: under causal attention a real token never sees what comes
after it, so padding changes nothing. Of the output layer only the rows of the two answers are multiplied.
Prompts that begin alike, as those of one user at one time do, share the keys and values of their beginning.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.llm.load import encode
from pipeline.llm.reader import Ids, Reader
from pipeline.llm.settings import Loss
from pipeline.progress import meter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PROBES = 16  # prompts that the answers are resolved on
PASS_COST = 160  # tokens that could be read in the time that a family's passes of its own take
SHORTEST_SHARED = 16  # tokens; below, no family is looked for
LARGEST_FAMILY = 128
TILE = 16  # tokens


class Answers(NamedTuple):
    """Ids of the first tokens in which the two answers differ."""

    yes: int
    no: int


@dataclass
class Family:
    """Prompts that begin with the same `shared` tokens; one batch of prompts where they share none."""

    places: list[int]
    shared: int


class Logits(NamedTuple):
    """Logits of the two answers at the place of the answer, (n,) each, float32."""

    yes: Tensor
    no: Tensor


def decide(logits: Logits, loss: Loss) -> Tensor:
    """The logit of yes that a loss has trained, (n,): the yes logit alone, or its lead over the no logit."""
    return logits.yes if loss == "yes_logit" else logits.yes - logits.no


def answer_ids(tokenizer: "Tokenizer", prompts: Sequence[str], words: tuple[str, str]) -> Answers:
    """Resolve the answers by tokenising prompt + answer: the first token that differs is the answer's.

    `words` are the answers as they follow the prompt, such as (" Yes", " No"). Raises ValueError where an
    answer changes the prompt's own tokens, where both begin alike, or where prompts disagree.
    """
    some = list(prompts[:: max(1, len(prompts) // PROBES)])
    begun = encode(tokenizer, some)
    found = {
        resolve(before, *encode(tokenizer, [prompt + word for word in words]))
        for prompt, before in zip(some, begun, strict=True)
    }
    if len(found) != 1:
        raise ValueError(f"the answers {words} have no single pair of tokens after these prompts: {found}")
    return found.pop()


def resolve(prompt: Ids, with_yes: Ids, with_no: Ids) -> Answers:
    at = len(prompt)
    if list(with_yes[:at]) != list(prompt) or list(with_no[:at]) != list(prompt):
        raise ValueError("an answer changes how the prompt's end is split; begin the answer with a space")
    if len(with_yes) == at or len(with_no) == at or with_yes[at] == with_no[at]:
        raise ValueError("the answers do not differ in their first token after the prompt")
    return Answers(with_yes[at], with_no[at])


def score(
    reader: Reader, prompts: Sequence[Ids], answers: Answers, batch_tokens: int = 1024, label: str = ""
) -> Logits:
    """Both logits of every prompt, in the order given; the same for every batch size, neighbour and thread.

    prompts: token ids up to the answer; batch_tokens: tokens of one forward pass, padding included.
    """
    rows = torch.zeros(len(prompts), 2)
    weight = answer_rows(reader, answers)

    def read(family: Family) -> list[tuple[list[int], Tensor]]:
        with torch.inference_mode():
            found = read_family(reader, prompts, family, batch_tokens)
            return [(places, (states @ weight.T).cpu()) for places, states in found]

    with meter(label or "score prompts", len(prompts)) as progress:
        for found in reader.each(read, together(prompts, batch_tokens)):
            for places, logits in found:
                rows[places] = logits
                progress.advance(len(places))
    return Logits(rows[:, 0], rows[:, 1])


def together(prompts: Sequence[Ids], budget: int) -> list[Family]:
    """All prompts, cut into what is read at once: families, and batches of prompts that share nothing."""
    families, alone = kin(prompts)
    cut = batches([len(prompts[place]) for place in alone], budget)
    return families + [Family([alone[i] for i in batch], 0) for batch in cut]


def answer_rows(reader: Reader, answers: Answers) -> Tensor:
    """The output layer's rows of the two answers, (2, width), float32."""
    return reader.outputs[list(answers)]


def last_states(reader: Reader, prompts: Sequence[Ids], past: Any = (), draws: int | None = None) -> Tensor:
    """Hidden state at each prompt's last token, (n, width); see `Reader.states`."""
    block = pad(prompts, reader.device)
    ends = [i * block.shape[1] + len(ids) - 1 for i, ids in enumerate(prompts)]
    return reader.states(block, torch.tensor(ends, device=reader.device), past, draws)


def pad(prompts: Sequence[Ids], device: torch.device, tile: int = TILE) -> Tensor:
    """Ids as one (n, length) tensor; what fills the right end is never looked at.

    The length is rounded up to whole tiles: attention over 174 tokens takes a third longer than over 176.
    """
    longest = max(map(len, prompts))
    block = torch.zeros(len(prompts), -(-longest // tile) * tile, dtype=torch.long)
    for row, ids in zip(block, prompts, strict=True):
        row[: len(ids)] = torch.tensor(ids)
    return block.to(device)


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut the sequence into batches of like lengths whose padded size fits the budget; the longest first.

    A sequence longer than the budget is a batch of its own.
    """
    cut: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if cut and (len(cut[-1]) + 1) * lengths[cut[-1][0]] <= budget:
            cut[-1].append(place)
        else:
            cut.append([place])
    return cut


def even_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Cut the sequence into batches of like lengths and about as many tokens, the longest first, whose padded
    size fits the budget. More than one are an even number, so that two threads end together.

    A sequence longer than the budget is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    middles = np.cumsum([lengths[i] for i in order]) - np.array([lengths[i] for i in order]) / 2
    total, count = sum(lengths), 1
    while True:
        owner = np.minimum(middles * count // total, count - 1)
        cut = [[order[i] for i in np.flatnonzero(owner == batch)] for batch in range(count)]
        if all(len(one) < 2 or len(one) * lengths[one[0]] <= budget for one in cut):
            return [one for one in cut if one]
        count += 1 + (count > 1)


# --- shared beginnings -------------------------------------------------------------------------------------


def kin(prompts: Sequence[Ids]) -> tuple[list[Family], list[int]]:
    """Group prompts by common beginnings so that the most tokens are saved; the rest stay alone.

    Sorted by their tokens, a family is a run of neighbours; dynamic programming finds the best cut into runs.
    """
    order = sorted(range(len(prompts)), key=lambda i: list(prompts[i]))
    shares = [common_start(prompts[a], prompts[b]) for a, b in pairwise(order)]
    saved, start, shared = [0], [0], [0]  # of the best cut of the first n prompts: its last run
    for end in range(1, len(order) + 1):
        gain, begin, common = max(runs_to(end, shares, saved), key=lambda run: run[0])
        saved.append(gain)
        start.append(begin)
        shared.append(common)
    families, alone, end = [], [], len(order)
    while end > 0:
        run = order[start[end] : end]
        if len(run) > 1:
            families.append(Family(run, shared[end]))
        else:
            alone += run
        end = start[end]
    return families, alone


def runs_to(end: int, shares: Sequence[int], saved: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Every run that may end before `end`: tokens saved up to there, where the run begins, tokens shared."""
    yield saved[end - 1], end - 1, 0
    common = shares[end - 2] if end > 1 else 0
    for begin in range(end - 2, max(-1, end - 1 - LARGEST_FAMILY), -1):
        common = min(common, shares[begin])
        if common < SHORTEST_SHARED:
            return
        yield saved[begin] + (end - begin - 1) * common - PASS_COST, begin, common


def common_start(a: Ids, b: Ids) -> int:
    """How many tokens two prompts share from their start, the last of each left out: it is read alone."""
    shorter = min(len(a), len(b)) - 1
    return next((i for i in range(shorter) if a[i] != b[i]), shorter)


def read_family(
    reader: Reader, prompts: Sequence[Ids], family: Family, budget: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Places with their last hidden states: the shared beginning is read once, then the ends in batches."""
    if not family.shared:
        yield family.places, last_states(reader, [prompts[place] for place in family.places])
        return
    past = reader.begin(torch.tensor(prompts[family.places[0]][: family.shared], device=reader.device))
    ends = [prompts[place][family.shared :] for place in family.places]
    for batch in batches([family.shared // 8 + len(end) for end in ends], budget):
        yield [family.places[i] for i in batch], last_states(reader, [ends[i] for i in batch], past)

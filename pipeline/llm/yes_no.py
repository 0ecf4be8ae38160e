"""Yes or no from a causal language model, in one forward pass over each prompt.

    prompts -> token ids -> (sorted by length, shared beginnings read once) -> last hidden state -> two logits

Prompts are padded on the right and no mask is made: under causal attention a real token never sees what comes
after it, so padding changes nothing. Of the output layer only the rows of the two answers are multiplied.
Prompts that begin alike, as those of one user at one time do, share the keys and values of their beginning.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from pipeline.llm.load import encode, output_rows, read_states
from pipeline.llm.settings import Loss
from pipeline.progress import meter

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

Ids = Sequence[int]
PROBES = 16  # prompts that the answers are resolved on
PASS_COST = 160  # tokens that could be read in the time that a family's passes of its own take
SHORTEST_SHARED = 16  # tokens; below, no family is looked for
LARGEST_FAMILY = 128


class Answers(NamedTuple):
    """Ids of the first tokens in which the two answers differ."""

    yes: int
    no: int


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
    model: "PreTrainedModel",
    prompts: Sequence[Ids],
    answers: Answers,
    batch_tokens: int = 2048,
    label: str = "",
) -> Logits:
    """Both logits of every prompt, in the order given; the same for every batch size and neighbour.

    prompts: token ids up to the answer; batch_tokens: tokens of one forward pass, padding included.
    """
    rows = torch.zeros(len(prompts), 2)
    weight = answer_rows(model, answers)
    with torch.inference_mode(), meter(label or "score prompts", len(prompts)) as progress:
        for places, states in read(model, prompts, batch_tokens):
            rows[places] = (states.float() @ weight.T).cpu()
            progress.advance(len(places))
    return Logits(rows[:, 0], rows[:, 1])


def answer_rows(model: "PreTrainedModel", answers: Answers) -> Tensor:
    """The output layer's rows of the two answers, (2, width), float32."""
    return output_rows(model)[list(answers)].float()


def read(model: "PreTrainedModel", prompts: Sequence[Ids], budget: int) -> Iterator[tuple[list[int], Tensor]]:
    """Places in `prompts` with their last hidden states (len(places), width), in any order, each place once."""
    families, alone = kin(prompts)
    for family in families:
        yield from read_family(model, prompts, family, budget)
    for batch in batches([len(prompts[place]) for place in alone], budget):
        places = [alone[i] for i in batch]
        yield places, last_states(model, [prompts[place] for place in places])


def last_states(model: "PreTrainedModel", prompts: Sequence[Ids]) -> Tensor:
    """Hidden state at each prompt's last token, (n, width)."""
    states = read_states(model, input_ids=pad(prompts, model.device), use_cache=False).last_hidden_state
    return states[torch.arange(len(prompts)), [len(ids) - 1 for ids in prompts]]


def pad(prompts: Sequence[Ids], device: torch.device) -> Tensor:
    """Ids as one (n, longest) tensor; what fills the right end is never looked at."""
    block = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.long)
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


# --- shared beginnings -------------------------------------------------------------------------------------


@dataclass
class Family:
    """Prompts that begin with the same `shared` tokens."""

    places: list[int]
    shared: int


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
    model: "PreTrainedModel", prompts: Sequence[Ids], family: Family, budget: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Read the shared beginning once, then the ends in batches that start from its keys and values."""
    start = torch.tensor([prompts[family.places[0]][: family.shared]], device=model.device)
    cache = read_states(model, input_ids=start, use_cache=True).past_key_values
    ends = [prompts[place][family.shared :] for place in family.places]
    for batch in batches([family.shared // 8 + len(end) for end in ends], budget):
        states = read_ends(model, cache, [ends[i] for i in batch], family.shared)
        yield [family.places[i] for i in batch], states


def read_ends(model: "PreTrainedModel", cache: Any, ends: Sequence[Ids], shared: int) -> Tensor:
    """Last hidden states (n, width) of ends that follow the cached beginning, which is left as it was."""
    copies = deepcopy(cache)
    copies.batch_repeat_interleave(len(ends))
    block = pad(ends, model.device)
    states = read_states(model, input_ids=block, past_key_values=copies, use_cache=True).last_hidden_state
    return states[torch.arange(len(ends)), [len(end) - 1 for end in ends]]

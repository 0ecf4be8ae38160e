"""How likely a language model finds each of several answers to a prompt: what orders a list of titles.

    prompt, endings -> the prompt read once -> endings in batches after it -> log-likelihood of each

An ending is an answer's tokens with the closing token. Its log-likelihood is the sum of the logarithms of what
the model gives each of its tokens, so all answers of a list are ordered, and none can be misread. The prompt's
keys and values are shared by all its endings, and endings that begin alike share the states of their beginning
in the output layer, which is as costly as the layers before it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from pipeline.llm.load import encode
from pipeline.llm.reader import Ids, Reader
from pipeline.llm.yes_no import batches, pad
from pipeline.progress import meter

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Likelihood = Literal["sum", "mean"]  # of an ending's tokens
STATES_AT_ONCE = 256  # rows of logits in memory at once: 50 MB for 49,152 tokens
BEFORE = 64  # characters of a prompt's end, on which an answer's tokens may hang


def log_likelihoods(
    reader: Reader,
    prompts: Sequence[Ids],
    endings: Sequence[Sequence[Ids]],
    how: Likelihood = "sum",
    batch_tokens: int = 1024,
    label: str = "",
) -> list[Tensor]:
    """For each prompt the log-likelihoods (n,), float64, of its n endings, in their order.

    batch_tokens: tokens of one pass over endings, padding included; changes results by rounding only.
    Raises ValueError for an ending without a token.
    """
    if any(not len(ending) for some in endings for ending in some):
        raise ValueError("an ending has no token")

    def read(place: int) -> Tensor:
        with torch.inference_mode():
            return of_one(reader, prompts[place], endings[place], batch_tokens)

    found = []
    with meter(label or "score titles", len(prompts)) as progress:
        for place, summed in enumerate(reader.each(read, range(len(prompts)))):
            sizes = torch.tensor([len(ending) for ending in endings[place]])
            found.append(summed / sizes if how == "mean" else summed)
            progress.advance(1)
    return found


def of_one(reader: Reader, prompt: Ids, endings: Sequence[Ids], budget: int) -> Tensor:
    """Summed log-likelihoods (n,) of the endings of one prompt.

    The prompt's last token is read with the endings, as the state after it foretells their first.
    """
    past = reader.begin(torch.tensor(prompt[:-1], device=reader.device)) if len(prompt) > 1 else ()
    texts = [[prompt[-1], *ending[:-1]] for ending in endings]
    found = torch.zeros(len(endings), dtype=torch.float64)
    for batch in batches([len(prompt) // 8 + len(text) for text in texts], budget):
        found[batch] = of_batch(reader, [texts[i] for i in batch], [endings[i] for i in batch], past)
    return found


def of_batch(reader: Reader, texts: Sequence[Ids], endings: Sequence[Ids], past: Any) -> Tensor:
    """Summed log-likelihoods (n,) of endings, `texts` being what is read before each of their tokens."""
    block = pad(texts, reader.device, tile=1)  # endings are short: a whole tile would double what is read
    places, number = distinct(texts, block.shape[1])
    states = reader.states(block, torch.tensor(places, device=reader.device), past)
    tokens = torch.tensor([token for ending in endings for token in ending], device=reader.device)
    chosen = log_probabilities(states, reader.outputs, torch.tensor(number, device=reader.device), tokens)
    owner = torch.tensor([i for i, ending in enumerate(endings) for _ in ending])
    return torch.zeros(len(texts), dtype=torch.float64).index_add_(0, owner, chosen.double().cpu())


def distinct(texts: Sequence[Ids], width: int) -> tuple[list[int], list[int]]:
    """Where different beginnings end, as places of texts padded to `width` and flattened; and for each token
    of all texts the number of the beginning that it ends. Texts that begin alike have the same states."""
    places: dict[tuple[int, ...], int] = {}
    ends = [tuple(text[: end + 1]) for text in texts for end in range(len(text))]
    flat = [i * width + end for i, text in enumerate(texts) for end in range(len(text))]
    for begun, place in zip(ends, flat, strict=True):
        places.setdefault(begun, place)
    number = {begun: n for n, begun in enumerate(places)}
    return list(places.values()), [number[begun] for begun in ends]


def log_probabilities(states: Tensor, outputs: Tensor, number: Tensor, tokens: Tensor) -> Tensor:
    """Logarithm of what states (m, width) give tokens (k,), each foretold by the state of its number (k,)."""
    totals = torch.cat([(some @ outputs.T).logsumexp(-1) for some in states.split(STATES_AT_ONCE)])
    return (states[number] * outputs[tokens]).sum(-1) - totals[number]


# --- endings -----------------------------------------------------------------------------------------------


def endings_of(tokenizer: "Tokenizer", prompt: str, answers: Sequence[str], close: int | None) -> list[Ids]:
    """The tokens of each answer as it follows the prompt, and the closing token where the model has one.

    Only the prompt's end is read: what an answer's tokens hang on stands there. Raises ValueError where an
    answer changes the tokens of what stands before it, as one that begins without a space may.
    """
    before = prompt[-BEFORE:]
    begun, *whole = encode(tokenizer, [before, *(before + answer for answer in answers)])
    if any(ids[: len(begun)] != begun for ids in whole):
        raise ValueError("an answer changes how the prompt's end is split; begin the answer with a space")
    return [ids[len(begun) :] + ([] if close is None else [close]) for ids in whole]

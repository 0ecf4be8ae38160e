"""Reading prompts with a language model: last hidden states at the places that are asked for.

    model, dtype -> reader -> states of (n, length) ids at places (m,)

Models of the Llama family are read by our own forward pass, all others by transformers'.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from pipeline.llm.decoder import Decoder, fits, with_soft
from pipeline.llm.load import output_rows
from pipeline.threads import side_by_side

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pipeline.llm.soft_tokens import Soft

Ids = Sequence[int]
Job = TypeVar("Job")
Result = TypeVar("Result")


class Reader(Protocol):
    """What scoring and tuning ask of a model."""

    device: torch.device
    outputs: Tensor  # rows of the output layer (vocabulary, width), float32
    soft: "Soft | None"  # what ids below 0 show

    def states(self, ids: Tensor, places: Tensor, past: Any = (), draws: int | None = None) -> Tensor:
        """Last hidden states (m, width), float32, at `places` (m,) of the flattened ids (n, length).

        past: of a beginning that all prompts share, from `begin`, left as it was; draws: seed of dropout,
        None to read without. What fills the right end of a shorter prompt changes nothing before it.
        """
        ...

    def begin(self, ids: Tensor) -> Any:
        """What `states` needs of a beginning (shared,) that many prompts have in common."""
        ...

    def each(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Results of jobs that call this reader, in their order."""
        ...


class OwnPass(Decoder):
    """A model of the Llama family; batches are read side by side."""

    def __init__(
        self,
        model: "PreTrainedModel",
        dtype: torch.dtype,
        soft: "Soft | None" = None,
        checkpointing: bool = False,
    ) -> None:
        super().__init__(model, dtype, soft, checkpointing)
        self.soft: Soft | None = soft
        self.outputs = output_rows(model)

    def each(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        return side_by_side(work, jobs, self.device)


class TheirPass:
    """Any other causal language model, read by transformers' own pass, one batch after another."""

    def __init__(
        self,
        model: "PreTrainedModel",
        dtype: torch.dtype,
        soft: "Soft | None" = None,
        checkpointing: bool = False,
    ) -> None:
        self.model, self.dtype, self.device = lighten(model, dtype), dtype, model.device
        self.soft: Soft | None = soft
        self.outputs = output_rows(model)
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})  # works in training mode alone

    def states(self, ids: Tensor, places: Tensor, past: Any = (), draws: int | None = None) -> Tensor:
        self.model.train(draws is not None)
        if draws is not None:
            torch.manual_seed(draws)
        if past:
            past = deepcopy(past)
            past.batch_repeat_interleave(len(ids))
        found = self.read(ids, past_key_values=past or None, use_cache=bool(past))
        return found.last_hidden_state.flatten(0, 1)[places].float()

    def begin(self, ids: Tensor) -> Any:
        self.model.eval()
        return self.read(ids[None], use_cache=True).past_key_values

    def read(self, ids: Tensor, **inputs: Any) -> Any:
        words: Any = self.model.get_input_embeddings()
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if (ids < 0).any():
                shown = with_soft(words(ids.clamp(min=0)), ids, self.soft)
                return self.model.base_model(inputs_embeds=shown, **inputs)
            return self.model.base_model(input_ids=ids, **inputs)

    def each(self, work: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        return map(work, jobs)


def lighten(model: "PreTrainedModel", dtype: torch.dtype) -> "PreTrainedModel":
    """Hold the frozen weights of the inner linear layers in `dtype`; what adds up over layers stays float32.

    Half the error of a model that is bfloat16 throughout, as fast.
    """
    for name, layer in model.base_model.named_modules():
        if isinstance(layer, torch.nn.Linear) and ".lora_" not in name and layer.weight.is_floating_point():
            layer.to(dtype)
    return model


def reader(
    model: "PreTrainedModel", dtype: torch.dtype, soft: "Soft | None" = None, checkpointing: bool = False
) -> Reader:
    """The fastest reader of a model, its products in `dtype`; an adapter must be in the model already.

    soft: what it reads at ids below 0; checkpointing: keep of each layer its input alone for the way back.
    """
    kind = OwnPass if fits(model) else TheirPass
    return kind(model, dtype, soft, checkpointing)


def read_with(model: "PreTrainedModel", dtype: torch.dtype) -> dict[str, str]:
    """What this machine made of the study's wishes, to be measured: precision, and whose attention."""
    attention = "own" if fits(model) else str(model.config._attn_implementation)
    return {"dtype": str(dtype).removeprefix("torch."), "attention": attention}

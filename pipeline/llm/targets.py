"""Which layers of a language model get low-rank weights: by its architecture, or as the study names them.

    settings.targets, model -> names of layers, as peft takes them

`auto` is peft's own table of architectures, queries and values for most; an architecture that it does not know
is looked up by the names that its attention gives to them.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

AUTO = ("auto",)
CONVENTIONS = (("q_proj", "v_proj"), ("query_key_value",), ("qkv_proj",), ("c_attn",), ("Wqkv",), ("q", "v"))


def lora_targets(model: "PreTrainedModel", wanted: Sequence[str]) -> list[str] | str:
    """Names of the layers to adapt, or one pattern over whole names. Raises ValueError, with the layers that
    there are, where nothing is known of the architecture or a name is no layer's."""
    names = layer_names(model)
    if tuple(wanted) != AUTO:
        missing = [name for name in wanted if not any(ends_with(layer, name) for layer in names)]
        if missing:
            raise ValueError(f"targets: no layer is named {', '.join(missing)}; {told(model, names)}")
        return list(wanted)
    known = by_peft(model.config.model_type)
    if known is not None and (isinstance(known, str) or all_there(known, names)):
        return known
    found = next((list(group) for group in CONVENTIONS if all_there(group, names)), None)
    if found is None:
        raise ValueError(f"targets: auto knows no layers of this model; name some: {told(model, names)}")
    return found


def by_peft(architecture: str) -> list[str] | str | None:
    """What the installed peft adapts in an architecture; None where it knows nothing of it."""
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as table

    return table.get(architecture)


def linear_layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer that multiplies by a matrix, the one that makes logits left out."""
    from transformers.pytorch_utils import Conv1D

    top: Any = model
    last = top.get_output_embeddings() if hasattr(top, "get_output_embeddings") else None
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | Conv1D) and layer is not last:
            yield name, layer


def layer_names(model: nn.Module) -> list[str]:
    """Whole names of the layers that can be adapted, `layers.0.self_attn.q_proj`."""
    return [name for name, _ in linear_layers(model)]


def ends_with(layer: str, name: str) -> bool:
    return layer == name or layer.endswith(f".{name}")


def all_there(wanted: Sequence[str], layers: Sequence[str]) -> bool:
    return all(any(ends_with(layer, name) for layer in layers) for name in wanted)


def told(model: "PreTrainedModel", names: Sequence[str]) -> str:
    """The model's architecture, and the names that its layers have, each once."""
    own = sorted({name.rpartition(".")[2] for name in names})
    return f"a {model.config.model_type} model has {', '.join(own) or 'no linear layers'}"


def transposed(model: nn.Module, targets: Sequence[str] | str) -> bool:
    """Whether the layers to adapt keep their matrix as (in, out), as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    names = () if isinstance(targets, str) else targets
    chosen = [layer for one, layer in linear_layers(model) if any(ends_with(one, name) for name in names)]
    return any(isinstance(layer, Conv1D) for layer in chosen)

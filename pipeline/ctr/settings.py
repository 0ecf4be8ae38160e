"""What click-through models have in common to set."""

from typing import Annotated

from pydantic import Field

from pipeline.collab.fitting import Batch, Epochs, Patience, Penalties, Rate
from pipeline.stage import Settings

Widths = tuple[Annotated[int, Field(ge=1)], ...]


class CtrSettings(Settings):
    dim: int = Field(16, ge=1, description="numbers a field")
    history: int = Field(20, ge=1, description="items of a history that are read, liked or not, the last ones")
    attributes: bool = Field(
        True, description="read what the dataset knows of users (profile) and items (categories, year)"
    )
    layers: Widths = Field((200, 80), description="widths of the layers that read all fields")
    depth: int = Field(3, ge=1, description="cross layers of DCNv2, attention layers of AutoInt")
    attention: Widths = Field((16,), description="widths of the layers of DIN's attention")
    dropout: float = Field(0.2, ge=0, lt=1, description="share of numbers set to 0 in training, to the 1/256")
    penalties: Penalties = (3.0,)
    lr: Rate = 3e-3
    batch: Batch = None
    epochs: Epochs = 20
    patience: Patience = 2
    spread: float = Field(0.1, gt=0, description="standard deviation of the first vectors")

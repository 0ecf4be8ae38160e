"""PALR: prompts of history, profile and candidates -> LoRA adapter -> lists of titles, as orders."""

from functools import partial

from assets.engine import declare
from pipeline.methods import palr

asset = partial(declare.asset, group="palr")

prompts = asset(palr.prompts, kinds={"text"})
adapter = asset(palr.adapter, kinds={"pytorch", "huggingface"})
predictions = asset(palr.predictions, kinds={"pytorch"})

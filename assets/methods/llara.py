"""LLaRA: prompts over stored lists -> LoRA adapter and projector -> an order of each list."""

from functools import partial

from assets.engine import declare
from pipeline.methods import llara

asset = partial(declare.asset, group="llara")

prompts = asset(llara.prompts, kinds={"text"})
adapter = asset(llara.adapter, kinds={"pytorch", "huggingface"})
predictions = asset(llara.predictions, kinds={"pytorch"})

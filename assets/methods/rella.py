"""ReLLa: prompts of retrieved items -> LoRA adapter on a mixed set -> predictions."""

from functools import partial

from assets.engine import declare
from pipeline.methods import rella

asset = partial(declare.asset, group="rella")

prompts = asset(rella.prompts, kinds={"text"})
adapter = asset(rella.adapter, kinds={"pytorch", "huggingface"})
predictions = asset(rella.predictions, kinds={"pytorch"})

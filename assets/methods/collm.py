"""CoLLM: prompts with soft tokens -> projector behind LoRA weights -> predictions."""

from functools import partial

from assets.engine import declare
from pipeline.methods import collm

asset = partial(declare.asset, group="collm")

prompts = asset(collm.prompts, kinds={"text"})
adapter = asset(collm.adapter, kinds={"pytorch", "huggingface"})
predictions = asset(collm.predictions, kinds={"pytorch"})

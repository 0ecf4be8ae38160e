"""BinLLM: prompts of titles and codes -> LoRA adapter, on top of TALLRec's -> predictions."""

from functools import partial

from assets.engine import declare
from pipeline.methods import binllm

asset = partial(declare.asset, group="binllm")

prompts = asset(binllm.prompts, kinds={"text"})
adapter = asset(binllm.adapter, kinds={"pytorch", "huggingface"})
predictions = asset(binllm.predictions, kinds={"pytorch"})

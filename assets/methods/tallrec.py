"""TALLRec: prompts of titles -> LoRA adapter -> predictions."""

from functools import partial

from assets.engine import declare
from pipeline.methods import tallrec

asset = partial(declare.asset, group="tallrec")

prompts = asset(tallrec.prompts, kinds={"text"})
adapter = asset(tallrec.adapter, kinds={"pytorch", "huggingface"})
predictions = asset(tallrec.predictions, kinds={"pytorch"})
few_shot = asset(tallrec.few_shot, kinds={"pytorch", "matplotlib"})

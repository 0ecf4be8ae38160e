"""TagGPT: answers of a chat model -> vocabulary and items' tags -> a click-through model that reads them."""

from functools import partial

from assets.engine import declare
from pipeline.methods import taggpt

asset = partial(declare.asset, group="taggpt")

samples = asset(taggpt.samples, kinds={"openai"})
tags = asset(taggpt.tags, kinds={"openai", "huggingface"})
predictions = asset(taggpt.predictions, kinds={"pytorch"})

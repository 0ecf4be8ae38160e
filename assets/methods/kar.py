"""KAR: what is told of users and items -> answers -> vectors -> a click-through model with knowledge."""

from functools import partial

from assets.engine import declare
from pipeline.methods import kar

asset = partial(declare.asset, group="kar")

texts = asset(kar.texts, kinds={"text"})
reasoning = asset(kar.reasoning, kinds={"text"})
facts = asset(kar.facts, kinds={"text"})
raw_vectors = asset(kar.raw_vectors, kinds={"pytorch", "huggingface"})
vectors = asset(kar.vectors, kinds={"pytorch", "huggingface"})
predictions = asset(kar.predictions, kinds={"pytorch"})

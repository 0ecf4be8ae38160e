"""LLM-Rec: prompts about items -> a chat model's texts -> vectors side by side -> rankings."""

from functools import partial

from assets.engine import declare
from pipeline.methods import llm_rec

asset = partial(declare.asset, group="llm_rec")

descriptions = asset(llm_rec.descriptions, kinds={"openai"})
vectors = asset(llm_rec.vectors, kinds={"pytorch", "huggingface"})
predictions = asset(llm_rec.predictions, kinds={"pytorch"})

"""The language model of the study, and its tuning to follow instructions."""

from assets.engine.declare import asset
from pipeline.llm import instructions as instructing
from pipeline.llm import load

language_model = asset(load.language_model, group="language_model", kinds={"huggingface", "safetensors"})
instructions = asset(instructing.instructions, group="language_model", kinds={"pytorch", "huggingface"})

"""The language model of the study."""

from assets.engine.declare import asset
from pipeline.llm import load

language_model = asset(load.language_model, group="language_model", kinds={"huggingface", "safetensors"})

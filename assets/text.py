"""Items in words, and the words as vectors."""

from functools import partial

from assets.engine import declare
from pipeline.llm import embed as by_language_model
from pipeline.text import embed as by_encoder
from pipeline.text import encoder, similar_items
from pipeline.text import item_text as words

asset = partial(declare.asset, group="text")

item_text = asset(words.item_text, kinds={"text"})
text_encoder = asset(encoder.text_encoder, kinds={"huggingface", "safetensors"})
lm_embeddings = asset(by_language_model.lm_embeddings, kinds={"pytorch"})
text_embeddings = asset(by_encoder.text_embeddings, kinds={"pytorch"})
similar_by_language_model = asset(similar_items.lm, kinds={"faiss"})
similar_by_encoder = asset(similar_items.text, kinds={"faiss"})

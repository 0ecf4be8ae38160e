"""Items as a small text encoder sees them, in place of a language model.

item_text -> token ids -> mean over tokens -> (principal components) -> table item_embeddings
"""

from pydantic import Field

from pipeline.llm.load import load_tokenizer
from pipeline.schema import ItemEmbeddings
from pipeline.stage import Artefact, Draft, Settings, stage
from pipeline.text.cleaning import neutralise
from pipeline.text.embeddings import EMBEDDING_CHECKS, principal, write_embeddings
from pipeline.text.encoder import sentence_vectors


class TextEmbeddings(Settings):
    dim: int | None = Field(
        None, ge=1, description="principal components kept; null for the encoder's own vectors of length 1"
    )
    max_tokens: int = Field(256, ge=2, description="tokens of a text read at most, the first ones")
    batch_tokens: int = Field(
        4096, ge=1, description="tokens of one pass, padding included; changes results by rounding only"
    )


@stage(
    "text_embeddings",
    settings=TextEmbeddings,
    section="models",
    version=1,
    inputs={"item_text": "item_text", "text_encoder": "text_encoder"},
    tables={"item_embeddings": ItemEmbeddings},
    checks=EMBEDDING_CHECKS,
    needs="gpu",
)
def text_embeddings(item_text: Artefact, text_encoder: Artefact, settings: TextEmbeddings, out: Draft) -> None:
    """One vector per item: what a small encoder, made for likeness of texts, makes of its text."""
    folder, table = text_encoder.file("model"), item_text.table("item_text")
    texts = neutralise(table["text"].to_list(), load_tokenizer(folder))
    vectors = sentence_vectors(folder, texts, settings.max_tokens, settings.batch_tokens, "encode items")
    if settings.dim is not None:
        found = principal(vectors, settings.dim)
        vectors = found.coordinates
        out.metric(variance_kept=round(found.share, 6))
    write_embeddings(out, table["item"], vectors)

"""Items as the study's language model sees them: the vectors that ReLLa retrieves by.

    item_text -> token ids -> mean of the last hidden states -> principal components -> table item_embeddings

Lin et al., WWW 2024, https://arxiv.org/abs/2308.11131: mean pooling over the text, PCA to 512. One forward pass
a text and a masked mean; the published code keeps one generated position's state instead. The states before PCA
lie in a narrow cone (their random pairs have a cosine near 1), which taking away the mean undoes.
"""

from typing import TYPE_CHECKING

from pydantic import Field

from pipeline.llm.ask import model_folder
from pipeline.llm.load import choose_dtype, encode, load_model, load_tokenizer
from pipeline.llm.settings import Quantisation, Reading
from pipeline.schema import ItemEmbeddings
from pipeline.stage import Artefact, Draft, stage
from pipeline.text.cleaning import neutralise
from pipeline.text.embeddings import EMBEDDING_CHECKS, mean_cosine, principal, write_embeddings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer


class LmEmbeddings(Reading):
    dim: int = Field(512, ge=1, description="principal components kept, fewer where the states span less")
    max_tokens: int = Field(256, ge=1, description="tokens of a text read at most, the first ones")
    quantisation: Quantisation = Field(
        "none",
        description="of the weights: 8bit, 4bit (NF4); needs an NVIDIA accelerator and bitsandbytes",
    )


def safe_ids(texts: "Sequence[str]", tokenizer: "Tokenizer", longest: int) -> list[list[int]]:
    """Token ids of texts from outside, at most `longest` each; no text brings a special one."""
    tokenizer.enable_truncation(longest)
    return encode(tokenizer, neutralise(texts, tokenizer))


@stage(
    "lm_embeddings",
    settings=LmEmbeddings,
    section="models",
    version=2,
    inputs={"item_text": "item_text", "language_model": "language_model"},
    tables={"item_embeddings": ItemEmbeddings},
    checks=EMBEDDING_CHECKS,
    needs="gpu",
)
def lm_embeddings(item_text: Artefact, language_model: Artefact, settings: LmEmbeddings, out: Draft) -> None:
    """One vector per item: what the language model's last layer holds of its text, on average."""
    from pipeline.llm.pooling import pooled
    from pipeline.llm.reader import read_with, reader

    folder, table = model_folder(language_model), item_text.table("item_text")
    ids = safe_ids(table["text"].to_list(), load_tokenizer(folder), settings.max_tokens)
    model = load_model(folder, quantisation=settings.quantisation)
    dtype = choose_dtype(settings.dtype)
    states = pooled(reader(model, dtype), ids, settings.batch_tokens, "embed items")
    found = principal(states, settings.dim)
    write_embeddings(out, table["item"], found.coordinates)
    out.metric(
        width=states.shape[1],
        variance_kept=round(found.share, 6),
        mean_cosine_of_states=round(mean_cosine(states), 6),
        tokens_seen=sum(map(len, ids)),
    )
    out.measure(**read_with(model, dtype))

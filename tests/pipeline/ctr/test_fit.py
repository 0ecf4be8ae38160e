"""The shared fit: the planted taste is found, a kill changes no bit, and labels outside train say nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.collab import pairs
from pipeline.ctr.adaptor import Adaptor
from pipeline.ctr.fit import Material, learn, logits, scored
from pipeline.ctr.network import BACKBONES
from pipeline.evaluate.pointwise import auc
from tests import contracts
from tests.pipeline.ctr.test_adaptor import Shape
from tests.toy_ctr_models import QUICK, held


def adaptor(material: Material, draws: torch.Generator) -> Adaptor:
    assert material.dense is not None
    vectors = (torch.from_numpy(material.dense[0].rows), torch.from_numpy(material.dense[1].rows))
    return Adaptor(vectors, QUICK.dim, Shape(), draws)


def fitted(backbone: str = "dcnv2", epochs: int = 4, file: Path | None = None) -> dict[str, torch.Tensor]:
    settings = QUICK.model_copy(update={"epochs": epochs})
    return learn(held(True), backbone, settings, 0.1, 1, adaptor, file)[0].state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in {*one, *other})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_planted_taste_is_found(backbone: str) -> None:
    material = held()
    model, _ = learn(material, backbone, QUICK.model_copy(update={"epochs": 12}), 0.1, 1)
    test = material.of("test") & (material.examples["user"] < 29).to_numpy()
    label = material.examples["label"].to_numpy()[test]
    assert auc(label, scored(model, material.asked(test))) > 0.85


def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted()
    with monkeypatch.context() as patched:
        patched.setattr(pairs.Saving, "__init__", contracts.eager(pairs.Saving))
        patched.setattr(pairs, "advance", contracts.killing(pairs.advance, 3))
        with pytest.raises(KeyError):
            fitted(file=tmp_path / "fit.safetensors")
    assert (tmp_path / "fit.safetensors").exists()
    assert same(fitted(file=tmp_path / "fit.safetensors"), whole)


def test_the_same_bits_on_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    one, before = fitted("din", 2), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert same(fitted("din", 2), one)
    finally:
        torch.set_num_threads(before)


def test_test_labels_change_nothing() -> None:
    material = held()
    other = material.examples.with_columns(label=(material.examples["label"] + (material.of("test"))) % 2)
    found = [
        learn(m, "deepfm", QUICK, 0.1, 1)[0].state_dict() for m in (material, material._replace(examples=other))
    ]
    assert not other.equals(material.examples)
    assert same(*found)


def test_scores_by_the_experts_and_by_stored_vectors_are_equal() -> None:
    material = held(True)
    model, _ = learn(material, "fibinet", QUICK.model_copy(update={"epochs": 1}), 0.1, 1, adaptor)
    asked = material.asked(material.of("test"))
    assert scored(model, asked) == pytest.approx(logits(model, asked), abs=1e-5)


def test_examples_are_asked_in_the_order_of_their_places() -> None:
    material = held(True)
    chosen = np.zeros(material.examples.height, dtype=bool)
    chosen[[4, 9]] = True
    some, whole = material.asked(chosen), material.asked()
    assert all(torch.equal(a, b[[4, 9]]) for a, b in zip(some, whole, strict=True))
    assert whole.dense[:, 0].tolist() == material.examples["user"].to_list()

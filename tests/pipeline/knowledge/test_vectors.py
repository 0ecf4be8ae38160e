"""Texts as vectors: equal texts once, cut texts counted, components of one size."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.knowledge.vectors import KnowledgeVectors, encode, places, sized, small
from pipeline.text.encoder import sentence_vectors
from tests import tiny_encoder

TEXTS = pl.DataFrame(
    {"owner": [4, 7, 9], "text": ["a man is eating", "the spacecraft left", "a man is eating"]}
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder.save(tmp_path_factory.mktemp("encoder") / "model")


def test_a_vector_is_the_mean_over_the_texts_tokens_and_equal_texts_are_read_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, cut = encode(TEXTS, folder, KnowledgeVectors(), "encode")
    assert np.array_equal(found[0], found[2])
    assert np.allclose(found[:2], sentence_vectors(folder, TEXTS["text"].to_list()[:2]), atol=1e-6)
    assert cut == 0
    read: list[int] = []
    plain = sentence_vectors

    def counting(where, texts, *rest):
        read.append(len(texts))
        return plain(where, texts, *rest)

    monkeypatch.setattr("pipeline.knowledge.vectors.sentence_vectors", counting)
    encode(TEXTS, folder, KnowledgeVectors(), "encode")
    assert read == [2]


def test_texts_that_are_cut_are_counted_and_the_first_tokens_stay(folder: Path) -> None:
    long = pl.DataFrame({"owner": [0, 1], "text": ["a man is eating a meal", "a man is"]})
    found, cut = encode(long, folder, KnowledgeVectors(max_tokens=5), "encode")
    assert cut == 1
    assert np.allclose(found[0], found[1], atol=1e-6)


def test_no_text_is_longer_than_the_encoder_has_places_for(folder: Path) -> None:
    assert places(folder) == 64
    found, cut = encode(pl.DataFrame({"owner": [0], "text": ["a man " * 50]}), folder, KnowledgeVectors(), "x")
    assert (cut, np.isfinite(found).all()) == (1, True)


def test_components_are_of_unit_size_and_padded_where_texts_span_less() -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 10)).astype(np.float32) * 0.01
    found, share = small(vectors, 8)
    assert found.shape == (6, 8)
    assert not found[:, 5:].any()
    assert np.square(found).mean() == pytest.approx(1, abs=1e-5)
    assert share == pytest.approx(1, abs=1e-5)
    assert small(vectors, None)[0].shape == (6, 10)


def test_vectors_of_nothing_stay_zeros() -> None:
    assert not sized(np.zeros((3, 4), np.float32)).any()

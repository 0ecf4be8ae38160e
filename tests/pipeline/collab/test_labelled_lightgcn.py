"""LightGCN on labelled pairs: the contract, its graph, and its scores."""

from typing import ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.collab.encoders import vectors_of
from pipeline.collab.labelled import Labelled, inner, known, part_of
from pipeline.collab.labelled_lightgcn import LabelledLightGCNSettings, labelled_lightgcn, learn, liked_graph
from pipeline.collab.propagated import links
from tests.contracts import EncoderContract
from tests.toy_pairs import HAND, examples, taste

QUICK = {"dim": 6, "penalties": (1.0,), "lr": 0.05, "batch": 64, "epochs": 12, "patience": 12}


class TestLabelledLightGCN(EncoderContract):
    stage = labelled_lightgcn
    settings: ClassVar = QUICK
    width: ClassVar = 6

    def test_scores_are_products_of_the_vectors(self, made) -> None:
        encoded, pairs = vectors_of(made), made.table("pairs")
        product = inner(encoded.user, encoded.item, pairs["user"].to_numpy(), pairs["item"].to_numpy())
        assert np.array_equal(product, pairs["score"].to_numpy())


def test_the_graph_is_of_likes_alone() -> None:
    train = part_of(examples(HAND), "train")
    graph = links(liked_graph(train, known(examples(HAND)))).user_item.to_dense().numpy()
    assert (graph > 0).astype(int).tolist() == [[1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0] * 5, [0] * 5]


def test_the_graph_is_what_it_reads() -> None:
    frame = taste()
    train, valid = part_of(frame, "train"), part_of(frame, "valid")
    settings = LabelledLightGCNSettings(dim=64, epochs=1, lr=1e-9, spread=1.0)
    vectors, _ = learn((train, valid), known(frame), settings, 1e-9, seed=1)
    scores = vectors.users[:29] @ vectors.items[:23].T
    same = np.arange(29)[:, None] % 2 == np.arange(23) % 2
    assert scores[same].mean() > scores[~same].mean() + scores[~same].std()


def test_labels_of_rows_that_are_no_likes_are_learnt_too() -> None:
    frame = taste()
    train, valid = part_of(frame, "train"), part_of(frame, "valid")
    few = Labelled(*(column[train.label > 0] for column in train))
    settings = LabelledLightGCNSettings.model_validate(QUICK | {"epochs": 2})
    whole, likes = (learn((t, valid), known(frame), settings, 1.0, seed=1)[0].items for t in (train, few))
    assert not np.allclose(whole, likes)


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"layers": 0}, {"spread": 0}, {"penalties": ()}])
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        LabelledLightGCNSettings(**wrong)

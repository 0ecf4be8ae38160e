"""SASRec on labelled pairs: the contract, its scores, and what it reads."""

from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.collab.encoders import vectors_of
from pipeline.collab.labelled import inner, known
from pipeline.collab.labelled_sasrec import LabelledSASRecSettings, labelled_sasrec, material, states
from pipeline.collab.pairs import generator
from pipeline.collab.pasts import PAD, lengths, liked_before
from pipeline.collab.transformer import Transformer
from pipeline.stage import StageFailed
from tests.contracts import EncoderContract
from tests.toy_pairs import HAND, examples, make, remembered

QUICK = {
    "dim": 8,
    "length": 6,
    "layers": 1,
    "dropout": 0.1,
    "penalties": (0.1,),
    "lr": 0.02,
    "batch": 64,
    "epochs": 12,
    "patience": 12,
    "spread": 0.2,
}


def network(made, examples):
    """The network and material of a finished artefact."""
    seen, settings = known(examples), labelled_sasrec.settings.model_validate(QUICK)
    held = material(examples, seen, liked_before(examples, seen.items, 6), 6)
    model = Transformer(len(seen.items), settings, generator(1))
    model.load_state_dict(made.tensors("network"))
    return model, held


class TestLabelledSASRec(EncoderContract):
    stage = labelled_sasrec
    settings: ClassVar = QUICK
    width: ClassVar = 8

    @staticmethod
    def usual_user(encoded, examples, made):
        model, held = network(made, examples)
        ends = held.train.liked.offsets.tolist()
        wholes = [held.train.liked.items[a:b].tolist()[-6:] for a, b in pairwise(ends)]
        assert len(wholes) == 29
        padded = np.array([one + [PAD] * (6 - len(one)) for one in wholes], np.int32)
        return states(model, held.train, padded).mean(0)

    def test_scores_are_products_of_the_vectors(self, made, examples) -> None:
        encoded, pairs = vectors_of(made), made.table("pairs")
        users = encoded.users_of(examples, pairs["row"]).to_numpy()
        assert np.array_equal(
            inner(encoded.user, encoded.item, users, pairs["item"].to_numpy()), pairs["score"].to_numpy()
        )

    def test_the_network_that_is_kept_gives_the_states(self, made, examples) -> None:
        model, held = network(made, examples)
        encoded = vectors_of(made)
        assert np.allclose(states(model, held.train, held.pasts), encoded.user[encoded.user_of_row], atol=1e-5)

    def test_examples_with_the_same_past_share_a_vector(self, made, examples) -> None:
        pasts = liked_before(examples, known(examples).items, 6)
        of = vectors_of(made).user_of_row
        assert len(np.unique(of)) == len(np.unique(pasts, axis=0)) < examples.height
        assert made.metrics["held_out_with_nothing_liked"] == (lengths(pasts)[heldout(examples)] == 0).sum()


def heldout(examples) -> np.ndarray:
    return (examples["part"] != "train").to_numpy()


def test_a_split_without_histories_to_learn_from_is_refused(tmp_path) -> None:
    rows = [row for row in HAND if row[0] != "train"]
    frame = examples([("train", 0, 0, 1), ("train", 1, 1, 0), *rows])
    with pytest.raises(StageFailed, match="no user has a liked training row before another"):
        make(labelled_sasrec, remembered(frame), tmp_path, **QUICK)


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"length": 0}, {"dropout": 1.0}, {"batch": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        LabelledSASRecSettings(**wrong)

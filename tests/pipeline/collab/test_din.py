"""DIN on labelled pairs: the contract, its vectors, and that the past and the target decide."""

from typing import ClassVar

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.collab.attended import DIN
from pipeline.collab.din import DINSettings, Material, din, read, tables_of
from pipeline.collab.encoders import vectors_of
from pipeline.collab.labelled import known
from pipeline.collab.pairs import generator
from pipeline.collab.pasts import liked_before
from tests.contracts import EncoderContract

QUICK = {
    "dim": 4,
    "history": 6,
    "dropout": 0.1,
    "penalties": (0.1,),
    "lr": 0.02,
    "batch": 64,
    "epochs": 10,
    "patience": 10,
    "spread": 0.3,
}


def refilled(made, examples) -> tuple[DIN, Material]:
    """The network and material of a finished artefact."""
    seen = known(examples)
    model = DIN(len(seen.users), len(seen.items), DINSettings.model_validate(QUICK), generator(1))
    model.load_state_dict(made.tensors("network"))
    return model, Material(examples, liked_before(examples, seen.items, 6), seen)


class TestDIN(EncoderContract):
    stage = din
    settings: ClassVar = QUICK
    width: ClassVar = 12

    @staticmethod
    def usual_user(encoded, examples, made):
        first = examples.with_row_index("place").unique("user", keep="first")
        places = first.filter(user_is_known(examples, first))["place"].to_numpy()
        return encoded.user[encoded.user_of_row[places]][:, 8:].mean(0)

    def test_a_users_vector_begins_with_the_target_and_an_items_is_its_own_three_times(
        self, made, examples
    ) -> None:
        encoded, items = vectors_of(made), examples["item"].to_numpy()
        assert np.array_equal(encoded.item[:, :4], encoded.item[:, 4:8])
        assert np.array_equal(encoded.item[:, :4], encoded.item[:, 8:])
        assert np.array_equal(encoded.user[encoded.user_of_row][:, :4], encoded.item[items, :4])

    def test_an_example_with_nothing_liked_before_has_zeros_for_its_past(self, made, examples) -> None:
        nothing = (liked_before(examples, known(examples).items, 6) < 0).all(1)
        past = vectors_of(made).user[:, 4:8]
        assert nothing.sum() > 20
        assert not past[nothing].any()
        assert past[~nothing].any(1).all()

    def test_the_network_that_is_kept_gives_the_scores(self, made, examples) -> None:
        model, held = refilled(made, examples)
        found = read(model, tables_of(model, held.seen), held.asked(~held.of("train")))
        assert np.allclose(found.logits, made.table("pairs")["score"].to_numpy(), atol=1e-5)

    def test_the_score_depends_on_what_was_liked_before(self, made, examples) -> None:
        model, held = refilled(made, examples)
        tables, asked = tables_of(model, held.seen), held.asked(held.of("test"))
        other = asked._replace(past=asked.past.roll(1, 0))
        assert not np.allclose(read(model, tables, asked).logits, read(model, tables, other).logits, atol=1e-2)

    def test_scores_do_not_depend_on_who_else_is_asked(self, made, examples) -> None:
        model, held = refilled(made, examples)
        tables, whole = tables_of(model, held.seen), held.asked()
        some = held.asked(slice(5, 9))
        assert np.allclose(read(model, tables, some).logits, read(model, tables, whole).logits[5:9], atol=1e-5)


def user_is_known(examples, rows):
    return np.isin(rows["user"].to_numpy(), np.flatnonzero(known(examples).users))


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"history": 0}, {"dropout": 1.0}, {"spread": 0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        DINSettings(**wrong)

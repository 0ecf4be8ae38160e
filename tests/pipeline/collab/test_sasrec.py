"""SASRec: the contracts, every loss, and its settings."""

from typing import ClassVar

import pytest
from pydantic import ValidationError

from pipeline.collab.sasrec import SASRecSettings, sasrec
from tests.contracts import RankerContract, ResumeContract, VectorContract
from tests.toy_next import circles, make

QUICK = {"dim": 16, "length": 8, "dropout": 0.1, "lr": 0.01, "batch": 32, "epochs": 20, "patience": 20}


class TestSASRec(RankerContract, VectorContract, ResumeContract):
    stage = sasrec
    settings: ClassVar = QUICK
    width: ClassVar[int] = 16


@pytest.mark.parametrize("loss", ["sampled_softmax", "bce", "gbce"])
def test_every_loss_finds_the_next_item(loss: str, tmp_path) -> None:
    made = make(
        sasrec, circles(), tmp_path, **QUICK | {"loss": loss, "negatives": 8, "epochs": 40, "patience": 40}
    )
    assert made.metrics["valid_ndcg_10"] > 0.6  # drawing lots among 17 unseen items gives .27


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"heads \(3\) must divide dim \(16\)"):
        SASRecSettings.model_validate({"dim": 16, "heads": 3})

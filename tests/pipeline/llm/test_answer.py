"""The answers as pairs: scored by the logit that was trained, each prompt once."""

from types import SimpleNamespace

import polars as pl
import pytest
import torch

from pipeline.llm import answer
from pipeline.llm.yes_no import Logits


def test_pairs_are_scored_by_the_logit_that_was_trained() -> None:
    rows = pl.DataFrame({"part": ["test"], "row": [4], "user": [1], "item": [2], "label": [1]})
    out = SimpleNamespace(stage=SimpleNamespace(method="m"), variant="v", seed=3)
    logits = Logits(torch.tensor([2.0]), torch.tensor([1.5]))
    lead = answer.pairs_table(rows, logits, "difference", out).row(0, named=True)  # type: ignore[arg-type]
    assert lead["score"] == 0.5
    assert lead["probability"] == pytest.approx(0.6224593)
    single = answer.pairs_table(rows, logits, "yes_logit", out)  # type: ignore[arg-type]
    assert single["score"].item() == 2.0
    assert (lead["track"], lead["method"], lead["variant"], lead["seed"]) == ("ctr", "m", "v", 3)


@pytest.mark.parametrize("rows", range(1, 40))
def test_equal_scores_are_equal_probabilities(rows: int) -> None:
    """Wherever they lie in the batch: torch's sigmoid takes the last few of a batch by another road."""
    out = SimpleNamespace(stage=SimpleNamespace(method="m"), variant="v", seed=0)
    ones = pl.DataFrame(dict.fromkeys(("row", "user", "item", "label"), range(rows))).with_columns(
        part=pl.lit("test")
    )
    for yes in torch.linspace(-8, 8, 101):
        logits = Logits(yes.expand(rows), torch.zeros(rows))
        pairs = answer.pairs_table(ones, logits, "difference", out)  # type: ignore[arg-type]
        assert pairs["probability"].n_unique() == 1


PAIRS = pl.DataFrame(
    {
        "row": [1, 2],
        "part": ["valid", "test"],
        "user": [1, 1],
        "item": [5, 6],
        "label": [0, 1],
        "score": [0.1, 0.4],
    }
)


@pytest.mark.parametrize(
    "fault",
    [
        PAIRS.head(1),
        pl.concat([PAIRS, PAIRS.tail(1)]),
        PAIRS.with_columns(score=pl.lit(float("nan"))),
        PAIRS.with_columns(label=1 - pl.col("label")),
        PAIRS.with_columns(user=pl.lit(9)),
    ],
    ids=["missing", "twice", "not a number", "other label", "other user"],
)
def test_pairs_that_are_not_the_prompts_are_found(fault: pl.DataFrame) -> None:
    train = pl.DataFrame({"row": [0], "part": ["train"], "user": [1], "item": [4], "label": [1]})
    prompts = SimpleNamespace(table=lambda name: pl.concat([train, PAIRS.drop("score")]))
    good, bad = (SimpleNamespace(read=lambda name, frame=frame: frame) for frame in (PAIRS, fault))
    check = answer.every_prompt_scored_once
    assert check(good, {"prompts": prompts}, None).passed  # type: ignore[arg-type]
    assert not check(bad, {"prompts": prompts}, None).passed  # type: ignore[arg-type]


def test_one_score_for_all_is_found() -> None:
    flat = SimpleNamespace(read=lambda name: PAIRS.with_columns(score=pl.lit(0.2)))
    assert not answer.scores_differ(flat, {}, None).passed  # type: ignore[arg-type]
    assert answer.scores_differ(SimpleNamespace(read=lambda name: PAIRS), {}, None).passed  # type: ignore[arg-type]

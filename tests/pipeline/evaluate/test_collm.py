"""The whole evaluation on CoLLM's ML-1M split, against figures known from elsewhere."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from pipeline.evaluate.leaderboard import LeaderboardSettings, leaderboard
from pipeline.evaluate.pointwise import user_metrics

pytestmark = pytest.mark.shared_data
WEIGHT = 3  # rows at the global mean that an item's mean is smoothed by; the best on validation


@pytest.fixture
def board(shared_data: Path, artefact, as_pairs, draft) -> pl.DataFrame:
    """The leaderboard of the smoothed item mean alone."""
    source = pl.read_parquet(shared_data / "collm-ml1m" / "interactions.parquet").with_row_index("row")
    train = source.filter(split="train")
    overall = train["label"].mean()
    score = (pl.col("label").sum() + WEIGHT * overall) / (pl.len() + WEIGHT)
    means = train.group_by("item_id").agg(score=score)
    rows = source.filter(pl.col("split").is_in(["valid", "test"])).rename(
        {"user_id": "user", "item_id": "item", "split": "part"}
    )
    chance = rows.join(means, left_on="item", right_on="item_id", how="left", maintain_order="left")["score"]
    chance = chance.fill_null(overall)
    pairs = as_pairs(rows, "item_mean", chance, probability=chance)
    inputs = {"predictions": [artefact(pairs=pairs)], "split": artefact(examples=pairs)}
    users = draft(user_metrics)
    user_metrics(**inputs, settings=user_metrics.settings(), out=users)
    figures = artefact(user_metrics=users.read("user_metrics"))
    out = draft(leaderboard)
    leaderboard(predictions=inputs["predictions"], users=figures, settings=LeaderboardSettings(), out=out)
    return out.read("leaderboard")


def test_the_item_mean_has_the_figures_known_from_elsewhere(board):
    values = {(p, m): v for p, m, v in board.select("part", "metric", "value").iter_rows()}
    assert values["test", "auc"] == pytest.approx(0.7089, abs=5e-4)
    assert values["test", "uauc"] == pytest.approx(0.6786, abs=5e-4)
    assert values["valid", "auc"] == pytest.approx(0.6907, abs=5e-4)
    assert values["valid", "uauc"] == pytest.approx(0.6877, abs=5e-4)
    assert board.filter(part="test", metric="uauc").select("users", "users_skipped", "rows").row(0) == (
        224,
        96,
        7331,
    )


def test_the_intervals_are_as_wide_as_the_known_standard_errors(board):
    width = {
        m: high - low for m, low, high in board.filter(part="test").select("metric", "low", "high").iter_rows()
    }
    assert width["auc"] == pytest.approx(2 * 1.97 * 0.0105, rel=0.15)
    assert width["uauc"] == pytest.approx(2 * 1.97 * 0.017, rel=0.15)
    assert np.isfinite(list(width.values())).all()

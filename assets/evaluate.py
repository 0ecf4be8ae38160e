"""Evaluation: every method's predictions -> figures per user -> leaderboard and tests -> report."""

from assets.engine.declare import asset
from pipeline.evaluate import leaderboard, pointwise

user_metrics = asset(pointwise.user_metrics, group="evaluation", kinds={"polars"})
board = asset(leaderboard.leaderboard, group="evaluation", kinds={"polars", "scipy"})

"""Evaluation: every method's predictions -> figures per user -> leaderboard and tests -> report."""

from assets.engine.declare import asset
from pipeline.evaluate import leaderboard, pointwise, ranking, recommendations, report, reranking

user_metrics = asset(pointwise.user_metrics, group="evaluation", kinds={"polars"})
board = asset(leaderboard.leaderboard, group="evaluation", kinds={"polars", "scipy"})
user_ranks = asset(ranking.user_metrics, group="evaluation", kinds={"polars"})
next_item_board = asset(leaderboard.next_item_leaderboard, group="evaluation", kinds={"polars", "scipy"})
cold_ranks = asset(ranking.cold_user_metrics, group="evaluation", kinds={"polars"})
cold_board = asset(leaderboard.cold_item_leaderboard, group="evaluation", kinds={"polars", "scipy"})
list_ranks = asset(reranking.user_metrics, group="evaluation", kinds={"polars"})
rerank_board = asset(leaderboard.rerank_leaderboard, group="evaluation", kinds={"polars", "scipy"})
shown_next = asset(recommendations.recommendations, group="evaluation", kinds={"polars"})
page = asset(report.report, group="evaluation", kinds={"html"}, page="report.html")

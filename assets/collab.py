"""Collaborative models: what a method with a language model has to beat."""

from assets.engine.declare import asset
from pipeline.collab import means, popularity

item_and_user_means = asset(means.means, group="collaborative", kinds={"polars"})
popular_items = asset(popularity.popularity, group="collaborative", kinds={"polars"})

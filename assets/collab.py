"""Collaborative models: what a method with a language model has to beat."""

from assets.engine.declare import asset
from pipeline.collab import means, mf, popularity

mean_labels = asset(means.means, group="collaborative", kinds={"polars"})
popular_items = asset(popularity.popularity, group="collaborative", kinds={"polars"})
factors = asset(mf.mf, group="collaborative", kinds={"pytorch"})

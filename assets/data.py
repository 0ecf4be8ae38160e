"""Data: source files -> contract-checked tables -> the ctr track's split."""

from assets.engine.declare import asset
from pipeline.data import dataset, sources, splits

source = asset(sources.source, group="data", kinds={"file"})
tables = asset(dataset.dataset, group="data", kinds={"polars", "parquet"})
split = asset(splits.split, group="data", kinds={"polars"})

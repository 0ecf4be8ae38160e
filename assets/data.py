"""Data: source files -> contract-checked tables -> the splits of the tracks."""

from assets.engine.declare import asset
from pipeline.data import candidates, cold_item, dataset, next_item, sources, splits

source = asset(sources.source, group="data", kinds={"file"})
tables = asset(dataset.dataset, group="data", kinds={"polars", "parquet"})
split = asset(splits.split, group="data", kinds={"polars"})
next_split = asset(next_item.next_split, group="data", kinds={"polars"})
candidate_lists = asset(candidates.candidates, group="data", kinds={"polars"})
cold_split = asset(cold_item.cold_split, group="data", kinds={"polars"})
warm_split = asset(cold_item.warm_split, group="data", kinds={"polars"})

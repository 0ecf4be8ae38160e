"""Data: source files -> contract-checked tables -> the ctr track's split."""

from assets.engine.declare import asset
from pipeline.data import sources

source = asset(sources.source, group="data", kinds={"file"})

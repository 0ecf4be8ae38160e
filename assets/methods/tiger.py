"""TIGER: semantic ids of histories -> a T5 -> ids of what comes next, as rankings."""

from functools import partial

from assets.engine import declare
from pipeline.methods import tiger

asset = partial(declare.asset, group="tiger")

model = asset(tiger.model, kinds={"pytorch"})
predictions = asset(tiger.predictions, kinds={"pytorch"})
cold_model = asset(tiger.cold_model, kinds={"pytorch"})
cold_predictions = asset(tiger.cold_predictions, kinds={"pytorch"})

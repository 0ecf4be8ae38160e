"""Click-through models: the backbones that knowledge joins, without it."""

from functools import partial

from assets.engine import declare
from pipeline.ctr import baselines

asset = partial(declare.asset, group="ctr_models", kinds={"pytorch"})

deepfm = asset(baselines.deepfm)
dcnv2 = asset(baselines.dcnv2)
fibinet = asset(baselines.fibinet)
autoint = asset(baselines.autoint)

"""PRM: stored lists -> a network that sees the whole list, with what is known of users and items -> orders."""

from functools import partial

from assets.engine import declare
from pipeline.methods import prm

asset = partial(declare.asset, group="prm")

predictions = asset(prm.predictions, kinds={"pytorch"})

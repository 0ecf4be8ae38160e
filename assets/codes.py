"""Codes: a user's or an item's vector in a form that fits into a prompt, or that a model can write."""

from functools import partial

from assets.engine import declare
from pipeline.codes import binary, semantic

asset = partial(declare.asset, group="codes")

binary_codes = asset(binary.binary_codes, kinds={"pytorch"})
ids_by_network = asset(semantic.rqvae, kinds={"pytorch"})
ids_by_balance = asset(semantic.balanced, kinds={"faiss"})
ids_by_planes = asset(semantic.lsh, kinds={"numpy"})
ids_by_kmeans = asset(semantic.rqkmeans, kinds={"faiss"})
ids_by_chance = asset(semantic.random, kinds={"numpy"})

"""Codes: a user's or an item's vector in a form that fits into a prompt."""

from assets.engine.declare import asset
from pipeline.codes import binary

binary_codes = asset(binary.binary_codes, group="codes", kinds={"pytorch"})

"""Caser: the contracts."""

from typing import ClassVar

from pipeline.collab.caser import caser
from tests.contracts import RankerContract, ResumeContract, VectorContract

QUICK = {"dim": 16, "length": 8, "dropout": 0.1, "lr": 0.01, "batch": 32, "epochs": 20, "patience": 20}


class TestCaser(RankerContract, VectorContract, ResumeContract):
    stage = caser
    settings: ClassVar = QUICK
    width: ClassVar[int] = 16

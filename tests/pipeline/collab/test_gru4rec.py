"""GRU4Rec: the contracts."""

from typing import ClassVar

from pipeline.collab.gru4rec import gru4rec
from tests.contracts import RankerContract, ResumeContract, VectorContract

QUICK = {"dim": 16, "length": 8, "dropout": 0.1, "lr": 0.02, "batch": 64, "epochs": 50, "patience": 50}


class TestGRU4Rec(RankerContract, VectorContract, ResumeContract):
    stage = gru4rec
    settings: ClassVar = QUICK
    width: ClassVar[int] = 16

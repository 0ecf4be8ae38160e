"""Settings of the models that learn from sampled negatives, and what their stages end in."""

from typing import Literal

from pydantic import Field

from pipeline.collab.ranked import RankedSettings

Loss = Literal["bpr", "bce"]


class SampledSettings(RankedSettings):
    dim: int = Field(64, ge=1, description="numbers a vector, biases not counted")
    loss: Loss = Field(
        "bpr", description="bpr: a used item beats each sampled one; bce: used is 1, sampled is 0"
    )
    negatives: int = Field(8, ge=1, description="items sampled for each training row")
    penalty: float = Field(1e-3, ge=0, description="L2 penalty on the vectors of a batch, a row")
    lr: float = Field(3e-3, gt=0, description="Adam's step size")
    batch: int = Field(4096, ge=1, description="training rows a step")
    epochs: int = Field(200, ge=1, description="passes over the training rows, at most")
    patience: int = Field(20, ge=1, description="epochs without a better validation NDCG@10 before it stops")
    spread: float = Field(0.1, gt=0, description="standard deviation of the first vectors")

"""Dropout whose bits come from a generator of the caller's: a byte a number, where torch draws a float."""

import torch
from torch import Generator, Tensor


def dropped(x: Tensor, share: float, draws: Generator | None) -> Tensor:
    """x with a share of its numbers set to 0 and the others scaled up; x itself without draws (no training).

    The share is rounded to 1/256: a byte decides, so one draw serves for eight numbers.
    """
    level = round(share * 256)
    if draws is None or level == 0:
        return x
    eights = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
    kept = eights.random_(-(2**63), 2**63 - 1, generator=draws).view(torch.uint8)[: x.numel()] >= level
    return x * kept.view(x.shape).to(x.dtype).mul_(256 / (256 - level))

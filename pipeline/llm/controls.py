"""Shuffled controls: how many of their prompts really differ from those of what they are a control of.

A shuffle changes nothing for two users without a history, or two cold items with one code. Rows that stay as
they were are scored as by the method itself, so the control then says little, and seems to say that the
method's ingredient is worth nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from pipeline.schema import PARTS
from pipeline.stage import Check, Draft, Verdict

ENOUGH = 0.5  # of a part's prompts
Slots = Mapping[str, Sequence[str] | pl.Series]  # slot -> one text a row


def shares_changed(prompts: pl.DataFrame, plain: pl.DataFrame) -> dict[str, float]:
    """Share of prompts whose words or vectors differ from the plain ones' of the same rows: of all, and of each
    part with rows."""
    own = plain.select("row", "form", plain="prompt", own="vectors")
    both = prompts.join(own, on=("row", "form"), how="left")
    other = pl.col("prompt").ne_missing(pl.col("plain")) | pl.col("vectors").ne_missing(pl.col("own"))
    changed = both.select("part", changed=other.cast(pl.Float64))
    by_part = dict(changed.group_by("part").mean().iter_rows())
    shares = {f"{part}_share_changed": by_part[part] for part in PARTS if part in by_part}
    whole = {"share_changed": float(changed["changed"].mean())} if changed.height else {}  # type: ignore[arg-type]
    return {name: round(share, 6) for name, share in (whole | shares).items()}


def slot_shares_changed(shuffled: Slots, own: Slots) -> dict[str, float]:
    """Share of rows whose slot holds another text than their own, for each slot."""
    return {
        f"{slot.removesuffix('.vector')}_share_changed": round(share_apart(texts, own[slot]), 6)
        for slot, texts in shuffled.items()
        if len(texts)
    }


def share_apart(some: Sequence[str] | pl.Series, others: Sequence[str] | pl.Series) -> float:
    return float((pl.Series(some) != pl.Series(others)).mean())  # type: ignore[arg-type]


def prompts_really_change(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """A shuffle changes at least half of each part's prompts; else the control is mostly the method itself."""
    shares = {name: share for name, share in draft.metrics.items() if name.endswith("share_changed")}
    if not shares:
        return Verdict(True, "no shuffled control")
    low = min(shares.values())
    named = {name.removesuffix("share_changed").strip("_") or "all": share for name, share in shares.items()}
    words = ", ".join(f"{name} {share:.0%}" for name, share in named.items())
    return Verdict(low >= ENOUGH, f"changed by the shuffle: {words}", shares)


CONTROL_CHECKS = (Check(prompts_really_change, blocking=False),)

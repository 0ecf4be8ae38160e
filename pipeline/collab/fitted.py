"""Models that are fitted already: which is the best, and what each says of queries that it never met.

    finished artefact + split -> scores_of -> Scores, the bits that it ranked with; nothing is fitted anew

The manifest says which stage made an artefact, and the stage how a finished one scores (`Stage.scorer`). What
is best is said by validation alone.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.stage import declared
from pipeline.store import Artefact
from pipeline.study import StudyError, nearest

if TYPE_CHECKING:
    from pipeline.collab.ranked import Scores


def scores_of(fitted: Artefact, split: Artefact) -> "Scores":
    """The scores of a finished model. Raises ValueError where its stage cannot give them without a new fit."""
    stage = declared(fitted.manifest["reference"])
    if stage.scorer is None:
        raise ValueError(f"{stage.name} cannot be asked again: its stage declares no scorer")
    return stage.scorer(split, fitted, stage.settings.model_validate(dict(fitted.settings)))


def models(rankings: Sequence[Artefact]) -> dict[str, list[Artefact]]:
    """Method -> its artefacts, one for each seed in the study's order, of those that can be asked again."""
    found: dict[str, list[Artefact]] = {}
    for artefact in rankings:
        if declared(artefact.manifest["reference"]).scorer and artefact.variant == "default":
            found.setdefault(method_of(artefact), []).append(artefact)
    return dict(sorted(found.items()))


def method_of(artefact: Artefact) -> str:
    """The method whose orders an artefact holds."""
    return artefact.scan("rankings").select("method").head(1).collect().item()


def valid_ndcg_10(seeds: Sequence[Artefact]) -> float:
    """Mean over seeds of a method's NDCG@10 on the validation queries; NaN where there are none."""
    return float(np.mean([one.metrics["valid_ndcg_10"] for one in seeds]))


def chosen(found: Mapping[str, list[Artefact]], method: str | None) -> str:
    """The method asked for, or the best on validation, of equals the first by name.

    Raises StudyError, with the names there are, for a method that is not among those found.
    """
    if method and method in found:
        return method
    if method or not found:
        said = f"no fitted model {method!r}" if method else "no fitted model that can be asked again"
        raise StudyError(said + nearest(method or "", found))
    return max(found, key=lambda name: np.nan_to_num(valid_ndcg_10(found[name]), nan=-1.0))

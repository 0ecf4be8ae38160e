"""Click-through models without knowledge, as plain baselines of the ctr track.

    ctr/split + items + users -> fields -> one backbone -> pairs

Each reads ids, attributes and the labelled history; a method may add knowledge to the same networks. The DIN of
`ctr/din` is CoLLM's, with neither attributes nor disliked items.
"""

from functools import partial

from pipeline.collab.labelled import every_pair_scored_once
from pipeline.collab.mf import better_than_chance
from pipeline.ctr.fit import fit_and_score, material
from pipeline.ctr.settings import CtrSettings
from pipeline.schema import Curve, Pairs, Search
from pipeline.stage import Artefact, Check, Draft, stage

baseline = partial(
    stage,
    settings=CtrSettings,
    section="models",
    version=1,
    inputs={"split": "ctr/split", "dataset": "dataset"},
    tables={"curve": Curve, "search": Search, "pairs": Pairs},
    checks=(Check(every_pair_scored_once), Check(better_than_chance, blocking=False)),
    seeded=True,
    predicts="pairs",
    needs="heavy",
)


@baseline("ctr/deepfm")
def deepfm(split: Artefact, dataset: Artefact, settings: CtrSettings, out: Draft) -> None:
    """Fields by themselves, their pairs by inner products, and layers over all."""
    fit_and_score(material(split, dataset, settings), "deepfm", settings, out, "deepfm")


@baseline("ctr/dcnv2")
def dcnv2(split: Artefact, dataset: Artefact, settings: CtrSettings, out: Draft) -> None:
    """Cross layers with full matrices beside deep layers."""
    fit_and_score(material(split, dataset, settings), "dcnv2", settings, out, "dcnv2")


@baseline("ctr/fibinet")
def fibinet(split: Artefact, dataset: Artefact, settings: CtrSettings, out: Draft) -> None:
    """Fields weighed by how much they matter, and bilinear products of their pairs."""
    fit_and_score(material(split, dataset, settings), "fibinet", settings, out, "fibinet")


@baseline("ctr/autoint")
def autoint(split: Artefact, dataset: Artefact, settings: CtrSettings, out: Draft) -> None:
    """Fields that attend to each other."""
    fit_and_score(material(split, dataset, settings), "autoint", settings, out, "autoint")

"""Fitted models: asked again without a fit, and the best of them by validation."""

from pathlib import Path

import polars as pl
import pytest

from pipeline.collab import als, sasrec
from pipeline.collab.bpr import bpr
from pipeline.collab.fitted import chosen, models, scores_of
from pipeline.collab.ranked import order
from pipeline.collab.ranked_popularity import ranked_popularity
from pipeline.store import Artefact
from pipeline.study import StudyError
from tests.toy_next import ITEMS, asked_again, circles, make, split_of


def finished(method: str, value: float, seed: int = 1, **cell) -> Artefact:
    """An artefact that needs no files: its stage, its cell and its validation figure."""
    manifest = {"reference": bpr.reference, "cell": {"seed": seed, **cell}, "metrics": {"valid_ndcg_10": value}}
    return Artefact(Path(method), manifest)


def by_folder(artefact: Artefact) -> str:
    return artefact.path.name


def test_the_best_on_validation_is_chosen_by_its_mean_over_seeds(monkeypatch) -> None:
    monkeypatch.setattr("pipeline.collab.fitted.method_of", by_folder)
    found = models([finished("bpr", 0.5, 1), finished("als", 0.3, 1), finished("bpr", 0.1, 2)])
    assert list(found) == ["als", "bpr"]
    assert [one.seed for one in found["bpr"]] == [1, 2]
    assert chosen({"bpr": found["bpr"][:1], "als": found["als"]}, None) == "bpr"
    assert chosen(found, None) == "als"  # .3, and the mean of .5 and .1, are equal: the first by name
    assert chosen(found, "bpr") == "bpr"


def test_a_method_without_validation_queries_is_never_the_best(monkeypatch) -> None:
    monkeypatch.setattr("pipeline.collab.fitted.method_of", by_folder)
    found = models([finished("als", float("nan")), finished("bpr", 0.0)])
    assert chosen(found, None) == "bpr"


def test_variants_and_models_that_cannot_be_asked_again_are_not_found(monkeypatch) -> None:
    monkeypatch.setattr("pipeline.collab.fitted.method_of", by_folder)
    other = finished("split", 0.9)
    other.manifest["reference"] = "pipeline.data.next_item:next_split"  # type: ignore[index]
    assert models([finished("bpr", 0.9, variant="without_history"), other]) == {}


def test_an_unknown_method_is_refused_with_the_names_there_are(monkeypatch) -> None:
    monkeypatch.setattr("pipeline.collab.fitted.method_of", by_folder)
    found = models([finished("als", 0.3), finished("bpr", 0.1)])
    with pytest.raises(StudyError, match=r"no fitted model 'sasrek'; known: als, bpr"):
        chosen(found, "sasrek")
    with pytest.raises(StudyError, match=r"no fitted model 'bqr'; did you mean 'bpr'\?"):
        chosen(found, "bqr")
    with pytest.raises(StudyError, match="no fitted model that can be asked again; known: none"):
        chosen({}, None)


def test_a_stage_without_a_scorer_cannot_be_asked(tmp_path) -> None:
    made = make(ranked_popularity, circles(), tmp_path)
    split = split_of(made)
    made.manifest["reference"] = "pipeline.data.next_item:next_split"  # type: ignore[index]
    with pytest.raises(ValueError, match="next_item/split cannot be asked again"):
        scores_of(made, split)


def test_the_method_is_read_from_the_orders(tmp_path) -> None:
    assert list(models([make(ranked_popularity, circles(), tmp_path)])) == ["popularity"]


# --- what would make the contract fail

QUICK = {"dim": 4, "iterations": 3}


def orders(made: Artefact) -> pl.DataFrame:
    return made.table("rankings").select("part", "user", "rank", "item", "score", "target")


def test_als_with_the_mean_vector_of_cold_items_would_be_seen(tmp_path) -> None:
    made = make(als.als, circles(), tmp_path, **QUICK)
    assert asked_again(made, circles().queries).equals(orders(made))
    rows, model = circles().trained, als.unfitted(als.ALSSettings.model_validate(QUICK), 1)
    model.item_factors = als.stored(made).items
    wrong = order(als.fold_in(rows, model), circles().queries, ITEMS)
    assert not wrong["score"].equals(orders(made)["score"])


def test_the_library_leaves_cold_items_at_zero_as_the_scorer_takes_for_granted() -> None:
    rows = circles().trained
    items = als.factorise(rows, als.ALSSettings.model_validate(QUICK), 1).item_factors
    assert not items[~rows.known.items].any()
    assert items[rows.known.items].any(axis=1).all()


def test_a_network_of_first_weights_would_be_seen(tmp_path, monkeypatch) -> None:
    made = make(sasrec.sasrec, circles(), tmp_path, dim=8, length=8, lr=0.01, batch=64, epochs=3)
    assert asked_again(made, circles().queries).equals(orders(made))
    monkeypatch.setattr("torch.nn.Module.load_state_dict", lambda network, weights: None)
    assert not asked_again(made, circles().queries)["score"].equals(orders(made)["score"])

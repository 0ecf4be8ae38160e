"""TIGER on the circle: what is learnt from, what is written, what a kill leaves, and the controls."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
import torch
from pydantic import ValidationError

from pipeline.codes import writing
from pipeline.codes.ids import read_ids
from pipeline.collab.events import trained
from pipeline.methods import tiger
from pipeline.methods.tiger import TigerDecoding, TigerModel, at_shares, misplaced, three_token
from pipeline.stage import StageFailed, run
from tests.contracts import MethodContract, same_files
from tests.toy_ctr import failed
from tests.toy_ids import IDS, Made, drawn, ids, make, quick, spec, store_of, telling
from tests.toy_next import CIRCLE, COLD_ITEM, EMPTY, ITEMS, LEARNT, SPLIT, circles, toy

HEAD = ("part", "user", "rank", "item", "score", "target")


class TestDeclarations(MethodContract):
    stages: ClassVar = (tiger.model, tiger.predictions)
    predicts: ClassVar[str] = "rankings"


class TestDeclarationsOfColdItems(MethodContract):
    stages: ClassVar = (tiger.cold_model, tiger.cold_predictions)
    predicts: ClassVar[str] = "cold_rankings"


def test_each_stage_is_of_its_own_track() -> None:
    assert (tiger.model.track, tiger.predictions.track) == ("next_item", "next_item")
    assert (tiger.cold_model.track, tiger.cold_predictions.track) == ("cold_item", "cold_item")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(circles(), telling(), tmp_path_factory.mktemp("tiger"), {"seen_kept": True})


@pytest.fixture(scope="module")
def rankings(made: Made) -> pl.DataFrame:
    return made.predictions.table("rankings").filter(part="test", variant="rqvae").sort("user", "rank")


# --- lists -------------------------------------------------------------------------------------------------


def test_all_checks_pass(made: Made) -> None:
    assert {"only_train_is_learnt", "weights_are_finite", "learns"} <= set(made.model.manifest["checks"])
    assert failed(made.model) == {}
    assert failed(made.predictions) == {}


def test_the_rule_of_the_circle_is_learnt(made: Made, rankings: pl.DataFrame) -> None:
    first = rankings.filter(pl.col("rank") == 1, pl.col("user") < LEARNT)
    assert (first["item"] % 2 == first["user"] % 2).sum() == LEARNT
    assert made.predictions.metrics["valid_ndcg_10"] > 0.6  # drawing lots among 17 unseen items gives .27


def test_every_item_stands_once_and_cold_and_seen_ones_have_no_score(rankings: pl.DataFrame) -> None:
    users = rankings.group_by("user", maintain_order=True).agg("rank", "item")
    assert users.height == EMPTY + 1
    for _, rank, item in users.iter_rows():
        assert rank == list(range(1, ITEMS + 1))
        assert sorted(item) == list(range(ITEMS))
    cold = rankings.filter(pl.col("item") >= COLD_ITEM)
    assert cold["score"].null_count() == cold.height
    for user, history in circles().part("test").select("user", "history").iter_rows():
        own = rankings.filter(pl.col("user") == user)
        seen = own.filter(pl.col("item").is_in(history))
        assert seen["score"].null_count() == len(history)
        known = {*history} & set(range(CIRCLE))
        assert own["score"].count() == CIRCLE - len(known)  # a beam brings all that is left


def test_who_has_no_history_gets_a_list_of_everything(rankings: pl.DataFrame) -> None:
    assert rankings.filter(user=EMPTY)["score"].count() == CIRCLE


def test_every_id_written_is_an_items(made: Made) -> None:
    assert made.predictions.metrics["valid_rate"] == 1.0
    assert made.predictions.metrics["ids_written"] > 500


def test_an_id_of_no_item_is_seen_by_the_check() -> None:
    counting = writing.tally(np.array([[0, 1], [1, 0]]))
    codes = torch.tensor([[[0, 1], [1, 1], [0, 0]]])
    scores = torch.tensor([[-0.5, -1.0, -torch.inf]])
    counting.count(writing.Written(torch.zeros(1, 3), scores, codes))
    assert (counting.written, counting.valid) == (2, 1)


def test_seen_items_stay_where_the_paper_leaves_them(made: Made) -> None:
    kept = made.predictions.table("rankings").filter(part="test", variant="seen_kept")
    seen = kept.join(circles().part("test").select("user", item="history").explode("item"), on=["user", "item"])
    assert seen.filter(pl.col("item") < CIRCLE)["score"].null_count() == 0


def test_exact_scores_give_the_same_lists_as_a_wide_beam(made: Made, rankings: pl.DataFrame) -> None:
    asked: Any = {"model": made.model.fingerprint, "decoding": "exact"}
    exact = run(spec(tiger.predictions, made.store, **asked))[0].table("rankings").filter(part="test")
    both = rankings.join(exact, on=["user", "item"], suffix="_exact").drop_nulls("score")
    assert both.height == rankings["score"].count()
    assert np.allclose(both["score"], both["score_exact"], atol=1e-4)
    assert both.filter(pl.col("rank") == pl.col("rank_exact")).height > 0.99 * both.height


def test_another_seed_learns_another_network(made: Made) -> None:
    first, second = (run(spec(tiger.model, made.store, seed=s, **quick(steps=1)))[0] for s in (1, 2))
    assert not same_files(first, second)


def test_the_network_opens_in_transformers(made: Made) -> None:
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5ForConditionalGeneration

    config = T5Config.from_pretrained(made.model.path)
    theirs = T5ForConditionalGeneration(config)
    found = theirs.load_state_dict(made.model.tensors("model"), strict=False)
    assert found.unexpected_keys == []
    assert (config.d_model, config.d_kv * config.num_heads) == (16, 8)


# --- learning ----------------------------------------------------------------------------------------------


def test_telling_ids_are_learnt_sooner_than_random_ones(tmp_path) -> None:
    def loss(codes: np.ndarray, name: str) -> float:
        store = store_of(circles(), codes, tmp_path / name)
        return run(spec(tiger.model, store, **quick(steps=40)))[0].metrics["valid_loss"]

    assert loss(telling(), "telling") < 0.8 * loss(drawn(), "drawn")


def test_only_training_rows_are_learnt_from(tmp_path) -> None:
    def losses(walks: list[list[int]], name: str) -> list[float]:
        store = store_of(toy(walks, ITEMS), telling(), tmp_path / name)
        curve = run(spec(tiger.model, store, **quick(steps=3, evaluate_every=1, valid_users=None)))[0].table(
            "curve"
        )
        return curve.filter(metric="train_loss")["value"].to_list()

    plain = losses([[0, 1, 2, 3, 4, 5], [1, 2, 3, 0, 4, 5]], "plain")
    assert len(plain) == 3
    assert losses([[0, 1, 2, 3, 5, 4], [1, 2, 3, 0, 5, 4]], "held_out_moved") == plain
    assert losses([[1, 0, 2, 3, 4, 5], [1, 2, 3, 0, 4, 5]], "train_moved") != plain


def found_samples(store: Any) -> tuple[Any, pl.DataFrame, set[int]]:
    from pipeline.codes.prefixes import samples, tokens_of

    split = store.get("next_item/split", SPLIT)
    own = read_ids(store.get("semantic_ids/toy", IDS))
    tokens = tokens_of(own, ITEMS, None, 0)
    return samples(trained(split), tokens, 4), split.table("events"), set(own.items.tolist())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda held: replace(held, start=held.target), "read nothing, or their own target"),
        (lambda held: replace(held, start=held.start * 0), "read or foretell another user's"),
        (lambda held: replace(held, items=np.roll(held.items, 1)), "not those of the training events"),
        (lambda held: replace(held, target=held.target * 0 + held.target[5]), "places are targets"),
    ],
)
def test_a_planted_leak_is_seen(made: Made, fault: Callable[[Any], Any], said: str) -> None:
    held, events, known = found_samples(made.store)
    assert misplaced(held, events, known) == []
    assert any(said in line for line in misplaced(fault(held), events, known))


def test_a_held_out_event_among_the_samples_is_seen(made: Made) -> None:
    held, events, known = found_samples(made.store)
    more = events.with_columns(part=pl.when(part="valid").then(pl.lit("train")).otherwise("part"))
    assert misplaced(held, more, known) == ["the items learnt from are not those of the training events"]


@pytest.mark.parametrize(("killed_after", "schedule"), [(7, "cosine"), (12, "inverse_root")])
def test_a_killed_run_goes_on_to_the_same_bits(killed_after: int, schedule: str, tmp_path, monkeypatch) -> None:
    few = quick(schedule=schedule, steps=16, evaluate_every=5)
    whole = run(spec(tiger.model, store_of(circles(), telling(), tmp_path / "whole"), **few))[0]
    store = store_of(circles(), telling(), tmp_path / "killed")
    steps: list[int] = []
    plain = writing.NextIds.loss

    def counted(self: Any, pupil: Any, rows: Any, step: int, *rest: Any) -> Any:
        steps.append(step)
        if killed_after == step and len(set(steps)) > 1:
            raise KeyError("killed")
        return plain(self, pupil, rows, step, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(writing.NextIds, "loss", counted)
        with pytest.raises(StageFailed, match="killed"):
            run(spec(tiger.model, store, **few))
    steps.clear()
    killed_at, killed_after = killed_after, -1
    monkeypatch.setattr(writing.NextIds, "loss", counted)
    assert same_files(run(spec(tiger.model, store, **few))[0], whole)
    assert steps[0] == killed_at // 5 * 5


def test_two_threads_give_the_bits_of_one(tmp_path) -> None:
    def weights(threads: int) -> Any:
        torch.set_num_threads(threads)
        store = store_of(circles(), telling(), tmp_path / str(threads))
        return run(spec(tiger.model, store, **quick(steps=12, evaluate_every=6)))[0]

    before = torch.get_num_threads()
    try:
        assert same_files(weights(1), weights(2))
    finally:
        torch.set_num_threads(before)


def test_users_have_tokens_where_the_study_says_so(tmp_path) -> None:
    found = make(circles(), telling(), tmp_path, user_buckets=7, steps=5)
    assert found.model.metrics["vocabulary"] == 2 + sum(ids(telling()).sizes) + 7
    assert failed(found.predictions) == {}


# --- settings ----------------------------------------------------------------------------------------------


def test_a_preset_is_told_in_full_and_single_values_stand_over_it() -> None:
    strong = TigerModel.model_validate({"preset": "strong", "dropout": 0.05})
    assert (strong.layers, strong.width, strong.heads * strong.head_width) == (6, 128, 384)
    assert (strong.learning_rate, strong.dropout, strong.user_buckets) == (3e-4, 0.05, 0)
    paper = TigerModel.model_validate({"preset": "paper"})
    assert (paper.layers, paper.inner, paper.user_buckets, paper.history) == (4, 1024, 2000, 20)
    assert TigerModel.model_validate(paper.model_dump()) == paper
    assert TigerModel.model_validate({}).preset == "small"


@pytest.mark.parametrize(
    ("settings", "given"),
    [(TigerModel, {"preset": "large"}), (TigerModel, {"widht": 3}), (TigerModel, {"valid_beams": 10})],
)
def test_what_cannot_be_is_refused(settings: Any, given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings.model_validate(given)


def test_fewer_beams_than_the_metrics_look_at_are_refused_with_the_reason() -> None:
    with pytest.raises(ValidationError, match=r"beams.*\n.*greater than or equal to 20"):
        TigerDecoding.model_validate({"beams": 10})


# --- cold items and three tokens ---------------------------------------------------------------------------

GROUPS = np.array([0, 1, 0, 1, 0, -1])
COLD = np.array([False, False, True, True, True, True])


def test_a_share_for_cold_items_brings_them_and_the_checks_still_pass(made: Made) -> None:
    asked: Any = {"model": made.model.fingerprint, "cold_share": 0.2}
    found = run(spec(tiger.predictions, made.store, **asked))[0]
    rows = found.table("rankings").filter(pl.col("score").is_not_null(), part="test")
    cold = rows.filter(pl.col("item") >= COLD_ITEM)
    assert cold.height > LEARNT // 2
    shares = rows.sort("user", "rank").with_columns(
        share=(pl.col("item") >= COLD_ITEM).cum_sum().over("user") / pl.col("rank")
    )
    assert (shares["share"] <= 0.2 + 1e-9).all()
    assert failed(found) == {}


def test_figures_at_each_share_are_those_of_the_lists_with_it() -> None:
    queries = pl.DataFrame(
        {
            "part": ["test", "test", "valid"],
            "user": [0, 1, 0],
            "targets": [[2], [5], [3]],
            "history": [[], [0], []],
        },
        schema_overrides={"user": pl.UInt32},
    )
    rows = [("test", 0, 1, 0, -1.0), ("test", 0, 2, 1, -2.0), ("test", 0, 3, 2, None), ("test", 1, 1, 1, -1.0)]
    listed = pl.DataFrame(
        rows,
        schema=["part", "user", "rank", "item", "score"],
        orient="row",
        schema_overrides={"user": pl.UInt32},
    )
    found = at_shares(listed, queries, GROUPS, COLD, (0.0, 0.4, 1.0))
    values = {row[:3]: row[3] for row in found.rows()}
    assert values["test", 0.0, "hr_20"] == 0
    assert values["test", 0.4, "hr_5"] == 0.5  # behind both known ones, in the third place; item 5 has no id
    assert values["test", 0.4, "ndcg_10"] == pytest.approx(0.25)
    assert values["test", 1.0, "ndcg_10"] == pytest.approx(0.5 / np.log2(3))
    assert values["valid", 1.0, "hr_20"] == 0  # whose list is empty


def test_three_tokens_count_an_item_of_the_targets_codes() -> None:
    queries = pl.DataFrame({"part": ["test", "test", "valid"], "user": [0, 1, 0], "targets": [[2], [3], [0]]})
    rows = [
        ("test", 0, 1, 5, -1.0),
        ("test", 0, 2, 0, -2.0),
        ("test", 1, 1, 0, -1.0),
        ("test", 1, 2, 1, None),
        ("valid", 0, 1, 0, -1.0),
    ]
    rankings = pl.DataFrame(rows, schema=["part", "user", "rank", "item", "score"], orient="row")
    found = three_token(rankings, queries, GROUPS)
    assert found == {
        "test_three_token_hr_10": 0.5,
        "test_three_token_ndcg_10": pytest.approx(0.5 / np.log2(3)),
    }


def test_it_is_told_beside_the_headline(made: Made) -> None:
    found = made.predictions.metrics
    assert found["test_three_token_hr_10"] >= 0.5

"""Orders equal a plain stable sort, whatever the ties, block and mask; what a stage of the track writes."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.collab import ranked
from pipeline.collab.ranked import RankedSettings, every_query_ranked_once, order, pair_scores, write_rankings
from pipeline.schema import Rankings, empty
from pipeline.stage import Check, Settings, stage
from tests.toy_ranked import catalogue, drawn, plain_order, queries

LEVELS = np.array([-np.inf, -2.5, -0.0, 0.0, 1e-45, 0.5, 0.5000001, 3e38], dtype=np.float32)


def known(scores):
    """A model that looks its scores (users, items) up."""
    table = torch.from_numpy(scores)
    return lambda block: table[block.user]


@given(
    st.integers(0, 2**32),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(0, 45),
    st.integers(1, 300),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_an_order_is_that_of_a_stable_sort_with_many_ties(seed, users, items, top, cells, masked):
    random = np.random.default_rng(seed)
    asked, scores = drawn(random, users, items), random.choice(LEVELS, (users, items))
    before = scores.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked, "CELLS", cells)
        found = order(known(scores), asked, items, masked=masked, top=top)
    assert found.equals(plain_order(scores, asked, masked, top))
    assert np.array_equal(scores, before)


@given(st.integers(0, 2**32), st.integers(1, 500), st.integers(1, 40), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_largest_scores_are_those_of_a_sort_however_items_are_grouped(seed, items, count, level):
    random = np.random.default_rng(seed)
    scores = random.choice(LEVELS, (4, items)) if level else random.normal(size=(4, items))
    found, count = torch.from_numpy(scores.astype(np.float32)), min(count, items)
    held, places = ranked.largest(found, count)
    assert torch.equal(held, found.sort(dim=1, descending=True).values[:, :count])
    assert torch.equal(found.gather(1, places), held)
    assert all(len(row.unique()) == count for row in places)


@pytest.mark.parametrize("top", [1, 3, 20])
def test_ties_among_many_items_stand_in_order_of_item(top):
    random = np.random.default_rng(top)
    asked, scores = drawn(random, 30, 700), random.choice(LEVELS, (30, 700))
    assert order(known(scores), asked, 700, top=top).equals(plain_order(scores, asked, True, top))


def test_scores_without_ties_need_no_second_selection(monkeypatch):
    random = np.random.default_rng(0)
    scores = random.normal(size=(50, 200)).astype(np.float32)
    asked = drawn(random, 50, 200)
    want = plain_order(scores, asked, True, 20)
    monkeypatch.setattr(
        ranked, "keys", lambda found: pytest.fail("selected again") if len(found) else found.long()
    )
    assert order(known(scores), asked, 200, top=20).equals(want)


def test_a_target_far_down_keeps_its_row_and_a_seen_one_stands_last_without_a_score():
    asked = queries([("test", 7, [4], [3, 4])])
    scores = torch.tensor([[0.5, 0.4, 0.3, 0.2, 0.9]])
    found = order(lambda block: scores, asked, 5, top=2)
    assert found.rows() == [
        ("test", 7, 1, 0, 0.5, False),
        ("test", 7, 2, 1, pytest.approx(0.4), False),
        ("test", 7, 4, 3, pytest.approx(0.2), True),
        ("test", 7, 5, 4, None, True),
    ]
    kept = order(lambda block: scores, asked, 5, top=2, masked=False)
    assert kept.filter("target")["rank"].to_list() == [1, 5]


def test_orders_come_sorted_whatever_the_order_of_the_queries():
    random = np.random.default_rng(3)
    asked = pl.concat([drawn(random, 9, 30).with_columns(part=pl.lit(part)) for part in ("valid", "test")])
    scores = random.normal(size=(9, 30)).astype(np.float32)
    shuffled = asked.sample(fraction=1, shuffle=True, seed=1)
    assert order(known(scores), shuffled, 30, top=5).equals(order(known(scores), asked, 30, top=5))


def test_no_queries_make_no_rows():
    assert order(known(np.zeros((1, 3), np.float32)), queries([]), 3).is_empty()


def test_a_score_that_is_no_number_is_refused():
    scores = np.array([[0.1, np.nan, -np.inf]], dtype=np.float32)
    with pytest.raises(FloatingPointError, match="not a number"):
        order(known(scores), queries([("test", 0, [], [1])]), 3)


def test_a_block_is_never_larger_than_asked():
    seen = []

    def scores(block):
        seen.append(len(block.user))
        return torch.zeros(len(block.user), 10)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranked, "CELLS", 35)
        order(scores, drawn(np.random.default_rng(0), 8, 10), 10, top=1)
    assert seen == [3, 3, 2]


def test_histories_reach_the_model_as_they_are():
    asked = queries([("valid", 3, [5, 1], [0]), ("valid", 9, [], [0]), ("valid", 4, [2], [0])])
    ((_, block),) = ranked.blocks(asked, 10)
    assert block.user.tolist() == [3, 9, 4]
    assert block.items.tolist() == [5, 1, 2]
    assert block.offsets.tolist() == [0, 2, 2, 3]


def test_validation_is_measured_on_validation_with_seen_items_masked():
    asked = queries([("valid", 0, [0], [1]), ("valid", 1, [], [1]), ("test", 0, [], [5])])
    scores = np.array([[9, 8, 7, 6, 5, 4], [9, 8, 7, 6, 5, 4]], dtype=np.float32)
    assert ranked.valid_ndcg_10(known(scores), asked, 6) == pytest.approx((1 + 1 / np.log2(3)) / 2)


# --- scores of pairs


def test_pairs_get_the_scores_of_their_own_query_in_their_order(monkeypatch):
    monkeypatch.setattr(ranked, "CELLS", 6)  # two users a block
    asked = queries([("valid", 1, [], [0]), ("test", 1, [2], [0]), ("test", 0, [], [1]), ("test", 2, [], [1])])

    def scores(block):
        """10 times the user, and the length of the history; item 2 has none."""
        own = 10.0 * block.user + block.offsets.diff() / 2
        return torch.stack([own, own + 1, torch.full_like(own, -torch.inf)], dim=1)

    wanted = [
        ("test", 2, 1, 21.0),
        ("test", 1, 0, 10.5),
        ("test", 1, 2, None),
        ("valid", 1, 0, 10.0),
        ("test", 2, 0, 20.0),
    ]
    pairs = pl.DataFrame([row[:3] for row in wanted], schema=["part", "user", "item"], orient="row")
    pairs = pairs.with_columns(pl.col("user", "item").cast(pl.UInt32), label=pl.lit(1))
    found = pair_scores(scores, asked, pairs, 3)
    assert found.columns == ["part", "user", "item", "label", "score"]
    assert found["score"].to_list() == [row[3] for row in wanted]


def test_a_pair_of_no_query_is_refused():
    pairs = pl.DataFrame({"part": ["valid"], "user": [0], "item": [0]}, schema_overrides={"user": pl.UInt32})
    with pytest.raises(ValueError, match="1 pairs belong to no query"):
        pair_scores(known(np.zeros((1, 3), np.float32)), queries([("test", 0, [], [1])]), pairs, 3)


# --- what a stage writes


@stage(
    "toy",
    settings=RankedSettings,
    section="models",
    version=1,
    tables={"rankings": Rankings},
    seeded=True,
    predicts="rankings",
)
def toy(settings, out):
    """A stage to write for."""


ASKED = queries(
    [("valid", 0, [1], [0]), ("valid", 1, [], [3]), ("test", 0, [1, 0], [1, 2]), ("test", 1, [3], [4])]
)
CATALOGUE = catalogue([4, 3, 2, 1, 0])
SCORES = np.array([[4, 3, 2, 1, -np.inf]] * 2, dtype=np.float32)


@pytest.fixture
def out(tmp_path):
    from pipeline.stage import Draft

    spec = SimpleNamespace(root=str(tmp_path), store=str(tmp_path), study="toy", cell={"seed": 3})
    return Draft(tmp_path / "draft", toy, spec, tmp_path)


@pytest.fixture
def split(tmp_path):
    from pipeline.stage import Artefact

    (tmp_path / "split").mkdir()
    ASKED.write_parquet(tmp_path / "split/queries.parquet")
    CATALOGUE.write_parquet(tmp_path / "split/catalogue.parquet")
    return Artefact(tmp_path / "split", {})


def test_a_stage_writes_both_parts_and_says_what_was_lost(out, split):
    write_rankings(out, "toy", known(SCORES), split, RankedSettings())
    rows = out.read("rankings")
    assert rows.select("track", "method", "variant", "seed").unique().rows() == [
        ("next_item", "toy", "default", 3)
    ]
    assert rows.drop("track", "method", "variant", "seed").equals(order(known(SCORES), ASKED, 5))
    assert out.metrics == {
        "valid_ndcg_10": pytest.approx((1 + 1 / np.log2(5)) / 2),
        "cold_items": 1,
        "test_targets": 3,
        "test_targets_seen": 1,
        "test_targets_cold": 1,
        "test_users_without_history": 0,
    }


def test_seen_items_are_kept_as_a_variant_where_the_study_asks(out, split):
    write_rankings(out, "toy", known(SCORES), split, RankedSettings(seen_kept=True))
    rows = out.read("rankings").filter(variant="seen_kept").drop("track", "method", "variant", "seed")
    assert rows.equals(order(known(SCORES), ASKED, 5, masked=False))
    assert out.read("rankings")["variant"].unique().sort().to_list() == ["default", "seen_kept"]
    assert out.metrics["valid_ndcg_10"] == pytest.approx((1 + 1 / np.log2(5)) / 2)


def test_fewer_places_than_the_metrics_need_are_refused():
    with pytest.raises(ValueError, match="top"):
        RankedSettings(top=19)


def spoilt(name, value):
    """Write the value over a column of user 1's first test row."""
    at = (pl.col("part") == "test") & (pl.col("user") == 1) & (pl.col("rank") == 1)
    return lambda rows: rows.with_columns(
        pl.when(at).then(pl.lit(value)).otherwise(name).cast(rows[name].dtype).alias(name)
    )


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            lambda rows: rows.filter((pl.col("part") != "test") | (pl.col("user") != 1)),
            "default: 1 queries not ranked",
        ),
        (lambda rows: rows.filter((pl.col("user") != 1) | (pl.col("rank") != 2)), "2 users with a gap"),
        (lambda rows: pl.concat([rows, rows.head(1)]), "1 users with a gap or a doubled place"),
        (spoilt("item", 1), "1 items twice in one order"),
        (spoilt("score", 0.5), "1 rows out of order"),
        (spoilt("target", True), "1 rows marked that are no targets"),
        (lambda rows: rows.with_columns(target=False), "targets not marked"),
        (lambda rows: rows.with_columns(user=pl.col("user") + 1), "2 users ranked that nobody asked for"),
        (lambda rows: rows.clear(), "nothing is ranked"),
    ],
)
def test_the_check_names_a_planted_fault(out, split, spoil, words):
    write_rankings(out, "toy", known(SCORES), split, RankedSettings())
    assert every_query_ranked_once(out, {"split": split}, Settings()).passed
    spoil(out.read("rankings")).write_parquet(out.file("rankings.parquet"))
    verdict = Check(every_query_ranked_once).run(out, {"split": split}, Settings())
    assert not verdict.passed
    assert words in verdict.description


def test_equal_scores_out_of_order_of_item_are_a_fault():
    asked = queries([("test", 0, [], [0])])
    rows = order(known(np.zeros((1, 3), np.float32)), asked, 3)
    turned = rows.with_columns(item=pl.Series([0, 2, 1], dtype=pl.UInt32))
    from pipeline.evaluate.ranking import faults

    assert faults(rows, asked) == {}
    assert faults(turned, asked) == {"rows out of order": 1}


def test_a_stage_of_the_track_loads_without_torch():
    code = "import sys, pipeline.collab.ranked; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_frame_of_orders_has_the_tables_types():
    rows = order(known(SCORES), ASKED, 5)
    assert rows.schema == empty(Rankings).select(rows.columns).schema

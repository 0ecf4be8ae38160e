"""What the report gathers equals what the artefacts hold."""

import polars as pl
import pytest

from pipeline.evaluate.report import facts
from pipeline.evaluate.report.facts import Checked, ancestors, checked, cost, gather, health, part_facts, unlike
from pipeline.evaluate.results import Contender, Name
from pipeline.store import Artefact
from tests.warehouse.synthetic import BITS, HOSTILE


def fake(stage: str, fingerprint: str, *parents: str, seconds: float = 1.0, **metrics) -> Artefact:
    """An artefact that is only a manifest."""
    manifest = {
        "stage": stage,
        "section": "methods" if stage.startswith(("binllm/", "tallrec/")) else "models",
        "fingerprint": fingerprint,
        "cell": {"seed": 1},
        "metrics": metrics,
        "measured": {"seconds": seconds, "peak_memory_mb": 100.0 * seconds, "device": "cpu"},
        "made_from": [{"stage": "any", "fingerprint": parent} for parent in parents],
    }
    return Artefact(None, manifest)  # pyright: ignore[reportArgumentType]


def test_ancestors_are_counted_once():
    split, codes = fake("ctr/split", "s"), fake("binary_codes", "c", "s")
    scores = fake("binllm/predictions", "p", "c", "s")
    made = {one.fingerprint: one for one in (split, codes, scores)}
    assert [one.fingerprint for one in ancestors(scores, made)] == ["p", "s", "c"]


def test_ancestor_that_is_gone_is_left_out():
    scores = fake("mf", "p", "gone")
    assert ancestors(scores, {"p": scores}) == [scores]


def test_own_stages_are_told_from_inputs():
    run = [
        fake("binllm/predictions", "p", seconds=3),
        fake("binllm/adapter", "a", seconds=10, trainable_parameters=7, tokens_seen=100),
        fake("tallrec/adapter", "t", seconds=20, trainable_parameters=9, tokens_seen=900),
        fake("ctr/split", "s", seconds=0.5),
    ]
    found = cost([run])
    assert (found.seconds, found.seconds_with_inputs) == (13, 33.5)
    assert (found.parameters, found.tokens, found.peak_memory_mb) == (7, 100, 1000)


def test_what_a_track_shares_is_no_models_own():
    run = [fake("next_item/sasrec", "p", seconds=3, parameters=5), fake("next_item/split", "s", seconds=1)]
    found = cost([run])
    assert (found.seconds, found.seconds_with_inputs, found.parameters) == (3, 4, 5)


def test_cost_is_the_mean_over_seeds():
    found = cost([[fake("mf", "a", seconds=2, tokens_seen=10)], [fake("mf", "b", seconds=4, tokens_seen=20)]])
    assert (found.seconds, found.tokens, found.parameters) == (3, 15, None)


def test_health_of_four_codes_written_out():
    found = health(fake("binary_codes", "c"), "user", pl.Series(["0011", "0011", "0101", "0111"]), cold=9)
    assert (found.codes, found.cold, found.rows) == (4, 9, None)
    assert found.bits == 4
    assert found.distinct == 3
    assert found.colliding == 0.5
    assert found.largest == 2
    assert found.ones == [0, 0.5, 0.75, 1]
    assert found.dead == 2


def test_codes_of_unequal_width_are_refused():
    with pytest.raises(ValueError, match="reshape"):
        health(fake("binary_codes", "c"), "user", pl.Series(["0011", "001"]), 0)


def test_cold_codes_are_counted_apart(full):
    [codes, *_] = full.stages["binary_codes"]
    table = codes.table("codes")
    [items, users] = [one for one in gather(full.everything, 0).codes if one.seed == codes.seed]
    for one in (items, users):
        own = table.filter(entity=one.entity)
        assert (one.codes, one.cold) == (own["trained"].sum(), (~own["trained"]).sum())


def test_the_share_of_rows_is_the_stages_own():
    stage = fake("binary_codes", "c", item_sharing_rows=0.25)
    assert health(stage, "item", pl.Series(["01"]), 0).rows == 0.25


def test_part_facts_written_out():
    examples = pl.LazyFrame(
        {
            "part": ["test", "test", "test", "test"],
            "user": [1, 1, 2, 3],
            "item": [5, 6, 5, 5],
            "label": [1, 0, 1, 1],
            "user_seen": [3, 3, 0, 1],
            "item_seen": [0, 0, 0, 9],
            "history": [[1], [1, 2], [], [1]],
            "at": [10, 20, 30, 40],
        }
    )
    assert part_facts(examples) == [
        {
            "part": "test",
            "rows": 4,
            "users": 3,
            "items": 2,
            "liked": 0.75,
            "cold_users": 0.25,
            "cold_items": 0.75,
            "history": 1.0,
            "first": 10,
            "last": 40,
        }
    ]


def test_checks_of_one_stage_become_one_row():
    good, bad = {"passed": True, "blocking": True, "description": "3 rows"}, {"passed": False, "blocking": True}
    assert checked("mf", "fits", [("seed 1", good), ("seed 2", good)]) == Checked(
        "mf", "fits", True, 2, 2, "3 rows"
    )
    failed = checked("mf", "fits", [("seed 1", good), ("seed 2", {**bad, "description": "none"})])
    assert failed == Checked("mf", "fits", True, 1, 2, "seed 2: none")
    assert failed.failed


def test_failed_checks_come_first(full):
    found = facts.checks(full.everything)
    assert (found[0].stage, found[0].name, found[0].failed) == ("binary_codes", "balanced", True)
    assert not any(one.failed for one in found[1:])
    assert sum(one.artefacts for one in found) == sum(len(a.manifest["checks"]) for a in full.everything)


def test_every_method_has_a_kind_and_a_cost(full):
    [found] = gather(full.everything, prompts=1).boards
    assert found.track.name == "ctr"
    assert found.kinds[Name("binllm", "dotted")] == "method"
    assert found.kinds[Name("binllm", "shuffled_codes")] == "control"
    assert found.kinds[Name("binmf", "default")] == "baseline"
    assert set(found.costs) == set(found.kinds)
    assert found.costs[Name("tallrec", "titles")].seconds == pytest.approx((270 + 300) / 2 + 61, abs=2)


def test_curves_keep_their_stage_and_cell(full):
    found = gather(full.everything, prompts=0).curves
    assert set(found["stage"]) == {"mf", "binary_codes", "tallrec/adapter", "binllm/adapter"}
    assert set(found.filter(stage="binllm/adapter")["variant"]) == {"dotted", "without_codes", "shuffled_codes"}
    assert set(found["seed"]) == {1, 2}


def test_split_is_counted_in_order_of_its_parts(full):
    found = gather(full.everything, prompts=0)
    assert [(part["part"], part["rows"]) for part in found.parts] == [
        ("train", 360),
        ("valid", 120),
        ("test", 120),
    ]
    assert found.timeline["rows"].sum() == 600
    assert found.data == {"rows": 600, "users": 24, "items": 16}


def test_timeline_keeps_time_in_order_and_inside(full):
    timeline = gather(full.everything, prompts=0).timeline
    examples = next(a for a in full.everything if a.stage == "ctr/split").table("examples")
    assert timeline["at"].is_sorted()
    assert timeline["at"].is_between(examples["at"].min(), examples["at"].max() + 1).all()
    assert timeline["at"].n_unique() <= facts.BINS


def test_examples_are_of_the_test_part_with_their_scores(full):
    found = gather(full.everything, prompts=2).prompts
    assert len(found) == 2 * 4
    pairs = next(a for a in full.stages["binllm/predictions"] if (a.variant, a.seed) == ("dotted", 1)).table(
        "pairs"
    )
    for one in (e for e in found if e.variant == "dotted"):
        row = pairs.row(by_predicate=pl.col("row") == one.row, named=True)
        assert (one.label, one.probability) == (row["label"], row["probability"])
        assert row["part"] == "test"
        assert one.title is not None
        assert one.title in one.prompt


def test_quarantine_is_grouped_by_rule(full):
    (rule,) = gather(full.everything, prompts=0).quarantine
    assert (rule["rows"], rule["first_row"], rule["value"]) == (3, 3, "9")


def test_settings_stand_in_the_order_of_sections(full):
    found = gather(full.everything, prompts=0).stages
    assert [one.stage for one in found][:4] == ["ctr/split", "dataset", "similar_items", "source"]
    assert found[-1].section == "evaluate"
    assert next(one for one in found if one.stage == "mf").cells[1][0] == "seed 2"


def test_baselines_alone_give_shorter_facts(plain):
    found = gather(plain.everything, prompts=3)
    assert found.prompts == []
    assert found.boards[0].comparisons.height == 0
    assert set(found.boards[0].kinds.values()) == {"baseline"}
    assert len(found.codes) == 2
    assert found.codes[0].bits == BITS


def test_nothing_at_all_gives_empty_facts():
    found = gather([], prompts=3)
    assert found.curves.height == found.timeline.height == 0
    assert (found.boards, found.codes, found.parts, found.checks, found.stages) == ([], [], [], [], [])


def test_each_track_has_its_own_board_of_its_own_names(ranked_study):
    ctr, next_item, *_ = gather(ranked_study.everything, prompts=0).boards
    assert (ctr.track.name, next_item.track.name) == ("ctr", "next_item")
    assert (ctr.compete, next_item.compete) == (False, True)
    for board in (ctr, next_item):
        assert set(board.leaderboard["track"]) == {board.track.name}
        assert set(board.costs) == set(board.kinds)
    both = ctr.costs[Name("popularity", "default")], next_item.costs[Name("popularity", "default")]
    assert both[0].seconds != both[1].seconds
    assert {str(name): kind for name, kind in next_item.kinds.items()} == {
        "popularity/default": "baseline",
        "sasrec/default": "baseline",
        "sasrec/seen_kept": "aside",
    }


def test_every_kind_of_list_has_a_board_of_its_own_and_charges_no_model(ranked_study):
    _, _, *lists = gather(ranked_study.everything, prompts=0).boards
    assert [one.track.name for one in lists] == [
        "rerank/random_10",
        "rerank/random_20",
        "rerank/retrieved_50",
    ]
    for board in lists:
        assert set(board.kinds) == {Name("sasrec", "default"), Name("popularity", "default")}
        assert set(board.leaderboard["track"]) == {board.track.name}
        assert board.compete
        assert board.costs == {}


def test_hostile_titles_are_in_the_data(full):
    titles = next(a for a in full.everything if a.stage == "dataset").table("items")["title"]
    assert titles.head(len(HOSTILE)).to_list() == list(HOSTILE)


def computed(stage: str, fingerprint: str, *parents: str, **how) -> Artefact:
    """An artefact of a heavy stage: it says how it was computed."""
    made = fake(stage, fingerprint, *parents)
    made.manifest["measured"].update({"threads": 1, "dtype": "float32", **how})
    return made


def two_methods(**how) -> list[facts.Unlike]:
    """What differs between two methods, the second's adapter made otherwise."""
    one = computed("tallrec/predictions", "p1", "a1", attention="sdpa")
    other = computed("binllm/predictions", "p2", "a2", attention="sdpa")
    behind = [computed("tallrec/adapter", "a1", attention="eager")]
    behind += [computed("binllm/adapter", "a2", **{"attention": "eager", **how})]
    field = [Contender(TALLREC, "method", [one]), Contender(BINLLM, "method", [other])]
    return unlike(field, [one, other, *behind, fake("ctr/split", "s")])


TALLREC, BINLLM = Name("tallrec", "titles"), Name("binllm", "dotted")


def test_figures_computed_alike_are_not_told_apart():
    assert two_methods() == []


@pytest.mark.parametrize(
    ("how", "stages"),
    [
        ({"device": "Accelerator 9"}, "adapter"),
        ({"dtype": "bfloat16"}, "adapter"),
        ({"attention": "sdpa"}, "adapter"),
    ],
)
def test_what_the_machine_decided_otherwise_is_told_with_the_stages_and_methods(how, stages):
    [(fact, value)] = how.items()
    [found] = two_methods(**how)
    assert (found.fact, found.stages) == (fact, stages)
    assert [names for key, names in found.values.items() if key == value] == [[BINLLM]]
    assert [names for key, names in found.values.items() if key != value] == [[TALLREC]]


def test_threads_are_compared_over_all_heavy_stages():
    [found] = two_methods(threads=2)
    assert found == facts.Unlike("threads", "", {"1": [TALLREC, BINLLM], "2": [BINLLM]})


def test_cost_says_how_the_heavy_stages_were_computed():
    light = fake("binllm/prompts", "q")
    heavy = computed("binllm/adapter", "a", device="Accelerator 9", dtype="bfloat16", threads=4)
    found = cost([[heavy, light]])
    assert (found.device, found.dtype, found.threads) == ("Accelerator 9", "bfloat16", "4")
    assert (cost([[light]]).device, cost([[light]]).dtype) == ("cpu", "")

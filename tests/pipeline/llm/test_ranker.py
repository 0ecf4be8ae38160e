"""The shared stages of yes/no methods: shuffles, answers, and every check against the fault it is there for."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluate import leaks
from pipeline.llm import ranker
from pipeline.llm.settings import Prompting
from pipeline.llm.yes_no import Logits
from pipeline.methods import tallrec
from pipeline.stage import Artefact, Verdict
from tests import toy_ctr
from tests.tiny_lm import make_tokenizer

TOKENIZER = make_tokenizer()
SETTINGS = Prompting(train_rows=30)


class World:
    """What a check may look at, made of plain frames: a draft and its inputs."""

    def __init__(self, folder: Path) -> None:
        made = toy_ctr.make(
            folder, ("dataset", "ctr/split", "language_model"), methods={"tallrec": {"variants": ["titles"]}}
        )
        self.inputs = {
            "dataset": made["dataset"]["default"],
            "split": made["ctr/split"]["default"],
            "language_model": made["language_model"]["default"],
        }

    def prompts(self) -> pl.DataFrame:
        words = tallrec.TallrecPrompts(train_rows=30)
        return tallrec.make_prompts(self.inputs, words, "titles", 1, self.inputs["split"].table("examples"))

    def judge(self, name: str, prompts: pl.DataFrame, variant: str = "titles", **changed) -> Verdict:
        draft = SimpleNamespace(read=lambda table: prompts, variant=variant, seed=1)
        checks = ranker.prompt_checks(changed.pop("make", tallrec.make_prompts), shuffled=("shuffled_history",))
        check = next(check for check in checks if check.name == name)
        settings = tallrec.TallrecPrompts(train_rows=30, **changed)
        return check.run(draft, self.inputs, settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def with_target_shown(prompts: pl.DataFrame) -> pl.DataFrame:
    return prompts.with_columns(shown=pl.concat_list("shown", "item"))


def with_foreign_item(prompts: pl.DataFrame) -> pl.DataFrame:
    stray = pl.Series([[99]] * prompts.height, dtype=pl.List(pl.UInt32))
    return prompts.with_columns(shown=pl.concat_list("shown", stray))


FAULTS: dict[str, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "labels_change_no_prompt": lambda p: p.with_columns(
        prompt=pl.concat_str("prompt", pl.col("label").cast(pl.String))
    ),
    "history_is_of_the_past": with_foreign_item,
    "target_not_in_history": with_target_shown,
    "inside_the_budget": lambda p: p.with_columns(tokens=pl.lit(513)),
    "one_prompt_per_example": lambda p: p.reverse(),
    "nothing_smuggled_in": lambda p: p.with_columns(
        prompt=pl.when(pl.col("row") == p["row"][0]).then(pl.lit("</s>") + pl.col("prompt")).otherwise("prompt")
    ),
}


@pytest.mark.parametrize("check", FAULTS)
def test_a_check_passes_what_is_good_and_finds_its_fault(world: World, check: str) -> None:
    good = world.prompts()
    assert world.judge(check, good).passed
    verdict = world.judge(check, FAULTS[check](good))
    assert not verdict.passed
    assert verdict.description


def test_a_title_that_brings_a_line_is_found(world: World) -> None:
    good = world.prompts()
    broken = good.with_columns(
        prompt=pl.when(pl.col("row") == good["row"][3]).then(pl.col("prompt") + "\nYes").otherwise("prompt")
    )
    assert not world.judge("nothing_smuggled_in", broken).passed


def test_a_method_that_reads_labels_is_found(world: World) -> None:
    def peeks(inputs, settings, variant, seed, examples):
        made = tallrec.make_prompts(inputs, settings, variant, seed, examples)
        return made.with_columns(prompt=pl.concat_str("prompt", pl.col("label").cast(pl.String)))

    peeked = peeks(
        world.inputs,
        tallrec.TallrecPrompts(train_rows=30),
        "titles",
        1,
        world.inputs["split"].table("examples"),
    )
    assert not world.judge("labels_change_no_prompt", peeked, make=peeks).passed


def claiming(split: Artefact, history_from: str) -> Artefact:
    """The split with this setting in its manifest, whatever its histories hold."""
    return Artefact(split.path, {**split.manifest, "settings": {"history_from": history_from}})


def test_a_held_out_label_in_a_prompt_is_found_where_histories_are_of_train(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = world.inputs["split"]  # its histories hold earlier valid and test rows
    monkeypatch.setitem(world.inputs, "split", claiming(whole, "train"))
    verdict = world.judge("labels_change_no_prompt", world.prompts())
    assert not verdict.passed
    assert verdict.facts["changed"] > 10
    monkeypatch.setitem(world.inputs, "split", claiming(whole, "any"))
    allowed = world.judge("labels_change_no_prompt", world.prompts())
    assert allowed.passed
    assert "not judged: labels that histories show of earlier held-out rows" in allowed.description


def test_histories_of_train_only_pass(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    split = world.inputs["split"]
    rows = split.table("examples")
    train = set(rows.filter(part="train").select("user", "item").iter_rows())
    kept = [
        [(i, y) for i, y in zip(items, labels, strict=True) if (user, i) in train]
        for user, items, labels in rows.select("user", "history", "history_labels").iter_rows()
    ]
    lists = {
        "history": pl.Series([[i for i, _ in one] for one in kept], dtype=pl.List(pl.UInt32)),
        "history_labels": pl.Series([[y for _, y in one] for one in kept], dtype=pl.List(pl.UInt8)),
    }
    rows.with_columns(**lists).write_parquet(tmp_path / "examples.parquet")
    honest = Artefact(tmp_path, {**split.manifest, "settings": {"history_from": "train"}})
    monkeypatch.setitem(world.inputs, "split", honest)
    assert world.judge("labels_change_no_prompt", world.prompts()) == Verdict(
        True, "0 prompts change", {"changed": 0}
    )


def test_histories_of_others_are_not_judged_as_ones_own(world: World) -> None:
    strange = with_foreign_item(world.prompts())
    assert world.judge("history_is_of_the_past", strange, variant="shuffled_history").passed


def test_a_label_of_the_future_in_the_history_is_found(world: World) -> None:
    examples, interactions = (
        world.inputs[a].table(b) for a, b in (("split", "examples"), ("dataset", "interactions"))
    )
    later = interactions.with_columns(at=pl.col("at") + 10_000)
    assert leaks.shown_too_early(world.prompts(), examples, interactions).is_empty()
    assert leaks.shown_too_early(world.prompts(), examples, later).height > 0


# --- histories and shuffles --------------------------------------------------------------------------------


def test_histories_are_the_latest_and_can_be_likes_only() -> None:
    examples = pl.DataFrame({"history": [[1, 2, 3, 4], []], "history_labels": [[1, 0, 1, 1], []]})
    assert ranker.histories_of(examples, 2, liked_only=True) == ([[3, 4], []], [[1, 1], []])
    assert ranker.histories_of(examples, 3, liked_only=False) == ([[2, 3, 4], []], [[0, 1, 1], []])
    assert ranker.histories_of(examples, 0, liked_only=False) == ([[], []], [[], []])


@given(st.lists(st.integers(0, 6), max_size=30), st.integers(0, 3))
def test_donors_are_other_users_wherever_nobody_owns_more_than_half(users: list[int], seed: int) -> None:
    taken = ranker.donors(users, seed)
    assert sorted(taken) == list(range(len(users)))
    if users and max(map(users.count, users)) * 2 <= len(users):
        assert all(users[place] != user for place, user in zip(taken, users, strict=True))


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers(0, 3))
def test_owners_may_be_words_and_as_few_as_can_be_keep_their_own(owners: list[str], seed: int) -> None:
    taken = ranker.donors(owners, seed)
    assert sorted(taken) == list(range(len(owners)))
    kept = sum(owners[place] == owner for place, owner in zip(taken, owners, strict=True))
    assert kept == max([0, *(2 * owners.count(owner) - len(owners) for owner in owners)])


def test_donors_come_from_the_same_part() -> None:
    rng = np.random.default_rng(0)
    parts = rng.choice(["train", "valid", "test"], 90).tolist()
    examples = pl.DataFrame({"part": parts, "user": rng.integers(0, 9, 90)})
    taken = ranker.donors_by_part(examples, 3)
    assert [parts[i] for i in taken] == parts
    assert sorted(taken) == list(range(90))


def test_validation_rows_are_drawn_by_seed_in_their_order() -> None:
    rows = pl.DataFrame({"row": range(50)})
    assert ranker.draw(rows, 10, 1).equals(ranker.draw(rows, 10, 1))
    assert ranker.draw(rows, 10, 1)["row"].is_sorted()
    assert not ranker.draw(rows, 10, 1).equals(ranker.draw(rows, 10, 2))
    assert ranker.draw(rows, None, 1).height == ranker.draw(rows, 99, 1).height == 50


# --- answers and pairs -------------------------------------------------------------------------------------


def test_endings_are_the_answers_tokens_and_the_end() -> None:
    no, yes = ranker.endings(TOKENIZER, ["### Response:\n"], ("Yes.", "No."), 2)
    assert TOKENIZER.decode(yes, skip_special_tokens=False) == "Yes.<|im_end|>"
    assert TOKENIZER.decode(no, skip_special_tokens=False) == "No.<|im_end|>"
    assert ranker.endings(TOKENIZER, [], ("Yes.", "No."), 2) == ([], [])


def test_pairs_are_scored_by_the_logit_that_was_trained() -> None:
    rows = pl.DataFrame({"part": ["test"], "row": [4], "user": [1], "item": [2], "label": [1]})
    out = SimpleNamespace(stage=SimpleNamespace(method="m"), variant="v", seed=3)
    logits = Logits(torch.tensor([2.0]), torch.tensor([1.5]))
    lead = ranker.pairs_table(rows, logits, "difference", out).row(0, named=True)  # type: ignore[arg-type]
    assert lead["score"] == 0.5
    assert lead["probability"] == pytest.approx(0.6224593)
    single = ranker.pairs_table(rows, logits, "yes_logit", out)  # type: ignore[arg-type]
    assert single["score"].item() == 2.0
    assert (lead["track"], lead["method"], lead["variant"], lead["seed"]) == ("ctr", "m", "v", 3)


PAIRS = pl.DataFrame(
    {
        "row": [1, 2],
        "part": ["valid", "test"],
        "user": [1, 1],
        "item": [5, 6],
        "label": [0, 1],
        "score": [0.1, 0.4],
    }
)


@pytest.mark.parametrize(
    "fault",
    [
        PAIRS.head(1),
        pl.concat([PAIRS, PAIRS.tail(1)]),
        PAIRS.with_columns(score=pl.lit(float("nan"))),
        PAIRS.with_columns(label=1 - pl.col("label")),
        PAIRS.with_columns(user=pl.lit(9)),
    ],
    ids=["missing", "twice", "not a number", "other label", "other user"],
)
def test_pairs_that_are_not_the_prompts_are_found(fault: pl.DataFrame) -> None:
    train = pl.DataFrame({"row": [0], "part": ["train"], "user": [1], "item": [4], "label": [1]})
    prompts = SimpleNamespace(table=lambda name: pl.concat([train, PAIRS.drop("score")]))
    good, bad = (SimpleNamespace(read=lambda name, frame=frame: frame) for frame in (PAIRS, fault))
    check = ranker.every_prompt_scored_once
    assert check(good, {"prompts": prompts}, None).passed  # type: ignore[arg-type]
    assert not check(bad, {"prompts": prompts}, None).passed  # type: ignore[arg-type]


def test_one_score_for_all_is_found() -> None:
    flat = SimpleNamespace(read=lambda name: PAIRS.with_columns(score=pl.lit(0.2)))
    assert not ranker.scores_differ(flat, {}, None).passed  # type: ignore[arg-type]
    assert ranker.scores_differ(SimpleNamespace(read=lambda name: PAIRS), {}, None).passed  # type: ignore[arg-type]


def test_an_adapter_that_ranks_like_a_coin_is_told_but_does_not_block() -> None:
    draft = SimpleNamespace(metrics={"valid_auc": 0.48})
    assert not ranker.ranks_better_than_chance(draft, {}, None).passed  # type: ignore[arg-type]
    blocking = {check.name: check.blocking for check in ranker.ADAPTER_CHECKS}
    assert blocking == {"weights_are_finite": True, "ranks_better_than_chance": False}


def test_weights_that_are_no_numbers_are_found(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for value, passes in ((1.0, True), (float("inf"), False)):
        save_file({"w": torch.tensor([1.0, value])}, tmp_path / "adapter_model.safetensors")
        draft = SimpleNamespace(path=tmp_path)
        assert ranker.weights_are_finite(draft, {}, None).passed == passes  # type: ignore[arg-type]


def test_points_that_are_no_numbers_stay_out_of_the_curve() -> None:
    table = ranker.curve_table([(0, "valid_auc", float("nan")), (0, "valid_loss", 0.7)], "titles")
    assert table.rows() == [("titles", 0, "valid_loss", 0.7)]

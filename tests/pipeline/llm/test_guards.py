"""The guards of prompts, each against the fault it is there for."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import polars as pl
import pytest

from pipeline.evaluate import leaks
from pipeline.llm import guards
from pipeline.llm.ask import Shown
from pipeline.llm.ranker import YesNoRanker
from pipeline.llm.ratings import history_ratings, notes
from pipeline.methods import tallrec
from pipeline.methods.tallrec import RANKER, TallrecPrompts
from pipeline.stage import Artefact, Verdict
from pipeline.text.prompts import parse
from tests import toy_ctr


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
        return RANKER.render(
            self.inputs, TallrecPrompts(train_rows=30), "titles", 1, self.inputs["split"].table("examples")
        )

    def judge(self, name: str, prompts: pl.DataFrame, variant: str = "titles", **changed) -> Verdict:
        draft = SimpleNamespace(read=lambda table: prompts, variant=variant, seed=1)
        checks = guards.Guards(changed.pop("render", RANKER.render), foreign=("shuffled_history",)).checks()
        check = next(check for check in checks if check.name == name)
        settings = TallrecPrompts(train_rows=30, **changed)
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


def peeks(asked: pl.DataFrame, inputs, settings, variant: str, seed: int) -> Shown:
    """A method that shows the answer: a past of one item where the label is 1, of none where it is 0."""
    past = tallrec.shown(asked, inputs, settings, variant, seed).past
    return Shown(past.with_columns(pl.all().list.head(pl.lit(asked["label"]))))


@pytest.mark.parametrize("again", [guards.RENDERED_AGAIN, 100])
def test_a_method_that_reads_labels_is_found(world: World, again: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "RENDERED_AGAIN", again)
    peeking = replace(RANKER, shown=peeks)
    prompts = peeking.render(
        world.inputs, TallrecPrompts(train_rows=30), "titles", 1, world.inputs["split"].table("examples")
    )
    assert world.judge("labels_change_no_prompt", world.prompts()).passed
    verdict = world.judge("labels_change_no_prompt", prompts, render=peeking.render)
    assert not verdict.passed
    assert verdict.facts["changed"] > 10
    assert ("a seeded sample of all 210" in verdict.description) == (again == 100)


def test_of_many_prompts_some_are_made_again_and_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "RENDERED_AGAIN", 20)
    made: list[int] = []

    def counted(*given) -> pl.DataFrame:
        table = RANKER.render(*given)
        made.append(table.height)
        return table

    verdict = world.judge("labels_change_no_prompt", world.prompts(), render=counted)
    assert made == [20]
    assert verdict.passed
    assert verdict.description.startswith("0 of 20 prompts change, a seeded sample of all 210")


def test_some_rows_made_alone_say_what_they_say_among_all(world: World) -> None:
    examples, settings = world.inputs["split"].table("examples"), TallrecPrompts(train_rows=30)
    for variant in ("titles", "alpaca", "shuffled_history"):
        whole = RANKER.render(world.inputs, settings, variant, 1, examples)
        some = whole.filter(pl.col("row") % 7 == 0)
        assert RANKER.render(world.inputs, settings, variant, 1, examples, some["row"]).equals(some)


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
    verdict = world.judge("labels_change_no_prompt", world.prompts())
    assert (verdict.passed, verdict.description) == (True, "0 of 210 prompts change")


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


# --- two forms, and ratings --------------------------------------------------------------------------------


def rated_past(asked: pl.DataFrame, inputs, settings, variant: str, seed: int) -> Shown:
    """A method that tells the latest ratings of the past, honestly."""
    ratings = history_ratings(asked, inputs["dataset"].table("interactions"))
    past = asked.select(items="history", labels="history_labels", notes=notes(asked["history_labels"], ratings))
    return Shown(past.select(pl.all().list.tail(settings.history)))


def own_rating(asked: pl.DataFrame, inputs, settings, variant: str, seed: int) -> Shown:
    """A method that tells the rating that is asked about, as that of the item before."""
    shown = rated_past(asked, inputs, settings, variant, seed)
    own = asked.join(inputs["dataset"].table("interactions"), on="row", how="left", maintain_order="left")[
        "rating"
    ]
    told = pl.Series(
        [[f"{rating:g} stars"] * n for rating, n in zip(own, shown.past["items"].list.len(), strict=True)]
    )
    return Shown(shown.past.with_columns(notes=told.cast(pl.List(pl.String))))


def later_rating(asked: pl.DataFrame, inputs, settings, variant: str, seed: int) -> Shown:
    """A method that tells each past item's rating as of the end of the world."""
    return rated_past(asked.with_columns(at=pl.lit(10**9)), inputs, settings, variant, seed)


def rated_ranker(shown) -> YesNoRanker:
    return replace(
        RANKER,
        shown=shown,
        template=lambda variant, settings: parse("Watched {rated:titles}. Likes {target:title}? Answer:", {}),
        reads_ratings=True,
    )


def judged(world: World, ranker: YesNoRanker, changed: Mapping[str, object] = MappingProxyType({})) -> Verdict:
    inputs, settings = {**world.inputs, **changed}, TallrecPrompts(train_rows=30)
    table = ranker.render(inputs, settings, "titles", 1, inputs["split"].table("examples"))
    draft = SimpleNamespace(read=lambda name: table, variant="titles", seed=1)
    (check,) = (one for one in ranker.guards() if one.name == "later_ratings_change_no_prompt")
    return check.run(draft, inputs, settings)  # type: ignore[arg-type]


def test_ratings_of_the_past_pass_and_the_examples_own_are_found(world: World) -> None:
    good = judged(world, rated_ranker(rated_past))
    assert good.passed
    assert good.facts == {"changed": 0, "rendered again": toy_ctr.USERS}
    assert judged(world, rated_ranker(own_rating)).facts["changed"] > 10


def used_again(world: World) -> Artefact:
    """The dataset, where everybody uses everything a second time at the end and rates it otherwise."""
    dataset = world.inputs["dataset"]
    first = dataset.table("interactions")
    again = first.with_columns(
        at=pl.col("at") + 10_000, row=pl.col("row") + first.height, rating=pl.lit(3.0, pl.Float32)
    )
    return guards.Changed(dataset.path, dataset.manifest, {"interactions": pl.concat([first, again])})


def test_a_later_rating_of_a_past_item_is_found(world: World) -> None:
    changed = {"dataset": used_again(world)}
    assert judged(world, rated_ranker(rated_past), changed).passed
    assert not judged(world, rated_ranker(later_rating), changed).passed


def test_a_held_out_rating_is_found_where_histories_are_of_train(world: World) -> None:
    whole = world.inputs["split"]  # its histories hold earlier valid and test rows, with their ratings
    assert not judged(world, rated_ranker(rated_past), {"split": claiming(whole, "train")}).passed
    assert judged(world, rated_ranker(rated_past), {"split": claiming(whole, "any")}).passed


def test_a_second_form_is_asked_for_and_looked_at(world: World) -> None:
    twice = replace(RANKER, asked_again={"titles": "alpaca"})
    settings, examples = TallrecPrompts(train_rows=30), world.inputs["split"].table("examples")
    good = twice.render(world.inputs, settings, "titles", 1, examples)
    assert good.filter(form=2).height == 30
    peeking = good.with_columns(
        prompt=pl.when(pl.col("form") == 2)
        .then(pl.concat_str("prompt", pl.col("label").cast(pl.String)))
        .otherwise("prompt")
    )

    def judge(name: str, table: pl.DataFrame) -> Verdict:
        draft = SimpleNamespace(read=lambda _: table, variant="titles", seed=1)
        (check,) = (one for one in twice.guards() if one.name == name)
        return check.run(draft, world.inputs, settings)  # type: ignore[arg-type]

    assert judge("one_prompt_per_example", good).passed
    assert not judge("one_prompt_per_example", good.filter(form=1)).passed
    assert not judge("one_prompt_per_example", good.with_columns(form=pl.lit(1, pl.UInt8))).passed
    assert judge("labels_change_no_prompt", good).passed
    assert judge("labels_change_no_prompt", peeking).facts["changed"] == 30

"""Blocking checks of every table `list_prompts`: nothing of the future, of the answer, or smuggled in.

Each takes the draft, its inputs and settings, and says what it found.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import polars as pl

from pipeline.evaluate import leaks
from pipeline.llm.ask import model_folder
from pipeline.llm.guards import verdict_on_shape
from pipeline.llm.load import load_tokenizer
from pipeline.stage import Check, Draft, Verdict


class Tables(NamedTuple):
    """What prompts for lists are made of. lists: part, user, place, item, target, as they are stored."""

    events: pl.DataFrame
    queries: pl.DataFrame
    lists: pl.DataFrame
    items: pl.DataFrame


Render = Callable[[Tables, Any, str, int, Any], pl.DataFrame]  # and settings, variant, seed, tokenizer


def tables(inputs: Mapping[str, Any]) -> Tables:
    split, stored = inputs["split"], inputs["retrieved"].table("candidates")
    lists = stored.select("part", "user", "place", "item", target=pl.col("label") == 1)
    return Tables(split.table("events"), split.table("queries"), lists, inputs["dataset"].table("items"))


def turned(found: Tables) -> Tables:
    """The same with other answers: held-out events and targets of other items, labels turned round."""
    most, held_out = found.events["item"].max(), pl.col("part") != "train"
    item = pl.when(held_out).then(pl.lit(most, pl.UInt32) - pl.col("item")).otherwise("item")
    return found._replace(
        events=found.events.with_columns(item=item),
        queries=found.queries.with_columns(pl.col("targets").reverse()),
        lists=found.lists.with_columns(~pl.col("target")),
    )


def list_checks(render: Render, reordered: Collection[str]) -> tuple[Check, ...]:
    """Blocking checks of a stage that writes `list_prompts`.

    render: makes its table again; reordered: variants that tell lists in another order than the stored one.
    """

    def answers_change_no_prompt(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Other targets, labels and held-out events than the true ones change no prompt and nothing learnt."""
        tokenizer = load_tokenizer(model_folder(inputs["language_model"]))
        again = render(turned(tables(inputs)), settings, draft.variant, draft.seed, tokenizer)
        told = [pl.col("row"), pl.concat_str("prompt", pl.lit("\n"), "answer").alias("told")]
        both = (
            draft.read("list_prompts")
            .select(told)
            .join(again.select(told), on="row", how="full", suffix="_again")
        )
        moved = both.filter(pl.col("told").ne_missing(pl.col("told_again"))).height
        return Verdict(moved == 0, f"{moved} of {both.height} prompts change", {"changed": moved})

    def each_list_asked_once(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Every stored list has one prompt that tells its items and no others, in the order of their places."""
        stored = inputs["retrieved"].table("candidates").sort("part", "user", "place")
        order = None if draft.variant in reordered else stored
        return verdict_on_lists(draft.read("list_prompts").filter(role="ask"), stored, order)

    checks = (
        answers_change_no_prompt,
        history_is_of_the_past,
        lessons_are_of_train,
        each_list_asked_once,
        inside_the_budget,
        nothing_smuggled_in,
    )
    return tuple(Check(check) for check in checks)


def verdict_on_lists(prompts: pl.DataFrame, stored: pl.DataFrame, order: pl.DataFrame | None) -> Verdict:
    """prompts: part, user, candidates; stored, order: part, user, item, the latter in order; None: in any."""
    key = ("part", "user")
    due = stored.group_by(key).agg(items=pl.col("item").sort())
    told = prompts.select(*key, "candidates")
    wrong = [
        due.join(told.group_by(key).len().filter(pl.col("len") == 1), on=key, how="anti").height,
        told.join(due, on=key, how="anti").height,
        told.join(due, on=key).filter(pl.col("candidates").list.sort() != pl.col("items")).height,
    ]
    if order is not None:
        kept = order.group_by(key, maintain_order=True).agg(order="item")
        wrong.append(told.join(kept, on=key).filter(pl.col("candidates") != pl.col("order")).height)
    return Verdict(not any(wrong), f"{sum(wrong)} of {due.height} lists at fault", {"at fault": sum(wrong)})


def history_is_of_the_past(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """Every history item that a prompt shows was used by its user before the first item that is to be named."""
    split, prompts = inputs["split"], draft.read("list_prompts")
    if split.metrics["kind"] == "random":
        return Verdict(True, "not judged: a random split has no time")
    events = split.table("events")
    moments = first_asked(prompts, events, split.table("queries"))
    early = leaks.shown_too_early(prompts, moments, events.select("user", "item", at="row"))
    words = f"{early.height} shown items at fault, {moments.height} of {prompts.height} prompts judged"
    return Verdict(early.is_empty() and moments.height == prompts.height, words, {"at fault": early.height})


def first_asked(prompts: pl.DataFrame, events: pl.DataFrame, queries: pl.DataFrame) -> pl.DataFrame:
    """Columns row and at of each prompt: the number of the event that it asks for first, which tells time
    better than its moment, as several events may share one."""
    wanted = queries.select("part", "user", "at", item=pl.col("targets").list.first())
    held_out = wanted.join(events, on=("part", "user", "at", "item")).select("part", "user", event="row")
    held_out = held_out.group_by("part", "user").agg(at=pl.col("event").min())
    asked = prompts.filter(role="ask").join(held_out, on=("part", "user")).select("row", "at")
    used = events.filter(part="train").select("user", targets="item", at="row")
    taught = prompts.filter(pl.col("role") != "ask").select("row", "user", "targets").explode("targets")
    learnt = taught.join(used, on=("user", "targets")).group_by("row").agg(pl.col("at").min())
    return pl.concat([asked, learnt]).sort("row")


def lessons_are_of_train(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """What is shown and named where it is learnt or chosen by are train events, and no user does both."""
    taught = draft.read("list_prompts").filter(pl.col("role") != "ask")
    train = inputs["split"].table("events").filter(part="train")
    items = taught.select("user", item=pl.col("shown").list.concat("targets")).explode("item")
    strange = items.join(train, on=("user", "item"), how="anti").height
    both = taught.group_by("user").agg(pl.col("role").n_unique()).filter(pl.col("role") > 1).height
    words = f"{strange} items of no train event, {both} users who teach and choose"
    return Verdict(strange == both == 0, words, {"of no train event": strange, "in both": both})


def inside_the_budget(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """No prompt is longer than the token budget."""
    over = draft.read("list_prompts").filter(pl.col("tokens") > settings.max_tokens).height
    return Verdict(over == 0, f"{over} prompts over {settings.max_tokens} tokens", {"over": over})


def nothing_smuggled_in(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """No title or keyword brings a special token or a line: all texts have the same number of both."""
    table, tokenizer = draft.read("list_prompts"), load_tokenizer(model_folder(inputs["language_model"]))
    whole = table.select(pl.col("prompt") + pl.col("answer"), slots=pl.lit([], pl.List(pl.UInt32)))
    return verdict_on_shape(whole, tokenizer)

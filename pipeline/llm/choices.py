"""Lists that a language model is asked to choose from: stored ones to be ordered, and drawn ones to learn from.

    stored lists + queries -> rows to be scored;  train events -> last steps + drawn others -> rows to tune on
    scores of candidates -> table rankings

A row to be scored is a query of the next_item track with one stored list (`pipeline.data.candidates`). A row to
tune on is a user's last training event, what they used before it, and items that they did not use in training:
what they used later is not looked at, so it stands among the others as often as any other item.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from pipeline.collab.reranked import in_order
from pipeline.data.candidates import Used, placed, random_others
from pipeline.evaluate.pointwise import RUN, refusal
from pipeline.evaluate.reranking import judged
from pipeline.llm.ask import model_folder
from pipeline.llm.examples import draw
from pipeline.llm.load import encode, load_tokenizer
from pipeline.schema import PARTS, Rankings, empty
from pipeline.stage import Artefact, Check, Draft, Verdict
from pipeline.text.cleaning import special_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor


KEY = ("part", "user")
Ids = Sequence[int]


class Lists(NamedTuple):
    """Rows: row, part, user, item (the target), history; and their candidates, a table of that name."""

    rows: pl.DataFrame
    candidates: pl.DataFrame


def size_of(name: str) -> int:
    """Items in a list, which its name ends in: `random_20` -> 20."""
    return int(name.rpartition("_")[2])


def stored(queries: pl.DataFrame, lists: pl.DataFrame, name: str) -> Lists:
    """The stored lists of one name with the queries that they belong to. Raises ValueError where there is
    none."""
    own = lists.filter(pl.col("list") == name)
    if own.is_empty():
        raise ValueError(f"no stored list {name!r}; there are {', '.join(sorted(lists['list'].unique()))}")
    targets = own.filter(pl.col("label") == 1).select(*KEY, "item")
    return Lists(targets.join(queries.select(*KEY, "history"), on=KEY, how="left"), own)


def last_steps(events: pl.DataFrame) -> pl.DataFrame:
    """Columns part, user, item, history: each user's last training item and those before it, oldest first.

    events: as the table `events`; users with one training event are left out.
    """
    train = events.filter(part="train").sort("row")
    walks = train.group_by("user", maintain_order=True).agg(walk="item").sort("user")
    walks = walks.filter(pl.col("walk").list.len() > 1)
    last, before = pl.col("walk").list.last(), pl.col("walk").list.head(pl.col("walk").list.len() - 1)
    return walks.select(part=pl.lit("train"), user="user", item=last, history=before)


def drawn(events: pl.DataFrame, name: str, users: int | None, seed: int) -> Lists:
    """Lists to learn from, of at most `users` users drawn by seed, as long as the stored ones of that name."""
    rows, train = draw(last_steps(events), users, seed), events.filter(part="train")
    asked = rows.select(*KEY, target="item")
    items = train["item"].unique().sort().to_numpy()
    others = random_others(asked, Used(train), items, size_of(name) - 1, seed)
    return Lists(rows, placed(name, asked, others, seed))


def together(*several: Lists) -> Lists:
    """Lists one after another, their rows numbered in order of part (train first), user."""
    rows = pl.concat([one.rows.select(*KEY, "item", "history") for one in several])
    ordered = rows.sort(pl.col("part").replace_strict({"train": 0, "valid": 1, "test": 2}), "user")
    listed = pl.concat([one.candidates for one in several]).sort("list", "part", "user", "place")
    return Lists(ordered.with_row_index("row"), listed)


def listed(rows: pl.DataFrame, candidates: pl.DataFrame) -> pl.Series:
    """The items that each row lists, in the order of their places: a list column."""
    found = candidates.sort(*KEY, "place").group_by(KEY, maintain_order=True).agg(listed="item")
    return rows.select(KEY).join(found, on=KEY, how="left", maintain_order="left")["listed"]


# --- scores ------------------------------------------------------------------------------------------------


class Choices(NamedTuple):
    """Prompts as ids, and for each the endings of its candidates in the order of their places, and the
    target's."""

    prompts: Sequence[Ids]
    endings: Sequence[Sequence[Ids]]
    targets: Sequence[int]

    def take(self, places: Sequence[int]) -> "Choices":
        """Those at these places."""
        prompts, endings, targets = self
        return Choices([prompts[i] for i in places], [endings[i] for i in places], [targets[i] for i in places])

    def tokens(self) -> int:
        """Tokens that are read to score them: prompts once, and all endings."""
        return sum(map(len, self.prompts)) + sum(len(one) for endings in self.endings for one in endings)


def titles_of(prompts: Artefact) -> dict[int, str]:
    """Item -> title as the prompts say it, quotes included."""
    return {int(item): title for item, title in prompts.json("titles").items()}


def choices(
    rows: pl.DataFrame,
    candidates: pl.DataFrame,
    titles: Mapping[int, str],
    tokenizer: "Tokenizer",
    end: int | None,
) -> Choices:
    """Rows of the table `choice_prompts` with their candidates' titles as answers; end: the closing token, if
    any."""
    from pipeline.llm.soft_tokens import encode_slots
    from pipeline.llm.titles import endings_of

    items = listed(rows, candidates).to_list()
    endings = [
        endings_of(tokenizer, prompt, [f" {titles[item]}" for item in own], end)
        for prompt, own in zip(rows["prompt"].to_list(), items, strict=True)
    ]
    targets = [own.index(item) for own, item in zip(items, rows["item"].to_list(), strict=True)]
    return Choices(encode_slots(tokenizer, rows), endings, targets)


def figures(scores: Sequence["Tensor"], asked: Choices) -> dict[str, float]:
    """Means over lists: NDCG@10 and HR@1 of the targets, equal scores against them, and minus the logarithm of
    the likelihood of a target as `loss`. NaN, and infinite loss, for no lists."""
    if not scores:
        return {"ndcg_10": math.nan, "hr_1": math.nan, "loss": math.inf}
    own = [float(some[place]) for some, place in zip(scores, asked.targets, strict=True)]
    ranks = np.array([int((some >= score).sum()) for some, score in zip(scores, own, strict=True)])
    gains = np.where(ranks <= 10, 1 / np.log2(1 + ranks), 0.0)
    return {"ndcg_10": float(gains.mean()), "hr_1": float((ranks == 1).mean()), "loss": -float(np.mean(own))}


def rankings_of(
    rows: pl.DataFrame,
    candidates: pl.DataFrame,
    scores: Sequence[Sequence[float | None]],
    out: Draft,
    variant: str | None = None,
) -> pl.DataFrame:
    """Table `rankings` of one variant (the draft's where none is named): each row's candidates by their scores.

    scores: for each row its candidates' scores in the order of their places, None for no score.
    """
    held = pl.Series("score", scores, dtype=pl.List(pl.Float64))
    flat = rows.select(KEY).with_columns(held, item=listed(rows, candidates)).explode("item", "score")
    ordered = in_order(flat.join(candidates, on=(*KEY, "item"), how="left"))
    facts = {"method": out.stage.method, "variant": variant or out.variant, "seed": out.seed}
    return (
        ordered.with_columns(pl.lit(value).alias(name) for name, value in facts.items())
        .select(Rankings.column_names())
        .cast(empty(Rankings).schema)
    )


def sizes(prompts: pl.DataFrame) -> dict[str, float | int | None]:
    """Rows of each part, tokens, and how many prompts had to be cut."""
    tokens = prompts["tokens"]
    return {
        **{f"{part}_rows": prompts.filter(part=part).height for part in PARTS},
        "longest_prompt": int(tokens.max() or 0),  # type: ignore[arg-type]
        "mean_tokens": round(float(tokens.mean() or 0), 2),  # type: ignore[arg-type]
        "prompts_cut": prompts.filter(pl.col("items_dropped") > 0).height,
    }


# --- checks ------------------------------------------------------------------------------------------------

Gather = Callable[[Mapping[str, Any], Any, int], Lists]  # inputs, settings, seed
Render = Callable[
    [Lists, Mapping[str, Any], Any, str, int], pl.DataFrame
]  # lists, inputs, settings, variant, seed


def choice_checks(gather: Gather, render: Render) -> tuple[Check, ...]:
    """Blocking checks of a stage that writes `choice_prompts` over lists and the `candidates` of each.

    gather: its lists again; render: its prompts of given lists again.
    """

    def targets_change_no_prompt(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Naming another candidate the target, and giving its place among the labels, changes no prompt."""
        lists = gather(inputs, settings, draft.seed)
        again = render(with_other_targets(lists), inputs, settings, draft.variant, draft.seed)
        both = draft.read("choice_prompts").join(again, on="row", how="full", suffix="_again")
        changed = both.filter(pl.col("prompt").ne_missing(pl.col("prompt_again"))).height
        return Verdict(changed == 0, f"{changed} of {both.height} prompts change", {"changed": changed})

    def inside_the_budget(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No prompt is longer than the token budget."""
        over = draft.read("choice_prompts").filter(pl.col("tokens") > settings.max_tokens).height
        return Verdict(over == 0, f"{over} prompts over {settings.max_tokens} tokens", {"over": over})

    def nothing_smuggled_in(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No title brings a special token or a line: beside its reserved ones each prompt has the same
        number."""
        read = load_tokenizer(model_folder(inputs["language_model"]))
        faults = smuggled(draft.read("choice_prompts"), read)
        return Verdict(not faults, "; ".join(faults))

    checks = (targets_change_no_prompt, one_prompt_a_list, target_listed_once, nothing_of_the_future)
    return tuple(Check(check) for check in (*checks, inside_the_budget, nothing_smuggled_in))


def with_other_targets(lists: Lists) -> Lists:
    """The same lists with the label moved one place on, the last one's to the first."""
    turned = lists.candidates.sort("list", *KEY, "place")
    turned = turned.with_columns(
        label=pl.col("label").gather((pl.int_range(pl.len()) - 1) % pl.len()).over("list", *KEY)
    )
    targets = turned.filter(pl.col("label") == 1).select(*KEY, "item")
    return Lists(lists.rows.drop("item").join(targets, on=KEY, how="left", maintain_order="left"), turned)


def one_prompt_a_list(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """Every stored list of the chosen kind has one prompt, and so has every list that is tuned on."""
    stored = inputs["candidates"].table("candidates").filter(pl.col("list") == settings.lists)
    own = draft.read("candidates")
    due = pl.concat([stored.select(own.columns), own.filter(part="train")]).sort(own.columns)
    prompts = draft.read("choice_prompts")
    same = own.sort(own.columns).equals(due)
    once = prompts.select(KEY).n_unique() == prompts.height
    told = prompts.select(KEY).sort(KEY).equals(own.select(KEY).unique().sort(KEY))
    return Verdict(same and once and told, f"{prompts.height} prompts", {"prompts": prompts.height})


def target_listed_once(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """Each list holds its prompt's target once, no item twice, and of training no other item its user had
    used."""
    own, prompts = draft.read("candidates"), draft.read("choice_prompts")
    per_list = own.group_by(KEY).agg(
        target=pl.col("item").filter(pl.col("label") == 1).first(),
        targets=pl.col("label").sum(),
        repeated=pl.len() - pl.col("item").n_unique(),
    )
    others = own.filter(pl.col("label") == 0, pl.col("part") == "train")
    used = inputs["split"].table("events").filter(part="train")
    faults = {
        "prompts lack their target": prompts.join(
            per_list.filter(pl.col("targets") == 1),
            left_on=(*KEY, "item"),
            right_on=(*KEY, "target"),
            how="anti",
        ).height,
        "lists hold an item twice": per_list.filter(pl.col("repeated") > 0).height,
        "items to tune on were used by their user": others.join(used, on=("user", "item"), how="semi").height,
    }
    said = [f"{count} {kind}" for kind, count in faults.items() if count]
    return Verdict(not said, "; ".join(said), {"lists": per_list.height})


def nothing_of_the_future(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """Each history is the end of what its user had used before the target: as the split's query says, or, to
    tune on, of the train part without its last event."""
    split = inputs["split"]
    train = split.table("events").filter(part="train").sort("row").group_by("user", maintain_order=True)
    walks = train.agg(history="item").with_columns(
        pl.col("history").list.head(pl.col("history").list.len() - 1)
    )
    past = pl.concat(
        [
            split.table("queries").select(*KEY, "history"),
            walks.select(pl.lit("train").alias("part"), "user", "history"),
        ]
    )
    both = draft.read("choice_prompts").join(past, on=KEY, how="left")
    wrong = both.filter(
        pl.col("shown").ne_missing(pl.col("history").list.tail(pl.col("shown").list.len()))
    ).height
    return Verdict(wrong == 0, f"{wrong} histories at fault", {"at fault": wrong})


def smuggled(prompts: pl.DataFrame, tokenizer: "Tokenizer") -> list[str]:
    """What titles have brought into prompts that is no text of a title, in words."""
    special = special_ids(tokenizer)
    found = zip(encode(tokenizer, prompts["prompt"].to_list()), prompts["slots"].list.len(), strict=True)
    counts = {sum(map(special.__contains__, ids)) - slots for ids, slots in found}
    lines = prompts["prompt"].str.count_matches("\n").n_unique()
    said = [f"{len(counts)} different counts of special tokens"] if len(counts) > 1 else []
    return said + ([f"{lines} different counts of lines"] if lines > 1 else [])


def every_list_in_order(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """Each run has every list of its prompts that is to be ordered: each item once, the best first, the target
    marked."""
    lists = inputs["prompts"].table("candidates").filter(pl.col("part") != "train")
    rows = draft.read("rankings")
    broken, seen = judged(rows.partition_by(*RUN, as_dict=True, maintain_order=True).items(), lists)
    if lists.height and not rows.height:
        broken.append("nothing is ordered")
    return refusal(broken, len(seen))


def scores_differ(draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
    """The model does not find every title equally likely."""
    spread = float(draft.read("rankings")["score"].std() or 0)  # type: ignore[arg-type]
    return Verdict(spread > 1e-6, f"standard deviation {spread:.3g}", {"deviation": spread})

"""Blocking checks of every table `prompts`: nothing of the answer, nothing of the future, nothing smuggled in.

Each takes the draft, its inputs and settings, and says what it found.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from pipeline.evaluate import leaks
from pipeline.llm.ask import model_folder
from pipeline.llm.examples import draw, few_shot
from pipeline.llm.load import encode, load_tokenizer
from pipeline.stage import Artefact, Check, Draft, Verdict
from pipeline.text.cleaning import reserved_id, special_ids

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Render = Callable[[Mapping[str, Any], Any, str, int, pl.DataFrame, pl.Series | None], pl.DataFrame]
RENDERED_AGAIN = (
    5_000  # prompts made a second time with all labels turned; more would cost as much as the stage
)


@dataclass(frozen=True)
class Guards:
    """What is checked of the prompts of one method.

    render: makes its table again, or some rows of it; foreign: variants that show the pasts of other users;
    again: variants that ask train rows a second time.
    """

    render: Render
    foreign: Collection[str] = ()
    again: Collection[str] = ()

    def checks(self, ratings: bool = False) -> tuple[Check, ...]:
        """All of them, blocking. ratings: whether prompts show any."""
        every = (
            self.labels_change_no_prompt,
            self.history_is_of_the_past,
            self.target_not_in_history,
            self.inside_the_budget,
            self.one_prompt_per_example,
            self.nothing_smuggled_in,
            self.every_slot_has_its_vector,
            *((self.later_ratings_change_no_prompt,) if ratings else ()),
        )
        return tuple(Check(check) for check in every)

    def labels_change_no_prompt(self, draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Turning round every example's label, and each held-out one in a history, changes no prompt.

        Where prompts are many, none of a seeded sample: all labels are turned all the same and every past is
        gathered, only the text is made for fewer rows.
        """
        prompts = draft.read("prompts")
        drawn = draw(prompts.filter(form=1), RENDERED_AGAIN, draft.seed)
        some = prompts.filter(pl.col("row").is_in(drawn["row"].implode()))
        only = some["row"] if some.height < prompts.height else None
        train_only = inputs["split"].settings.get("history_from") == "train"
        moved = leaks.moved_by_labels(
            lambda turned: self.render(inputs, settings, draft.variant, draft.seed, turned, only),
            inputs["split"].table("examples"),
            some,
            inputs["dataset"].table("interactions") if train_only else None,
            prompts["row"],
        )
        words = f"{moved.height} of {some.height} prompts change"
        words += f", a seeded sample of all {prompts.height}" if only is not None else ""
        words += "" if train_only else leaks.NOT_JUDGED
        facts = {"changed": moved.height, "rendered again": some.height}
        return Verdict(moved.is_empty(), words, facts)

    def history_is_of_the_past(self, draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Every history item that a prompt shows was used by its user before the prompt's time."""
        return verdict_on_past(leaks.shown_too_early, draft, inputs, self.foreign)

    def target_not_in_history(self, draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No prompt shows its own target in the history, unless its user had really used it before."""
        return verdict_on_past(leaks.targets_leaked, draft, inputs, self.foreign)

    def inside_the_budget(self, draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No prompt is longer than the token budget."""
        over = draft.read("prompts").filter(pl.col("tokens") > settings.max_tokens).height
        return Verdict(over == 0, f"{over} prompts over {settings.max_tokens} tokens", {"over": over})

    def one_prompt_per_example(self, draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Every example that is asked about has one prompt, with its own user, item and label.

        Two where a train row is asked in two forms.
        """
        keys = ("row", "part", "user", "item", "label")
        examples = inputs["split"].scan("examples").select(keys).collect()
        asked = few_shot(examples, settings.train_rows, draft.seed)
        wanted = in_forms(asked, 2 if draft.variant in self.again else 1)
        same = wanted.equals(draft.read("prompts").select(wanted.columns))
        return Verdict(same, f"{asked.height} examples", {"examples": asked.height})

    def nothing_smuggled_in(self, draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No title brings a special token or a line: all prompts have the same number of both."""
        return verdict_on_shape(draft.read("prompts"), load_tokenizer(model_folder(inputs["language_model"])))

    def every_slot_has_its_vector(self, draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """Each reserved token of a prompt stands in a slot, and each slot shows a vector that is there."""
        return verdict_on_slots(
            draft.read("prompts"),
            load_tokenizer(model_folder(inputs["language_model"])),
            draft.metrics.get("soft_vectors", 0) * draft.metrics.get("soft_tokens", 1),
        )

    def later_ratings_change_no_prompt(self, draft: Draft, inputs: Mapping[str, Any], settings: Any) -> Verdict:
        """No prompt hangs on a rating of its moment or later, nor on a held-out one with histories of train.

        One example of each user, drawn by seed, is asked about again, with all such ratings of the user
        altered.
        """
        prompts, dataset = draft.read("prompts"), inputs["dataset"]
        order = np.random.default_rng(draft.seed).permutation(prompts.height)
        chosen = prompts[order].unique("user", keep="first", maintain_order=True).head(RENDERED_AGAIN)
        examples = inputs["split"].table("examples")
        train_only = inputs["split"].settings.get("history_from") == "train"
        altered = leaks.with_later_ratings_altered(
            dataset.table("interactions"), chosen, examples, held_out_too=train_only
        )
        other = {**inputs, "dataset": Changed(dataset.path, dataset.manifest, {"interactions": altered})}
        found = self.render(other, settings, draft.variant, draft.seed, examples, chosen["row"])
        both = prompts.join(found, on=("row", "form"), how="inner", suffix="_again")
        moved = both.filter(pl.col("prompt") != pl.col("prompt_again")).height
        facts = {"changed": moved, "rendered again": both.height}
        return Verdict(not moved, f"{moved} of {both.height} prompts change, of one row a user", facts)


def in_forms(asked: pl.DataFrame, forms: int) -> pl.DataFrame:
    """The examples with `form`: train rows once in each form, the others in the first."""
    first = asked.with_columns(form=pl.lit(1, dtype=pl.UInt8))
    train = first.filter(part="train")
    more = [train.with_columns(form=pl.lit(form, dtype=pl.UInt8)) for form in range(2, forms + 1)]
    return pl.concat([first, *more]).sort("row", "form")


@dataclass(frozen=True)
class Changed(Artefact):
    """An artefact some of whose tables read otherwise, to see what hangs on them."""

    tables: Mapping[str, pl.DataFrame]

    def table(self, name: str) -> pl.DataFrame:
        return self.tables[name] if name in self.tables else super().table(name)


def verdict_on_past(
    guard: Callable[[pl.DataFrame, pl.DataFrame, pl.DataFrame], pl.DataFrame],
    draft: Draft,
    inputs: Mapping[str, Any],
    foreign: Collection[str],
) -> Verdict:
    if draft.variant in foreign:
        return Verdict(True, "not judged: this control shows histories of others")
    examples = inputs["split"].scan("examples").select("row", "at").collect()
    interactions = inputs["dataset"].scan("interactions").select("user", "item", "at").collect()
    found = guard(draft.read("prompts"), examples, interactions)
    words = f"{found.height} shown items at fault" + (
        f", first: {found.row(0, named=True)}" if found.height else ""
    )
    return Verdict(found.is_empty(), words, {"at fault": found.height})


def verdict_on_shape(prompts: pl.DataFrame, tokenizer: "Tokenizer") -> Verdict:
    """One count of special tokens, those of slots aside, and one of line ends over all prompts."""
    special = special_ids(tokenizer)
    found = encode(tokenizer, prompts["prompt"].to_list())
    slots = prompts["slots"].list.len().to_list()
    counts = {sum(map(special.__contains__, ids)) - own for ids, own in zip(found, slots, strict=True)}
    lines = prompts["prompt"].str.count_matches("\n").n_unique()
    words = f"{len(counts)} different counts of special tokens, {lines} of lines"
    return Verdict(len(counts) <= 1 and lines <= 1, words, {"special tokens": sorted(counts), "lines": lines})


def verdict_on_slots(prompts: pl.DataFrame, tokenizer: "Tokenizer", vectors: int) -> Verdict:
    """Reserved tokens, slots and vectors of each prompt are as many, and none is beyond the `vectors` that
    there are."""
    reserved = reserved_id(tokenizer)
    tokens = pl.Series([ids.count(reserved) for ids in encode(tokenizer, prompts["prompt"].to_list())])
    slots, shown = (prompts[name].list.len() for name in ("slots", "vectors"))
    apart = int(((tokens != slots) | (slots != shown)).sum())
    missing = int((prompts["vectors"].explode(empty_as_null=False) >= vectors).sum())
    words = f"{apart} prompts whose slots and vectors differ in number, {missing} vectors that are not there"
    return Verdict(not apart and not missing, words, {"apart": apart, "missing": missing})

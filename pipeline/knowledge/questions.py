"""What a chat model is asked about users and items, and what of a user's past it is told.

    train rows -> told (the first half) -> histories, in words -> reasoning_prompts
    items -> fact_prompts

Words and factors are KAR's (Xi et al., RecSys 2024, https://arxiv.org/abs/2306.10933, as its code has them, an
unbalanced bracket of the one for books included): one list of factors for what users prefer and for what items
are, so that both are told on the same axes. Pure functions from frames to prompts.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from pipeline.ctr.fields import profile
from pipeline.study import Words
from pipeline.text.cleaning import clean
from pipeline.text.item_text import article


class Scenario(NamedTuple):
    """The words of a domain: how a history begins, what is asked about a user, what about an item."""

    opening: str
    user: str
    item: str


MOVIES = Scenario(
    "Given {person}, this user's movie viewing history over time is listed below. ",
    "Analyze user's preferences on movies (consider factors like genre, director/actors, time "
    "period/country, character, plot/theme, mood/tone, critical acclaim/award, production quality, and "
    "soundtrack). Provide clear explanations based on relevant details from the user's movie viewing "
    "history and other pertinent factors.",
    "Introduce movie {title} and describe its attributes (including but not limited to genre, "
    "director/cast, country, character, plot/theme, mood/tone, critical acclaim/award, production "
    "quality, and soundtrack).",
)
BOOKS = Scenario(
    "Given user's book rating history: ",
    "Analyze user's preferences on books about factors like genre, author, writing style, theme, setting,"
    " length and complexity, time period, literary quality, critical acclaim (Provide clear explanations "
    "based on relevant details from the user's book viewing history and other pertinent factors.",
    "Introduce book {title}, which is from brand {brand} and describe its attributes including but not "
    "limited to genre, author, writing style, theme, setting, length and complexity, time period, "
    "literary quality, critical acclaim.",
)
OTHERS = Scenario(  # the factors of a list that the paper's code holds and does not use
    "Given {person}, this user's {item} history over time is listed below. ",
    "Analyze user's preferences on {items} (consider factors like genre, functionality, quality, price, "
    "design, and reputation). Provide clear explanations based on relevant details from the user's {item}"
    " history and other pertinent factors.",
    "Introduce {item} {title} and describe its attributes (including but not limited to genre, "
    "functionality, quality, price, design, and reputation).",
)
AGES = ((56, "56+"), (50, "50-55"), (45, "45-49"), (35, "35-44"), (25, "25-34"), (18, "18-24"), (0, "under 18"))
OCCUPATIONS = (  # as MovieLens-1M numbers them
    "in an unknown occupation",
    "an academic/educator",
    "an artist",
    "in clerical/admin department",
    "a college/grad student",
    "a customer service staff",
    "a doctor/health care",
    "an executive/managerial",
    "a farmer",
    "a homemaker",
    "a K-12 student",
    "a lawyer",
    "a programmer",
    "retired",
    "in sales/marketing department",
    "a scientist",
    "self-employed",
    "a technician/engineer",
    "a tradesman/craftsman",
    "unemployed",
    "a writer",
)
STATES = {"other": OCCUPATIONS[0], "none": OCCUPATIONS[0], "retired": "retired", "unemployed": "unemployed"}


def scenario(words: Words) -> Scenario:
    """The scenario of a study's words: films, books, or anything."""
    return {"movie": MOVIES, "film": MOVIES, "book": BOOKS}.get(words.item.lower(), OTHERS)


def person(text: str | None) -> str:
    """`a female user who is aged under 18 and a K-12 student`, of a profile; what is not known is left out."""
    known = profile(text)
    gender = {"f": "female ", "m": "male "}.get(known.get("gender", "")[:1].lower(), "")
    facts = [aged(known.get("age", known.get("age group", ""))), working(known.get("occupation", ""))]
    said = " and ".join(fact for fact in facts if fact)
    return f"a {gender}user" + (f" who is {said}" if said else "")


def aged(age: str) -> str:
    return f"aged {next(name for least, name in AGES if int(age) >= least)}" if age.isdecimal() else ""


def working(occupation: str) -> str:
    """A number of MovieLens-1M's or a word, as a phrase."""
    if occupation.isdecimal() and int(occupation) < len(OCCUPATIONS):
        return OCCUPATIONS[int(occupation)]
    word = clean(occupation, 60) if re.search(r"[^\W\d_]", occupation) else ""
    return STATES.get(word.lower(), f"{article(word)} {word}" if word else "")


def told(interactions: pl.DataFrame, examples: pl.DataFrame, most: int, of_all: bool = False) -> pl.DataFrame:
    """The first half of each user's train interactions, at most `most`: user, items, ratings, labels, until.

    interactions: row, user, item, rating, at; examples: row, part, label. Oldest first; rows of one moment
    stand in the order of the source. of_all: as many as half of all the user's interactions, held-out ones
    counted, but again of train alone.
    """
    train = examples.filter(part="train").select("row", "label")
    counted = interactions.with_columns(all=pl.len().over("user"))
    rows = counted.join(train, on="row", how="inner").sort("user", "at", "row")
    many = pl.col("all") if of_all else pl.len().over("user")
    due = pl.min_horizontal((many + 1) // 2, pl.lit(most))
    kept = rows.filter(pl.int_range(pl.len()).over("user") < due)
    return kept.group_by("user", maintain_order=True).agg(
        items="item", ratings="rating", labels="label", until=pl.col("at").max()
    )


def histories(
    pasts: pl.DataFrame, titles: Mapping[int, str], profiles: Mapping[int, str | None], words: Words
) -> pl.DataFrame:
    """What a prompt tells of each user, up to its question: owner, text."""
    given = pasts["ratings"].explode(empty_as_null=False)
    starred = (given.cast(pl.Float64) > 1).any()  # else they are labels
    opening = scenario(words).opening
    found = []
    for user, items, ratings, labels in pasts.select("user", "items", "ratings", "labels").iter_rows():
        marks = [mark(r, y, starred) for r, y in zip(ratings, labels, strict=True)]
        entries = [f'"{titles[item]}", {said}' for item, said in zip(items, marks, strict=True)]
        begun = opening.format(person=person(profiles.get(user)), item=words.item)
        found.append((user, begun + "; ".join(entries)))
    return pl.DataFrame(found, schema={"owner": pl.UInt32, "text": pl.String}, orient="row")


def mark(rating: float | None, label: int, starred: bool) -> str:
    """`4 stars`; where there are no ratings `liked` or `disliked`."""
    if starred and rating is not None:
        return f"{int(rating)} stars"
    return "liked" if label else "disliked"


def reasoning_prompts(texts: pl.DataFrame, words: Words) -> pl.DataFrame:
    """What a language model is asked about each user: owner, prompt. texts: `histories`."""
    question = scenario(words).user.format(item=words.item, items=words.items)
    return texts.select("owner", prompt=pl.format("{}; {}", "text", pl.lit(question)))


def fact_prompts(items: pl.DataFrame, title_length: int, words: Words) -> pl.DataFrame:
    """What a language model is asked about each item: owner, prompt. items: item, title."""
    asked, titles = scenario(words).item, safe_titles(items, title_length)
    prompts = [asked.format(title=t, brand="unknown brand", item=words.item) for t in titles.values()]
    return pl.DataFrame({"owner": items["item"], "prompt": pl.Series(prompts, dtype=pl.String)})


def requests(prompts: pl.DataFrame, purpose: str) -> pl.DataFrame:
    """Prompts (owner, prompt) as requests to a chat model: owner, purpose, messages."""
    message = pl.struct(role=pl.lit("user"), content=pl.col("prompt"))
    return prompts.select("owner", purpose=pl.lit(purpose), messages=pl.concat_list(message))


def safe_titles(items: pl.DataFrame, longest: int) -> dict[int, str]:
    return {item: clean(title, longest) for item, title in items.select("item", "title").iter_rows()}

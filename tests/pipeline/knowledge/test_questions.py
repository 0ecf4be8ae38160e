"""The prompts of KAR, letter by letter, and what of a past they tell."""

import polars as pl
import pytest

from pipeline.knowledge.questions import (
    fact_prompts,
    histories,
    person,
    reasoning_prompts,
    requests,
    told,
)
from pipeline.study import Words

MOVIE = Words(item="movie", items="movies")
BOOK = Words(item="book", items="books")
ROWS = pl.DataFrame(
    [
        *[(0, 7, 10, 4.0, 100), (1, 7, 11, 5.0, 100), (2, 7, 12, 2.0, 105), (3, 7, 13, 3.0, 110)],
        *[(4, 7, 14, 1.0, 120), (5, 8, 10, 3.0, 50), (6, 9, 11, 3.0, 60)],
    ],
    schema=["row", "user", "item", "rating", "at"],
    orient="row",
)
PARTS = ["train", "train", "train", "train", "test", "train", "test"]
EXAMPLES = pl.DataFrame({"row": range(7), "part": PARTS, "label": [1, 1, 0, 0, 0, 1, 1]})


def past(items: list[int], ratings: list[float | None], labels: list[int]) -> pl.DataFrame:
    return pl.DataFrame({"user": [7], "items": [items], "ratings": [ratings], "labels": [labels], "until": [0]})


def text(words: Words, profile: str | None = None, ratings: tuple[float | None, ...] = (4.0, 5.0)) -> str:
    titles = {1: "Heat (1995)", 2: "Se7en (1995)"}
    return histories(past([1, 2], list(ratings), [1, 0]), titles, {7: profile}, words)["text"].item()


def test_the_first_half_of_the_train_rows_is_told() -> None:
    found = told(ROWS, EXAMPLES, most=30)
    assert found.rows() == [(7, [10, 11], [4.0, 5.0], [1, 1], 100), (8, [10], [3.0], [1], 50)]


def test_half_of_all_rows_counts_those_held_out_and_tells_train_rows_alone() -> None:
    rows = pl.DataFrame(
        {"row": range(6), "user": [1] * 6, "item": range(6), "rating": [4.0] * 6, "at": range(6)}
    )
    held = pl.DataFrame({"row": range(6), "part": ["train"] * 4 + ["test"] * 2, "label": [1] * 6})
    counts = {of_all: told(rows, held, 30, of_all)["items"].to_list() for of_all in (False, True)}
    assert counts == {False: [[0, 1]], True: [[0, 1, 2]]}
    assert told(rows, held.with_columns(part=pl.lit("train")).head(2), 30, of_all=True)["items"].to_list() == [
        [0, 1]
    ]


def test_no_more_than_the_most_is_told() -> None:
    assert told(ROWS, EXAMPLES, most=1).rows()[0] == (7, [10], [4.0], [1], 100)


def test_what_is_outside_train_is_not_told_and_does_not_count() -> None:
    without = told(ROWS, EXAMPLES.filter(part="train"), most=30)
    assert told(ROWS, EXAMPLES, most=30).equals(without)
    altered = ROWS.with_columns(rating=pl.when(pl.col("row") > 3).then(1.0).otherwise("rating"))
    assert told(altered, EXAMPLES, most=30).filter(user=7).equals(without.filter(user=7))


def test_the_question_about_a_user_of_movies() -> None:
    texts = histories(
        past([1, 2], [4.0, 5.0], [1, 1]),
        {1: "Heat (1995)", 2: "Se7en (1995)"},
        {7: "gender: F, age group: 1, occupation: 10"},
        MOVIE,
    )
    assert reasoning_prompts(texts, MOVIE)["prompt"].to_list() == [
        "Given a female user who is aged under 18 and a K-12 student, this user's movie viewing "
        "history over time is "
        'listed below. "Heat (1995)", 4 stars; "Se7en (1995)", 5 stars; Analyze user\'s preferences on movies '
        "(consider factors like genre, director/actors, time period/country, character, plot/theme, mood/tone, "
        "critical acclaim/award, production quality, and soundtrack). Provide clear explanations "
        "based on relevant "
        "details from the user's movie viewing history and other pertinent factors."
    ]


def test_the_question_about_a_reader_keeps_the_papers_bracket() -> None:
    told_of = pl.DataFrame({"owner": [7], "text": [text(BOOK)]})
    assert reasoning_prompts(told_of, BOOK)["prompt"].item() == (
        'Given user\'s book rating history: "Heat (1995)", 4 stars; "Se7en (1995)", 5 stars; Analyze user\'s '
        "preferences on books about factors like genre, author, writing style, theme, setting, "
        "length and complexity, "
        "time period, literary quality, critical acclaim (Provide clear explanations based on "
        "relevant details from "
        "the user's book viewing history and other pertinent factors."
    )


def test_the_questions_about_items() -> None:
    items = pl.DataFrame({"item": [3], "title": ["Heat (1995)"]})
    assert fact_prompts(items, 80, MOVIE).rows() == [
        (
            3,
            "Introduce movie Heat (1995) and describe its attributes (including but not limited to genre, "
            "director/cast, country, character, plot/theme, mood/tone, critical acclaim/award, "
            "production quality, "
            "and soundtrack).",
        )
    ]
    assert fact_prompts(items, 80, BOOK)["prompt"].item() == (
        "Introduce book Heat (1995), which is from brand unknown brand and describe its attributes "
        "including but not "
        "limited to genre, author, writing style, theme, setting, length and complexity, time period, literary "
        "quality, critical acclaim."
    )
    assert (
        fact_prompts(items, 80, Words(item="lamp"))["prompt"]
        .item()
        .startswith("Introduce lamp Heat (1995) and")
    )


def test_where_there_are_no_ratings_the_label_is_told() -> None:
    assert text(MOVIE, ratings=(None, None)).endswith('"Heat (1995)", liked; "Se7en (1995)", disliked')
    assert text(MOVIE, ratings=(1.0, 0.0)).endswith('"Heat (1995)", liked; "Se7en (1995)", disliked')


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("age: 24, gender: M, occupation: technician", "a male user who is aged 18-24 and a technician"),
        ("age: 56, gender: F, occupation: 0", "a female user who is aged 56+ and in an unknown occupation"),
        ("age: 49", "a user who is aged 45-49"),
        ("gender: M, occupation: executive", "a male user who is an executive"),
        ("occupation: retired", "a user who is retired"),
        ("zip: 1", "a user"),
        (None, "a user"),
    ],
)
def test_a_person_is_told_as_far_as_known(profile: str | None, said: str) -> None:
    assert person(profile) == said


def test_a_request_is_one_message_of_the_user() -> None:
    made = requests(pl.DataFrame({"owner": [3], "prompt": ["Introduce movie Heat"]}), "kar/facts")
    assert made.to_dicts() == [
        {"owner": 3, "purpose": "kar/facts", "messages": [{"role": "user", "content": "Introduce movie Heat"}]}
    ]

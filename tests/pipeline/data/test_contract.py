import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.contract import article_first, clean, findings
from pipeline.schema import Quarantine


def cleaned(text: str | None, length: int = 300) -> str | None:
    return pl.DataFrame({"t": pl.Series([text], dtype=pl.String)}).select(clean(pl.col("t"), length)).item()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Toy Story (1995)", "Toy Story (1995)"),
        ("  two \t\r\n  lines ", "two lines"),
        ("bell\x07 and\x00null\x1b[31m", "bell and null [31m"),
        ("left\u202eright\u2066\u200f", "leftright"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("hidden\U000e0041\U000e007f tag", "hidden tag"),
        ("line\u2028separator", "line separator"),
        ("cafe\u0301", "caf\u00e9"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
        (
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("", None),
        (" \x00\u200b ", None),
        (None, None),
    ],
)
def test_text_from_outside_becomes_one_harmless_line(text: str | None, line: str | None) -> None:
    assert cleaned(text) == line


def test_a_title_of_ten_thousand_characters_is_cut() -> None:
    assert cleaned("x" * 10_000) == "x" * 300
    assert cleaned("ab cd", 3) == "ab"


@given(st.text())
def test_cleaning_twice_changes_nothing_and_leaves_no_line_end(text: str) -> None:
    once = cleaned(text)
    assert cleaned(once) == once
    assert once is None or not set(once) & set("\r\n\t\x00\u202e\u2028")


@pytest.mark.parametrize(
    ("title", "moved"),
    [
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("Usual Suspects, The", "The Usual Suspects"),
        ("Beautiful Mind, A (2001)", "A Beautiful Mind (2001)"),
        ("Postino, Il (The Postman) (1994)", "Il Postino (The Postman) (1994)"),
        ("Avventura, L' (1960)", "L'Avventura (1960)"),
        ("Cook the Thief, His Wife, The (1989)", "The Cook the Thief, His Wife (1989)"),
        ("Cry, the Beloved Country (1995)", "Cry, the Beloved Country (1995)"),
        ("Crouching Tiger, Hidden Dragon", "Crouching Tiger, Hidden Dragon"),
        ("The End", "The End"),
    ],
)
def test_the_article_goes_first(title: str, moved: str) -> None:
    assert pl.DataFrame({"t": [title]}).select(article_first(pl.col("t"))).item() == moved


def test_findings_put_the_most_frequent_first_and_show_its_first_rows() -> None:
    rows = [("a.csv", n, "stars", "missing", None) for n in (9, 3, 5, 7)] + [
        ("a.csv", 1, "when", "no time", "x")
    ]
    names = ["file", "source_row", "column", "reason", "value"]
    frame = pl.DataFrame(rows, schema=names, orient="row").with_columns(table=pl.lit("interactions"))
    assert findings(Quarantine.validate(frame.select(Quarantine.column_names()), cast=True)) == [
        "a.csv: stars: missing: 4 rows (first: row 3, row 5, row 7)",
        "a.csv: when: no time: 1 row (first: row 1 (x))",
    ]

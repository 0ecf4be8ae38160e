"""Lists of titles read from text: by hand, and what holds of any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.text.lists import Listed, likest, normal, read_list, written_titles

FILMS = ["Heat (1995)", "Alien (1979)", "Se7en (1995)", "Brazil (1985)"]


@pytest.mark.parametrize(
    ("text", "titles"),
    [
        (' "Heat (1995)", "Alien (1979)"', ["Heat (1995)", "Alien (1979)"]),
        ('"Heat""Alien" and "Bra', ["Heat", "Alien"]),  # the last was cut off
        ('"", " ", "Heat"', ["Heat"]),
        ("1. Heat\n2) Alien\n\n- Brazil\n* Se7en", ["Heat", "Alien", "Brazil", "Se7en"]),
        ("Heat", ["Heat"]),
        ("", []),
        ('"Heat\nAlien"', []),  # a title is one line
    ],
)
def test_titles_are_what_stands_in_quotes_else_lines(text: str, titles: list[str]) -> None:
    assert written_titles(text) == titles


@pytest.mark.parametrize(
    ("title", "plain"),
    [
        ("Heat (1995)", "heat 1995"),
        ("  HEAT,  1995!", "heat 1995"),
        ("\uff28eat", "heat"),  # a full-width letter
        ("Amélie", "amélie"),
        ("東京", "東京"),
        ("!!!", "!!!"),
        ("", ""),
    ],
)
def test_what_is_compared_of_a_title(title: str, plain: str) -> None:
    assert normal(title) == plain


def test_named_titles_come_first_and_the_rest_keeps_its_order() -> None:
    assert read_list('"Se7en (1995)", "Heat (1995)"', FILMS) == Listed((2, 0, 1, 3), 2, 0, 0)


def test_a_slip_of_the_pen_is_forgiven_and_another_title_is_not() -> None:
    assert read_list('"Sevn (1995)", "Aliens (1979)", "heat 1995"', FILMS) == Listed((1, 0, 2, 3), 2, 0, 1)
    assert read_list('"Aliens (1979)"', FILMS, like=1) == Listed((0, 1, 2, 3), 0, 0, 1)


def test_a_title_named_again_is_counted_and_stays_where_it_was() -> None:
    assert read_list('"Brazil (1985)", "Heat (1995)", "brazil 1985"', FILMS) == Listed((3, 0, 1, 2), 2, 1, 0)


def test_candidates_of_one_title_are_named_one_after_another() -> None:
    twins = ["Hamlet", "Heat", "HAMLET"]
    assert read_list('"Hamlet"', twins) == Listed((0, 1, 2), 1, 0, 0)
    assert read_list('"Hamlet", "Hamlet", "Hamlet"', twins) == Listed((0, 2, 1), 2, 1, 0)


def test_of_equally_like_titles_the_first_of_the_alphabet_is_meant() -> None:
    assert likest("moon a", {"moon c": 1, "moon b": 2}, 0.8) == "moon b"
    assert likest("moon a", {"sun": 1}, 0.8) is None


titles = st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=12)


@given(text=st.text(max_size=80), candidates=titles)
def test_any_text_orders_every_candidate_once_and_counts_all_it_names(text: str, candidates: list[str]) -> None:
    found = read_list(text, candidates)
    assert sorted(found.order) == list(range(len(candidates)))
    assert found.written == len(written_titles(text))
    assert found.order[found.named :] == tuple(sorted(found.order[found.named :]))


@given(st.lists(st.text("abcdefgh ", min_size=1, max_size=9), unique_by=normal, min_size=1), st.data())
def test_a_perfect_text_gives_its_order(candidates: list[str], data: st.DataObject) -> None:
    candidates = [title for title in candidates if title.strip()] or ["a"]
    order = data.draw(st.permutations(range(len(candidates))))
    said = ", ".join(f'"{candidates[place]}"' for place in order)
    assert read_list(said, candidates) == Listed(tuple(order), len(order), 0, 0)


@given(text=st.text("0123456789 \n\"'.,-", max_size=80))
def test_garbage_gives_the_order_as_it_was(text: str) -> None:
    found = read_list(text, ["Heat", "Alien", "Brazil"])
    assert found.order == (0, 1, 2)
    assert (found.named, found.again) == (0, 0)

"""Secrets of addresses are found and hidden; plain addresses are left alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.redact import holds_secret, redact


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("https://ann:pass@host/a.csv", "https://***@host/a.csv"),
        ("https://ann@host/a.csv", "https://***@host/a.csv"),
        ("https://host/a.csv?token=abc&x=1", "https://host/a.csv?token=***&x=1"),
        ("https://host/a?x=1&X-Amz-Signature=abc#here", "https://host/a?x=1&X-Amz-Signature=***#here"),
        ("https://host/a?API_KEY=abc", "https://host/a?API_KEY=***"),
        ("https://host/a?sv=1;sig=abc", "https://host/a?sv=1;sig=***"),
        ("hf:owner/name@hf_abcdefghijklmnopqrst/a", "hf:owner/name@hf_***/a"),
        ("first 'https://a:b@c/' and https://d:e@f", "first 'https://***@c/' and https://***@f"),
    ],
)
def test_a_secret_is_hidden_and_the_rest_is_kept(written: str, shown: str) -> None:
    assert redact(written) == shown
    assert holds_secret(written)
    assert not holds_secret(shown) or redact(shown) == shown


@pytest.mark.parametrize(
    "plain",
    [
        "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        "https://host/@ann/a.csv?page=2&monkey=3&author=x",
        "hf:datasets/owner/name@main/a.csv",
        "pypi:recbole==1.2.1",
        "data/hf_models/sk-1/a@b.csv",
    ],
)
def test_an_address_without_a_secret_is_left_as_it_is(plain: str) -> None:
    assert redact(plain) == plain


@given(
    st.text(st.characters(codec="ascii", exclude_characters="/?#@'\"", categories=["L", "N", "P"]), min_size=1)
)
def test_no_password_survives(password: str) -> None:
    assert redact(f"https://ann:{password}@host/") == "https://***@host/"

"""MovieLens as it is published: the 100K set in RecBole's form, and the 1M set in GroupLens's own.

Both are ordinary tables, so this file holds only their columns, written as a study would write them. The sets
are by F. M. Harper and J. A. Konstan, "The MovieLens Datasets", ACM TiiS 5 (4), 2015; their terms forbid
handing the files on.
"""

from typing import Any

RECBOLE = {"separator": "\t", "quote": None}
GROUPLENS = {"separator": "::", "quote": None}
SHARED = {"rating_range": (1, 5), "leading_article": True}

ML_100K: dict[str, Any] = {
    **SHARED,
    "interactions": {
        **RECBOLE,
        "file": "ml-100k.inter",
        "columns": {
            "user_id": "user_id:token",
            "item_id": "item_id:token",
            "rating": "rating:float",
            "at": "timestamp:float",
        },
    },
    "items": {
        **RECBOLE,
        "file": "ml-100k.item",
        "split": " ",
        "columns": {
            "item_id": "item_id:token",
            "title": "{movie_title:token_seq} ({release_year:token})",
            "categories": "class:token_seq",
        },
    },
    "users": {
        **RECBOLE,
        "file": "ml-100k.user",
        "columns": {
            "user_id": "user_id:token",
            "profile": {"age": "age:token", "gender": "gender:token", "occupation": "occupation:token"},
        },
    },
}

ML_1M: dict[str, Any] = {
    **SHARED,
    "interactions": {
        **GROUPLENS,
        "file": "ratings.dat",
        "header": ("user", "movie", "rating", "seconds"),
        "columns": {"user_id": "user", "item_id": "movie", "rating": "rating", "at": "seconds"},
    },
    "items": {
        **GROUPLENS,
        "file": "movies.dat",
        "encoding": "latin-1",
        "header": ("movie", "title", "genres"),
        "columns": {"item_id": "movie", "title": "title", "categories": "genres"},
    },
    "users": {
        **GROUPLENS,
        "file": "users.dat",
        "header": ("user", "gender", "age", "occupation", "zip"),
        "columns": {"user_id": "user", "profile": {"gender": "gender", "age group": "age"}},
    },
}

TABLES = {"movielens_100k": ML_100K, "movielens_1m": ML_1M}

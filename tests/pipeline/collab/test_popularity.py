"""Popularity counts the likes of the training rows, nothing else."""

from pathlib import Path

from pipeline.collab.labelled import part_of
from pipeline.collab.popularity import likes, popularity
from tests.toy_pairs import HAND, examples, make, passed


def test_likes_are_counted_and_dislikes_are_not() -> None:
    assert likes(part_of(examples(HAND), "train"), 5).tolist() == [2, 0, 1, 0, 0]


def test_what_many_saw_and_half_disliked_beats_what_one_loved() -> None:
    rows = [("train", user, 0, user % 2) for user in range(6)] + [("train", 0, 1, 1)]
    count = likes(part_of(examples(rows), "train"), 2)
    assert count[0] > count[1]


def test_the_stage_scores_held_out_pairs_without_a_probability(tmp_path: Path) -> None:
    found = make(popularity, examples(HAND), tmp_path)
    pairs = found.table("pairs")
    assert pairs["score"].to_list() == [2, 0, 1, 0, 0, 2, 0, 0]
    assert pairs["probability"].null_count() == 8
    assert passed(found) == {"every_pair_scored_once": True}
    assert found.metrics["most_likes"] == 2


def test_validation_and_test_labels_do_not_count(tmp_path: Path) -> None:
    flipped = [(part, u, i, label if part == "train" else 1 - label) for part, u, i, label in HAND]
    first = make(popularity, examples(HAND), tmp_path / "a").table("pairs")
    second = make(popularity, examples(flipped), tmp_path / "b").table("pairs")
    assert first["score"].to_list() == second["score"].to_list()

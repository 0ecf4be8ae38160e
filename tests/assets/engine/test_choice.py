"""Which assets a run takes."""

from pathlib import Path

import pytest

from assets.engine.choice import choose, named
from pipeline.graph import Status
from pipeline.stage import run
from pipeline.store import Store
from pipeline.study import StudyError
from tests import toy

ALL = ["numbers", "doubled", "guess/scores", "board"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def statuses(store: Store) -> list[Status]:
    return toy.GRAPH.status(toy.study(), store, store.root)


def make(store: Store, *names: str) -> None:
    for planned in toy.GRAPH.plan(toy.study(), store, store.root):
        if planned.stage.name in names:
            run(planned.spec)
            head = [{"cell": dict(planned.cell), "fingerprint": planned.spec.fingerprint}]
            store.set_head("toy", planned.stage.name, head)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["numbers"], {"numbers"}),
        (["guess"], {"guess/scores"}),
        (["guess/scores"], {"guess/scores"}),
        (["doubled+"], {"doubled", "guess/scores", "board"}),
        (["guess+"], {"guess/scores", "board"}),
        (["numbers", "board"], {"numbers", "board"}),
    ],
)
def test_words_name_assets_methods_and_what_depends_on_them(words: list[str], found: set[str]) -> None:
    assert named(words, toy.GRAPH) == found


def test_an_unknown_word_names_the_nearest_asset() -> None:
    with pytest.raises(StudyError, match="no asset 'bord'; did you mean 'board'"):
        named(["bord"], toy.GRAPH)


def test_part_of_a_name_is_no_name() -> None:
    with pytest.raises(StudyError, match="no asset 'gue'"):
        named(["gue"], toy.GRAPH)


def test_nothing_asked_for_takes_everything(store: Store) -> None:
    assert choose([], toy.GRAPH, statuses(store)) == ALL


def test_an_asset_brings_the_parents_that_are_missing(store: Store) -> None:
    assert choose(["guess"], toy.GRAPH, statuses(store)) == ["numbers", "doubled", "guess/scores"]


def test_fresh_parents_stay_away_and_missing_ones_behind_them_do_not(store: Store) -> None:
    make(store, "numbers", "doubled")
    assert choose(["guess"], toy.GRAPH, statuses(store)) == ["guess/scores"]
    store.head_file("toy", "numbers").unlink()
    assert choose(["guess"], toy.GRAPH, statuses(store)) == ["numbers", "guess/scores"]

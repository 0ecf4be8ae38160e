"""The graph: settings, cells, plans, and what is fresh, stale or missing and why."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.graph import Graph, identity
from pipeline.stage import Every, Pinned, Source, run
from pipeline.store import Store
from pipeline.study import StudyError
from tests import toy


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def plan(store: Store, **sections):
    return toy.GRAPH.plan(toy.study(**sections), store, store.root)


def materialise(store: Store, **sections) -> list[str]:
    """Make everything as a run does; names of the stages that were computed."""
    computed, cells = [], {}
    for planned in plan(store, **sections):
        _, hit = run(planned.spec)
        computed += [] if hit else [planned.stage.name]
        cells.setdefault(planned.stage.name, []).append(
            {"cell": dict(planned.cell), "fingerprint": planned.spec.fingerprint}
        )
    for name, made in cells.items():
        store.set_head("toy", name, made)
    return computed


def states(store: Store, **sections) -> dict[str, tuple[str, str]]:
    study = toy.study(**sections)
    return {s.planned.stage.name: (s.state, s.why) for s in toy.GRAPH.status(study, store, store.root)}


def test_parents_come_before_children() -> None:
    assert [s.name for s in toy.GRAPH.order] == ["numbers", "doubled", "guess/scores", "board"]
    assert toy.GRAPH.children(["doubled"]) == {"doubled", "guess/scores", "board"}


def test_an_input_that_no_stage_makes_is_an_error_with_the_nearest_name() -> None:
    broken = replace(toy.doubled, inputs={"numbers": "nummers"})
    with pytest.raises(StudyError, match="did you mean 'numbers'"):
        Graph([toy.numbers, broken])


def test_every_without_a_kind_reads_all_other_stages() -> None:
    report = replace(toy.board, name="report", inputs={"everything": Every()})
    graph = Graph([*toy.STAGES, report])
    assert graph.parents(graph.stages["report"]) == ["board", "doubled", "guess/scores", "numbers"]
    assert graph.parents(graph.stages["board"]) == ["guess/scores"]


def test_one_cell_per_seed_and_variant(store: Store) -> None:
    cells = [
        (p.stage.name, dict(p.cell))
        for p in plan(store, seeds=(1, 2), methods={"guess": {"variants": ["plain", "shuffled"]}})
    ]
    assert cells == [
        ("numbers", {}),
        ("doubled", {"seed": 1}),
        ("doubled", {"seed": 2}),
        ("guess/scores", {"variant": "plain", "seed": 1}),
        ("guess/scores", {"variant": "plain", "seed": 2}),
        ("guess/scores", {"variant": "shuffled", "seed": 1}),
        ("guess/scores", {"variant": "shuffled", "seed": 2}),
        ("board", {}),
    ]


def test_a_cell_reads_its_own_seed_and_the_board_reads_all(store: Store) -> None:
    planned = {(p.stage.name, p.cell.get("seed")): p.spec for p in plan(store, seeds=(1, 2))}
    for seed in (1, 2):
        source = planned["guess/scores", seed].inputs["doubled"]
        assert source == Source("doubled", planned["doubled", seed].fingerprint)
    assert len(planned["board", None].inputs["predictions"]) == 2


def test_a_method_that_the_study_does_not_name_has_no_cells_nor_have_models_only_it_reads(store: Store) -> None:
    assert [p.stage.name for p in plan(store, methods={})] == ["numbers", "board"]


def test_a_pinned_input_takes_that_variant_or_says_what_to_add(store: Store) -> None:
    second = replace(
        toy.scores, name="second/scores", inputs={"start": Pinned("guess/scores", "shuffled")}, variants=()
    )
    graph = Graph([*toy.STAGES, second])
    both = {"guess": {"variants": ["plain", "shuffled"]}, "second": {}}
    planned = {p.stage.name: p for p in graph.plan(toy.study(methods=both), store, store.root)}
    source = planned["second/scores"].spec.inputs["start"]
    assert source.fingerprint == planned["guess/scores"].spec.fingerprint
    with pytest.raises(StudyError, match=r"starts from guess/scores, variant 'shuffled'.*methods.guess"):
        graph.plan(toy.study(methods={"guess": {}, "second": {}}), store, store.root)


def test_words_of_the_study_reach_the_stages_that_share_them(store: Store) -> None:
    specs = {p.stage.name: p.spec for p in plan(store, words={"item": "movie"})}
    assert specs["guess/scores"].settings["word"] == "movie"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"data": {"nmbers": {}}}, "data: unknown key 'nmbers'; did you mean 'numbers'"),
        ({"data": {"numbers": {"cuont": 1}}}, "unknown key 'cuont'; did you mean 'count'"),
        ({"data": {"numbers": {"count": "many"}}}, "data.numbers: count: .*given: 'many'"),
        ({"methods": {"guess": {"variants": ["plian"]}}}, "unknown variant 'plian'; did you mean 'plain'"),
        ({"methods": {"guess": {"score": {}}}}, "methods.guess: unknown key 'score'; did you mean 'scores'"),
        ({"methods": {"guess": ["plain"]}}, "methods.guess: keys and values go here"),
        ({"methods": {"gues": {}}}, "did you mean 'guess'"),
    ],
)
def test_whatever_no_stage_knows_is_an_error(store: Store, sections: dict, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        plan(store, **sections)


def test_an_unchanged_study_computes_nothing_again(store: Store) -> None:
    assert materialise(store) == ["numbers", "doubled", "guess/scores", "board"]
    assert materialise(store) == []
    assert set(states(store).values()) == {("fresh", "")}


@pytest.mark.parametrize(
    ("change", "computed"),
    [
        ({"evaluate": {"board": {"title": "new"}}}, ["board"]),
        ({"methods": {"guess": {"scores": {"shift": 2.0}}}}, ["guess/scores", "board"]),
        ({"models": {"doubled": {"times": 3}}}, ["doubled", "guess/scores", "board"]),
        ({"title": "Another title"}, []),
        ({"budget": {"threads": 1}}, []),
    ],
)
def test_a_changed_setting_computes_its_stage_and_what_depends_on_it(
    store: Store, change: dict, computed: list[str]
) -> None:
    materialise(store)
    stale = [name for name, (state, _) in states(store, **change).items() if state != "fresh"]
    assert stale == computed
    assert materialise(store, **change) == computed


def test_status_says_why(store: Store) -> None:
    assert states(store)["numbers"] == ("missing", "never made for this study")
    materialise(store)
    changed = states(store, data={"numbers": {"count": 4}})
    assert changed["numbers"] == ("stale", "count 3 -> 4")
    assert changed["doubled"] == ("stale", "numbers changed")
    newer = Graph([replace(toy.numbers, version=2), *toy.STAGES[1:]])
    assert newer.status(toy.study(), store, store.root)[0].why == "version 1 -> 2"


def test_artefacts_that_vanished_are_missing(store: Store) -> None:
    materialise(store)
    for file in store.place("numbers", plan(store)[0].spec.fingerprint).iterdir():
        file.unlink()
    assert states(store)["numbers"] == ("missing", "its files are gone")


def test_a_changed_file_outside_makes_its_stage_stale(store: Store) -> None:
    store.root.mkdir(parents=True)
    (store.root / "x.txt").write_text("one")
    reads = {"data": {"numbers": {"file": "x.txt"}}}
    materialise(store, **reads)
    (store.root / "x.txt").write_text("two")
    assert states(store, **reads)["numbers"] == ("stale", "the source changed")


def test_going_back_to_old_settings_is_a_hit(store: Store) -> None:
    materialise(store)
    materialise(store, data={"numbers": {"count": 4}})
    assert materialise(store) == []


def test_the_identity_of_an_asset_follows_its_cells(store: Store) -> None:
    one, two = plan(store, seeds=(1,)), plan(store, seeds=(1, 2))
    assert identity(one[:1]) == one[0].spec.fingerprint
    assert identity(two[1:3]) != identity(one[1:2])

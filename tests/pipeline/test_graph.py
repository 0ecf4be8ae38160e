"""The graph: settings, cells, plans, and what is fresh, stale or missing and why."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.graph import Graph, identity, several_changed
from pipeline.stage import Every, Pinned, Settings, Source, Stage, run, stage
from pipeline.store import Store
from pipeline.study import Study, StudyError
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
        ({"methods": {"guess": {"variants": [{"plain": 1}]}}}, "unknown variant {'plain': 1}"),
        ({"methods": {"guess": {"variants": ["plain", "shuffled", "plain"]}}}, "'plain' is there twice"),
        ({"methods": {"guess": {"variants": ["pl*", "plain"]}}}, "'plain' is there twice"),
        ({"methods": {"guess": {"variants": ["x*"]}}}, "unknown variant 'x\\*'"),
        (
            {"methods": {"guess": {"variants": []}}},
            r"^studies/toy.yaml: methods.guess.variants: the list is empty: leave the key out for the default, "
            r"or name some of plain, shuffled; .* leave out methods.guess",
        ),
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


def test_a_reason_names_three_changed_inputs_and_counts_the_others() -> None:
    assert several_changed(["a", "b", "c"]) == ["a changed", "b changed", "c changed"]
    assert several_changed(list("abcde")) == ["a changed", "b changed", "c changed", "2 more inputs changed"]
    assert several_changed([]) == []


def test_a_changed_file_outside_makes_its_stage_stale(store: Store) -> None:
    store.root.mkdir(parents=True)
    (store.root / "x.txt").write_text("one")
    reads = {"data": {"numbers": {"file": "x.txt"}}}
    materialise(store, **reads)
    (store.root / "x.txt").write_text("two")
    assert states(store, **reads)["numbers"] == ("stale", "file changed")


def test_going_back_to_old_settings_is_a_hit(store: Store) -> None:
    materialise(store)
    materialise(store, data={"numbers": {"count": 4}})
    assert materialise(store) == []


def test_variants_of_a_method_that_has_none_are_an_error(store: Store) -> None:
    alone = Graph([replace(toy.scores, variants=(), default_variants=(), inputs={})])
    with pytest.raises(StudyError, match=r"guess\.variants: guess has no variants: leave the key out"):
        alone.plan(toy.study(methods={"guess": {"variants": ["plain"]}}), store, store.root)


def test_a_star_asks_for_every_variant_of_that_form(store: Store) -> None:
    for written, found in ((["*"], ["plain", "shuffled"]), (["shuff*", "plain"], ["shuffled", "plain"])):
        planned = plan(store, methods={"guess": {"variants": written}})
        assert [p.cell["variant"] for p in planned if p.stage is toy.scores] == found


def test_variants_without_a_list_are_the_default(store: Store) -> None:
    found = plan(store, methods={"guess": {"variants": None}})
    assert [p.cell["variant"] for p in found if p.stage is toy.scores] == ["plain"]


HEAVY = Graph([toy.numbers, replace(toy.doubled, needs="heavy"), *toy.STAGES[2:]])


def threaded(store: Store, threads: int | None) -> dict[str, str]:
    study = toy.study(budget={"threads": threads})
    return {p.stage.name: p.spec.fingerprint for p in HEAVY.plan(study, store, store.root)}


def test_threads_that_the_study_asks_for_are_part_of_what_a_heavy_stage_is(store: Store) -> None:
    free, one, two = (threaded(store, threads) for threads in (None, 1, 2))
    assert free["numbers"] == one["numbers"] == two["numbers"]
    assert len({free["doubled"], one["doubled"], two["doubled"]}) == 3
    assert free == {p.stage.name: p.spec.fingerprint for p in plan(store)}  # all cores: the machine's affair


def test_a_change_of_threads_is_told(store: Store) -> None:
    for planned in HEAVY.plan(toy.study(budget={"threads": 1}), store, store.root):
        run(planned.spec)
        cell = {"cell": dict(planned.cell), "fingerprint": planned.spec.fingerprint}
        store.set_head("toy", planned.stage.name, [cell])
    found = HEAVY.status(toy.study(budget={"threads": 2}), store, store.root)
    assert {s.planned.stage.name: s.why for s in found}["doubled"] == "threads 1 -> 2"


def test_a_file_outside_that_cannot_be_had_is_told_with_the_study_and_its_key(store: Store) -> None:
    def gone(settings, root: Path) -> dict[str, str]:
        raise StudyError("data: no such file")

    graph = Graph([replace(toy.numbers, outside=gone), *toy.STAGES[1:]])
    with pytest.raises(StudyError, match=r"^studies/toy.yaml: data.numbers: data: no such file"):
        graph.plan(toy.study(), store, store.root)


def test_the_identity_of_an_asset_follows_its_cells(store: Store) -> None:
    one, two = plan(store, seeds=(1,)), plan(store, seeds=(1, 2))
    assert identity(one[:1]) == one[0].spec.fingerprint
    assert identity(two[1:3]) != identity(one[1:2])


# --- tracks and models left out ----------------------------------------------------------------------------


def declared(name: str, **facts) -> Stage:
    return stage(name, settings=Settings, version=1, **facts)(lambda out, **given: None)


TWO_TRACKS = Graph(
    [
        declared("dataset", section="data"),
        declared("ctr/split", section="data", inputs={"dataset": "dataset"}),
        declared("next_item/split", section="data", inputs={"dataset": "dataset"}),
        declared("means", section="models", inputs={"split": "ctr/split"}, predicts="pairs"),
        declared("next_item/ease", section="models", inputs={"split": "next_item/split"}, predicts="rankings"),
        declared("next_item/bpr", section="models", inputs={"split": "next_item/split"}, predicts="rankings"),
        declared("ctr/leaderboard", section="evaluate", inputs={"predictions": Every("pairs")}),
        declared("next_item/leaderboard", section="evaluate", inputs={"predictions": Every("rankings")}),
        declared("report", section="evaluate", inputs={"everything": Every()}),
    ]
)
OF_NEXT_ITEM = {"next_item/split", "next_item/ease", "next_item/bpr", "next_item/leaderboard"}
OF_CTR = {"ctr/split", "means", "ctr/leaderboard"}
OF_BOTH = {"dataset", "report"}


def wanted(**sections) -> set[str]:
    return TWO_TRACKS.wanted(Study(name="toy", title="Toy", **sections))


def test_a_study_runs_the_tracks_that_it_names_and_ctr_where_it_names_none() -> None:
    assert wanted() == OF_BOTH | OF_CTR
    assert wanted(tracks=("next_item",)) == OF_BOTH | OF_NEXT_ITEM
    assert wanted(tracks=("ctr", "next_item")) == OF_BOTH | OF_CTR | OF_NEXT_ITEM


def test_a_model_left_out_is_not_run_and_nobody_waits_for_it(store: Store, tmp_path: Path) -> None:
    study = Study(name="toy", title="Toy", tracks=("next_item",), leave_out=("next_item/bpr",))
    made = {planned.stage.name: planned.spec for planned in TWO_TRACKS.plan(study, store, tmp_path)}
    assert set(made) == OF_BOTH | OF_NEXT_ITEM - {"next_item/bpr"}
    read = made["next_item/leaderboard"].inputs["predictions"]
    assert [source.stage for source in read] == ["next_item/ease"]


def test_a_reader_of_every_model_reads_no_method_of_the_same_kind(store: Store, tmp_path: Path) -> None:
    split = {"split": "next_item/split"}
    method = declared("tiger/predictions", section="methods", inputs=split, predicts="rankings")
    reader = declared("retrieved", section="data", inputs={"rankings": Every("rankings", section="models")})
    study = Study(name="toy", title="Toy", tracks=("next_item",), methods={"tiger": {}})
    plan = Graph([*TWO_TRACKS.order, method, reader]).plan(study, store, tmp_path)
    made = {planned.stage.name: planned.spec for planned in plan}
    both = [source.stage for source in made["next_item/leaderboard"].inputs["predictions"]]
    assert both == ["next_item/bpr", "next_item/ease", "tiger/predictions"]
    assert [source.stage for source in made["retrieved"].inputs["rankings"]] == both[:2]


def test_a_model_to_leave_out_that_is_none_is_an_error_with_the_nearest_name(
    store: Store, tmp_path: Path
) -> None:
    for name in ("next_item/eas", "next_item/leaderboard"):
        study = Study(name="toy", title="Toy", leave_out=(name,))
        with pytest.raises(StudyError, match=f"leave_out: unknown '{name}'"):
            TWO_TRACKS.plan(study, store, tmp_path)


def test_a_model_that_no_method_reads_runs_where_the_study_also_wants_it(store: Store, tmp_path: Path) -> None:
    assert "doubled" not in {p.stage.name for p in toy.GRAPH.plan(toy.study(methods={}), store, tmp_path)}
    also = {p.stage.name for p in toy.GRAPH.plan(toy.study(methods={}, also=("doubled",)), store, tmp_path)}
    assert {"numbers", "doubled"} <= also


@pytest.mark.parametrize("name", ["doublet", "board", "guess/scores"])
def test_what_is_also_wanted_must_be_a_stage_of_models(name: str, store: Store, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=f"also: unknown '{name}'"):
        toy.GRAPH.plan(toy.study(also=(name,)), store, tmp_path)


@pytest.mark.parametrize("tracks", [(), ("ctr", "ctr"), ("crt",), ("ctr", "rerank")])
def test_tracks_that_are_none_repeat_are_unknown_or_lack_another_are_refused(tracks: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Study(name="toy", title="Toy", tracks=tracks)  # type: ignore[arg-type]

"""What the command line prints of a study: states with reasons, and the leaderboard, best first."""

from io import StringIO
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from assets.engine import terminal
from pipeline.forecasts import Told
from pipeline.graph import Status
from pipeline.machine import GIB, Forecast, Machine
from pipeline.stage import run
from pipeline.store import Artefact, Store
from tests import toy


def printed(thing: object) -> list[str]:
    sink = StringIO()
    Console(file=sink, width=200, no_color=True).print(thing)
    return [" ".join(line.split()) for line in sink.getvalue().splitlines()]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def statuses(store: Store, **sections) -> list[Status]:
    return toy.GRAPH.status(toy.study(**sections), store, store.root)


def make(store: Store, **sections) -> None:
    heads: dict[str, list] = {}
    for planned in toy.GRAPH.plan(toy.study(**sections), store, store.root):
        run(planned.spec)
        head = {"cell": dict(planned.cell), "fingerprint": planned.spec.fingerprint}
        heads.setdefault(planned.stage.name, []).append(head)
    for name, head in heads.items():
        store.set_head("toy", name, head)


def test_a_line_per_asset_with_state_cells_and_reason(store: Store) -> None:
    assert printed(terminal.status_table(statuses(store, seeds=(1, 2)), store))[1:] == [
        "numbers missing 1 never made for this study",
        "doubled missing 2 never made for this study",
        "guess/scores missing 2 never made for this study",
        "board missing 1 never made for this study",
    ]


def test_fresh_assets_show_what_they_took_and_partly_fresh_ones_how_far_they_are(store: Store) -> None:
    make(store, seeds=(1,))
    lines = printed(terminal.status_table(statuses(store, seeds=(1, 2)), store))
    assert lines[1].startswith("numbers fresh 1")
    assert lines[1].endswith(" s")
    assert lines[2].startswith("doubled missing 1 of 2 fresh never made for this study")


def test_what_is_foretold_is_a_line_an_asset_and_their_sum() -> None:
    known = Forecast(3 * GIB, seconds=40.0, paced_by="8 earlier runs here")
    told = [Told("a", 1, (known,), ""), Told("b", 2, (), ""), Told("c", 2, (known, known), "too much")]
    assert printed(terminal.forecast_table(told, Machine(free=8 * GIB)))[1:] == [
        "a 1 3.0 GiB about 40 s 8 earlier runs here",
        "b 2 not known yet",
        "c 2 3.0 GiB about 80 s 8 earlier runs here",
        "together 8.0 GiB free about 2 min",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, ""), (0.2, "about 1 s"), (119, "about 119 s"), (120, "about 2 min"), (7200, "about 2 h")],
)
def test_a_length_of_time_is_told_in_one_unit(seconds: float | None, words: str) -> None:
    assert terminal.lasting(seconds) == words


def test_only_the_asked_assets_are_shown(store: Store) -> None:
    assert len(printed(terminal.status_table(statuses(store), store, only=["board"]))) == 2


def test_checks_that_block_are_told_from_those_that_warn() -> None:
    verdicts = {
        name: {"passed": passed, "blocking": blocking}
        for name, passed, blocking in (("odd", False, False), ("sore", False, True), ("fine", True, True))
    }
    assert terminal.failures([Artefact(Path(), {"checks": verdicts})]) == [
        "[red]check failed: sore[/red]",
        "[yellow]check warns: odd[/yellow]",
    ]


def test_text_of_a_setting_is_not_taken_for_markup(store: Store) -> None:
    make(store)
    lines = printed(
        terminal.status_table(statuses(store, evaluate={"board": {"title": "[red]x[/red]"}}), store)
    )
    assert "[red]x[/red]" in lines[-1]


def row(method: str, metric: str, value: float, variant: str = "default", track: str = "ctr") -> dict:
    return {
        "track": track,
        "method": method,
        "variant": variant,
        "part": "test",
        "metric": metric,
        "value": value,
        "low": value - 0.05,
        "high": value + 0.05,
    }


def board(monkeypatch: pytest.MonkeyPatch, *rows: dict) -> list[str]:
    monkeypatch.setattr(terminal, "board", lambda *_: pl.DataFrame(rows) if rows else None)
    shown = terminal.leaderboard(Store("/nowhere"), "toy")
    return printed(shown) if shown else []


def test_the_best_stands_first_with_its_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = board(
        monkeypatch,
        row("binllm", "uauc", 0.7, "dotted"),
        row("mf", "uauc", 0.6),
        row("binllm", "auc", 0.71, "dotted"),
        row("mf", "auc", 0.72),
    )
    assert lines[0] == "Leaderboard of toy, ctr, test part, 95 % intervals over users"
    assert lines[1] == "method auc uauc"
    assert lines[2] == "mf 0.7200 .670-.770 0.6000 .550-.650"
    assert lines[3] == "binllm (dotted) 0.7100 .660-.760 0.7000 .650-.750"


def test_a_whole_leaderboard_stands_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = ("auc", "uauc", "log_loss", "accuracy")
    rows = [row("tallrec", metric, 0.5, "shuffled_history") for metric in metrics]
    monkeypatch.setattr(terminal, "board", lambda *_: pl.DataFrame(rows))
    sink = StringIO()
    Console(file=sink, width=80, no_color=True).print(terminal.leaderboard(Store("/nowhere"), "toy"))
    assert len(sink.getvalue().splitlines()) == 3
    assert "tallrec (shuffled_history) 0.5000 .450-.550 0.5000 .450-.550" in sink.getvalue()
    assert sink.getvalue().split()[-2:] == ["0.5000", "0.5000"]  # the last ones without bounds


@pytest.mark.parametrize("width", [80, 120])
def test_findings_of_the_doctor_stand_below_each_other(width: int) -> None:
    sink = StringIO()
    on = Console(file=sink, width=width, no_color=True)
    on.print(terminal.diagnosis("good", "disk", "9 GiB free", ""))
    on.print(terminal.diagnosis("note", "language_model of collm-ml1m", "[b]x[/b] " + "long " * 30, "mend it"))
    lines = sink.getvalue().splitlines()
    assert lines[0].index("9 GiB") == lines[1].index("[b]x[/b]") == lines[-1].index("-> mend it")
    assert all(not line[: lines[0].index("9 GiB")].strip() for line in lines[2:])


def test_a_method_without_the_leading_metric_stands_last(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = board(monkeypatch, row("a", "log_loss", 0.4), row("b", "uauc", 0.5))
    assert [line.split()[0] for line in lines[2:]] == ["b", "a"]


def test_every_kind_of_list_has_a_table_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = board(
        monkeypatch,
        row("als", "hr_1", 0.3, track="rerank/random_10"),
        row("als", "hr_1", 0.2, track="rerank/random_20"),
        row("als", "hr_10", 0.8, track="rerank/random_20"),
    )
    assert [line.split(", ")[1] for line in lines if line.startswith("Leaderboard")] == [
        "rerank/random_10",
        "rerank/random_20",
    ]
    assert [line for line in lines if line.startswith("method")] == [
        "method hr_1",
        "method hr_1 hr_10",
    ]
    assert "als 0.3000 .250-.350" in lines


def test_of_losses_the_lowest_stands_first(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = board(monkeypatch, row("worse", "log_loss", 0.9), row("better", "log_loss", 0.4))
    assert [line.split()[0] for line in lines[2:]] == ["better", "worse"]


def test_a_study_without_a_leaderboard_prints_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert terminal.board(store, "toy", "ctr", "test") is None
    assert board(monkeypatch) == []


def test_rows_of_a_query_are_cut_and_markup_is_shown_as_written() -> None:
    lines = printed(
        terminal.frame_table(pl.DataFrame({"title": ["[bold]x", None], "n": [0.1234567891, 2.0]}), 1)
    )
    assert lines == ["title n", "[bold]x 0.123457"]

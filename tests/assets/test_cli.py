"""The command line: what it prints, its exit status, and that errors are messages."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner, Result

from assets import cli
from assets.engine import declare, runs
from pipeline import stage
from pipeline.schema import Leaderboard
from pipeline.study import StudyError
from resources.doctor import Finding
from tests import toy
from tests.assets import stages
from tests.assets.projects import Workshop, declared

ALL = ["numbers", "doubled", "guess/scores", "board"]


@pytest.fixture
def shop(lasting: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """The toy project as the project that the command line works on."""
    return serve(lasting, monkeypatch)


@pytest.fixture
def idle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """The same without Dagster's databases, for commands that do not run anything."""
    return serve(Workshop.at(tmp_path), monkeypatch)


def serve(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    monkeypatch.setenv("INTERLINGUA_ROOT", str(workshop.project.root))
    monkeypatch.setattr(declare, "discover", lambda: workshop.declared)
    return workshop


def ask(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words))


def flat(result: Result) -> str:
    """Output on one line, as it may be folded anywhere."""
    return " ".join(result.output.split())


def made(workshop: Workshop) -> None:
    """Every artefact and head, without Dagster."""
    store = workshop.project.store
    for planned in toy.GRAPH.plan(toy.study(), store, workshop.project.root):
        stage.run(planned.spec)
        head = [{"cell": dict(planned.cell), "fingerprint": planned.spec.fingerprint}]
        store.set_head("toy", planned.stage.name, head)


@pytest.mark.usefixtures("no_warehouse")
def test_a_run_computes_then_finds_and_after_a_change_computes_what_changed(shop: Workshop) -> None:
    first = ask("run", "toy")
    assert first.exit_code == 0, first.output
    assert "4 of 4 assets to compute" in first.output
    assert all(re.search(rf"✓ {name} +computed +\d", first.output) for name in ALL)
    assert "4 of 4 assets computed, 0 already up to date" in first.output

    again = ask("run", "toy")
    assert again.exit_code == 0
    assert "0 of 4 assets to compute" in again.output
    assert "0 of 4 assets computed, 4 already up to date" in again.output
    assert "✓" not in again.output  # Dagster ran nothing at all

    shop.write("toy", models={"doubled": {"times": 3}})
    third = ask("run", "toy")
    assert re.search(r"doubled +stale +1 +times 2 -> 3", third.output)
    assert "3 of 4 assets computed, 1 already up to date" in third.output


@pytest.mark.usefixtures("no_warehouse")
def test_only_the_studys_own_assets_are_counted_and_told(shop: Workshop) -> None:
    shop.write("toy", methods={})
    result = ask("run", "toy")
    assert "2 of 2 assets to compute" in result.output
    assert "2 of 2 assets computed, 0 already up to date" in result.output
    assert "guess/scores" not in result.output
    assert "not in this study" not in result.output


@pytest.mark.usefixtures("no_warehouse")
def test_what_left_the_study_is_no_longer_its_head(shop: Workshop) -> None:
    ask("run", "toy")
    assert shop.project.store.head("toy", "guess/scores")
    shop.write("toy", methods={})
    assert "guess/scores" not in ask("run", "toy").output
    assert shop.project.store.head("toy", "guess/scores") == []


@pytest.mark.usefixtures("no_warehouse")
def test_a_selection_runs_it_and_what_it_needs(shop: Workshop) -> None:
    result = ask("run", "toy", "--select", "doubled")
    assert "2 of 2 assets computed" in result.output
    assert ask("run", "toy", "--select", "nothing").exit_code == 1


@pytest.mark.usefixtures("no_warehouse")
def test_a_failed_stage_is_a_message_and_exit_status_1(shop: Workshop) -> None:
    shop.declared = declared([toy.numbers, stages.raises])
    shop.write("toy", methods={})
    result = ask("run", "toy")
    assert result.exit_code == 1
    said = "raises: raises (one cell) of study toy: the bug (ValueError in tests.assets.stages, line "
    assert f"✗ {said}" in flat(result)
    assert f"failed: {said}" in flat(result).partition("assets computed")[2]  # once more below all the rest
    assert "Traceback" not in result.output


@stage.stage(
    "ctr/leaderboard",
    settings=toy.Board,
    section="evaluate",
    version=1,
    inputs={"numbers": "numbers"},
    tables={"leaderboard": Leaderboard},
)
def leaderboard(numbers, settings: toy.Board, out) -> None:
    """One line, unless told to fail."""
    if settings.title == "fail":
        raise StudyError("no figures today")
    words = {"track": "ctr", "method": "mf", "variant": "default", "part": "test", "metric": "auc"}
    counts = {"seeds": 1, "users": 2, "users_skipped": 0, "rows": 3}
    figures = {"value": 0.7, "low": 0.6, "high": 0.8, "seed_deviation": None}
    out.table("leaderboard", pl.DataFrame([{**words, **figures, **counts}]))


@stage.stage("last", settings=toy.Board, section="evaluate", version=1, inputs={"read": "ctr/leaderboard"})
def last(read, settings: toy.Board, out) -> None:
    """Read the leaderboard."""


@pytest.mark.usefixtures("no_warehouse")
def test_a_failed_run_shows_where_it_failed_and_no_figures_of_an_earlier_one(shop: Workshop) -> None:
    shop.declared = declared([toy.numbers, leaderboard, last])
    shop.write("toy", methods={})
    assert "Leaderboard of toy" in ask("run", "toy").output

    shop.write("toy", methods={}, evaluate={"ctr": {"leaderboard": {"title": "fail"}}})
    result = ask("run", "toy")
    assert result.exit_code == 1
    assert "Leaderboard of toy" not in result.output
    assert "failed: ctr/leaderboard: studies/toy.yaml: evaluate.ctr.leaderboard: no figures today" in flat(
        result
    )
    assert "not run: last, warehouse" in flat(result)


@pytest.mark.usefixtures("no_warehouse")
def test_figures_of_an_earlier_run_are_called_so(shop: Workshop) -> None:
    shop.declared = declared([toy.numbers, leaderboard, last])
    shop.write("toy", methods={})
    assert "of an earlier run" not in ask("run", "toy").output
    shop.write("toy", methods={}, data={"numbers": {"count": 4}})
    result = ask("run", "toy", "--select", "numbers")
    assert "Leaderboard of toy" in result.output
    assert "of an earlier run: numbers changed" in flat(result)


@pytest.mark.usefixtures("no_warehouse")
def test_a_failed_check_is_told_again_by_every_run_and_fails_it(shop: Workshop) -> None:
    shop.declared = declared([stages.guarded, stages.reader])
    shop.write("toy", methods={}, data={"numbers": {"count": 9}})
    for _ in range(2):
        result = ask("run", "toy")
        assert result.exit_code == 1
        assert "! numbers check failed: too_many: 9 of 5" in flat(result)
    assert "check failed: too_many" in flat(ask("status", "toy"))


def test_a_check_that_only_warns_is_told_as_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    for blocking in (True, False):
        cli.tell(runs.Happening("check", "codes", "even: no", {"blocking": blocking}))
    assert [line.strip() for line in capsys.readouterr().out.splitlines()] == [
        "! codes check failed: even: no",
        "! codes check warns: even: no",
    ]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"computed": 1, "cells": 1}, "computed"),
        ({"computed": 2, "cells": 3}, "computed 2 of 3"),
        ({"computed": 2, "cells": 2}, "computed 2 of 2"),
        ({"computed": 0, "cells": 1}, "unchanged"),
        ({"note": "published"}, "published"),
    ],
)
def test_how_an_asset_came_to_be_is_said_in_a_word(facts: dict, words: str) -> None:
    assert cli.how(facts) == words


def test_a_dry_run_tells_memory_and_time_and_what_will_be_refused(idle: Workshop) -> None:
    idle.declared = declared([stages.guarded, stages.greedy])
    idle.write("toy", methods={})
    result = ask("run", "toy", "--dry-run")
    assert result.exit_code == 0
    assert "greedy 1 4096.0 GiB about 3 min a guess" in flat(result)
    assert "will be refused: greedy: about 4096.0 GiB will be needed (all of it 4096.0 GiB)" in flat(result)
    idle.write("toy", methods={}, evaluate={"greedy": {"gib": 0}})
    assert "refused" not in ask("run", "toy", "--dry-run").output


@pytest.mark.usefixtures("no_warehouse")
def test_a_run_refuses_what_does_not_fit_unless_told_to_try(shop: Workshop) -> None:
    shop.declared = declared([stages.guarded, stages.greedy])
    shop.write("toy", methods={})
    result = ask("run", "toy")
    assert result.exit_code == 1
    assert "studies/toy.yaml: evaluate.greedy: about 4096.0 GiB will be needed" in flat(result)
    shop.write("toy", methods={}, budget={"fit": "try"})
    assert ask("run", "toy").exit_code == 0


def test_a_dry_run_says_what_and_why_and_touches_nothing(idle: Workshop) -> None:
    result = ask("run", "toy", "--dry-run")
    assert result.exit_code == 0
    assert "4 of 4 assets to compute" in result.output
    assert "never made for this study" in result.output
    assert not idle.project.store_root.exists()
    assert not idle.project.state.exists()


def test_status_names_states_and_reasons(idle: Workshop) -> None:
    assert ask("status", "toy").output.count("missing") == 4
    made(idle)
    assert ask("status", "toy").output.count("fresh") == 4
    idle.write("toy", evaluate={"board": {"title": "other"}})
    assert 'title "board" -> "other"' in flat(ask("status", "toy"))


@pytest.mark.parametrize("command", ["run", "status", "report"])
def test_an_unknown_study_names_the_nearest(idle: Workshop, command: str) -> None:
    result = ask(command, "tov")
    assert result.exit_code == 1
    assert "no study 'tov'" in flat(result)
    assert "did you mean 'toy'?" in flat(result)


def test_an_unknown_key_is_a_message_and_a_traceback_only_on_request(idle: Workshop) -> None:
    idle.write("toy", models={"dubbled": {}})
    result = ask("status", "toy")
    assert (result.exit_code, "did you mean 'doubled'?" in flat(result)) == (1, True)
    assert isinstance(result.exception, SystemExit)
    assert not isinstance(ask("status", "toy", "--debug").exception, SystemExit)


def test_studies_are_listed_with_titles_also_the_broken_one(idle: Workshop) -> None:
    (idle.project.root / "studies" / "broken.yaml").write_text("titel: typo\n")
    result = ask("studies")
    assert re.search(r"toy +Toy", result.output)
    assert "unknown key 'titel'; did you mean 'title'?" in flat(result)


def test_a_report_that_is_not_there_says_how_to_make_it(idle: Workshop) -> None:
    assert "has no report yet: interlingua run toy" in flat(ask("report", "toy"))
    page = idle.project.page("toy", "report.html")
    page.parent.mkdir()
    page.write_text("<html/>")
    assert str(page) in ask("report", "toy").output


def test_sql_answers_in_three_formats(idle: Workshop) -> None:
    from resources.warehouse import publish

    made(idle)
    publish(idle.project.store_root, idle.project.catalogue)
    query = "select id, dotted from staging.codes order by id limit 2"
    assert ask("sql", query, "--format", "csv").output == "id,dotted\n0,0\n1,1\n"
    assert json.loads(ask("sql", query, "--format", "json").output) == [
        {"id": 0, "dotted": "0"},
        {"id": 1, "dotted": "1"},
    ]
    assert re.search(r"id +dotted\s*\n0 +0\s*\n1 +1", ask("sql", query).output)


def test_sql_cannot_write_and_its_errors_are_messages(idle: Workshop) -> None:
    from resources.warehouse import publish

    assert "the warehouse is empty: run a study first" in flat(ask("sql", "select 1"))
    publish(idle.project.store_root, idle.project.catalogue)
    for wrong in ("select nothing", "create table t (x int)"):
        result = ask("sql", wrong)
        assert result.exit_code == 1
        assert result.output.startswith("error:")


def test_gc_removes_what_no_study_stands_for(idle: Workshop) -> None:
    made(idle)
    idle.project.store.set_head("toy", "board", [])
    assert "0 folders" in ask("gc").output  # made just now, a run may still need it
    now = ("--older-than", "0")
    assert "1 folders, would free" in ask("gc", "--dry-run", *now).output
    assert "1 folders, freed" in ask("gc", *now).output
    assert "0 folders" in ask("gc", *now).output
    assert idle.project.store.head("toy", "doubled")


def test_the_graph_is_printed_with_its_edges(idle: Workshop) -> None:
    assert ask("graph").output.splitlines() == [
        "numbers",
        "doubled <- numbers",
        "guess/scores <- doubled",
        "board <- guess/scores",
    ]


@pytest.mark.parametrize(("states", "status"), [(["good", "note"], 0), (["good", "bad"], 1)])
def test_the_doctor_ends_well_unless_something_is_bad(
    idle: Workshop, monkeypatch: pytest.MonkeyPatch, states: list, status: int
) -> None:
    findings = [Finding(f"thing {s}", s, "found", "mend it") for s in states]
    monkeypatch.setattr("resources.doctor.examine", lambda _: findings)
    result = ask("doctor")
    assert result.exit_code == status
    assert "-> mend it" in result.output


def test_a_taken_port_names_a_free_one(idle: Workshop) -> None:
    import socket

    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        result = ask("ui", "--port", str(holder.getsockname()[1]))
    assert result.exit_code == 1
    assert re.search(r"is taken: interlingua ui --port \d+", flat(result))


def test_help_shows_every_command_and_loads_neither_dagster_nor_torch() -> None:
    script = (
        "import sys; from assets.cli import app;"
        "sys.exit(1 if {'dagster', 'torch', 'duckdb', 'matplotlib'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
    for command in ("run", "status", "report", "sql", "studies", "doctor", "gc", "ui", "graph"):
        assert command in ask("--help").output
        assert ask(command, "--help").exit_code == 0


INTERRUPTED = """
import sys
from assets import cli
from assets.engine import declare
from tests import toy
from tests.assets.projects import declared
declare.discover = lambda: declared(toy.STAGES)
cli.app(["run", "toy"])
"""


def test_ctrl_c_ends_a_run_cleanly_and_the_next_goes_on(lasting: Workshop) -> None:
    lasting.write("toy", models={"doubled": {"pause": 30}})
    environment = {**os.environ, **lasting.project.variables(), "PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until = time.monotonic() + 120
    while not list(lasting.project.store_root.glob("work/*/checkpoints/state.json")):
        assert time.monotonic() < until
        assert running.poll() is None, running.communicate()[0]
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    output = running.communicate(timeout=60)[0]
    assert running.returncode == 130, output
    assert "Traceback" not in output
    assert "stopped; what was finished is kept" in " ".join(output.split())
    with runs.instance(lasting.project) as on:
        [run] = on.get_runs()
        assert run.is_finished

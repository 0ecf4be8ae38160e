"""The command `interlingua`: studies run, looked at and served from a terminal.

Dagster is loaded only by commands that drive it, so the others answer at once.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.markup import escape

from assets import cli_answers
from assets.engine import terminal
from pipeline import study as studies
from pipeline.study import StudyError
from resources.project import Project

if TYPE_CHECKING:
    from assets.engine.runs import Happening
    from pipeline.graph import Status

app = typer.Typer(
    name="interlingua",
    help="Which LLM-for-recommendation method pays off on your data, by how much, at what cost.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.add_typer(cli_answers.app, name="answers")
out = terminal.console()
StudyName = Annotated[str, typer.Argument(help="A file in studies/, without .yaml", metavar="STUDY")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]


class Plan(NamedTuple):
    """What a run takes.

    chosen: assets to look at, also those of no part in the study; own: the study's among them; due: those that
    have to run in any case, if only to forget what the study no longer holds.
    """

    chosen: list[str]
    own: list[str]
    due: set[str]


@contextmanager
def plain_errors(debug: bool) -> Iterator[None]:
    """Errors that a person can act on as one message and exit status 1; Ctrl-C as 130."""
    try:
        yield
    except typer.Exit:
        raise
    except (StudyError, RuntimeError, OSError) as error:
        if debug:
            raise
        out.print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        out.print("[yellow]stopped[/yellow]; what was finished is kept, the next run goes on from there")
        raise typer.Exit(130) from None


@app.command(epilog="Example: interlingua run quickstart --select binllm --select ctr/leaderboard+")
def run(
    study: StudyName,
    select: Annotated[
        list[str] | None,
        typer.Option(
            "--select",
            "-s",
            metavar="ASSET",
            help="An asset or method, with what it needs; `mf+`: and all that depends on it. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run and why, and stop.")] = False,
    debug: Debug = False,
) -> None:
    """Bring a study up to date: only what changed is computed."""
    with plain_errors(debug):
        project = Project.here()
        plan = plan_run(project, study, select or [])
        if not dry_run:
            execute(project, study, plan)


def plan_run(project: Project, study: str, words: list[str]) -> Plan:
    """Print what is to compute and why."""
    from assets.engine import choice, declare

    graph = declare.graph()
    plan = studies.load(studies.find(project.root, study))
    statuses = graph.status(plan, project.store, project.root)
    chosen = choice.choose(words, graph, statuses)
    behind = [s for s in statuses if s.state != "fresh" and s.planned.stage.name in chosen]
    out.print(f"[bold]{study}[/bold]: {escape(plan.title)}", highlight=False)
    if behind:
        out.print(terminal.status_table(behind, project.store))
        tell_costs(behind, project, plan.budget.threads)
    planned = {s.planned.stage.name for s in statuses}
    own = [name for name in chosen if name in planned]
    out.print(f"{len({s.planned.stage.name for s in behind})} of {len(own)} assets to compute\n")
    left = {name for name in chosen if name not in planned and project.store.head(study, name)}
    due = choice.due(statuses, project.store) | choice.named(words, graph) | left
    return Plan(chosen if words else [*chosen, "warehouse"], own, due)


def tell_costs(behind: "list[Status]", project: Project, threads: int | None) -> None:
    """Print memory and time of the stages that foretell them, and which the machine cannot run."""
    from pipeline import forecasts
    from resources import machine

    if not any(s.planned.stage.settings.foretells for s in behind):
        return
    here = machine.look(threads)
    told = forecasts.foretell(behind, project.store, here)
    out.print()
    out.print(terminal.forecast_table(told, here))
    for one in told:
        if one.refused:
            out.print(f"[red]will be refused:[/red] {one.asset}: {escape(one.refused)}", highlight=False)


def execute(project: Project, study: str, plan: Plan) -> None:
    """Run what is due, and what Dagster marks, a line each; then show what came of it."""
    from assets.definitions import define
    from assets.engine import declare, runs
    from assets.engine.connections import held
    from assets.engine.materialise import catch_up

    definitions = define(project, declare.discover())
    with runs.instance(project, capture=False) as on:
        for dead in runs.bury(on):
            out.print(f"[dim]run {dead[:8]} had died; it is marked as failed[/dim]")
        with held(on):
            marked = runs.unsynced(definitions, on, study, plan.chosen)
            names = [name for name in plan.chosen if name in plan.due or name in marked]
            names += ["warehouse"] if names and "warehouse" in plan.chosen and "warehouse" not in names else []
            driven = runs.drive(definitions, on, study, names) if names else iter(())
            happenings = list(told(driven, {*plan.own, "warehouse"}))
        catch_up(project)
    computed = {h.asset for h in happenings if h.kind == "made" and h.facts.get("computed")}
    ended = {h.asset for h in happenings if h.kind in ("made", "failed")}
    failed = [h for h in happenings if h.kind == "failed"]
    skipped = [name for name in names if name not in ended and name in {*plan.own, "warehouse"}]
    found = {*plan.own} - computed - {*skipped} - {h.asset for h in failed}
    out.print(f"{len(computed)} of {len(plan.own)} assets computed, {len(found)} already up to date\n")
    if failed:
        show_failure(failed, skipped, study)
        raise typer.Exit(1)
    show_results(project, study)


def told(happenings: "Iterator[Happening]", shown: set[str]) -> "Iterator[Happening]":
    """The happenings, each told as it comes where it is of an asset to be shown."""
    any_told = False
    for happening in happenings:
        if happening.asset in shown:
            tell(happening)
            any_told = True
        yield happening
    if any_told:
        out.print()


def tell(happening: "Happening") -> None:
    """One line of a run."""
    name, text = happening.asset, escape(happening.text)
    if happening.kind == "started" and out.is_terminal:
        out.print(f"[dim]… {name}[/dim]", end="\r", highlight=False)
    elif happening.kind == "made":
        took = f"{how(happening.facts):<18} {happening.facts['took_seconds']:>7.1f} s"
        out.print(f"[green]✓[/green] {name:<24} {took}", highlight=False)
    elif happening.kind == "failed":
        out.print(f"[red]✗ {name}[/red]: {text}", highlight=False)
    elif happening.kind == "check":
        colour, word = ("red", "failed") if happening.facts["blocking"] else ("yellow", "warns")
        out.print(f"[{colour}]! {name}[/{colour}] check {word}: {text}", highlight=False)
    elif happening.kind == "skipped":
        out.print(f"[dim]- {name:<24} not run[/dim]", highlight=False)


def how(facts: dict[str, Any]) -> str:
    """Whether an asset was computed, and how many of its cells, or found."""
    computed = facts.get("computed", 0)
    cells = "" if computed == facts.get("cells") == 1 else f" {computed} of {facts.get('cells')}"
    return f"computed{cells}" if computed else facts.get("note", "unchanged")


def show_failure(failed: "list[Happening]", skipped: list[str], study: str) -> None:
    """What failed and what was not run for it; no figures, as they would be of an earlier run."""
    for happening in failed:
        text = escape(happening.text)
        out.print(f"[red]failed:[/red] {happening.asset}: {text}", highlight=False, soft_wrap=True)
    if skipped:
        out.print(f"not run:   {', '.join(skipped)}", highlight=False, soft_wrap=True)
    out.print(f"what was finished is kept; where it stands: interlingua status {study}", highlight=False)


def show_results(project: Project, study: str) -> None:
    """Leaderboard, and where the rest is; what is not up to date says so."""
    behind = not_fresh(project, study)
    for track in studies.load(studies.find(project.root, study)).tracks:
        board, stage = terminal.leaderboard(project.store, study, track), f"{track}/leaderboard"
        if board is None:
            continue
        out.print(board)
        if stage in behind:
            out.print(f"[yellow]of an earlier run[/yellow]: {escape(behind[stage])}", highlight=False)
        out.print()
    page = project.page(study, "report.html")
    if page.exists():
        earlier = f"   (of an earlier run: {escape(behind['report'])})" if "report" in behind else ""
        out.print(f"report     {page}{earlier}", highlight=False, soft_wrap=True)
    out.print(
        f'warehouse  {project.catalogue}   (interlingua sql "from leaderboard")',
        highlight=False,
        soft_wrap=True,
    )
    out.print("UI         interlingua ui", highlight=False)


def not_fresh(project: Project, study: str) -> dict[str, str]:
    """Asset -> why it is not up to date."""
    from assets.engine import declare

    plan = studies.load(studies.find(project.root, study))
    statuses = declare.graph().status(plan, project.store, project.root)
    return {s.planned.stage.name: s.why for s in statuses if s.state != "fresh"}


@app.command(epilog="Example: interlingua status quickstart")
def status(study: StudyName, debug: Debug = False) -> None:
    """What is fresh, stale or missing, and why."""
    from assets.engine import declare

    with plain_errors(debug):
        project = Project.here()
        plan = studies.load(studies.find(project.root, study))
        statuses = declare.graph().status(plan, project.store, project.root)
        out.print(terminal.status_table(statuses, project.store))


@app.command(epilog="Example: interlingua report quickstart")
def report(study: StudyName, debug: Debug = False) -> None:
    """The leaderboard, and the path of the HTML report."""
    with plain_errors(debug):
        project = Project.here()
        studies.find(project.root, study)
        page = project.page(study, "report.html")
        if not page.exists():
            raise StudyError(f"study {study} has no report yet: interlingua run {study}")
        show_results(project, study)


class Format(StrEnum):
    table = "table"
    csv = "csv"
    json = "json"


@app.command(epilog='Example: interlingua sql "select * from leaderboard" --format csv > leaderboard.csv')
def sql(
    query: Annotated[
        str, typer.Argument(help="One SELECT on the warehouse; `show all tables` lists its views.")
    ],
    format: Annotated[Format, typer.Option(help="How rows are printed.")] = Format.table,
    debug: Debug = False,
) -> None:
    """Ask the warehouse, read-only, also while a study runs."""
    import duckdb

    from resources.warehouse import query as ask

    project = Project.here()
    with plain_errors(debug):
        if not project.catalogue.exists():
            raise StudyError("the warehouse is empty: run a study first")
        try:
            frame = ask(project.catalogue, query)
        except duckdb.Error as error:
            raise StudyError(str(error)) from error
    if format is Format.csv:
        sys.stdout.write(frame.write_csv())
    elif format is Format.json:
        sys.stdout.write(frame.write_json() + "\n")
    else:
        out.print(terminal.frame_table(frame))


@app.command(name="studies")
def list_studies() -> None:
    """The studies of this project."""
    project = Project.here()
    made = terminal.table("study", "title", "report", whole=1)
    for name in studies.names(project.root):
        page = project.page(name, "report.html")
        shown = page.relative_to(project.root) if page.is_relative_to(project.root) else page
        made.add_row(name, escape(title(project, name)), str(shown) if page.exists() else "[dim]not run[/dim]")
    out.print(made)


def title(project: Project, name: str) -> str:
    try:
        return studies.load(studies.find(project.root, name)).title
    except StudyError as error:
        return str(error)


@app.command()
def doctor() -> None:
    """Check versions, disk, memory, device, studies, secrets and Dagster; say how to mend."""
    from resources.doctor import examine

    bad = 0
    for finding in examine(Project.here()):  # a line each, as some take seconds
        bad += finding.state == "bad"
        out.print(terminal.diagnosis(finding.state, finding.what, finding.found, finding.mend))
    raise typer.Exit(1 if bad else 0)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    older_than: Annotated[float, typer.Option(help="Hours: what was written since is kept.")] = 24.0,
) -> None:
    """Remove artefacts that no study stands for any more."""
    import shutil

    store = Project.here().store
    folders = store.garbage(older_than * 3600)
    size = sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file())
    for folder in folders:
        if dry_run:
            out.print(str(folder.relative_to(store.root)), highlight=False, soft_wrap=True)
        else:
            shutil.rmtree(folder)
    verb = "would free" if dry_run else "freed"
    out.print(f"{len(folders)} folders, {verb} {size / 1e6:.1f} MB")


@app.command(epilog="Example: interlingua ui --port 3001")
def ui(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000, debug: Debug = False) -> None:
    """Open Dagster's web UI with all past runs, and its scheduler; Ctrl-C ends both."""
    import time

    from assets.engine import runs
    from resources import servers

    project = Project.here()
    with plain_errors(debug):
        if servers.taken(port):
            raise StudyError(f"port {port} is taken: interlingua ui --port {servers.free_port()}")
        with runs.instance(project) as on:
            runs.bury(on)
        environment = {**os.environ, **project.variables()}
        out.print("starting ...")
        try:
            with servers.serving(project.state, port, environment, runs.LOCATION) as running:
                out.print(f"Dagster is at http://127.0.0.1:{port}; Ctrl-C ends it", highlight=False)
                while True:
                    servers.watch(running)
                    time.sleep(2)
        except servers.ServerDied as error:
            raise StudyError(str(error)) from error


@app.command()
def graph() -> None:
    """The assets and what each reads, one line each."""
    from assets.engine import declare

    for line in graph_lines(declare.graph()):
        out.print(line, highlight=False, soft_wrap=True)


def graph_lines(known: Any) -> list[str]:
    """`name <- parent, parent` for every stage, in order."""
    parents: Callable[..., list[str]] = known.parents
    return [f"{s.name} <- {', '.join(sorted(parents(s)))}" if parents(s) else s.name for s in known.order]


if __name__ == "__main__":
    app()

"""The commands `interlingua answers ...`: what chat models said and cost, and one file of it for others."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from assets.engine import terminal
from pipeline import study as studies
from pipeline.knowledge.answers import Ledger, costs, export, take
from pipeline.study import StudyError
from resources.project import Project

app = typer.Typer(
    help="Recorded answers of chat models: costs, export, import, price of a study.", no_args_is_help=True
)
out = terminal.console()
StudyName = Annotated[str, typer.Argument(help="A file in studies/, without .yaml", metavar="STUDY")]
File = Annotated[Path, typer.Argument(help="A file that ends in .jsonl or .parquet.")]


def ledger() -> Ledger:
    return Ledger(Project.here().store.answers)


def fail(error: Exception) -> typer.Exit:
    out.print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
    return typer.Exit(1)


@app.command(name="costs")
def show_costs() -> None:
    """What was asked and what it took, by model and purpose."""
    answers = ledger()
    table = costs(answers)
    out.print(terminal.frame_table(table))
    if answers.torn:
        out.print(f"[yellow]{answers.torn} torn records were skipped[/yellow]")


@app.command(name="export", epilog="Example: interlingua answers export answers.jsonl")
def write(file: File) -> None:
    """Write all recorded answers into one file; equal answers give an equal file."""
    try:
        out.print(f"{export(ledger(), file)} answers written to {file}", highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        raise fail(error) from None


@app.command(name="import", epilog="Example: interlingua answers import answers.jsonl")
def read(file: File) -> None:
    """Add the answers of a file: a study then replays them, with no network and no key."""
    try:
        done = take(ledger(), file)
    except (ValueError, OSError) as error:
        raise fail(error) from None
    out.print(f"{done.new} answers added, {done.known} known already, {done.refused} refused", highlight=False)
    if done.refused:
        out.print("refused: lines that are no answer, or stand under another request's address")
        raise typer.Exit(1)


@app.command(epilog="Example: interlingua answers price quickstart")
def price(
    study: Annotated[str, typer.Argument(help="A file in studies/, without .yaml", metavar="STUDY")],
) -> None:
    """What the study's chat stages would ask and pay, with nothing asked."""
    from assets.engine import declare
    from pipeline.knowledge.asking import dry_run
    from pipeline.stage import load

    project = Project.here()
    try:
        plan = declare.graph().plan(
            studies.load(studies.find(project.root, study)), project.store, project.root
        )
    except StudyError as error:
        raise fail(error) from None
    asking = [planned for planned in plan if planned.stage.needs == "chat"]
    if not asking:
        out.print(f"study {study} asks no chat model")
    for planned in asking:
        name = " ".join([planned.stage.name, *map(str, planned.cell.values())])
        try:
            inputs = {key: load(project.store, source) for key, source in planned.spec.inputs.items()}
        except FileNotFoundError:
            needed = ", ".join(declare.graph().parents(planned.stage))
            out.print(f"{name}: its inputs are not made yet ({needed})", highlight=False)
            continue
        with tempfile.TemporaryDirectory(prefix="interlingua-") as folder:
            estimate = dry_run(planned.stage, planned.spec, inputs, Path(folder))
        out.print(f"{name}: {estimate}", highlight=False, soft_wrap=True)

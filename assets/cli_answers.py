"""The commands `interlingua answers ...`: what chat models said and cost, and one file of it for others."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from assets.engine import terminal
from pipeline import study as studies
from pipeline.knowledge.answers import Ledger, costs, export, take
from pipeline.knowledge.batch import take as of_batch
from pipeline.knowledge.settings import Prices
from pipeline.study import StudyError
from resources.project import Project

if TYPE_CHECKING:
    from pipeline.knowledge.asking import Estimate

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
def read(
    file: File,
    requests: Annotated[
        Path | None, typer.Option(help="The file of `answers batch`, where FILE is a batch's results.")
    ] = None,
    input_price: Annotated[float, typer.Option(help="Of a million tokens read, of a batch.")] = 0.0,
    output_price: Annotated[float, typer.Option(help="Of a million tokens written, of a batch.")] = 0.0,
) -> None:
    """Add the answers of a file: a study then replays them, with no network and no key."""
    try:
        if requests is None:
            done = take(ledger(), file)
        else:
            done = of_batch(ledger(), requests, file, Prices(input=input_price, output=output_price))
    except (ValueError, OSError) as error:
        raise fail(error) from None
    out.print(f"{done.new} answers added, {done.known} known already, {done.refused} refused", highlight=False)
    if done.refused:
        out.print("refused: lines that are no answer, or stand under another request's address")
        raise typer.Exit(1)


@app.command(epilog="Example: interlingua answers price quickstart")
def price(study: StudyName) -> None:
    """What the study's chat stages would ask and pay, with nothing asked."""
    for name, found in dry_runs(study):
        said = found if isinstance(found, str) else str(found[0])
        out.print(f"{name}: {said}", highlight=False, soft_wrap=True)


@app.command(epilog="Example: interlingua answers batch my-study requests.jsonl")
def batch(study: StudyName, file: File) -> None:
    """Write what a study would ask as a file for a provider's batch interface."""
    from pipeline.knowledge.batch import write

    lines = [line for _, found in dry_runs(study) if not isinstance(found, str) for line in found[1]]
    count = write(file, dict.fromkeys(lines))
    out.print(f"{count} requests written to {file}", highlight=False, soft_wrap=True)


def dry_runs(study: str) -> Iterator[tuple[str, "str | tuple[Estimate, Sequence[str]]"]]:
    """Each chat stage of the study, and what it would ask, or why that is not known yet."""
    from assets.engine import declare
    from pipeline.knowledge.asking import dry_run
    from pipeline.stage import load

    project, graph = Project.here(), declare.graph()
    try:
        plan = graph.plan(studies.load(studies.find(project.root, study)), project.store, project.root)
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
            yield name, f"its inputs are not made yet ({', '.join(graph.parents(planned.stage))})"
            continue
        with tempfile.TemporaryDirectory(prefix="interlingua-") as folder:
            yield name, dry_run(planned.stage, planned.spec, inputs, Path(folder))

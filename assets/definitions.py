"""The code location: every stage declared in this package as an asset, the study job and its schedules."""

import dagster as dg

from assets import schedules
from assets.engine.build import build
from assets.engine.declare import Asset, discover
from resources.project import Project


def define(project: Project, declared: list[Asset]) -> dg.Definitions:
    """Definitions of any project and any set of stages."""
    whole = schedules.job()
    return dg.Definitions(
        assets=build(project, declared),
        jobs=[whole],
        schedules=schedules.schedules(project, whole),
        executor=dg.in_process_executor,
    )


@dg.definitions
def defs() -> dg.Definitions:
    return define(Project.here(), discover())

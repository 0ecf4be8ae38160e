"""The code location: every stage declared in this package as an asset, the study job and its schedules."""

import dagster as dg

from assets.engine.build import build
from assets.engine.declare import Asset, discover
from assets.schedules import automation
from resources.project import Project


def define(project: Project, declared: list[Asset]) -> dg.Definitions:
    """Definitions of any project and any set of stages."""
    made = dg.Definitions(assets=build(project, declared), executor=dg.in_process_executor)
    return dg.Definitions.merge(made, automation(project))


@dg.definitions
def defs() -> dg.Definitions:
    return define(Project.here(), discover())

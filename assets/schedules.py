"""When studies refresh by themselves: every night, once somebody turns it on."""

import dagster as dg

from pipeline import study as studies
from resources.project import Project

NIGHTLY = "0 3 * * *"


def job() -> dg.UnresolvedAssetJobDefinition:
    """Everything of one study; pick the study as the partition."""
    return dg.define_asset_job("study", selection=dg.AssetSelection.all(), description="A whole study.")


def nightly(name: str, whole: dg.UnresolvedAssetJobDefinition) -> dg.ScheduleDefinition:
    """Refresh one study every night: what has not changed is found in the store and costs nothing."""

    @dg.schedule(
        name=f"nightly_{name.replace('-', '_')}",
        job=whole,
        cron_schedule=NIGHTLY,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description=f"Refresh study {name} at three in the morning.",
    )
    def refresh() -> dg.RunRequest:
        return dg.RunRequest(partition_key=name)

    return refresh


def schedules(project: Project, whole: dg.UnresolvedAssetJobDefinition) -> list[dg.ScheduleDefinition]:
    return [nightly(name, whole) for name in studies.names(project.root)]

"""When studies refresh by themselves: every night, once somebody turns it on."""

import dagster as dg

from pipeline import study as studies
from resources.project import Project

NIGHTLY = "0 3 * * *"


def automation(project: Project) -> dg.Definitions:
    """The job `study` (everything of one study; pick it as the partition) and a schedule for each study."""
    whole = dg.define_asset_job("study", selection=dg.AssetSelection.all(), description="A whole study.")

    def nightly(name: str) -> dg.ScheduleDefinition:
        """Refresh one study: what has not changed is found in the store and costs nothing."""

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

    return dg.Definitions(jobs=[whole], schedules=[nightly(name) for name in studies.names(project.root)])

"""The last asset: the warehouse of views, and its assertions as checks.

Assets with something new republish the catalogue, at most every moment; this one proves that it is sound.
"""

import hashlib
import time
from collections.abc import Iterable

import dagster as dg
import polars as pl

from assets.engine.runs import own
from assets.engine.shown import table
from resources.project import Project
from resources.warehouse import SQL, assertions, publish

KEY = "warehouse"
SHOWN = 5


def build_warehouse(
    project: Project, partitions: dg.StaticPartitionsDefinition, parents: Iterable[str]
) -> dg.AssetsDefinition:
    """The asset over all stages that feed the catalogue."""
    meanings = known()

    @dg.asset(
        key=KEY,
        deps=[dg.AssetKey(name.split("/")) for name in sorted(parents)],
        partitions_def=partitions,
        group_name="evaluation",
        kinds={"duckdb", "sql"},
        description=(__doc__ or "").strip(),
        owners=["team:interlingua"],
        tags={"needs": "light", "section": "evaluate"},
        code_version=code_version(),
        check_specs=[dg.AssetCheckSpec(name, asset=KEY, description=said) for name, said in meanings.items()],
    )
    def warehouse(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        own(context)
        started = time.perf_counter()
        publish(project.store_root, project.catalogue)
        found = assertions(project.catalogue)
        broken = {name: of_study(found[name], context.partition_key) for name in meanings}
        return dg.MaterializeResult(
            metadata={
                "note": "published",
                "took_seconds": round(time.perf_counter() - started, 3),
                "path": dg.MetadataValue.path(str(project.catalogue)),
                "bytes": project.catalogue.stat().st_size,
                "assertions": len(broken),
                "broken": sum(not rows.is_empty() for rows in broken.values()),
            },
            check_results=[judged(name, rows) for name, rows in broken.items()],
        )

    return warehouse


def known() -> dict[str, str]:
    """Assertion -> what it says, from the first line of its file."""
    files = sorted((SQL / "assertions").glob("*.sql"))
    return {file.stem: file.read_text().split("\n")[0].lstrip("- ") for file in files}


def code_version() -> str:
    """Hash over all SQL of the warehouse."""
    texts = [file.read_bytes() for file in sorted(SQL.rglob("*.sql"))]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:12]


def of_study(rows: pl.DataFrame, study: str) -> pl.DataFrame:
    """Another study's fault is not this one's."""
    return rows.filter(pl.col("study") == study) if "study" in rows.columns else rows


def judged(name: str, rows: pl.DataFrame) -> dg.AssetCheckResult:
    shown = table(rows.columns, rows.head(SHOWN).rows()) if not rows.is_empty() else "none"
    return dg.AssetCheckResult(
        check_name=name,
        passed=rows.is_empty(),
        description=f"{rows.height} rows break it",
        metadata={"rows": rows.height, "first": dg.MetadataValue.md(shown)},
    )

"""Where a project lives: its root, its store and Dagster's state. The only reader of these variables.

INTERLINGUA_ROOT       folder with `studies/`                default: the folder this package is in
INTERLINGUA_STORE      artefacts                             default: <root>/store
INTERLINGUA_CATALOGUE  DuckDB file of views                  default: <root>/warehouse/interlingua.duckdb
INTERLINGUA_REPORTS    reports for people                    default: <root>/reports
DAGSTER_HOME           folder with `dagster.yaml`            default: <root>
DAGSTER_STATE          Dagster's runs and logs               default: <DAGSTER_HOME>/.dagster
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.store import Store

SOURCE_TREE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Project:
    """Paths of one project; nothing is read or made until it is asked for."""

    root: Path
    store_root: Path
    catalogue: Path
    reports: Path
    home: Path
    state: Path

    @staticmethod
    def here(environment: Mapping[str, str] = os.environ) -> "Project":
        """The project that the environment names, this source tree where it names none."""

        def place(variable: str, default: Path) -> Path:
            return Path(environment.get(variable) or default).expanduser().absolute()

        root = place("INTERLINGUA_ROOT", SOURCE_TREE)
        home = place("DAGSTER_HOME", root)
        return Project(
            root=root,
            store_root=place("INTERLINGUA_STORE", root / "store"),
            catalogue=place("INTERLINGUA_CATALOGUE", root / "warehouse" / "interlingua.duckdb"),
            reports=place("INTERLINGUA_REPORTS", root / "reports"),
            home=home,
            state=place("DAGSTER_STATE", home / ".dagster"),
        )

    @property
    def store(self) -> Store:
        return Store(self.store_root)

    def variables(self) -> dict[str, str]:
        """The environment that gives another process this same project."""
        return {
            "INTERLINGUA_ROOT": str(self.root),
            "INTERLINGUA_STORE": str(self.store_root),
            "INTERLINGUA_CATALOGUE": str(self.catalogue),
            "INTERLINGUA_REPORTS": str(self.reports),
            "DAGSTER_HOME": str(self.home),
            "DAGSTER_STATE": str(self.state),
        }

    def page(self, study: str, file: str) -> Path:
        """Where a file of a study's artefact is copied for people to open."""
        return self.reports / f"{study}{Path(file).suffix}"

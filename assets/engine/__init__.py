"""How the stages declared in this package become Dagster assets, and how a run is driven."""

"""The spec of one stage on inputs that a test has put into a store, without a graph to plan it."""

from collections.abc import Mapping
from typing import Any

from pipeline.stage import Source, Spec, Stage, fingerprint
from pipeline.store import Store


def spec_from(
    stage: Stage,
    store: Store,
    inputs: Mapping[str, Source],
    cell: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Spec:
    """With the stage's own settings where the test writes none."""
    filled = stage.settings.model_validate(dict(settings)).model_dump(mode="json")
    return Spec(
        reference=stage.reference,
        stage=stage.name,
        study="toy",
        cell=cell,
        settings=filled,
        inputs=inputs,
        fingerprint=fingerprint(stage, filled, cell, inputs, {}),
        store=str(store.root),
        root=str(store.root),
    )

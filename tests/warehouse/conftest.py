"""One synthetic study, materialised and published once for all tests of the warehouse."""

import pytest

from pipeline.store import Store
from resources import warehouse
from tests.warehouse import synthetic


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Store:
    """A store that holds a study of two seeds with methods, one of baselines only, and one of two tracks."""
    made = Store(tmp_path_factory.mktemp("synthetic") / "store")
    synthetic.materialise(made, synthetic.study(seeds=(1, 2)))
    synthetic.materialise(made, synthetic.study("baselines", methods={}))
    ranked = synthetic.ranked_study(seeds=(1, 2))
    synthetic.materialise(made, ranked, (*synthetic.STAGES, *synthetic.RANKED))
    synthetic.record_answers(made)
    return made


@pytest.fixture(scope="session")
def catalogue(store, tmp_path_factory):
    return warehouse.publish(store.root, tmp_path_factory.mktemp("catalogue") / "interlingua.duckdb")

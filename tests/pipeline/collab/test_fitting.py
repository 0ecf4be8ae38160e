"""What all fits share: how settings say to fit, and that validation chooses the penalty."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.codes.binary import BinarySettings
from pipeline.collab.fitting import how_to_fit, keep_best
from pipeline.collab.mf import MFSettings, mf
from pipeline.collab.pairs import Fit
from tests.toy_pairs import draft_of


def test_the_penalty_is_on_the_sum_over_rows() -> None:
    how = how_to_fit(MFSettings(lr=0.5, epochs=7, patience=2), penalty=3.0, rows=600, seed=4)
    assert (how.lr, how.epochs, how.patience, how.seed) == (0.5, 7, 2, 4)
    assert how.weight_decay == 3.0 / 600
    assert how.batch == 2048
    assert how_to_fit(MFSettings(batch=10), penalty=1.0, rows=600, seed=4).batch == 10


@pytest.mark.parametrize("settings", [MFSettings, BinarySettings])
@pytest.mark.parametrize("bad", [{"penalties": []}, {"lr": 0}, {"batch": 0}, {"epochs": 0}, {"patience": 0}])
def test_what_makes_no_sense_is_refused(settings: type, bad: dict) -> None:
    with pytest.raises(ValidationError):
        settings(**bad)


def test_validation_chooses_and_every_trial_is_told(tmp_path: Path) -> None:
    fits = {
        1.0: Fit(epochs=3, best=0.6, best_epochs=2, curve=[(1, "valid_auc", 0.6)]),
        3.0: Fit(epochs=2, best=0.7, best_epochs=1, curve=[(1, "valid_auc", 0.7)]),
        10.0: Fit(epochs=1, best=0.7, best_epochs=1),
    }
    files: list[str] = []

    def learn(penalty: float, checkpoint: Path) -> tuple[str, Fit]:
        files.append(checkpoint.name)
        return f"learnt with {penalty:g}", fits[penalty]

    draft = draft_of(mf, tmp_path, {})
    assert keep_best("mf", learn, (1.0, 3.0, 10.0), draft) == "learnt with 3"
    assert files == ["penalty-1.safetensors", "penalty-3.safetensors", "penalty-10.safetensors"]
    assert draft.read("search").select("candidate", "chosen").rows() == [
        ("penalty=1", False),
        ("penalty=3", True),
        ("penalty=10", False),
    ]
    assert draft.read("curve").select("phase", "value").rows() == [("penalty=1", 0.6), ("penalty=3", 0.7)]
    assert draft.metrics == {"valid_auc": 0.7, "epochs": 1, "penalty": 3.0}

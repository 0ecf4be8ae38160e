"""Binary codes: spelling, schedules, cold codes, calibration, checks, and the paper's figures."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.linear_model import LogisticRegression

from pipeline.codes import binary as module
from pipeline.codes.binary import (
    SCHEDULES,
    BinarySettings,
    Learnt,
    Schedule,
    binary_codes,
    bits_balanced,
    calibrate,
    code_table,
    codes_distinct,
    codes_vary,
    dotted,
    dotted_matches_bits,
    learn,
    read_out,
    signs,
    spell,
)
from pipeline.collab import pairs
from pipeline.collab.labelled import Known, known, part_of, sigmoid
from pipeline.evaluate.pointwise import auc, auc_by_user
from pipeline.schema import Codes
from pipeline.stage import StageFailed, run
from tests.toy_pairs import draft_of, files_of, make, passed, spec_of, store_with, taste

QUICK = {"width": 8, "penalties": (0.1, 1.0), "lr": 0.05, "batch": 64, "epochs": 20, "patience": 20}


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory):
    return make(binary_codes, taste(), tmp_path_factory.mktemp("codes"), **QUICK)


@pytest.mark.parametrize(
    ("bits", "spelt"),
    [
        ("00000000" * 4, "0.0.0.0"),
        ("11111111" * 4, "255.255.255.255"),
        ("10101100000100001111111000000001", "172.16.254.1"),
        ("1000000000000001", "128.1"),
        ("00000010", "2"),
    ],
)
def test_dotted_codes_are_bytes_most_significant_first(bits: str, spelt: str) -> None:
    assert dotted(pl.Series([bits])).to_list() == [spelt]


def test_bits_are_spelt_in_the_order_of_the_code() -> None:
    codes = np.array([[1, -1, -1, 1, 1, -1, -1, -1], [-1] * 8], dtype=np.int8)
    assert spell(codes).to_list() == ["10011000", "00000000"]


@given(st.lists(st.integers(0, 255), min_size=1, max_size=16))
def test_every_dotted_code_says_the_bytes_of_its_bits(values: list[int]) -> None:
    bits = "".join(f"{value:08b}" for value in values)
    assert [int(part) for part in dotted(pl.Series([bits])).item().split(".")] == values


def test_zero_counts_as_set() -> None:
    assert signs(np.array([-0.5, 0.0, -0.0, 0.5], dtype=np.float32)).tolist() == [-1, 1, 1, 1]


def test_the_share_of_signs_grows_every_second_epoch() -> None:
    schedule = SCHEDULES["paper_ml1m"]
    assert [schedule.share(epoch) for epoch in range(6)] == [0, 0.001, 0.001, 0.002, 0.002, 0.003]


def authors_shares(step: float, after: float, epochs: int) -> list[float]:
    """The authors' update_beta, called after every even epoch, written out."""
    beta, growing, shares = 0.0, True, []
    for epoch in range(epochs):
        shares.append(min(beta, 1.0))
        if epoch % 2 == 0:
            if growing and beta < 1.01:
                beta += step
            else:
                growing, beta = False, after
    return shares


@pytest.mark.parametrize(("name", "after"), [("growing", 1.0), ("paper_book", 0.0)])
def test_schedules_are_those_of_the_authors_code(name: str, after: float) -> None:
    shares = [SCHEDULES[name].share(epoch) for epoch in range(130)]
    assert shares == pytest.approx(authors_shares(0.02, after, 130))
    assert shares[-1] == after
    assert shares[101] == 1.0


def test_fixed_schedules_stay_where_they_are() -> None:
    assert {SCHEDULES["signs"].share(epoch) for epoch in range(300)} == {1.0}
    assert {SCHEDULES["tanh"].share(epoch) for epoch in range(300)} == {0.0}


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 500))
def test_a_share_is_a_probability(start: float, step: float, epoch: int) -> None:
    assert 0 <= Schedule(start, step, 1.0).share(epoch) <= 1


def test_every_schedule_can_be_set_and_no_other() -> None:
    for name in SCHEDULES:
        BinarySettings.model_validate({"schedule": name})
    with pytest.raises(ValidationError):
        BinarySettings.model_validate({"schedule": "papers"})


@pytest.mark.parametrize("width", [0, 12, 31])
def test_a_width_that_is_not_whole_bytes_is_refused(width: int) -> None:
    with pytest.raises(ValidationError):
        BinarySettings(width=width)


def test_calibration_is_the_logistic_regression_of_labels_on_scores() -> None:
    draw = np.random.default_rng(4)
    scores = draw.integers(-16, 17, size=3000) * 2.0
    labels = (draw.random(3000) < sigmoid(0.08 * scores - 0.5)).astype(int)
    scale, offset = calibrate(scores, labels)
    oracle = LogisticRegression(C=1e6, tol=1e-10).fit(scores[:, None], labels)
    assert scale == pytest.approx(oracle.coef_[0, 0], rel=0.02)
    assert offset == pytest.approx(oracle.intercept_[0], abs=0.01)


@pytest.mark.parametrize("scores", [np.zeros(4), np.array([-32.0, -32.0, 32.0, 32.0])])
def test_calibration_is_finite_where_scores_say_nothing_or_all(scores: np.ndarray) -> None:
    scale, offset = calibrate(scores, np.array([0, 0, 1, 1]))
    assert np.isfinite([scale, offset]).all()
    assert scale >= 0
    chance = sigmoid(scale * scores + offset)
    assert chance == pytest.approx(0.5) if not scores.any() else chance[3] > 0.9


class Fixed:
    """A model whose rows are given."""

    def __init__(self, users: list[list[float]], items: list[list[float]]) -> None:
        self.rows = {"user": users, "item": items}

    def reach(self, entity: str) -> Any:
        return torch.tensor(self.rows[entity])


def test_the_cold_code_is_the_sign_of_the_mean_tanh_of_the_trained() -> None:
    # tanh bounds the large row: the mean of (-9, 1, 1) is negative, of its tanh positive.
    model: Any = Fixed([[-9.0, 1.0], [1.0, -1.0], [1.0, -1.0], [-5.0, 5.0]], [[1.0, 1.0]])
    codes = read_out(model, Known(np.array([True, True, True, False]), np.array([True])))
    assert codes.users.tolist() == [[-1, 1], [1, -1], [1, -1], [1, -1]]
    assert codes.items.dtype == np.int8


def test_the_code_table_has_both_spellings_of_everybody() -> None:
    users = np.array([[1] * 8, [-1] * 8], dtype=np.int8)
    items = np.array([[-1] * 7 + [1]], dtype=np.int8)
    table = code_table(Learnt(users, items), Known(np.array([True, False]), np.array([True])))
    assert Codes.validate(table, cast=True).rows() == [
        ("user", 0, "11111111", "255", True),
        ("user", 1, "00000000", "0", False),
        ("item", 0, "00000001", "1", True),
    ]


def test_scores_are_inner_products_of_codes(artefact) -> None:
    codes, found = artefact.tensors("codes"), artefact.table("pairs")
    users, items = codes["users"].numpy().astype(int), codes["items"].numpy().astype(int)
    assert set(np.unique(users)) == {-1, 1}
    assert found["score"].to_list() == (users[found["user"]] * items[found["item"]]).sum(1).tolist()
    assert found["method"].unique().to_list() == ["binmf"]


def test_the_table_says_what_the_tensors_say(artefact) -> None:
    spelt = {
        entity: spell(artefact.tensors("codes")[f"{entity}s"].numpy()).to_list() for entity in ("user", "item")
    }
    table = artefact.table("codes")
    assert {e: table.filter(entity=e)["bits"].to_list() for e in ("user", "item")} == spelt


def test_codes_learn_a_taste_that_means_cannot_see(artefact) -> None:
    warm = artefact.table("pairs").filter(pl.col("part") == "test", pl.col("user") < 29, pl.col("item") < 23)
    assert auc(warm["label"], warm["score"]) > 0.9


def test_probabilities_follow_the_scores_and_are_calibrated_on_validation(artefact) -> None:
    found = artefact.table("pairs")
    scale, offset = (artefact.metrics[name] for name in ("scale", "offset"))
    wanted = sigmoid(scale * found["score"].to_numpy() + offset)
    assert found["probability"].to_numpy() == pytest.approx(wanted, abs=1e-12)
    valid = found.filter(part="valid")
    assert valid["probability"].mean() == pytest.approx(valid["label"].mean(), abs=0.01)


def test_the_cold_are_flagged_and_counted(artefact) -> None:
    cold = artefact.table("codes").filter(~pl.col("trained"))
    assert cold.select("entity", "id").rows() == [("user", 29), ("item", 23)]
    assert (artefact.metrics["cold_users"], artefact.metrics["cold_items"]) == (1, 1)


def test_checks_metrics_and_picture_are_there(artefact) -> None:
    found = passed(artefact)
    assert len(found) == 5
    assert found["every_pair_scored_once"]
    assert found["dotted_matches_bits"]
    assert found["codes_vary"]
    assert artefact.metrics["item_codes"] == 23
    assert 1 <= artefact.metrics["item_distinct"] <= 23
    assert artefact.file("pictures/code_health.svg").read_text().startswith("<?xml")
    assert len(artefact.json("balance")["user"]) == 8


def test_the_same_seed_gives_the_same_bits_and_another_does_not(artefact, tmp_path: Path) -> None:
    again = make(binary_codes, taste(), tmp_path / "a", **QUICK)
    other = make(binary_codes, taste(), tmp_path / "b", seed=2, **QUICK)
    assert files_of(again) == files_of(artefact)
    assert not other.table("codes").equals(artefact.table("codes"))


def test_the_number_of_threads_changes_no_code() -> None:
    frame, before, found = taste(), torch.get_num_threads(), []
    parts, settings = (
        (part_of(frame, "train"), part_of(frame, "valid")),
        BinarySettings(**{**QUICK, "epochs": 5}),
    )
    for count in (1, 2):
        torch.set_num_threads(count)
        try:
            found.append(learn(parts, known(frame), settings, penalty=1.0, seed=1))
        finally:
            torch.set_num_threads(before)
    assert found[0][1] == found[1][1]
    assert np.array_equal(found[0][0].users, found[1][0].users)


def test_a_killed_stage_goes_on_to_the_same_bits(
    artefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = pairs.Saving.__init__
    monkeypatch.setattr(pairs.Saving, "__init__", lambda self, file: plain(self, file, 0))
    spec, done = spec_of(binary_codes, store_with(taste(), tmp_path), **QUICK), []

    def dying(labels: Any, scores: Any) -> float:
        done.append(1)
        if len(done) == 27:  # in the second penalty's fit
            raise KeyError("killed")
        return auc(labels, scores)

    monkeypatch.setattr(module, "auc", dying)
    with pytest.raises(StageFailed, match="killed"):
        run(spec)
    assert files_of(run(spec)[0]) == files_of(artefact)
    assert len(done) == 27 + 2 * 20 - 26


def test_test_labels_change_no_code(artefact, tmp_path: Path) -> None:
    flipped = taste().with_columns(
        label=pl.when(pl.col("part") == "test").then(1 - pl.col("label")).otherwise("label").cast(pl.UInt8)
    )
    assert make(binary_codes, flipped, tmp_path, **QUICK).table("codes").equals(artefact.table("codes"))


@pytest.mark.parametrize(
    "form",
    [
        {"layer": "shared"},
        {"layer": "none"},
        {"slope": "identity", "schedule": "signs"},
        {"logits": "scaled", "schedule": "growing"},
        {"schedule": "paper_book"},
    ],
)
def test_every_form_of_the_model_fits(form: dict) -> None:
    frame = taste()
    settings = BinarySettings.model_validate({**QUICK, "epochs": 3, **form})
    parts = (part_of(frame, "train"), part_of(frame, "valid"))
    codes, fit = learn(parts, known(frame), settings, penalty=1.0, seed=1)
    assert fit.epochs == 3
    assert codes.users.shape == (30, 8)


GOOD = pl.DataFrame(
    {"entity": ["user", "item"], "id": [0, 0], "bits": ["00000010", "11111111"], "dotted": ["2", "255"]}
).with_columns(trained=True)


@pytest.mark.parametrize(
    ("column", "value", "fine"),
    [
        ("dotted", "255", True),
        ("dotted", "254", False),
        ("dotted", "0255", False),
        ("bits", "011111111", False),
    ],
)
def test_a_wrong_spelling_fails_the_check(column: str, value: str, fine: bool, tmp_path: Path) -> None:
    planted = GOOD.with_columns(
        pl.when(pl.col("entity") == "item").then(pl.lit(value)).otherwise(column).alias(column)
    )
    verdict = dotted_matches_bits(
        draft_of(binary_codes, tmp_path, {"codes": planted}), {}, BinarySettings(width=8)
    )
    assert verdict.passed == fine
    assert verdict.description == ("" if fine else "wrong: item 0")


def test_codes_of_another_width_than_set_fail_the_check(tmp_path: Path) -> None:
    draft = draft_of(binary_codes, tmp_path, {"codes": GOOD})
    assert not dotted_matches_bits(draft, {}, BinarySettings(width=16)).passed


@pytest.mark.parametrize(("share", "fine"), [(0.5, True), (0.51, False)])
def test_many_rows_of_items_sharing_a_code_give_a_warning(share: float, fine: bool, tmp_path: Path) -> None:
    draft = draft_of(binary_codes, tmp_path, {}, item_sharing_rows=share, item_sharing=0.9)
    verdict = codes_distinct(draft, {}, BinarySettings(sharing_allowed=0.5))
    assert verdict.passed == fine
    assert verdict.description.endswith("of an item that shares its code (90% of those items do)")


@pytest.mark.parametrize(
    ("users", "items", "codes", "fine"), [(2, 2, 9, True), (1, 2, 9, False), (2, 1, 9, False), (1, 1, 1, True)]
)
def test_codes_that_are_all_the_same_fail_the_check(
    users: int, items: int, codes: int, fine: bool, tmp_path: Path
) -> None:
    facts = {"user_distinct": users, "item_distinct": items, "user_codes": codes, "item_codes": codes}
    assert codes_vary(draft_of(binary_codes, tmp_path, {}, **facts), {}, BinarySettings()).passed == fine


@pytest.mark.parametrize(("users", "items", "fine"), [(0.5, 0.2, True), (0.6, 0.2, False), (0.2, 0.6, False)])
def test_many_lopsided_bits_give_a_warning(users: float, items: float, fine: bool, tmp_path: Path) -> None:
    draft = draft_of(binary_codes, tmp_path, {}, user_unbalanced_rows=users, item_unbalanced_rows=items)
    assert bits_balanced(draft, {}, BinarySettings()).passed == fine


def test_warnings_do_not_block_and_guards_do() -> None:
    assert {check.name: check.blocking for check in binary_codes.checks} == {
        "every_pair_scored_once": True,
        "dotted_matches_bits": True,
        "codes_vary": True,
        "codes_distinct": False,
        "bits_balanced": False,
    }


@pytest.mark.shared_data
def test_on_the_real_split_the_codes_beat_the_papers_figures(shared_data: Path) -> None:
    from benchmarks.collm_ml1m import load

    frame = load(shared_data / "collm-ml1m")
    train, valid, test = (part_of(frame, part) for part in ("train", "valid", "test"))
    codes, _ = learn((train, valid), known(frame), BinarySettings(), penalty=5.0, seed=1)
    score = codes.scores(test.user, test.item)
    assert auc(test.label, score) >= 0.7189
    assert np.asarray(auc_by_user(test.user, test.label, score)["auc"].mean()) >= 0.6654

"""Adapting a language model: what answers end in, and what its checks find."""

from pathlib import Path
from types import SimpleNamespace

import torch

from pipeline.llm import adapt
from tests.tiny_lm import make_tokenizer

TOKENIZER = make_tokenizer()


def test_endings_are_the_answers_tokens_and_the_end() -> None:
    no, yes = adapt.endings(TOKENIZER, ["### Response:\n"], ("Yes.", "No."), 2)
    assert TOKENIZER.decode(yes, skip_special_tokens=False) == "Yes.<|im_end|>"
    assert TOKENIZER.decode(no, skip_special_tokens=False) == "No.<|im_end|>"
    assert adapt.endings(TOKENIZER, [], ("Yes.", "No."), 2) == ([], [])


def test_an_adapter_that_ranks_like_a_coin_is_told_but_does_not_block() -> None:
    draft = SimpleNamespace(metrics={"valid_auc": 0.48})
    assert not adapt.ranks_better_than_chance(draft, {}, None).passed  # type: ignore[arg-type]
    blocking = {check.name: check.blocking for check in adapt.ADAPTER_CHECKS}
    assert blocking == {"weights_are_finite": True, "ranks_better_than_chance": False}


def test_weights_that_are_no_numbers_are_found(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for value, passes in ((1.0, True), (float("inf"), False)):
        save_file({"w": torch.tensor([1.0, value])}, tmp_path / "adapter_model.safetensors")
        draft = SimpleNamespace(path=tmp_path)
        assert adapt.weights_are_finite(draft, {}, None).passed == passes  # type: ignore[arg-type]


def test_points_that_are_no_numbers_stay_out_of_the_curve() -> None:
    table = adapt.curve_table([(0, "valid_auc", float("nan")), (0, "valid_loss", 0.7)], "titles")
    assert table.rows() == [("titles", 0, "valid_loss", 0.7)]

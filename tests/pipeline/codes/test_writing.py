"""Learning to write ids, and scores of blocks of histories."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.codes.beam import Writer
from pipeline.codes.ids import Ids
from pipeline.codes.prefixes import samples, tokens_of
from pipeline.codes.t5 import T5, Shape
from pipeline.codes.trie import grow
from pipeline.codes.writing import ROWS, Decoding, NextIds, Pupil, Slowing, tally, teach, written_scores
from pipeline.collab.events import Trained
from pipeline.collab.pairs import generator
from pipeline.collab.ranked import Block
from pipeline.methods.tiger import TigerModel

CODES = np.stack(np.divmod(np.arange(12), 4), axis=1)
IDS = Ids(np.arange(12), CODES, (3, 4))
TOKENS = tokens_of(IDS, 13, None, 0)  # item 12 has no id
ROWS_OF = Trained(np.repeat(np.arange(6), 5), np.arange(30) * 5 % 12, 6, 13)
SAMPLES = samples(ROWS_OF, TOKENS, 3)


def network() -> T5:
    shape = Shape(TOKENS.vocabulary, width=8, inner=16, heads=2, head_width=4, layers=1, decoder_layers=1)
    return T5(shape, generator(5))


def task(judged: list[float]) -> NextIds:
    """A task whose judge says these figures, one after another."""
    return NextIds(SAMPLES, SAMPLES, TOKENS, lambda: judged.pop(0))


def test_a_loss_is_the_sum_over_places_of_what_each_code_lacks() -> None:
    pupil, held = Pupil(network()), task([])
    rows = [0, 3, 7]
    inputs, outputs = torch.tensor([[2, 5, 6]]), torch.tensor([[2, 6]])
    shares = pupil.network(inputs, outputs).log_softmax(-1)[0]
    assert pupil.loss(inputs, outputs, None).item() == pytest.approx(
        -(shares[0, 2] + shares[1, 6]).item(), rel=1e-5
    )
    apart = sum(held.loss(pupil, [row], 0, 1, None).item() for row in rows)
    assert held.loss(pupil, rows, 0, 1, None).item() == pytest.approx(apart, rel=1e-5)
    assert held.units(rows, 0, 1) == 6


def test_half_the_digits_change_the_loss_by_little() -> None:
    model, rows = network(), [1, 2, 3, 4]
    whole, half = (
        task([]).loss(Pupil(model, dtype), rows, 0, 1, None) for dtype in (torch.float32, torch.bfloat16)
    )
    assert half.item() == pytest.approx(whole.item(), rel=0.02)
    assert half.item() != whole.item()


def test_the_rate_stands_still_and_then_falls_with_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.llm.tune.Run.descend", lambda self, rows: 0.0)
    optimiser = SimpleNamespace(param_groups=[{"lr": None}])
    settings: Any = SimpleNamespace(warm_up=100, learning_rate=0.5)
    rates = []
    for step in (0, 99, 399):
        progress: Any = SimpleNamespace(step=step)
        run = Slowing(*[None] * 2, settings, 1, 1000, {}, optimiser, Path(), progress)  # type: ignore[arg-type]
        run.descend([0])
        rates.append(optimiser.param_groups[0]["lr"])
    assert rates == [0.5, 0.5, 0.25]


def test_the_best_step_is_kept_and_a_run_without_progress_stops(tmp_path: Path) -> None:
    settings = TigerModel.model_validate(
        {"steps": 50, "evaluate_every": 2, "patience": 3, "examples_per_step": 4}
    )
    pupil = Pupil(network())
    run = teach(pupil, task([0.1, 0.3, 0.2, 0.2, 0.1, 0.9]), settings, 1, tmp_path / "c.safetensors", "toy")
    assert (run.progress.best_step, run.progress.step) == (2, 8)
    assert run.progress.best == 0.3
    assert all(torch.equal(run.best[name], held) for name, held in pupil.network.state_dict().items())


def block(histories: list[list[int]]) -> Block:
    offsets = np.r_[0, np.cumsum([len(one) for one in histories])]
    items = torch.tensor([item for one in histories for item in one], dtype=torch.int64)
    return Block(torch.arange(len(histories)), items, torch.from_numpy(offsets))


def scores(histories: list[list[int]], beams: int | None, masked: bool, **more: Any) -> torch.Tensor:
    writer = Writer(network(), grow(IDS), TOKENS.starts)
    return written_scores(writer, TOKENS, Decoding(beams, 3), masked=masked, **more)(block(histories))


def test_a_wide_beam_scores_as_the_exact_way_does() -> None:
    asked = [[1, 2, 3], [], [12], [5]]
    found = scores(asked, 20, masked=False)
    assert torch.allclose(found, scores(asked, None, masked=False), atol=1e-5)
    assert found.isfinite().sum(1).tolist() == [12] * 4
    assert torch.equal(found[1], found[2])  # an item without an id says nothing


def test_what_is_masked_is_not_written() -> None:
    found = scores([[1, 2, 3], []], 20, masked=True)
    assert (~found[0].isfinite()).nonzero().flatten().tolist() == [1, 2, 3, 12]
    assert found[1].isfinite().sum() == 12


def test_scores_do_not_hang_on_who_else_is_asked() -> None:
    many = [[user % 12, (user * 7) % 12] for user in range(ROWS + 5)]
    found = scores(many, 5, masked=True)
    alone = torch.cat([scores([one], 5, masked=True) for one in many[-3:]])
    assert torch.allclose(found[-3:], alone, atol=1e-5)


def test_written_ids_are_counted() -> None:
    counting = tally(CODES)
    scores([[1, 2, 3], []], 5, masked=True, counting=counting)
    assert (counting.written, counting.valid) == (10, 10)


def test_a_figure_before_learning_is_of_chance() -> None:
    found = task([0.25]).measure(Pupil(network()))
    assert found["ndcg_10"] == 0.25
    assert 0.5 < found["loss"] / math.log(TOKENS.vocabulary) < 3

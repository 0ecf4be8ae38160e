"""RQ-VAE: its loss by hand, its gradients, its first code books, and codes that nobody has."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.codes import rqvae
from pipeline.codes.rqvae import Form, RqVae, evenly, rotation, start, straight_through
from pipeline.collab import pairs
from pipeline.collab.pairs import Fitting
from tests.toy_items import crowds

FORM = Form((16,), 4, levels=2, k=8, commitment=0.25, gradient="straight_through", sinkhorn=False, restart=True)
HOW = Fitting(seed=1, lr=5e-3, weight_decay=0.0, batch=32, epochs=30, patience=30, judged_by="explained")


def by_hand() -> RqVae:
    """A network that hands its two numbers through, with two levels of two codes."""
    model = RqVae(2, FORM._replace(hidden=(), latent=2, k=2))
    with torch.no_grad():
        for layer in (model.encoder[0], model.decoder[0]):
            layer.weight.copy_(torch.eye(2))  # type: ignore[union-attr]
            layer.bias.zero_()  # type: ignore[union-attr]
        model.books.copy_(torch.tensor([[[0.0, 0.0], [4.0, 0.0]], [[0.0, 1.0], [1.0, 0.0]]]))
    return model


def test_codes_are_the_nearest_of_what_is_left_level_by_level() -> None:
    found = by_hand().quantise(torch.tensor([[5.0, 0.0], [0.0, 2.0]]))
    assert found.codes.tolist() == [[1, 1], [0, 0]]
    assert found.vectors.tolist() == [[5, 0], [0, 1]]


def test_the_loss_sums_over_dimensions() -> None:
    x = torch.tensor([[5.0, 0.0], [0.0, 2.0]])
    quantised = 1.25 * (1 + 0), 1.25 * (4 + 1)  # squares left after each level, with a quarter of commitment
    rebuilt = 0, 1
    assert by_hand()(x).item() == pytest.approx((sum(quantised) + sum(rebuilt)) / 2)


def test_code_books_learn_from_what_is_left_and_the_encoder_from_its_commitment() -> None:
    model = by_hand()
    model.quantise(torch.tensor([[0.0, 2.0]])).loss.sum().backward()
    assert model.books.grad is not None
    assert model.books.grad.tolist() == [[[0, -4], [0, 0]], [[0, -2], [0, 0]]]  # towards what was left
    z = torch.tensor([[0.0, 2.0]], requires_grad=True)
    model.quantise(z).loss.sum().backward()
    assert z.grad is not None
    assert z.grad.tolist() == [[0, 0.25 * 2 * (2 + 1)]]


@pytest.mark.parametrize("bridge", [straight_through, rotation])
def test_the_decoder_meets_the_quantised_vectors(bridge: Any) -> None:
    draws = torch.Generator().manual_seed(0)
    z, quantised = torch.randn(9, 4, generator=draws), torch.randn(9, 4, generator=draws)
    assert torch.allclose(bridge(z, quantised), quantised, atol=1e-6)


def test_the_gradient_goes_straight_through_or_turns_with_the_vector() -> None:
    for bridge, wanted in ((straight_through, [[0.0, 1.0]]), (rotation, [[-3.0, 0.0]])):
        z = torch.tensor([[0.0, 1.0]], requires_grad=True)
        quantised = torch.tensor([[3.0, 0.0]])  # a quarter turn to the right, three times as long
        bridge(z, quantised).backward(torch.tensor([[0.0, 1.0]]))
        assert z.grad is not None
        assert z.grad.numpy() == pytest.approx(np.array(wanted), abs=1e-6)


def test_sinkhorn_gives_every_code_its_share() -> None:
    draws = torch.Generator().manual_seed(0)
    far = torch.rand(64, 4, generator=draws) + torch.tensor([0.0, 0.3, 0.3, 0.3])  # most at the first
    share = evenly(far)
    assert share.sum(0).numpy() == pytest.approx(np.full(4, 0.25), rel=0.05)
    before, after = (torch.bincount(one, minlength=4) for one in (far.argmin(1), share.argmax(1)))
    assert after.max() < before.max()
    assert after.min() > before.min()


def test_the_first_code_books_are_k_means_of_the_items() -> None:
    model, x = start(crowds(), FORM, seed=1), torch.from_numpy(crowds())
    scaled = model.scaled(x)
    assert scaled.mean(0).abs().max() < 1e-5
    assert scaled.square().mean().item() == pytest.approx(1, abs=1e-5)
    codes = model.quantise(model.encoder(scaled)).codes
    assert all(len(torch.bincount(level).nonzero()) == 8 for level in codes.T)
    assert (
        len({tuple(codes[start::8, 0].tolist()) for start in range(8)}) >= 6
    )  # crowds, as the encoder sees them


def test_codes_that_no_item_has_are_put_on_one() -> None:
    model, x = start(crowds(), FORM, seed=1), torch.from_numpy(crowds())
    x = model.scaled(x)
    with torch.no_grad():
        model.books[0, 3:] = 1e3
    before = model.books.detach().clone()
    rqvae.restart(model, x, torch.Generator().manual_seed(0))
    assert (model.books[0, 3:].abs() < 100).all()
    assert torch.equal(model.books[0, :3], before[0, :3])
    used = torch.bincount(model.quantise(model.encoder(x)).codes[:, 0], minlength=8)
    assert (used[3:] > 0).sum() >= 3


@pytest.mark.parametrize(
    "changed", [{}, {"gradient": "rotation"}, {"sinkhorn": True}, {"restart": False}], ids=str
)
def test_every_form_learns_and_gives_the_same_bits_again(changed: dict[str, Any]) -> None:
    found = []
    for _ in range(2):
        model = start(crowds(), FORM._replace(**changed), seed=1)
        fit = rqvae.fit(model, crowds(), HOW)
        found.append((rqvae.codes_of(model, crowds()), fit.best))
    assert np.array_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] > 0.5


def test_items_that_share_all_codes_are_taken_apart_with_sinkhorn() -> None:
    model = start(crowds(), FORM._replace(sinkhorn=True), seed=1)
    x = model.scaled(torch.from_numpy(crowds()))
    with torch.no_grad():
        z = model.encoder(x)
        plain = model.quantise(z).codes
        apart = rqvae.spread(model, z, plain)
    assert torch.equal(apart[:, 0], plain[:, 0])
    assert len(torch.unique(apart, dim=0)) > len(torch.unique(plain, dim=0))


def test_a_network_read_from_its_books_gives_the_same_codes() -> None:
    model = start(crowds(), FORM, seed=1)
    rqvae.fit(model, crowds(), HOW)
    held = {name: torch.from_numpy(book) for name, book in rqvae.books_of(model).items()}
    again = rqvae.from_books(held, FORM)
    new = crowds(30, seed=9)
    assert np.array_equal(rqvae.codes_of(again, new), rqvae.codes_of(model, new))


def test_a_killed_fit_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start(crowds(), FORM, seed=1)
    rqvae.fit(whole, crowds(), HOW)
    plain, done = pairs.Saving.__init__, []
    monkeypatch.setattr(pairs.Saving, "__init__", lambda self, file: plain(self, file, 0))
    error = rqvae.error

    def dying(model: RqVae, x: torch.Tensor) -> float:
        done.append(1)
        if len(done) == 6:
            raise KeyError("killed")
        return error(model, x)

    monkeypatch.setattr(rqvae, "error", dying)
    with pytest.raises(KeyError):
        rqvae.fit(start(crowds(), FORM, seed=1), crowds(), HOW, tmp_path / "fit.safetensors")
    again = start(crowds(), FORM, seed=1)
    rqvae.fit(again, crowds(), HOW, tmp_path / "fit.safetensors")
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True)
    )
    assert len(done) == 30 + 1

"""RQ-VAE: an auto-encoder whose middle is a sum of code vectors, one of each level.

    x (n, width) -> encoder -> z (n, latent) -> nearest code, what it leaves, nearest code ... -> sum -> decoder

Lee et al., "Autoregressive Image Generation using Residual Quantization", CVPR 2022,
https://arxiv.org/abs/2203.01941, as Rajput et al. (TIGER, https://arxiv.org/abs/2305.05065) use it for items.
Loss of an item: |x - decoded|^2, and over levels |sg[left] - code|^2 + commitment |left - sg[code]|^2, all
sums over dimensions: a mean of one and a sum of the other lets the encoder shrink to a point, and every item
gets one id.

Departures. Vectors are first centred and scaled by one number to a mean variance of 1. The first code books are
k-means of all items, not of a batch, and a code that no item has is put on what is left of a random item before
each epoch. Adam with a constant step in place of Adagrad. `rotation` carries the decoder's gradient to the
encoder by the rotation that takes z to its quantised form (Fifty et al., https://arxiv.org/abs/2410.06424), of
all levels at once.
"""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.codes.clusters import Floats, Ints, centres
from pipeline.collab.pairs import Fit, Fitting, Saving, fit_epochs, generator
from pipeline.threads import one_thread

EPSILON, ROUNDS = 0.003, 50  # of Sinkhorn's assignment, as in LC-Rec's code
SPREAD_ROUNDS = 20  # of taking apart items that share all their codes
SMALL = 1e-6


class Form(NamedTuple):
    """Sizes of the network, and how it learns."""

    hidden: tuple[int, ...]
    latent: int
    levels: int
    k: int
    commitment: float
    gradient: Literal["straight_through", "rotation"]
    sinkhorn: bool
    restart: bool


class Quantised(NamedTuple):
    """Codes (n, levels), the sum of their vectors (n, latent), and the loss (n,) of being so far from them."""

    codes: Tensor
    vectors: Tensor
    loss: Tensor


class RqVae(nn.Module):
    """The network. `books` (levels, k, latent), and the inputs' `mean` and `scale`, are part of its state."""

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int, form: Form) -> None:
        super().__init__()
        sizes = (width, *form.hidden, form.latent)
        self.form = form
        self.encoder, self.decoder = layers(sizes), layers(sizes[::-1])
        self.books = nn.Parameter(torch.zeros(form.levels, form.k, form.latent))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Mean loss of scaled vectors (n, width)."""
        z = self.encoder(x)
        found = self.quantise(z, self.form.sinkhorn)
        decoded = self.decoder(BRIDGES[self.form.gradient](z, found.vectors))
        return (((decoded - x) ** 2).sum(-1) + found.loss).mean()

    def quantise(self, z: Tensor, sinkhorn: bool = False) -> Quantised:
        """z (n, latent) by the nearest codes; of the last level by Sinkhorn where asked."""
        left, codes, total, loss = z, [], torch.zeros_like(z), z.new_zeros(len(z))
        for level, book in enumerate(self.books):
            far = squares(left.detach(), book.detach())
            spread = sinkhorn and level == self.form.levels - 1
            codes.append(evenly(far).argmax(1) if spread else far.argmin(1))
            chosen = book[codes[-1]]
            loss = loss + ((left.detach() - chosen) ** 2).sum(-1)
            loss = loss + self.form.commitment * ((left - chosen.detach()) ** 2).sum(-1)
            left, total = left - chosen.detach(), total + chosen.detach()
        return Quantised(torch.stack(codes, 1), total, loss)

    def scaled(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.scale


def layers(sizes: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    found: list[nn.Module] = []
    for before, after in pairwise(sizes):
        found += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*found[:-1])


def squares(rows: Tensor, book: Tensor) -> Tensor:
    """Squared distances (n, k) of rows (n, d) to codes (k, d)."""
    return (rows**2).sum(1, keepdim=True) + (book**2).sum(1) - 2 * rows @ book.T


def straight_through(z: Tensor, quantised: Tensor) -> Tensor:
    """The quantised vectors, with the gradient of z as it comes."""
    return z + (quantised - z).detach()


def rotation(z: Tensor, quantised: Tensor) -> Tensor:
    """The quantised vectors, with z's gradient turned and stretched as z is to become them."""
    length, wanted = z.norm(dim=1, keepdim=True), quantised.norm(dim=1, keepdim=True)
    here, there = (z / length.clamp_min(SMALL)).detach(), (quantised / wanted.clamp_min(SMALL)).detach()
    between = here + there
    between = between / between.norm(dim=1, keepdim=True).clamp_min(SMALL)
    turned = z - 2 * (z * between).sum(1, keepdim=True) * between + 2 * (z * here).sum(1, keepdim=True) * there
    stretched = turned * (wanted / length.clamp_min(SMALL)).detach()
    return stretched + (quantised - stretched).detach()  # equal but for rounding


BRIDGES = {"straight_through": straight_through, "rotation": rotation}


def evenly(far: Tensor) -> Tensor:
    """Shares (n, k) that give every code as much of the rows as any other, the nearer the more (Sinkhorn).

    far: squared distances (n, k), of which only their order and spread count.
    """
    middle = (far.max() + far.min()) / 2
    share = torch.exp(-((far - middle) / (far.max() - middle + 1e-5)).double() / EPSILON)
    for _ in range(ROUNDS):
        share = share / share.sum(1, keepdim=True) / len(share)
        share = share / share.sum(0, keepdim=True) / share.shape[1]
    return share


def start(vectors: Floats, form: Form, seed: int) -> RqVae:
    """A network with its scale and its first code books set by the items' vectors (n, width)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = RqVae(vectors.shape[1], form)
    x = torch.from_numpy(vectors)
    model.mean.copy_(x.mean(0))
    model.scale.copy_((x - model.mean).square().mean().sqrt().clamp_min(SMALL))
    with torch.no_grad(), one_thread():
        left = model.encoder(model.scaled(x))
        for level, book in enumerate(model.books):
            middles = torch.from_numpy(centres(left.numpy(), form.k, (seed, level), iterations=20))
            book[: len(middles)] = middles
            left = left - book[squares(left, book).argmin(1)]
    return model


def fit(model: RqVae, vectors: Floats, how: Fitting, checkpoint: Path | None = None) -> Fit:
    """Learn until the epochs are over; the weights of the epoch that rebuilds best stay."""
    x = model.scaled(torch.from_numpy(vectors))

    def losses(epoch: int) -> Iterator[tuple[Tensor, int]]:
        draws = generator(how.seed, epoch)
        if model.form.restart and epoch:
            restart(model, x, draws)
        for rows in torch.randperm(len(x), generator=draws).split(how.batch):
            yield model(x[rows]), len(rows)

    saving = Saving(checkpoint) if checkpoint else None
    return fit_epochs(model, losses, lambda: 1 - error(model, x), how, saving)


@torch.no_grad()
def restart(model: RqVae, x: Tensor, draws: torch.Generator) -> None:
    """Put every code that no item has on what the levels before leave of a random item."""
    left = model.encoder(x)
    for book in model.books:
        codes = squares(left, book).argmin(1)
        dead = torch.bincount(codes, minlength=len(book)) == 0
        book[dead] = left[torch.randint(len(left), (int(dead.sum()),), generator=draws)]
        left = left - book[codes]


@torch.no_grad()
def error(model: RqVae, x: Tensor) -> float:
    """Squared error of rebuilding scaled vectors (n, width) from their codes, over their variance."""
    rebuilt = model.decoder(model.quantise(model.encoder(x)).vectors)
    return float(((x - rebuilt) ** 2).sum() / (x - x.mean(0)).square().sum().clamp_min(SMALL))


@torch.no_grad()
def codes_of(model: RqVae, vectors: Floats) -> Ints:
    """Codes (n, levels) of vectors (n, width); with `sinkhorn`, taken apart where items share all of them."""
    z = model.encoder(model.scaled(torch.from_numpy(vectors)))
    codes = model.quantise(z).codes
    return (spread(model, z, codes) if model.form.sinkhorn else codes).numpy()


def spread(model: RqVae, z: Tensor, codes: Tensor) -> Tensor:
    """Give items that share all their codes others of the last level, as evenly as can be, in some rounds."""
    codes, last = codes.clone(), model.books[-1]
    before = zip(model.books[:-1], codes.T, strict=False)
    left = z - torch.stack([torch.zeros_like(z), *(book[code] for book, code in before)]).sum(0)
    for _ in range(SPREAD_ROUNDS):
        _, group, holders = torch.unique(codes, dim=0, return_inverse=True, return_counts=True)
        crowded = torch.nonzero(holders > 1)[:, 0]
        if not len(crowded):
            break
        for one in crowded:
            rows = torch.nonzero(group == one)[:, 0]
            codes[rows, -1] = evenly(squares(left[rows], last)).argmax(1)
    return codes


def books_of(model: RqVae) -> dict[str, NDArray[np.float32]]:
    """All of the network's state, by name."""
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def from_books(books: Mapping[str, Tensor], form: Form) -> RqVae:
    """The network whose state `books_of` wrote."""
    model = RqVae(len(books["mean"]), form)
    model.load_state_dict(dict(books))
    return model

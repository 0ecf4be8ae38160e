"""Intervals and paired tests that treat users, not rows, as the independent units.

    rows and per-user figures -> Measure -> bootstrap over users -> interval
    rows of two methods -> exchange shares, differences of figures -> flip test -> Holm's correction

Rows of one user are alike, so users are drawn whole, with replacement (cluster bootstrap: Field and Welsh,
J. R. Stat. Soc. B 69, 2007). A draw is a row of counts: how often each user is in it. A measure turns counts
(draws, users) into values (draws,), so a pooled AUC is reweighted, never re-sorted, and every method meets
the same draws: differences are paired. Nothing here knows a method or a file.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
CELLS = 1 << 18  # numbers in one block of work (2 MB): small enough for the processor's cache


class Rows(NamedTuple):
    """Scored rows of one part: users (n,) in 0..U-1, labels (n,) in {0, 1}, scores (seeds, n)."""

    users: Whole
    labels: NDArray[np.integer]
    scores: Floats


class Measure(Protocol):
    """A metric as a function of how often each user counts."""

    def __call__(self, counts: Whole) -> Floats:
        """Values (draws,) of counts (draws, users); NaN where a draw leaves nothing to measure."""
        ...


@dataclass(frozen=True)
class UserMean:
    """Weighted mean of a figure per user: `amounts` (users,) summed, over `weights` (users,) summed.

    A user outside the metric has weight 0 and amount 0. Weights of 1 make UAUC; rows make weighted UAUC, and,
    with summed losses as amounts, the log loss of all rows.
    """

    amounts: Floats
    weights: Floats

    def __call__(self, counts: Whole) -> Floats:
        # einsum and not `@`: its sums do not depend on how many threads a library takes
        above = np.einsum("du,u->d", counts, self.amounts)
        below = np.einsum("du,u->d", counts, self.weights)
        return divide(above, below)


@dataclass(frozen=True)
class PooledAUC:
    """AUC over the rows of all users, a row counting as often as its user; from `pooled_auc`.

    liked, disliked: the users (rows,) of rows of each class, sorted by score; below, tied: for each liked
    row, how many disliked rows score lower, and lower or equal.
    """

    liked: Whole
    disliked: Whole
    below: Whole
    tied: Whole

    def __call__(self, counts: Whole) -> Floats:
        by_user = np.ascontiguousarray(counts.T, dtype=np.float64)
        passed = np.zeros((len(self.disliked) + 1, len(counts)))
        np.cumsum(by_user[self.disliked], axis=0, out=passed[1:])
        weights = by_user[self.liked]
        ordered = passed[self.below]
        ordered += passed[self.tied]
        return divide(np.einsum("rd,rd->d", weights, ordered), 2 * weights.sum(0) * passed[-1])


@dataclass(frozen=True)
class Average:
    """Mean of several measures, as of one method's seeds."""

    parts: Sequence[Measure]

    def __call__(self, counts: Whole) -> Floats:
        return np.mean([part(counts) for part in self.parts], axis=0)


def pooled_auc(users: ArrayLike, labels: ArrayLike, scores: ArrayLike) -> PooledAUC:
    """Sort the rows of users (n,) in 0..U-1, labels (n,) in {0, 1} and scores (n,) once, for any counts."""
    owner, order = np.asarray(users), np.asarray(scores, dtype=np.float64)
    sorting = np.argsort(order, kind="stable")
    owner, order = owner[sorting], order[sorting]
    truth: NDArray[np.bool_] = np.asarray(labels, dtype=np.bool_)[sorting]
    positives, negatives = order[truth], order[~truth]
    below, tied = (np.searchsorted(negatives, positives, side) for side in ("left", "right"))
    return PooledAUC(owner[truth], owner[~truth], below, tied)


def divide(above: Floats, below: Floats) -> Floats:
    """Element by element; NaN over zero."""
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below != 0)


def value(measure: Measure, users: int) -> float:
    """The measure with every user counted once."""
    return float(measure(np.ones((1, users), dtype=np.int64))[0])


def draws(users: int, resamples: int, seed: int, size: int) -> Iterator[Whole]:
    """Counts (at most `size`, users) of as many users drawn with replacement; in all `resamples` rows.

    The same seed gives the same rows whatever the size of a block.
    """
    random = np.random.default_rng(seed)
    for start in range(0, resamples, size):
        block = min(size, resamples - start)
        drawn = random.integers(users, size=(block, users)) + users * np.arange(block)[:, None]
        yield np.bincount(drawn.ravel(), minlength=block * users).reshape(block, users)


def bootstrap(measures: Sequence[Measure], users: int, resamples: int, seed: int, rows: int = 0) -> Floats:
    """Values (measures, resamples) of every measure on the same draws of users.

    rows: length of the longest measure, which bounds the memory of a block of draws.
    """
    size = max(1, CELLS // max(users, rows))
    blocks = [[m(counts) for m in measures] for counts in draws(users, resamples, seed, size)]
    return np.concatenate([np.array(b).reshape(len(measures), -1) for b in blocks], axis=1)


def interval(resampled: Floats, confidence: float, users: int) -> tuple[Floats, Floats]:
    """Percentile bounds over the last axis; draws with nothing to measure (NaN) are left out.

    The tails are those of the expanded percentile interval (Hesterberg, Am. Stat. 69, 2015), which mends that
    draws of few `users` vary too little: 2.5 % becomes 1.9 % for 30 users and 2.4 % for 200.
    """
    tail = expanded((1 - confidence) / 2, users)
    low, high = np.nanquantile(resampled, [tail, 1 - tail], axis=-1)
    return low, high


def expanded(tail: float, users: int) -> float:
    """The normal tail as far out as Student's for the deviation of `users` figures; `tail` for one user."""
    from scipy.special import ndtr, stdtrit

    if users < 2:
        return tail
    return float(ndtr(stdtrit(users - 1, tail) * math.sqrt(users / (users - 1))))


def flip_test(differences: Floats, flips: int, seed: int) -> Floats:
    """Two-sided p (k,) of k paired comparisons, from their differences (k, users) per user.

    If two methods do equally well, a user's difference is as likely to have the other sign; p is the share of
    random signs whose sum is at least as far from zero (Fisher's randomisation test; Smucker, Allan and
    Carterette, CIKM 2007). The same signs serve all comparisons. The smallest p is 1 / (flips + 1).
    """
    random = np.random.default_rng(seed)
    comparisons, users = differences.shape
    reached, size = np.zeros(comparisons, dtype=np.int64), max(1, CELLS // max(users, 1))
    least = np.abs(differences.sum(1)) - 1e-12 * np.abs(differences).sum(1)  # rounding must not undo a tie
    for start in range(0, flips, size):
        block = min(size, flips - start)
        signs = random.integers(0, 2, size=(block, users)) * 2.0 - 1
        reached += (np.abs(signs @ differences.T) >= least).sum(0)
    return (1 + reached) / (1 + flips)


def exchange_shares(rows: Rows, versus: Rows) -> Floats:
    """Each user's share (users,) in the difference in pooled AUC of two methods; they sum to it.

    Flipping a share's sign is the same as exchanging that user's ranks between the methods. So `flip_test` on
    shares is the permutation test of Venkatraman and Begg (Biometrika 83, 1996), for areas as in Bandos,
    Rockette and Gur (Stat. Med. 24, 2005), with users in the place of subjects, at the price of one sort. Why:
    with weights x on the rows of both methods, x'Mx counts the ordered pairs of the one mixed method,
    (1-x)'M(1-x) those of the other, and in their difference the square terms cancel.
    """
    pairs = paired_seeds(rows.scores, versus.scores)
    return np.mean([shares(rows, one, other) for one, other in zip(*pairs, strict=True)], axis=0)


def paired_seeds(scores: Floats, versus: Floats) -> tuple[Floats, Floats]:
    """Both (k, n), seed by seed; every seed with every one where their numbers differ."""
    one, other = len(scores), len(versus)
    if one == other:
        return scores, versus
    return np.repeat(scores, other, axis=0), np.tile(versus, (one, 1))


def shares(rows: Rows, score: Floats, versus: Floats) -> Floats:
    ranks, truth = np.r_[average_ranks(score), average_ranks(versus)], np.r_[rows.labels, rows.labels] == 1
    liked, disliked = np.sort(ranks[truth]), np.sort(ranks[~truth])
    below, above = both_sides(disliked, ranks), 2 * len(liked) - both_sides(liked, ranks)
    ordered = np.where(truth, below, above)  # twice the pairs that the row is part of and that are in order
    won, lost = (np.bincount(rows.users, weights=part) for part in np.split(ordered, 2))
    return (won - lost) / (len(liked) * len(disliked))  # both methods' rows: 4 times the pairs of one


def both_sides(ordered: Floats, values: Floats) -> Whole:
    """How many of `ordered` lie below each value, twice, plus how many equal it."""
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")


def average_ranks(scores: Floats) -> Floats:
    """Ranks (n,) from 1; equal scores share the mean of theirs."""
    _, place, times = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(times) - (times - 1) / 2)[place]


def holm(p: Floats) -> Floats:
    """p-values (k,) corrected for being k questions asked together (Holm, Scand. J. Stat. 6, 1979).

    By hand: statsmodels' multipletests sweeps the whole process for garbage at each call, a tenth of a second.
    """
    rising = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[rising] = np.maximum.accumulate(p[rising] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected


def effect_size(differences: Floats, weights: Floats) -> float | None:
    """Mean over standard deviation of per-user differences (users,), users weighing `weights` (users,).

    Cohen's d of paired figures. None where the differences do not vary.
    """
    counting = weights > 0
    figures, share = differences[counting], weights[counting] / max(weights.sum(), 1)
    if len(figures) < 2:
        return None
    middle = float(share @ figures)
    deviation = float(np.sqrt(share @ (figures - middle) ** 2 * len(figures) / (len(figures) - 1)))
    return middle / deviation if deviation > 1e-12 else None

"""What the report shows of semantic ids, by hand and on a page."""

from types import SimpleNamespace

import polars as pl

from pipeline.evaluate.report import coded
from pipeline.evaluate.report.coded import Branch, gather, tree

IDS = pl.DataFrame(
    {
        "item": [0, 1, 2, 3, 4, 5],
        "codes": [[7, 1, 0], [2, 0, 0], [7, 1, 1], [7, 0, 0], [2, 3, 0], [9, 9, 0]],
    }
)
ITEMS = pl.DataFrame({"item": range(6), "title": ["a", "b", "c", "d", "e", "f"]})
FACTS = {
    "items": 6,
    "levels": 2,
    "codes_a_level": 10,
    "unique_share": 5 / 6,
    "sharing": 1 / 3,
    "largest_group": 2,
} | {
    f"{name}_{level}": value
    for name, value in (
        ("usage", 0.3),
        ("perplexity", 2.5),
        ("variance_left", 0.4),
        ("category_information", 0.1),
    )
    for level in (1, 2)
}


def made(stage: str = "semantic_ids/lsh", seed: int = 1, **facts) -> SimpleNamespace:
    return SimpleNamespace(stage=stage, seed=seed, metrics={**FACTS, **facts}, table=lambda name: IDS)


def test_the_commonest_codes_come_first_with_titles() -> None:
    found = tree(made(), ITEMS)  # type: ignore[arg-type]
    assert (found.stage, found.seed, found.hidden) == ("semantic_ids/lsh", 1, 0)
    assert found.branches == [
        Branch(7, 3, [Branch(1, 2, (), ["a", "c"], 0), Branch(0, 1, (), ["d"], 0)], (), 0),
        Branch(2, 2, [Branch(0, 1, (), ["b"], 0), Branch(3, 1, (), ["e"], 0)], (), 0),
        Branch(9, 1, [Branch(9, 1, (), ["f"], 0)], (), 0),
    ]


def test_what_is_not_shown_is_counted(monkeypatch) -> None:
    for name in ("FIRST", "SECOND", "TITLES"):
        monkeypatch.setattr(coded, name, 1)
    found = tree(made(), ITEMS)  # type: ignore[arg-type]
    assert found.hidden == 2
    assert found.branches == [Branch(7, 3, [Branch(1, 2, (), ["a"], 1)], (), 1)]


def test_ids_of_one_level_have_branches_too() -> None:
    found = tree(made(levels=1), ITEMS)  # type: ignore[arg-type]
    assert [len(branch.branches) for branch in found.branches] == [1, 1, 1]


def test_every_artefact_has_figures_and_every_stage_one_tree() -> None:
    found = gather([made(), made(seed=2), made("semantic_ids/random")], ITEMS)  # type: ignore[list-item]
    assert [(one.stage, one.seed) for one in found.figures] == [
        ("semantic_ids/lsh", 1),
        ("semantic_ids/lsh", 2),
        ("semantic_ids/random", 1),
    ]
    assert [(one.stage, one.seed) for one in found.trees] == [
        ("semantic_ids/lsh", 1),
        ("semantic_ids/random", 1),
    ]
    assert (found.figures[0].k, found.figures[0].usage, found.figures[0].perplexity) == (
        10,
        [0.3, 0.3],
        [0.25, 0.25],
    )


def test_the_page_shows_makers_and_a_tree_with_escaped_titles(full) -> None:
    section = full.html.split('<section id="semantic-ids">')[1].split("</section>")[0]
    assert '<th scope="row">semantic_ids/lsh</th><td>items</td><td class="n">1</td>' in section
    assert '<th scope="row">binary_codes</th><td>users</td>' in section
    assert "<b>0, 0</b> · 2: &lt;script&gt;alert" in section
    assert "<script" not in section


def test_a_study_without_semantic_ids_has_no_such_section(plain) -> None:
    assert "semantic-ids" not in plain.html

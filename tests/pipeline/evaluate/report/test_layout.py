"""The page as a browser lays it out: nothing is cut, no words lie on others, on wide and narrow screens."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.evaluate.report.figures import against_cost, heat, with_bands
from pipeline.evaluate.report.ranked import Point
from tests.pipeline.evaluate.report.conftest import Browser
from tests.pipeline.evaluate.report.test_figures import board_of

WIDTHS = (1280, 800)
MEASURE = """<script>
document.querySelectorAll("details").forEach(one => one.open = true);
const corners = text => {
  const box = text.getBBox(), matrix = text.getScreenCTM(), slack = box.height * 0.2;
  return [[0, 0], [1, 0], [1, 1], [0, 1]].map(([x, y]) =>
    new DOMPoint(box.x + x * box.width, box.y + slack + y * (box.height - 2 * slack)).matrixTransform(matrix));
};
const apart = (one, other) => [one, other].some(shape => shape.some((from, place) => {
  const to = shape[(place + 1) % 4], along = [from.y - to.y, to.x - from.x];
  const on = points => points.map(point => point.x * along[0] + point.y * along[1]);
  return Math.max(...on(one)) <= Math.min(...on(other)) || Math.max(...on(other)) <= Math.min(...on(one));
}));
const found = {wide: [], overlaps: [], cut: []};
if (document.documentElement.scrollWidth > window.innerWidth) found.wide.push("page");
for (const box of document.querySelectorAll(".wide"))
  if (box.scrollWidth > box.clientWidth + 1) found.wide.push(box.querySelector("thead").textContent.trim());
for (const figure of document.querySelectorAll("figure")) {
  const frame = figure.querySelector("svg").getBoundingClientRect();
  const texts = [...figure.querySelectorAll("text")].filter(text => text.textContent.trim());
  const shapes = texts.map(corners);
  texts.forEach((text, place) => {
    const out = shapes[place].some(p =>
      p.x < frame.left - 1 || p.x > frame.right + 1 || p.y < frame.top - 1 || p.y > frame.bottom + 1);
    if (out) found.cut.push(text.textContent);
    for (let other = 0; other < place; other++)
      if (!apart(shapes[place], shapes[other]))
        found.overlaps.push([texts[other].textContent, text.textContent]);
  });
}
document.body.innerHTML = "<pre>MEASURED" + btoa(encodeURIComponent(JSON.stringify(found))) + "</pre>";
</script></body>"""


def measured(browser: Browser, html: str, width: int, folder: Path) -> dict[str, list[Any]]:
    """What of a page is wider than its place, and which words of its pictures are cut or lie on others."""
    from base64 import b64decode
    from urllib.parse import unquote

    page = folder / f"{width}.html"
    page.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", html).replace("</body>", MEASURE))
    printed = browser(page, folder, "--dump-dom", f"--window-size={width},900")
    found = re.search("MEASURED([A-Za-z0-9+/=]+)", printed)
    assert found, printed[:500]
    return json.loads(unquote(b64decode(found.group(1)).decode()))


def must_fit(wide: list[str]) -> list[str]:
    """The page itself and the leaderboards, where they do not fit; other tables may scroll in their boxes."""
    return [one for one in wide if one == "page" or one.startswith(("MethodKindAUC", "MethodKindNDCG"))]


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_of_two_tracks_fits_and_no_words_lie_on_others(ranked_study, browser, tmp_path, width):
    found = measured(browser, ranked_study.html, width, tmp_path)
    assert (found["overlaps"], found["cut"]) == ([], [])
    assert not must_fit(found["wide"])


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_a_page_of_methods_and_controls_fits(full, browser, tmp_path, width):
    found = measured(browser, full.html, width, tmp_path)
    assert (found["overlaps"], found["cut"]) == ([], [])
    assert not must_fit(found["wide"])


@pytest.mark.browser
def test_pictures_of_many_models_keep_their_words_apart(browser, tmp_path):
    names = [f"some_quite_long_model_{place}" for place in range(15)]
    board = board_of({name: 0.1 + place * 1e-4 for place, name in enumerate(names)})
    points = [Point(name, at, 0.1, 0.05, 0.2, 9) for name in names for at in (1, 5, 9, 10, 40, 90)]
    pictures = [
        against_cost(board, "ndcg_10"),
        with_bands(points, "activity", "items"),
        heat({(one, other): 0.5 for one in names for other in names}, "overlap"),
    ]
    figures = "".join(f'<figure style="width: 500px">{svg}</figure>' for svg in pictures)
    found = measured(browser, f"<!doctype html><body>{figures}</body>", 1280, tmp_path)
    assert (found["overlaps"], found["cut"]) == ([], [])


@pytest.mark.browser
def test_words_that_lie_on_others_are_cut_or_too_wide_are_found(browser, tmp_path):
    html = """<!doctype html><body><div class="wide" style="width: 50px; overflow: auto"><table><thead><tr>
    <th>Averyveryverylonghead</th></tr></thead></table></div><div style="width: 900px">x</div>
    <figure><svg viewBox="0 0 200 60" width="200"><text x="0" y="20">one word</text>
    <text x="10" y="22">two words</text><text x="190" y="50">three words</text></svg></figure></body>"""
    assert measured(browser, html, 800, tmp_path) == {
        "wide": ["page", "Averyveryverylonghead"],
        "overlaps": [["one word", "two words"]],
        "cut": ["three words"],
    }

"""A page that would load or run anything is found out; one that links and draws is not."""

import pytest

from pipeline.evaluate.report.contained import loads

HARMLESS = """<!doctype html><html><head><style>p { color: red; fill: url(#shade) }</style></head><body>
<a href="#part">inside</a> <a href="https://example.org">followed by hand</a>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"><use xlink:href="#dot"/>
<path clip-path="url(#clip)"/></svg> &lt;script&gt;alert(1)&lt;/script&gt; <pre>src="http://x"</pre></body></html>"""


def test_harmless_page_loads_nothing():
    assert loads(HARMLESS) == []


@pytest.mark.parametrize(
    "planted",
    [
        "<script>alert(1)</script>",
        "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
        '<img src="x" onerror="alert(1)">',
        '<link rel="stylesheet" href="https://cdn.example/x.css">',
        '<iframe src="https://example.org"></iframe>',
        '<p onclick="alert(1)">x</p>',
        '<a href="javascript:alert(1)">x</a>',
        '<a href=" JaVaScRiPt:alert(1)">x</a>',
        '<a href="//evil.example">x</a>',
        '<p style="background: url(https://evil.example/x.png)">x</p>',
        "<p style=\"background: URL( '//evil.example')\">x</p>",
        "<style>@import 'https://evil.example/x.css';</style>",
        '<svg><use xlink:href="https://evil.example/x.svg#a"/></svg>',
        '<svg><image href="https://evil.example/x.png"/></svg>',
        '<form action="https://evil.example"></form>',
        '<video poster="https://evil.example/x.png"></video>',
        '<base href="https://evil.example">',
        "<object data='x.swf'></object>",
    ],
)
def test_planted_load_is_found(planted):
    assert loads(HARMLESS.replace("</body>", f"{planted}</body>"))


def test_finding_names_the_tag_and_the_attribute():
    assert loads('<p onclick="alert(1)">x</p>') == ["<p onclick=alert(1)>"]

"""Whether a page is only itself: what it would load or run, found by parsing it as a browser does.

A title that slipped into the page as markup shows here too, as the tag or attribute that it would be.
"""

import re
from html.parser import HTMLParser

LOADING = {"script", "link", "iframe", "frame", "object", "embed", "applet", "base", "form", "input"}
LOADING |= {"img", "image", "video", "audio", "source", "track"}
FETCHING = {"src", "srcset", "action", "formaction", "data", "poster", "background", "ping", "manifest"}
RULE = re.compile(r"@import|url\((?!\s*['\"]?#)", re.I)  # style that fetches; url(#id) stays inside


def loads(html: str) -> list[str]:
    """Tags, attributes and style rules of a page that fetch something or run something."""
    parser = Loads()
    parser.feed(html)
    parser.close()
    return parser.found


class Loads(HTMLParser):
    """Collects them while the page is fed."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in LOADING:
            self.found.append(f"<{tag}>")
        self.found += [
            f"<{tag} {name}={value}>" for name, value in attrs if reaches_out(tag, name, value or "")
        ]

    def handle_data(self, data: str) -> None:
        if self.lasttag == "style" and RULE.search(data):
            self.found.append("<style> with a rule that loads")


def reaches_out(tag: str, name: str, value: str) -> bool:
    """True for an attribute that fetches or runs; a link that a reader may follow does neither."""
    if name.startswith("on") or name in FETCHING:
        return True
    if name.rpartition(":")[2] == "href":
        followed = tag == "a" and value.strip().lower().startswith(("https://", "http://"))
        return not (followed or value.startswith("#"))
    return bool(RULE.search(value))

"""Check that every link and picture of the built site leads to a file and an anchor, offline.

python docs/check_links.py docs/_build/html
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Collects the links and the anchors of a page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors = [], {"", "top"}  # both mean the page itself
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        """Called by the parser."""
        for name, value in attrs:
            if name in ("href", "src"):
                self.links.append(value)
            elif name == "id":
                self.anchors.add(value)


def broken(site):
    """``page: link`` for each that leads nowhere, without asv's pages, whose links are scripts."""
    found = (path for path in site.rglob("*.html") if site / "asv" not in path.parents)
    pages = {path: Page(path) for path in found}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file() or (
                target in pages and unquote(parts.fragment) not in pages[target].anchors
            ):
                yield f"{path.relative_to(site)}: {link}"


if __name__ == "__main__":
    found = sorted(set(broken(Path(sys.argv[1]).resolve())))
    sys.exit("\n".join(found) or 0)

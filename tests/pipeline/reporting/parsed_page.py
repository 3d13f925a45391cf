"""A report's page taken apart: its elements and words, and that it loads nothing."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Elements(HTMLParser):
    """Collects tags, attributes and text, and checks that tags close in order."""

    VOID = frozenset(("meta", "img", "br", "link", "input", "hr"))

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def check_self_contained(text: str) -> Elements:
    """No element that loads or runs anything; ids are unique."""
    parsed = Elements(text)
    for tag, attributes in parsed.found:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio"}, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href", "srcset", "poster", "action"):
                assert value.startswith(("data:image/", "#")), (tag, value[:80])
            if name == "style":
                assert "url(" not in value.replace("url(#", ""), value
    ids = [attributes["id"] for _, attributes in parsed.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    styles = "".join(re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL))
    assert "@import" not in styles
    assert "url(" not in styles
    return parsed

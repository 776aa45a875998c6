from html.parser import HTMLParser

from stabdiag.judging.report import Report
from stabdiag.reports import html
from tests.reports.sample_report import sample_report, sick

VOID = {"meta", "br"}


class Checker(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(page):
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    return checker


def test_the_page_as_it_is(snapshot):
    assert html.render(sample_report()) == snapshot


def test_it_needs_nothing_else():
    page = html.render(sample_report())
    checker = parsed(page)
    assert checker.links == [] and "script" not in checker.tags
    assert "http" not in page and "@import" not in page and "url(" not in page


def test_text_of_a_model_stays_text():
    run = sick()
    run.findings[0].message = "<script>alert(1)</script> `<b>` \x1b[31m"
    run.subject.name = "<img src=x>"
    checker = parsed(html.render(Report("0", [run])))
    assert "script" not in checker.tags and "img" not in checker.tags and "b" in checker.tags
    assert r"<code>&lt;b&gt;</code> \x1b[31m" in html.render(Report("0", [run]))


def test_the_source_is_marked_at_the_place():
    assert "<pre>        return <mark>F.relu</mark>(self.conv(x) + self.bias)</pre>" in html.render(Report("0", [sick()]))


def test_a_notebook_gets_a_piece_of_a_page():
    piece = html.fragment(sample_report())
    assert parsed(piece).tags[0] == "div" and "<html" not in piece

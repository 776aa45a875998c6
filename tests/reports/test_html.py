import json
from html.parser import HTMLParser

from stabdiag.judging.report import Report
from stabdiag.reports import html
from stabdiag.rule import DOCUMENTATION
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


def test_its_static_part_as_it_is(snapshot):
    assert html.fragment(sample_report()) == snapshot


def test_it_loads_nothing():
    page = html.render(sample_report())
    checker = parsed(page)
    assert not [link for link in checker.links if not link.startswith(("#", DOCUMENTATION))]
    assert "src=" not in page and "@import" not in page and "url(" not in page


def test_text_of_a_model_stays_text():
    run = sick()
    run.findings[0].message = "<script>alert(1)</script> `<b>` \x1b[31m"
    run.subject.name = "<img src=x>"
    run.op_rows[0].module = "</script><script>alert(2)</script>"
    page = html.render(Report("0", [run]))
    checker = parsed(page)
    assert checker.tags.count("script") == 2 and "img" not in checker.tags and "b" in checker.tags
    assert r"<code>&lt;b&gt;</code> \x1b[31m" in page
    assert run.op_rows[0].module in embedded(page)["runs"][0]["ops"]["strings"]


def embedded(page):
    return json.loads(page.partition('id="data">')[2].partition("</script>")[0])


def test_the_operations_are_embedded_once_in_columns():
    run = sick()
    run.op_rows[0].exponents = {-3: 1, 0: 1000}
    ops = embedded(html.render(Report("0", [run])))["runs"][0]["ops"]
    row = {name: values[0] for name, values in ops["columns"].items()}
    assert ops["strings"][row["op"]] == run.op_rows[0].op and row["line"] == run.op_rows[0].line
    first, digits = ops["exponents"][0].split(":")
    assert first == "-3" and len(digits) == 4 and digits[0] < digits[3] and digits[1:3] == "00"


def test_a_proven_diff_can_be_unfolded():
    run = sick()
    run.findings[0].fixes[0].proven, run.findings[0].fixes[0].diff = True, "--- a\n+++ b\n-x < 1\n+x"
    assert '<pre class="diff">--- a\n+++ b\n-x &lt; 1\n+x</pre>' in html.render(Report("0", [run]))


def test_the_source_is_marked_at_the_place():
    assert "<pre>        return <mark>F.relu</mark>(self.conv(x) + self.bias)</pre>" in html.render(Report("0", [sick()]))


def test_a_notebook_gets_a_piece_of_a_page():
    piece = html.fragment(sample_report())
    assert parsed(piece).tags[0] == "div" and "<html" not in piece

import copy

import pytest
from markdown_it import MarkdownIt

from stabdiag.judging.report import Report
from stabdiag.reports import markdown
from tests.reports.sample_report import sample_report, sick


def test_the_page_as_it_is(snapshot):
    assert markdown.render(sample_report()) == snapshot


def test_it_fits_into_a_comment_and_says_what_does_not():
    run = sick()
    run.findings = [copy.deepcopy(run.findings[0]) for _ in range(2000)]
    page = markdown.render(Report("0", [run]))
    assert len(page) <= 65_535
    shown = page.count("never fire")
    assert 50 < shown < 2000 and f"… and {2000 - shown} more findings" in page


@pytest.mark.parametrize(
    "text", ["<script>", "[a](b)", "@team", "#12", "a | b", "*x* _y_ ~~z~~", "![x](y)", "a\n# b", "`a|b` <i>"]
)
def test_text_of_a_model_stays_text(text):
    page = MarkdownIt("commonmark").enable("table").enable("strikethrough").render(f"| {markdown.escaped(text)} |\n|---|\n")
    inner = page.partition("<th>")[2].partition("</th>")[0]
    assert not {"<a", "<em", "<s>", "<img", "<script", "<i>"} & {
        tag for tag in ("<a", "<em", "<s>", "<img", "<script", "<i>") if tag in inner
    }
    assert inner and "<th>" not in inner


def test_mentions_and_issue_numbers_do_not_fire():
    assert "@" not in markdown.escaped("@team fixed #12") and " #12" not in markdown.escaped("@team fixed #12")

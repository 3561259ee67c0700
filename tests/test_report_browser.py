"""The report in a real browser: nothing missing, no error, no request, no overflow."""

import itertools

import pytest
from browser import SIZES, check_contrast, check_quiet
from report_runs import FIGURES, run_of, split_of

from vireid_jax.report.build import page


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page([run_of()]))
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_the_page_is_complete_and_requests_nothing(tab, report, size, scheme):
    tab.open(report, size, scheme)
    check_quiet(tab, report, size)
    for name, panels in FIGURES.items():
        drawn = f"document.querySelectorAll('figure#{name} .panel svg').length"
        assert tab.value(drawn) == panels, name
    assert tab.value("document.images.length") > 40


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_two_runs_fit_with_all_their_tables_open(tab, tmp_path, size):
    runs = [run_of("runs/one"), run_of("runs/two", split_of(noise=0.8, seed=1))]
    (tmp_path / "both.html").write_text(page(runs))
    tab.open(tmp_path / "both.html", size, "light")
    tab.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert tab.value("document.documentElement.scrollWidth") <= size[0]
    links = "[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))"
    titles = tab.value(f"{links}.map(i => document.getElementById(i)?.tagName)")
    assert len(titles) == 15
    assert set(titles) <= {"MAIN", "SECTION"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(tab, report, scheme):
    tab.open(report, SIZES["desktop"], scheme)
    on_paper = ["body", ".labels", "nav a", "svg text", "summary"]
    own = [".match .sign", ".miss .sign", ".query .sign", ".badges .infrared"]
    paper = check_contrast(tab, on_paper, own)
    assert (sum(paper[:3]) > 600) == (scheme == "light")


def test_the_first_key_reaches_the_skip_link(tab, report):
    tab.open(report, SIZES["desktop"], "light")
    tab.press("Tab")
    assert tab.value("document.activeElement.className") == "skip"
    assert tab.value("document.activeElement.getBoundingClientRect().left") >= 0
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_what_is_drawn_and_shown_has_a_name(tab, report):
    tab.open(report, SIZES["desktop"], "light")
    nameless = (
        "[...document.querySelectorAll('.panel svg')].filter(s =>"
        " !s.getAttribute('aria-label')).length"
        " + [...document.querySelectorAll('[tabindex=\"0\"]')].filter(s =>"
        " !s.getAttribute('aria-label')).length"
    )
    assert tab.value(nameless) == 0
    steps = "[...document.querySelectorAll('h1,h2,h3,h4')].map(h => +h.tagName[1])"
    levels = tab.value(steps)
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    lost = (
        "[...document.querySelectorAll('a[href^=\"#\"], [aria-labelledby]')]"
        ".filter(a =>"
        " !document.getElementById((a.getAttribute('href') ||"
        " '#' + a.getAttribute('aria-labelledby')).slice(1))).length"
    )
    assert tab.value(lost) == 0

"""Rank lists of one's own images, and the page that shows them."""

import html.parser
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import SIZES, check_contrast, check_quiet
from python_process import run_python
from rich.console import Console
from small_embedder import embedder_of, fill

from vireid_jax import rank as ranking
from vireid_jax.embed.folder import extract, open_gallery
from vireid_jax.rank import RankList, Shown, page, rank_images, table

QUIET = Console(quiet=True)
NAMES = [f"{n}.png" for n in range(9)] + ["<script>alert(1)</script>&.png"]


@pytest.fixture(scope="module")
def embedder():
    return embedder_of()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("gallery") / "day", NAMES)


@pytest.fixture(scope="module")
def gallery(embedder, images):
    return open_gallery(embedder, images, "visible", None, QUIET)


class Page(html.parser.HTMLParser):
    """Collect a page's elements, and the texts in them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, name):
        return [attrs for tag, attrs in self.tags if tag == name]


def test_an_image_is_nearest_to_itself_and_cosines_fall(embedder, images, gallery):
    queries = [images / "3.png", images / "7.png"]
    lists = rank_images(embedder, queries, "visible", gallery, 4)
    for query, one in zip(queries, lists, strict=True):
        assert one.nearest[0].name == query.name
        assert one.nearest[0].cosine == pytest.approx(1, abs=1e-5)
        cosines = [image.cosine for image in one.nearest]
        assert cosines == sorted(cosines, reverse=True)
        row = embedder.embed(query, "visible")[0]
        products = gallery.features @ row
        best = [gallery.filename[i] for i in np.argsort(-products)[:4]]
        assert [image.name for image in one.nearest] == best
        assert len(one.nearest) == 4


def test_names_are_printed_as_they_are():
    console = Console(file=io.StringIO(), width=80)
    shown = [Shown(name, None, 0.5) for name in ("[red]1.png", "[b]2.png")]
    console.print(table(RankList(shown[0], shown)), markup=False)
    printed = console.file.getvalue()
    assert "nearest to [red]1.png" in printed
    assert "[b]2.png" in printed


def test_a_feature_file_ranks_as_its_folder_does(embedder, images, gallery, tmp_path):
    out = tmp_path / "day.parquet"
    extract(embedder, images, "visible", out)
    found = open_gallery(embedder, out, None, None, QUIET)
    assert (found.folder, found.modality) == (images, "visible")
    one, two = (
        rank_images(embedder, [images / "3.png"], "infrared", which, 10)
        for which in (found, gallery)
    )
    assert one == two


def test_the_page_shows_names_and_runs_nothing(embedder, images, gallery):
    lists = rank_images(embedder, [images / NAMES[-1]], "infrared", gallery, 10)
    shown = Page(page(lists, gallery, "infrared"))
    assert shown.all("script") == []
    pictures = shown.all("img")
    assert len(pictures) == 11
    assert all(image["src"].startswith("data:image/jpeg;") for image in pictures)
    assert pictures[0]["alt"].startswith("query: ")
    names = [image["alt"].partition(": ")[2] for image in pictures[1:]]
    assert sorted(names) == sorted(NAMES)
    assert not [attrs for _, attrs in shown.tags if {"href", "src"} & attrs.keys()
                if not next(v for k, v in attrs.items() if k in ("href", "src"))
                .startswith(("#", "data:"))]  # fmt: skip
    (policy,) = (m for m in shown.all("meta") if "http-equiv" in m)
    assert policy["content"].startswith("default-src 'none'; img-src data:")


def test_an_image_that_has_gone_leaves_its_name(embedder, images, tmp_path):
    moved = shutil.copytree(images, tmp_path / "moved")
    out = tmp_path / "day.npz"
    extract(embedder, moved, "visible", out)
    (moved / "3.png").unlink()
    gallery = open_gallery(embedder, out, None, None, QUIET)
    lists = rank_images(embedder, [images / "3.png"], "visible", gallery, 10)
    assert lists[0].nearest[0] == ("3.png", None, pytest.approx(1, abs=1e-5))
    shown = Page(page(lists, gallery, "visible"))
    assert "no image: 3.png" in shown.texts
    assert len(shown.all("img")) == 10
    there = open_gallery(embedder, out, None, images, QUIET)
    (shown,) = rank_images(embedder, [images / "3.png"], "visible", there, 1)
    assert shown.nearest[0].source


def test_an_image_that_a_link_leads_out_to_is_not_shown(embedder, images, tmp_path):
    here = shutil.copytree(images, tmp_path / "here")
    out = tmp_path / "here.npz"
    extract(embedder, here, "visible", out)
    (here / "3.png").unlink()
    (here / "3.png").symlink_to(images / "3.png")
    (here / "4.png").unlink()
    os.mkfifo(here / "4.png")  # who opens it waits for ever
    (here / "5.png").rename(here / "five.png")
    (here / "5.png").symlink_to("five.png")  # this one stays inside
    gallery = open_gallery(embedder, out, None, None, QUIET)
    (found,) = rank_images(embedder, [images / "3.png"], "visible", gallery, 10)
    absent = [image.name for image in found.nearest if image.source is None]
    assert sorted(absent) == ["3.png", "4.png"]


@pytest.fixture(scope="module")
def shown(embedder, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    moved = shutil.copytree(images, folder / "<b>moved</b>")
    extract(embedder, moved, "visible", folder / "day.npz")
    (moved / "3.png").unlink()
    gallery = open_gallery(embedder, folder / "day.npz", None, None, QUIET)
    queries = [images / "1.png", images / NAMES[-1]]
    lists = rank_images(embedder, queries, "infrared", gallery, 10)
    (folder / "ranks.html").write_text(page(lists, gallery, "infrared"))
    return folder / "ranks.html"


class TestInABrowser:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
    def test_the_page_is_complete_and_requests_nothing(self, tab, shown, size, scheme):
        tab.open(shown, size, scheme)
        check_quiet(tab, shown, size)
        assert tab.value("document.images.length") == 20  # two lists, one image gone
        assert tab.value("document.querySelectorAll('.absent').length") == 2
        assert tab.value("document.querySelectorAll('script, b').length") == 0
        assert tab.value("document.querySelector('.lead code').textContent").endswith(
            "/<b>moved</b>"
        )
        names = "[...document.querySelectorAll('h2')].map(h => h.textContent)"
        assert tab.value(names)[1].endswith(f"/{NAMES[-1]}")

    def test_the_keyboard_reaches_the_lists(self, tab, shown):
        tab.open(shown, SIZES["phone"], "light")
        places = []
        for _ in range(3):
            tab.press("Tab")
            places.append(tab.value("document.activeElement.className"))
        assert places == ["skip", "scroll ranks", "scroll ranks"]
        last = "document.querySelector('.ranks').lastElementChild"
        assert tab.value(f"{last}.scrollWidth > innerWidth")  # and scrolls there

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_stands_out_from_what_is_behind_it(self, tab, shown, scheme):
        tab.open(shown, SIZES["desktop"], scheme)
        check_contrast(tab, ["body", ".name", ".who", ".absent", ".lead"], [".sign"])


@pytest.mark.mistakes("images")
def test_features_of_another_network_are_refused(embedder, images, refuses, tmp_path):
    out = tmp_path / "day.npz"
    extract(embedder_of(1), images, "visible", out)
    refuses(
        "a gallery embedded by another network",
        lambda: open_gallery(embedder, out, None, None, QUIET),
        "has embeddings of 8 numbers, by the network HASH; this checkpoint's, of 8, is",
    )
    extract(embedder, images, "visible", out)
    refuses(
        "another modality than that of the gallery's file",
        lambda: open_gallery(embedder, out, "infrared", None, QUIET),
        "holds visible images",
    )
    refuses(
        "a folder as a gallery, without its modality",
        lambda: open_gallery(embedder, images, None, None, QUIET),
        "needs --gallery_modality",
    )


@pytest.mark.slow  # three processes, two compile a whole network
def test_the_commands_do_it_on_a_released_checkpoint(images, tmp_path):
    released = Path(__file__).parent / "golden" / "run_0_1_0"
    night = fill(tmp_path / "night", ["n.png"]) / "n.png"

    def run(command, *arguments):
        line = ["-m", f"vireid_jax.{command}", *arguments, "--checkpoint", released]
        environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = run_python(*line, env=environment, cwd=tmp_path)
        return done.returncode, " ".join(done.stdout.split()), done.stderr

    code, said, err = run(
        "extract", "--images", images, "--modality", "visible", "--out", "day.npz"
    )
    assert (code, err) == (0, "")
    assert said == "Wrote day.npz: 10 of 10 images, 384 numbers each."
    asked = ["--query", night, "--query_modality", "infrared", "--top", "3"]
    code, said, err = run("rank", *asked, "--gallery", "day.npz", "--out", "a.html")
    assert (code, err) == (0, "")
    assert said.endswith("Wrote a.html.")
    assert len(Page((tmp_path / "a.html").read_text()).all("img")) == 4
    code, said, err = run("rank", *asked, "--gallery", tmp_path / "night")
    assert code == 1
    assert "needs --gallery_modality" in err
    assert err.count("\n") == 1
    pair = [night, images / "3.png", "--modalities", "infrared", "visible"]
    code, said, err = run("compare", *pair, "--json")
    assert (code, err) == (0, "")
    assert json.loads(said)["same"] is None  # it is older than thresholds are


@pytest.mark.mistakes("images")
@pytest.mark.parametrize(
    ("title", "given", "reason"),
    [
        ("a list of no image", ["--top", "0"], "--top is 0"),
        ("a page of another kind", ["--out", "a.png"], "the page is a FILE.html"),
        ("a page in no folder", ["--out", "none/a.html"], "there is no folder"),
    ],
)
def test_mistakes_are_errors_before_the_work(title, given, reason, refuses):
    needed = ["--checkpoint", "c", "--query", "q", "--query_modality", "visible"]
    parse = ranking.create_parser().parse_args
    action = lambda: ranking.check(parse([*needed, "--gallery", "g", *given]))
    refuses(title, action, reason)

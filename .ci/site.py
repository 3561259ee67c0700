"""Hooks of mkdocs: README.md and the API reference as pages; links that leave docs/.

Pages are written for GitHub, with links to files. On the site a link to a file outside
docs/ leads to GitHub; a link to a file that does not exist is a warning, which
`mkdocs build --strict` turns into an error.
"""

import logging
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)\s#]+)")
API = (  # what users import first, then the rest from the bottom floor up
    "vireid_jax",
    "losses",
    "models",
    "protocols",
    "data",
    "embed",
    "evaluate",
    "training",
    "config",
    "modality",
    "synthetic",
    "prepare",
    "weights",
    "planning",
    "report",
    "export",
    "train",
    "ablate",
    "run",
)
log = logging.getLogger("mkdocs.hooks")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the API reference to the navigation."""
    pages = [{name: f"api/{name}.md"} for name in API]
    config.nav.append({"API reference": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files in docs/."""
    start = (ROOT / "README.md").read_text()
    files.append(File.generated(config, "start.md", content=start))
    for name in API:
        module = name if name == "vireid_jax" else f"vireid_jax.{name}"
        init = ROOT / module.replace(".", "/") / "__init__.py"
        chosen = init.is_file() and "__all__ =" in init.read_text()
        options = "    options: {show_submodules: false}\n" if chosen else ""
        text = f"::: {module}\n{options}"
        files.append(File.generated(config, f"api/{name}.md", content=text))
    return files


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    """Point links to files at pages of the site, or else at GitHub."""
    docs = Path(config.docs_dir)
    folder = ROOT if page.file.src_uri == "start.md" else docs

    def point(match: re.Match) -> str:
        path = Path(os.path.normpath(folder / match[2]))
        if not path.exists():
            log.warning(
                "%s links to %s, which does not exist", page.file.src_uri, match[2]
            )
        if path == ROOT / "README.md":
            return f"{match[1]}start.md"
        if path.is_relative_to(docs) and path.is_file():
            return f"{match[1]}{path.relative_to(docs)}"
        return f"{match[1]}{config.repo_url}/blob/main/{path.relative_to(ROOT)}"

    written = not page.file.src_uri.startswith("api/")
    return LINK.sub(point, markdown) if written else markdown

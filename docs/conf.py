"""The site: `make docs`. Every page is read on its own as well, so links are plain Markdown."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import mmedge

ROOT = Path(__file__).parent.parent
project, author = "mmedge", "the mmedge authors"
version = release = mmedge.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
html_theme = "furo"
html_title = f"mmedge {version}"
html_static_path: list[str] = []
# The site asks no other host for anything.
html_theme_options = {"footer_icons": []}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
smartquotes = False  # -- is an option, not a dash
os.environ["COLUMNS"] = "100"


class Commands(SphinxDirective):
    """Every command with its arguments and options, as the command line itself knows them."""

    def run(self) -> list[nodes.Node]:
        """Return a section for each."""
        from mmedge.cli import COMMANDS, app_command
        from mmedge.sinks import sink_names

        lines: list[str] = []
        for name in COMMANDS:
            command = app_command(name)
            context = command.make_context(name, [], resilient_parsing=True)
            lines += [f"## mmedge {name}", "", (command.help or COMMANDS[name]).replace("\n", " "), ""]
            lines += [
                "```text",
                re.sub(r"\s+", " ", command.get_usage(context)).replace("Usage: ", "mmedge "),
                "```",
                "",
            ]
            for parameter in command.params:
                text = (getattr(parameter, "help", None) or "").replace("{sinks}", ", ".join(sink_names()))
                record = parameter.get_help_record(context)
                if parameter.param_type_name == "option" and record and not getattr(parameter, "hidden", False):
                    lines += [f"- `{record[0]}`{': ' if text else ''}{text}"]
            lines += [""]
        return self.parse_text_to_nodes(StringList(lines, source="mmedge/cli"), allow_section_headings=True)


def outside(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links to files of the repository that are no pages become plain names: the site has no copy of them."""
    folder = (Path(app.srcdir) / docname).parent

    def link(found: re.Match[str]) -> str:
        target = (folder / found[2].partition("#")[0]).resolve()
        inside = target.is_relative_to(app.srcdir) and target.suffix in (".md", ".png", ".svg", ".gif")
        return found[0] if inside or not target.exists() else f"{found[1]} (`{target.relative_to(ROOT)}`)"

    source[0] = re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)", link, source[0])


def setup(app: Sphinx) -> None:
    """Register what is above."""
    sys.path.insert(0, str(ROOT))
    app.add_directive("mmedge-commands", Commands)
    app.connect("source-read", outside)

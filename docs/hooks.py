"""Pages of the documentation that are generated when it is built: command line, settings, changelog, contributing."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from toolrec.cli.reference import cli_markdown, settings_markdown

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the generated pages and leaves this file out of the site."""
    generated = {
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "reference/cli.md": cli_markdown(),
        "reference/settings.md": settings_markdown(),
    }
    kept = Files([file for file in files if not file.src_uri.endswith(".py")])
    for page, text in generated.items():
        kept.append(File.generated(config, page, content=text))
    return kept


def on_page_content(html: str, **_: object) -> str:
    """A short flag in the prose is not broken after its hyphens."""
    return re.sub(r"<code>(--[^<]{1,28})</code>", r'<code class="flag">\1</code>', html)

"""Pages of the site that are written elsewhere.

The README is the first page, what pages link to comes along, and docstrings name classes as Sphinx has it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "README.zh-CN.md": "index.zh-CN.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#:]+)(#[^)]*)?\)")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>(~?)([\w.]+)</code>")
LONG_NAME = re.compile(r"<code>(\w{30,})</code>")
SHOWN = {".png", ".jpg", ".html", ".json"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of the folder above ``docs/``, and the pictures and reports that any page links to."""
    for source, target in PAGES.items():
        text = _with_links_of_the_site((ROOT / source).read_text(encoding="utf-8"), ROOT, target)
        files.append(File.generated(config, target, content=text))
    for page in [*map(ROOT.joinpath, PAGES), *(ROOT / "docs").rglob("*.md")]:
        for _, _, link, _ in LINK.findall(page.read_text(encoding="utf-8")):
            path = (page.parent / link).resolve()
            if path.suffix in SHOWN and files.get_file_from_path(_in_site(path)) is None:
                files.append(File.generated(config, _in_site(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links out of ``docs/`` into links of the site."""
    if page.file.src_uri in PAGES.values():
        return markdown
    return _with_links_of_the_site(markdown, Path(page.file.abs_src_path).parent, page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Turns Sphinx's roles into names, with a tilde their last part; long names may break."""
    named = ROLE.sub(
        lambda role: f"<code>{role[2].split('.')[-1] if role[1] else role[2].lstrip('.')}</code>", html
    )
    return LONG_NAME.sub(lambda name: f'<code class="long">{name[1].replace("_", "_<wbr>")}</code>', named)


def _in_site(path: Path) -> str:
    """Where a file of the repository is in the site."""
    inside = path.relative_to(ROOT).as_posix()
    return PAGES.get(inside, inside.removeprefix("docs/"))


def _with_links_of_the_site(text: str, folder: Path, target: str) -> str:
    """Text whose links lead to the site's pages; where the site has no such file, a link is its text alone.

    Args:
        text: Markdown.
        folder: from which its links lead.
        target: where the page is in the site.
    """

    def link(found: re.Match[str]) -> str:
        picture, shown, path, part = found.groups()
        place = _in_site((folder / path).resolve())
        if Path(place).suffix not in {*SHOWN, ".md"}:
            return shown
        return f"{picture}[{shown}]({'../' * target.count('/')}{place}{part or ''})"

    return LINK.sub(link, text)

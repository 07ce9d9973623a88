"""How the pages of docs/, written to be read in the repository, become a site: mkdocs.yml names this file.

- A link to a file outside docs/ (``../configs/quickstart.yaml``) leads to a page of the site with its text; a
  notebook's page has its cells.
- A link whose text is the name of its page, as in ``[data.md](data.md)``, gets the heading that it leads to.
- In index.md, ``<!-- README: top -->`` stands for what README.md says above its first section, and
  ``<!-- README: NAME -->`` for the section of that name: each sentence has one home.
"""

import json
import posixpath
import re
from pathlib import Path

from markdown.extensions.toc import slugify
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = re.compile(r"\]\(\.\./([^)#\s]+)\)")
BY_NAME = re.compile(r"\[(\w+\.md)\]\(\1(#[^)]+)?\)")
FROM_README = re.compile(r"^<!-- README: (.+) -->$", re.MULTILINE)
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n\n"


def on_files(files, config):
    """Add a page for each file outside docs/ that a page links to."""
    pages = list(Path(config.docs_dir).rglob("*.md"))
    linked = {path for page in pages for path in OUTSIDE.findall(with_readme(page.read_text(encoding="utf-8")))}
    for path in sorted(linked):
        files.append(File.generated(config, f"source/{path}.md", content=UNSEARCHED + page_of(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as the site needs them."""
    here = posixpath.dirname(page.file.src_uri) or "."
    markdown = BY_NAME.sub(
        lambda link: f"[{heading(link[1], link[2])}]({link[1]}{link[2] or ''})", with_readme(markdown)
    )
    return OUTSIDE.sub(lambda link: f"]({posixpath.relpath('source/' + link[1] + '.md', here)})", markdown)


def heading(page: str, anchor: str | None) -> str:
    """The title of a page of docs/, or the heading of an anchor in it; the page's name if there is none."""
    file = ROOT / "docs" / page
    heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else []
    named = {"#" + slugify(head, "-"): head for head in heads}
    return (named.get(anchor) if anchor else next(iter(heads), None)) or page


def with_readme(markdown: str) -> str:
    """The Markdown of a page with the parts of README.md that it asks for; their links are as seen from docs/.

    Raises:
        PluginError: README.md has no section of that name.
    """
    return FROM_README.sub(lambda asked: part_of_readme(asked[1]), markdown)


def part_of_readme(name: str) -> str:
    """A section of README.md without its heading, or what stands between its title and the first section."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    parts = re.split(r"^#+ (.*)\n", text, flags=re.MULTILINE)[1:]
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    sections["top"] = parts[1]
    if name not in sections:
        raise PluginError(f"README.md has no section {name!r}, which docs/index.md asks for")
    inside = re.sub(r"\]\(docs/", "](", sections[name].strip())
    return re.sub(r"\]\((?=(configs|scripts|hf_cxr|notebooks)/)", "](../", inside)


def page_of(path: str) -> str:
    """A file of the repository as Markdown.

    Raises:
        PluginError: there is no such file.
    """
    file = ROOT / path
    if not file.is_file():
        raise PluginError(f"a page of docs/ links to {path}, which does not exist")
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        blocks = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        return "\n\n".join(block if kind == "markdown" else fenced(block, "python") for kind, block in blocks)
    return f"# {path}\n\n" + fenced(text, {".py": "python", ".yaml": "yaml", ".sh": "bash"}.get(file.suffix, "text"))


def fenced(text: str, language: str) -> str:
    """A block of code, fenced by more backticks than it contains."""
    fence = "`" * (1 + max((len(run) for run in re.findall(r"`{2,}", text)), default=2))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"

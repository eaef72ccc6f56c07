"""What MkDocs does not do by itself: pages that are also read in the repository.

The pages are the files of docs/ as they are, and what these refer to outside of it: README.md,
which is the first page, other Markdown, and sources, which are shown as text.  Links in them are
links of the repository; here they are made those of the site.  A link that leads nowhere is left
alone: then `mkdocs build --strict` fails.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]

OTHERS = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "csrc/HACKING.md",
    "csrc/DECISIONS.md",
    "bench/README.md",
    "bench/RESULTS.md",
)
"""Pages that are not in docs/."""

SHOWN = ("examples/*.py",)
"""Sources to which pages link, each made a page."""

_FENCED = re.compile(r"^(```.*?^```$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()([^()\s:#]+)(?=[#)])")


def on_files(files: Files, config: Any) -> Files:
    """Add what stands outside of docs/."""
    for name in OTHERS:
        files.append(File.generated(config, _address(name), content=(ROOT / name).read_text()))
    for path in sorted(path for pattern in SHOWN for path in ROOT.glob(pattern)):
        name = path.relative_to(ROOT).as_posix()
        text = f"# {path.name}\n\n```python\n{path.read_text()}```\n"
        files.append(File.generated(config, _address(name), content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links of the repository into those of the site."""
    source = _origin(page.file.src_uri)

    def there(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        address = _address(target)
        if address not in files.src_uris:
            return match[1]
        return posixpath.relpath(address, posixpath.dirname(page.file.src_uri) or ".")

    pieces = _FENCED.split(markdown)
    pieces[::2] = [_LINK.sub(there, piece) for piece in pieces[::2]]
    return "".join(pieces)


def _address(name: str) -> str:
    """Where a file of the repository stands in the site's tree of Markdown."""
    if name == "README.md":
        return "index.md"
    if name.startswith("docs/"):
        return name.removeprefix("docs/")
    # A folder's README.md would be that folder's first page, and links to it end in "/".
    stem = name.removesuffix(".md")
    return f"{stem.removesuffix('/README')}.md" if name.endswith(".md") else f"{stem}.md"


def _origin(address: str) -> str:
    """The file of the repository that an address of a page stands for."""
    outside = {_address(name): name for name in OTHERS}
    return outside.get(address, f"docs/{address}")

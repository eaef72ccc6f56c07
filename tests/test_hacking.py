"""What the guides to the sources name exists: files, functions, links, layers."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GUIDES = ("csrc/HACKING.md", "csrc/DECISIONS.md", "CONTRIBUTING.md")

WORD = re.compile(r"[A-Za-z_]\w+")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
SUFFIXES = (".c", ".h", ".S", ".py", ".pml", ".sh", ".md", ".toml", ".json")
# Of CPython, the C library and the kernel: named in the guides, not called by the code.
FOREIGN = {"take_gil", "drop_gil", "preadv2", "readdir", "os.lockf", "list.sort", "os.fork"}
FOREIGN |= {"Python.h", "PyThreadState_Swap", "pthread_exit"}


@cache
def words(*folders: str) -> set[str]:
    """The words of the code: what only a C comment still mentions does not exist any more."""
    found: set[str] = set()
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".c", ".h", ".S", ".py", ".pyi", ".sh", ".pml") and file != Path(
                __file__
            ):
                found |= code_words(file)
    return found


def code_words(file: Path) -> set[str]:
    text = file.read_text()
    if file.suffix in (".c", ".h", ".S"):
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    return set(WORD.findall(text))


def find(path: str) -> bool:
    return any(any(base.glob(path)) for base in (ROOT, ROOT / "csrc"))


def is_path(token: str) -> bool:
    return token.endswith(SUFFIXES) or re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/", token) is not None


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def unknown_names(text: str) -> Iterator[str]:
    """A path that is not there, or a name that the code does not have."""
    code = words("csrc", "gmprt")
    anywhere = code | words("tests", "bench", ".ci", "tools")
    anywhere |= set(WORD.findall((ROOT / "pyproject.toml").read_text()))
    for span in spans(text):
        if span in FOREIGN:
            continue
        if re.fullmatch(r"[\w.>-]+(\(\w*\))?", span) and not is_path(span):
            missing = [w for w in WORD.findall(span) if w not in code]
            # A name that the tools and tests have is none of a function of the runtime.
            if missing and (span.endswith(")") or not set(missing) <= anywhere):
                yield span
            continue
        for token in re.findall(r"[\w./*-]*[\w*/]", span):
            if is_path(token) and not find(token) and not token.startswith("build/"):
                yield f"{span}: {token}"


def misplaced_names(text: str) -> Iterator[str]:
    """In a row of a table that begins with a file: what is written as a call is in that file."""
    for row in re.findall(r"^\| `([\w/.]+\.[chS])` \|(.*)\|$", text, re.M):
        path, rest = row
        here = code_words(ROOT / "csrc" / path)
        yield from (
            f"{path}: {name}"
            for name in re.findall(r"`[\w>-]*?(\w+)\(\)`", rest)
            if name not in here
        )


def anchor(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def dead_links(guide: Path, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)]+)\)", FENCE.sub("", text)):
        name, _, fragment = target.partition("#")
        file = guide.parent / name if name else guide
        if "://" in target:
            continue
        if not file.exists():
            yield target
        elif fragment:
            headings = re.findall(r"^#+ (.*)$", text if file == guide else file.read_text(), re.M)
            if fragment not in map(anchor, headings):
                yield target


def complaints(name: str, text: str) -> list[str]:
    return [*unknown_names(text), *misplaced_names(text), *dead_links(ROOT / name, text)]


@pytest.mark.parametrize("name", GUIDES)
def test_what_is_named_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    assert len(spans(text)) > 20
    assert complaints(name, text) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`goroutine_finish()`", "`goroutine_finnish()`"),  # no such function
        ("`mem/stack.c`", "`mem/stacks.c`"),  # no such file
        ("`goroutine_new()`", "`goroutine_finish()`"),  # a function of another file
        ("`GK_FOREIGN`", "`GK_ALIEN`"),
        ("`tests/models/run.sh`", "`tests/models/walk.sh`"),
        ("(DECISIONS.md)", "(CHOICES.md)"),
        ("(#the-licence)", "(#the-license)"),
        ("(DECISIONS.md#nothing-replaced)", "(DECISIONS.md#nothing)"),
    ],
)
def test_a_wrong_name_is_noticed(old: str, new: str) -> None:
    text = (ROOT / GUIDES[0]).read_text()
    assert old in text
    assert complaints(GUIDES[0], text) == []
    assert complaints(GUIDES[0], text.replace(old, new, 1)) != []


def test_the_picture_has_the_layers() -> None:
    spec = importlib.util.spec_from_file_location("layers", ROOT / ".ci" / "layers.py")
    assert spec is not None
    assert spec.loader is not None
    layers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(layers)
    picture = FENCE.findall((ROOT / GUIDES[0]).read_text())[0]
    assert re.findall(r"^([\w/]+)  ", picture, re.M) == layers.ORDER


def test_comments_name_files_that_exist() -> None:
    names = {p.name for folder in ("csrc", "gmprt", "tests") for p in (ROOT / folder).rglob("*.*")}
    names |= {"greenlet.h"}
    wrong = []
    for file in sorted((ROOT / "csrc").rglob("*.[chS]")):
        for comment in re.findall(r"/\*.*?\*/", file.read_text(), re.S):
            for name in re.findall(r"\b(\w+\.(?:[chS]|py|pml|md))\b(?!\w|\()", comment):
                if name not in names:
                    wrong.append(f"{file.relative_to(ROOT)}: {name}")
    assert wrong == []

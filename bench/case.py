"""One case of one peer in this process: ``python -m bench.case PEER CASE [--quick]``.

The figures are printed as one line of JSON.  ``--probe`` instead tells whether the peer is
installed, in which version, and which cases it has.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
from typing import Any

from bench.catalog import CASES, PEERS
from bench.common import FULL, QUICK, CaseFn

STANDARD_LIBRARY = ("asyncio", "threads")


def load(peer: str) -> dict[str, CaseFn]:
    """The cases of `peer`; imports it."""
    if peer == "uvloop":
        import uvloop  # type: ignore[import-untyped, import-not-found, unused-ignore]

        from bench import cases_asyncio

        return cases_asyncio.cases(uvloop.new_event_loop)
    module = importlib.import_module(f"bench.cases_{peer}")
    found: dict[str, CaseFn] = module.cases()
    return found


def installed(peer: str) -> bool:
    """Whether `peer` can be imported; a directory of that name alone is no package."""
    if peer in STANDARD_LIBRARY:
        return True
    spec = importlib.util.find_spec(peer)
    return spec is not None and spec.origin is not None


def _version(peer: str) -> str:
    if peer in STANDARD_LIBRARY:
        return f"Python {platform.python_version()}"
    try:
        return importlib.metadata.version(peer)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package: version unknown"


def probe(peer: str) -> dict[str, Any]:
    """What the runner needs to know before it starts; an import that fails is raised."""
    if not installed(peer):
        return {"installed": False}
    return {"installed": True, "version": _version(peer), "cases": sorted(load(peer))}


def main(argv: list[str] | None = None) -> int:
    """Run one case, or probe one peer."""
    parser = argparse.ArgumentParser(prog="python -m bench.case", description=__doc__)
    parser.add_argument("peer", choices=[peer for peer in PEERS if peer != "go"])
    parser.add_argument("case", nargs="?", choices=[case.name for case in CASES])
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_intermixed_args(argv)
    if args.probe:
        answer: object = probe(args.peer)
    elif args.case is None:
        parser.error("which case?")
    else:
        known = load(args.peer)
        if args.case not in known:
            parser.error(f"{args.peer} has no case {args.case!r}")
        answer = known[args.case](QUICK if args.quick else FULL)
    print(json.dumps(answer), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Servers that live as long as the test run, and are started when first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import servers
from together import COUNT


@pytest.fixture(scope="session")
def postgres() -> Iterator[servers.Postgres]:
    with servers.postgres(COUNT) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[str]:
    with servers.mariadb(COUNT) as path:
        yield path


@pytest.fixture(scope="session")
def redis() -> Iterator[str]:
    with servers.redis() as server:
        yield server.path


@pytest.fixture(scope="session")
def nginx() -> Iterator[str]:
    with servers.nginx() as url:
        yield url

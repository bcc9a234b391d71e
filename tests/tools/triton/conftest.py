"""One server for all tests that need a real one."""

from pathlib import Path

import pytest

from luvc.engines.bundle.folder import Bundle
from luvc.engines.serving import Limits
from luvc.tools.triton.server import Ports, Server, find_server

from .real_server import PLACE, Client, png, until


@pytest.fixture(scope="session")
def bundle(workshop) -> Bundle:
    return workshop.bundle("qwen2-text")


@pytest.fixture(scope="session")
def vlm(workshop):
    return workshop.vlm("qwen2-text")


@pytest.fixture(scope="session")
def repository(bundle, tmp_path_factory) -> Path:
    from luvc.tools.client_messages import Bounds
    from luvc.tools.triton.repository import Options, write

    target = tmp_path_factory.mktemp("triton") / "repository"
    write(bundle, target, Options(Limits(rows=6), Bounds(), threads=1))
    return target


@pytest.fixture(scope="session")
def server(repository):
    log = repository.parent / "server.log"
    with Server(find_server(PLACE), repository, Ports.free(), log=log) as running:
        until(lambda: running.exit_code is not None or running.ready(), 150)
        assert running.exit_code is None, running.tail()
        yield running


@pytest.fixture(scope="session")
def client(server):
    return Client(server.ports)


@pytest.fixture(scope="session")
def image(picture) -> bytes:
    return png(picture)

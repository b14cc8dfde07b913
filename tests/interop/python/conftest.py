"""Fixtures: a server for the whole run, a server of one's own, and clients that are closed again."""

import contextlib

import nats
import pytest

from server import Server


@pytest.fixture(scope="session")
def shared_server():
    server = Server()
    yield server
    assert server.process.poll() is None, f"the server died:\n{server.log_path.read_text()}"
    server.close()


@pytest.fixture
def own_server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
async def clients():
    """`await clients(url, **options)` gives a connected client."""
    async with contextlib.AsyncExitStack() as stack:

        async def connect(url, **options):
            client = await nats.connect(url, **options)
            stack.push_async_callback(client.close)
            return client

        yield connect


@pytest.fixture
async def pair(shared_server, clients):
    """Two clients of the shared server: one to publish with, one to listen with."""
    return await clients(shared_server.url), await clients(shared_server.url)

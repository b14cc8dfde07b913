"""The server helper is the Python suite's."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))

from server import Server  # noqa: E402


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

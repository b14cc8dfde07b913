"""Starts and stops the server under test; MIDGE_TEST_SERVER names its program."""

import asyncio
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

START_SECONDS_MAX = 15


def program() -> str:
    path = os.environ.get("MIDGE_TEST_SERVER")
    if path:
        return path
    root = pathlib.Path(__file__).resolve().parents[3]
    return str(root / "target" / "debug" / "midge")


class Server:
    """One server process on a port of its own, which it keeps over a restart."""

    def __init__(self) -> None:
        self.dir = tempfile.TemporaryDirectory(prefix="midge-interop-")
        self.port = -1
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> pathlib.Path:
        return pathlib.Path(self.dir.name) / "server.log"

    def start(self) -> None:
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [program(), "-a", "127.0.0.1", "-p", str(self.port)]
                + ["--ports_file_dir", self.dir.name],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.port = self._wait_for_port()

    def _wait_for_port(self) -> int:
        """The ports file is written once the listener is open."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            for path in pathlib.Path(self.dir.name).glob(f"*_{self.process.pid}.ports"):
                try:
                    return int(json.loads(path.read_text())["nats"][0].rsplit(":", 1)[1])
                except json.JSONDecodeError:
                    pass  # half written
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"the server did not start:\n{self.log_path.read_text()}")

    def kill(self) -> None:
        """As the power cut does it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def lame_duck(self) -> None:
        self.process.send_signal(signal.SIGUSR2)

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self.dir.cleanup()


async def until(condition, what: str, seconds: float = 20.0) -> None:
    """Polls until the condition holds; the deadline is for a broken server only."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        await asyncio.sleep(0.005)


async def synced(client) -> None:
    """What the client wrote so far has been handled by the server.

    nats-py writes the PING of a flush ahead of commands that it still holds, so the first PONG only tells
    that they were written and the second that they were handled.
    """
    await client.flush()
    await client.flush()

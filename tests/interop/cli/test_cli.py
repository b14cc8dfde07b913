"""The `nats` command line tool against the server."""

import asyncio
import contextlib
import os
import re
import subprocess
import tempfile
import time

import nats
import pytest

SECONDS_MAX = 60


@pytest.fixture
def tool(shared_server):
    with tempfile.TemporaryDirectory(prefix="midge-cli-") as home:
        yield Tool(shared_server.url, home)


class Tool:
    """Runs `nats` with a home of its own, so that nobody's contexts get in."""

    def __init__(self, url, home):
        self.url = url
        self.environment = {**os.environ, "NATS_URL": url, "HOME": home, "XDG_CONFIG_HOME": home}

    def run(self, *arguments, stdin=b""):
        done = subprocess.run(
            ["nats", *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment,
            timeout=SECONDS_MAX,
        )
        text = (done.stdout + done.stderr).decode()
        assert done.returncode == 0, text
        return text

    @contextlib.contextmanager
    def background(self, *arguments):
        """A tool that listens; it is ended if the test does not end it."""
        process = subprocess.Popen(
            ["nats", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()

    def until_listened(self, subject, listeners=1):
        """Asks until as many members as expected answer the probe, that is, hear the subject."""

        async def ask():
            client = await nats.connect(self.url)
            deadline = time.monotonic() + SECONDS_MAX
            try:
                while time.monotonic() < deadline:
                    inbox = client.new_inbox()
                    sub = await client.subscribe(inbox)
                    await client.publish(subject, b"probe", reply=inbox)
                    try:
                        msg = await sub.next_msg(timeout=0.3)
                    except nats.errors.TimeoutError:
                        return  # somebody hears it and does not answer
                    if not (msg.headers or {}).get("Status") == "503":
                        return
                    await asyncio.sleep(0.02)
                raise AssertionError(f"nobody listens on {subject}")
            finally:
                await client.close()

        asyncio.run(ask())


def output(process):
    return process.communicate(timeout=SECONDS_MAX)[0].decode()


def test_publish_and_subscribe(tool):
    with tool.background("subscribe", "cli.>", "--count", "3") as listener:
        tool.until_listened("cli.probe")
        tool.run("publish", "cli.one", "hello world")
        tool.run("publish", "cli.two.three", "with header", "-H", "X-Odd-CASE:yes")
        text = output(listener)
    assert listener.returncode == 0, text
    assert "hello world" in text and '"cli.one"' in text
    assert "X-Odd-CASE: yes" in text and '"cli.two.three"' in text


def test_publish_many_from_a_template(tool):
    with tool.background("subscribe", "many.*", "--count", "101", "--raw") as listener:
        tool.until_listened("many.probe")
        tool.run("publish", "many.a", "message {{Count}}", "--count", "100")
        text = output(listener)
    assert re.findall(r"message (\d+)", text) == [str(i) for i in range(1, 101)]


def test_publish_from_standard_input(tool):
    with tool.background("subscribe", "stdin", "--count", "2", "--raw") as listener:
        tool.until_listened("stdin")
        tool.run("publish", "stdin", "--force-stdin", stdin=b"from a pipe")
        text = output(listener)
    assert "from a pipe" in text


def test_request_and_reply(tool):
    with tool.background("reply", "service.*", "answer to {{Request}}") as replier:
        tool.until_listened("service.probe")
        assert "answer to question" in tool.run("request", "service.a", "question")
        assert replier.poll() is None


def test_request_that_nobody_answers(tool):
    assert "no responders" in tool.run("request", "nobody.there", "x").lower()


def test_queue_group_of_two(tool):
    with (
        tool.background("reply", "shared", "one", "--queue", "g"),
        tool.background("reply", "shared", "two", "--queue", "g"),
    ):
        tool.until_listened("shared")
        seen = set()
        deadline = time.monotonic() + SECONDS_MAX
        while seen != {"one", "two"} and time.monotonic() < deadline:
            text = tool.run("request", "shared", "x", "--raw")
            seen.update(re.findall(r"\b(one|two)\b", text))
        assert seen == {"one", "two"}


def test_round_trip_time(tool):
    assert re.search(r"127\.0\.0\.1:\d+: [0-9.]+(µs|ms|s)", tool.run("rtt"))


def test_connection_check(tool):
    assert tool.run("server", "check", "connection").startswith("OK")


def test_account_info_names_the_connection(tool):
    text = tool.run("account", "info")
    assert tool.url.removeprefix("nats://") in text
    assert "1.0 MiB" in text  # the largest payload


def test_bench_publish_and_subscribe(tool):
    with tool.background("bench", "sub", "bench", "--msgs", "20000", "--clients", "2", "--no-progress") as sub:
        tool.until_listened("bench")
        # One more than is needed: the probe counts too.
        tool.run("bench", "pub", "bench", "--msgs", "20000", "--no-progress")
        text = output(sub)
    assert sub.returncode == 0, text
    assert "msgs/sec" in text


def test_bench_request_and_reply(tool):
    with tool.background("bench", "service", "serve", "bench.rr", "--size", "128", "--no-progress"):
        tool.until_listened("bench.rr")
        text = tool.run(
            "bench", "service", "request", "bench.rr", "--msgs", "2000", "--clients", "2", "--no-progress"
        )
    assert "msgs/sec" in text


def test_subscriber_survives_a_restart(own_server):
    with tempfile.TemporaryDirectory(prefix="midge-cli-") as home:
        tool = Tool(own_server.url, home)
        with tool.background("subscribe", "again", "--count", "2", "--raw") as listener:
            tool.until_listened("again")  # the first message
            own_server.kill()
            own_server.start()
            tool.until_listened("again")  # the second
            output(listener)
        assert listener.returncode == 0

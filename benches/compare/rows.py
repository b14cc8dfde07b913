"""What is compared: every load, the figures read from it, and the budget of each figure.

A budget is a pair (must, aim). Most figures are judged by their ratio midge / nats-server; some have
an absolute bound. `must` is what has to hold, `aim` is what is wanted.
"""

from dataclasses import dataclass, field

CPU = "cpu_s_per_million"


@dataclass
class Figure:
    """One row of the result table."""

    title: str
    key: str  # the field of the load generator's report
    must: float = None
    aim: float = None
    judge: str = "ratio"  # ratio | at_most | at_least: how midge's figure meets the budget
    unit: str = ""
    scale: float = 1.0  # from the report's unit to the one shown


@dataclass
class Load:
    """One run of the load generator, its figures, and how to shorten it for --quick."""

    group: str
    name: str
    args: str
    figures: list
    quick: str = ""  # arguments that override those of `args`
    floor: bool = True  # the floor knows no wildcards and no queue groups
    connections: int = 600  # open files needed on either side
    spin: bool = True  # the load never sleeps where it has a core of its own
    pinned: bool = True  # the server has one core
    # Whose figure is divided by whose.
    measured: str = "midge"
    reference: str = "nats"
    # Other ways to start midge, instead of midge beside nats-server: name and arguments.
    variants: dict = field(default_factory=dict)


def _core():
    def row(name, args, msgs, must, aim, floor=True, more=(), quick=None):
        few = quick or msgs // 10
        figures = [Figure(name, CPU, must, aim, unit="CPU s/M"), *more]
        return Load("Core messaging", name, f"{args} --msgs {msgs}", figures, f"--msgs {few}", floor)

    def latency(must, aim):
        return [
            Figure(f"- {name}", key, must, aim, unit="us")
            for name, key in (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"))
        ]

    rows = [
        row("publish 16 B, no subscriber", "publish --size 16", 8_000_000, 0.30, 0.20),
        row("publish 1 KB, no subscriber", "publish --size 1024", 3_000_000, 0.75, 0.65),
        row("1:1, 16 B", "pairs --size 16", 4_000_000, 0.33, 0.23),
        row("1:1, 128 B", "pairs --size 128", 3_000_000, 0.40, 0.30),
        row("1:1, 1 KB", "pairs --size 1024", 1_500_000, 0.60, 0.50),
        row("1:1, 16 KB", "pairs --size 16384", 150_000, 0.85, 0.75),
        row("64 pairs, 128 B", "pairs --pairs 64 --size 128", 6_000_000, 0.40, 0.32, more=[
            Figure("- peak RSS", "peak_rss", 40, 20, "at_most", "MB", 1e-6)]),
        row("fan-out 1:16, 128 B", "fanout --conns 16 --size 128", 300_000, 0.33, 0.23),
        row("fan-out 1:256, 128 B", "fanout --conns 256 --size 128", 20_000, 0.45, 0.38),
        row("fan-in 16:1, 128 B", "fanin --conns 16 --size 128", 3_000_000, 0.40, 0.30),
        row("queue group, 8 members, 128 B", "queue --conns 8 --size 128", 3_000_000, 0.40, 0.30,
            floor=False),
        row("headers, 128 B", "pairs --headers --size 128", 2_000_000, 0.40, 0.32),
        row("request/reply, 1 client", "request --clients 1 --size 16", 20_000, 0.75, 0.70,
            more=latency(1.0, None)),
        row("request/reply, 100 clients", "request --clients 100 --size 16", 100_000, 0.45, 0.35,
            more=latency(1.0, 0.5)),
        row("request/reply, 100 clients, a reply subject each", "request --mux --clients 100 --size 16",
            100_000, None, None, floor=False, more=latency(1.0, 0.5)),
    ]
    paced = [Figure("20,000 msg/s paced on 100 pairs", CPU, 0.75, 0.68, unit="CPU s/M")]
    rows.append(Load("Core messaging", "20,000 msg/s paced on 100 pairs",
                     "paced --rate 20000 --pairs 100 --size 128 --seconds 5",
                     paced + latency(1.0, 0.5), "--seconds 1"))
    return rows


def _routing():
    def row(count, layout, msgs, must, aim, more=()):
        shown = f"{count:,} {'literal ' if layout == 'literal' else ''}subscriptions"
        figures = [Figure(shown, CPU, must, aim, unit="CPU s/M publishes"), *more]
        args = f"subs --layout {layout} --count {count} --holders 4 --size 128 --msgs {msgs}"
        quick = f"--count {min(count, 100_000)} --msgs {msgs // 10}"
        return Load("Routing", shown, args, figures, quick, floor=layout == "literal")

    memory = [
        Figure("- RSS per subscription", "bytes_per_subscription", 200, 120, "at_most", "B"),
        Figure("- loading them", "load_cpu_s_per_million", 0.5, 0.3, unit="CPU s/M"),
        Figure("- removing them", "unload_cpu_s_per_million", unit="CPU s/M"),
        Figure("- RSS loaded", "rss_loaded", unit="MB", scale=1e-6),
        Figure("- RSS after UNSUB of all", "rss_unsubscribed", unit="MB", scale=1e-6),
    ]
    return [
        row(10_000, "mixed", 500_000, 0.25, 0.15),
        row(100_000, "mixed", 400_000, 0.15, 0.10),
        row(1_000_000, "mixed", 300_000, 0.15, 0.10, memory),
        row(1_000_000, "literal", 300_000, 0.20, 0.13, memory),
    ]


def _connections():
    group = "Connections and memory"
    idle = [
        Figure("10,000 idle connections: RSS each", "bytes_per_connection", 1.0, 0.5, "at_most", "KB",
               1e-3),
        Figure("- context switches per second beyond pings", "switches_beyond_pings", 1.0, 0.0,
               "at_most"),
    ]
    churn = [Figure("connect + CONNECT + SUB + close", CPU, 0.45, 0.35, unit="CPU us")]
    broadcast = [
        Figure("broadcast to 10,000 subscribers", CPU, 0.60, 0.55, unit="CPU s/M"),
        Figure("- p99 from publish to last reader", "p99_us", 0.60, 0.50, unit="ms", scale=1e-3),
        Figure("- RSS", "rss", 40, 20, "at_most", "MB", 1e-6),
    ]
    stuck = [
        Figure("100 healthy subscribers beside a stuck one: rate kept", "rate_kept", 0.90, 0.98,
               "at_least"),
        Figure("- the same in the worst second", "rate_kept_worst_second"),
    ]
    return [
        Load(group, "idle connections", "idle --conns 10000 --settle 3 --seconds 10", idle,
             "--conns 1000 --settle 1 --seconds 2", connections=10_100, spin=False),
        Load(group, "churn", "churn --count 8000", churn, "--count 800", spin=False),
        Load(group, "broadcast", "broadcast --conns 10000 --size 128 --msgs 20", broadcast,
             "--conns 1000 --msgs 5", connections=10_100),
        Load(group, "stuck subscriber", "stuck --conns 100 --size 4096 --seconds 10", stuck,
             "--seconds 2", floor=False),
    ]


def _workers():
    # Twice the cores should bring 1.7 times the rate. Where load and servers have to share cores, the
    # CPU time of each delivery tells: at most 2 / 1.7 of what it is with one worker.
    figure = Figure("64 pairs, 128 B, two workers against one", CPU, 1.18, 1.08, unit="CPU s/M")
    return [
        Load("Workers", "two workers", "pairs --pairs 64 --size 128 --msgs 6000000", [figure],
             "--msgs 600000", spin=False, pinned=False, measured="two workers",
             reference="one worker",
             variants={"one worker": "--workers 1", "two workers": "--workers 2"}),
    ]


def _footprint():
    size = [Figure("binary, stripped", "binary_bytes", 3.0, 2.2, "at_most", "MB", 1e-6)]
    rest = [
        Figure("idle RSS, default start", "rss", 3.5, 2.5, "at_most", "MB", 1e-6),
        Figure("wake-ups per second, idle, no client", "switches_per_second", 0.0, 0.0, "at_most"),
    ]
    pong = [
        Figure("exec to first PONG", "start_ms", 2.0, 1.0, "at_most", "ms"),
        Figure("- CPU until then", "start_cpu_ms", unit="ms"),
    ]
    return [
        Load("Footprint", "binary size", "BINARY", size),
        Load("Footprint", "idle server", "idle --conns 0 --settle 2 --seconds 10", rest,
             "--settle 1 --seconds 2", spin=False),
        Load("Footprint", "start", "START --times 20", pong, "--times 5", spin=False),
    ]


LOADS = _core() + _routing() + _connections() + _workers() + _footprint()

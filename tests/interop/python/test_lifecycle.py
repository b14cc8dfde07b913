"""Drain, reconnect and errors with nats-py."""

import asyncio

import nats
import nats.errors
import pytest

from server import synced, until

QUICK = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1}


async def test_subscription_drain_handles_what_was_sent(pair):
    publisher, subscriber = pair
    got = []

    async def slow(msg):
        await asyncio.sleep(0)
        got.append(int(msg.data))

    sub = await subscriber.subscribe("drain.sub", cb=slow)
    await synced(subscriber)
    for i in range(500):
        await publisher.publish("drain.sub", str(i).encode())
    await synced(publisher)
    await until(lambda: got, "the first message")
    await sub.drain()
    await until(lambda: len(got) == 500, "all messages after the drain")
    assert got == list(range(500))
    with pytest.raises(nats.errors.NoRespondersError):
        await publisher.request("drain.sub", b"", timeout=20)
    await synced(subscriber)  # the connection lives on


async def test_connection_drain_answers_and_closes(shared_server, clients):
    closed = asyncio.Event()

    async def on_closed():
        closed.set()

    caller = await clients(shared_server.url)
    service = await clients(shared_server.url, closed_cb=on_closed)

    async def answer(msg):
        await asyncio.sleep(0)
        await msg.respond(msg.data)

    await service.subscribe("drain.conn", cb=answer)
    await synced(service)
    inbox = await caller.subscribe("drain.inbox")
    for i in range(200):
        await caller.publish("drain.conn", str(i).encode(), reply="drain.inbox")
    await synced(caller)
    first = await inbox.next_msg(timeout=20)
    await service.drain()
    await asyncio.wait_for(closed.wait(), 20)
    rest = [await inbox.next_msg(timeout=20) for _ in range(199)]
    assert [int(m.data) for m in [first, *rest]] == list(range(200))
    assert service.is_closed


async def test_reconnect_after_kill(own_server, clients):
    events = []

    async def on_disconnect():
        events.append("disconnected")

    async def on_reconnect():
        events.append("reconnected")

    client = await clients(
        own_server.url, disconnected_cb=on_disconnect, reconnected_cb=on_reconnect, **QUICK
    )
    plain = await client.subscribe("again.*")
    queued = await client.subscribe("again.queue", queue="q")
    limited = await client.subscribe("again.limited")
    await limited.unsubscribe(limit=2)
    await client.publish("again.limited", b"0")
    assert (await limited.next_msg(timeout=20)).data == b"0"
    await plain.next_msg(timeout=20)

    own_server.kill()
    await until(lambda: "disconnected" in events, "the disconnect callback")
    own_server.start()
    await until(lambda: "reconnected" in events, "the reconnect callback")
    await synced(client)

    other = await clients(own_server.url)
    await other.publish("again.queue", b"1")
    await other.publish("again.limited", b"2")
    await other.publish("again.limited", b"3")
    await other.publish("again.end", b"4")
    assert [(await plain.next_msg(timeout=20)).data for _ in range(4)] == [b"1", b"2", b"3", b"4"]
    assert (await queued.next_msg(timeout=20)).data == b"1"
    assert (await limited.next_msg(timeout=20)).data == b"2"
    assert limited.pending_msgs == 0
    assert client.stats["reconnects"] == 1


async def test_publish_while_the_server_is_away_arrives_later(own_server, clients):
    client = await clients(own_server.url, **QUICK)
    sub = await client.subscribe("away")
    await synced(client)
    own_server.kill()
    await until(lambda: client.is_reconnecting, "the client to notice")
    await client.publish("away", b"kept")
    own_server.start()
    assert (await sub.next_msg(timeout=20)).data == b"kept"


async def test_three_restarts_in_a_row(own_server, clients):
    client = await clients(own_server.url, **QUICK)
    sub = await client.subscribe("thrice")
    for round_index in range(1, 4):
        own_server.kill()
        own_server.start()
        await until(lambda: client.stats["reconnects"] == round_index, "the reconnect")
        await synced(client)
        await client.publish("thrice", str(round_index).encode())
        assert (await sub.next_msg(timeout=20)).data == str(round_index).encode()


async def test_error_of_the_server_reaches_the_client(shared_server, clients):
    """nats-py closes itself on any `-ERR` and keeps the reason."""
    client = await clients(shared_server.url)
    # The client refuses such a subject itself, so the line is written below it.
    await client._send_command(b"SUB bad..subject  77\r\n")
    await client._flush_pending()
    await until(lambda: client.is_closed, "the client to close itself")
    assert str(client.last_error).lower() == "nats: invalid subject"


async def test_oversized_payload_on_the_wire_ends_the_connection_only(own_server, clients):
    """With the client's own check switched off, the server refuses and goes on serving others."""
    reconnects = []

    async def on_reconnect():
        reconnects.append(1)

    other = await clients(own_server.url)
    sub = await other.subscribe("too.big")
    await synced(other)
    client = await clients(own_server.url, reconnected_cb=on_reconnect, **QUICK)
    client._max_payload = 1 << 30
    await client.publish("too.big", bytes(2 * 1024 * 1024))
    # Closed if the client read the reason, back again if it saw only the end of the connection.
    await until(lambda: client.is_closed or reconnects, "the end of the connection")
    if client.is_closed:
        assert "maximum payload violation" in str(client.last_error).lower()
    await other.publish("too.big", b"fits")
    assert (await sub.next_msg(timeout=20)).data == b"fits"


async def test_first_connect_to_a_dead_port_fails(own_server):
    own_server.kill()
    with pytest.raises((nats.errors.NoServersError, OSError)):
        await nats.connect(own_server.url, max_reconnect_attempts=1, reconnect_time_wait=0.01)


async def test_lame_duck_is_announced(own_server, clients):
    told = asyncio.Event()

    async def on_lame_duck():
        told.set()

    client = await clients(own_server.url, lame_duck_mode_cb=on_lame_duck)
    sub = await client.subscribe("ldm")
    await synced(client)
    own_server.lame_duck()
    await asyncio.wait_for(told.wait(), 20)
    await client.publish("ldm", b"still served")
    assert (await sub.next_msg(timeout=20)).data == b"still served"

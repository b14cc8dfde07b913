"""Publish, subscribe, wildcards, queue groups, payloads and headers with nats-py."""

import nats.errors
import pytest

from server import synced, until

PAYLOAD_BYTES_MAX = 1024 * 1024


async def collect(sub, count):
    return [await sub.next_msg(timeout=20) for _ in range(count)]


async def test_info_names_the_server(shared_server, clients):
    client = await clients(shared_server.url)
    assert client.max_payload == PAYLOAD_BYTES_MAX
    assert client.client_id > 0
    version = client.connected_server_version
    assert (version.major, version.minor) >= (2, 0)
    assert client.connected_url.port == shared_server.port


async def test_publish_subscribe_keeps_order(pair):
    publisher, subscriber = pair
    sub = await subscriber.subscribe("order.a")
    await synced(subscriber)
    for i in range(2000):
        await publisher.publish("order.a", str(i).encode())
    msgs = await collect(sub, 2000)
    assert [int(m.data) for m in msgs] == list(range(2000))
    assert {m.subject for m in msgs} == {"order.a"}
    assert {m.reply for m in msgs} == {""}


async def test_callback_receives_subject_reply_and_payload(pair):
    publisher, subscriber = pair
    got = []

    async def on_msg(msg):
        got.append((msg.subject, msg.reply, msg.data))

    await subscriber.subscribe("cb.>", cb=on_msg)
    await synced(subscriber)
    await publisher.publish("cb.one", b"x", reply="answers.here")
    await publisher.publish("cb.two.three", b"")
    await until(lambda: len(got) == 2, "two messages")
    assert got == [("cb.one", "answers.here", b"x"), ("cb.two.three", "", b"")]


async def test_two_matching_subscriptions_get_a_copy_each(pair):
    publisher, subscriber = pair
    subs = [await subscriber.subscribe(s) for s in ("twice.a", "twice.*", "twice.>")]
    await synced(subscriber)
    await publisher.publish("twice.a", b"1")
    for sub in subs:
        assert (await sub.next_msg(timeout=20)).data == b"1"


@pytest.mark.parametrize(
    ("wildcard", "matches", "misses"),
    [
        ("w1.*", ["w1.a", "w1.b"], ["w1", "w1.a.b", "w2.a"]),
        ("w1.*.c", ["w1.a.c", "w1.cc.c"], ["w1.c", "w1.a.d", "w1.a.b.c"]),
        ("w1.>", ["w1.a", "w1.a.b.c"], ["w1", "w2.a"]),
        ("*.w1", ["a.w1", "w1.w1"], ["w1", "a.b.w1"]),
        ("w1.*.>", ["w1.a.b", "w1.a.b.c"], ["w1.a", "w1"]),
    ],
)
async def test_wildcards(pair, wildcard, matches, misses):
    publisher, subscriber = pair
    sub = await subscriber.subscribe(wildcard)
    end = await subscriber.subscribe("wend")
    await synced(subscriber)
    for subject in misses + matches:
        await publisher.publish(subject, b"")
    # The last message of the same publisher: whatever was to come before it has come.
    await publisher.publish("wend", b"")
    await end.next_msg(timeout=20)
    assert [m.subject for m in await collect(sub, len(matches))] == matches
    assert sub.pending_msgs == 0


async def test_queue_group_gives_each_message_to_one_member(shared_server, clients):
    publisher = await clients(shared_server.url)
    got = {"a": [], "b": []}  # a list per member
    ends = []
    for group, members in (("a", 3), ("b", 2)):
        for _ in range(members):
            client = await clients(shared_server.url)
            mine = []
            got[group].append(mine)

            async def on_msg(msg, mine=mine):
                mine.append(int(msg.data))

            await client.subscribe("jobs.*", queue=group, cb=on_msg)
            ends.append(await client.subscribe("jobs.end.all"))
            await synced(client)
    plain = await clients(shared_server.url)
    plain_sub = await plain.subscribe("jobs.*")
    await synced(plain)
    for i in range(600):
        await publisher.publish(f"jobs.{i % 7}", str(i).encode())
    await publisher.publish("jobs.end.all", b"")
    for end in ends:
        await end.next_msg(timeout=20)
    for lists in got.values():
        await until(lambda: sum(map(len, lists)) >= 600, "600 messages in a group")
        assert sorted(i for mine in lists for i in mine) == list(range(600))
        assert all(mine for mine in lists), "a member got nothing"
        assert all(mine == sorted(mine) for mine in lists)
    assert len(await collect(plain_sub, 600)) == 600


async def test_queue_member_that_leaves_gets_no_more(shared_server, clients):
    publisher = await clients(shared_server.url)
    stays, leaves = await clients(shared_server.url), await clients(shared_server.url)
    staying = await stays.subscribe("leave", queue="q")
    leaving = await leaves.subscribe("leave", queue="q")
    await synced(stays)
    await synced(leaves)
    await leaving.unsubscribe()
    await synced(leaves)
    for i in range(100):
        await publisher.publish("leave", str(i).encode())
    assert [int(m.data) for m in await collect(staying, 100)] == list(range(100))


async def test_headers_keep_case_order_and_duplicates(pair):
    publisher, subscriber = pair
    sub = await subscriber.subscribe("head")
    await synced(subscriber)
    headers = {"X-Mixed-CASE": "One", "x-mixed-case": "two", "a": "with: colon", "B": "ü"}
    await publisher.publish("head", b"body", headers=headers)
    await publisher.publish("head", b"", headers={"only": "header"})
    await publisher.publish("head", b"none")
    first, second, third = await collect(sub, 3)
    assert first.headers == headers
    assert first.data == b"body"
    assert (second.headers, second.data) == ({"only": "header"}, b"")
    assert (third.headers, third.data) == (None, b"none")


async def test_duplicate_header_keys_pass_unchanged(pair):
    """nats-py offers no duplicates, so the block is written by hand and read from the raw message."""
    publisher, subscriber = pair
    seen = []
    parse = subscriber._process_headers

    async def keep(block):
        seen.append(bytes(block) if block else None)
        return await parse(block)

    subscriber._process_headers = keep
    sub = await subscriber.subscribe("head.dup")
    await synced(subscriber)
    block = b"NATS/1.0\r\nKey: 1\r\nkey:2\r\nKey:   3\r\nKEY:\r\n\r\n"
    await publisher._send_command(
        b"HPUB head.dup %d %d\r\n%s%s\r\n" % (len(block), len(block) + 2, block, b"ab")
    )
    await publisher._flush_pending()
    assert (await sub.next_msg(timeout=20)).data == b"ab"
    # The client strips the version line or not, by its version: the rest must be there byte for byte.
    assert block.endswith(seen[0]) or seen[0] == block


async def test_payload_of_all_byte_values(pair):
    publisher, subscriber = pair
    sub = await subscriber.subscribe("binary")
    await synced(subscriber)
    every = bytes(range(256))
    tricky = b"\r\nPING\r\nMSG binary 1 2\r\n\0\r\n"
    for data in (every, every[::-1] * 3, tricky, b"\r\n", b""):
        await publisher.publish("binary", data)
        assert (await sub.next_msg(timeout=20)).data == data


async def test_payload_of_one_mebibyte(pair):
    publisher, subscriber = pair
    sub = await subscriber.subscribe("big")
    await synced(subscriber)
    data = bytes(range(256)) * (PAYLOAD_BYTES_MAX // 256)
    for _ in range(5):
        await publisher.publish("big", data)
    for msg in await collect(sub, 5):
        assert msg.data == data


async def test_payload_too_big_is_refused_by_the_client(shared_server, clients):
    client = await clients(shared_server.url)
    with pytest.raises(nats.errors.MaxPayloadError):
        await client.publish("big", bytes(PAYLOAD_BYTES_MAX + 1))
    await synced(client)  # still connected


async def test_auto_unsubscribe(pair):
    publisher, subscriber = pair
    sub = await subscriber.subscribe("auto")
    end = await subscriber.subscribe("auto.end")
    await sub.unsubscribe(limit=5)
    await synced(subscriber)
    for i in range(20):
        await publisher.publish("auto", str(i).encode())
    await publisher.publish("auto.end", b"")
    await end.next_msg(timeout=20)
    assert [int(m.data) for m in await collect(sub, 5)] == list(range(5))
    assert sub.delivered == 5
    with pytest.raises((nats.errors.TimeoutError, nats.errors.BadSubscriptionError)):
        await sub.next_msg(timeout=0.1)


async def test_auto_unsubscribe_below_what_was_delivered(pair):
    publisher, subscriber = pair
    sub = await subscriber.subscribe("auto.late")
    await synced(subscriber)
    for _ in range(10):
        await publisher.publish("auto.late", b"")
    await collect(sub, 10)
    await sub.unsubscribe(limit=4)
    await synced(subscriber)
    with pytest.raises(nats.errors.NoRespondersError):
        await publisher.request("auto.late", b"", timeout=20)


async def test_unsubscribe_ends_the_interest(pair):
    publisher, subscriber = pair
    sub = await subscriber.subscribe("gone")
    await synced(subscriber)
    await sub.unsubscribe()
    await synced(subscriber)
    with pytest.raises(nats.errors.NoRespondersError):
        await publisher.request("gone", b"", timeout=20)


async def test_no_echo(shared_server, clients):
    quiet = await clients(shared_server.url, no_echo=True)
    other = await clients(shared_server.url)
    own, theirs = await quiet.subscribe("echo"), await other.subscribe("echo")
    await synced(quiet)
    await synced(other)
    await quiet.publish("echo", b"mine")
    await synced(quiet)
    assert (await theirs.next_msg(timeout=20)).data == b"mine"
    await other.publish("echo", b"yours")
    assert (await own.next_msg(timeout=20)).data == b"yours"
    assert own.pending_msgs == 0


async def test_thousand_subscriptions_come_and_go(pair):
    publisher, subscriber = pair
    subs = [await subscriber.subscribe(f"many.{i}") for i in range(1000)]
    await synced(subscriber)
    for i in range(1000):
        await publisher.publish(f"many.{i}", str(i).encode())
    for i, sub in enumerate(subs):
        assert int((await sub.next_msg(timeout=20)).data) == i
        await sub.unsubscribe()
    await synced(subscriber)
    with pytest.raises(nats.errors.NoRespondersError):
        await publisher.request("many.500", b"", timeout=20)

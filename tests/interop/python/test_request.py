"""Request and reply with nats-py: one, many at once, none to answer, none in time."""

import asyncio

import nats.errors
import pytest

from server import synced


async def echo_service(client, subject, queue=""):
    async def answer(msg):
        await msg.respond(b"re:" + msg.data)

    sub = await client.subscribe(subject, queue=queue, cb=answer)
    await synced(client)
    return sub


async def test_request_reply(pair):
    caller, service = pair
    await echo_service(service, "rr.one")
    reply = await caller.request("rr.one", b"ask", timeout=20)
    assert reply.data == b"re:ask"
    assert reply.subject.startswith("_INBOX.")


async def test_request_with_an_inbox_of_its_own(pair):
    caller, service = pair
    await echo_service(service, "rr.old")
    reply = await caller.request("rr.old", b"ask", timeout=20, old_style=True)
    assert reply.data == b"re:ask"


async def test_two_hundred_requests_at_once(shared_server, clients):
    caller = await clients(shared_server.url)
    for _ in range(3):
        await echo_service(await clients(shared_server.url), "rr.many", queue="workers")
    replies = await asyncio.gather(
        *(caller.request("rr.many", str(i).encode(), timeout=30) for i in range(200))
    )
    assert [r.data for r in replies] == [f"re:{i}".encode() for i in range(200)]


async def test_request_and_reply_carry_headers(pair):
    caller, service = pair

    async def answer(msg):
        await service.publish(msg.reply, b"", headers={"Seen": msg.headers["Ask-Me"]})

    await service.subscribe("rr.head", cb=answer)
    await synced(service)
    reply = await caller.request("rr.head", b"", timeout=20, headers={"Ask-Me": "Anything"})
    assert reply.headers == {"Seen": "Anything"}


async def test_first_of_several_replies_wins(pair):
    caller, service = pair

    async def answer(msg):
        for text in (b"first", b"second"):
            await msg.respond(text)

    await service.subscribe("rr.several", cb=answer)
    await synced(service)
    assert (await caller.request("rr.several", b"", timeout=20)).data == b"first"


async def test_no_responders(pair):
    caller, _ = pair
    with pytest.raises(nats.errors.NoRespondersError):
        await caller.request("rr.nobody", b"", timeout=20)


async def test_no_responders_status_on_the_inbox(pair):
    caller, _ = pair
    inbox = caller.new_inbox()
    sub = await caller.subscribe(inbox)
    await caller.publish("rr.nobody", b"data", reply=inbox)
    msg = await sub.next_msg(timeout=20)
    assert msg.headers["Status"] == "503"
    assert msg.data == b""


async def test_request_nobody_answers_in_time(pair):
    caller, service = pair
    await service.subscribe("rr.silent")
    await synced(service)
    with pytest.raises(nats.errors.TimeoutError) as refused:
        await caller.request("rr.silent", b"", timeout=0.2)
    assert not isinstance(refused.value, nats.errors.NoRespondersError)

package interop

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
)

func TestInfo(t *testing.T) {
	s := startServer(t)
	conn := s.connect()
	equal(t, conn.MaxPayload(), int64(1<<20))
	equal(t, conn.HeadersSupported(), true)
	equal(t, conn.ConnectedUrl(), s.url())
	if conn.ConnectedServerId() == "" || conn.ConnectedServerVersion() == "" {
		t.Fatal("the server has no name or version")
	}
	id, err := conn.GetClientID()
	check(t, err)
	other, err := s.connect().GetClientID()
	check(t, err)
	if id == other {
		t.Fatalf("two clients with the id %d", id)
	}
	rtt, err := conn.RTT()
	check(t, err)
	if rtt <= 0 {
		t.Fatal("no round trip time")
	}
}

func TestPublishSubscribeKeepsOrder(t *testing.T) {
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	sub := subscribe(t, subscriber, "order.a")
	for i := range 10_000 {
		check(t, publisher.Publish("order.a", []byte(strconv.Itoa(i))))
	}
	check(t, publisher.Flush())
	for i := range 10_000 {
		equal(t, string(next(t, sub).Data), strconv.Itoa(i))
	}
}

func TestCallbackSeesSubjectAndReply(t *testing.T) {
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	got := make(chan *nats.Msg, 1)
	_, err := subscriber.Subscribe("cb.>", func(msg *nats.Msg) { got <- msg })
	check(t, err)
	check(t, subscriber.Flush())
	check(t, publisher.PublishRequest("cb.one.two", "answers.here", nil))
	msg := receive(t, got)
	equal(t, msg.Subject, "cb.one.two")
	equal(t, msg.Reply, "answers.here")
	equal(t, len(msg.Data), 0)
}

func TestTwoMatchingSubscriptionsGetACopyEach(t *testing.T) {
	s := startServer(t)
	conn := s.connect()
	subs := []*nats.Subscription{}
	for _, subject := range []string{"twice.a", "twice.*", "twice.>", "twice.a"} {
		subs = append(subs, subscribe(t, conn, subject))
	}
	end := subscribe(t, conn, "end")
	check(t, conn.Publish("twice.a", []byte("1")))
	check(t, conn.Publish("end", nil))
	next(t, end)
	for _, sub := range subs {
		equal(t, string(next(t, sub).Data), "1")
		nothing(t, sub)
	}
}

func TestWildcards(t *testing.T) {
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	for _, c := range []struct{ wildcard, matches, misses string }{
		{"w.*", "w.a w.b", "w w.a.b v.a"},
		{"w.*.c", "w.a.c w.cc.c", "w.c w.a.d w.a.b.c"},
		{"w.>", "w.a w.a.b.c", "w v.a"},
		{"*.w", "a.w w.w", "w a.b.w"},
		{"w.*.>", "w.a.b w.a.b.c", "w.a w"},
		{"w.a*", "w.a*", "w.ab w.a"}, // inside a token a star is a letter
		{">", "a a.b w.x", ""},
	} {
		t.Run(c.wildcard, func(t *testing.T) {
			sub := subscribe(t, subscriber, c.wildcard)
			end := subscribe(t, subscriber, "zz.end")
			for _, subject := range append(words(c.misses), words(c.matches)...) {
				check(t, publisher.Publish(subject, nil))
			}
			check(t, publisher.Publish("zz.end", nil))
			next(t, end)
			for _, want := range words(c.matches) {
				equal(t, next(t, sub).Subject, want)
			}
			if c.wildcard == ">" {
				equal(t, next(t, sub).Subject, "zz.end")
			}
			nothing(t, sub)
			check(t, sub.Unsubscribe())
			check(t, end.Unsubscribe())
			check(t, subscriber.Flush())
		})
	}
}

func words(text string) []string {
	fields := []string{}
	for _, field := range bytes.Fields([]byte(text)) {
		fields = append(fields, string(field))
	}
	return fields
}

func TestQueueGroupGivesEachMessageToOneMember(t *testing.T) {
	const count = 1000
	s := startServer(t)
	publisher := s.connect()
	var mutex sync.Mutex
	got := map[string][]int{} // by group and member
	ends := []*nats.Subscription{}
	for _, member := range []string{"a1", "a2", "a3", "b1", "b2"} {
		conn := s.connect()
		_, err := conn.QueueSubscribe("jobs.*", member[:1], func(msg *nats.Msg) {
			value, _ := strconv.Atoi(string(msg.Data))
			mutex.Lock()
			got[member] = append(got[member], value)
			mutex.Unlock()
		})
		check(t, err)
		ends = append(ends, subscribe(t, conn, "jobs.all.end"))
	}
	for i := range count {
		check(t, publisher.Publish(fmt.Sprintf("jobs.%d", i%7), []byte(strconv.Itoa(i))))
	}
	check(t, publisher.Publish("jobs.all.end", nil))
	for _, end := range ends {
		next(t, end) // later than every job that this connection was given
	}
	for _, members := range [][]string{{"a1", "a2", "a3"}, {"b1", "b2"}} {
		group := func() (all []int) {
			mutex.Lock()
			defer mutex.Unlock()
			for _, member := range members {
				all = append(all, got[member]...)
			}
			return all
		}
		until(t, "the group's messages", func() bool { return len(group()) >= count })
		all := group()
		slices.Sort(all)
		equal(t, len(all), count)
		equal(t, len(slices.Compact(all)), count)
		for _, member := range members {
			if len(got[member]) == 0 || !slices.IsSorted(got[member]) {
				t.Fatalf("member %s: %d messages, in order: %v", member, len(got[member]), slices.IsSorted(got[member]))
			}
		}
	}
}

func TestQueueMembersOfOneConnection(t *testing.T) {
	s := startServer(t)
	conn := s.connect()
	subs := []*nats.Subscription{}
	for range 3 {
		sub, err := conn.QueueSubscribeSync("one.conn", "q")
		check(t, err)
		subs = append(subs, sub)
	}
	end := subscribe(t, conn, "one.end")
	for range 300 {
		check(t, conn.Publish("one.conn", nil))
	}
	check(t, conn.Publish("one.end", nil))
	next(t, end)
	sum := 0
	for _, sub := range subs {
		count, _, err := sub.Pending()
		check(t, err)
		sum += count
	}
	equal(t, sum, 300)
}

func TestQueueMemberThatDiesGetsNoMore(t *testing.T) {
	s := startServer(t)
	publisher, stays, leaves := s.connect(), s.connect(), s.connect()
	staying, err := stays.QueueSubscribeSync("leave", "q")
	check(t, err)
	check(t, stays.Flush())
	_, err = leaves.QueueSubscribeSync("leave", "q")
	check(t, err)
	check(t, leaves.Flush())
	leaves.Close()
	// The server notices the closed socket in its own time; from then on everything goes to the other.
	sent := 0
	until(t, "ten answers in a row", func() bool {
		sent++
		for range 10 {
			check(t, publisher.Publish("leave", []byte(strconv.Itoa(sent))))
		}
		check(t, publisher.Publish("leave.mark", nil))
		check(t, publisher.Flush())
		check(t, stays.Flush())
		row := 0
		for {
			count, _, err := staying.Pending()
			check(t, err)
			if count == 0 {
				return row == 10
			}
			if string(next(t, staying).Data) == strconv.Itoa(sent) {
				row++
			}
		}
	})
}

func TestHeaders(t *testing.T) {
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	sub := subscribe(t, subscriber, "head")
	sent := nats.NewMsg("head")
	sent.Data = []byte("body")
	// Set as a map: the client keeps the case of keys as they are.
	sent.Header = nats.Header{
		"X-Mixed-CASE": {"One", "Two", "One"},
		"x-mixed-case": {"three"},
		"empty":        {""},
		"utf8":         {"grüße: ☃"},
	}
	check(t, publisher.PublishMsg(sent))
	check(t, publisher.PublishMsg(&nats.Msg{Subject: "head", Header: nats.Header{"only": {"1"}}}))
	check(t, publisher.Publish("head", []byte("none")))
	got := next(t, sub)
	equal(t, string(got.Data), "body")
	equal(t, len(got.Header), 4)
	for key, values := range sent.Header {
		if !slices.Equal(got.Header.Values(key), values) {
			t.Fatalf("%s: got %q, want %q", key, got.Header.Values(key), values)
		}
	}
	got = next(t, sub)
	equal(t, got.Header.Get("only"), "1")
	equal(t, len(got.Data), 0)
	equal(t, len(next(t, sub).Header), 0)
}

func TestLargeHeaderBlock(t *testing.T) {
	s := startServer(t)
	conn := s.connect()
	sub := subscribe(t, conn, "head.large")
	sent := nats.NewMsg("head.large")
	for i := range 1000 {
		sent.Header.Add(fmt.Sprintf("key-%d", i), string(bytes.Repeat([]byte{'v'}, 100)))
	}
	check(t, conn.PublishMsg(sent))
	got := next(t, sub)
	equal(t, len(got.Header), 1000)
	equal(t, len(got.Header.Get("key-999")), 100)
}

func TestBinaryPayload(t *testing.T) {
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	sub := subscribe(t, subscriber, "binary")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for _, data := range [][]byte{every, []byte("\r\nPING\r\nMSG a 1 2\r\n\x00\r\n"), []byte("\r\n"), {}} {
		check(t, publisher.Publish("binary", data))
		if got := next(t, sub).Data; !bytes.Equal(got, data) {
			t.Fatalf("got %q, want %q", got, data)
		}
	}
}

func TestBigPayload(t *testing.T) {
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	sub := subscribe(t, subscriber, "big")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range 10 {
		check(t, publisher.Publish("big", data))
	}
	for range 10 {
		if !bytes.Equal(next(t, sub).Data, data) {
			t.Fatal("the payload changed on its way")
		}
	}
	if err := publisher.Publish("big", append(data, 'x')); !errors.Is(err, nats.ErrMaxPayload) {
		t.Fatalf("got %v", err)
	}
	check(t, publisher.Flush())
}

func TestAutoUnsubscribe(t *testing.T) {
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	sub := subscribe(t, subscriber, "auto")
	end := subscribe(t, subscriber, "auto.end")
	check(t, sub.AutoUnsubscribe(5))
	check(t, subscriber.Flush())
	for i := range 20 {
		check(t, publisher.Publish("auto", []byte(strconv.Itoa(i))))
	}
	check(t, publisher.Publish("auto.end", nil))
	next(t, end)
	for i := range 5 {
		equal(t, string(next(t, sub).Data), strconv.Itoa(i))
	}
	if _, err := sub.NextMsg(patience); !errors.Is(err, nats.ErrMaxMessages) && !errors.Is(err, nats.ErrBadSubscription) {
		t.Fatalf("got %v", err)
	}
	if _, err := publisher.Request("auto", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("the server still sees interest: %v", err)
	}
	// The server, not only the client, held back the other 15: five and the end.
	equal(t, subscriber.Stats().InMsgs, uint64(6))
}

func TestAutoUnsubscribeOfAQueueMember(t *testing.T) {
	s := startServer(t)
	conn := s.connect()
	sub, err := conn.QueueSubscribeSync("auto.q", "q")
	check(t, err)
	check(t, sub.AutoUnsubscribe(3))
	end := subscribe(t, conn, "auto.end")
	for range 10 {
		check(t, conn.Publish("auto.q", nil))
	}
	check(t, conn.Publish("auto.end", nil))
	next(t, end)
	equal(t, conn.Stats().InMsgs, uint64(4))
}

func TestNoEcho(t *testing.T) {
	s := startServer(t)
	quiet, other := s.connect(nats.NoEcho()), s.connect()
	own, theirs := subscribe(t, quiet, "echo"), subscribe(t, other, "echo")
	check(t, quiet.Publish("echo", []byte("mine")))
	check(t, quiet.Flush())
	equal(t, string(next(t, theirs).Data), "mine")
	check(t, other.Publish("echo", []byte("yours")))
	equal(t, string(next(t, own).Data), "yours")
	nothing(t, own)
}

func TestFiveThousandSubscriptions(t *testing.T) {
	const count = 5000
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	got := make(chan *nats.Msg, count)
	subs := []*nats.Subscription{}
	for i := range count {
		sub, err := subscriber.ChanSubscribe(fmt.Sprintf("many.%d", i), got)
		check(t, err)
		subs = append(subs, sub)
	}
	check(t, subscriber.Flush())
	for i := range count {
		check(t, publisher.Publish(fmt.Sprintf("many.%d", i), nil))
	}
	check(t, publisher.Flush())
	for i := range count {
		equal(t, receive(t, got).Subject, fmt.Sprintf("many.%d", i))
	}
	for _, sub := range subs {
		check(t, sub.Unsubscribe())
	}
	check(t, subscriber.Flush())
	if _, err := publisher.Request("many.2500", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("got %v", err)
	}
}

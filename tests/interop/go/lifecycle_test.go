package interop

import (
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

func serve(t *testing.T, conn *nats.Conn, subject, queue string) *nats.Subscription {
	t.Helper()
	sub, err := conn.QueueSubscribe(subject, queue, func(msg *nats.Msg) {
		_ = msg.Respond(append([]byte("re:"), msg.Data...))
	})
	check(t, err)
	check(t, conn.Flush())
	return sub
}

func TestRequestReply(t *testing.T) {
	s := startServer(t)
	for name, options := range map[string][]nats.Option{
		"shared inbox":         nil,
		"an inbox per request": {nats.UseOldRequestStyle()},
		"custom inbox prefix":  {nats.CustomInboxPrefix("_MINE.x")},
	} {
		t.Run(name, func(t *testing.T) {
			caller, service := s.connect(options...), s.connect()
			sub := serve(t, service, "rr.one", "q")
			msg, err := caller.Request("rr.one", []byte("ask"), patience)
			check(t, err)
			equal(t, string(msg.Data), "re:ask")
			check(t, sub.Unsubscribe())
			check(t, service.Flush())
		})
	}
}

func TestTwoHundredRequestsAtOnce(t *testing.T) {
	s := startServer(t)
	caller := s.connect()
	for range 3 {
		serve(t, s.connect(), "rr.many", "workers")
	}
	var group sync.WaitGroup
	for i := range 200 {
		group.Add(1)
		go func() {
			defer group.Done()
			msg, err := caller.Request("rr.many", []byte(strconv.Itoa(i)), patience)
			if err != nil || string(msg.Data) != "re:"+strconv.Itoa(i) {
				t.Errorf("request %d: %v %v", i, msg, err)
			}
		}()
	}
	group.Wait()
}

func TestNoResponders(t *testing.T) {
	s := startServer(t)
	conn := s.connect()
	if _, err := conn.Request("rr.nobody", []byte("x"), patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("got %v", err)
	}
	inbox := conn.NewRespInbox()
	sub := subscribe(t, conn, inbox)
	check(t, conn.PublishRequest("rr.nobody", inbox, []byte("x")))
	msg, err := sub.NextMsg(patience)
	if err == nil {
		equal(t, msg.Header.Get("Status"), "503")
	} else if !errors.Is(err, nats.ErrNoResponders) {
		t.Fatal(err)
	}
	check(t, conn.LastError())
}

func TestRequestThatNobodyAnswersInTime(t *testing.T) {
	s := startServer(t)
	conn := s.connect()
	subscribe(t, conn, "rr.silent")
	if _, err := conn.Request("rr.silent", nil, 200*time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
		t.Fatalf("got %v", err)
	}
}

func TestSubscriptionDrain(t *testing.T) {
	s := startServer(t)
	publisher, subscriber := s.connect(), s.connect()
	var handled flag
	first := make(chan struct{})
	sub, err := subscriber.Subscribe("drain.sub", func(*nats.Msg) {
		<-first // all messages wait in the client when the drain starts
		handled.raise()
	})
	check(t, err)
	check(t, subscriber.Flush())
	for range 500 {
		check(t, publisher.Publish("drain.sub", nil))
	}
	check(t, publisher.Flush())
	check(t, sub.Drain())
	close(first)
	until(t, "the subscription to end", func() bool { return !sub.IsValid() })
	until(t, "all messages", func() bool { return handled.is(500) })
	if _, err := publisher.Request("drain.sub", nil, patience); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("got %v", err)
	}
	equal(t, handled.count(), 500)
	equal(t, subscriber.IsConnected(), true)
}

func TestConnectionDrain(t *testing.T) {
	s := startServer(t)
	var closed flag
	caller := s.connect()
	service := s.connect(nats.ClosedHandler(func(*nats.Conn) { closed.raise() }))
	serve(t, service, "drain.conn", "q")
	inbox := subscribe(t, caller, "drain.inbox")
	for i := range 500 {
		check(t, caller.PublishRequest("drain.conn", "drain.inbox", []byte(strconv.Itoa(i))))
	}
	check(t, caller.Flush())
	next(t, inbox)
	check(t, service.Drain())
	for i := 1; i < 500; i++ {
		equal(t, string(next(t, inbox).Data), "re:"+strconv.Itoa(i))
	}
	until(t, "the closed handler", func() bool { return closed.is(1) })
	check(t, service.LastError())
}

func TestReconnectAfterKill(t *testing.T) {
	s := startServer(t)
	var left, back flag
	conn := s.connect(
		nats.DisconnectErrHandler(func(*nats.Conn, error) { left.raise() }),
		nats.ReconnectHandler(func(*nats.Conn) { back.raise() }),
	)
	plain := subscribe(t, conn, "again.*")
	queued, err := conn.QueueSubscribeSync("again.queue", "q")
	check(t, err)
	limited := subscribe(t, conn, "again.limited")
	check(t, limited.AutoUnsubscribe(2))
	check(t, conn.Publish("again.limited", []byte("0")))
	next(t, limited)
	next(t, plain)

	s.kill()
	until(t, "the disconnect", func() bool { return left.is(1) })
	check(t, conn.Publish("again.queue", []byte("away"))) // kept by the client
	s.start()
	until(t, "the reconnect", func() bool { return back.is(1) })
	check(t, conn.Flush())
	equal(t, string(next(t, queued).Data), "away")
	equal(t, string(next(t, plain).Data), "away")

	other := s.connect()
	for _, subject := range []string{"again.queue", "again.limited", "again.limited", "again.end"} {
		check(t, other.Publish(subject, []byte(subject)))
	}
	for _, subject := range []string{"again.queue", "again.limited", "again.limited", "again.end"} {
		equal(t, next(t, plain).Subject, subject)
	}
	equal(t, string(next(t, queued).Data), "again.queue")
	equal(t, string(next(t, limited).Data), "again.limited")
	msg, err := conn.Request("again.nobody.there", nil, patience)
	if !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("got %v, %v", msg, err)
	}
}

// sideDoor is a connection into which a test can write below the client, which checks subjects itself.
type sideDoor struct {
	net.Conn
	mutex sync.Mutex
}

func (d *sideDoor) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	d.Conn = conn
	return d, err
}

func (d *sideDoor) Write(data []byte) (int, error) {
	d.mutex.Lock()
	defer d.mutex.Unlock()
	return d.Conn.Write(data)
}

func TestErrorOfTheServerReachesTheClient(t *testing.T) {
	s := startServer(t)
	for line, want := range map[string]string{
		"SUB bad..subject 900\r\n":                      "invalid subject",
		"SUB bad.>.subject 900\r\n":                     "invalid subject",
		"NOPE\r\n":                                      "unknown protocol operation",
		"PUB big 9000000\r\n":                           "maximum payload violation",
		"SUB " + strings.Repeat("x", 4200) + " 900\r\n": "maximum control line exceeded",
	} {
		t.Run(want, func(t *testing.T) {
			var door sideDoor
			conn := s.connect(nats.SetCustomDialer(&door), nats.NoReconnect(),
				nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
			_, err := door.Write([]byte(line))
			check(t, err)
			until(t, "the client to give up", conn.IsClosed)
			if err := conn.LastError(); err == nil || !strings.Contains(strings.ToLower(err.Error()), want) {
				t.Fatalf("got %v, want %s", err, want)
			}
		})
	}
	check(t, s.connect().Flush()) // nobody else was hurt
}

func TestLameDuckIsAnnounced(t *testing.T) {
	s := startServer(t)
	var told flag
	conn := s.connect(nats.LameDuckModeHandler(func(*nats.Conn) { told.raise() }))
	sub := subscribe(t, conn, "ldm")
	s.lameDuck()
	until(t, "the lame duck handler", func() bool { return told.is(1) })
	check(t, conn.Publish("ldm", []byte("still served")))
	equal(t, string(next(t, sub).Data), "still served")
}

func TestTLSIsRefusedClearly(t *testing.T) {
	s := startServer(t)
	_, err := nats.Connect(s.url(), nats.Secure())
	if !errors.Is(err, nats.ErrSecureConnWanted) {
		t.Fatalf("got %v", err)
	}
}

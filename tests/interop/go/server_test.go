// Package interop points the stock Go client at the server that MIDGE_TEST_SERVER names.
package interop

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// patience bounds every wait. Only a broken server reaches it.
const patience = 20 * time.Second

func program() string {
	if path := os.Getenv("MIDGE_TEST_SERVER"); path != "" {
		return path
	}
	return "../../../target/debug/midge"
}

// server is one process on a port of its own, which it keeps over a restart.
type server struct {
	t       *testing.T
	dir     string
	port    string
	command *exec.Cmd
	exited  chan struct{} // closed when the process is gone
}

func startServer(t *testing.T) *server {
	t.Helper()
	s := &server{t: t, dir: t.TempDir(), port: "-1"}
	s.start()
	t.Cleanup(s.kill)
	return s
}

func (s *server) url() string { return "nats://127.0.0.1:" + s.port }

func (s *server) start() {
	s.t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "server.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(s.t, err)
	defer log.Close()
	s.command = exec.Command(program(), "-a", "127.0.0.1", "-p", s.port, "--ports_file_dir", s.dir)
	s.command.Stdout, s.command.Stderr = log, log
	check(s.t, s.command.Start())
	command, exited := s.command, make(chan struct{})
	s.exited = exited
	go func() {
		_ = command.Wait()
		close(exited)
	}()
	// The ports file is written once the listener is open.
	until(s.t, "the ports file", func() bool {
		files, _ := filepath.Glob(filepath.Join(s.dir, fmt.Sprintf("*_%d.ports", s.command.Process.Pid)))
		if len(files) == 0 {
			select {
			case <-exited:
				text, _ := os.ReadFile(log.Name())
				s.t.Fatalf("the server did not start:\n%s", text)
			default:
			}
			return false
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			return false
		}
		var ports struct{ Nats []string }
		if json.Unmarshal(text, &ports) != nil || len(ports.Nats) == 0 {
			return false
		}
		s.port = ports.Nats[0][strings.LastIndex(ports.Nats[0], ":")+1:]
		return true
	})
}

// kill ends the server as a power cut does.
func (s *server) kill() {
	_ = s.command.Process.Kill()
	<-s.exited
}

func (s *server) lameDuck() { check(s.t, s.command.Process.Signal(syscall.SIGUSR2)) }

// connect gives a client that comes back quickly and is closed at the end of the test.
func (s *server) connect(options ...nats.Option) *nats.Conn {
	s.t.Helper()
	options = append([]nats.Option{
		nats.ReconnectWait(50 * time.Millisecond),
		nats.MaxReconnects(-1),
		// Without a handler the client prints errors; tests that expect some set their own.
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			s.t.Errorf("unexpected error: %v", err)
		}),
	}, options...)
	conn, err := nats.Connect(s.url(), options...)
	check(s.t, err)
	s.t.Cleanup(conn.Close)
	return conn
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", patience, what)
		}
	}
}

func subscribe(t *testing.T, conn *nats.Conn, subject string) *nats.Subscription {
	t.Helper()
	sub, err := conn.SubscribeSync(subject)
	check(t, err)
	check(t, conn.Flush())
	return sub
}

func next(t *testing.T, sub *nats.Subscription) *nats.Msg {
	t.Helper()
	msg, err := sub.NextMsg(patience)
	check(t, err)
	return msg
}

func receive(t *testing.T, messages <-chan *nats.Msg) *nats.Msg {
	t.Helper()
	select {
	case msg := <-messages:
		return msg
	case <-time.After(patience):
		t.Fatalf("waited %v for a message", patience)
		return nil
	}
}

// nothing checks that no message waits; call it after a later message of the same publisher came.
func nothing(t *testing.T, sub *nats.Subscription) {
	t.Helper()
	if count, _, err := sub.Pending(); err != nil || count != 0 {
		t.Fatalf("%d messages too many on %s (%v)", count, sub.Subject, err)
	}
}

func equal[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}

// flag is set by callbacks of the client's goroutines.
type flag struct{ value atomic.Int64 }

func (f *flag) raise()          { f.value.Add(1) }
func (f *flag) count() int64    { return f.value.Load() }
func (f *flag) is(n int64) bool { return f.value.Load() >= n }

package nats_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/limpet-go/limpet/bus"
	natsbus "github.com/limpet-go/limpet/bus/nats"
)

// restart ends a server, and starts one on its port and with its files.
func restart(t *testing.T, s *server.Server, meanwhile func()) *server.Server {
	t.Helper()
	u, err := url.Parse(s.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(s.StoreDir()) // the server puts a folder of its own into it
	s.Shutdown()
	s.WaitForShutdown()
	if meanwhile != nil {
		meanwhile()
	}
	return startServer(t, &server.Options{Port: port, StoreDir: dir})
}

// next returns what Next does, in time.
func next(t *testing.T, sub bus.Subscription) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := sub.Next(ctx)
	return string(m.Data), err
}

// wantGap wants a Gap to be next.
func wantGap(t *testing.T, sub bus.Subscription) *bus.Gap {
	t.Helper()
	data, err := next(t, sub)
	var gap *bus.Gap
	if !errors.As(err, &gap) {
		t.Fatalf("got %q, %v, want a Gap", data, err)
	}
	return gap
}

func want(t *testing.T, sub bus.Subscription, data ...string) {
	t.Helper()
	for _, want := range data {
		if got, err := next(t, sub); got != want || err != nil {
			t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
}

func publish(t *testing.T, b bus.Bus, topic string, data ...string) {
	t.Helper()
	for _, data := range data {
		if err := b.Publish(t.Context(), topic, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
}

func subscribe(t *testing.T, b bus.Bus, topics ...string) bus.Subscription {
	t.Helper()
	sub, err := b.Subscribe(t.Context(), topics...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sub.Close() })
	return sub
}

// A Gap stands between what came before a break and what comes behind it, and a Publish that
// begins meanwhile waits.
func TestCoreReconnect(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	near := &natsbus.Core{Conn: connect(t, s.ClientURL()), Timeout: patience}
	conn := connect(t, s.ClientURL())
	far := &natsbus.Core{Conn: conn, Timeout: patience}
	back := conn.StatusChanged(nats.CONNECTED)
	sub := subscribe(t, near, "a", "b")
	for round := range 3 {
		publish(t, far, "a", fmt.Sprint("before ", round))
		want(t, sub, fmt.Sprint("before ", round))
		published := make(chan error, 1)
		s = restart(t, s, func() {
			go func() { published <- near.Publish(t.Context(), "a", []byte("meanwhile")) }()
		})
		if err := <-published; err != nil && err.Error() != `bus: NATS: publish on "a": the connection to NATS broke` {
			t.Error(err)
		}
		gap := wantGap(t, sub)
		if gap.Lost != -1 || gap.Err == nil || len(gap.Topics) != 2 {
			t.Errorf("%+v", gap)
		}
		<-back // or far might not have noticed the break yet
		publish(t, far, "a", "end")
		got, err := next(t, sub)
		if got == "meanwhile" {
			got, err = next(t, sub)
		}
		if got != "end" || err != nil {
			t.Fatalf("got %q, %v, want end", got, err)
		}
	}
	if got := near.Stats(); got.Disconnects != 3 || got.Gaps != 3 || got.Away != 0 || got.Topics != 2 {
		t.Errorf("%+v", got)
	}
}

// While NATS is away, calls fail within Timeout, and a topic that was added is there with a
// Gap when it is back.
func TestCoreAway(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	conn := connect(t, s.ClientURL())
	b := &natsbus.Core{Conn: conn, Timeout: 300 * time.Millisecond}
	sub := subscribe(t, b, "a")
	away := conn.StatusChanged(nats.RECONNECTING)
	s = restart(t, s, func() {
		<-away
		if err := sub.Add(t.Context(), "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Add: %v", err)
		}
		if err := b.Publish(t.Context(), "a", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Publish: %v", err)
		}
		if got := b.Stats(); got.Away != 2 || got.PublishErrors != 1 {
			t.Errorf("%+v", got)
		}
	})
	if gap := wantGap(t, sub); fmt.Sprint(len(gap.Topics)) != "2" {
		t.Errorf("%+v", gap)
	}
	b = &natsbus.Core{Conn: connect(t, s.ClientURL()), Timeout: patience}
	publish(t, b, "b", "end")
	for {
		got, err := next(t, sub)
		if got == "end" {
			break
		}
		if got != "" || err != nil { // the Publish above, which may have been sent
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// When the connection is closed, subscriptions say so.
func TestClosed(t *testing.T) {
	t.Parallel()
	for name, over := range map[string]func(*nats.Conn) bus.Bus{
		"Core":      func(conn *nats.Conn) bus.Bus { return &natsbus.Core{Conn: conn} },
		"JetStream": func(conn *nats.Conn) bus.Bus { return &natsbus.JetStream{Conn: conn} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, startServer(t, nil).ClientURL())
			b := over(conn)
			sub := subscribe(t, b, "a")
			conn.Close()
			if _, err := next(t, sub); !errors.Is(err, bus.ErrClosed) || !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("Next: %v", err)
			}
			if err := b.Publish(t.Context(), "a", nil); !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("Publish: %v", err)
			}
		})
	}
}

// What the server refuses is an error, and not silence.
func TestCorePermissions(t *testing.T) {
	t.Parallel()
	s := startServer(t, &server.Options{Users: []*server.User{{
		Username: "gus", Password: "secret", Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: []string{"free"}},
			Subscribe: &server.SubjectPermission{Allow: []string{"free", "_INBOX.>"}},
		},
	}}})
	b := &natsbus.Core{Conn: connect(t, s.ClientURL(), nats.UserInfo("gus", "secret"))}
	sub := subscribe(t, b, "free")
	publish(t, b, "free", "1")
	want(t, sub, "1")
	if err := b.Publish(t.Context(), "secret", nil); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("Publish: %v", err)
	}
	if _, err := b.Subscribe(t.Context(), "secret"); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("Subscribe: %v", err)
	}
	if err := sub.Add(t.Context(), "secret"); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("Add: %v", err)
	}
	publish(t, b, "free", "2")
	want(t, sub, "2") // and no Gap as for a topic that is late
	if got := b.Stats(); got.Topics != 1 || got.Away != 0 {
		t.Errorf("%+v", got)
	}
}

// A slow subscription that is closed is taken off its topics.
func TestCoreCloseSlow(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	b := &natsbus.Core{Conn: connect(t, s.ClientURL()), Queue: 2, CloseSlow: true}
	slow, quick := subscribe(t, b, "a"), subscribe(t, b, "a")
	for i := range 3 {
		publish(t, b, "a", fmt.Sprint(i))
		want(t, quick, fmt.Sprint(i))
	}
	want(t, slow, "0", "1")
	if _, err := next(t, slow); !errors.Is(err, bus.ErrClosed) {
		t.Errorf("Next: %v", err)
	}
	quick.Close()
	if got := b.Stats(); got.Topics != 0 || got.Subscriptions != 0 || got.ClosedSlow != 1 {
		t.Errorf("%+v", got)
	}
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	s := startServer(t, nil)
	conn := connect(t, s.ClientURL())
	for name, b := range map[string]interface {
		bus.Bus
		Validate() error
	}{
		"no Conn":                      &natsbus.Core{},
		"negative Queue":               &natsbus.Core{Conn: conn, Queue: -1},
		"negative Timeout":             &natsbus.Core{Conn: conn, Timeout: -1},
		"no Conn of JetStream":         &natsbus.JetStream{},
		"negative MaxLen":              &natsbus.JetStream{Conn: conn, MaxLen: -1},
		"negative Queue of JetStream":  &natsbus.JetStream{Conn: conn, Queue: -1},
		"a Prefix that is half a word": &natsbus.JetStream{Conn: conn, Prefix: "shop"},
	} {
		if b.Validate() == nil {
			t.Errorf("%s: Validate returns nil", name)
		}
		if b.Publish(t.Context(), "a", nil) == nil {
			t.Errorf("%s: Publish returns nil", name)
		}
		if _, err := b.Subscribe(t.Context(), "a"); err == nil {
			t.Errorf("%s: Subscribe returns nil", name)
		}
	}
}

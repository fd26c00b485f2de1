package bus_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/internal/redistest"
)

// Channels and payloads are what other programs see: they must be exact.
func TestRedisIsPlainPubSub(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	const channel = "socket.io#/#room#"
	raw := client.Subscribe(t.Context(), channel)
	defer raw.Close()
	if _, err := raw.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := &bus.Redis{Client: client, Timeout: patience}
	sub := listen(t, b, channel)
	if err := b.Publish(t.Context(), channel, []byte("1\x00\xff")); err != nil {
		t.Fatal(err)
	}
	if m, err := raw.ReceiveMessage(t.Context()); err != nil || m.Payload != "1\x00\xff" {
		t.Errorf("Redis has %q, %v", m, err)
	}
	if n := client.Publish(t.Context(), channel, "2").Val(); n != 2 {
		t.Errorf("%d receivers, want 2", n)
	}
	sub.await(t, 2)
}

// However many subscriptions there are, Redis sees one connection, and one
// subscription a topic while somebody wants it.
func TestRedisSharesOneConnection(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	b := &bus.Redis{Client: client, Timeout: patience}
	subs := []*listener{listen(t, b, "a", "b"), listen(t, b, "a"), listen(t, b, "c", "a")}
	numsub := func() string {
		n := client.PubSubNumSub(t.Context(), "a", "b", "c").Val()
		return fmt.Sprint(n["a"], n["b"], n["c"])
	}
	connections := func() int {
		return strings.Count(client.ClientList(t.Context()).Val(), "flags=P")
	}
	if numsub() != "1 1 1" || connections() != 1 {
		t.Errorf("NUMSUB %s over %d connections", numsub(), connections())
	}
	subs[0].Close()
	subs[1].Remove(t.Context(), "a")
	await(t, "b to be unsubscribed", func() bool { return numsub() == "1 0 1" })
	subs[1].Close()
	subs[2].Close()
	await(t, "the connection to be closed", func() bool { return connections() == 0 })
	listen(t, b, "b")
	if numsub() != "0 1 0" || connections() != 1 {
		t.Errorf("NUMSUB %s over %d connections", numsub(), connections())
	}
}

// await asks until ok is true.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Everything that waits for Redis ends in time, and says what happened.
func TestRedisAway(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"refuses", "hangs"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			network := newProxy(t, server.Addr)
			client := network.client(t)
			for _, tt := range []struct {
				name string
				bus  bus.Bus
			}{
				{"Redis", &bus.Redis{Client: client, Timeout: 200 * time.Millisecond}},
				{"Streams", &bus.Streams{Client: client, Timeout: 200 * time.Millisecond}},
			} {
				t.Run(tt.name, func(t *testing.T) {
					sub := listen(t, tt.bus, "a")
					network.refuse(state == "refuses")
					network.cut()
					network.hole(state == "hangs")

					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					if err := tt.bus.Publish(ctx, "a", nil); err == nil || ctx.Err() != nil {
						t.Errorf("Publish: %v", err)
					}
					if _, err := tt.bus.Subscribe(ctx, "other"); err == nil || ctx.Err() != nil {
						t.Errorf("Subscribe: %v", err)
					}
					if err := sub.Add(ctx, "late", "later"); err == nil || ctx.Err() != nil {
						t.Errorf("Add: %v", err)
					}
					network.cut()
					network.hole(false)
					network.refuse(false)

					for _, topic := range []string{"late", "later"} {
						sub.until(t, "a Gap of topic "+topic, func() bool {
							return slices.ContainsFunc(sub.errs, func(err error) bool {
								var gap *bus.Gap
								return errors.As(err, &gap) && gap.Lost == -1 && gap.Err != nil && slices.Contains(gap.Topics, topic)
							})
						})
					}
					await(t, "Redis to be back", func() bool { return tt.bus.Publish(t.Context(), "late", []byte("1")) == nil })
					sub.await(t, 1)
				})
			}
		})
	}
}

// A topic that Redis refuses doesn't disturb the others.
func TestRedisRefusesATopic(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	admin := server.Client(t)
	if err := admin.Do(t.Context(), "acl", "setuser", "some", "on", ">pw", "~*", "&ok*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: server.Addr, Username: "some", Password: "pw", ContextTimeoutEnabled: true})
	defer client.Close()
	b := &bus.Redis{Client: client, Timeout: time.Second}
	sub := listen(t, b, "ok 1")
	err := sub.Add(t.Context(), "secret", "ok 2")
	if err == nil || !strings.Contains(err.Error(), "NOPERM") || !strings.Contains(err.Error(), "secret") {
		t.Errorf("Add: %v", err)
	}
	for i, topic := range []string{"ok 1", "ok 2"} {
		await(t, topic, func() bool { return admin.Publish(t.Context(), topic, i+1).Val() == 1 })
		sub.await(t, int64(i+1))
	}
	admin.Do(t.Context(), "acl", "setuser", "some", "&secret")
	if gap := sub.awaitGap(t, 1); !slices.Equal(gap.Topics, []string{"ok 2", "secret"}) && !slices.Equal(gap.Topics, []string{"secret"}) {
		t.Errorf("a gap of %q", gap.Topics)
	}
	admin.Publish(t.Context(), "secret", 3)
	sub.await(t, 3)
}

func TestRedisClosesTheSlow(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	b := &bus.Redis{Client: client, Queue: 1, CloseSlow: true, Timeout: patience}
	sub, err := b.Subscribe(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.Publish(t.Context(), "a", nil); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the subscription to leave", func() bool { return client.PubSubNumSub(t.Context(), "b").Val()["b"] == 0 })
	if _, err := sub.Next(t.Context()); err != nil {
		t.Errorf("Next: %v", err)
	}
	if _, err := sub.Next(t.Context()); !errors.Is(err, bus.ErrClosed) || !strings.Contains(err.Error(), "too slow") {
		t.Errorf("Next: %v", err)
	}
}

// Close leaves nothing behind, whatever the connection is about: TestMain looks.
func TestRedisCloseInEveryState(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	network := newProxy(t, server.Addr)
	client := network.client(t)
	for _, tt := range []struct {
		name  string
		state func()
	}{
		{"connected", func() {}},
		{"refused", func() { network.refuse(true); network.cut() }},
		{"hangs", func() { network.refuse(false); network.cut(); network.hole(true) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, b := range []bus.Bus{
				&bus.Redis{Client: client, Timeout: 200 * time.Millisecond},
				&bus.Streams{Client: client, Timeout: 200 * time.Millisecond},
			} {
				sub, err := b.Subscribe(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				tt.state()
				_ = sub.Add(t.Context(), "a", "b") // fails, but for the first state
				if err := sub.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestRedisClients(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		client redis.UniversalClient
		want   string
	}{
		{"none", nil, "Client"},
		{"deaf", redis.NewClient(&redis.Options{}), "ContextTimeoutEnabled"},
		{"deaf Cluster", redis.NewClusterClient(&redis.ClusterOptions{}), "ContextTimeoutEnabled"},
		{"reader of replicas", redis.NewClusterClient(&redis.ClusterOptions{ContextTimeoutEnabled: true, ReadOnly: true}), "replicas"},
		{"Ring", redis.NewRing(&redis.RingOptions{ContextTimeoutEnabled: true}), "Ring"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.client != nil {
				defer tt.client.Close()
			}
			for _, b := range []interface {
				bus.Bus
				Validate() error
			}{&bus.Streams{Client: tt.client}, &bus.Redis{Client: tt.client}} {
				if _, ok := b.(*bus.Redis); ok && tt.want == "replicas" {
					continue // it reads nothing
				}
				if err := b.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%T: Validate: %v", b, err)
				}
				if err := b.Publish(t.Context(), "a", nil); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%T: Publish: %v", b, err)
				}
				if _, err := b.Subscribe(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%T: Subscribe: %v", b, err)
				}
			}
		})
	}
}

func TestRedisOptions(t *testing.T) {
	t.Parallel()
	client, err := bus.NewRedisClient("redis://127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, tt := range []struct {
		name string
		bus  interface{ Validate() error }
		ok   bool
	}{
		{"Redis", &bus.Redis{Client: client}, true},
		{"Streams", &bus.Streams{Client: client}, true},
		{"Redis with a negative Queue", &bus.Redis{Client: client, Queue: -1}, false},
		{"Redis with a negative Timeout", &bus.Redis{Client: client, Timeout: -1}, false},
		{"Streams with a negative MaxLen", &bus.Streams{Client: client, MaxLen: -1}, false},
		{"Streams with a negative Idle", &bus.Streams{Client: client, Idle: -1}, false},
		{"Streams with a negative Queue", &bus.Streams{Client: client, Queue: -1}, false},
		{"Streams with a negative Timeout", &bus.Streams{Client: client, Timeout: -1}, false},
	} {
		if err := tt.bus.Validate(); (err == nil) != tt.ok || err != nil && !strings.Contains(err.Error(), "negative") {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestNewRedisClient(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "http://:secret@host", "redis://:sec ret@host", "redis://:secret@host/?secret=1", "redis://:pa/secret@host"} {
		if c, err := bus.NewRedisClient(url); c != nil || err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	server := redistest.Start(t)
	client, err := bus.NewRedisClient("redis://" + server.Addr + "/3?dial_timeout=2s")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if o := client.Options(); o.DB != 3 || o.DialTimeout != 2*time.Second || o.DialerRetries != 1 {
		t.Errorf("%+v", o)
	}
	b := &bus.Redis{Client: client, Timeout: patience}
	sub := listen(t, b, "a")
	if err := b.Publish(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	sub.await(t, 1)
}

// Topics that are wanted together are subscribed to by one command, and so they are
// unsubscribed from: a hub has thousands of them to do when its members come.
func TestRedisSubscribesTogether(t *testing.T) {
	t.Parallel()
	client := redistest.Start(t).Client(t)
	b := &bus.Redis{Client: client, Timeout: patience}
	sub := listen(t, b, "first")
	topics := make([]string, 2500)
	for i := range topics {
		topics[i] = fmt.Sprint("topic ", i)
	}
	commands := func(name string) (n int) {
		info := client.Info(t.Context(), "commandstats").Val()
		if _, stats, ok := strings.Cut(info, "cmdstat_"+name+":calls="); ok {
			_, _ = fmt.Sscan(strings.Split(stats, ",")[0], &n)
		}
		return n
	}
	before := commands("subscribe")
	if err := sub.Add(t.Context(), topics...); err != nil {
		t.Fatal(err)
	}
	if n := commands("subscribe") - before; n != 3 { // of 1,000 topics at most
		t.Errorf("%d commands for %d topics", n, len(topics))
	}
	for i, topic := range []string{topics[0], topics[1000], topics[2499], "first"} {
		if err := b.Publish(t.Context(), topic, fmt.Append(nil, i+1)); err != nil {
			t.Fatal(err)
		}
		sub.await(t, int64(i+1))
	}
	if err := sub.Remove(t.Context(), topics...); err != nil {
		t.Fatal(err)
	}
	await(t, "the topics to be unsubscribed from", func() bool { return len(client.PubSubChannels(t.Context(), "topic*").Val()) == 0 })
	if n := commands("unsubscribe"); n != 3 {
		t.Errorf("%d commands to unsubscribe", n)
	}
}

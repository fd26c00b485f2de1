package socketio_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus"
	"github.com/limpet-go/limpet/bus/socketio"
	"github.com/limpet-go/limpet/internal/interop"
	"github.com/limpet-go/limpet/internal/process"
	"github.com/limpet-go/limpet/internal/redistest"
)

// In a Redis Cluster, members are connected to different nodes of it, and streams
// and sharded channels are on different nodes.
func TestRedisCluster(t *testing.T) {
	t.Parallel()
	server := redistest.StartCluster(t)
	for _, tt := range []struct {
		name    string
		adapter socketio.Adapter
	}{
		{"current", socketio.PubSub{Prefix: "current", SpecificResponses: true}},
		{"sharded", socketio.Sharded{Prefix: "sharded"}},
		{"streams", socketio.Streams{Prefix: "streams", Stream: "streams", Count: 3}},
		{"streams, sharded", socketio.Streams{Prefix: "both", Stream: "both", Count: 3, Sharded: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var members []*clients
			for i := range 3 {
				m := newClients()
				var err error
				m.cluster, err = socketio.NewCluster(server.Client(t), tt.adapter, &socketio.ClusterOptions{Sockets: m})
				if err != nil {
					t.Fatal(err)
				}
				m.connect(t, fmt.Sprint("go", i), "room", fmt.Sprint("room", i))
				run(t, m.cluster)
				members = append(members, m)
			}
			// A member expects answers only of members whose subscriptions it sees.
			for _, m := range members {
				for deadline := time.Now().Add(30 * time.Second); ; {
					sockets, err := m.cluster.FetchSockets(patient(t))
					if err == nil && len(sockets) == 3 {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("sockets are %v, %v", sockets, err)
					}
				}
			}
			for i, m := range members {
				if n, err := m.cluster.ServerCount(patient(t)); n != 3 || err != nil {
					t.Errorf("%d members, %v", n, err)
				}
				answers, err := m.cluster.EmitWithAck(patient(t), "ev")
				if sorted(answers) != "go0 go1 go2" || err != nil {
					t.Errorf("acknowledgements %v, %v", answers, err)
				}
				next := (i + 1) % 3
				if err := m.cluster.To(fmt.Sprint("room", next)).Emit(patient(t), fmt.Sprint("only", i)); err != nil {
					t.Error(err)
				}
				members[next].await(t, fmt.Sprint("go", next), isEvent(fmt.Sprint("only", i)))
			}
		})
	}
}

// Connections break again and again while an Emitter sends. What a stream holds
// arrives once and in order. With pub/sub, what is lost is reported.
func TestConnectionsBreak(t *testing.T) {
	t.Parallel()
	for name, adapter := range map[string]socketio.Adapter{
		"current": socketio.PubSub{}, "sharded": socketio.Sharded{}, "streams": socketio.Streams{},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			client := redis.NewClient(&redis.Options{
				Addr: server.Addr, ClientName: "member", ContextTimeoutEnabled: true, DialerRetries: 1,
			})
			t.Cleanup(func() { client.Close() })

			const events = 2000
			var mu sync.Mutex
			var got []int
			gaps := 0
			last := make(chan struct{})
			c, err := socketio.NewCluster(client, adapter, &socketio.ClusterOptions{
				Gap: func(*bus.Gap) { mu.Lock(); gaps++; mu.Unlock() },
				Sockets: one(func(e socketio.Event) {
					if e.Name == "last" {
						close(last)
						return
					}
					mu.Lock()
					got = append(got, int(e.Args[0].(float64)))
					mu.Unlock()
				}),
			})
			if err != nil {
				t.Fatal(err)
			}
			run(t, c)
			if _, err := c.FetchSockets(patient(t)); err != nil {
				t.Fatal(err)
			}
			e, err := socketio.NewEmitter(server.Client(t), adapter)
			if err != nil {
				t.Fatal(err)
			}
			back := func() {
				t.Helper()
				for deadline := time.Now().Add(30 * time.Second); ; {
					if n, err := e.ServerCount(patient(t)); n == 1 && err == nil {
						return
					}
					if time.Now().After(deadline) {
						t.Fatal("the member doesn't come back")
					}
				}
			}
			for i := range events {
				if i%200 == 100 {
					back()
					cut(t, server)
				}
				if err := e.Emit(patient(t), "ev", i); err != nil {
					t.Fatal(err)
				}
			}
			back()
			if err := e.Emit(patient(t), "last"); err != nil {
				t.Fatal(err)
			}
			select {
			case <-last:
			case <-time.After(30 * time.Second):
				t.Fatal("the last event is missing")
			}
			mu.Lock()
			defer mu.Unlock()
			if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
				t.Errorf("events came twice or out of order: %v", got)
			}
			if name == "streams" && len(got) != events {
				t.Errorf("%d of %d events arrived", len(got), events)
			}
			if len(got) < events && gaps == 0 {
				t.Errorf("%d events are lost in silence", events-len(got))
			}
			t.Logf("%d of %d events arrived, %d gaps", len(got), events, gaps)
		})
	}
}

// Redis is killed and started again without its data. Requests fail meanwhile, and
// members find each other again by themselves.
func TestRedisRestarts(t *testing.T) {
	t.Parallel()
	for name, adapter := range map[string]socketio.Adapter{
		"legacy": socketio.Legacy{}, "sharded": socketio.Sharded{}, "streams": socketio.Streams{},
		"heartbeats": socketio.Streams{Heartbeats: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			opts := socketio.ClusterOptions{Logger: slog.New(slog.DiscardHandler)}
			a, _ := member(t, server.Client(t), adapter, opts)
			b, _ := member(t, server.Client(t), adapter, opts)
			server.Kill()
			if _, err := a.cluster.Timeout(2 * time.Second).FetchSockets(patient(t)); err == nil {
				t.Error("there is no error without Redis")
			}
			server.Restart(t)
			for deadline := time.Now().Add(30 * time.Second); ; {
				sockets, err := a.cluster.Timeout(time.Second).FetchSockets(patient(t))
				if err == nil && len(sockets) == 4 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("sockets are %v, %v", sockets, err)
				}
			}
			for deadline := time.Now().Add(30 * time.Second); ; { // the room's channel may come later
				if err := a.cluster.To("r9").Emit(patient(t), "again"); err != nil {
					t.Fatal(err)
				}
				if b.has("go2", isEvent("again")) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("no event arrives")
				}
			}
		})
	}
}

// cut closes the member's connections.
func cut(t *testing.T, server *redistest.Server) {
	t.Helper()
	admin := server.Client(t)
	defer admin.Close()
	list, err := admin.ClientList(patient(t)).Result()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		if id, _, _ := strings.Cut(strings.TrimPrefix(line, "id="), " "); strings.Contains(line, " name=member ") {
			admin.ClientKillByFilter(patient(t), "ID", id)
		}
	}
}

// one is the only socket of a member. It records only events.
type one func(socketio.Event)

func (one) Find(socketio.Selection) []socketio.Socket { return []socketio.Socket{{ID: "one"}} }
func (f one) Do(_ socketio.Selection, a socketio.Action) int {
	f(a.(socketio.Event))
	return 1
}

// The error of a request says why there is no connection, not only that the time
// limit was exceeded.
func TestRedisRefuses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "secret")
	client := redis.NewClient(&redis.Options{Addr: server.Addr, Password: "wrong", ContextTimeoutEnabled: true})
	t.Cleanup(func() { client.Close() })
	for name, adapter := range map[string]socketio.Adapter{
		"pub/sub": socketio.PubSub{}, "a stream": socketio.Streams{Heartbeats: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			emitter, err := socketio.NewEmitter(client, adapter)
			if err != nil {
				t.Fatal(err)
			}
			for limit := 2 * time.Second; ; limit *= 2 {
				if _, err = emitter.Timeout(limit).FetchSockets(t.Context()); err != nil && strings.Contains(err.Error(), "WRONGPASS") {
					break
				}
				if limit > 20*time.Second {
					t.Fatalf("%v, which doesn't say why", err)
				}
			}
		})
	}
}

// A member that is killed isn't waited for.
func TestMemberIsKilled(t *testing.T) {
	t.Parallel()
	f := newFleet(t, interop.V4, "")
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LIMPET_TEST_MEMBER="+f.cluster.Redis.Addr)
	killed := process.Start(t, cmd)
	m, _ := member(t, f.cluster.Redis.Client(t), socketio.PubSub{}, socketio.ClusterOptions{})
	killed.AwaitLine(t, "ready")
	sockets := func() string {
		return f.named(f.cluster.Nodes[0].Emit(t, interop.Emission{NSP: "/", Call: "fetchSockets"}))
	}
	if got := sockets(); got != "ann bob cid go1 go2 one" {
		t.Errorf("sockets are %s", got)
	}
	killed.Kill()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if n, err := m.cluster.ServerCount(patient(t)); n == 3 && err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the member is counted still")
		}
	}
	if got := sockets(); got != "ann bob cid go1 go2" {
		t.Errorf("sockets are %s", got)
	}
}

// beMember is the member that is killed, in a process of its own.
func beMember(addr string) error {
	client := redis.NewClient(&redis.Options{Addr: addr, ContextTimeoutEnabled: true})
	c, err := socketio.NewCluster(client, nil, &socketio.ClusterOptions{Sockets: one(nil)})
	if err != nil {
		return err
	}
	go func() {
		if _, err := c.FetchSockets(context.Background()); err == nil {
			fmt.Println("ready")
		}
	}()
	return c.Run(context.Background())
}

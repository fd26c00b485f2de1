package socketio_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/limpet-go/limpet/bus/socketio"
)

// clients are the sockets of a Cluster in a test, by ID.
type clients struct {
	cluster *socketio.Cluster

	mu      sync.Mutex
	sockets map[string]socketio.Socket
	done    map[string][]socketio.Action
	changed chan struct{}
}

func newClients() *clients {
	return &clients{
		sockets: make(map[string]socketio.Socket), done: make(map[string][]socketio.Action),
		changed: make(chan struct{}),
	}
}

func (c *clients) connect(t *testing.T, id string, rooms ...string) {
	t.Helper()
	c.mu.Lock()
	c.sockets[id] = socketio.Socket{ID: id, Rooms: rooms, Data: map[string]any{"of": "Go"}}
	c.mu.Unlock()
	if err := c.cluster.Watch(t.Context(), append(rooms, id)...); err != nil {
		t.Error(err)
	}
}

func (c *clients) Find(s socketio.Selection) []socketio.Socket {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []socketio.Socket
	for _, socket := range c.sockets {
		if s.Has(socket) {
			found = append(found, socket)
		}
	}
	return found
}

func (c *clients) Do(s socketio.Selection, a socketio.Action) int {
	found := c.Find(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, socket := range found {
		id := socket.ID
		c.done[id] = append(c.done[id], a)
		switch a := a.(type) {
		case socketio.Event:
			if a.Ack != nil {
				a.Ack(id)
			}
		case socketio.Join:
			socket.Rooms = append(slices.Clone(socket.Rooms), a.Rooms...)
			c.sockets[id] = socket
		case socketio.Leave:
			socket.Rooms = slices.DeleteFunc(slices.Clone(socket.Rooms), func(room string) bool { return slices.Contains(a.Rooms, room) })
			c.sockets[id] = socket
		case socketio.Disconnect:
			delete(c.sockets, id)
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
	return len(found)
}

// await waits until something was done to a socket, and removes it all from the
// record.
func (c *clients) await(t *testing.T, id string, match func(socketio.Action) bool) (found socketio.Action) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		c.mu.Lock()
		done, changed := c.done[id], c.changed
		c.mu.Unlock()
		if i := slices.IndexFunc(done, match); i >= 0 {
			c.mu.Lock()
			clear(c.done)
			c.mu.Unlock()
			return done[i]
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("nothing was done to %s but %+v", id, done)
		}
	}
}

// has tells whether something was done to a socket.
func (c *clients) has(id string, match func(socketio.Action) bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.done[id], match)
}

func isEvent(name string) func(socketio.Action) bool {
	return func(a socketio.Action) bool { e, ok := a.(socketio.Event); return ok && e.Name == name }
}

// member starts a member with the clients go1 and go2.
func member(t *testing.T, client redis.UniversalClient, adapter socketio.Adapter, opts socketio.ClusterOptions) (m *clients, leave func()) {
	t.Helper()
	m = newClients()
	opts.Sockets = m
	var err error
	if m.cluster, err = socketio.NewCluster(client, adapter, &opts); err != nil {
		t.Fatal(err)
	}
	m.connect(t, "go1", "r1")
	m.connect(t, "go2", "r9")
	leave = run(t, m.cluster)
	if _, err := m.cluster.FetchSockets(patient(t)); err != nil { // it is there
		t.Fatal(err)
	}
	return m, leave
}

func run(t *testing.T, c *socketio.Cluster) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

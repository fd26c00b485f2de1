package socketio

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/limpet-go/limpet/bus/hub"
)

// newDoubleBridge returns a Bridge of h to a cluster without Redis.
func newDoubleBridge(t *testing.T, h *hub.Hub, d *double, namespace string) *Bridge {
	t.Helper()
	c, err := newCluster(d, nil, &ClusterOptions{Namespace: namespace})
	if err != nil {
		t.Fatal(err)
	}
	return &Bridge{Cluster: c, hub: h}
}

func newTestHub(t *testing.T) *hub.Hub {
	t.Helper()
	h, err := hub.New(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A farewell is the connection of a member that does something when it is closed.
type farewell func(code int)

func (farewell) Send(context.Context, []*hub.Frame) error { return nil }

func (f farewell) Close(_ context.Context, code int, _ string) error {
	f(code)
	return nil
}

// heard are the sockets of a member of the cluster that keeps the names of events.
type heard struct{ names []string }

func (*heard) Find(Selection) []Socket { return nil }

func (h *heard) Do(_ Selection, a Action) int {
	if e, ok := a.(Event); ok {
		h.names = append(h.names, e.Name)
	}
	return 0
}

// At the end members leave while the cluster still hears of it, and Run returns after all
// Bridges have left the cluster.
func TestBridgeRunEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := &double{}
		others := map[string]*heard{"/": {}, "/chat": {}}
		for namespace, sockets := range others {
			start(t, d, nil, ClusterOptions{Namespace: namespace, Sockets: sockets})
		}
		synctest.Wait()
		before := len(d.subs)

		h := newTestHub(t)
		b, chat := newDoubleBridge(t, h, d, "/"), newDoubleBridge(t, h, d, "/chat")
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx, chat) }()
		synctest.Wait()
		if got := len(d.subs); got != before+2 {
			t.Errorf("%d Bridges are in the cluster, want 2", got-before)
		}
		closed := 0
		member, err := h.Connect(t.Context(), farewell(func(code int) {
			closed = code
			for _, bridge := range []*Bridge{b, chat} {
				if err := bridge.Emit(context.Background(), "left"); err != nil {
					t.Error(err)
				}
			}
		}), hub.MemberOptions{Rooms: []string{"room"}})
		if err != nil {
			t.Fatal(err)
		}
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		synctest.Wait()
		if closed != 1012 {
			t.Errorf("member %s was closed with %d, want 1012", member.ID(), closed)
		}
		for namespace, sockets := range others {
			if want := []string{"left"}; !slices.Equal(sockets.names, want) {
				t.Errorf("%s heard %q, want %q", namespace, sockets.names, want)
			}
		}
		if got := len(d.subs); got != before {
			t.Errorf("%d Bridges are left in the cluster", got-before)
		}
	})
}

// When one part fails, the others end, and Run says why.
func TestBridgeRunFails(t *testing.T) {
	t.Parallel()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name string
		ran  func(h *hub.Hub, b, other *Bridge) // makes it one that has run before
		want string
	}{
		{"the hub", func(h *hub.Hub, _, _ *Bridge) { _ = h.Run(over) }, "hub: Run was called before"},
		{"the Bridge", func(_ *hub.Hub, b, _ *Bridge) { b.ran.Store(true) }, "socketio: the Cluster has run before"},
		{"another Bridge", func(_ *hub.Hub, _, other *Bridge) { other.ran.Store(true) }, "socketio: the Cluster has run before"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := &double{}
				h := newTestHub(t)
				b, other := newDoubleBridge(t, h, d, "/"), newDoubleBridge(t, h, d, "/chat")
				tt.ran(h, b, other)
				if err := b.Run(t.Context(), other); fmt.Sprint(err) != tt.want {
					t.Errorf("Run: %v, want %s", err, tt.want)
				}
				if _, err := h.Connect(t.Context(), farewell(func(int) {}), hub.MemberOptions{}); !errors.Is(err, hub.ErrClosed) {
					t.Errorf("the hub goes on: %v", err)
				}
			})
		})
	}
}

// A Bridge of another hub would run without its hub.
func TestBridgeRunOfAnotherHub(t *testing.T) {
	t.Parallel()
	d := &double{}
	b, other := newDoubleBridge(t, newTestHub(t), d, "/"), newDoubleBridge(t, newTestHub(t), d, "/chat")
	for _, with := range []*Bridge{other, nil} {
		if err := b.Run(t.Context(), with); err == nil || !strings.Contains(err.Error(), "of its own hub") {
			t.Errorf("Run: %v", err)
		}
	}
}

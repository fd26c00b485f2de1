package redistest_test

import (
	"testing"

	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/internal/redistest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestCluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	client := c.Client(t)
	set := func(value string) {
		t.Helper()
		if err := client.Set(t.Context(), "k", value, 0).Err(); err != nil {
			t.Error(err)
		}
	}
	get := func(want string) {
		t.Helper()
		if got, err := client.Get(t.Context(), "k").Result(); got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	set("1")
	home := c.Primary(t, "k")
	next := c.Nodes[0]
	if next == home {
		next = c.Nodes[1]
	}
	c.Move(t, "k", next)
	if now := c.Primary(t, "k"); now != next {
		t.Errorf("the slot is at %s, want it at %s", now.Addr, next.Addr)
	}
	get("1")
	set("2")

	heir := c.AddReplica(t, next)
	next.Kill()
	c.Await(t)
	if now := c.Primary(t, "k"); now != heir {
		t.Errorf("the slot is at %s, want it at %s", now.Addr, heir.Addr)
	}
	client = c.Client(t) // the old one looks for the key where it was
	get("2")
	set("3")
	next.Restart(t)
	c.Await(t)
	get("3")
}

func TestSentinel(t *testing.T) {
	t.Parallel()
	s := redistest.StartSentinel(t)
	client := s.Client(t)
	if err := client.Set(t.Context(), "k", "1", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Wait(t.Context(), 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Failover(t)
	if got, err := client.Get(t.Context(), "k").Result(); got != "1" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

package main

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// A user meets itself from two gateways, and users spread.
func TestUserID(t *testing.T) {
	a, b := exampletest.StartBackend(t, "a", nil), exampletest.StartBackend(t, "b", nil)
	start := func() *exampletest.Gateway {
		return exampletest.Serve(t, func(ctx context.Context, ln net.Listener) error {
			return serve(ctx, ln, balancer.Static(a.Spec(), b.Spec()))
		})
	}
	one, two := start(), start()
	users := make(map[string]int)
	for i := range 20 {
		path := fmt.Sprint("/socket.io/?EIO=4&userId=", i)
		home := exampletest.NewClient(t, one).Get(t, path).Backend
		exampletest.NewClient(t, two).Stays(t, home, path)
		users[home]++
	}
	if len(users) != 2 {
		t.Errorf("20 users went to %v", users)
	}

	// Without the parameter it's the next one's turn.
	c := exampletest.NewClient(t, one)
	if first, second := c.Get(t, "/").Backend, c.Get(t, "/").Backend; first == second {
		t.Errorf("two requests of no user went to %s", first)
	}
	one.Drain(t)
}

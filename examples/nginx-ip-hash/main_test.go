package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// homes returns where clients are served whose addresses a load balancer on
// this machine names, one in each of 20 networks, and how many networks each
// backend has. All clients of a network are served by one backend.
func homes(t *testing.T, trusted ...netip.Prefix) map[string]int {
	t.Helper()
	a, b := exampletest.StartBackend(t, "a", nil), exampletest.StartBackend(t, "b", nil)
	g := exampletest.Serve(t, func(ctx context.Context, ln net.Listener) error {
		return serve(ctx, ln, balancer.Static(a.Spec(), b.Spec()), trusted...)
	})
	at := make(map[string]int)
	for network := range 20 {
		var home string
		for host := range 3 {
			addr := fmt.Sprintf("198.51.%d.%d", network, host+1)
			// What a client forged stands left of the address that the load balancer saw.
			got := exampletest.NewClient(t, g).Get(t, "/", "X-Forwarded-For", fmt.Sprintf("203.0.%d.1, %s", host, addr)).Backend
			if home == "" {
				home = got
			}
			if got != home {
				t.Errorf("%s is at %s, its network at %s", addr, got, home)
			}
		}
		at[home]++
	}
	c := exampletest.NewClient(t, g)
	c.Stays(t, c.Get(t, "/").Backend, "/")
	return at
}

func TestAddress(t *testing.T) {
	t.Parallel()
	if at := homes(t, netip.MustParsePrefix("127.0.0.0/8")); len(at) != 2 {
		t.Errorf("20 networks are at %v", at)
	}
}

// Nobody is believed who isn't trusted: to the gateway, all are one client.
func TestForged(t *testing.T) {
	t.Parallel()
	if at := homes(t, netip.MustParsePrefix("10.0.0.0/8")); len(at) != 1 {
		t.Errorf("one client by many names is at %v", at)
	}
}

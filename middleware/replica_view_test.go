package middleware_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/bus"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Each replica knows what the others see, forgets one that is gone, and takes nothing from
// a message that is none of theirs.
func TestReplicasSeeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := &bus.Memory{}
		var gateways []*limpet.Gateway
		var stops []func()
		for i := range 3 {
			gw := newGateway(t, balancer.Static("a=http://127.0.0.1:1", "b=http://127.0.0.1:2"), &limpet.Options{Bus: mem, Name: fmt.Sprint("gw", i)})
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error)
			go func() { ended <- gw.Run(ctx) }()
			stops = append(stops, func() { stop(); <-ended })
			gateways = append(gateways, gw)
		}
		seen := func(i int) string {
			synctest.Wait()
			s := ""
			for _, r := range gateways[i].Stats().Replicas {
				s += r.Name + ":"
				for _, b := range r.Backends {
					s += " " + b.ID + " " + b.State
				}
				s += "; "
			}
			return s
		}
		time.Sleep(2 * time.Second)
		if got, want := seen(0), "gw1: a up b up; gw2: a up b up; "; got != want {
			t.Errorf("gw0 sees %q, want %q", got, want)
		}
		for _, note := range []string{"", "{}", "nonsense", `{"v":2,"from":"x","name":"x"}`, `{"v":1,"name":"x"}`} {
			ok(t, mem.Publish(t.Context(), "limpet:gateway:view", []byte(note)))
		}
		stops[2]()
		ok(t, gateways[1].Pool().Off("b"))
		time.Sleep(16 * time.Second)
		if got, want := seen(0), "gw1: a up b down; "; got != want {
			t.Errorf("gw0 sees %q, want %q", got, want)
		}
		if got := seen(2); got != "" {
			t.Errorf("a replica that has ended sees %q", got)
		}
		stops[0]()
		stops[1]()
	})
}

// What is decided on one replica is seen soon in the views of the others, long before these are
// due: a deploy waits for that.
func TestReplicasShowChangesSoon(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem := &bus.Memory{}
		var gateways []*limpet.Gateway
		ctx, stop := context.WithCancel(t.Context())
		var ends sync.WaitGroup
		for range 2 {
			gw := newGateway(t, balancer.Static("a=http://127.0.0.1:1"), &limpet.Options{Bus: mem})
			ends.Go(func() { ok(t, gw.Run(ctx)) })
			gateways = append(gateways, gw)
		}
		defer ends.Wait()
		defer stop()
		time.Sleep(2 * time.Second)
		for i := range 6 {
			decide, want := gateways[0].Pool().Off, "down"
			if i%2 == 1 {
				decide, want = gateways[0].Pool().Undrain, "up"
			}
			decided := time.Now()
			ok(t, decide("a"))
			time.Sleep(time.Second)
			for _, r := range gateways[0].Stats().Replicas {
				if r.Backends[0].State != want || !r.Heard.After(decided) {
					t.Errorf("a second later the other replica's backend is %s, want %s", r.Backends[0].State, want)
				}
			}
		}
	})
}

//go:build unix

package balancer_test

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// BenchmarkChecks tells what it costs this process to check 1,000 backends each second, on new
// connections and on kept ones. The backends are one process of its own.
//
//	go test -run '^$' -bench Checks -benchtime 1x ./balancer
func BenchmarkChecks(b *testing.B) {
	url := backendProcess(b)
	const backends = 1000
	for _, bb := range []struct {
		name  string
		check balancer.Check
	}{
		{"connect", balancer.Check{}},
		{"path", balancer.Check{Path: "/"}},
		{"KeepAlive", balancer.Check{Path: "/", KeepAlive: true}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			bb.check.Timeout = 10 * time.Second
			var dialer balancer.Dialer
			var dials atomic.Int64
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				dials.Add(1)
				return dialer.DialContext(ctx, network, addr)
			}
			p, err := balancer.NewPool(&balancer.Options{Check: &bb.check, Transport: &balancer.Transport{Dial: dial}})
			must(b, err)
			for i := range backends {
				backend, err := balancer.NewBackend(fmt.Sprint(i), url, 1)
				must(b, err)
				must(b, p.Add(backend))
			}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			done := make(chan error)
			go func() { done <- p.Run(ctx) }()
			time.Sleep(2 * time.Second) // until each has been checked, and they are spread
			const span = 10 * time.Second
			for b.Loop() {
				before, first := cpu(b), dials.Load()
				time.Sleep(span)
				used := cpu(b) - before
				b.ReportMetric(100*float64(used)/float64(span), "%core")
				b.ReportMetric(float64(dials.Load()-first)/span.Seconds(), "dials/s")
				b.ReportMetric(float64(used)/1000/(backends*span.Seconds()/0.95), "us/check")
			}
			cancel()
			must(b, <-done)
			for backend := range p.All() {
				if backend.State() != balancer.Up {
					b.Fatalf("%s is %v: %s", backend.ID(), backend.State(), backend.Status().Why)
				}
			}
		})
	}
}

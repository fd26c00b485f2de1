//go:build unix

package balancer_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A process that is stopped while it answers requests is checked long before the interval ends,
// and lost then.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	url, process := startBackend(t)
	t.Cleanup(func() { process.Signal(syscall.SIGCONT) }) // or it wouldn't end
	var dialer balancer.Dialer
	checks := make(chan time.Time, 1000)
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == strings.TrimPrefix(url, "http://") && balancer.BackendFromContext(ctx) == nil { // no request
			checks <- time.Now()
		}
		return dialer.DialContext(ctx, network, addr)
	}
	const interval = 2 * time.Second
	b, err := balancer.NewBackend("a", url, 1)
	must(t, err)
	other, err := balancer.NewBackend("b", raw(t, says(ok)), 1) // by the half rule one of two may be lost
	must(t, err)
	p, err := balancer.NewPool(&balancer.Options{
		Check:     &balancer.Check{Path: "/", Interval: interval, Timeout: 300 * time.Millisecond},
		Transport: &balancer.Transport{Dial: dial},
	}, b, other)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	all.Go(func() { _ = p.Run(ctx) })
	for range 20 {
		all.Go(func() {
			for ctx.Err() == nil {
				b.Begin()
				req, _ := http.NewRequestWithContext(balancer.WithBackend(ctx, b), "POST", "http://a.test/", strings.NewReader("hello"))
				res, err := p.Transport().RoundTrip(req)
				if err == nil {
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				b.End()
				select {
				case <-ctx.Done():
				case <-b.Lost():
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	checked := func(n int) time.Time {
		for range n - 1 {
			<-checks
		}
		began := <-checks
		for b.Status().Checked.Before(began) {
			time.Sleep(time.Millisecond)
		}
		return began
	}
	last := checked(3) // the first interval is shorter
	must(t, process.Signal(syscall.SIGSTOP))
	<-b.Lost()
	// Without the requests it would have been checked nine tenths of an interval later, or more.
	if after := (<-checks).Sub(last); after > interval*8/10 {
		t.Errorf("checked again after %v", after)
	}
	cancel()
	all.Wait()
}

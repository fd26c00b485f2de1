package balancer_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// tunnels are the signs of life of a backend's tunnels, as a gateway would give them.
type tunnels struct {
	waiting atomic.Int64
	heard   atomic.Int64 // in Unix nanoseconds
	asked   atomic.Int64
}

func (c *tunnels) signs(*balancer.Backend) balancer.Signs {
	c.asked.Add(1)
	s := balancer.Signs{Waiting: int(c.waiting.Load())}
	if at := c.heard.Load(); at > 0 {
		s.Heard = time.Unix(0, at)
	}
	return s
}

func (c *tunnels) hear() { c.heard.Store(time.Now().UnixNano()) }

// A backend that takes no new connections and goes on serving its tunnels keeps them.
func TestClosedListener(t *testing.T) {
	for _, does := range []string{"refused", "closes", "unresolved"} {
		t.Run(does, func(t *testing.T) {
			run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
				a, open := p.Get("a"), &tunnels{}
				defer p.OnUnanswered(open.signs)()
				open.waiting.Store(5)
				f.set(does, "a")
				p.Report(a, fmt.Errorf("request: %w", syscall.ECONNREFUSED))
				sleep(time.Second)
				l.want(t, "a up-draining")
				if a.Health() != balancer.Sick || closed(a.Lost()) {
					t.Errorf("health %v, lost %v", a.Health(), closed(a.Lost()))
				}
				for range 10 { // quiet, but not for 30 s
					sleep(25 * time.Second)
					open.hear()
				}
				l.want(t)
				// The last of its tunnels ends.
				open.waiting.Store(0)
				sleep(2 * time.Second)
				l.want(t, "a draining-down lost")
				if n := open.asked.Load(); n == 0 {
					t.Error("nobody asked")
				}
			})
		})
	}
}

// The connections of a process that is gone end at once, or a moment later.
func TestKilledBackendIsDownInTime(t *testing.T) {
	for _, late := range []time.Duration{0, 30 * time.Millisecond} {
		t.Run(late.String(), func(t *testing.T) {
			run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
				a, open := p.Get("a"), &tunnels{}
				defer p.OnUnanswered(open.signs)()
				open.waiting.Store(300)
				open.hear()
				f.set("refused", "a")
				time.AfterFunc(late, func() { open.waiting.Store(0) })
				lost, start := a.Lost(), time.Now()
				p.Report(a, syscall.ECONNREFUSED)
				<-lost
				if d := time.Since(start); d > 200*time.Millisecond {
					t.Errorf("down after %v", d)
				}
				synctest.Wait()
				l.want(t, "a up-down lost")
			})
		})
	}
}

// A machine that has lost its power and comes back knows nothing of its connections, and
// nothing comes on them.
func TestSilentTunnelsDontCount(t *testing.T) {
	for _, tt := range []struct {
		name  string
		does  string
		lives bool // for half a minute
	}{{"no answer", "hung", false}, {"refused", "refused", true}, {"nobody is there", "unreachable", false}} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
				open := &tunnels{}
				defer p.OnUnanswered(open.signs)()
				open.waiting.Store(5)
				open.hear()
				f.set(tt.does, "a")
				sleep(3 * time.Second)
				if tt.lives {
					l.want(t, "a up-draining")
					sleep(30 * time.Second)
					l.want(t, "a draining-down lost")
				} else {
					l.want(t, "a up-down lost")
				}
				// Without a byte they prove nothing later either.
				f.set("refused", "a")
				sleep(10 * time.Second)
				l.want(t)
			})
		})
	}
}

// Tunnels that move show that a backend lives which lets its checks wait.
func TestTunnelsOfABusyBackend(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		open := &tunnels{}
		stop := p.OnUnanswered(open.signs)
		open.waiting.Store(5)
		f.set("hung", "a")
		for range 100 {
			open.hear()
			sleep(100 * time.Millisecond)
		}
		l.want(t, "a up-draining")
		stop()
		open.asked.Store(0)
		for range 20 {
			open.hear()
			sleep(100 * time.Millisecond)
		}
		l.want(t, "a draining-down lost")
		if n := open.asked.Load(); n > 0 {
			t.Errorf("asked %d times after stop", n)
		}
	})
}

// Requests that are given up, one after the other, are no sign of life.
func TestClientsThatLeaveDontCount(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a := p.Get("a")
		f.set("hung", "a")
		var all sync.WaitGroup
		for n := range 5 {
			ctx, cancel := context.WithCancel(balancer.WithBackend(t.Context(), a))
			time.AfterFunc(time.Duration(n)*10*time.Second, cancel)
			req, _ := http.NewRequestWithContext(ctx, "GET", "http://a.test/poll", nil)
			all.Go(func() {
				if res, err := p.Transport().RoundTrip(req); err == nil {
					res.Body.Close()
				}
			})
		}
		synctest.Wait()
		f.set("refused", "a")
		sleep(5 * time.Second)
		l.want(t, "a up-draining")
		sleep(30 * time.Second)
		l.want(t, "a draining-down lost")
		all.Wait()
	})
}

// A request that waits for its answer shows the same as a tunnel, by the pool's Transport.
func TestClosedListenerWithARequest(t *testing.T) {
	run(t, balancer.Options{}, []string{"a", "b"}, func(t *testing.T, p *balancer.Pool, f *fleet, l *log) {
		a := p.Get("a")
		f.set("hung", "a")
		ctx, cancel := context.WithCancel(balancer.WithBackend(t.Context(), a))
		req, _ := http.NewRequestWithContext(ctx, "GET", "http://a.test/poll", nil)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			res, err := p.Transport().RoundTrip(req)
			if err == nil {
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		}()
		synctest.Wait()
		f.set("refused", "a")
		sleep(20 * time.Second)
		l.want(t, "a up-draining")
		cancel()
		<-ended
		sleep(2 * time.Second)
		l.want(t, "a draining-down lost")
	})
}

package balancer_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

func TestPatience(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, tt := range []struct {
		name       string
		took       []time.Duration
		one, other time.Duration // for the first backend, and after another
		slow       []string
	}{
		{"nothing is known", nil, 1000 * ms, 1000 * ms, nil},
		{"fast", []time.Duration{5 * ms, 5 * ms, 5 * ms}, 200 * ms, 1000 * ms, nil},
		{"a first one", []time.Duration{200 * ms}, 600 * ms, 1000 * ms, nil},
		{"slow", []time.Duration{2000 * ms, 2000 * ms}, 0, 0, nil},
		{"the others are slow", []time.Duration{5 * ms}, 0, 0, []string{"b", "c"}},
		{"all are slow", []time.Duration{5 * ms}, 200 * ms, 1000 * ms, []string{"a", "b", "c"}},
		{"it is slow, as another is", []time.Duration{5 * ms}, 200 * ms, 1000 * ms, []string{"a", "b"}},
		{"one other is left", []time.Duration{5 * ms}, 200 * ms, 0, []string{"b"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPool(t, nil, "a", "b", "c")
				a := p.Get("a")
				for _, d := range tt.took {
					a.Took(d)
				}
				time.Sleep(2 * time.Second)
				for _, id := range tt.slow {
					stall(p, p.Get(id))
				}
				if got := p.Patience(a, false); got.Begin != tt.one || (got.Connect == 0) != (tt.one == 0 && tt.slow != nil) {
					t.Errorf("at first %+v, want %v", got, tt.one)
				}
				if got := p.Patience(a, false, p.Get("c")); got.Begin != tt.other {
					t.Errorf("after another %+v, want %v", got, tt.other)
				}
				if got := p.Patience(a, false, p.Get("c"), p.Get("b")); got.Begin != 0 || got.Connect != 0 {
					t.Errorf("after all others: %+v", got)
				}
			})
		})
	}
}

// A client doesn't leave a backend for others that have no room: it would wait in a queue.
func TestPatienceWithALimit(t *testing.T) {
	t.Parallel()
	p := newPool(t, &balancer.Options{Limit: &balancer.Limit{Requests: 1, Tunnels: 1}}, "a", "b", "c")
	a, b, c := p.Get("a"), p.Get("b"), p.Get("c")
	b.Begin()
	c.Begin()
	if got := p.Patience(a, false); got.Begin != 0 || got.Connect != 0 {
		t.Errorf("the others are full: %+v", got)
	}
	if got := p.Patience(a, true); got.Begin == 0 {
		t.Error("the others have room for a tunnel, and it doesn't leave")
	}
	b.End()
	if got := p.Patience(a, false); got.Begin == 0 {
		t.Error("b has room again, and the request doesn't leave")
	}
	if got := p.Patience(a, false, b); got.Begin != 0 {
		t.Errorf("b was tried, and c is full: %+v", got)
	}
}

// What a backend takes is followed within some answers, and one that is late once doesn't
// change much.
func TestUsual(t *testing.T) { // not parallel: it counts allocations
	p := newPool(t, nil, "a")
	b := p.Get("a")
	if got := b.Usual(); got != 0 {
		t.Errorf("nothing is known: %v", got)
	}
	const ms = time.Millisecond
	for range 100 {
		b.Took(10 * ms)
	}
	if got := b.Usual(); got < 9*ms || got > 12*ms {
		t.Errorf("always 10 ms: %v", got)
	}
	b.Took(20 * ms)
	if got := b.Usual(); got > 25*ms {
		t.Errorf("once 20 ms: %v", got)
	}
	for range 100 {
		b.Took(30 * ms)
	}
	if got := b.Usual(); got < 29*ms || got > 35*ms {
		t.Errorf("always 30 ms: %v", got)
	}
	b.Took(0)
	b.Took(1000 * time.Hour)
	if got := b.Usual(); got <= 0 {
		t.Errorf("it overflows: %v", got)
	}
	if n := testing.AllocsPerRun(100, func() { b.Took(ms); p.Patience(b, false); b.Usual() }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// Each way in which a backend can let a request wait ends within its limit, and a request
// that may not leave goes on.
func TestRoundTripWithin(t *testing.T) {
	t.Parallel()
	const limit = 300 * time.Millisecond
	yes, no := func() bool { return true }, func() bool { return false }
	asked := 0
	third := func() bool { asked++; return asked == 3 }
	for _, tt := range []struct {
		name    string
		answers time.Duration // how long the backend takes
		dials   time.Duration
		kept    bool // the connection is a kept one
		p       balancer.Patience
		ends    time.Duration
		ok      bool
		sent    bool
	}{
		{"in time", 200 * time.Millisecond, 0, false, balancer.Patience{Begin: limit}, 200 * time.Millisecond, true, false},
		{"no limit", 10 * time.Second, 0, false, balancer.Patience{}, 10 * time.Second, true, false},
		{"late", 10 * time.Second, 0, false, balancer.Patience{Begin: limit}, limit, false, true},
		{"late on a kept connection", 10 * time.Second, 0, true, balancer.Patience{Begin: limit}, limit, false, true},
		{"late, and may leave", 10 * time.Second, 0, false, balancer.Patience{Begin: limit, Leave: yes}, limit, false, true},
		{"late, and may leave when it asks again", 10 * time.Second, 0, false, balancer.Patience{Begin: limit, Leave: third}, 3 * limit, false, true},
		{"late, and may not leave", 10 * time.Second, 0, false, balancer.Patience{Begin: limit, Leave: no}, 10 * time.Second, true, false},
		{"a slow dial", 0, time.Second, false, balancer.Patience{Connect: limit}, limit, false, false},
		{"a slow dial without a limit", 0, time.Second, false, balancer.Patience{Begin: limit}, time.Second, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var asked, dialled atomic.Int32
				transport := &balancer.Transport{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
					dialled.Add(1)
					select {
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(tt.dials):
					}
					near, far := net.Pipe()
					go func() {
						defer far.Close()
						in := bufio.NewReader(far)
						for {
							req, err := http.ReadRequest(in)
							if err != nil {
								return
							}
							if asked.Add(1); req.URL.Path != "/first" {
								time.Sleep(tt.answers)
							}
							io.WriteString(far, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
						}
					}()
					return near, nil
				}}
				defer transport.CloseIdleConnections()
				p := newPool(t, &balancer.Options{Transport: transport}, "a")
				get := func(path string, patience balancer.Patience) error {
					req, err := http.NewRequestWithContext(t.Context(), "GET", "http://a.test"+path, nil)
					must(t, err)
					res, err := transport.RoundTripWithin(p.Get("a"), req, nil, patience)
					if err != nil {
						return err
					}
					// The limit ends with the first byte.
					time.Sleep(2 * limit)
					if body, err := io.ReadAll(res.Body); err != nil || string(body) != "ok" {
						t.Errorf("body %q, %v", body, err)
					}
					return res.Body.Close()
				}
				if tt.kept {
					must(t, get("/first", balancer.Patience{}))
				}
				before, began := asked.Load(), time.Now()
				err := get("/", tt.p)
				took := time.Since(began).Truncate(time.Millisecond) // to look at a pipe takes a moment
				if tt.ok {
					took -= 2 * limit
				}
				if (err == nil) != tt.ok || took != tt.ends {
					t.Errorf("it ended after %v with %v, want %v", took, err, tt.ends)
				}
				if !tt.ok {
					var e *balancer.Error
					if !errors.As(err, &e) || e.Sent != tt.sent || !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the error is %#v", err)
					}
					if dialled.Load() != 1 || asked.Load() > before+1 {
						t.Errorf("%d dials, asked %d times: it was repeated", dialled.Load(), asked.Load()-before)
					}
				}
				time.Sleep(time.Minute) // the backend's goroutines end
			})
		})
	}
}

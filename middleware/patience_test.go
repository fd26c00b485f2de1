package middleware_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/upgrade"
)

// A ward has backends a, b, c… of which some are ill, within the process and so within
// the time of a test bubble.
type ward struct {
	pool  *balancer.Pool
	gw    *limpet.Gateway
	front *pipes // where the gateway is served

	mu    sync.Mutex
	ails  map[string]string // by ID: silent (accepts and never answers), hole (no connection can be made), or how long an answer takes
	asked map[string]int
}

func newWard(t *testing.T, size int, opts *limpet.Options) *ward {
	return newWardWith(t, size, opts, nil)
}

func newWardWith(t *testing.T, size int, opts *limpet.Options, outliers *balancer.Outliers) *ward {
	t.Helper()
	d := &ward{ails: make(map[string]string), asked: make(map[string]int), front: newPipes()}
	nodes := make(map[string]*pipes)
	transport := &balancer.Transport{Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
		id, _, _ := strings.Cut(addr, ".")
		switch d.ail(id) {
		case "hole":
			<-ctx.Done()
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		case "silent":
			near, far := net.Pipe()
			go func() {
				defer far.Close()
				io.Copy(io.Discard, far)
			}()
			return near, nil
		}
		return nodes[id].dial(), nil
	}}
	pool, err := balancer.NewPool(&balancer.Options{Transport: transport, Outliers: outliers, Logger: slog.New(slog.DiscardHandler)})
	ok(t, err)
	d.pool = pool
	for i := range size {
		id := string(rune('a' + i))
		nodes[id] = newPipes()
		d.serve(t, nodes[id], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != "HEAD" {
				d.mu.Lock()
				d.asked[id]++
				d.mu.Unlock()
				takes, _ := time.ParseDuration(d.ail(id))
				time.Sleep(takes)
			}
			if r.Header.Get("Upgrade") != "" {
				echo.ServeHTTP(w, r)
				return
			}
			io.WriteString(w, id)
		}))
		b, err := balancer.NewBackend(id, "http://"+id+".test", 1)
		ok(t, err)
		ok(t, pool.Add(b))
	}
	d.gw = newGateway(t, pool, opts)
	d.serve(t, d.front, d.gw)
	return d
}

func (d *ward) serve(t *testing.T, l net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
}

func (d *ward) ail(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ails[id]
}

// set has backends ail. Kept connections to them are closed, which would be well.
func (d *ward) set(ail string, ids ...string) {
	d.mu.Lock()
	for _, id := range ids {
		d.ails[id] = ail
	}
	d.mu.Unlock()
	d.pool.Transport().CloseIdleConnections()
}

func (d *ward) requests() (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, asked := range d.asked {
		n += asked
	}
	return n
}

// client returns a client of the gateway that has no cookies.
func (d *ward) client(t *testing.T) *http.Client {
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return d.front.dial(), nil }}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// get returns who has answered, after how long, and how the request ended otherwise.
func (d *ward) get(ctx context.Context, method, target string, cookies ...*http.Cookie) (by string, took time.Duration) {
	began := time.Now()
	r := httptest.NewRequestWithContext(ctx, method, target, nil)
	for _, c := range cookies {
		r.AddCookie(c)
	}
	w := httptest.NewRecorder()
	d.gw.ServeHTTP(w, r)
	if by = w.Body.String(); w.Code != 200 {
		by = fmt.Sprint(w.Code)
	}
	return by, time.Since(began).Truncate(time.Millisecond) // to look at a pipe takes a moment
}

// dial opens a WebSocket and closes it.
func (d *ward) dial(t *testing.T, c *http.Client) (took time.Duration, err error) {
	began := time.Now()
	conn, _, err := websocket.Dial(t.Context(), "ws://gateway/", &websocket.DialOptions{HTTPClient: c})
	took = time.Since(began)
	if err == nil {
		talk(t, conn)
		conn.CloseNow()
	}
	return took, err
}

// Nobody who is new waits for long while two of five backends are ill, whatever they
// have, and nobody gets an error.
func TestNewClientsWhileBackendsAreIll(t *testing.T) {
	t.Parallel()
	const bound = 2500 * time.Millisecond
	for _, known := range []bool{false, true} {
		for _, ails := range [][2]string{{"silent", "hole"}, {"silent", "silent"}, {"hole", "hole"}} {
			t.Run(fmt.Sprintf("%s and %s, known %v", ails[0], ails[1], known), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					d := newWard(t, 5, nil)
					if known {
						for range 50 {
							d.get(t.Context(), "GET", "/")
						}
					}
					d.set(ails[0], "b")
					d.set(ails[1], "d")
					var all sync.WaitGroup
					for i := range 60 {
						all.Go(func() {
							time.Sleep(time.Duration(i) * 20 * time.Millisecond)
							switch i % 3 {
							case 0:
								if by, took := d.get(t.Context(), "GET", "/"); len(by) != 1 || took > bound {
									t.Errorf("a GET: %s after %v", by, took)
								}
							case 1:
								if by, took := d.get(t.Context(), "GET", "/socket.io/?EIO=4&transport=polling"); len(by) != 1 || took > bound {
									t.Errorf("a session: %s after %v", by, took)
								}
							case 2:
								if took, err := d.dial(t, d.client(t)); err != nil || took > bound {
									t.Errorf("a handshake: %v after %v", err, took)
								}
							}
						})
					}
					all.Wait()
					if b, d := d.pool.Get("b").Slow(), d.pool.Get("d").Slow(); !b || !d {
						t.Errorf("picked last: b %v, d %v", b, d)
					}
					for range 20 { // those who come later don't wait at all
						if by, took := d.get(t.Context(), "GET", "/"); strings.Contains("bd", by) || took > 0 {
							t.Errorf("later: %s after %v", by, took)
						}
					}
				})
			})
		}
	}
}

// What takes long everywhere is answered, and nobody is blamed for it.
func TestSlowEverywhere(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		attempts int // Retry.Attempts
		most     int // requests at backends
		usual    time.Duration
	}{
		{"by default", 0, 3, 0},
		{"twice at most", 2, 2, 0},
		{"once only", 1, 1, 0},
		{"it is usual", 0, 1, 5 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newWard(t, 3, &limpet.Options{Retry: limpet.Retry{Attempts: tt.attempts}})
				if tt.usual > 0 {
					for b := range d.pool.All() {
						b.Took(tt.usual)
					}
				}
				d.set("5s", "a", "b", "c")
				by, took := d.get(t.Context(), "GET", "/")
				if n := d.requests(); len(by) != 1 || n != tt.most || took > 5*time.Second+time.Duration(n-1)*time.Second+time.Millisecond {
					t.Errorf("%s after %v and %d requests", by, took, n)
				}
				for b := range d.pool.All() {
					if b.Slow() {
						t.Errorf("%s is picked last", b.ID())
					}
				}
				if tt.most > 1 { // a handshake likewise
					before := d.requests()
					if _, err := d.dial(t, d.client(t)); err != nil || d.requests()-before > tt.most {
						t.Errorf("handshake: %v, %d requests", err, d.requests()-before)
					}
				}
			})
		})
	}
}

// A connection that was given up early makes a backend slow, and is no failure beside that.
func TestPatienceIsNoOutlier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newWardWith(t, 3, nil, &balancer.Outliers{Consecutive: 1})
		d.set("hole", "a")
		for range 6 {
			d.get(t.Context(), "GET", "/")
		}
		if a := d.pool.Get("a"); !a.Slow() || a.State() != balancer.Up {
			t.Errorf("slow %v, %v because %q", a.Slow(), a.State(), a.Status().Why)
		}
	})
}

// Only a request that any backend could serve as well is taken elsewhere.
func TestWhoWaits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, method, target string
		pinned               bool
		leaves               bool
	}{
		{"a new client", "GET", "/", false, true},
		{"HEAD", "HEAD", "/", false, true},
		{"a session is opened", "GET", "/socket.io/?EIO=4&transport=polling", false, true},
		{"a poll of a session", "GET", "/socket.io/?EIO=4&transport=polling&sid=abc", false, false},
		{"a poll that begins with its session", "GET", "/socket.io/?sid=abc&EIO=4&transport=polling", false, false},
		{"a client with a home", "GET", "/", true, false},
		{"POST", "POST", "/", false, false},
		{"DELETE", "DELETE", "/", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newWard(t, 2, nil)
				home := pinTo(t, d, "a")
				d.set("silent", "a")
				var cookies []*http.Cookie
				if tt.pinned {
					cookies = home
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				waited := false
				for range 4 { // round robin comes by a
					_, took := d.get(ctx, tt.method, tt.target, cookies...)
					waited = waited || took > 10*time.Second
				}
				if waited == tt.leaves {
					t.Errorf("it waited: %v", waited)
				}
			})
		})
	}
}

// pinTo returns the cookies of a client whose home is the backend.
func pinTo(t *testing.T, d *ward, id string) []*http.Cookie {
	t.Helper()
	for range 20 {
		w := httptest.NewRecorder()
		d.gw.ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
		if w.Body.String() == id {
			return w.Result().Cookies()
		}
	}
	t.Fatalf("nobody comes to %s", id)
	return nil
}

// When the budget is used up a request waits on, where it is, and is answered.
func TestPatienceWithoutBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newWard(t, 2, &limpet.Options{Retry: limpet.Retry{Budget: 0.001, Floor: 1}})
		d.set("4s", "a", "b")
		var all sync.WaitGroup
		const clients = 20
		for range clients {
			all.Go(func() {
				if by, took := d.get(t.Context(), "GET", "/"); len(by) != 1 || took > 8*time.Second {
					t.Errorf("%s after %v", by, took)
				}
			})
			all.Go(func() {
				if took, err := d.dial(t, d.client(t)); err != nil || took > 8*time.Second {
					t.Errorf("handshake: %v after %v", err, took)
				}
			})
		}
		all.Wait()
		if n := d.requests(); n > 2*clients+8 { // one a second
			t.Errorf("%d clients made %d requests", 2*clients, n)
		}
	})
}

// A handshake of a client with a home has a limit too: behind that another backend serves
// it, and if there is none it gets 504.
func TestHandshakeTimeout(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]string{1: "504", 2: "101"} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newWard(t, size, &limpet.Options{Upgrade: &upgrade.Proxy{HandshakeTimeout: 7 * time.Second}})
				home := pinTo(t, d, "a")
				d.set("silent", "a")
				began := time.Now()
				header := make(http.Header)
				header.Set("Cookie", home[0].Name+"="+home[0].Value)
				conn, res, err := websocket.Dial(t.Context(), "ws://gateway/", &websocket.DialOptions{HTTPClient: d.client(t), HTTPHeader: header})
				if err == nil {
					conn.CloseNow()
				}
				if took := time.Since(began); res == nil || fmt.Sprint(res.StatusCode) != want || took != 7*time.Second {
					t.Errorf("%v after %v, want %s", err, took, want)
				}
			})
		})
	}
}

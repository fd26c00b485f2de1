package main

import (
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/internal/process"
)

// named starts a node that answers with its name, and returns what -backend wants.
func named(t *testing.T, id string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, id) }))
	t.Cleanup(s.Close)
	return id + "=" + s.URL
}

// answers counts the answers that n new clients get, one after the other.
func answers(t *testing.T, url string, n int) map[string]int {
	t.Helper()
	got := make(map[string]int)
	for range n {
		res, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		got[string(body)]++
	}
	return got
}

func TestShares(t *testing.T) {
	t.Parallel()
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-shares", "stable=3, canary=1",
		"-backend", named(t, "a")+",group=stable", "-backend", named(t, "b")+",group=canary", "-backend", named(t, "c"))
	got := answers(t, "http://"+address(t, p), 40)
	if got["c"] > 0 || got["b"] < 9 || got["b"] > 11 || got["a"]+got["b"] != 40 {
		t.Errorf("%v of 40 clients, want 30 for a and 10 for b", got)
	}
}

func TestSlowStart(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "nodes")
	if err := os.WriteFile(file, []byte(named(t, "b")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-slow-start", "10h", "-backend", named(t, "a"), "-discover", "file:"+file)
	url := "http://" + address(t, p)
	p.AwaitLine(t, "backend=b .*why=added")
	if got := answers(t, url, 44); got["b"] < 3 || got["b"] > 5 {
		t.Errorf("%v of 44 clients, want 4 for b, which has just joined", got)
	}
}

func TestOutliers(t *testing.T) {
	t.Parallel()
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	t.Cleanup(broken.Close)
	p := gateway(t, nil, "-listen", "127.0.0.1:0", "-outliers", "-backend", "a="+broken.URL, "-backend", named(t, "b"))
	url := "http://" + address(t, p)
	got := answers(t, url, 20)
	p.AwaitLine(t, "backend=a .*ejected")
	if got["b"] != 20 {
		t.Errorf("%v of 20 clients, want all at b", got)
	}
}

// A backend has as many requests and WebSockets as it may. Some wait, the others are refused.
func TestBackendLimits(t *testing.T) {
	t.Parallel()
	for name, connect := range map[string]http.HandlerFunc{
		"requests": func(http.ResponseWriter, *http.Request) {},
		"tunnels": func(w http.ResponseWriter, r *http.Request) {
			if c, err := websocket.Accept(w, r, nil); err == nil {
				c.CloseNow()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			release := make(chan struct{})
			node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-release:
				case <-r.Context().Done():
				}
				connect(w, r)
			}))
			t.Cleanup(node.Close)
			url := "http://" + address(t, gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", "a="+node.URL, "-backend-"+name, "1"))
			type answer struct {
				status int
				retry  string
			}
			const clients = 5
			results := make(chan answer, clients)
			ctx, cancel := context.WithTimeout(t.Context(), process.Patience) // all would wait if nobody is refused
			defer cancel()
			for range clients {
				go func() {
					req, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
					if name == "tunnels" {
						req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="}}
					}
					res, err := http.DefaultClient.Do(req)
					if err != nil {
						results <- answer{}
						return
					}
					defer res.Body.Close()
					results <- answer{res.StatusCode, res.Header.Get("Retry-After")}
				}()
			}
			for range clients - 2 {
				if got := <-results; got.status != 503 || got.retry == "" {
					t.Errorf("%+v, want 503 with Retry-After", got)
				}
			}
			close(release)
			for range 2 {
				if got := <-results; got.status != 200 && got.status != 101 {
					t.Errorf("%+v behind the queue, want success", got)
				}
			}
		})
	}
}

// One key that all clients share doesn't fill one backend.
func TestHashBound(t *testing.T) {
	t.Parallel()
	args := []string{"-listen", "127.0.0.1:0", "-affinity", "header:X-User", "-hash-bound", "1.25"}
	arrived := make(chan string)
	release := make(chan struct{})
	for _, id := range []string{"a", "b"} {
		s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			arrived <- id
			<-release
		}))
		t.Cleanup(s.Close)
		args = append(args, "-backend", id+"="+s.URL)
	}
	url := "http://" + address(t, gateway(t, nil, args...))
	got := make(map[string]int)
	for range 8 {
		go func() {
			req, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
			req.Header.Set("X-User", "ann")
			if res, err := http.DefaultClient.Do(req); err == nil {
				res.Body.Close()
			}
		}()
		got[<-arrived]++
	}
	close(release)
	if most := slices.Max(slices.Collect(maps.Values(got))); most != 5 {
		t.Errorf("%v of 8 requests with one key, want 5 at the fuller one", got)
	}
}

func TestHealthKeepAlive(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	checked := make(chan struct{})
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case checked <- struct{}{}:
		case <-r.Context().Done():
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	address(t, gateway(t, nil, "-listen", "127.0.0.1:0", "-backend", "a="+s.URL, "-health", "/health", "-health-interval", "20ms", "-health-keepalive"))
	for range 10 {
		<-checked
	}
	if n := connections.Load(); n > 3 { // one, if none is late
		t.Errorf("%d connections for 10 checks", n)
	}
}

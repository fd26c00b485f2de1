package balancer_test

import (
	"bytes"
	"context"
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

	"github.com/limpet-go/limpet/balancer"
)

// raw serves each connection with f, over TCP, until the test ends.
func raw(t *testing.T, f func(net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// says answers each connection's first request with these bytes.
func says(answer string) func(net.Conn) {
	return func(c net.Conn) {
		c.Read(make([]byte, 4096))
		io.WriteString(c, answer)
	}
}

// noHead is a backend whose router has a GET handler and nothing for HEAD.
func noHead(c net.Conn) {
	request := make([]byte, 4096)
	n, _ := c.Read(request)
	if bytes.HasPrefix(request[:n], []byte("HEAD")) {
		io.WriteString(c, "HTTP/1.1 405 Method Not Allowed\r\n\r\n")
		return
	}
	io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
}

func TestCheckOverTheNetwork(t *testing.T) {
	t.Parallel()
	health := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "health.example" || r.URL.RawQuery != "deep=1" || r.Method != "GET" {
			w.WriteHeader(http.StatusNotFound)
		}
	})
	plain, secure := httptest.NewServer(health), httptest.NewTLSServer(health)
	t.Cleanup(plain.Close)
	t.Cleanup(secure.Close)
	get := balancer.Check{Path: "/health?deep=1", Method: "GET", Host: "health.example"}
	page := balancer.Check{Path: "/"}

	for _, tt := range []struct {
		name  string
		url   string
		check balancer.Check
		want  balancer.Health
	}{
		{"TCP", raw(t, func(net.Conn) {}), balancer.Check{}, balancer.Well},
		{"TCP refused", "http://127.0.0.1:1", balancer.Check{}, balancer.Dead},
		{"200", raw(t, says("HTTP/1.1 200 OK\r\n\r\n")), page, balancer.Well},
		{"302", raw(t, says("HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n")), page, balancer.Well},
		{"404", raw(t, says("HTTP/1.1 404 Not Found\r\n\r\n")), page, balancer.Sick},
		{"404 is expected", raw(t, says("HTTP/1.1 404 Not Found\r\n\r\n")), balancer.Check{Path: "/", Expect: []int{401, 404}}, balancer.Well},
		{"200 isn't expected", raw(t, says("HTTP/1.1 200 OK\r\n\r\n")), balancer.Check{Path: "/", Expect: []int{204}}, balancer.Sick},
		{"103 before 200", raw(t, says("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")), page, balancer.Well},
		{"HEAD is unknown", raw(t, noHead), page, balancer.Well},
		{"HEAD is unknown but wanted", raw(t, noHead), balancer.Check{Path: "/", Method: "HEAD"}, balancer.Sick},
		{"no HTTP", raw(t, says("SSH-2.0-x\r\n")), page, balancer.Sick},
		{"endless header", raw(t, says("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1<<20))), page, balancer.Sick},
		{"closes without answer", raw(t, says("")), page, balancer.Dead},
		{"resets", raw(t, func(c net.Conn) { c.(*net.TCPConn).SetLinger(0) }), page, balancer.Dead},
		{"GET with a query and a host", plain.URL, get, balancer.Well},
		{"HTTPS, unknown issuer", secure.URL, get, balancer.Dead},
		{"HTTPS, unknown issuer, connect only", secure.URL, balancer.Check{}, balancer.Dead},
		{"TLS expected, plain found", strings.Replace(raw(t, says("HTTP/1.1 400 Bad Request\r\n\r\n")), "http:", "https:", 1), page, balancer.Dead},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b, err := balancer.NewBackend("a", tt.url, 1)
			must(t, err)
			tt.check.Interval = 20 * time.Millisecond
			tt.check.Timeout = 10 * time.Second // slow test machines must not make it dead
			// Down at first, so that a verdict of either kind is a change.
			p, err := balancer.NewPool(&balancer.Options{Check: &tt.check, StartDown: tt.want != balancer.Dead}, b)
			must(t, err)
			told := make(chan balancer.Change, 10)
			p.OnChange(func(c balancer.Change) { told <- c })
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- p.Run(ctx) }()
			c := <-told
			cancel()
			<-done
			if b.Health() != tt.want {
				t.Errorf("health %v, want %v (%s)", b.Health(), tt.want, c.Why)
			}
			if tt.want != balancer.Well && !strings.Contains(c.Why, ": ") {
				t.Errorf("why %q tells nothing", c.Why)
			}
		})
	}
}

// A wrong Path would else be noticed only when the last backend that is up is gone.
func TestHealthPageThatWasNeverGood(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		answers []string // of the checks in turn, the last one for ever
		warns   bool
	}{
		{"404", []string{"404 Not Found"}, true},
		{"401", []string{"401 Unauthorized"}, true},
		{"it starts", []string{"503 Service Unavailable"}, false},
		{"it was good", []string{"200 OK", "404 Not Found"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, down := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					var mu sync.Mutex
					checks := 0
					dial := func(context.Context, string, string) (net.Conn, error) {
						mu.Lock()
						defer mu.Unlock()
						near, far := net.Pipe()
						answer := tt.answers[min(checks/2, len(tt.answers)-1)] // two backends
						checks++
						go func() {
							defer far.Close()
							says("HTTP/1.1 " + answer + "\r\n\r\n")(far)
						}()
						return near, nil
					}
					var log bytes.Buffer
					p := newPool(t, &balancer.Options{
						Check: &balancer.Check{Path: "/healthz", Interval: time.Second}, StartDown: down,
						Transport: &balancer.Transport{Dial: dial},
						Logger:    slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})),
					}, "a", "b")
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					must(t, p.Run(ctx))
					if n := strings.Count(log.String(), "set Check.Path"); (n == 1) != tt.warns || n > 1 {
						t.Errorf("warned %d times, want %v: %s", n, tt.warns, &log)
					}
				})
			}
		})
	}
}

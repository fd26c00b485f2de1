package middleware_test

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// behindReverseProxy is the standard library's proxy with Sticky below it.
func behindReverseProxy(t *testing.T, pool *balancer.Pool, aff affinity.Affinity) *httptest.Server {
	t.Helper()
	tr := &balancer.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	proxy := &httputil.ReverseProxy{
		Rewrite:  func(r *httputil.ProxyRequest) { r.SetXForwarded() },
		ErrorLog: log.New(io.Discard, "", 0),
		Transport: &limpet.Sticky{
			Pool: pool, Affinity: aff, Transport: tr, Logger: slog.New(slog.DiscardHandler),
		},
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(srv.Close)
	return srv
}

func TestSticky(t *testing.T) {
	t.Parallel()
	for name, aff := range map[string]affinity.Affinity{
		"cookie":     &affinity.Cookie{Secrets: testKeys},
		"cookie map": &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "a", "2": "b", "3": "c"}},
		"hash":       &affinity.Hash{Key: affinity.Header("User-Agent")},
		"address":    &affinity.Hash{Key: &affinity.ClientAddr{}},
		"table":      &affinity.Table{Key: affinity.Query("user")},
		"chain":      affinity.Chain{&affinity.Cookie{Secrets: testKeys}, &affinity.Hash{Key: &affinity.ClientAddr{}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, nodes := cluster(t, 3, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Upgrade") != "" {
					echo.ServeHTTP(w, r)
					return
				}
				if _, err := r.Cookie("limpet"); err == nil {
					t.Error("the backend sees the cookie")
				}
				body, _ := io.ReadAll(r.Body)
				fmt.Fprint(w, w.Header().Get("Node"), len(body))
			}))
			srv := behindReverseProxy(t, pool, aff)
			c := newClient(t)
			url := srv.URL + "/?user=ann"
			if name == "cookie map" {
				c.Transport = withHeader{"Cookie", "server=2"}
			}
			_, home := get(t, c, url)
			if _, again := get(t, c, url); again != home {
				t.Errorf("went from %s to %s", home, again)
			}
			conn, res := dial(t, c, srv)
			talk(t, conn)
			if name != "table" && res.Header.Get("Node")+"0" != home {
				t.Errorf("WebSocket at %s, home %s", res.Header.Get("Node"), home)
			}
			_ = conn.CloseNow()

			nodes[home[:1]].Kill()
			res, err := c.Post(url, "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			next, _ := io.ReadAll(res.Body)
			if res.StatusCode != 200 || string(next) == home || next[1] != '4' {
				t.Errorf("after the kill %d %q, was at %s", res.StatusCode, next, home)
			}
			if _, again := get(t, c, url); again[:1] != string(next[:1]) {
				t.Errorf("moved to %s and then to %s", next, again)
			}
		})
	}
}

type withHeader [2]string

func (h withHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(h[0], h[1])
	return http.DefaultTransport.RoundTrip(r)
}

// Each direction of a tunnel ends on its own, as ReverseProxy wants it to.
func TestStickyHalfClose(t *testing.T) {
	t.Parallel()
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		got, err := io.ReadAll(buf)
		fmt.Fprintf(conn, "%s, %v", got, err)
	}))
	srv := behindReverseProxy(t, pool, &affinity.Hash{Key: &affinity.ClientAddr{}})
	conn, r := raw(t, srv, "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: x\n\n")
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	io.WriteString(conn, "hello")
	_ = conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(r); string(got) != "hello, <nil>" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestStickyWithoutPool(t *testing.T) {
	t.Parallel()
	req := httptest.NewRequest("GET", "/", nil)
	if _, err := (&limpet.Sticky{}).RoundTrip(req); err == nil {
		t.Error("no error")
	}
}

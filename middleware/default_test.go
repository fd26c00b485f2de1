package middleware_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// Without a word about affinity every client stays at its backend, and the log says
// once where that ends.
func TestDefaultAffinity(t *testing.T) {
	t.Parallel()
	for name, front := range map[string]func(*testing.T, *balancer.Pool, *slog.Logger) http.Handler{
		"Gateway": func(t *testing.T, pool *balancer.Pool, logger *slog.Logger) http.Handler {
			return withoutAffinity(t, pool, logger)
		},
		"Sticky": func(_ *testing.T, pool *balancer.Pool, logger *slog.Logger) http.Handler {
			return &httputil.ReverseProxy{
				Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "pool.example"}) },
				Transport: &limpet.Sticky{Pool: pool, Logger: logger},
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes, _ := engines(t, 3)
			var log notes
			srv := httptest.NewServer(front(t, poolOf(t, nil, nodes), log.logger()))
			defer srv.Close()

			native := &http.Client{Transport: newClient(t).Transport} // keeps no cookies
			for range 3 {
				sid, home := open(t, native, srv.URL)
				for range 4 {
					if res, _ := poll(t, native, srv.URL, sid); res.StatusCode != 200 || res.Header.Get("Node") != home {
						t.Errorf("session of %s without cookies: %d from %q", home, res.StatusCode, res.Header.Get("Node"))
					}
				}
			}

			// Socket.IO 2, whose session IDs stay as they are.
			version3 := srv.URL + "/socket.io/?EIO=3&transport=polling"
			res, body := get(t, native, version3)
			sid, home := strings.Split(body, `"`)[3], res.Header.Get("Node")
			if !strings.HasPrefix(sid, "sid-") || strings.Contains(sid, ".") {
				t.Fatalf("a session of version 3 is opened with %q", body)
			}
			for range 4 {
				if res, _ := get(t, native, version3+"&sid="+sid); res.StatusCode != 200 || res.Header.Get("Node") != home {
					t.Errorf("session of %s, version 3: %d from %q", home, res.StatusCode, res.Header.Get("Node"))
				}
			}

			// The parameter sid of another application is none of the gateway's business.
			asked := make(map[string]bool)
			for range 3 {
				res, _ := get(t, native, srv.URL+"/?sid=sid-1")
				asked[res.Header.Get("Node")] = true
			}
			if len(asked) != 3 {
				t.Errorf("a sid that isn't Engine.IO's pins its client: only %v were asked", asked)
			}

			browser := newClient(t)
			res, _ = get(t, browser, srv.URL+"/")
			home = res.Header.Get("Node")
			if c := res.Cookies(); len(c) != 1 || c[0].Name != "limpet" {
				t.Errorf("the cookies of a new client: %v", c)
			}
			for range 4 {
				if res, _ := get(t, browser, srv.URL+"/"); res.Header.Get("Node") != home || len(res.Cookies()) > 0 {
					t.Errorf("a client with a cookie: %q, its home is %s; new cookies %v", res.Header.Get("Node"), home, res.Cookies())
				}
			}

			const write = "affinity.Chain{&affinity.EngineIO{Secrets: secrets}, &affinity.Cookie{Secrets: secrets}}"
			if all := log.about("WARN"); len(all) != 1 || len(log.about(write)) != 1 {
				t.Errorf("%d warnings, want one that says what to write:\n%s", len(all), strings.Join(all, ""))
			}
		})
	}
}

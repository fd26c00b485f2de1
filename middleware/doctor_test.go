package middleware_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// found returns the codes of what the doctor has found, and checks each finding.
func found(t *testing.T, gw *limpet.Gateway, log *notes) []string {
	t.Helper()
	var codes []string
	for _, f := range gw.Stats().Findings {
		codes = append(codes, f.Code)
		if f.What == "" || f.Cure == "" || f.Since.IsZero() || f.Count < 1 {
			t.Errorf("half a finding: %+v", f)
		}
		if said := log.about("finding=" + f.Code); len(said) != 1 && f.Code != "no-health-checks" {
			t.Errorf("%s was logged %d times", f.Code, len(said))
		}
	}
	return codes
}

// stripped returns a request for a WebSocket as it is behind a proxy that drops what is
// hop-by-hop.
func stripped(t *testing.T, url, query string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url+"/socket.io/"+query, nil)
	ok(t, err)
	r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
	r.Header.Set("Sec-WebSocket-Version", "13")
	return r
}

// send sends r and drops the answer.
func send(t *testing.T, c *http.Client, r *http.Request) *http.Response {
	t.Helper()
	res, err := c.Do(r)
	ok(t, err)
	_, err = io.Copy(io.Discard, res.Body)
	ok(t, err)
	ok(t, res.Body.Close())
	return res
}

// Each mistake is found over real connections, and what looks like it isn't.
func TestDoctor(t *testing.T) {
	t.Parallel()
	// stray opens a session and polls until a node doesn't know it.
	stray := func(header http.Header) func(t *testing.T, url string) {
		return func(t *testing.T, url string) {
			c := &http.Client{Transport: newClient(t).Transport}
			for range 100 {
				sid, _ := open(t, c, url)
				r, _ := http.NewRequestWithContext(t.Context(), "GET", url+"/socket.io/?EIO=4&transport=polling&sid="+sid, nil)
				for name, values := range header {
					r.Header[name] = values
				}
				if send(t, c, r).StatusCode == http.StatusBadRequest {
					return
				}
			}
			t.Fatal("each session was known")
		}
	}
	faithful := func(t *testing.T, url string) {
		c := newClient(t)
		for range 20 {
			sid, _ := open(t, c, url)
			poll(t, c, url, sid)
		}
	}
	cookie := func() affinity.Affinity { return &affinity.Cookie{Secrets: testKeys} }
	both := func() affinity.Affinity { return affinity.Chain{engineIO(), cookie()} }
	many := func(header http.Header) func(t *testing.T, url string) {
		return func(t *testing.T, url string) {
			for range 130 { // each over a connection of its own
				r, _ := http.NewRequestWithContext(t.Context(), "GET", url, nil)
				r.Header = header.Clone()
				r.Close = true
				send(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, r)
			}
		}
	}
	byAddress := func() affinity.Affinity { return &affinity.Hash{} }
	answers := func(h http.HandlerFunc) http.Handler { return h }
	origin := func(n int) http.Handler {
		return answers(func(w http.ResponseWriter, _ *http.Request) {
			for range n {
				w.Header().Add("Access-Control-Allow-Origin", "*")
			}
		})
	}

	for _, tt := range []struct {
		name     string
		affinity func() affinity.Affinity
		node     http.Handler // nil: an engine at each
		front    func(http.Handler) http.Handler
		do       func(t *testing.T, url string)
		code     string // "" for nothing
		says     string // in the log
	}{
		{"Node's clients with a cookie", cookie, nil, nil, stray(nil), "no-cookies", "Node"},
		{"another site's page with a cookie", cookie, nil, nil, stray(http.Header{"Origin": {"https://app.test"}}), "no-cookies", "withCredentials"},
		{"browsers with a cookie", cookie, nil, nil, faithful, "", ""},
		{"Node's clients with EngineIO", both, nil, nil, func(t *testing.T, url string) {
			c := &http.Client{Transport: newClient(t).Transport}
			for range 20 {
				sid, _ := open(t, c, url)
				poll(t, c, url, sid)
			}
		}, "", ""},
		{"a cookie that another has made", cookie, nil, nil, stray(http.Header{"Cookie": {"limpet=made.up"}}), "unknown-session", "same Secrets"},
		{"a session of another time", func() affinity.Affinity { return &affinity.EngineIO{Mode: affinity.SIDModeLearn} }, nil, nil, func(t *testing.T, url string) {
			poll(t, newClient(t), url, "long-gone")
		}, "unknown-session", "common Store"},

		{"Upgrade was dropped", both, nil, nil, func(t *testing.T, url string) {
			sid, _ := open(t, newClient(t), url)
			send(t, newClient(t), stripped(t, url, "?EIO=4&transport=websocket&sid="+sid))
		}, "upgrade-dropped", "proxy_set_header Upgrade"},
		{"Upgrade was dropped, of an application's own", both, answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUpgradeRequired) }), nil, func(t *testing.T, url string) {
			send(t, newClient(t), stripped(t, url, ""))
		}, "upgrade-dropped", "proxy_set_header Upgrade"},
		{"somebody tries the URL by hand", both, nil, nil, func(t *testing.T, url string) {
			get(t, newClient(t), url+"/socket.io/?EIO=4&transport=websocket")
		}, "", ""},

		{"the wrong path", func() affinity.Affinity { return &affinity.EngineIO{Path: "/ws/", Secrets: testKeys} }, nil, nil, func(t *testing.T, url string) {
			open(t, newClient(t), url)
		}, "engineio-path", `Path: \"/socket.io/\"`},
		{"the right path", func() affinity.Affinity { return &affinity.EngineIO{Path: "/socket.io/", Secrets: testKeys} }, nil, nil, func(t *testing.T, url string) {
			open(t, newClient(t), url)
			get(t, newClient(t), url+"/other?EIO=x") // an application's own
		}, "", ""},

		{"one address", byAddress, nil, nil, many(nil), "one-address", "NAT"},
		{"one address, of a proxy", byAddress, nil, nil, many(http.Header{"X-Forwarded-For": {"203.0.113.7"}}), "one-address untrusted-proxy", "tells their addresses"},
		{"one address, by a cookie", cookie, nil, nil, many(nil), "", ""},
		{"one client", byAddress, nil, nil, func(t *testing.T, url string) {
			c := newClient(t)
			for range 500 {
				get(t, c, url)
			}
		}, "", ""},

		{"CORS of the node and of the front", cookie, origin(1), func(next http.Handler) http.Handler {
			return answers(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Access-Control-Allow-Origin", "*")
				next.ServeHTTP(w, r)
			})
		}, func(t *testing.T, url string) { get(t, newClient(t), url) }, "cors-twice", "middleware in front"},
		{"CORS twice by the node", cookie, origin(2), nil, func(t *testing.T, url string) { get(t, newClient(t), url) }, "cors-twice", "sets it twice"},
		{"CORS by the node", cookie, origin(1), nil, func(t *testing.T, url string) { get(t, newClient(t), url) }, "", ""},

		{"RemoteAddr of a middleware", cookie, nil, func(next http.Handler) http.Handler {
			return answers(func(w http.ResponseWriter, r *http.Request) {
				r.RemoteAddr = "203.0.113.7"
				next.ServeHTTP(w, r)
			})
		}, func(t *testing.T, url string) { get(t, newClient(t), url) }, "remote-addr", "RealIP"},
		{"RemoteAddr of a middleware, IPv6", cookie, nil, func(next http.Handler) http.Handler {
			return answers(func(w http.ResponseWriter, r *http.Request) {
				r.RemoteAddr = "2001:db8::7"
				next.ServeHTTP(w, r)
			})
		}, func(t *testing.T, url string) { get(t, newClient(t), url) }, "remote-addr", "RealIP"},
		{"RemoteAddr with a port, IPv6", cookie, nil, func(next http.Handler) http.Handler {
			return answers(func(w http.ResponseWriter, r *http.Request) {
				r.RemoteAddr = "[2001:db8::7]:1234"
				next.ServeHTTP(w, r)
			})
		}, func(t *testing.T, url string) { get(t, newClient(t), url) }, "", ""},

		{"a backend that isn't there", func() affinity.Affinity {
			return &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "a", "2": "b2"}}
		}, nil, nil, func(*testing.T, string) {}, "unknown-backend", "backend=b2"},
		{"a default that isn't there", func() affinity.Affinity {
			return affinity.Chain{engineIO(), &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "a"}, Default: "z"}}
		}, nil, nil, func(*testing.T, string) {}, "unknown-backend", "backend=z"},
		{"a route that isn't there", func() affinity.Affinity {
			return &affinity.Route{Cookie: "JSESSIONID", Backends: map[string]string{"route1": "c"}}
		}, nil, nil, func(*testing.T, string) {}, "unknown-backend", "backend=c"},
		{"backends that are there", func() affinity.Affinity {
			return &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "a", "2": "b"}, Default: "b"}
		}, nil, nil, faithful, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes := map[string]*node{}
			for _, id := range []string{"a", "b"} {
				h := tt.node
				if h == nil {
					h = &engine{}
				}
				nodes[id] = newNode(t, id, h)
			}
			var log notes
			pool := poolOf(t, &balancer.Options{
				Check:  &balancer.Check{Interval: time.Hour, Timeout: time.Minute},
				Logger: slog.New(slog.DiscardHandler),
			}, nodes)
			run(t, pool) // or that it doesn't run would be found on a machine that is slow enough
			gw := newGateway(t, pool, &limpet.Options{Affinity: tt.affinity(), Logger: log.logger()})
			front := http.Handler(gw)
			if tt.front != nil {
				front = tt.front(gw)
			}
			srv := httptest.NewServer(front)
			defer srv.Close()
			tt.do(t, srv.URL)
			tt.do(t, srv.URL) // and it is said once
			if got := strings.Join(found(t, gw, &log), " "); got != tt.code {
				t.Errorf("found %q, want %q", got, tt.code)
			}
			if tt.code != "" && len(log.about(tt.says)) != 1 {
				t.Errorf("not a word of %q: %q", tt.says, log.about("finding"))
			}
		})
	}
}

// What is read of an answer to look for a code reaches the client all the same.
func TestDoctorLeavesAnswersAsTheyAre(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		"", "no", `{"code":3,"message":"Bad request"}`, `{"code":1}`, strings.Repeat("x", 255), strings.Repeat("x", 10_000), `{"code":1}` + strings.Repeat("x", 10_000),
	} {
		for _, chunked := range []bool{false, true} {
			n := newNode(t, "a", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusBadRequest)
				if chunked {
					w.(http.Flusher).Flush()
				}
				io.WriteString(w, body)
			}))
			// A client with a cookie jar, for which the code means that its session has ended.
			srv, _ := serve(t, poolOf(t, nil, map[string]*node{"a": n}), nil)
			jar, _ := cookiejar.New(nil)
			c := newClient(t)
			c.Jar = jar
			get(t, c, srv.URL)
			if _, got := get(t, c, srv.URL+"/?EIO=4&transport=polling&sid=x"); got != body {
				t.Errorf("chunked %v: got %.40q… of %d bytes, want %.40q… of %d", chunked, got, len(got), body, len(body))
			}
		}
	}
}

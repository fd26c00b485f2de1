package middleware_test

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	limpet "github.com/limpet-go/limpet/middleware"
)

// application answers as one with sessions does: it has a cookie of its own,
// which it renews each time, and a container's with the route in it.
func application(t *testing.T) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		node := w.Header().Get("Node")
		session := rand.Text()
		if c, err := r.Cookie("session"); err == nil {
			session = c.Value
		}
		if strings.Contains(session, "~") {
			t.Errorf("node %s sees the session %q", node, session)
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: session, Path: "/", HttpOnly: true})
		id, route := rand.Text(), ""
		if c, err := r.Cookie("JSESSIONID"); err == nil {
			id, route, _ = strings.Cut(c.Value, ".")
		}
		if route != node {
			http.SetCookie(w, &http.Cookie{Name: "JSESSIONID", Value: id + "." + node, Path: "/"})
		}
		io.WriteString(w, node)
	})
}

// What each affinity makes of a home that is Down, Draining or removed, which
// only a gateway can tell.
func TestAffinities(t *testing.T) {
	t.Parallel()
	secret := testKeys
	for _, tt := range []struct {
		name     string
		affinity func() affinity.Affinity
		leaves   bool // a client leaves a home that drains
		returns  bool // it returns to its first home when that is back
	}{
		{"Cookie", func() affinity.Affinity { return &affinity.Cookie{Secrets: secret} }, false, false},
		{"CookieMap", func() affinity.Affinity {
			return &affinity.CookieMap{Name: "server", Backends: map[string]string{"1": "b"}}
		}, false, true},
		{"Hash", func() affinity.Affinity { return &affinity.Hash{Key: affinity.Query("user")} }, true, true},
		{"Table", func() affinity.Affinity { return &affinity.Table{Key: affinity.Query("user")} }, false, false},
		{"Table of a cookie", func() affinity.Affinity {
			return &affinity.Table{Key: affinity.CookieValue("session")}
		}, false, false},
		{"AppCookie", func() affinity.Affinity { return &affinity.AppCookie{Name: "session"} }, false, false},
		{"AppCookie with a prefix", func() affinity.Affinity {
			return &affinity.AppCookie{Name: "session", Prefix: true}
		}, false, false},
		{"AppCookie with a sealed prefix", func() affinity.Affinity {
			return &affinity.AppCookie{Name: "session", Prefix: true, Secrets: secret}
		}, false, false},
		{"Route of the application", func() affinity.Affinity { return &affinity.Route{Cookie: "JSESSIONID"} }, false, false},
		{"Route set by Limpet", func() affinity.Affinity {
			return &affinity.Route{Cookie: "ROUTEID", Set: &http.Cookie{}}
		}, false, false},
		{"Chain", func() affinity.Affinity {
			return affinity.Chain{&affinity.AppCookie{Name: "session", Prefix: true}, &affinity.Cookie{Secrets: secret}, &affinity.Hash{}}
		}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			pool, _ := cluster(t, 4, application(t))
			srv, _ := serve(t, pool, &limpet.Options{Affinity: tt.affinity()})
			at, err := url.Parse(srv.URL)
			if err != nil {
				t.Fatal(err)
			}
			c := newClient(t)
			c.Jar.SetCookies(at, []*http.Cookie{{Name: "server", Value: "1"}})
			visit := func(want string) string {
				t.Helper()
				res, node := get(t, c, srv.URL+"/?user=ann")
				if res.StatusCode != http.StatusOK || want != "" && node != want {
					t.Errorf("status %d of node %q, want node %q", res.StatusCode, node, want)
				}
				return node
			}
			moved := func(what, from string) string {
				t.Helper()
				to := visit("")
				if to == from {
					t.Errorf("%s is %s, and its client was sent there", from, what)
				}
				visit(to)
				return to
			}
			do := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}

			visit("") // some know a client only when the application has answered it
			home := visit("")
			visit(home)

			do(pool.Drain(home, 0))
			if tt.leaves {
				moved("Draining", home)
			} else {
				visit(home)
			}
			do(pool.Undrain(home))
			visit(home)

			do(pool.Off(home))
			next := moved("Down", home)
			do(pool.Undrain(home))
			if tt.returns {
				visit(home)
				next = home
			} else {
				visit(next)
			}

			do(pool.Remove(next))
			moved("removed", next)
		})
	}
}

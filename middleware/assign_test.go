package middleware_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	limpet "github.com/limpet-go/limpet/middleware"
)

func TestAssignCookie(t *testing.T) {
	t.Parallel()
	servers := map[string]string{"1": "a", "2": "b"}
	for _, byPool := range []bool{false, true} {
		pool, _ := cluster(t, 2, nil)
		gw := newGateway(t, pool, &limpet.Options{Affinity: &affinity.CookieMap{Name: "server", Backends: servers}})
		assign := &limpet.AssignCookie{Cookie: http.Cookie{Name: "server"}, Backends: servers}
		if byPool {
			assign.Pool = pool
			if err := pool.Drain("a", 0); err != nil {
				t.Fatal(err)
			}
		}
		srv := httptest.NewServer(assign.Handler(gw))
		t.Cleanup(srv.Close)

		seen := make(map[string]bool)
		for range 20 {
			c := newClient(t)
			res, home := get(t, c, srv.URL)
			cookies := res.Cookies()
			if len(cookies) != 1 || servers[cookies[0].Value] != home {
				t.Fatalf("cookies %v, home %s", cookies, home)
			}
			if res, again := get(t, c, srv.URL); again != home || len(res.Cookies()) != 0 {
				t.Fatalf("came back to %s, not %s, and got %d cookies", again, home, len(res.Cookies()))
			}
			seen[home] = true
		}
		if byPool && seen["a"] || !seen["b"] || !byPool && !seen["a"] {
			t.Errorf("by the pool: %v; assigned %v", byPool, seen)
		}
	}
}

// An unknown value is overruled, and the client's cookies stay as it wrote them.
func TestAssignCookieReplacesUnknownValues(t *testing.T) {
	t.Parallel()
	assign := &limpet.AssignCookie{Cookie: http.Cookie{Name: "server"}, Backends: map[string]string{"1": "a"}}
	var cookie string
	h := assign.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { cookie = r.Header.Get("Cookie") }))
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Cookie", `server=7; other={"a":1}; sp=a b`)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if cookie != `server=1; server=7; other={"a":1}; sp=a b` {
		t.Errorf("next saw %q", cookie)
	}
	if got := w.Header().Get("Set-Cookie"); got != "server=1; Path=/; SameSite=Lax" {
		t.Errorf("Set-Cookie: %s", got)
	}
}

func TestAssignCookieLeavesAlone(t *testing.T) {
	t.Parallel()
	assign := &limpet.AssignCookie{Cookie: http.Cookie{Name: "server"}, Backends: map[string]string{"1": "a"}}
	for name, r := range map[string]*http.Request{
		"a known value behind an unknown one": {Method: "GET", Header: http.Header{"Cookie": {"server=7; server=1"}}},
		"preflight": {Method: "OPTIONS", Header: http.Header{
			"Origin": {"https://example.com"}, "Access-Control-Request-Method": {"PUT"},
		}},
	} {
		var seen http.Header
		h := assign.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() }))
		w := httptest.NewRecorder()
		before := r.Header.Clone()
		h.ServeHTTP(w, r)
		if !maps.EqualFunc(seen, before, slices.Equal) || len(w.Header()) != 0 {
			t.Errorf("%s: next saw %v, the client got %v", name, seen, w.Header())
		}
	}
}

func TestAssignCookieScript(t *testing.T) {
	t.Parallel()
	assign := &limpet.AssignCookie{Cookie: http.Cookie{Name: "server", Secure: true}, Backends: map[string]string{"1": "a", "2": "b"}}
	w := httptest.NewRecorder()
	assign.Script().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	if !strings.Contains(w.Body.String(), `("server", ["1","2"], "; Path=/; Secure; SameSite=Lax")`) {
		t.Errorf("script:\n%s", w.Body)
	}
}

// Neither of these would tell of the whole AssignCookie.
func TestAssignCookieIsNoHTTPCookie(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Valid", "String"} {
		if _, ok := reflect.TypeFor[*limpet.AssignCookie]().MethodByName(name); ok {
			t.Errorf("an AssignCookie has the method %s of an http.Cookie", name)
		}
	}
}

func TestAssignCookieFindsMistakes(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]*limpet.AssignCookie{
		"no backends": {Cookie: http.Cookie{Name: "server"}},
		"no name":     {Backends: map[string]string{"1": "a"}},
		"bad value":   {Cookie: http.Cookie{Name: "server"}, Backends: map[string]string{"a b;": "a"}},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			a.Handler(http.NotFoundHandler())
		}()
	}
}

package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/exampletest"
	"github.com/limpet-go/limpet/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// start starts the example in a mode, with two backends that begin sessions as
// handle does.
func start(t *testing.T, mode string, handle func(id string) http.HandlerFunc) *exampletest.Gateway {
	t.Helper()
	var specs []string
	for _, id := range []string{"a", "b"} {
		specs = append(specs, exampletest.StartBackend(t, id, handle(id)).Spec())
	}
	return exampletest.Serve(t, func(ctx context.Context, ln net.Listener) error {
		return serve(ctx, ln, way(mode), balancer.Static(specs...))
	})
}

func TestCookie(t *testing.T) {
	t.Parallel()
	g := start(t, "cookie", func(string) http.HandlerFunc { return exampletest.Echo })
	for range 2 {
		c := exampletest.NewClient(t, g)
		first := c.Get(t, "/")
		set := first.Cookies()
		if len(set) != 1 {
			t.Fatalf("cookies %v, want one", set)
		}
		if s := set[0]; s.Name != "srv_id" || s.Domain != "example.com" || s.Path != "/" || s.MaxAge != int(time.Hour/time.Second) || !s.HttpOnly {
			t.Errorf("the cookie is %v", s)
		}
		c.Stays(t, first.Backend, "/socket.io/")
	}
	g.Drain(t)
}

// The hour is one without requests: a client that keeps coming stays at home.
func TestCookieExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sticky := way("cookie")
		r := httptest.NewRequest("GET", "/", nil)
		for range 3 {
			found, err := sticky.Find(r)
			if err != nil {
				t.Fatal(err)
			}
			res := &http.Response{Header: http.Header{}}
			if _, err := sticky.Bind(affinity.Answer{Response: res, Request: r, Found: found, Home: "a"}); err != nil {
				t.Fatal(err)
			}
			set := res.Cookies()
			if len(set) != 1 || set[0].MaxAge != 3600 {
				t.Fatalf("found %+v, and the cookies are %v; want one for another hour", found, set)
			}
			r = httptest.NewRequest("GET", "/", nil)
			r.AddCookie(set[0])
			time.Sleep(50 * time.Minute)
		}
		if found, err := sticky.Find(r); found.Backend != "a" || err != nil {
			t.Errorf("after 150 minutes: %+v, %v", found, err)
		}
		time.Sleep(time.Hour)
		if found, err := sticky.Find(r); found.Status != affinity.Expired || err != nil {
			t.Errorf("after an hour without requests: %+v, %v", found, err)
		}
	})
}

func TestRoute(t *testing.T) {
	t.Parallel()
	g := start(t, "route", func(id string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				http.SetCookie(w, &http.Cookie{Name: "JSESSIONID", Value: "0815." + id, Path: "/"})
			}
		}
	})
	for range 2 {
		c := exampletest.NewClient(t, g)
		c.Stays(t, c.Get(t, "/login").Backend, "/")
	}
	for _, id := range []string{"a", "b"} { // a client without cookies
		exampletest.NewClient(t, g).Stays(t, id, "/page;jsessionid=0815."+id)
	}
}

func TestLearn(t *testing.T) {
	t.Parallel()
	g := start(t, "learn", func(id string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/login" {
				http.SetCookie(w, &http.Cookie{Name: "examplecookie", Value: "session-at-" + id, Path: "/"})
			}
		}
	})
	for range 2 {
		c := exampletest.NewClient(t, g)
		home := c.Get(t, "/login").Backend
		if got, want := c.Cookie(t, "examplecookie"), "session-at-"+home; got != want {
			t.Errorf("the cookie is %q, want %q as the application set it", got, want)
		}
		c.Stays(t, home, "/")
	}
}

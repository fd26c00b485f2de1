package middleware

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"

	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/setcookie"
)

// AssignCookie gives each client that has none a cookie that names its backend
// in the clear, server=1 or server=2: the classic set-up in front of an
// affinity.CookieMap, for backends and clients that read it. Put its Handler
// around the Gateway.
//
// Clients choose their backend here, whatever was assigned: anybody can send any
// of the values. Where that matters use affinity.Cookie.
//
// To the gateway a client that was just given its cookie has come with it: its
// PinHeader and Trace call it a hit.
type AssignCookie struct {
	// Cookie has the name, which is needed, and the attributes. Path is / by
	// default, SameSite Lax. Leave HttpOnly off where Script is used. Its Value is
	// ignored.
	Cookie http.Cookie

	// Backends maps the cookie's values to backend IDs, as in
	// affinity.CookieMap. It is needed, and must not change.
	Backends map[string]string

	// Pool chooses the value by its picker, among the backends that are Up. Nil:
	// each value is as likely as the others.
	Pool *balancer.Pool
}

// Handler assigns the cookie on the way to next, which sees it on the request
// already. It panics when browsers would not keep the cookie as it is, when a value
// can't be sent or names no backend, or when there are no values: a mistake in
// code, found at start-up.
func (a *AssignCookie) Handler(next http.Handler) http.Handler {
	values := a.values()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known := func(c *http.Cookie) bool { return a.Backends[c.Value] != "" }
		if slices.ContainsFunc(r.CookiesNamed(a.Cookie.Name), known) || preflight(r) {
			next.ServeHTTP(w, r)
			return
		}
		c := a.cookie(a.choose(r, values))
		http.SetCookie(w, c)
		if w.Header().Get("Cache-Control") == "" {
			// A shared cache would hand one client's server to all.
			w.Header().Set("Cache-Control", "private, no-store")
		}
		in := r.Clone(r.Context())
		// In front, since CookieMap takes the first value that it knows; what
		// the client sent stays as it wrote it.
		in.Header["Cookie"] = []string{strings.Join(append([]string{c.Name + "=" + c.Value}, r.Header["Cookie"]...), "; ")}
		next.ServeHTTP(w, in)
	})
}

// Script serves a few lines of JavaScript that do the same in a browser, for a
// page on another server whose first request here is already a WebSocket or a
// poll. Load it before the client connects; the cookie can't be HttpOnly then.
// It panics as Handler does.
func (a *AssignCookie) Script() http.Handler {
	values := a.values()
	c := a.cookie("")
	c.HttpOnly = false
	_, attributes, _ := strings.Cut(c.String(), ";")
	name, _ := json.Marshal(a.Cookie.Name)
	choices, _ := json.Marshal(values)
	attrs, _ := json.Marshal(";" + attributes)
	script := fmt.Sprintf(`(function (name, values, attributes) {
  var has = document.cookie.split("; ").some(function (c) {
    return c.indexOf(name + "=") === 0 && values.indexOf(c.slice(name.length + 1)) >= 0;
  });
  if (!has) {
    document.cookie = name + "=" + values[Math.floor(Math.random() * values.length)] + attributes;
  }
})(%s, %s, %s);
`, name, choices, attrs)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/javascript; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		_, _ = w.Write([]byte(script))
	})
}

// preflight reports whether r is a CORS preflight, which knows no cookies.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

func (a *AssignCookie) values() []string {
	values := slices.Sorted(maps.Keys(a.Backends))
	if len(values) == 0 {
		panic("limpet: AssignCookie has no Backends")
	}
	for _, v := range values {
		err := setcookie.Check(a.cookie(v))
		if err == nil && (v == "" || a.Backends[v] == "") {
			err = errors.New("both the value and the backend's ID are needed")
		}
		if err != nil {
			panic(fmt.Sprintf("limpet: AssignCookie %q with value %q: %v", a.Cookie.Name, v, err))
		}
	}
	return values
}

func (a *AssignCookie) cookie(value string) *http.Cookie {
	c := a.Cookie
	c.Value = value
	if c.Path == "" {
		c.Path = "/"
	}
	if c.SameSite == 0 {
		c.SameSite = http.SameSiteLaxMode
	}
	return &c
}

func (a *AssignCookie) choose(r *http.Request, values []string) string {
	if a.Pool != nil {
		if b, err := a.Pool.Pick(r, "", ""); err == nil {
			for _, v := range values {
				if a.Backends[v] == b.ID() {
					return v
				}
			}
		}
	}
	return values[rand.IntN(len(values))]
}

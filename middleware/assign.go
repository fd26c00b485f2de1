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
// in the clear, such as server=1 or server=2. This is the classic set-up in
// front of an affinity.CookieMap, for backends and clients that read the
// cookie. Put its Handler around the Gateway.
//
// Clients choose their backend here, whatever they were assigned: anybody can
// send any of the values. Where that matters, use affinity.Cookie.
//
// The gateway sees the cookie on the request of a client that has just been
// given it. So PinHeader and observers call such a client a hit.
type AssignCookie struct {
	// Cookie has the name, which is needed, and the attributes. Path is / and
	// SameSite is Lax by default. Leave HttpOnly out if Script is used. Its
	// Value is ignored.
	Cookie http.Cookie

	// Backends maps the cookie's values to the IDs of backends, as in
	// affinity.CookieMap. It is needed and must not be changed.
	Backends map[string]string

	// Pool chooses the value by its picker, among the backends that are Up. If
	// nil, each value is equally likely.
	Pool *balancer.Pool
}

// Handler assigns the cookie and calls next, which sees the cookie on the
// request. It panics if browsers would not keep the cookie as it is, if a value
// can't be sent or has no backend's ID, or if there are no values: these are
// mistakes in code, found at the start.
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
			// A shared cache would hand one client's server to all clients.
			w.Header().Set("Cache-Control", "private, no-store")
		}
		in := r.Clone(r.Context())
		// The cookie goes in front, since CookieMap uses the first value that
		// it knows. The client's own cookies stay as it wrote them.
		in.Header["Cookie"] = []string{strings.Join(append([]string{c.Name + "=" + c.Value}, r.Header["Cookie"]...), "; ")}
		next.ServeHTTP(w, in)
	})
}

// Script serves a few lines of JavaScript that do the same in a browser, for a
// page of another server whose first request here is a WebSocket or a poll. The
// page loads the script before it connects. The cookie can't be HttpOnly then.
// Script panics as Handler does.
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

// preflight reports whether r is a CORS preflight, which carries no cookies.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// values returns the values of the cookie in order, and panics as Handler says.
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

// cookie returns the cookie with this value.
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

// choose returns the value for a client that sends r.
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

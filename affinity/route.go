package affinity

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/limpet-go/limpet/internal/setcookie"
)

// Route is an [Affinity] by a route, the name of a backend, that stands in a
// cookie or in a parameter of the URL behind a separator: JSESSIONID=abc.route1,
// ;jsessionid=abc.route1 or ROUTEID=.1. Servlet containers write such session
// IDs; Apache's mod_proxy_balancer has it as stickysession, nginx as `sticky route`.
//
// Clients choose their backend here. The routes can be read, anyone can pick any
// backend and crowd one of them, and a link with a route in it takes everyone
// along. [Cookie] and a sealed [AppCookie] don't let them.
//
// A route is in the hands of the client, and is not taken off the request. It
// has no lifetime but that of the cookie.
type Route struct {
	// Cookie is the name of the cookie. If "", only Param counts.
	Cookie string

	// Param is the name of the parameter: of the path, as in
	// /chat;jsessionid=abc.route1 (RFC 3986 section 3.3), or else of the query.
	// If "", only Cookie counts. A route in the cookie goes first, as with the
	// containers themselves; Apache looks at the URL first.
	Param string

	// Separator is what stands before the route, "." by default (Apache's
	// stickysessionsep). The route begins behind the first one; with Backends,
	// behind the first one that has a route of theirs behind it.
	Separator string

	// Whole takes the whole value for the route (stickysessionsep=Off).
	Whole bool

	// Backends maps routes to the IDs of backends. Nil means that the routes
	// are the IDs. A route has 1 to 64 letters, digits and ._:- in it. If one
	// backend has several, the first by the alphabet is set.
	Backends map[string]string

	// Set makes Limpet set the cookie: for a client that has no route, or that
	// was moved to another backend than its route says, and then only (Apache
	// does it with BALANCER_ROUTE_CHANGED). Nil means that the application does.
	//
	// It has the attributes, and in Value what goes before the separator; its
	// Name is ignored, Path is "/" by default. The answer to a CORS preflight
	// never carries it. One that does is kept out of shared caches as with [Cookie].
	Set *http.Cookie

	// Client places the clients whose home is gone. Nil means by what stands
	// before the separator, which is the session. If nothing does, or nothing
	// of worth as Set has put it there, it is by &ClientAddr{}.
	Client Key

	addr ClientAddr // that one
}

// Find looks for a route: the first that a backend has. Status is None without
// any, Unknown for one that is not in Backends or can't be a route.
func (rt *Route) Find(r *http.Request) (Pin, error) {
	var pin Pin
	for value := range cookieValues(r.Header["Cookie"], rt.Cookie) {
		if rt.look(&pin, r, value) {
			return pin, nil
		}
	}
	if rt.Param != "" {
		rt.look(&pin, r, urlParam(r.URL, rt.Param))
	}
	return pin, nil
}

// look takes value into account, and tells whether the search is over.
func (rt *Route) look(pin *Pin, r *http.Request, value string) bool {
	if value == "" {
		return false
	}
	session, home, status := rt.split(value)
	if status == Hit || pin.Status == None && (status != None || pin.Key == "") {
		*pin = Pin{Backend: home, Key: rt.key(r, session), Status: status}
	}
	return status == Hit
}

// split finds the route in a value, and the session that stands before it.
func (rt *Route) split(value string) (session, home string, status Status) {
	if rt.Whole {
		if home, ok := routes(rt.Backends).backend(value); ok {
			return "", home, Hit
		}
		return "", "", Unknown
	}
	sep := rt.separator()
	session, route, ok := strings.Cut(value, sep)
	if !ok || route == "" {
		return session, "", None
	}
	for {
		if home, ok := routes(rt.Backends).backend(route); ok {
			return value[:len(value)-len(route)-len(sep)], home, Hit
		}
		_, next, more := strings.Cut(route, sep)
		if !more || rt.Backends == nil {
			return session, "", Unknown
		}
		route = next
	}
}

// Bind sets the cookie, if Set is given and the route has changed.
func (rt *Route) Bind(a Answer) (key string, err error) {
	if rt.Set == nil {
		return rt.appKey(a), nil
	}
	if a.Home == "" || a.Found.Status == Hit && a.Home == a.Found.Backend || preflight(a.Request) {
		return a.Found.Key, nil
	}
	route, err := routes(rt.Backends).name(a.Home)
	if err != nil {
		return a.Found.Key, fmt.Errorf("affinity: route cookie %q: %w", rt.Cookie, err)
	}
	cookie := rt.setCookie(route)
	addSetCookie(a.Response, &cookie)
	return rt.key(a.Request, ""), nil
}

// appKey returns the key that the client has with this answer, on which the
// application may have set its cookie.
func (rt *Route) appKey(a Answer) string {
	key := a.Found.Key
	if rt.Cookie == "" {
		return key
	}
	for _, line := range a.Response.Header["Set-Cookie"] {
		start, end, ok := setCookieValue(line, rt.Cookie)
		if ok && start < end && !deletesCookie(line) {
			session, _, _ := rt.split(line[start:end])
			key = rt.key(a.Request, session)
		}
	}
	return key
}

// key returns what places a client of this session.
func (rt *Route) key(r *http.Request, session string) string {
	switch {
	case rt.Client != nil:
		return rt.Client.Key(r)
	case session == "" || rt.Set != nil:
		return rt.addr.Key(r)
	}
	return secretKey(session)
}

// Trust forwards to Client.
func (rt *Route) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	trust(addr, secure, rt.Client, &rt.addr)
}

// Validate refuses names and attributes that no cookie can have or that browsers
// don't take, routes that can't be one, and a Route that looks nowhere. It
// forwards to Client.
func (rt *Route) Validate() error {
	if err := rt.check(); err != nil {
		return fmt.Errorf("affinity: route in cookie %q, parameter %q: %w", rt.Cookie, rt.Param, err)
	}
	return validate(rt.Client)
}

func (rt *Route) check() error {
	switch {
	case rt.Cookie == "" && rt.Param == "":
		return errors.New("neither of them is named")
	case rt.Cookie == "" && rt.Set != nil:
		return errors.New("the cookie to Set has no name")
	case rt.Whole && rt.Separator != "":
		return errors.New("a Separator has no meaning if the Whole value is the route")
	case rt.Whole && rt.Set != nil && rt.Set.Value != "":
		return errors.New("the Value of Set goes before a separator, and with Whole there is none")
	case rt.Set != nil && strings.Contains(rt.Set.Value, rt.separator()):
		return errors.New("the Value of Set has the separator in it")
	}
	if err := routes(rt.Backends).validate(); err != nil {
		return err
	}
	if rt.Cookie == "" {
		return nil
	}
	cookie := rt.setCookie("route")
	return setcookie.Check(&cookie)
}

func (rt *Route) separator() string {
	if rt.Separator == "" {
		return "."
	}
	return rt.Separator
}

// setCookie returns the cookie with a route in it.
func (rt *Route) setCookie(route string) http.Cookie {
	var cookie http.Cookie
	if rt.Set != nil {
		cookie = *rt.Set
	}
	cookie.Name = rt.Cookie
	if cookie.Path == "" {
		cookie.Path = "/"
	}
	if !rt.Whole {
		route = cookie.Value + rt.separator() + route
	}
	cookie.Value = route
	return cookie
}

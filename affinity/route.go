package affinity

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/limpet-go/limpet/internal/setcookie"
)

// Route is an [Affinity] by a route: the name of a backend that stands behind a
// separator in a cookie or in a parameter of the URL, as in
// JSESSIONID=abc.route1, ;jsessionid=abc.route1 or ROUTEID=.1. Servlet
// containers write such session IDs. Apache's mod_proxy_balancer calls it
// stickysession, nginx `sticky route`.
//
// Clients choose their backend here. The routes are readable, so anybody can
// pick any backend, and many can crowd one of them. A link with a route in it
// takes everybody who follows it to the same backend. [Cookie] and an
// [AppCookie] with Secrets don't let clients choose.
//
// The route stays on the request. It has no lifetime other than that of the
// cookie.
type Route struct {
	// Cookie is the name of the cookie. If "", only Param counts.
	Cookie string

	// Param is the name of the parameter. It is looked for in the path, as in
	// /chat;jsessionid=abc.route1 (RFC 3986 section 3.3), and then in the
	// query. If "", only Cookie counts.
	//
	// A route in the cookie counts before one in the URL, as it does in the
	// containers themselves. Apache looks at the URL first.
	Param string

	// Separator is what stands before the route, "." by default (Apache's
	// stickysessionsep). The route begins behind the first separator. With
	// Backends, it begins behind the first separator that has one of their
	// routes behind it.
	Separator string

	// Whole says that the whole value is the route (stickysessionsep=Off).
	Whole bool

	// Backends maps routes to the IDs of backends. Nil means that the routes
	// are the IDs. A route has 1 to 64 letters, digits and ._:- in it. If a
	// backend has several routes, Set uses the first in alphabetical order.
	Backends map[string]string

	// Set makes Limpet set the cookie for a client that has no route, or that
	// was moved to another backend than its route says. Apache does it with
	// BALANCER_ROUTE_CHANGED. Nil means that the application sets it.
	//
	// Set has the attributes of the cookie, and its Value is what goes before
	// the separator. Its Name is ignored, and its Path is "/" by default. The
	// answer to a CORS preflight never sets the cookie. An answer that does is
	// kept out of shared caches as with [Cookie].
	Set *http.Cookie

	// Client places the clients whose home is gone. Nil means that a client is
	// placed by what stands before the separator, which is its session. If
	// nothing stands there, or Set has put it there, the client is placed by
	// &ClientAddr{}.
	Client Key

	addr ClientAddr // used if Client is nil and there is no session
}

// Find returns the home by the first route that has a backend. Status is None
// without any route, and Unknown if a route is not in Backends or can't be one.
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

// look updates pin by one value that may have a route, and tells whether the
// search is over.
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

// split returns the home by the route in value, and the session before the
// route.
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

// Bind sets the cookie if Set is given and the client's route is not that of
// a.Home.
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

// appKey returns the key that the client has after this answer, on which the
// application may have set the cookie.
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

// key returns the key of the client that sent r and has this session.
func (rt *Route) key(r *http.Request, session string) string {
	switch {
	case rt.Client != nil:
		return rt.Client.Key(r)
	case session == "" || rt.Set != nil:
		return rt.addr.Key(r)
	}
	return secretKey(session)
}

// Trust calls Trust of Client.
func (rt *Route) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	trust(addr, secure, rt.Client, &rt.addr)
}

// Validate refuses names and attributes that no cookie can have or that
// browsers don't accept, routes that can't be one, and a Route with neither
// Cookie nor Param. It also calls Validate of Client.
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
	if rt.Set == nil { // the application sets it, with what attributes it likes
		return cookie.Valid()
	}
	return setcookie.Check(&cookie)
}

func (rt *Route) separator() string {
	if rt.Separator == "" {
		return "."
	}
	return rt.Separator
}

// setCookie returns the cookie of Set with route in its value.
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

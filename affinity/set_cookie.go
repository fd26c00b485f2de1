package affinity

import (
	"net/http"
	"strings"
	"time"
)

// setCookieValue finds the value in a Set-Cookie line that sets the cookie of
// this name. The value is line[start:end], without white space or quotes around
// it. As in browsers (RFC 6265 section 5.2), it ends at the first ';' even
// within quotes.
func setCookieValue(line, name string) (start, end int, ok bool) {
	pair, _, _ := strings.Cut(line, ";")
	n, _, ok := strings.Cut(pair, "=")
	if !ok || strings.Trim(n, " \t") != name {
		return 0, 0, false
	}
	start, end = valueSpan(pair)
	return start, end, true
}

// deletesCookie tells whether the attributes of a Set-Cookie line make the
// client delete the cookie. If there are both, Max-Age counts and not Expires.
func deletesCookie(line string) bool {
	_, attributes, ok := strings.Cut(line, ";")
	if !ok {
		return false
	}
	// The value is left out, as net/http may refuse to parse it.
	c, err := http.ParseSetCookie("c=;" + attributes)
	if err != nil || c.MaxAge > 0 {
		return false
	}
	return c.MaxAge < 0 || !c.Expires.IsZero() && !c.Expires.After(time.Now())
}

// addSetCookie adds a cookie of Limpet's own behind those of the backend. A
// shared cache would hand one client's home to all clients, so the answer is
// kept out of shared caches unless the backend has set Cache-Control itself.
func addSetCookie(res *http.Response, cookie *http.Cookie) {
	res.Header.Add("Set-Cookie", cookie.String())
	if len(res.Header["Cache-Control"]) == 0 {
		res.Header.Set("Cache-Control", "private, no-store")
	}
}

// preflight tells whether r is a CORS preflight, which carries no cookies.
func preflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" &&
		r.Header.Get("Access-Control-Request-Method") != ""
}

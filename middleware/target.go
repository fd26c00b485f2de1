package middleware

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/limpet-go/limpet/internal/httpfield"
)

// errMalformed is what a request fails with that no backend is asked about.
var errMalformed = errors.New("limpet: malformed request")

// checkRequest returns why a request can't be passed on: what handlers in front have
// seen of it, and what a backend would take it for, must not be two things. It
// checks what net/http's servers don't; HTTP/2 lets most of it through.
func checkRequest(r *http.Request) error {
	var what string
	switch {
	case r.Method != "" && !httpfield.IsToken(r.Method):
		what = "the method is no token"
	case !validTarget(r):
		what = "the target is neither a path nor a URL of http or https"
	case !hasOneHost(r):
		what = "the host is none, or there are two"
	case !hasOneLength(r.Header["Content-Length"]):
		what = "the content's length is no number, or there are two"
	default:
		return nil
	}
	return fmt.Errorf("%w: %s", errMalformed, what)
}

// validTarget reports whether the request's target is in origin-form, in
// absolute-form with a host, or that of OPTIONS * (RFC 9112, section 3.2). Of
// another one, as x:/admin or x:admin, r.URL has the path in Opaque or a scheme that
// nobody looks at. HTTP/2 has no absolute-form (RFC 9113, section 8.3.1).
func validTarget(r *http.Request) bool {
	target := r.RequestURI
	switch {
	case r.URL.Opaque != "":
		return false
	case target == "", target[0] == '/': // a request made by a handler has none
		return true
	case target == "*":
		return r.Method == http.MethodOptions
	}
	scheme, rest, _ := strings.Cut(target, "://")
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	return r.ProtoMajor == 1 && (strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")) && isHost(rest)
}

// hasOneHost reports whether the request says whom it is for, once. HTTP/1 may leave
// that open. In HTTP/2 a Host field may stand beside :authority, and says the same
// (RFC 9113, section 8.3.1).
func hasOneHost(r *http.Request) bool {
	if r.Host == "" {
		return r.ProtoMajor == 1 && len(r.Header["Host"]) == 0
	}
	for i, host := range r.Header["Host"] {
		if i > 0 || !strings.EqualFold(host, r.Host) {
			return false
		}
	}
	return isHost(r.Host)
}

// hasOneLength reports whether the lines of Content-Length are one number. Of a line
// that isn't any, net/http's HTTP/2 server makes 0.
func hasOneLength(lines []string) bool {
	for _, line := range lines {
		if _, err := strconv.ParseUint(line, 10, 63); err != nil || line != lines[0] {
			return false
		}
	}
	return true
}

// isHost reports whether s is a host and perhaps a port, RFC 3986 section 3.2.2, or
// nearly so: user information, zones of addresses and escapes are in no Host field
// that a client means well by.
func isHost(s string) bool {
	end := 0
	if strings.HasPrefix(s, "[") {
		end = strings.IndexByte(s, ']') + 1
		addr, err := netip.ParseAddr(s[min(1, end):max(end-1, 0)])
		if err != nil || !addr.Is6() || addr.Zone() != "" {
			return false
		}
	} else {
		for end < len(s) && hostByte[s[end]] {
			end++
		}
	}
	port, colon := strings.CutPrefix(s[end:], ":")
	return end > 0 && (colon || port == "") && strings.Trim(port, "0123456789") == ""
}

// hostByte has the bytes that names of hosts are made of: unreserved and sub-delims,
// of RFC 3986.
var hostByte = func() (is [256]bool) {
	for _, c := range []byte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!$&'()*+,;=-._~") {
		is[c] = true
	}
	return is
}()

// setTarget has u, the outgoing request's URL, written as the client wrote it, byte
// for byte. URL.RequestURI would escape what browsers and old clients leave as it is,
// as | and ^, and with it decode what they have escaped: %2F would become a slash. A
// path or query that somebody changed, as StripPrefix, Options.Rewrite and an
// affinity do, counts as it is now. What can't be written so is an error.
func setTarget(in *http.Request, u *url.URL) error {
	path, query, _ := strings.Cut(in.RequestURI, "?")
	switch {
	case u.Opaque != "": // Options.Rewrite says so
		path = u.Opaque
	case u.Path == path && u.RawPath == "" && u.RawQuery == query && oneSlash(path):
		// Nothing in the path is escaped and nothing was changed, as mostly.
		path = in.RequestURI
		u.Opaque, u.RawQuery, u.ForceQuery = path, "", false
	default:
		var ok bool
		if path, ok = writtenPath(u); !ok {
			return fmt.Errorf("%w: URL.RawPath is no encoding of URL.Path: who changes one has to change the other", errMalformed)
		}
		// Behind an Opaque of two slashes net/http writes the scheme.
		if oneSlash(path) || path != u.EscapedPath() {
			u.Opaque = path
		}
	}
	if u.Opaque != "" && !oneSlash(u.Opaque) || path[0] != '/' && (path != "*" || in.RequestURI != "*") || !isTarget(path) || !isTarget(u.RawQuery) {
		return fmt.Errorf("%w: the target can't be written as it is", errMalformed)
	}
	return nil
}

// oneSlash reports whether s begins with one slash.
func oneSlash(s string) bool { return strings.HasPrefix(s, "/") && !strings.HasPrefix(s, "//") }

// isTarget reports whether s can be part of a target: one word, without a fragment,
// which some servers cut off.
func isTarget(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// writtenPath returns the path of u as it was written. net/url keeps that in RawPath
// if it differs from what it would write itself, and ignores it when it has become
// wrong, because somebody changed Path alone. That is good as long as no character
// was escaped that the path would then have bare.
func writtenPath(u *url.URL) (path string, ok bool) {
	if u.RawPath != "" && !strings.Contains(u.RawPath, "?") {
		if path, err := url.PathUnescape(u.RawPath); err == nil && path == u.Path {
			return u.RawPath, true
		}
	}
	return cmp.Or(u.EscapedPath(), "/"), !escapesReserved(u.RawPath)
}

// escapesReserved reports whether a character is escaped in path that says something
// else when it isn't: those that net/url leaves bare.
func escapesReserved(path string) bool {
	for i := range len(path) {
		if path[i] != '%' {
			continue
		}
		c, err := url.PathUnescape(path[i:min(i+3, len(path))])
		if err != nil || strings.Contains("/;:@&=+$,", c) {
			return true
		}
	}
	return false
}

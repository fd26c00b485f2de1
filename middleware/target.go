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

// errMalformed is the error of a request that isn't passed on to any backend, because it
// is malformed.
var errMalformed = errors.New("limpet: malformed request")

// checkRequest returns an error if handlers in front of the gateway may have understood a
// request in another way than a backend would. A guard in front would then protect
// nothing. It checks what net/http's servers don't; the one for HTTP/2 checks little.
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

// validTarget reports whether the request's target is in origin-form, in absolute-form
// with a host, or the * of OPTIONS (RFC 9112 section 3.2). With another one, such as
// x:/admin or x:admin, r.URL has the path in Opaque, or a scheme that no guard looks at.
// HTTP/2 has no absolute-form (RFC 9113 section 8.3.1).
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

// hasOneHost reports whether the request names one valid host. Over HTTP/1 it may be empty. In
// HTTP/2 a Host field may stand beside :authority if both are the same (RFC 9113 section
// 8.3.1).
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

// hasOneLength reports whether all lines of Content-Length are the same number. net/http's
// HTTP/2 server takes a line that is no number for 0.
func hasOneLength(lines []string) bool {
	for _, line := range lines {
		if _, err := strconv.ParseUint(line, 10, 63); err != nil || line != lines[0] {
			return false
		}
	}
	return true
}

// isHost reports whether s is a host with or without a port, as in RFC 3986 section 3.2.2.
// It refuses user information, zones of addresses and escapes, which no well-meant Host
// field has.
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

// hostByte is the set of bytes that a host's name may have: the unreserved and sub-delims
// of RFC 3986.
var hostByte = func() (is [256]bool) {
	for _, c := range []byte("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!$&'()*+,;=-._~") {
		is[c] = true
	}
	return is
}()

// setTarget changes u, the outgoing request's URL, so that the target is sent byte for
// byte as the client wrote it. URL.RequestURI would escape characters that some clients
// leave as they are, such as | and ^, and would then decode what the client has escaped:
// %2F would become a slash. If http.StripPrefix, Options.Rewrite or an affinity has changed
// the path or the query, the changed one is sent. A target that can't be sent as it is
// gives an error.
func setTarget(in *http.Request, u *url.URL) error {
	path, query, _ := strings.Cut(in.RequestURI, "?")
	switch {
	case u.Opaque != "": // Options.Rewrite has set it
		path = u.Opaque
	case u.Path == path && u.RawPath == "" && u.RawQuery == query && oneSlash(path):
		// The common case: nothing in the path is escaped, and nothing was changed.
		path = in.RequestURI
		u.Opaque, u.RawQuery, u.ForceQuery = path, "", false
	default:
		var ok bool
		if path, ok = writtenPath(u); !ok {
			return fmt.Errorf("%w: URL.RawPath is no encoding of URL.Path: who changes one has to change the other", errMalformed)
		}
		// net/http would write the scheme before an Opaque that begins with two slashes.
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

// isTarget reports whether s can be part of a target: it has no spaces or control
// characters, and no fragment, which some servers would cut off.
func isTarget(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// writtenPath returns the path of u as the client wrote it. net/url keeps that in RawPath
// if it differs from its own encoding of Path. If somebody has changed Path alone, RawPath
// is out of date and net/url ignores it. ok is false if the client had escaped a character
// that the path would then have unescaped, with another meaning.
func writtenPath(u *url.URL) (path string, ok bool) {
	if u.RawPath != "" && !strings.Contains(u.RawPath, "?") {
		if path, err := url.PathUnescape(u.RawPath); err == nil && path == u.Path {
			return u.RawPath, true
		}
	}
	return cmp.Or(u.EscapedPath(), "/"), !escapesReserved(u.RawPath)
}

// escapesReserved reports whether path has an escaped character that means something else
// when it isn't escaped, and that net/url doesn't escape.
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

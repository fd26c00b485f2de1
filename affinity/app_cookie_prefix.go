package affinity

import (
	"strings"
	"time"
)

// split separates the prefix from a value of the cookie. If there is none, rest
// is the whole value, and status is None, or Forged if a sealed prefix is
// expected and what stands before the '~' isn't one.
func (c *AppCookie) split(value string) (home, rest string, status Status) {
	name, rest, ok := strings.Cut(value, "~")
	switch {
	case !ok:
		return "", value, None
	case len(c.seal) > 0:
		if p, ok := c.seal.open(c.data, name); ok {
			return p.home, rest, Hit
		}
		return "", value, Forged
	case !isRoute(name):
		return "", value, None
	}
	if home, ok = routes(c.Backends).backend(name); ok {
		return home, rest, Hit
	}
	return "", rest, Unknown
}

// prefix puts the home before the values that the backend sets, and returns the
// key that the client has from now on.
//
// The prefix goes inside of quotes, although HAProxy puts it before them.
// Clients need not accept a quote in the middle of a value, and some drop the
// whole cookie for it.
func (c *AppCookie) prefix(a Answer) (string, error) {
	key, lines := a.Found.Key, a.Response.Header["Set-Cookie"]
	for i, line := range lines {
		start, end, ok := setCookieValue(line, c.Name)
		if !ok {
			continue
		}
		value, at := secretKey(unquote(line[start:end])), a.Home // as Find reads it
		if value != a.Found.Key {
			at = a.answeredBy()
		}
		prefix, err := c.mark(at)
		if err != nil {
			return key, err
		}
		lines[i] = line[:start] + prefix + line[start:]
		if !deletesCookie(line) {
			key = value
		}
	}
	return key, nil
}

// mark returns the prefix for a home, including its '~'.
func (c *AppCookie) mark(home string) (string, error) {
	if len(c.seal) == 0 {
		name, err := routes(c.Backends).name(home)
		return name + "~", err
	}
	now := uint32(time.Now().Unix())
	sealed, err := c.seal.seal(c.data, sealedPin{born: now, seen: now, home: home})
	return sealed + "~", err
}

// unquote removes quotes around a value. They remain after the prefix of a
// quoted value was taken off that HAProxy has put before the quotes.
func unquote(value string) string {
	if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
		return value[1 : n-1]
	}
	return value
}

package affinity

import (
	"strings"
	"time"
)

// split takes the prefix off a value of the cookie. rest is value as it is if
// it has none: Status None, or Forged for something that could have been one.
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

// prefix puts the home before the values that the backend sets, and returns
// the key that the client has then.
//
// The prefix goes inside of quotes (HAProxy puts it before them): a quote
// within a value is nothing that clients must put up with, and some drop
// the whole cookie for it.
func (c *AppCookie) prefix(a Answer) (string, error) {
	key, lines := a.Found.Key, a.Response.Header["Set-Cookie"]
	for i, line := range lines {
		start, end, ok := setCookieValue(line, c.Name)
		if !ok {
			continue
		}
		value, at := secretKey(line[start:end]), a.Home
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

// mark returns the prefix for a home, with its '~'.
func (c *AppCookie) mark(home string) (string, error) {
	if len(c.seal) == 0 {
		name, err := routes(c.Backends).name(home)
		return name + "~", err
	}
	now := uint32(time.Now().Unix())
	sealed, err := c.seal.seal(c.data, sealedPin{born: now, seen: now, home: home})
	return sealed + "~", err
}

// unquote takes the quotes off that HAProxy has put its prefix before.
func unquote(value string) string {
	if n := len(value); n > 1 && value[0] == '"' && value[n-1] == '"' {
		return value[1 : n-1]
	}
	return value
}

// Package setcookie tells whether browsers would keep a cookie as it is meant.
// What net/http refuses is only part of it: browsers drop others in silence.
package setcookie

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Check tells what is wrong with the name and the attributes of a cookie that a
// client is to keep: what can't be written (see [http.Cookie.Valid]), what
// deletes it, and what browsers don't take (RFC 6265bis section 5.7).
func Check(c *http.Cookie) error {
	switch {
	case c.MaxAge < 0:
		return errors.New("a negative MaxAge deletes it")
	case !c.Expires.IsZero() && c.Expires.Before(time.Now()):
		return fmt.Errorf("it has expired on %s, which deletes it", c.Expires.Format(time.DateOnly))
	case c.SameSite < 0 || c.SameSite > http.SameSiteNoneMode:
		return fmt.Errorf("there is no SameSite %d", c.SameSite)
	case c.Path != "" && c.Path[0] != '/':
		return fmt.Errorf("path %q doesn't begin with a '/', and browsers ignore it", c.Path)
	case NeedsSecure(c) && !c.Secure:
		return errors.New("browsers drop a cookie with SameSite=None, Partitioned or the prefix of its name unless it is Secure: set that too")
	case hasPrefix(c.Name, "__Host-") && (c.Domain != "" || c.Path != "/"):
		return errors.New("the prefix __Host- allows no Domain and only the Path /")
	case (hasPrefix(c.Name, "__Http-") || hasPrefix(c.Name, "__Host-Http-")) && !c.HttpOnly:
		return errors.New("the prefix of its name needs HttpOnly")
	}
	return c.Valid()
}

// NeedsSecure tells whether browsers drop the cookie unless it is Secure.
func NeedsSecure(c *http.Cookie) bool {
	return c.SameSite == http.SameSiteNoneMode || c.Partitioned || Prefixed(c.Name)
}

// Prefixed tells whether the name begins as one of which browsers demand more
// (RFC 6265bis section 4.1.3). They don't mind the case.
func Prefixed(name string) bool {
	return hasPrefix(name, "__Host-") || hasPrefix(name, "__Secure-") || hasPrefix(name, "__Http-")
}

func hasPrefix(name, prefix string) bool {
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

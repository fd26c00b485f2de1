package affinity

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// A Key tells clients apart by something that they send with each request. It
// may be called by many goroutines at once.
type Key interface {
	// Key returns the client's key, or "" if r has none.
	Key(r *http.Request) string
}

// A KeyFunc is a function that serves as a [Key].
type KeyFunc func(*http.Request) string

// Key calls f.
func (f KeyFunc) Key(r *http.Request) string { return f(r) }

// Validate refuses a nil function.
func (f KeyFunc) Validate() error {
	if f == nil {
		return errors.New("affinity: the KeyFunc is nil")
	}
	return nil
}

// Header is a [Key] by the value of the request header of this name. If the
// header has several lines, the first one counts. Clients choose the value. The
// name may be Host.
type Header string

// Key returns the header's value.
func (h Header) Key(r *http.Request) string {
	if strings.EqualFold(string(h), "Host") {
		return r.Host // net/http removes it from r.Header
	}
	return r.Header.Get(string(h))
}

// Validate refuses a name that no header can have.
func (h Header) Validate() error {
	name := http.Cookie{Name: string(h)} // a token too, RFC 9110 section 5.6.2
	if name.Valid() != nil {
		return fmt.Errorf("affinity: no header can have the name %q", string(h))
	}
	return nil
}

// Query is a [Key] by the value of the query parameter of this name, the first
// one that isn't empty. Clients choose the value.
//
// Only '&' separates parameters, as in the URL Standard. A value may have a ';'
// or a broken escape in it, which [net/url.ParseQuery] refuses: backends may
// read such a parameter, and its client must not lose its home.
type Query string

// Key returns the parameter's value.
func (q Query) Key(r *http.Request) string { return queryParam(r.URL.RawQuery, string(q)) }

// Validate refuses an empty name.
func (q Query) Validate() error {
	if q == "" {
		return errors.New("affinity: a Query key needs the name of a parameter")
	}
	return nil
}

// CookieValue is a [Key] by the value of the cookie of this name, the first one
// that isn't empty. Mostly the application sets the cookie, but a client may
// send any value.
//
// Many applications know their users by such a value. So the key is a hash of
// it, and neither a store nor a trace contains what would let somebody into a
// session.
type CookieValue string

// Key returns the hash of the cookie's value.
func (c CookieValue) Key(r *http.Request) string {
	for value := range cookieValues(r.Header["Cookie"], string(c)) {
		if value != "" {
			return secretKey(value)
		}
	}
	return ""
}

// Validate refuses a name that no cookie can have.
func (c CookieValue) Validate() error {
	if err := (&http.Cookie{Name: string(c)}).Valid(); err != nil {
		return fmt.Errorf("affinity: key by the cookie %q: %w", string(c), err)
	}
	return nil
}

// secretKey returns the key of a client for a value that must be kept secret: a
// hash.
func secretKey(value string) string {
	if value == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(value))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// defaultKey returns k, or &ClientAddr{} if k is a field that the user has not
// set.
func defaultKey(k Key) Key {
	if k == nil {
		return &ClientAddr{}
	}
	return k
}

// trustKey is trust for a field of the type Key. It sets the field to its
// default if it is nil.
func trustKey(k *Key, addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	*k = defaultKey(*k)
	trust(addr, secure, *k)
}

package affinity

import (
	"net/http"
	"net/netip"
)

// Hash is an [Affinity] that remembers nothing: it only gives the client a key,
// and whoever picks the backend hashes that. All replicas agree without sharing
// anything, and nothing is written anywhere.
//
// The price: clients move when the set of backends changes. When a backend
// drains or is lost its clients move away, and when it returns they move back,
// in the midst of their sessions. A [Table] of the same key doesn't do that.
type Hash struct {
	// Key tells clients apart. Nil means &ClientAddr{}.
	Key Key
}

// Find returns a pin that has only a Key.
func (h *Hash) Find(r *http.Request) (Pin, error) {
	return Pin{Key: defaultKey(h.Key).Key(r)}, nil
}

// Bind does nothing.
func (h *Hash) Bind(a Answer) (key string, err error) {
	return a.Found.Key, nil
}

// Trust forwards to Key.
func (h *Hash) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	trustKey(&h.Key, addr, secure)
}

// Validate forwards to Key.
func (h *Hash) Validate() error { return validate(h.Key) }

package affinity

import (
	"net/http"
	"net/netip"
)

// Hash is an [Affinity] that remembers nothing. It only gives each client a
// key, and the balancer hashes that key to choose the backend. All replicas
// agree without sharing anything, and nothing is written anywhere.
//
// The price is that clients move when the set of backends changes. If a backend
// drains or is lost, its clients move away. When it returns they move back, in
// the middle of their sessions. A [Table] with the same key avoids that.
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

// Trust calls Trust of Key.
func (h *Hash) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	trustKey(&h.Key, addr, secure)
}

// Validate calls Validate of Key.
func (h *Hash) Validate() error { return validate(h.Key) }

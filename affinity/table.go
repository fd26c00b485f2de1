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

// Table is an [Affinity] that remembers where each client is, by its key: a
// stick table. Unlike with [Hash], a client stays where it is when another
// backend comes or goes, and moves only when its own is gone.
//
// When the store fails, the client is known by its key alone, as with a Hash.
//
// A client that chooses its key, as one in a header or a cookie, can make up any
// number of them, and each takes room: an LRU forgets others for it, and a Redis
// needs a limit to its memory.
type Table struct {
	// Key tells clients apart. Nil means &ClientAddr{}.
	Key Key

	// Store keeps the pins. Nil means an [LRU] of the table's own; replicas
	// agree when they share a store. Lifetimes are the store's.
	Store Store

	// Name sets this table's pins apart from those of others: two tables that
	// share a store each need one. It goes before the key, with a ':' between.
	Name string

	lru LRU // used if Store is nil
}

// Find loads the client's home: Status is Hit if there is one, None otherwise.
func (t *Table) Find(r *http.Request) (Pin, error) {
	pin := Pin{Key: defaultKey(t.Key).Key(r)}
	if pin.Key == "" {
		return pin, nil
	}
	home, err := t.store().Load(r.Context(), t.storeKey(pin.Key))
	if err != nil {
		return pin, fmt.Errorf("affinity: table %q: load a pin: %w", t.Name, err)
	}
	if home != "" {
		pin.Backend, pin.Status = home, Hit
	}
	return pin, nil
}

// Bind stores a home that is new or has changed. If a parallel request of the
// client was bound to another one first, that one stands, and it is no error.
func (t *Table) Bind(a Answer) (key string, err error) {
	found := a.Found
	if found.Key == "" || a.Home == "" || a.Home == found.Backend {
		return found.Key, nil
	}
	_, err = t.store().Swap(a.Request.Context(), t.storeKey(found.Key), found.Backend, a.Home)
	if err != nil {
		err = fmt.Errorf("affinity: table %q: store a pin to backend %q: %w", t.Name, a.Home, err)
	}
	return found.Key, err
}

// Trust forwards to Key.
func (t *Table) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	trustKey(&t.Key, addr, secure)
}

// Validate refuses a Name with a ':' and forwards to Key and Store.
func (t *Table) Validate() error {
	if strings.Contains(t.Name, ":") {
		return errors.Join(fmt.Errorf("affinity: table: name %q has a ':'", t.Name), validate(t.Key, t.Store))
	}
	return validate(t.Key, t.Store)
}

func (t *Table) store() Store {
	if t.Store == nil {
		return &t.lru
	}
	return t.Store
}

// storeKey returns the key under which the store has the client. A client may
// send a long key, and a store counts its pins, not their bytes: so a long one
// is stored as its hash.
func (t *Table) storeKey(key string) string {
	if len(key) > 128 {
		sum := sha256.Sum256([]byte(key))
		key = "#" + base64.RawURLEncoding.EncodeToString(sum[:])
	}
	if t.Name == "" {
		return key
	}
	return t.Name + ":" + key
}

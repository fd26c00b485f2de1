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

// Table is an [Affinity] that remembers the backend of each client by the
// client's key: a stick table. Unlike with a [Hash], a client stays where it is
// when another backend comes or goes, and moves only when its own is gone.
//
// If the store fails, clients are placed by their keys alone, as with a Hash.
//
// A client that chooses its key, in a header or a cookie for instance, can make
// up any number of keys, and each takes room. An LRU drops the pins of others
// for them. A Redis needs a limit of its memory.
type Table struct {
	// Key tells clients apart. Nil means &ClientAddr{}.
	Key Key

	// Store keeps the pins. Nil means an [LRU] of this table's own. Replicas
	// agree if they share a store. The lifetimes of pins are those of the
	// store.
	Store Store

	// Name separates the pins of this table from others in the same store: each
	// of several tables that share a store needs a name. The key of a pin
	// begins with it and a ':'.
	Name string

	lru LRU // used if Store is nil
}

// Find loads the client's home. Status is Hit if there is one, and None
// otherwise.
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

// Bind stores the home if it is new or has changed. If a parallel request of
// the client has been bound to another backend before, that pin stays, and Bind
// returns no error.
func (t *Table) Bind(a Answer) (key string, err error) {
	found := a.Found
	if found.Key == "" || a.Home == "" {
		return found.Key, nil
	}
	a.keep(t.store(), t.storeKey, found.Key, a.Home)
	if a.Home == found.Backend {
		return found.Key, nil
	}
	_, err = t.store().Swap(a.Request.Context(), t.storeKey(found.Key), found.Backend, a.Home)
	if err != nil {
		err = fmt.Errorf("affinity: table %q: store a pin to backend %q: %w", t.Name, a.Home, err)
	}
	return found.Key, err
}

// Trust calls Trust of Key.
func (t *Table) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	trustKey(&t.Key, addr, secure)
}

// Validate refuses a Name with a ':', and calls Validate of Key and Store.
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
// send a long key, and stores count their pins but not the bytes in them. So a
// long key is replaced by its hash.
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

package affinity

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
)

// CookieMap is an [Affinity] by a cookie that the client chooses: a map gives
// the backend for each value, as `map $cookie_server $backend` does in an nginx
// configuration.
//
// Clients choose their backend here. Anybody can pick any backend of the map,
// and many can crowd one of them. [Cookie] doesn't let them.
//
// CookieMap never sets the cookie. middleware.AssignCookie does, or a script in
// the client. CookieMap doesn't remove the cookie from requests either, as
// backends may use it.
type CookieMap struct {
	// Name is the name of the cookie.
	Name string

	// Backends maps the cookie's value to the ID of a backend.
	Backends map[string]string

	// Default is the ID of the backend of a client that has no cookie or whose
	// value is not in Backends. If Default is "", such a client has no home.
	Default string

	// Client places the clients whose home is down. The cookie's value is not
	// used for that, since all clients with the same value would land on the
	// same other backend. Nil means &ClientAddr{}.
	Client Key
}

// Find looks up the cookie. Of several cookies of the name, the first whose
// value is in the map counts. Status is Hit, None without a cookie, or Unknown.
func (m *CookieMap) Find(r *http.Request) (Pin, error) {
	pin := Pin{Backend: m.Default, Key: defaultKey(m.Client).Key(r)}
	for value := range cookieValues(r.Header["Cookie"], m.Name) {
		if home, ok := m.Backends[value]; ok {
			pin.Backend, pin.Status = home, Hit
			break
		}
		pin.Status = Unknown
	}
	return pin, nil
}

// Bind does nothing, since the cookie is the client's own.
func (m *CookieMap) Bind(a Answer) (key string, err error) {
	return a.Found.Key, nil
}

// Trust calls Trust of Client.
func (m *CookieMap) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	trustKey(&m.Client, addr, secure)
}

// Validate refuses a name and values that no cookie can have, an empty map, and
// an empty ID in it. It also calls Validate of Client.
func (m *CookieMap) Validate() error {
	if err := (&http.Cookie{Name: m.Name}).Valid(); err != nil {
		return fmt.Errorf("affinity: cookie map: name %q: %w", m.Name, err)
	}
	if len(m.Backends) == 0 {
		return errors.New("affinity: cookie map: no backends")
	}
	for value, id := range m.Backends {
		if id == "" {
			return fmt.Errorf("affinity: cookie map: value %q names no backend: its ID is empty", value)
		}
		if err := (&http.Cookie{Name: m.Name, Value: value}).Valid(); err != nil {
			return fmt.Errorf("affinity: cookie map: value %q: %w", value, err)
		}
	}
	return validate(m.Client)
}

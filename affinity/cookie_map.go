package affinity

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
)

// CookieMap is an [Affinity] by a cookie that the client chooses: its value,
// looked up in a map, names the backend (the `map $cookie_server $backend` of
// an nginx configuration).
//
// Clients choose their backend here. Anyone can pick any backend of the map,
// and crowd one of them. [Cookie] doesn't let them.
//
// CookieMap never sets the cookie; middleware.AssignCookie does, or a script
// in the client. Nor is it stripped: a backend may have a use for it.
type CookieMap struct {
	// Name of the cookie.
	Name string

	// Backends maps the cookie's value to the ID of a backend.
	Backends map[string]string

	// Default is the home of a client whose cookie is missing or has a value
	// that is not in Backends. If "", such a client has no home.
	Default string

	// Client places the clients whose home is Down. The cookie's value isn't
	// used for it: all who share a value would land on one survivor. Nil means
	// &ClientAddr{}.
	Client Key
}

// Find looks up the cookie. Of several with the name, the first whose value is
// in the map counts. Status is Hit, None without a cookie, or Unknown.
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

// Bind does nothing: the cookie is the client's own.
func (m *CookieMap) Bind(a Answer) (key string, err error) {
	return a.Found.Key, nil
}

// Trust forwards to Client.
func (m *CookieMap) Trust(addr func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	trustKey(&m.Client, addr, secure)
}

// Validate refuses a name and values that no cookie can have, an empty map and an
// empty ID in it, and forwards to Client.
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

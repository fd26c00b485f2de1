package affinity

import (
	"errors"
	"fmt"
)

// routes maps the names that backends have in readable marks to their IDs. Nil
// means that the names are the IDs.
type routes map[string]string

// maxRoute is the length of the longest name, and of the longest ID of a
// backend.
const maxRoute = 64

// backend returns the ID of the backend of this name. known is false if there
// is none or if it can't be a name, so that nothing of a client's making is
// taken for an ID without a check. A name that is too long is refused before it
// is hashed, since a value with many separators contains many of them.
func (rs routes) backend(name string) (id string, known bool) {
	if rs == nil {
		return name, isRoute(name)
	}
	if len(name) <= maxRoute {
		id, known = rs[name]
	}
	return id, known
}

// name returns the name of a backend. If it has several, the first in
// alphabetical order is returned.
func (rs routes) name(backend string) (name string, err error) {
	if rs == nil {
		if !isRoute(backend) {
			return "", fmt.Errorf("backend ID %q can't be a route", backend)
		}
		return backend, nil
	}
	for n, id := range rs {
		if id == backend && (name == "" || n < name) {
			name = n
		}
	}
	if name == "" {
		return "", fmt.Errorf("backend %q has no route", backend)
	}
	return name, nil
}

func (rs routes) validate() error {
	if rs != nil && len(rs) == 0 {
		return errors.New("its Backends is empty, so no route would be known; nil means that the IDs of backends are the routes")
	}
	for name, id := range rs {
		if id == "" {
			return fmt.Errorf("route %q names no backend: its ID is empty", name)
		}
		if !isRoute(name) {
			return fmt.Errorf("route %q of backend %q: want 1 to %d letters, digits and ._:-", name, id, maxRoute)
		}
	}
	return nil
}

// isRoute tells whether s can be a name, by the rules for a backend's ID in a
// pool.
func isRoute(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == '.', c == '_', c == ':', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxRoute
}

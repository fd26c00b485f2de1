package affinity

import (
	"context"
	"fmt"
	"net/http"
)

// load returns the pin of a client by the hash of its cookie.
func (c *AppCookie) load(ctx context.Context, key string) (Pin, error) {
	pin := Pin{Key: key}
	if key == "" {
		return pin, nil
	}
	home, err := c.store().Load(ctx, c.storeKey(key))
	pin.Status = Unknown
	switch {
	case err != nil:
		return pin, fmt.Errorf("affinity: cookie %q of the application: load a pin: %w", c.Name, err)
	case home != "":
		pin.Backend, pin.Status = home, Hit
	}
	return pin, nil
}

// learn stores which backend the values belong to that the backend sets. If the
// backend doesn't set the cookie, it stores where the value belongs that the
// client has. It returns the key that the client has from now on.
func (c *AppCookie) learn(a Answer) (string, error) {
	ctx := a.Request.Context()
	key, sets, deletes := a.Found.Key, false, false
	for _, line := range a.Response.Header["Set-Cookie"] {
		start, end, ok := setCookieValue(line, c.Name)
		if !ok {
			continue
		}
		if start == end || deletesCookie(line) {
			deletes = true
			continue
		}
		key, sets = secretKey(line[start:end]), true
		if key == a.Found.Key {
			continue
		}
		if err := c.claim(ctx, key, a.answeredBy()); err != nil {
			return key, err
		}
	}
	switch {
	case key == "":
		return "", nil
	case key != a.Found.Key:
		a.keep(c.store(), c.storeKey, key, a.answeredBy())
		return key, nil
	case deletes && !sets:
		return key, c.forget(a.Request, a.Found)
	}
	a.keep(c.store(), c.storeKey, key, a.Home)
	if a.Home == a.Found.Backend {
		return key, nil
	}
	// As in a Table: if a parallel request of the client has been bound to
	// another backend before, that pin stays.
	_, err := c.store().Swap(ctx, c.storeKey(key), a.Found.Backend, a.Home)
	return key, err
}

// claim stores home for a value that a backend has just made. If the store
// knows the value already, that pin is obsolete and is replaced.
func (c *AppCookie) claim(ctx context.Context, key, home string) error {
	now, err := c.store().Swap(ctx, c.storeKey(key), "", home)
	if err == nil && now != home {
		_, err = c.store().Swap(ctx, c.storeKey(key), now, home)
	}
	return err
}

// forget removes the pin of a cookie that the backend deletes. If the client
// has several cookies of the name, of different paths perhaps, it can't be told
// which one is deleted, and all pins stay.
func (c *AppCookie) forget(r *http.Request, found Pin) error {
	if found.Backend == "" {
		return nil
	}
	values := 0
	for range cookieValues(r.Header["Cookie"], c.Name) {
		values++
	}
	if values != 1 {
		return nil
	}
	_, err := c.store().Swap(r.Context(), c.storeKey(found.Key), found.Backend, "")
	return err
}

func (c *AppCookie) store() Store {
	if c.Store == nil {
		return &c.lru
	}
	return c.Store
}

func (c *AppCookie) storeKey(key string) string { return c.Name + ":" + key }

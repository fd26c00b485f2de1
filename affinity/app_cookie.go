package affinity

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// AppCookie is an [Affinity] by a cookie that the application sets for reasons
// of its own, as the PHPSESSID of a session or the io of Engine.IO 3. There are
// two ways.
//
// It is learnt as it passes, and where each value belongs is kept in a Store:
// nothing changes on the wire. This is `sticky learn` of nginx, with
// create=$upstream_cookie_NAME and lookup=$cookie_NAME. A value that the store
// doesn't know, as after a restart, is learnt from the request once a backend
// has answered it without setting another: so the sessions of yesterday stay
// where they are put first, and whoever makes up values fills the store, as with
// a [Table]. A deleted cookie is forgotten. Lifetimes are the store's.
//
// Or, with Prefix, the backend's name and a '~' go before the value on its way
// to the client, and are taken off before a backend sees it: nothing is stored,
// and any number of replicas work side by side. This is `cookie NAME prefix` of
// HAProxy. The prefix changes only when the application sets the cookie again;
// until then, a client whose home is gone is placed by its value, always on the
// same backend. It lasts as long as the cookie and has no lifetime of its own.
//
// The attributes of the cookie, and all other cookies, stay as they were
// written. Keys of clients are hashes of the value, see [CookieValue].
type AppCookie struct {
	// Name of the cookie, as the application sets it.
	Name string

	// Store keeps what is learnt, under the cookie's name, a ':' and the hash
	// of its value. Nil means an [LRU] of its own; replicas agree when they
	// share a store.
	Store Store

	// Prefix marks the value rather than learn it.
	//
	// The names in the prefix can be read, and a client that changes one has
	// chosen its backend, unless there are Secrets. Nor can a readable prefix be
	// told from a value that begins with letters, digits or ._:- and a '~': if
	// such values may reach the gateway without a prefix, as from before it was
	// there, use Secrets.
	Prefix bool

	// Backends maps names in a readable prefix to the IDs of backends (what
	// HAProxy has in `server ... cookie NAME`). Nil means that they are the IDs.
	Backends map[string]string

	// Secrets seal the prefix, so that a client can neither read nor make it, just
	// as those of [Cookie] do; one set may serve both. What none of them
	// opens goes to the backend as it is, and a prefix is never made anew: an old
	// secret is needed for as long as the application's cookies last.
	Secrets [][]byte

	lru  LRU // used if Store is nil
	once sync.Once
	data []byte
	seal sealer
	err  error // what Validate returns
}

// Find looks up the cookie, the first whose home is found if there are several.
// Status is None without one, or if it has no prefix yet; Unknown if it is not
// in the store, or the store fails, or its prefix is not in Backends; Forged if
// no secret opens the prefix.
func (c *AppCookie) Find(r *http.Request) (Pin, error) {
	if err := c.Validate(); err != nil {
		return Pin{}, err
	}
	var pin Pin
	for value := range cookieValues(r.Header["Cookie"], c.Name) {
		now, err := c.look(r, value)
		if err != nil {
			return now, err
		}
		if now.Status == Hit {
			return now, nil
		}
		if pin.Status == None && (pin.Key == "" || now.Status != None) {
			pin = now
		}
	}
	return pin, nil
}

// look finds the pin of one value of the cookie.
func (c *AppCookie) look(r *http.Request, value string) (Pin, error) {
	if c.Prefix {
		home, rest, status := c.split(value)
		if status == Forged {
			return Pin{Status: Forged}, nil
		}
		return Pin{Backend: home, Key: secretKey(unquote(rest)), Status: status}, nil
	}
	return c.load(r.Context(), secretKey(value))
}

// Bind prefixes or learns the cookie if the backend sets it. If the store fails,
// or the home can't be named in a prefix, the cookie stays as it is.
//
// If another backend stood in for a.Home, a value that is new to the client
// belongs to that one.
func (c *AppCookie) Bind(a Answer) (key string, err error) {
	if err := c.Validate(); err != nil || a.Home == "" {
		return a.Found.Key, err
	}
	if c.Prefix {
		key, err = c.prefix(a)
	} else {
		key, err = c.learn(a)
	}
	if err != nil {
		err = fmt.Errorf("affinity: cookie %q of the application, set by backend %q: %w", c.Name, a.Home, err)
	}
	return key, err
}

// Rewrite takes the prefix off, that of a backend that is not known any more too.
func (c *AppCookie) Rewrite(out *http.Request, _ Pin) {
	lines := out.Header["Cookie"]
	if !c.Prefix || len(lines) == 0 || c.Validate() != nil {
		return
	}
	left := maxValues
	out.Header["Cookie"] = editCookies(lines, c.Name, func(value string) string {
		if left--; left < 0 {
			return value
		}
		_, rest, _ := c.split(value)
		return rest
	})
}

// Validate tells what is wrong with the fields: a name that no cookie can have,
// secrets that are too short, options that don't go together. As long as it
// returns an error, so do Find and Bind, and no client is pinned.
func (c *AppCookie) Validate() error {
	c.once.Do(c.init)
	return c.err
}

func (c *AppCookie) init() {
	var err error
	if c.seal, err = newSealer("prefix", c.Secrets); err == nil {
		err = c.check()
	}
	if err != nil {
		c.err = fmt.Errorf("affinity: cookie %q of the application: %w", c.Name, err)
	}
	c.data = sealedData(c.Name)
}

func (c *AppCookie) check() error {
	if err := (&http.Cookie{Name: c.Name}).Valid(); err != nil {
		return err
	}
	switch {
	case !c.Prefix && (c.Backends != nil || c.Secrets != nil):
		return errors.New("there are Backends or Secrets, which are for a Prefix")
	case c.Prefix && c.Store != nil:
		return errors.New("a Prefix needs no Store")
	case c.Backends != nil && c.Secrets != nil:
		return errors.New("a sealed prefix has IDs in it, not the names in Backends")
	}
	if err := routes(c.Backends).validate(); err != nil {
		return err
	}
	return validate(c.Store)
}

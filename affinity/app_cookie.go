package affinity

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// AppCookie is an [Affinity] by a cookie that the application sets for reasons
// of its own, such as the PHPSESSID of a session or the io of Engine.IO 3. It
// works in one of two ways.
//
// Without Prefix it learns. When a backend sets the cookie, the Store keeps
// which backend the value belongs to, and nothing changes on the wire. This is
// nginx's `sticky learn` with create=$upstream_cookie_NAME and
// lookup=$cookie_NAME. The Store may not know the value of a request, as after
// a restart. Such a value is learnt once a backend has answered the request
// without setting another one: sessions from before the restart stay at the
// backend where their next request is placed. It follows that a client that
// makes up values fills the store, as with a [Table]. When the cookie is
// deleted its value is forgotten. The lifetimes of pins are those of the store.
//
// With Prefix it writes the backend's name and a '~' before the value on its
// way to the client, and removes them before a backend sees it. Nothing is
// stored, and any number of replicas work side by side. This is HAProxy's
// `cookie NAME prefix`. The prefix changes only when the application sets the
// cookie again. Until then a client whose home is gone is placed by its value,
// always on the same backend. The pin lasts as long as the cookie and has no
// lifetime of its own.
//
// The attributes of the cookie, and all other cookies, stay as they were
// written. The key of a client is a hash of the value, see [CookieValue].
type AppCookie struct {
	// Name is the name of the cookie that the application sets.
	Name string

	// Store keeps what is learnt, under a key made of Name, a ':' and the hash
	// of the value. Nil means an [LRU] of this AppCookie's own. Replicas agree
	// if they share a store.
	Store Store

	// Prefix marks the value of the cookie instead of learning it.
	//
	// Without Secrets, clients can read the names in the prefix and choose
	// their backend by changing one. Also, a readable prefix looks like a value
	// that begins with letters, digits or ._:- and a '~'. If such values may
	// reach the gateway without a prefix, because they were set before the
	// gateway was there, use Secrets.
	Prefix bool

	// Backends maps the names in a readable prefix to the IDs of backends, as
	// HAProxy does with `server ... cookie NAME`. Nil means that the names are
	// the IDs.
	Backends map[string]string

	// Secrets seal the prefix, so that a client can neither read nor make one.
	// They are used as those of [Cookie], and the same secrets may serve both.
	// A prefix that none of them opens goes to the backend as part of the
	// value. A prefix is never made anew before the application sets the cookie
	// again, so an old secret is needed for as long as the application's
	// cookies last.
	Secrets [][]byte

	lru  LRU // used if Store is nil
	once sync.Once
	data []byte // the additional data of seal
	seal sealer // empty for a readable prefix
	err  error  // what Validate returns
}

// Find looks up the cookie. If the client sends several of the name, the first
// whose home is found counts. Status is None without a cookie, or if its value
// has no prefix yet. It is Unknown if the store doesn't have the value or
// fails, or if the prefix is not in Backends. It is Forged if no secret opens
// the prefix.
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

// look returns the pin of one value of the cookie.
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

// Bind prefixes or learns the value if the backend sets the cookie. If the
// store fails, or the home can't be named in a prefix, the cookie stays as it
// is.
//
// If another backend stood in for a.Home, a value that is new to the client
// belongs to the backend that answered.
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

// Rewrite removes the prefix, even that of a backend which is not known any
// more.
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

// Validate refuses a name that no cookie can have, secrets that are too short
// or easy to guess, and options that don't go together. As long as it returns
// an error, Find and Bind return it too, and no client is pinned.
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

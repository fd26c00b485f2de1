package affinity

import (
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/limpet-go/limpet/internal/setcookie"
)

// Cookie is an [Affinity] by a cookie of Limpet's own. Its value is encrypted
// and authenticated: a client can neither read which backend it is at nor
// choose another one. A client can copy the value, though, and whoever has the
// copy is sent to the same backend.
//
// Nothing is stored in the gateway, so any number of replicas work side by side
// as long as they have the same Secrets. The zero value is ready for one
// process. A Cookie must not be copied after its first use. Gateways may share one only
// if they have the same backends and the same ClientIP, since the first of them sets
// OverTLS. Other gateways that are reached at the same host name need one each, with
// another Name or Path: a client keeps only the last cookie of a name.
//
// Once a client is bound, the cookie is sent again only if its home changes, or
// if a sliding lifetime has to be renewed. It stands behind the Set-Cookie
// fields of the backend. A shared cache would hand one client's home to all
// clients, so an answer that sets the cookie gets `Cache-Control: private,
// no-store` unless it has a Cache-Control of its own. The answer to a CORS
// preflight never sets the cookie.
type Cookie struct {
	// Cookie has the attributes of the cookie: Name, Path, Domain, MaxAge,
	// Expires, SameSite, Partitioned and Secure. Its Value is ignored, and
	// HttpOnly is always set.
	//
	// Name is "limpet" by default. A client that uses TLS gets the cookie with
	// the prefix "__Host-" before the name, which keeps other hosts of the
	// domain from overwriting it. The prefix is left out for other clients, and
	// if a Domain, a Path other than "/" or a Name that already has a prefix is
	// given. Both names are understood, the one with the prefix first.
	//
	// Path is "/" by default. SameSite is Lax by default, or None if
	// Partitioned is set.
	//
	// Secure is set for a client that uses TLS. For other clients it is set if
	// it is asked for here, or if SameSite=None, Partitioned or the prefix of
	// the name demand it. A browser on plain HTTP drops such a cookie, as it
	// would drop it without Secure. A gateway with one of these needs TLS in
	// front of it; OverTLS says whether the gateway knows of that TLS.
	Cookie http.Cookie

	// Secrets seal the cookie. Each has at least 32 random bytes. The first one
	// seals and all of them open. A cookie that another than the first has
	// sealed is issued anew when its client comes back.
	//
	// To rotate, add the new secret as the second one on all replicas, then
	// move it to the front on all. Remove the old one when all clients have
	// come back or their cookies have expired. One secret seals 2^32 cookies at
	// most (NIST SP 800-38D section 8.3).
	//
	// Without secrets, the Cookie makes a random one and logs a warning: other
	// replicas, and this one after a restart, take its cookies for forged.
	Secrets [][]byte

	// Idle is the time without a request after which a client loses its home.
	// The cookie is issued anew once a quarter of it has passed, so a client
	// that comes back within three quarters of Idle always finds its home.
	// Whole seconds; 0 means that a pin doesn't expire for lack of requests.
	//
	// A tunnel is one request, however long it is open: no cookie can be set
	// while it is. Idle should be longer than tunnels live, which MaxAge of
	// upgrade.Proxy limits. A client that comes back later is Expired, and is
	// placed by its key.
	Idle time.Duration

	// Age is the time after which a client loses its home even if it sends
	// requests, counted from when it was bound to that home. Whole seconds; 0
	// means never.
	Age time.Duration

	// Keep leaves the cookie on the request to the backend.
	Keep bool

	// Preserve lets the backend end a pin, for example at a logout, by setting
	// or deleting the cookie itself. The backend's Set-Cookie then goes to the
	// client, and the answer gets none of Limpet's. The backend must use the
	// name that the client has, see Cookie. Without Preserve, a backend's
	// Set-Cookie for any of the names is removed from its answer.
	Preserve bool

	// PostOnly sets the cookie only on answers to POST requests. Clients are
	// pinned and moved, and their cookies renewed, only with those. All other
	// answers stay cacheable.
	PostOnly bool

	// OverTLS tells whether the client uses TLS. If nil, a gateway sets it to
	// its own judgement. Without a gateway it is whether r.TLS is set.
	OverTLS func(*http.Request) bool

	// Logger gets the warning about missing Secrets. Nil means slog.Default().
	Logger *slog.Logger

	random []byte // in place of Secrets, see RandomSecrets

	once  sync.Once
	names []cookieName // the names that the cookie may have, the prefixed one first
	seals sealer
	err   error // what Validate returns
}

type cookieName struct {
	name string
	data []byte // the additional data of values under this name
}

// skew is how far the clock of the replica that has sealed a cookie may be
// ahead of the one here.
const skew = time.Minute

// sliding is the Note of a pin whose cookie has to be issued anew. It says when
// the client was bound to its home, in Unix seconds.
type sliding uint32

// Find opens the cookie. A browser may send several, such as one that is
// partitioned and one that isn't: the one sealed last counts. An Expired pin
// has a Key but no Backend.
func (c *Cookie) Find(r *http.Request) (Pin, error) {
	if err := c.Validate(); err != nil {
		return Pin{}, err
	}
	lines := r.Header["Cookie"]
	if len(lines) == 0 {
		return Pin{}, nil
	}
	var (
		best   sealedPin
		status Status
	)
	for _, n := range c.names { // a hit under the first name makes the others irrelevant
		for value := range cookieValues(lines, n.name) {
			p, ok := c.seals.open(n.data, value)
			switch {
			case !ok:
				if status == None {
					status = Forged
				}
			case c.expired(p):
				if status != Hit && (status != Expired || p.seen > best.seen) {
					best, status = p, Expired
				}
			case status != Hit || p.seen > best.seen:
				best, status = p, Hit
			}
		}
		if status == Hit {
			break
		}
	}
	pin := Pin{Key: best.key, Status: status}
	if status == Hit {
		pin.Backend = best.home
		if best.old || c.Idle > 0 && since(best.seen) >= c.Idle/4 {
			pin.Note = sliding(best.born)
		}
	}
	return pin, nil
}

// Bind sets the cookie if a.Found is not a Hit on a.Home, or if the cookie has
// to be issued anew. A client without a key gets a random one.
func (c *Cookie) Bind(a Answer) (key string, err error) {
	found := a.Found
	if err := c.Validate(); err != nil {
		return found.Key, err
	}
	if c.backendSets(a.Response.Header) {
		return found.Key, nil
	}
	if c.PostOnly && a.Request.Method != http.MethodPost {
		return found.Key, nil
	}
	born, slide := found.Note.(sliding)
	stays := found.Status == Hit && a.Home == found.Backend
	if a.Home == "" || stays && !slide || preflight(a.Request) {
		return found.Key, nil
	}
	now := uint32(time.Now().Unix())
	p := sealedPin{born: now, seen: now, key: found.Key, home: a.Home}
	if stays {
		p.born = uint32(born)
	}
	if p.key == "" {
		p.key = rand.Text()[:16] // 80 bits
	}

	tls := a.Request.TLS != nil
	if c.OverTLS != nil {
		tls = c.OverTLS(a.Request)
	}
	n := c.names[len(c.names)-1]
	if tls {
		n = c.names[0]
	}
	value, err := c.seals.seal(n.data, p)
	if err != nil {
		return found.Key, fmt.Errorf("affinity: cookie %q for backend %q: %w", n.name, a.Home, err)
	}
	cookie := c.attributes()
	cookie.Name, cookie.Value = n.name, value
	cookie.Secure = cookie.Secure || tls
	addSetCookie(a.Response, &cookie)
	return p.key, nil
}

// backendSets tells whether the backend has set the cookie itself and is
// allowed to. If it is not allowed to, its lines are removed from h.
func (c *Cookie) backendSets(h http.Header) bool {
	ours := func(line string) bool {
		return slices.ContainsFunc(c.names, func(n cookieName) bool {
			_, _, ok := setCookieValue(line, n.name)
			return ok
		})
	}
	lines := h["Set-Cookie"]
	if !slices.ContainsFunc(lines, ours) {
		return false
	}
	if c.Preserve {
		return true
	}
	h["Set-Cookie"] = slices.DeleteFunc(lines, ours)
	return false
}

// Rewrite removes the cookie from the request to the backend unless Keep is
// set. It does so under all its names, whether the value is genuine or not.
func (c *Cookie) Rewrite(out *http.Request, _ Pin) {
	lines := out.Header["Cookie"]
	if c.Keep || len(lines) == 0 {
		return
	}
	c.once.Do(c.init)
	for _, n := range c.names {
		lines = stripCookies(lines, n.name)
	}
	if len(lines) == 0 {
		delete(out.Header, "Cookie")
		return
	}
	out.Header["Cookie"] = lines
}

// Trust sets OverTLS if it is nil.
func (c *Cookie) Trust(_ func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	if c.OverTLS == nil {
		c.OverTLS = secure
	}
}

// Validate refuses secrets that are too short or easy to guess,
// and names and attributes that no cookie can have, that delete the cookie, or
// that contradict each other. As long as it returns an error, Find and Bind
// return it too, and no client is pinned.
func (c *Cookie) Validate() error {
	c.once.Do(c.init)
	return c.err
}

// init computes what is the same for all requests.
func (c *Cookie) init() {
	cookie := c.attributes()
	names := []string{cookie.Name}
	if !setcookie.Prefixed(cookie.Name) && cookie.Domain == "" && cookie.Path == "/" {
		names = []string{"__Host-" + cookie.Name, cookie.Name}
	}
	for _, name := range names {
		c.names = append(c.names, cookieName{name, sealedData(name)})
	}
	secrets := c.secretsOrRandom()
	var err error
	if c.seals, err = newSealer("cookie", secrets); err == nil {
		err = c.check(cookie)
	}
	if err != nil {
		c.err = fmt.Errorf("affinity: cookie %q: %w", cookie.Name, err)
	}
}

// secretsOrRandom returns Secrets, or a random one, that of another process if it was
// inherited.
func (c *Cookie) secretsOrRandom() [][]byte {
	if len(c.Secrets) > 0 {
		c.random = nil
		return c.Secrets
	}
	if c.random == nil {
		c.random = secretsOrRandom(nil, c.Logger, "cookie", "cookie", c.attributes().Name)[0]
	}
	return [][]byte{c.random}
}

func (c *Cookie) check(cookie http.Cookie) error {
	for _, d := range []time.Duration{c.Idle, c.Age} {
		if d < 0 || d%time.Second != 0 {
			return fmt.Errorf("lifetime of %v: whole seconds are needed", d)
		}
	}
	return setcookie.Check(&cookie)
}

// attributes returns the cookie without a value, as a client on plain HTTP gets
// it.
func (c *Cookie) attributes() http.Cookie {
	cookie := c.Cookie
	cookie.Value, cookie.HttpOnly = "", true
	if cookie.Name == "" {
		cookie.Name = "limpet"
	}
	if cookie.Path == "" {
		cookie.Path = "/"
	}
	if cookie.SameSite == 0 {
		cookie.SameSite = http.SameSiteLaxMode
		if cookie.Partitioned {
			cookie.SameSite = http.SameSiteNoneMode // only cross-site requests have a partition
		}
	}
	cookie.Secure = cookie.Secure || setcookie.NeedsSecure(&cookie)
	return cookie
}

// expired tells whether Idle or Age has passed. A time in the future comes from
// a replica whose clock is ahead. If it is more than skew ahead it counts as
// expired, as the pin would last too long.
func (c *Cookie) expired(p sealedPin) bool {
	if c.Idle == 0 && c.Age == 0 {
		return false
	}
	idle := since(p.seen)
	return c.Idle > 0 && idle >= c.Idle || c.Age > 0 && since(p.born) >= c.Age || idle < -skew
}

func since(unix uint32) time.Duration { return time.Since(time.Unix(int64(unix), 0)) }

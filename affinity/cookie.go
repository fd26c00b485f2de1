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
// and authenticated: a client can neither read where it is nor choose. It can
// copy the value, though, and whoever has the copy goes to the same backend.
//
// Nothing is kept in the gateway, so any number of replicas work side by side
// as long as they have the same Secrets. The zero value is ready for one process.
// A Cookie must not be copied after its first use.
//
// Once bound, the cookie is sent again only when the client's home changes or a
// sliding lifetime asks for it, behind the Set-Cookie fields of the backend. An
// answer that carries it gets `Cache-Control: private, no-store` unless it has
// a Cache-Control of its own: a shared cache would hand one client's home to
// all. The answer to a CORS preflight never carries it.
type Cookie struct {
	// Cookie has the attributes: Name, Path, Domain, MaxAge, Expires, SameSite,
	// Partitioned and Secure. Its Value is ignored and HttpOnly is always set.
	//
	// The name is "limpet" if none is given. To a client that came over TLS it
	// is sent with the prefix "__Host-", which keeps other hosts of the domain
	// from overwriting it; to others, and if a Domain, a Path other than "/"
	// or a Name that has a prefix already is given, the name is as it stands.
	// Both names are understood, the prefixed one first.
	//
	// Path is "/" by default. SameSite is Lax, or None if Partitioned is set.
	// Secure is set for a client that came over TLS. It is also set, however
	// the client came, if asked for here or if SameSite=None, Partitioned or
	// the name's prefix demand it: over plain HTTP a browser then drops the
	// cookie, as it would drop it without Secure. Such a gateway needs TLS in
	// front; whether it is told so is up to OverTLS.
	Cookie http.Cookie

	// Secrets seal the cookie, each of at least 32 random bytes each. The first one
	// seals, all of them open, and a cookie that another one sealed is issued anew
	// when its client comes. To rotate, add the new secret as the second one on
	// all replicas, then move it to the front on all, and take the old one out
	// when the clients have been here, or their cookies have expired. One secret
	// seals 2^32 cookies at most (NIST SP 800-38D section 8.3).
	//
	// Without secrets a random one is made for this Cookie, and a warning logged:
	// other replicas, and this one after a restart, take its cookies for forged.
	Secrets [][]byte

	// Idle is the time after which a client that sends no requests has lost
	// its home. The cookie is issued anew once a quarter of it has passed, so
	// a client that comes back within three quarters always finds its home.
	// Whole seconds; 0 means that a pin doesn't expire by idleness.
	Idle time.Duration

	// Age is the time after which a client has lost its home anyway, counted
	// from when it was bound to it. Whole seconds; 0 means never.
	Age time.Duration

	// Keep leaves the cookie on the request to the backend.
	Keep bool

	// Preserve lets the backend end a pin, as with a logout, by setting or
	// deleting the cookie itself: its Set-Cookie goes to the client, and that
	// answer gets none of Limpet's. The backend must know the name that the
	// client has, see above. Otherwise a Set-Cookie of a backend for any of the
	// names is taken off its answer.
	Preserve bool

	// PostOnly sets the cookie only on answers to POST requests: a client is
	// pinned, moved and slid with those, and all other answers stay cacheable.
	PostOnly bool

	// OverTLS tells whether the client came over TLS. If nil, a gateway fills
	// it in with its own judgement; without a gateway it is r.TLS != nil.
	OverTLS func(*http.Request) bool

	// Logger is for the warning about missing Secrets. Nil means slog.Default().
	Logger *slog.Logger

	once  sync.Once
	names []cookieName // which the cookie may have, the prefixed one first
	seals sealer
	err   error // what Validate returns
}

type cookieName struct {
	name string
	data []byte
}

// skew is how far ahead the clock of the replica that sealed a cookie may be.
const skew = time.Minute

// sliding is the note of a pin whose cookie is to be issued anew: when the
// client was bound to its home, in Unix seconds.
type sliding uint32

// Find opens the cookie. If there are several, as when a browser has one that
// is partitioned and one that isn't, the one sealed last counts. An Expired
// pin has lost its home and kept its Key.
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
	for _, n := range c.names {
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

// Bind sets the cookie if a.Found is not a Hit on a.Home or is due to slide. A
// client without a key is given a random one.
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

// backendSets tells whether the backend has set the cookie itself and may. If it
// may not, its lines are taken off.
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

// Rewrite strips the cookie from the request to the backend, under all its
// names and whether it is genuine or not, unless Keep is set.
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

// Trust fills in OverTLS if it is nil.
func (c *Cookie) Trust(_ func(*http.Request) netip.Addr, secure func(*http.Request) bool) {
	if c.OverTLS == nil {
		c.OverTLS = secure
	}
}

// Validate tells what is wrong with the fields: secrets that are too short, given
// twice or easy to guess, names and attributes that no cookie can have, that delete
// it or that contradict each other. As long as it returns an error, so do Find
// and Bind, and no client is pinned.
func (c *Cookie) Validate() error {
	c.once.Do(c.init)
	return c.err
}

// init settles what doesn't change from one request to the next.
func (c *Cookie) init() {
	cookie := c.attributes()
	names := []string{cookie.Name}
	if !setcookie.Prefixed(cookie.Name) && cookie.Domain == "" && cookie.Path == "/" {
		names = []string{"__Host-" + cookie.Name, cookie.Name}
	}
	for _, name := range names {
		c.names = append(c.names, cookieName{name, sealedData(name)})
	}
	secrets := secretsOrRandom(c.Secrets, c.Logger, "cookie", "cookie", cookie.Name)
	var err error
	if c.seals, err = newSealer("cookie", secrets); err == nil {
		err = c.check(cookie)
	}
	if err != nil {
		c.err = fmt.Errorf("affinity: cookie %q: %w", cookie.Name, err)
	}
}

func (c *Cookie) check(cookie http.Cookie) error {
	for _, d := range []time.Duration{c.Idle, c.Age} {
		if d < 0 || d%time.Second != 0 {
			return fmt.Errorf("lifetime of %v: whole seconds are needed", d)
		}
	}
	return setcookie.Check(&cookie)
}

// attributes returns the cookie without a value, as a client on plain HTTP gets it.
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
			cookie.SameSite = http.SameSiteNoneMode // a partition is only for cross-site requests
		}
	}
	cookie.Secure = cookie.Secure || setcookie.NeedsSecure(&cookie)
	return cookie
}

// expired tells whether one of the lifetimes is over. A time in the future is
// another replica's clock; one too far ahead would make a pin last too long.
func (c *Cookie) expired(p sealedPin) bool {
	if c.Idle == 0 && c.Age == 0 {
		return false
	}
	idle := since(p.seen)
	return c.Idle > 0 && idle >= c.Idle || c.Age > 0 && since(p.born) >= c.Age || idle < -skew
}

func since(unix uint32) time.Duration { return time.Since(time.Unix(int64(unix), 0)) }

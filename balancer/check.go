package balancer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// A Check says how a pool finds out about a backend's health. The zero value connects to
// the backend, with a TLS handshake if its URL is https, and closes the connection. That
// finds a process that is gone, but not one that hangs: the kernel accepts connections
// for a stopped process too. Set Path to find that one as well.
//
// A backend that answers, but not as expected, is sick. One that doesn't answer is dead: the
// connection is refused or reset, TLS fails, or the timeout passes. It is only sick if it
// answers requests meanwhile on the connections that it has, as a backend does that is busy
// or has no descriptor left for a new one. The first failed check is repeated at once, so that
// with a Path and the default Fall a hang is found within Interval + 2 x Timeout.
//
// It is found sooner where clients notice it most: a backend with open requests or tunnels, of
// which something was heard in each tenth of the Interval, or nearly so, is checked when it has
// been silent for two to three of these, of 100 ms at least. The timeout of a check in such a
// silence is shorter by the time of that, down to a half, unless that check alone may find the
// backend dead: with a Fall of 1, or after a refused connection. With the defaults
// that finds a hang within 2 x 500 ms and 100 ms more. A backend that lives is hardly checked
// more often for that, since a pause doesn't count before it is three times as long as any other
// within the last 64 tenths. See [Backend.Heard].
type Check struct {
	Path   string // of the health page, with a query if need be; "": only connect
	Method string // "": HEAD, or GET for a backend that answers HEAD with 405 or 501. The answer's body is not read without KeepAlive
	Host   string // of the request; "": the backend's own
	Expect []int  // status codes of a well backend; nil: 200 to 399

	Interval time.Duration // between two checks, up to 10% less at random so that they spread, in steps of 100 ms or less, and up to one step less after a check that a report has caused; 0: 1 s
	Timeout  time.Duration // of one check from dial to answer; 0: half of Interval, but 500 ms at least
	Rise     int           // good checks in a row that a backend needs to be well again; 0: 2
	Fall     int           // failed checks in a row until it is sick or dead; 0: 2

	// KeepAlive makes a backend's checks use one connection as long as it lasts, which
	// costs less than half of what new ones cost, and far less with TLS. A kept connection
	// doesn't see that a backend takes no new ones: each thirtieth check is made on a new
	// one too, and so is one that a failed request or a failed check has caused. If only
	// the new one isn't answered the backend is sick, and not dead. It needs a Path. An
	// answer's body is read, 64 KiB at most.
	KeepAlive bool

	transport *Transport // the pool's
}

// ready returns a copy of c with the defaults filled in, or an error if c makes no sense.
func (c *Check) ready() (*Check, error) {
	if c == nil {
		c = &Check{}
	}
	r := *c
	r.Interval = cmp.Or(r.Interval, time.Second)
	r.Timeout = cmp.Or(r.Timeout, max(r.Interval/2, 500*time.Millisecond))
	r.Rise = cmp.Or(r.Rise, 2)
	r.Fall = cmp.Or(r.Fall, 2)
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("balancer: check: %w", err)
	}
	return &r, nil
}

// validate returns what is wrong with a check whose defaults are filled in.
func (c *Check) validate() error {
	switch {
	case c.Interval < time.Millisecond:
		return fmt.Errorf("its Interval %v: a number without a unit counts nanoseconds; want 1 ms or more, or 0 for 1 s", c.Interval)
	case 0 < c.Timeout && c.Timeout < time.Millisecond:
		return fmt.Errorf("its Timeout %v: a number without a unit counts nanoseconds; want 1 ms or more, or 0 for half of the Interval", c.Timeout)
	case c.Timeout < 0 || c.Rise < 0 || c.Fall < 0:
		return fmt.Errorf("one of Timeout %v, Rise %d and Fall %d is negative; 0 is the default", c.Timeout, c.Rise, c.Fall)
	case c.Path == "" && (c.Method != "" || c.Host != "" || c.Expect != nil || c.KeepAlive):
		return errors.New("the fields Method, Host, Expect and KeepAlive need a Path: without one the check only connects")
	case c.Path == "":
		return nil
	case c.Expect != nil && len(c.Expect) == 0:
		return errors.New("its Expect is empty, so no answer would do; nil means 200 to 399")
	}
	for _, status := range c.Expect {
		if status != http.StatusSwitchingProtocols && (status < 200 || status > 599) {
			return fmt.Errorf("the list Expect has %d: want final statuses, of 200 to 599", status)
		}
	}
	if upper := strings.ToUpper(c.Method); c.Method != upper && slices.Contains([]string{http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPost}, upper) {
		return fmt.Errorf("the Method %q: methods are case-sensitive, write %q", c.Method, upper)
	}
	if u, err := url.Parse("http://" + c.Host); err != nil || u.Host != c.Host {
		return fmt.Errorf("the Host %q: want a host, or host:port", c.Host)
	}
	_, err := c.request(context.Background(), c.Method, &url.URL{Scheme: "http", Host: "backend"})
	return err
}

func (c *Check) request(ctx context.Context, method string, backend *url.URL) (*http.Request, error) {
	page, err := url.ParseRequestURI(c.Path)
	if err != nil || c.Path[0] != '/' {
		return nil, fmt.Errorf("path %q: want one that starts with /", c.Path)
	}
	req, err := http.NewRequestWithContext(ctx, method, backend.ResolveReference(page).String(), nil)
	if err != nil {
		return nil, err
	}
	req.Host = cmp.Or(c.Host, backend.Host)
	req.Header.Set("User-Agent", "limpet-check")
	req.Close = !c.KeepAlive
	return req, nil
}

// unexpected is the error of an answer with another status than one that is expected.
type unexpected struct {
	method, path, status string
	code                 int
}

func (e *unexpected) Error() string {
	return fmt.Sprintf("%s %s: unexpected status %s", e.method, e.path, e.status)
}

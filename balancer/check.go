package balancer

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
// answers requests meanwhile on the connections that it has, as a backend does that has no
// descriptor left for a new one. The first failed check is repeated at once, so that with the
// defaults a hang is found within Interval + 2 x Timeout.
type Check struct {
	Path   string // of the health page, with a query if need be; "": only connect
	Method string // "": HEAD, or GET for a backend that answers HEAD with 405 or 501. The answer's body is not read
	Host   string // of the request; "": the backend's own
	Expect []int  // status codes of a well backend; nil: 200 to 399

	Interval time.Duration // between two checks, up to 10% less at random so that they spread; 0: 1 s
	Timeout  time.Duration // of one check from dial to answer; 0: half of Interval, but 500 ms at least
	Rise     int           // good checks in a row that a backend needs to be well again; 0: 2
	Fall     int           // failed checks in a row until it is sick or dead; 0: 2

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
	case c.Path == "" && (c.Method != "" || c.Host != "" || c.Expect != nil):
		return errors.New("the fields Method, Host and Expect need a Path: without one the check only connects")
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
	req.Close = true
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

// errHead means that a backend doesn't support HEAD, which the embedder didn't ask for.
var errHead = errors.New("HEAD is not answered here, GET may be")

// ask checks a backend once. Answered reports whether the backend sent anything, or
// accepted the connection if that is all that is checked. A nil error means that it is
// well.
func (c *Check) ask(ctx context.Context, b *Backend) (answered bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	answered, err = c.attempt(ctx, b)
	if err == errHead {
		b.vitals.get = true
		answered, err = c.attempt(ctx, b)
	}
	return answered, err
}

// attempt makes one connection for ask and checks the backend on it.
func (c *Check) attempt(ctx context.Context, b *Backend) (answered bool, err error) {
	conn, err := c.transport.connect(ctx, b)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	if c.Path == "" {
		return true, nil
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	received := &receiveConn{Conn: conn}
	err = c.converse(ctx, received, b)
	if ctx.Err() != nil {
		return false, fmt.Errorf("no answer within %v", c.Timeout)
	}
	return received.any, err
}

// converse sends the request, and returns an error unless the answer is as expected.
func (c *Check) converse(ctx context.Context, conn net.Conn, b *Backend) error {
	method := cmp.Or(c.Method, http.MethodHead)
	if b.vitals.get {
		method = http.MethodGet
	}
	req, err := c.request(ctx, method, b.origin)
	if err != nil {
		return err
	}
	if err := req.Write(conn); err != nil {
		return err
	}
	// A check reads no more than this, whatever the page sends.
	answer := bufio.NewReader(io.LimitReader(conn, 64<<10))
	for {
		res, err := http.ReadResponse(answer, req)
		switch {
		case err != nil:
			return err
		case res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols:
			continue // an informational answer before the real one
		case !c.expected(res.StatusCode):
			if status := res.StatusCode; c.Method == "" && !b.vitals.get &&
				(status == http.StatusMethodNotAllowed || status == http.StatusNotImplemented) {
				return errHead
			}
			// Without the path's query, which may hold a secret.
			return &unexpected{method, req.URL.Path, res.Status, res.StatusCode}
		}
		return nil
	}
}

func (c *Check) expected(status int) bool {
	if c.Expect == nil {
		return 200 <= status && status <= 399
	}
	return slices.Contains(c.Expect, status)
}

// A receiveConn is a connection that notes whether anything was received on it.
type receiveConn struct {
	net.Conn
	any bool
}

func (c *receiveConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.any = c.any || n > 0
	return n, err
}

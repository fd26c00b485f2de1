//go:build unix

package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"
)

const (
	// thinkTime is how long a client pauses between two messages on average.
	thinkTime = 800 * time.Millisecond
	// retryDelay is how long a client waits before it connects again at most; half of
	// it at least.
	retryDelay = 300 * time.Millisecond
	// clientPatience is how long a client waits for an answer before it gives up.
	clientPatience = 12 * time.Second
)

// A client behaves as the users of such servers do: it keeps cookies, comes back after a
// jittered delay when something has failed, and reaches the gateways through a load
// balancer that asks them whether they are ready.
type client struct {
	id       string
	random   *rand.Rand
	history  *history
	balancer *loadBalancer
	web      *http.Client
	n        int // of messages and requests so far
}

// isOld tells whether a client's sessions are of version 3 of Engine.IO.
func isOld(client string) bool { return strings.HasPrefix(client, "old") }

func newClient(id string, seed uint64, h *history, lb *loadBalancer) *client {
	var s uint64
	for _, c := range id {
		s = s*31 + uint64(c)
	}
	return &client{id: id, random: rand.New(rand.NewPCG(seed, s)), history: h, balancer: lb, web: newWeb()}
}

// newWeb returns an HTTP client with no cookies and no connections yet.
func newWeb() *http.Client {
	jar, _ := cookiejar.New(nil)
	return &http.Client{Jar: jar, Transport: &http.Transport{
		DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext, MaxIdleConnsPerHost: 4, IdleConnTimeout: 5 * time.Second,
	}}
}

// close closes the client's idle connections.
func (c *client) close() { c.web.CloseIdleConnections() }

// run lives the client's life until ctx ends: live returns when a session or a request has
// failed, or when ctx ends.
func (c *client) run(ctx context.Context, live func(context.Context)) {
	defer c.close()
	for ctx.Err() == nil {
		live(ctx)
		c.pause(ctx, retryDelay/2+time.Duration(c.random.Int64N(int64(retryDelay/2))))
	}
}

// think pauses between two messages.
func (c *client) think(ctx context.Context) {
	c.pause(ctx, thinkTime/2+time.Duration(c.random.Int64N(int64(thinkTime))))
}

func (c *client) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// An answer is what came of a request.
type answer struct {
	op
	body string
}

// send sends a request to a gateway, and notes what comes of it in the answer's op: a
// status of 200 is well.
func (c *client) send(ctx context.Context, k kind, method, target, body string) answer {
	gateway := c.balancer.choose(c.random)
	a := answer{op: op{client: c.id, kind: k, n: c.n, start: c.history.now(), gateway: gateway.id}}
	ctx, cancel := context.WithTimeout(ctx, clientPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+gateway.addr+target, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	res, err := c.web.Do(req)
	if err == nil {
		a.note(res)
		var b []byte
		b, err = io.ReadAll(res.Body)
		res.Body.Close()
		a.body = string(b)
	}
	switch {
	case err != nil:
		a.err = brief(err)
	case res.StatusCode != http.StatusOK:
		a.err = fmt.Sprintf("%d %.60s", res.StatusCode, strings.TrimSpace(a.body))
	}
	a.end = c.history.now()
	return a
}

// note takes down what an answer's header says.
func (o *op) note(res *http.Response) {
	o.status, o.pin = res.StatusCode, res.Header.Get(fieldPin)
	o.backend, o.boot = res.Header.Get(fieldBackend), res.Header.Get(fieldBoot)
}

// brief returns an error without the address, which the op has.
func brief(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// plain is the life of a client that sends plain requests.
func (c *client) plain(ctx context.Context) {
	for ctx.Err() == nil && c.request(ctx) {
		c.think(ctx)
	}
}

// visitor is the life of a client that comes for a few requests, without any cookie, and is
// somebody else the next time.
func (c *client) visitor(ctx context.Context) {
	visit := *c
	visit.id, visit.n = fmt.Sprintf("%s.%d", c.id, c.n), 0
	visit.web = newWeb()
	defer visit.close()
	c.n++
	for range 6 {
		if ctx.Err() != nil || !visit.request(ctx) {
			return
		}
		visit.pause(ctx, thinkTime/4)
	}
}

// request sends the next plain request: a GET, or two at a time, or a POST. A POST that has
// failed isn't repeated, as it may have been executed. It reports whether all went well.
func (c *client) request(ctx context.Context) bool {
	c.n++
	target := fmt.Sprintf("/plain?client=%s&n=%d", c.id, c.n)
	k, method, want := kindGet, http.MethodGet, page(fmt.Sprint(c.n))
	if c.n%3 == 0 {
		k, method, want = kindPost, http.MethodPost, fmt.Sprint(c.n)
	}
	answers := make(chan answer, 2)
	two := c.n%7 == 4 && k == kindGet
	if two {
		twin := *c
		twin.random = rand.New(rand.NewPCG(c.random.Uint64(), 0))
		go func() { answers <- twin.send(ctx, k, method, target, "") }()
	}
	answers <- c.send(ctx, k, method, target, "")
	all := []answer{<-answers}
	if two {
		all = append(all, <-answers)
	}
	well := true
	for _, a := range all {
		if ctx.Err() != nil && !a.ok() {
			return false // the run is over
		}
		if a.ok() && a.body != want {
			a.err = fmt.Sprintf("another answer: %.20q", a.body)
		}
		c.history.add(a.op)
		well = well && a.ok()
	}
	return well
}

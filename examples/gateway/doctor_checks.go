package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"
)

// checkAnswer looks at the first answer: whether TLS is used and known of, and at cookies.
func (d *doctor) checkAnswer(answer *eioAnswer) {
	secure := d.endpoint.Scheme == "https"
	if secure {
		certs := answer.TLS.PeerCertificates
		if left := time.Until(certs[0].NotAfter); left > 0 && left < 14*24*time.Hour {
			d.note("The certificate is valid for %d more days only.", int(left.Hours()/24))
		} else if !d.transport.TLSClientConfig.InsecureSkipVerify {
			d.ok("TLS: %s, and the certificate is valid until %s.", tls.VersionName(answer.TLS.Version), certs[0].NotAfter.Format(time.DateOnly))
		}
	} else if ip := net.ParseIP(d.endpoint.Hostname()); d.endpoint.Hostname() != "localhost" && !ip.IsLoopback() {
		d.note("There is no TLS: some proxies on the way of clients let no WebSocket pass then.")
	}
	for _, c := range answer.Cookies() {
		switch {
		case c.Secure && !secure:
			d.wrong(fmt.Sprintf("The cookie %s is Secure, but the site is http: clients don't send it back.", c.Name), "serve https, or give the cookie no Secure.")
		case !c.Secure && secure:
			d.note("The cookie %s isn't Secure, although the site is https. If it is a proxy's, that one believes that the client came over http: have the proxy that ends TLS send X-Forwarded-Proto, and name its address as trusted in the next one (-trusted, or ClientIP.Trusted).", c.Name)
		}
	}
}

// tries is how many requests find out whether a session is sticky. With two backends and no
// stickiness at all, one in 4,000 examinations finds nothing.
const tries = 12

// strayed counts the requests that don't reach the session's server, each on a connection
// of its own. It returns the first answer or error of another kind.
func (d *doctor) strayed(ctx context.Context, c *eioClient, sid string, n int) (lost int, odd string) {
	for range n {
		ctx, cancel := d.step(ctx)
		answer, err := c.alive(ctx, sid)
		cancel()
		switch {
		case err != nil:
			odd = cmp.Or(odd, err.Error())
		case answer.code() == codeUnknownSession:
			lost++
		case answer.StatusCode != http.StatusOK:
			odd = cmp.Or(odd, answer.String())
		}
	}
	return lost, odd
}

// strays opens a session and counts its requests that stray.
func (d *doctor) strays(ctx context.Context, c *eioClient, n int) (lost int, odd string) {
	open, cancel := context.WithTimeout(ctx, time.Duration(n+2)*d.patience)
	defer cancel()
	s, answer, err := c.open(open)
	switch {
	case err != nil:
		return 0, err.Error()
	case s == nil:
		return 0, answer.String()
	}
	lost, odd = d.strayed(ctx, c, s.SID, n)
	_, _ = c.do(open, s.SID, "1") // closes the session, if it reaches it
	return lost, odd
}

const cureSticky = "make the proxy sticky for clients without cookies, such as Node's, native and cross-site ones: " +
	"affinity.EngineIO before affinity.Cookie in a Chain (-affinity engineio,cookie), with the same keys on all replicas; or have clients use WebSockets alone."

// checkSticky finds out whether sessions stay on their server, for clients without and with
// cookies.
func (d *doctor) checkSticky(ctx context.Context, first *eioAnswer) {
	lost, odd := d.strays(ctx, d.client(false, false), tries)
	d.stays = lost == 0 && odd == ""
	d.kept = d.stays
	if len(first.Cookies()) > 0 {
		kept, keptOdd := d.strays(ctx, d.client(true, false), tries)
		d.kept = kept == 0 && keptOdd == ""
		switch {
		case kept > 0:
			d.wrong(fmt.Sprintf("Clients with cookies don't stay: %d of %d requests reached a server that doesn't know their session.", kept, tries),
				"make the proxy sticky (-affinity cookie), with the same keys on all replicas; if it is, see whether the cookie's Path and Domain fit this URL.")
		case keptOdd != "":
			d.unsure("With cookies, a request in a session failed: %s", keptOdd)
		default:
			d.ok("Clients with cookies stay: each of %d requests on connections of their own found its session.", tries)
		}
	}
	switch {
	case lost > 0:
		d.wrong(fmt.Sprintf("Clients without cookies don't stay: %d of %d requests reached a server that doesn't know their session.", lost, tries), cureSticky)
	case odd != "":
		d.unsure("Without cookies, a request in a session failed: %s", odd)
	default:
		d.ok("Clients without cookies stay: each of %d requests on connections of their own found its session.", tries)
		d.note("From one address the doctor can't tell whether that is so because there is one server only, or by the client's address, which moves clients whose address changes.")
	}
}

// checkParallel has several sessions at the same time.
func (d *doctor) checkParallel(ctx context.Context) {
	if !d.stays {
		return // it would say the same again
	}
	const sessions = 8
	var mu sync.Mutex
	var wg sync.WaitGroup
	lost, odd := 0, ""
	for range sessions {
		wg.Go(func() {
			n, what := d.strays(ctx, d.client(false, false), 4)
			mu.Lock()
			defer mu.Unlock()
			lost, odd = lost+n, cmp.Or(odd, what)
		})
	}
	wg.Wait()
	switch {
	case lost > 0:
		d.wrong(fmt.Sprintf("Of %d sessions at the same time, %d requests reached a server that doesn't know them, although one session alone stays.", sessions, lost),
			"the replicas of the proxy need the same keys or a common store, and must know the same servers by the same IDs.")
	case odd != "":
		d.unsure("With %d sessions at the same time, a request failed: %s", sessions, odd)
	default:
		d.ok("%d sessions from one address at the same time stay.", sessions)
	}
}

// checkKeepAlive finds out whether a client's connection is used again.
func (d *doctor) checkKeepAlive(ctx context.Context) {
	ctx, cancel := d.step(ctx)
	defer cancel()
	c := d.client(true, true)
	defer c.http.CloseIdleConnections()
	reused := false
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	var s *eioSession
	for i := range 3 {
		var err error
		if i == 0 {
			s, _, err = c.open(ctx)
		} else if s != nil {
			_, err = c.alive(ctx, s.SID)
		}
		if err != nil || s == nil {
			d.unsure("Whether connections are kept: a session failed.")
			return
		}
	}
	if reused {
		d.ok("Connections are kept for the next poll.")
	} else {
		d.wrong("Each poll needs a new connection, and with TLS a new handshake.", "have the proxies in front send no Connection: close (nginx: keepalive_timeout and keepalive_requests above 0).")
	}
}

// checkCORS looks at what a page of another site is told.
func (d *doctor) checkCORS(ctx context.Context) {
	ctx, cancel := d.step(ctx)
	defer cancel()
	c := d.client(false, false)
	c.origin = cmp.Or(d.origin, "https://doctor.example")
	_, answer, err := c.open(ctx)
	if err != nil {
		d.unsure("What pages of other sites are told: %v", err)
		return
	}
	for _, name := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Credentials"} {
		if values := answer.Header.Values(name); len(values) > 1 || strings.Contains(strings.Join(values, ""), ",") {
			d.wrong(fmt.Sprintf("%s is there twice (%s): browsers refuse such an answer.", name, strings.Join(values, " | ")),
				"only one may set it, either Socket.IO's server (its option cors) or the proxy.")
			return
		}
	}
	switch allowed := answer.Header.Get("Access-Control-Allow-Origin"); {
	case allowed == "" && d.origin != "":
		d.wrong("Pages of "+d.origin+" may not use it: there is no Access-Control-Allow-Origin.", "set Socket.IO's option cors: {origin: \""+d.origin+"\"}.")
	case allowed == "":
		d.note("Pages of another site that isn't allowed by name may not use it (CORS); -doctor-origin tries one that should be.")
	case allowed == "*" && answer.Header.Get("Access-Control-Allow-Credentials") == "true":
		d.wrong("Access-Control-Allow-Origin is * although cookies are allowed: browsers refuse that.", "name the origins in Socket.IO's option cors.")
	case allowed != "*" && d.origin == "":
		d.note("Pages of %s may use it (CORS); -doctor-origin tries another.", allowed)
	case allowed != "*" && allowed != c.origin:
		d.wrong("Pages of "+c.origin+" may not use it: only "+allowed+" may.", "add the origin to Socket.IO's option cors.")
	default:
		d.ok("Pages of %s may use it (CORS).", c.origin)
	}
}

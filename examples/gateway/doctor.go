package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The doctor tries a running set-up from outside, as clients of Socket.IO use it, and says
// in words what is wrong and what cures it:
//
//	gateway -doctor https://chat.example.com
//
// It opens some 20 sessions and sends some 100 requests to the path /socket.io/, or to that
// of the URL, and connects to no namespace. The exit status is 0 if nothing is wrong, 1 if
// something is, and 2 if nothing is as far as it can tell, but it can't tell everything, as
// when it reaches no server of Socket.IO.

// errWrong and errUnsure are what examine returns when it has found something wrong, and
// when it can't tell whether something is.
var (
	errWrong  = errors.New("something is wrong")
	errUnsure = errors.New("can't tell")
)

// doctorMain examines a set-up if the arguments ask for that. It returns the exit status.
func doctorMain(ctx context.Context, args []string, w io.Writer) (status int, asked bool) {
	asked = slices.ContainsFunc(args, func(arg string) bool {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		return strings.HasPrefix(arg, "-") && name == "doctor"
	})
	if !asked {
		return 0, false
	}
	d := doctor{patience: 10 * time.Second}
	fs := flag.NewFlagSet("gateway -doctor", flag.ContinueOnError)
	fs.SetOutput(w)
	target := fs.String("doctor", "", "`URL` of the set-up to examine")
	fs.DurationVar(&d.hold, "doctor-hold", 5*time.Second, "how long polls and WebSockets are held; more than the pingInterval (25s) finds time limits of proxies in front")
	fs.StringVar(&d.origin, "doctor-origin", "", "`origin` of pages that use the set-up from another site, such as https://app.example.com")
	if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0, true
	} else if err != nil || fs.NArg() > 0 {
		fmt.Fprintln(w, "gateway: -doctor goes with -doctor-hold and -doctor-origin, and with no other flags")
		return 2, true
	}
	if d.hold <= 0 || d.hold > maxHold {
		fmt.Fprintf(w, "gateway: -doctor-hold: want more than 0 and at most %v: Socket.IO closes clients that don't connect within 45 s\n", maxHold)
		return 2, true
	}
	switch err := d.examine(ctx, *target, w); {
	case errors.Is(err, errWrong):
		return 1, true
	case err != nil:
		return 2, true
	}
	return 0, true
}

// A doctor has the settings of an examination, and writes its report.
type doctor struct {
	hold     time.Duration
	origin   string
	patience time.Duration // how long a step may take in which nothing has to be waited for

	w         io.Writer
	wrongs    int
	unsures   int
	answers   bool // the server answers a provocation on a WebSocket
	stays     bool // sessions of clients without cookies stay
	kept      bool // sessions of clients with cookies stay
	transport *http.Transport
	endpoint  *url.URL
	version   int
}

// maxHold is how long the doctor can hold a poll. It connects to no namespace, so that the
// application doesn't take it for a user.
const maxHold = 40 * time.Second

func (d *doctor) line(word, format string, args ...any) {
	fmt.Fprintf(d.w, "%-10s  %s\n", word, printable(fmt.Sprintf(format, args...)))
}

// printable replaces what can't be printed. The server's fields could tell the terminal what
// to do otherwise.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
}

func (d *doctor) ok(format string, args ...any)   { d.line("ok", format, args...) }
func (d *doctor) note(format string, args ...any) { d.line("note", format, args...) }
func (d *doctor) unsure(format string, args ...any) {
	d.unsures++
	d.line("can't tell", format, args...)
}

// wrong reports what is wrong and what cures it.
func (d *doctor) wrong(what, cure string) {
	d.wrongs++
	d.line("WRONG", "%s", what)
	d.line("", "Cure: %s", cure)
}

// examine tries the set-up at a URL and writes to w what it finds.
func (d *doctor) examine(ctx context.Context, target string, w io.Writer) error {
	d.w = w
	u, err := url.Parse(target)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		fmt.Fprintf(w, "gateway: -doctor %q: want a URL such as https://chat.example.com\n", target)
		return errUnsure
	}
	if u.Path = cmp.Or(u.Path, "/"); u.Path == "/" {
		u.Path = "/socket.io/"
	}
	d.endpoint, d.version = u, 4
	d.transport = http.DefaultTransport.(*http.Transport).Clone()
	d.transport.TLSClientConfig = &tls.Config{}
	defer d.transport.CloseIdleConnections()

	answer := d.reach(ctx)
	if answer == nil {
		return d.end()
	}
	d.checkAnswer(answer)
	d.checkSticky(ctx, answer)
	d.checkParallel(ctx)
	d.checkKeepAlive(ctx)
	d.checkCORS(ctx)
	if d.checkWebSocket(ctx) {
		d.checkUpgrade(ctx)
	}
	d.checkHold(ctx)
	return d.end()
}

// end writes the last line.
func (d *doctor) end() error {
	switch {
	case d.wrongs > 0:
		fmt.Fprintf(d.w, "Wrong: %d. Can't tell: %d.\n", d.wrongs, d.unsures)
		return errWrong
	case d.unsures > 0:
		fmt.Fprintf(d.w, "Nothing wrong was found. Can't tell: %d.\n", d.unsures)
		return errUnsure
	}
	fmt.Fprintln(d.w, "Nothing wrong was found from outside.")
	return nil
}

// client returns a client like one of Socket.IO: with a cookie jar, as a browser of the
// same site has one, or without, as Node's and native ones.
func (d *doctor) client(cookies, keepAlive bool) *eioClient {
	return &eioClient{endpoint: d.endpoint, version: d.version, origin: d.origin, http: newHTTPClient(d.transport, cookies, keepAlive)}
}

// step returns a context for one step.
func (d *doctor) step(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, d.patience)
}

// reach opens a first session, and finds out which version the server speaks. It returns
// nil if there is no session.
func (d *doctor) reach(ctx context.Context) *eioAnswer {
	ctx, cancel := d.step(ctx)
	defer cancel()
	c := d.client(true, false)
	s, answer, err := c.open(ctx)
	if cert := new(tls.CertificateVerificationError); errors.As(err, &cert) {
		d.wrong("The certificate isn't valid: "+cert.Err.Error()+".",
			"serve a certificate for this name, with all intermediate ones, and renew it in time. What follows was tried without checking it.")
		d.transport.TLSClientConfig.InsecureSkipVerify = true
		c = d.client(true, false)
		s, answer, err = c.open(ctx)
	}
	if err == nil && s == nil && answer.code() == codeBadVersion {
		c.version = 3
		s, answer, err = c.open(ctx)
	}
	switch {
	case err != nil:
		d.unsure("%s can't be reached: %v", d.endpoint.Redacted(), err)
		return nil
	case s != nil:
		d.version = c.version
		speaks := "4 (Socket.IO 3 and 4)"
		if d.version == 3 {
			speaks = "3 (Socket.IO 2)"
		}
		d.ok("%s speaks Engine.IO %s, and pings each %v.", d.endpoint.Redacted(), speaks, time.Duration(s.PingInterval)*time.Millisecond)
		return answer
	}
	d.noSession(answer)
	return nil
}

// noSession reports what came instead of a session.
func (d *doctor) noSession(answer *eioAnswer) {
	switch status := answer.StatusCode; {
	case answer.code() == codeUnknownTransport:
		d.unsure("The server allows no polling, and the doctor tries little else. Without polling stickiness doesn't matter.")
	case answer.code() == codeUnknownSession:
		d.wrong("A request without a session is answered with: session ID unknown.", "look for what adds a sid to requests in front of the server.")
	case answer.code() == codeForbidden:
		d.unsure("The server refuses the doctor, as allowRequest may: %v. If it wants an origin, name it with -doctor-origin.", answer)
	case answer.code() >= 0:
		d.unsure("The server of Socket.IO refuses a session: %v.", answer)
	case status >= 300 && status < 400:
		d.unsure("It redirects to %q, which WebSockets don't follow: examine that, and give it to clients.", answer.Header.Get("Location"))
	case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusGatewayTimeout:
		d.wrong(fmt.Sprintf("The proxy in front has no server that answers: %v.", answer), "start the servers, and look into the proxy's log for how it tries to reach them.")
	default:
		d.unsure("This is no server of Socket.IO, or it has another path: %v. Give the path in the URL, such as https://chat.example.com/my-path/.", answer)
	}
}

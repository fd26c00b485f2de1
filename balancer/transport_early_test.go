//go:build unix

package balancer_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/limpet-go/limpet/balancer"
)

// A timeless is a connection that knows no deadlines, as that of an SSH channel.
type timeless struct{ net.Conn }

func (timeless) SetReadDeadline(time.Time) error { return os.ErrNoDeadline }

// An awaiting is a connection that the kernel is asked about no sooner than wait
// returns.
type awaiting struct {
	net.Conn
	wait func()
}

func (a awaiting) NetConn() net.Conn {
	a.wait()
	return a.Conn
}

// A hiddenAwaiting is a connection that is looked at no sooner than wait returns.
type hiddenAwaiting struct {
	net.Conn
	wait func()
}

func (h hiddenAwaiting) SetReadDeadline(t time.Time) error {
	h.wait()
	return h.Conn.SetReadDeadline(t)
}

// A hasty is a backend that says something on each connection before it is asked.
type hasty struct {
	said   string
	proxy  int         // the version of the PROXY header that comes first
	secure *tls.Config // nil for none
	spoke  chan struct{}
}

func (h *hasty) serve(c net.Conn) {
	defer c.Close()
	speak := func() {
		io.WriteString(c, h.said)
		h.spoke <- struct{}{}
	}
	if h.secure == nil {
		speak()
	}
	io.ReadFull(c, make([]byte, []int{0, len("PROXY UNKNOWN\r\n"), 16}[h.proxy]))
	if h.secure != nil {
		secured := tls.Server(c, h.secure)
		secured.Handshake()
		c = secured
		speak()
	}
	r := bufio.NewReader(c)
	for answer := ""; ; {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		io.Copy(io.Discard, req.Body)
		own := "Who: " + req.Header.Get("Who") + "\r\nContent-Length: 0\r\n\r\n"
		if h.said != half {
			own = "HTTP/1.1 200 OK\r\n" + own
		}
		if strings.HasSuffix(h.said, busy) { // then it takes so long that it could meet the next request
			answer, own = own, answer
		}
		io.WriteString(c, own)
	}
}

const (
	hint = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
	busy = "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
	half = "HTTP/1.1 200 OK\r\n"
)

// What a backend says on a new connection before it is asked anything may be given
// to the client whose request that connection was made for. What follows is nobody
// else's.
func TestNothingIsKeptBehindAnAnswerBeforeTheRequest(t *testing.T) {
	t.Parallel()
	ca := httptest.NewTLSServer(nil)
	ca.Close()
	type wrapper func(c net.Conn, wait func()) net.Conn
	plain := func(c net.Conn, wait func()) net.Conn { wait(); return c }
	connections := []struct {
		name   string
		url    string // but for the port
		proxy  int
		wrap   wrapper
		unkept bool // whatever the backend does
	}{
		{"TCP", "http://", 0, plain, false},
		{"Unix", "unix://", 0, plain, false},
		{"PROXY", "http://", 1, plain, false},
		{"TLS", "https://", 0, func(c net.Conn, wait func()) net.Conn { return awaiting{c, wait} }, false},
		{"TLS over PROXY", "https://", 2, func(c net.Conn, wait func()) net.Conn { return awaiting{c, wait} }, false},
		{"TLS over hidden", "https://", 0, func(c net.Conn, wait func()) net.Conn { return hiddenAwaiting{c, wait} }, false},
		{"nested", "http://", 0, func(c net.Conn, wait func()) net.Conn { wait(); return nested{c} }, false},
		{"hidden", "http://", 0, func(c net.Conn, wait func()) net.Conn { wait(); return hidden{c} }, false},
		{"hidden, all errors alike", "http://", 0, func(c net.Conn, wait func()) net.Conn { wait(); return tidy{c} }, true},
		{"without deadlines", "http://", 0, func(c net.Conn, wait func()) net.Conn { wait(); return timeless{c} }, true},
	}
	requests := []struct {
		name, method, body string
		traced             bool
	}{
		{"GET", "GET", "", false},
		{"GET with a trace", "GET", "", true},
		{"POST", "POST", "hello", false},
	}
	for _, conn := range connections {
		for _, request := range requests {
			for first, said := range map[string]string{
				"nothing": "", "503": busy, "103": hint, "103 and 503": hint + busy, "half an answer": half,
			} {
				t.Run(conn.name+", "+request.name+", "+first, func(t *testing.T) {
					t.Parallel()
					h := &hasty{said: said, proxy: conn.proxy, spoke: make(chan struct{}, 10)}
					scheme, addr := "tcp", "127.0.0.1:0"
					switch conn.url {
					case "https://":
						h.secure = ca.TLS
					case "unix://":
						scheme, addr = "unix", filepath.Join(t.TempDir(), "s")
					}
					l, err := net.Listen(scheme, addr)
					must(t, err)
					t.Cleanup(func() { l.Close() })
					go func() {
						for {
							c, err := l.Accept()
							if err != nil {
								return
							}
							go h.serve(c)
						}
					}()
					s := reach(t, conn.url+l.Addr().String())
					s.ProxyProtocol, s.DialTimeout = conn.proxy, time.Minute
					s.TLS = &tls.Config{InsecureSkipVerify: true}
					dials := 0
					s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						dials++
						c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
						must(t, err)
						return conn.wrap(c, sync.OnceFunc(func() {
							<-h.spoke
							if said != "" {
								ended(t, c)
							}
						})), nil
					}
					for _, who := range []string{"alice", "bob", "carol"} {
						ctx := balancer.WithBackend(t.Context(), s.Backend)
						if request.traced {
							ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{})
						}
						req, err := http.NewRequestWithContext(ctx, request.method, "http://x/", strings.NewReader(request.body))
						must(t, err)
						req.Header.Set("Who", who)
						res, err := s.RoundTrip(req)
						read(t, res, err)
						if of := res.Header.Get("Who"); of != "" && of != who {
							t.Errorf("%s got the answer to %s", who, of)
						}
					}
					want := 3
					if said == "" && !conn.unkept {
						want = 1
					}
					if dials != want {
						t.Errorf("%d connections for three requests, want %d", dials, want)
					}
				})
			}
		}
	}
}

// On a connection without read deadlines nobody waits for a 100 that may never come.
func TestExpectWithoutDeadlines(t *testing.T) {
	t.Parallel()
	s := reach(t, raw(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c)) // knows nothing of Expect
		if err != nil {
			return
		}
		body, _ := io.ReadAll(req.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\ngot %s", body)
	}))
	dial := s.Dial
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return timeless{c}, err
	}
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", strings.NewReader("hello"))
	must(t, err)
	req.Header.Set("Expect", "100-continue")
	res, err := s.RoundTrip(req)
	if body := read(t, res, err); body != "got hello" {
		t.Errorf("%q", body)
	}
}

// A new connection that TLS's farewell has ended already isn't written to: what was
// never sent may be sent elsewhere, a POST too.
func TestFarewellBeforeTheRequest(t *testing.T) {
	t.Parallel()
	ca := httptest.NewTLSServer(nil)
	ca.Close()
	left := make(chan struct{})
	s := reach(t, strings.Replace(raw(t, func(c net.Conn) {
		secured := tls.Server(c, ca.TLS)
		secured.Handshake()
		secured.CloseWrite()
		close(left)
		io.Copy(io.Discard, c) // and the socket stays open
	}), "http:", "https:", 1))
	s.TLS = &tls.Config{RootCAs: ca.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	dial := s.Dial
	s.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return awaiting{c, func() { <-left }}, err
	}
	req, err := http.NewRequestWithContext(balancer.WithBackend(t.Context(), s.Backend), "POST", "http://x/", strings.NewReader("hello"))
	must(t, err)
	var e *balancer.Error
	if _, err := s.RoundTrip(req); !errors.As(err, &e) || e.Sent {
		t.Errorf("%v, want an error that says that nothing was sent", err)
	}
}

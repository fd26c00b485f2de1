package hostile_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/leaktest"
	"github.com/limpet-go/limpet/middleware"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// wire turns the notation of the tables into bytes: \n is CR LF there, and ␍, ␊ and
// ␀ are CR, LF and NUL alone.
var wire = strings.NewReplacer("\n", "\r\n", "␍", "\r", "␊", "\n", "␀", "\x00").Replace

// gateway starts one in front of the backend at addr, which lives as long as t. It
// calls opened when it has opened a connection to the backend.
func gateway(t *testing.T, addr string, opened func()) (*httptest.Server, *balancer.Pool) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	b, err := balancer.NewBackend("a", "http://"+addr, 1)
	if err != nil {
		t.Fatal(err)
	}
	reach := &balancer.Transport{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&balancer.Dialer{}).DialContext(ctx, network, addr)
		if err == nil {
			opened()
		}
		return conn, err
	}}
	pool, err := balancer.NewPool(&balancer.Options{Logger: quiet, Transport: reach}, b)
	if err != nil {
		t.Fatal(err)
	}
	keys := [][]byte{[]byte("0123456789abcdef0123456789abcdef")}
	gw, err := middleware.NewGateway(pool, &middleware.Options{
		Affinity: affinity.Chain{&affinity.EngineIO{Secrets: keys}, &affinity.Cookie{Secrets: keys}},
		Logger:   quiet,
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(gw)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(strings.HasPrefix(t.Name(), "TestHTTP2"))
	srv.Config.DisableGeneralOptionsHandler = true // or net/http answers OPTIONS *
	srv.Start()
	t.Cleanup(func() {
		srv.Close()
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = gw.Shutdown(ctx)
	})
	return srv, pool
}

// A client is one connection, and what came over it.
type client struct {
	net.Conn
	r   *bufio.Reader
	raw strings.Builder
}

func dial(t *testing.T, addr string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	return newClient(conn)
}

func newClient(conn net.Conn) *client {
	c := &client{Conn: conn}
	c.r = bufio.NewReader(io.TeeReader(conn, &c.raw))
	return c
}

// answer reads the next one. The error is io.EOF when the connection has ended
// instead, by a reset too: that is how a server closes one that it didn't read
// to its end.
func (c *client) answer(toHEAD bool) (*message, error) {
	m, err := readHead(c.r)
	if err != nil {
		if _, broken := errors.AsType[*net.OpError](err); broken && !isTimeout(err) && m.start == "" {
			err = io.EOF
		}
		return m, err
	}
	if !strings.HasPrefix(m.start, "HTTP/1.1 ") && !strings.HasPrefix(m.start, "HTTP/1.0 ") || len(m.status()) != 3 {
		return m, fmt.Errorf("%w: %q", errGarbage, m.start)
	}
	switch status := m.status(); {
	case toHEAD, status[0] == '1', status == "204", status == "304":
		return m, nil
	}
	return m, m.readBody(c.r, true)
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// status returns the three digits of an answer.
func (m *message) status() string {
	_, rest, _ := strings.Cut(m.start, " ")
	status, _, _ := strings.Cut(rest, " ")
	return status
}

var canaries atomic.Int64

// canary sends a request like anybody's and checks that the answer is its own. It
// returns io.EOF for a connection that has ended before the answer.
func (c *client) canary() error {
	target := fmt.Sprintf("/canary/%d", canaries.Add(1))
	if _, err := io.WriteString(c, "GET "+target+" HTTP/1.1\r\nHost: canary\r\n\r\n"); err != nil {
		return io.EOF
	}
	m, err := c.answer(false)
	if err != nil {
		return err
	}
	if want := served + "GET " + target + " HTTP/1.1 at canary "; m.status() != "200" || m.body != want {
		return fmt.Errorf("the canary got %q, want %q", m.text(none), want)
	}
	return nil
}

func none(field) bool { return false }

// canariesOn sends some on a connection of their own.
func canariesOn(t *testing.T, addr string) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	for range 2 {
		if err := c.canary(); err != nil {
			t.Errorf("the next client: %v\nwhich read %q", err, c.raw.String())
			return
		}
	}
}

// An ending is what may come back: the statuses of the answers, and whether the
// connection is then open ("keep") or not ("close"), or has become a tunnel; ""
// is for either.
type ending struct {
	statuses []string
	then     string
}

// endings reads the notation for some, as "200 keep | 400".
func endings(notation string) (all []ending) {
	for one := range strings.SplitSeq(notation, "|") {
		e := ending{statuses: strings.Fields(one)}
		if n := len(e.statuses); n > 0 && e.statuses[n-1][0] > '9' {
			e.statuses, e.then = e.statuses[:n-1], e.statuses[n-1]
		}
		all = append(all, e)
	}
	return all
}

// speak sends the bytes of a row, reads what comes back as long as the endings ask
// for it, and sends a canary behind it where the connection may be open. It returns
// the answers.
func (c *client) speak(t *testing.T, send, back string) (answers []*message) {
	t.Helper()
	toHEAD := strings.HasPrefix(send, "HEAD ")
	send, leaves := strings.CutSuffix(send, "✂")
	send, half := strings.CutSuffix(send, "␄")
	var statuses []string
	next := func() error {
		m, err := c.answer(toHEAD)
		if err == nil {
			answers, statuses = append(answers, m), append(statuses, m.status())
		}
		return err
	}
	for i, piece := range strings.Split(send, "␆") {
		if i > 0 {
			if err := next(); err != nil {
				t.Errorf("waiting for an answer: %v", err)
				return answers
			}
		}
		_, _ = io.WriteString(c, wire(piece)) // a server that hangs up meanwhile is seen below
	}
	if half {
		_ = c.Conn.(*net.TCPConn).CloseWrite()
	}
	if leaves {
		c.Close()
		return nil
	}
	may := endings(back)
	for {
		for _, e := range may {
			switch {
			case !slices.Equal(e.statuses, statuses) || e.then == "close":
			case e.then == "tunnel", half:
				return answers
			default:
				if err := c.canary(); err != nil && (err != io.EOF || e.then == "keep") {
					t.Errorf("behind %s on the same connection: %v", statuses, err)
				}
				return answers
			}
		}
		begins := func(e ending) bool {
			return len(e.statuses) >= len(statuses) && slices.Equal(e.statuses[:len(statuses)], statuses)
		}
		closes := func(e ending) bool { return slices.Equal(e.statuses, statuses) && e.then == "close" }
		if !slices.ContainsFunc(may, begins) {
			t.Errorf("got %s, want %s", statuses, back)
			return answers
		}
		err := next()
		switch {
		case err == nil:
			continue
		case err != io.EOF:
			t.Errorf("behind %s: %v", statuses, err)
		case !slices.ContainsFunc(may, closes):
			t.Errorf("got %s and the connection's end, want %s", statuses, back)
		}
		return answers
	}
}

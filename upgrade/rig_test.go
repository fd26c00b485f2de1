package upgrade_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/limpet-go/limpet/internal/switchable"
	"github.com/limpet-go/limpet/upgrade"
)

// patience bounds what a test waits for on real connections.
const patience = 20 * time.Second

const (
	key    = "dGhlIHNhbXBsZSBub25jZQ=="     // RFC 6455, section 1.3
	accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" // what it asks for
	shake  = "GET /chat?a=1;b=2 HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + "\r\n\r\n"
	switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Accept: " + accept + "\r\n\r\n"
)

// setup is one way to run the tests of a tunnel: an engine, and what it runs on.
type setup struct {
	name  string
	tls   bool   // to client and backend; a loop can carry that with front only
	front uint16 // the version of TLS for clients of a Listener, 0 for none
	own   bool   // clients come through a Listener, without TLS
	use   func(*upgrade.Proxy)

	narrow bool // sockets to clients keep little
}

var setups = []setup{
	{name: "epoll", use: func(*upgrade.Proxy) {}}, // on Linux
	{name: "pump", use: wrapped},
	{name: "pump,TLS", tls: true, use: func(*upgrade.Proxy) {}},
	{name: "epoll,unwrapped", use: unwrapped},
	{name: "epoll,TLS both", tls: true, front: tls.VersionTLS13, use: func(*upgrade.Proxy) {}},
	{name: "epoll,TLS 1.2", front: tls.VersionTLS12, use: func(*upgrade.Proxy) {}},
	{name: "epoll,TLS 1.3", front: tls.VersionTLS13, use: func(*upgrade.Proxy) {}},
	{name: "epoll,own sockets", own: true, use: func(*upgrade.Proxy) {}}, // on Linux
	{name: "pump,own sockets", own: true, use: wrapped},
}

// wrapped has p dial connections that are not quite the kernel's own.
func wrapped(p *upgrade.Proxy) {
	p.Dial = func(ctx context.Context, out *http.Request) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", out.URL.Host)
		if err != nil {
			return nil, err
		}
		return struct{ *net.TCPConn }{conn.(*net.TCPConn)}, nil
	}
}

// buffered is a connection that reads ahead.
type buffered struct {
	*net.TCPConn
	r *bufio.Reader
}

func (b buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// unwrapped has p dial such connections, which it can do without.
func unwrapped(p *upgrade.Proxy) {
	wrapped(p)
	dial := p.Dial
	p.Dial = func(ctx context.Context, out *http.Request) (net.Conn, error) {
		conn, err := dial(ctx, out)
		if err != nil {
			return nil, err
		}
		tcp := conn.(struct{ *net.TCPConn }).TCPConn
		return buffered{tcp, bufio.NewReader(tcp)}, nil
	}
	p.Unwrap = func(conn net.Conn) net.Conn {
		if b, ok := conn.(buffered); ok {
			return b.TCPConn
		}
		return conn
	}
}

// each runs a test of a tunnel in every setup.
func each(t *testing.T, test func(t *testing.T, s setup)) {
	t.Parallel()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			test(t, s)
		})
	}
}

// rig is a gateway of one backend.
type rig struct {
	t       *testing.T
	proxy   *upgrade.Proxy
	front   *httptest.Server
	served  chan error           // what Serve returned, or Connect
	tunnels chan *upgrade.Tunnel // served ones
	closed  chan upgrade.Summary
	heard   atomic.Int64
}

func newRig(t *testing.T, s setup, proxy *upgrade.Proxy, backend http.Handler) *rig {
	t.Helper()
	s.use(proxy)
	behind := start(t, s.tls, backend)
	target, _ := url.Parse(behind.URL)
	if s.tls {
		proxy.Dial = func(ctx context.Context, out *http.Request) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", out.URL.Host)
			if err != nil {
				return nil, err
			}
			if s.front != 0 {
				conn = switchable.New(conn)
			}
			secured := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
			return secured, secured.HandshakeContext(ctx)
		}
	}
	r := &rig{
		t: t, proxy: proxy, served: make(chan error, 100),
		tunnels: make(chan *upgrade.Tunnel, 100), closed: make(chan upgrade.Summary, 100),
	}
	r.front = s.start(t, http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		out := in.Clone(in.Context())
		out.URL.Scheme, out.URL.Host = target.Scheme, target.Host
		tunnel, err := proxy.Connect(out, upgrade.ConnectOptions{Heard: &r.heard, Closed: func(s upgrade.Summary) { r.closed <- s }})
		if err != nil {
			r.served <- err
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		err = tunnel.Serve(w)
		r.served <- err
		r.tunnels <- tunnel
	}))
	t.Cleanup(func() { // before the servers close
		now, cancel := context.WithCancel(context.Background())
		cancel()
		proxy.Shutdown(now)
	})
	return r
}

// start starts a server for clients.
func (s setup) start(t *testing.T, h http.Handler) *httptest.Server {
	server := httptest.NewUnstartedServer(h)
	if s.narrow {
		server.Listener = narrowListener{server.Listener}
	}
	if s.own {
		server.Listener = &upgrade.Listener{Listener: server.Listener}
	}
	if s.front != 0 {
		server.Listener = &upgrade.Listener{Listener: server.Listener}
		server.TLS = &tls.Config{MinVersion: s.front, MaxVersion: s.front}
	}
	return begin(t, server, s.tls || s.front != 0)
}

func start(t *testing.T, secure bool, h http.Handler) *httptest.Server {
	return begin(t, httptest.NewUnstartedServer(h), secure)
}

func begin(t *testing.T, server *httptest.Server, secure bool) *httptest.Server {
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server
}

// end is an end of a tunnel with nothing but the test behind it.
type end struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func newEnd(t *testing.T, conn net.Conn, r *bufio.Reader) *end {
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return &end{t, conn, r}
}

// client opens a tunnel by hand; more is sent in one packet with the handshake.
func (r *rig) client(more ...byte) *end {
	r.t.Helper()
	var conn net.Conn
	var err error
	if addr := r.front.Listener.Addr().String(); r.front.TLS != nil {
		conn, err = tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true})
	} else {
		conn, err = net.Dial("tcp", addr)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return r.clientOn(conn, more...)
}

// clientOn is client for a connection that there is already.
func (r *rig) clientOn(conn net.Conn, more ...byte) *end {
	r.t.Helper()
	e := newEnd(r.t, conn, bufio.NewReader(conn))
	e.send(append([]byte(shake), more...))
	res, err := http.ReadResponse(e.r, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatalf("handshake: %v, %v", res, err)
	}
	return e
}

// backends hands the backend's ends of tunnels to the test; more is sent in one
// packet with the 101.
func backends(t *testing.T, more ...byte) (http.Handler, <-chan *end) {
	ends := make(chan *end, 100)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		e := newEnd(t, conn, rw.Reader)
		e.send(append([]byte(switching), more...))
		ends <- e
	}), ends
}

// pair opens a tunnel and returns both ends.
func pair(t *testing.T, s setup, proxy *upgrade.Proxy) (r *rig, client, backend *end) {
	t.Helper()
	h, ends := backends(t)
	r = newRig(t, s, proxy, h)
	client = r.client()
	return r, client, wait(t, ends)
}

func (e *end) send(b []byte) {
	e.t.Helper()
	if _, err := e.Write(b); err != nil {
		e.t.Error(err)
	}
}

// expect reads what must come next.
func (e *end) expect(want string) {
	e.t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(e.r, got); err != nil || string(got) != want {
		e.t.Fatalf("read %.1000q, %v, want %.1000q", got[:n], err, want)
	}
}

// expectClose reads a close frame, and then the end.
func (e *end) expectClose(code uint16, reason string) {
	e.t.Helper()
	e.expectCloseFrame(code, reason)
	e.expectEOF()
}

func (e *end) expectCloseFrame(code uint16, reason string) {
	e.t.Helper()
	op, payload, err := readFrame(e.r)
	if want := closing(code, reason); err != nil || op != 0x88 || !bytes.Equal(payload, want) {
		e.t.Fatalf("got frame %x %.100q, %v, want a close frame %d %q", op, payload, err, code, reason)
	}
}

func (e *end) expectEOF() {
	e.t.Helper()
	if rest, err := io.ReadAll(e.r); len(rest) > 0 || err != nil {
		e.t.Fatalf("read %.100q, %v, want the end", rest, err)
	}
}

func (e *end) closeWrite() {
	e.t.Helper()
	if err := e.Conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		e.t.Error(err)
	}
}

// reset closes with a RST.
func (e *end) reset() {
	conn := e.Conn
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	conn.(*net.TCPConn).SetLinger(0)
	conn.Close()
}

// frame builds a frame of up to 64 KiB.
func frame(op byte, payload string, masked bool) []byte {
	b := []byte{op, byte(len(payload))}
	if len(payload) > 125 {
		b = append(b[:1], 126, byte(len(payload)>>8), byte(len(payload)))
	}
	if !masked {
		return append(b, payload...)
	}
	mask := []byte{0xa1, 0xb2, 0xc3, 0xd4}
	b[1] |= 0x80
	b = append(b, mask...)
	for i := range len(payload) {
		b = append(b, payload[i]^mask[i%4])
	}
	return b
}

func text(payload string, masked bool) []byte { return frame(0x81, payload, masked) }

func closing(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, code), reason...)
}

// readFrame reads a frame in the most straightforward way.
func readFrame(r io.Reader) (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1] & 0x7f)
	switch size {
	case 126:
		var n uint16
		err = binary.Read(r, binary.BigEndian, &n)
		size = uint64(n)
	case 127:
		err = binary.Read(r, binary.BigEndian, &size)
	}
	if err == nil && size > 1<<26 {
		err = errors.New("a frame of more than 64 MiB")
	}
	var mask [4]byte
	if err == nil && head[1]&0x80 != 0 {
		_, err = io.ReadFull(r, mask[:])
	}
	if err != nil {
		return 0, nil, err
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0], payload, err
}

// wait receives from c.
func wait[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	select {
	case v := <-c:
		return v
	case <-timeout.C:
		t.Fatal("nothing came")
		panic("not reached")
	}
}

// wantSummary waits for the tunnel's end.
func (r *rig) wantSummary(by upgrade.Side, code int) upgrade.Summary {
	r.t.Helper()
	s := wait(r.t, r.closed)
	if s.By != by || s.Code != code {
		r.t.Errorf("ended by %v with %d (%q, %v), want by %v with %d", s.By, s.Code, s.Reason, s.Err, by, code)
	}
	return s
}

// dial opens a tunnel with a real client.
func (r *rig) dial(opts websocket.DialOptions) *websocket.Conn {
	r.t.Helper()
	opts.HTTPClient = r.front.Client()
	c, _, err := websocket.Dial(r.t.Context(), strings.Replace(r.front.URL, "http", "ws", 1), &opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.CloseNow() })
	c.SetReadLimit(-1)
	return c
}

// echo is a real server.
func echo(t *testing.T, opts websocket.AcceptOptions) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &opts)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, b); err != nil {
				t.Error(fmt.Errorf("echo: %w", err))
				return
			}
		}
	})
}

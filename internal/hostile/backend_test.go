package hostile_test

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds waits for what must happen; nothing is measured by it.
const patience = 30 * time.Second

// A backend records what reaches it and answers each request with what it read.
type backend struct {
	addr string

	mu    sync.Mutex
	conns int
	got   []*message // but those of canaries
	raw   strings.Builder
	fault error // the first that wasn't HTTP
}

func newBackend(t *testing.T) *backend {
	b := &backend{}
	b.addr = listen(t, func(conn net.Conn) {
		b.count(1)
		defer b.count(-1)
		b.serve(conn)
	})
	return b
}

// listen gives each connection to serve, until the test ends.
func listen(t *testing.T, serve func(net.Conn)) (addr string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(2 * patience))
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		all.Wait()
	})
	return l.Addr().String()
}

func (b *backend) count(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.conns += n
}

// open returns how many connections there are.
func (b *backend) open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.conns
}

// forget begins a new record and returns the one before.
func (b *backend) forget() (got []*message, raw string, fault error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	got, raw, fault = b.got, b.raw.String(), b.fault
	b.got, b.fault = nil, nil
	b.raw.Reset()
	return got, raw, fault
}

// Write takes note of what was read.
func (b *backend) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.raw.Write(p)
}

func (b *backend) serve(conn net.Conn) {
	r := bufio.NewReader(io.TeeReader(conn, b))
	for {
		m, err := readHead(r)
		if err == io.EOF {
			return
		}
		if err == nil {
			if len(m.get("Expect")) > 0 {
				io.WriteString(conn, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			err = m.readBody(r, false)
		}
		upgrades := err == nil && len(m.get("Upgrade")) > 0
		if upgrades {
			sum := sha1.Sum([]byte(strings.Join(m.get("Sec-WebSocket-Key"), "") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
				base64.StdEncoding.EncodeToString(sum[:]))
			all, _ := io.ReadAll(r) // a tunnel's bytes are nobody's requests
			m.body = string(all)
		}
		b.note(m, err)
		if err != nil || upgrades {
			return
		}
		if answer := m.echo(); strings.HasPrefix(m.start, "HEAD ") {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", len(answer))
		} else {
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	}
}

// served is how a body begins that comes from a backend.
const served = "served: "

// echo returns what the backend answers: what it was asked.
func (m *message) echo() string {
	return served + m.start + " at " + strings.Join(m.get("Host"), " and ") + " " + m.body
}

func (b *backend) note(m *message, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(err, errGarbage) && b.fault == nil {
		b.fault = err
	}
	if m.start != "" && !strings.HasPrefix(m.start, "GET /canary/") {
		b.got = append(b.got, m)
	}
}

// own are the fields of m that the gateway writes itself, about its own connection
// or, and true for a client that isn't a proxy, about the client.
func (m *message) own() func(f field) bool {
	host := strings.Join(m.get("Host"), "")
	return func(f field) bool {
		switch f.name {
		case "Connection":
			return f.value == "close"
		case "X-Forwarded-For", "X-Real-Ip":
			return f.value == "127.0.0.1"
		case "X-Forwarded-Host":
			return f.value == host
		case "X-Forwarded-Proto":
			return f.value == "http"
		case "Forwarded":
			return f.value == `for=127.0.0.1;host="`+host+`";proto=http`
		}
		return false
	}
}

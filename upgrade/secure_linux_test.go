package upgrade_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// secure returns the setups with TLS on a loop.
func secure() (some []setup) {
	for _, s := range setups {
		if s.front != 0 && !s.tls {
			some = append(some, s)
		}
	}
	return some
}

// eachSecure runs a test of a tunnel, which must be on a loop, with each version of TLS.
func eachSecure(t *testing.T, test func(t *testing.T, r *rig, client, backend *end, tunnel *upgrade.Tunnel)) {
	t.Parallel()
	for _, s := range secure() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r, client, backend := pair(t, s, &upgrade.Proxy{})
			test(t, r, client, backend, r.wantLoop())
		})
	}
}

// wantLoop checks that the next tunnel is on a loop.
func (r *rig) wantLoop() *upgrade.Tunnel {
	r.t.Helper()
	tunnel := wait(r.t, r.tunnels)
	if !upgrade.OnLoop(tunnel) {
		r.t.Fatal("the tunnel isn't on a loop")
	}
	return tunnel
}

// Both ends may renew their keys at any time.
func TestSecureKeyUpdate(t *testing.T) {
	t.Parallel()
	h, ends := backends(t)
	r := newRig(t, secure()[1], &upgrade.Proxy{}, h)
	client, backend := r.rawClient(), wait(t, ends)
	r.wantLoop()
	hello, helloC := text("hello", false), text("hello", true)
	updates := 0
	for i := range 40 {
		ask := i%2 == 0
		if ask {
			updates++
		}
		packet := client.keyUpdate(ask)
		packet = append(packet, client.record(recordData, helloC[:3])...)
		packet = append(packet, client.keyUpdate(false)...)
		packet = append(packet, client.record(recordData, helloC[3:])...)
		if i%3 == 0 { // a record in two packets
			client.Write(packet[:10])
			packet = packet[10:]
		}
		client.Write(packet)
		backend.expect(string(helloC))
		backend.send(hello)
		client.expect(string(hello))
		if client.updates != updates {
			t.Fatalf("%d KeyUpdates have come, want %d", client.updates, updates)
		}
	}
}

// A client that asks for new keys all the time, and takes no answer, isn't read any more,
// and doesn't hold up the other tunnels. What it has sent isn't lost.
func TestSecureKeyUpdateFlood(t *testing.T) {
	t.Parallel()
	h, ends := backends(t)
	s := secure()[1]
	s.narrow = true
	r := newRig(t, s, &upgrade.Proxy{}, h)
	client, backend := r.rawClient(), wait(t, ends)
	tunnel := r.wantLoop()
	client.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	const rounds, row = 1500, 16 // crypto/tls allows for so many in a row
	payload := text("", true)
	var flood []byte
	for range rounds {
		for range row {
			flood = append(flood, client.keyUpdate(true)...)
		}
		flood = append(flood, client.record(recordData, payload)...)
	}
	go client.Write(flood)
	for began := time.Now(); upgrade.Unsent(tunnel) < 2*64<<10; time.Sleep(time.Millisecond) {
		if time.Since(began) > patience {
			t.Fatalf("only %d bytes wait for room", upgrade.Unsent(tunnel))
		}
	}
	for range 8 { // on all loops
		client, backend := r.client(), wait(t, ends)
		r.wantLoop()
		client.send(payload)
		backend.expect(string(payload))
	}
	if n := upgrade.Unsent(tunnel); n > 3*64<<10 {
		t.Errorf("%d bytes wait for room", n)
	}
	client.Conn.(*net.TCPConn).SetReadBuffer(1 << 20)
	for _, conn := range []net.Conn{client.Conn, backend.Conn} { // what was before may have taken long
		conn.SetDeadline(time.Now().Add(patience))
	}
	got := make(chan struct{})
	go func() {
		defer close(got)
		backend.expect(strings.Repeat(string(payload), rounds))
	}()
	for client.updates < rounds*row {
		if err := client.readRecord(); err != nil {
			t.Fatalf("%v behind %d KeyUpdates", err, client.updates)
		}
	}
	wait(t, got)
}

// Who sends records with much payload has many bytes read at a time, and few otherwise.
func TestSecureBudget(t *testing.T) {
	eachSecure(t, func(t *testing.T, _ *rig, client, backend *end, tunnel *upgrade.Tunnel) {
		const few, many = 2 << 10, 32 << 10
		if n := upgrade.Budget(tunnel); n != few {
			t.Errorf("%d bytes at first, want %d", n, few)
		}
		long := text(strings.Repeat("x", 60_000), true)
		for range 5 {
			client.send(long)
			backend.expect(string(long))
		}
		if n := upgrade.Budget(tunnel); n != many {
			t.Errorf("%d bytes behind long records, want %d", n, many)
		}
		empty := text("", true)
		for range 4 * 1600 {
			client.send(empty)
		}
		backend.expect(strings.Repeat(string(empty), 4*1600))
		if n := upgrade.Budget(tunnel); n != few {
			t.Errorf("%d bytes behind short records, want %d", n, few)
		}
	})
}

// A dribble is a connection that sends each byte by itself.
type dribble struct{ net.Conn }

func (d dribble) Write(b []byte) (int, error) {
	for i := range b {
		if _, err := d.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(b), nil
}

// Records may come in single bytes.
func TestSecureDribble(t *testing.T) {
	t.Parallel()
	for _, s := range secure() {
		h, ends := backends(t)
		r := newRig(t, s, &upgrade.Proxy{}, h)
		plain, err := net.Dial("tcp", r.front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client := r.clientOn(tls.Client(dribble{plain}, &tls.Config{InsecureSkipVerify: true}))
		backend := wait(t, ends)
		r.wantLoop()
		for _, size := range []int{0, 1, 125, 3000} {
			message := text(strings.Repeat("x", size), true)
			client.send(message)
			backend.expect(string(message))
		}
		client.closeWrite()
		backend.expectEOF()
	}
}

// Messages of 1 MiB pass both ways at the same time.
func TestSecureBig(t *testing.T) {
	eachSecure(t, func(t *testing.T, r *rig, client, backend *end, _ *upgrade.Tunnel) {
		const n = 4
		half := frame(0x02, strings.Repeat("b", 1<<15), false)
		more := bytes.Repeat(frame(0x00, strings.Repeat("b", 1<<15), false), 30)
		down := append(append(half, more...), frame(0x80, strings.Repeat("e", 1<<15), false)...)
		up := append(append(frame(0x02, strings.Repeat("b", 1<<15), true), bytes.Repeat(frame(0x00, strings.Repeat("b", 1<<15), true), 30)...), frame(0x80, "e", true)...)
		go func() {
			for range n {
				client.Write(up)
			}
		}()
		go func() {
			for range n {
				backend.Write(down)
			}
		}()
		got := make(chan struct{})
		go func() {
			defer close(got)
			for range n {
				backend.expect(string(up))
			}
		}()
		for range n {
			client.expect(string(down))
		}
		wait(t, got)
		client.closeWrite()
		backend.expectEOF()
		backend.Close()
		if s := wait(t, r.closed); s.MessagesToClient != n || s.MessagesToBackend != n || s.ToClient != int64(n*len(down)) {
			t.Errorf("%+v", s)
		}
	})
}

// An end behind bytes for which the backend has no room isn't forgotten: a lone
// close_notify is the last thing that comes.
func TestSecureEndWaits(t *testing.T) {
	t.Parallel()
	for _, s := range secure() {
		for _, size := range []int{1 << 10, 100_000, 1 << 20, 3 << 20} {
			t.Run(fmt.Sprintf("%s/%d", s.name, size), func(t *testing.T) {
				t.Parallel()
				h, ends := backends(t)
				r := newRig(t, s, &upgrade.Proxy{}, h)
				r.narrow(s)
				client, backend := r.client(), wait(t, ends)
				r.wantLoop()
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					client.send(make([]byte, size))
					client.closeWrite()
				}()
				if size < 1<<20 { // the sockets have room for it
					wait(t, sent)
				}
				if n, err := io.Copy(io.Discard, backend.r); n != int64(size) || err != nil {
					t.Errorf("%d bytes have come, and %v", n, err)
				}
				backend.send(text("hello", false))
				client.expect(string(text("hello", false)))
			})
		}
	}
}

// What the client sends that is no TLS ends the tunnel as a broken connection does, and
// the client is told why.
func TestSecureGarbage(t *testing.T) {
	eachSecure(t, func(t *testing.T, r *rig, client, backend *end, _ *upgrade.Tunnel) {
		client.Conn.(*tls.Conn).NetConn().Write([]byte("\x17\x03\x03\x00\x30" + strings.Repeat("x", 0x30)))
		if _, err := client.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
			t.Errorf("the client got %v", err)
		}
		if s := r.wantSummary(upgrade.SideClient, 0); s.Err == nil {
			t.Error("the tunnel has ended without an error")
		}
		if _, err := backend.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the backend got %v", err)
		}
	})
}

// A session may be resumed by a ticket.
func TestSecureTickets(t *testing.T) {
	t.Parallel()
	for _, s := range secure() {
		h, ends := backends(t)
		r := newRig(t, s, &upgrade.Proxy{}, h)
		config := &tls.Config{InsecureSkipVerify: true, ServerName: "gateway", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		for again := range 3 {
			conn, err := tls.Dial("tcp", r.front.Listener.Addr().String(), config)
			if err != nil {
				t.Fatal(err)
			}
			client := r.clientOn(conn)
			backend := wait(t, ends)
			r.wantLoop()
			if resumed := conn.ConnectionState().DidResume; resumed != (again > 0) {
				t.Errorf("%s, connection %d: resumed: %v", s.name, again, resumed)
			}
			backend.send(text("hello", false))
			client.expect(string(text("hello", false)))
			client.send(text("hello", true))
			backend.expect(string(text("hello", true)))
		}
	}
}

// aheadListener accepts connections that read ahead.
type aheadListener struct{ net.Listener }

func (l aheadListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return buffered{conn.(*net.TCPConn), bufio.NewReader(conn)}, nil
}

// A Listener may be above connections that Unwrap knows, and there may be no TLS.
func TestListenerElsewhere(t *testing.T) {
	t.Parallel()
	for name, wrap := range map[string]func(*httptest.Server){
		"above a wrapper": func(s *httptest.Server) {
			s.Listener = &upgrade.Listener{Listener: aheadListener{s.Listener}}
			s.StartTLS()
		},
		"twice": func(s *httptest.Server) {
			s.Listener = &upgrade.Listener{Listener: &upgrade.Listener{Listener: s.Listener}}
			s.StartTLS()
		},
		"without TLS": func(s *httptest.Server) {
			s.Listener = &upgrade.Listener{Listener: s.Listener}
			s.Start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 20 { // what is read ahead is a matter of luck
				proxy := &upgrade.Proxy{}
				h, ends := backends(t)
				r := newRig(t, setups[3], proxy, h) // which sets Unwrap
				front := httptest.NewUnstartedServer(r.front.Config.Handler)
				wrap(front)
				t.Cleanup(front.Close)
				r.front = front
				early := text("early", true)
				client, backend := r.client(early...), wait(t, ends)
				r.wantLoop()
				backend.expect(string(early))
				client.send(early)
				backend.expect(string(early))
				backend.send(text("hello", false))
				client.expect(string(text("hello", false)))
				client.Close()
				backend.expectEOF()
				backend.Close()
				wait(t, r.closed)
			}
		})
	}
}

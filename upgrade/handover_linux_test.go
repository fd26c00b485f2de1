package upgrade_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// freeze freezes the only tunnel of p.
func freeze(t *testing.T, p *upgrade.Proxy) *upgrade.Frozen {
	t.Helper()
	all := p.Freeze()
	if len(all) != 1 {
		t.Fatalf("%d tunnels are frozen", len(all))
	}
	return all[0]
}

// adopt goes on with f in another proxy, as another process does.
func adopt(t *testing.T, f *upgrade.Frozen, p *upgrade.Proxy, opts upgrade.ConnectOptions) *upgrade.Tunnel {
	t.Helper()
	record, err := upgrade.ParseRecord(f.Record)
	if err != nil {
		t.Fatal(err)
	}
	var files [2]int
	for i, fd := range f.Files {
		if files[i], err = syscall.Dup(fd); err != nil {
			t.Fatal(err)
		}
	}
	f.Moved()
	tunnel, err := p.Adopt(record, files, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tunnel.Close(1001, "") })
	return tunnel
}

// move moves the only tunnel of a rig to another proxy. The rig hears of its end there.
func (r *rig) move(p *upgrade.Proxy) *upgrade.Tunnel {
	r.t.Helper()
	tunnel := adopt(r.t, freeze(r.t, r.proxy), p, upgrade.ConnectOptions{Closed: func(s upgrade.Summary) { r.closed <- s }})
	if s := wait(r.t, r.closed); !errors.Is(s.Err, upgrade.ErrMoved) {
		r.t.Errorf("the tunnel that has moved ended with %+v", s)
	}
	for range r.proxy.Tunnels() {
		r.t.Error("the old proxy still has a tunnel")
	}
	return tunnel
}

// plain is the setup of tunnels that can move.
var plain = setups[0]

// A tunnel goes on where it was, at whatever byte it is moved: frames are still told apart.
func TestMove(t *testing.T) {
	t.Parallel()
	down := append(text("one", false), frame(0x01, strings.Repeat("two", 100), false)...) // the last is a fragment
	down = append(down, frame(0x80, "three", false)...)
	up := append(text("eins", true), frame(0x02, strings.Repeat("zwei", 100), true)...)
	up = append(up, frame(0x80, "drei", true)...)
	for at := 0; at <= len(down); at += 1 + at/16 {
		r, client, backend := pair(t, plain, &upgrade.Proxy{})
		wait(t, r.tunnels)
		upAt := min(at, len(up))
		client.send(up[:upAt])
		backend.send(down[:at])
		client.expect(string(down[:at]))
		backend.expect(string(up[:upAt]))
		tunnel := r.move(&upgrade.Proxy{})
		client.send(up[upAt:])
		backend.send(down[at:])
		client.expect(string(down[at:]))
		backend.expect(string(up[upAt:]))
		if err := tunnel.Send(t.Context(), upgrade.TextFrame("extra")); err != nil {
			t.Errorf("at %d: %v", at, err)
		}
		client.expect(string(text("extra", false)))
		tunnel.Close(4000, "end")
		client.expectCloseFrame(4000, "end")
		backend.expectCloseFrame(4000, "end")
		client.Close()
		backend.Close()
		s := r.wantSummary(upgrade.SideGateway, 4000)
		if s.MessagesToBackend != 2 || s.MessagesToClient != 3 || s.ToBackend != int64(len(up)) || s.ToClient != int64(len(down))+7 {
			t.Errorf("at %d: %+v", at, s)
		}
	}
}

// What waits for a client that reads slowly, or for a backend, moves too, and the sockets'
// buffers stay where they are.
func TestMoveUnsent(t *testing.T) {
	t.Parallel()
	for _, toClient := range []bool{true, false} {
		r, client, backend := pair(t, plain, &upgrade.Proxy{})
		wait(t, r.tunnels)
		from, to := client, backend
		if toClient {
			from, to = backend, client
		}
		message := frame(0x82, strings.Repeat("0123456789", 6000), !toClient)
		const count = 300 // 18 MB, more than the sockets hold
		sent := make(chan bool)
		go func() {
			from.send(bytes.Repeat(message, count))
			from.closeWrite()
			close(sent)
		}()
		eventuallyFull(t, r)
		other := &upgrade.Proxy{}
		for range 3 {
			tunnel := r.move(other)
			r.proxy, other = other, &upgrade.Proxy{}
			if !toClient && tunnel.Began().After(time.Now()) {
				t.Error("it began in the future")
			}
		}
		got := make([]byte, len(message))
		for i := range count {
			if _, err := io.ReadFull(to.r, got); err != nil || !bytes.Equal(got, message) {
				t.Fatalf("message %d to the client, %v: %v", i, toClient, err)
			}
		}
		<-sent
	}
}

// A client that takes nothing isn't given more time for it by a move.
func TestMoveStalled(t *testing.T) {
	t.Parallel()
	r, client, backend := pair(t, plain, &upgrade.Proxy{StallTimeout: time.Hour})
	defer client.Close()
	tunnel := wait(t, r.tunnels)
	go backend.Write(bytes.Repeat(frame(0x82, strings.Repeat("0123456789", 6000), false), 300)) // until the tunnel is cut
	eventuallyFull(t, r)
	for stalled := false; !stalled; stalled = upgrade.Stalled(tunnel) >= 50*time.Minute {
		upgrade.Advance(r.proxy, 50*time.Minute)
		time.Sleep(100 * time.Millisecond) // the sockets may still have taken some
	}
	next := &upgrade.Proxy{StallTimeout: time.Hour}
	tunnel = r.move(next)
	if stalled := upgrade.Stalled(tunnel); stalled < 50*time.Minute {
		t.Errorf("its client has taken nothing for %v, as it seems", stalled)
	}
	upgrade.Advance(next, 20*time.Minute)
	upgrade.Advance(next, 3*time.Second) // a close frame has no room
	if s := wait(t, r.closed); s.Code != 1013 {
		t.Errorf("%+v", s)
	}
}

// eventuallyFull waits until bytes wait in the rig's tunnel.
func eventuallyFull(t *testing.T, r *rig) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		for tunnel := range r.proxy.Tunnels() {
			if upgrade.Pending(tunnel) > 0 {
				return
			}
		}
	}
	t.Fatal("nothing waits in the tunnel")
}

// A tunnel that is half open moves, and is closed when its other half ends.
func TestMoveHalfOpen(t *testing.T) {
	t.Parallel()
	r, client, backend := pair(t, plain, &upgrade.Proxy{})
	wait(t, r.tunnels)
	client.send(text("last", true))
	client.closeWrite()
	backend.expect(string(text("last", true)))
	backend.expectEOF()
	r.move(&upgrade.Proxy{})
	backend.send(text("answer", false))
	client.expect(string(text("answer", false)))
	backend.Close()
	client.expectEOF()
	if s := r.wantSummary(upgrade.SideClient, 0); s.Err == nil || s.MessagesToClient != 1 || s.MessagesToBackend != 1 {
		t.Errorf("%+v", s)
	}
}

// Limits go on counting what has passed before the move.
func TestMoveLimits(t *testing.T) {
	t.Parallel()
	t.Run("rate", func(t *testing.T) {
		r, client, backend := pair(t, plain, &upgrade.Proxy{MessageRate: 1, MessageBurst: 20})
		wait(t, r.tunnels)
		for range 20 {
			client.send(text("x", true))
			backend.expect(string(text("x", true)))
		}
		r.move(&upgrade.Proxy{MessageRate: 1, MessageBurst: 20})
		for range 20 { // some, since time passes
			client.send(text("x", true))
		}
		client.expectClose(1008, "too many messages")
	})
	t.Run("size", func(t *testing.T) {
		r, client, backend := pair(t, plain, &upgrade.Proxy{MessageLimit: 10})
		wait(t, r.tunnels)
		client.send(frame(0x01, "123456", true))
		backend.expect(string(frame(0x01, "123456", true)))
		r.move(&upgrade.Proxy{MessageLimit: 10})
		client.send(frame(0x80, "12345", true))
		client.expectClose(1009, "message too big")
	})
	t.Run("lost track", func(t *testing.T) {
		r, client, backend := pair(t, plain, &upgrade.Proxy{})
		wait(t, r.tunnels)
		client.send([]byte("\xff\xff no frame"))
		backend.expect("\xff\xff no frame")
		r.move(&upgrade.Proxy{MessageLimit: 10})
		client.expectClose(1002, "protocol error")
	})
	t.Run("age", func(t *testing.T) {
		r, client, _ := pair(t, plain, &upgrade.Proxy{})
		wait(t, r.tunnels)
		time.Sleep(20 * time.Millisecond)
		r.move(&upgrade.Proxy{MaxAge: 10 * time.Millisecond})
		client.expectClose(1012, "maximum age")
	})
	t.Run("turn", func(t *testing.T) {
		r, client, _ := pair(t, plain, &upgrade.Proxy{})
		wait(t, r.tunnels).SetClient("too late", 0.5)
		p := &upgrade.Proxy{}
		p.DrainGroup("g", 1012, "drained", time.Hour)
		f := freeze(t, r.proxy)
		record, err := upgrade.ParseRecord(f.Record)
		if err != nil || record.Key != "" || record.Turn != 0 {
			t.Errorf("%+v, %v", record, err)
		}
		adopt(t, f, p, upgrade.ConnectOptions{Group: "g"})
		client.expectClose(1012, "drained")
	})
}

// A tunnel that doesn't move after all goes on, and what was asked of it meanwhile is done.
func TestFrozen(t *testing.T) {
	t.Parallel()
	open := func() (r *rig, client, backend *end, tunnel *upgrade.Tunnel, f *upgrade.Frozen) {
		r, client, backend = pair(t, plain, &upgrade.Proxy{})
		tunnel = wait(t, r.tunnels)
		client.send(text("1", true))
		backend.expect(string(text("1", true)))
		f = freeze(t, r.proxy)
		client.send(text("2", true))
		if len(r.proxy.Freeze()) != 0 {
			t.Error("it is frozen twice")
		}
		return r, client, backend, tunnel, f
	}
	t.Run("resumed", func(t *testing.T) {
		_, client, backend, _, f := open()
		f.Resume()
		backend.expect(string(text("2", true)))
		backend.send(text("3", false))
		client.expect(string(text("3", false)))
	})
	t.Run("closed", func(t *testing.T) {
		r, client, _, tunnel, f := open()
		tunnel.CloseGracefully(4001, "first")
		tunnel.Close(4002, "second")
		f.Resume()
		client.expectCloseFrame(4001, "first")
		client.Close()
		r.wantSummary(upgrade.SideGateway, 4001)
	})
	t.Run("sent", func(t *testing.T) {
		_, client, _, tunnel, f := open()
		sent := make(chan error, 1)
		go func() { sent <- tunnel.Send(t.Context(), upgrade.TextFrame("hello")) }()
		upgrade.Waiting(tunnel, 1)
		f.Resume()
		client.expect(string(text("hello", false)))
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
	t.Run("sent into one that has moved", func(t *testing.T) {
		r, client, backend, tunnel, f := open()
		sent := make(chan error, 1)
		go func() { sent <- tunnel.Send(t.Context(), upgrade.TextFrame("hello")) }()
		upgrade.Waiting(tunnel, 1)
		adopt(t, f, &upgrade.Proxy{}, upgrade.ConnectOptions{})
		if err := <-sent; !errors.Is(err, upgrade.ErrClosed) {
			t.Error(err)
		}
		backend.expect(string(text("2", true)))
		backend.send(text("3", false))
		client.expect(string(text("3", false)))
		wait(t, r.closed)
	})
}

// What another process can't go on with isn't frozen.
func TestNotFrozen(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			r, client, _ := pair(t, s, &upgrade.Proxy{})
			tunnel := wait(t, r.tunnels)
			want := 0
			if upgrade.OnLoop(tunnel) && !s.tls && s.front == 0 {
				want = 1
			}
			if n := r.proxy.Movable(); n != want {
				t.Errorf("%d tunnels are movable, want %d", n, want)
			}
			tunnel.Close(1000, "")
			client.expectCloseFrame(1000, "")
			if all := r.proxy.Freeze(); len(all) != 0 || r.proxy.Movable() != 0 {
				t.Error("a tunnel that is closing was frozen")
			}
		})
	}
}

// Whoever closes all tunnels closes those that are just being adopted, too.
func TestAdoptAndClose(t *testing.T) {
	t.Parallel()
	r, client, _ := pair(t, plain, &upgrade.Proxy{})
	defer client.Close()
	wait(t, r.tunnels)
	f := freeze(t, r.proxy)
	f.Resume()
	next := &upgrade.Proxy{}
	stop := make(chan struct{})
	var closing sync.WaitGroup
	closing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			for tunnel := range next.Tunnels() {
				tunnel.Close(1012, "")
			}
		}
	})
	for range 3000 {
		record, err := upgrade.ParseRecord(f.Record)
		if err != nil {
			t.Fatal(err)
		}
		var files [2]int
		for i := range files {
			pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			files[i] = pair[0]
			syscall.Close(pair[1])
		}
		if _, err := next.Adopt(record, files, upgrade.ConnectOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	closing.Wait()
	if err := next.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// Each adopted tunnel has a name of its own.
func TestAdoptedIDs(t *testing.T) {
	t.Parallel()
	h, ends := backends(t)
	r := newRig(t, plain, &upgrade.Proxy{}, h)
	for range 20 {
		r.client()
		wait(t, ends)
		wait(t, r.tunnels)
	}
	p := &upgrade.Proxy{}
	for _, f := range r.proxy.Freeze() {
		adopt(t, f, p, upgrade.ConnectOptions{})
	}
	ids := make(map[string]bool)
	for tunnel := range p.Tunnels() {
		if ids[tunnel.ID()] || strings.Trim(tunnel.ID(), "0123456789abcdefghijklmnopqrstuvwxyz") != "" {
			t.Errorf("ID %q", tunnel.ID())
		}
		ids[tunnel.ID()] = true
	}
	if len(ids) != 20 {
		t.Errorf("%d IDs", len(ids))
	}
}

// Nothing but a record is one.
func TestParseRecord(t *testing.T) {
	t.Parallel()
	r, _, _ := pair(t, plain, &upgrade.Proxy{})
	wait(t, r.tunnels)
	f := freeze(t, r.proxy)
	defer f.Resume()
	for i := range f.Record {
		if _, err := upgrade.ParseRecord(f.Record[:i]); err == nil {
			t.Errorf("the first %d bytes of %d are a record", i, len(f.Record))
		}
	}
	if _, err := upgrade.ParseRecord(append(f.Record, 0)); err == nil {
		t.Error("a record and a byte is a record")
	}
}

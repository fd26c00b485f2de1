package upgrade_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// duplex is a connection in memory that can be closed in one direction. Its
// time is that of the synctest bubble.
type duplex struct {
	net.Conn          // to read from
	w        net.Conn // to write to
}

func newDuplex() (a, b duplex) {
	r1, w1 := net.Pipe()
	r2, w2 := net.Pipe()
	return duplex{r1, w2}, duplex{r2, w1}
}

func (d duplex) Write(b []byte) (int, error)        { return d.w.Write(b) }
func (d duplex) CloseWrite() error                  { return d.w.Close() }
func (d duplex) Close() error                       { return errors.Join(d.w.Close(), d.Conn.Close()) }
func (d duplex) SetWriteDeadline(t time.Time) error { return d.w.SetWriteDeadline(t) }
func (d duplex) SetDeadline(t time.Time) error {
	return errors.Join(d.w.SetWriteDeadline(t), d.Conn.SetReadDeadline(t))
}

// hijacked is a writer in front of such a connection.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// open opens a tunnel in memory, and sends the summary of its end to closed.
// Before it is served, each of before gets it.
func open(t *testing.T, p *upgrade.Proxy, opts upgrade.ConnectOptions, before ...func(*upgrade.Tunnel)) (client, backend *end, closed <-chan upgrade.Summary) {
	t.Helper()
	client, backend, closed, err := tryOpen(t, p, opts, before...)
	if err != nil {
		t.Fatal(err)
	}
	return client, backend, closed
}

func tryOpen(t *testing.T, p *upgrade.Proxy, opts upgrade.ConnectOptions, before ...func(*upgrade.Tunnel)) (_, _ *end, _ <-chan upgrade.Summary, err error) {
	behind, b := newDuplex()
	front, c := newDuplex()
	p.Dial = func(context.Context, *http.Request) (net.Conn, error) { return behind, nil }
	backend := &end{t, b, bufio.NewReader(b)}
	client := &end{t, c, bufio.NewReader(c)}
	go func() {
		if _, err := http.ReadRequest(backend.r); err == nil {
			io.WriteString(backend, switching)
		}
	}()
	closed := make(chan upgrade.Summary, 1)
	opts.Closed = func(s upgrade.Summary) { closed <- s }
	tunnel, err := p.Connect(request(t), opts)
	front.SetDeadline(time.Now().Add(time.Second)) // which the tunnel must not inherit
	if err == nil {
		for _, f := range before {
			f(tunnel)
		}
		err = tunnel.Serve(hijacked{httptest.NewRecorder(), front})
	}
	if err != nil {
		c.Close()
		b.Close()
		return nil, nil, nil, err
	}
	if _, err := http.ReadResponse(client.r, nil); err != nil {
		return nil, nil, nil, err
	}
	return client, backend, closed, nil
}

// answering lets both ends do what good ones do with a close frame.
func answering(ends ...*end) {
	for _, e := range ends {
		go func() {
			io.Copy(io.Discard, e.r)
			e.Close()
		}()
	}
}

// bubble runs a test with connections in memory, which are for the pump.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func TestLifetime(t *testing.T) {
	bubble(t, "age", func(t *testing.T) {
		p := &upgrade.Proxy{MaxAge: time.Hour, IdleTimeout: 50 * time.Minute}
		var ages []time.Duration
		for range 20 {
			client, backend, closed := open(t, p, upgrade.ConnectOptions{})
			<-time.After(20 * time.Minute)
			client.send(text("x", true))
			backend.expect(string(text("x", true)))
			client.expectCloseFrame(1012, "maximum age")
			answering(client)
			backend.expectCloseFrame(1012, "maximum age")
			answering(backend)
			ages = append(ages, (<-closed).Duration)
		}
		slices.Sort(ages)
		if first, last := ages[0], ages[19]; first < 54*time.Minute || last > time.Hour || last-first < time.Minute {
			t.Errorf("ages from %v to %v", first, last)
		}
	})
}

// crowd opens tunnels of a group with their turns spread, and reports when each
// one's close frame came.
func crowd(t *testing.T, p *upgrade.Proxy, group string, n int) (ends <-chan time.Duration) {
	t.Helper()
	began := time.Now()
	came := make(chan time.Duration, n)
	for i := range n {
		client, backend, _ := open(t, p, upgrade.ConnectOptions{Group: group, Turn: float64(i) / float64(n)})
		answering(backend)
		go func() {
			defer client.Close()
			if op, payload, err := readFrame(client.r); err != nil || op != 0x88 || !bytes.HasPrefix(payload, closing(1012, "")) {
				came <- -1
				return
			}
			came <- time.Since(began)
		}()
	}
	return came
}

func collect(came <-chan time.Duration) string {
	var all []time.Duration
	for range cap(came) {
		all = append(all, <-came)
	}
	return fmt.Sprint(all)
}

func TestDrainGroup(t *testing.T) {
	bubble(t, "spread", func(t *testing.T) {
		p := &upgrade.Proxy{}
		a, b := crowd(t, p, "a", 5), crowd(t, p, "b", 2)
		p.DrainGroup("a", 1012, "drain", 100*time.Second)
		late := crowd(t, p, "a", 2)
		<-time.After(30 * time.Second)
		later := crowd(t, p, "a", 2)
		if got := collect(a); got != "[0s 20s 40s 1m0s 1m20s]" {
			t.Errorf("they left at %v", got)
		}
		if got := collect(late) + collect(later); got != "[0s 50s][0s 20s]" {
			t.Errorf("late ones left at %v", got)
		}
		<-time.After(30 * time.Second) // the drain is over: what opens now stays
		after := crowd(t, p, "a", 1)
		<-time.After(time.Hour)
		if len(b) > 0 || len(after) > 0 {
			t.Error("one that was to stay left")
		}
		p.Shutdown(t.Context())
	})
	bubble(t, "turn from the answer", func(t *testing.T) {
		p := &upgrade.Proxy{}
		client, backend, closed := open(t, p, upgrade.ConnectOptions{Group: "a"}, func(tunnel *upgrade.Tunnel) {
			p.DrainGroup("a", 1012, "drain", 100*time.Second)
			synctest.Wait() // turn 0 is now, but nobody is served yet
			tunnel.SetClient("", 0.5)
		})
		client.expectCloseFrame(1012, "drain")
		answering(client)
		backend.expectCloseFrame(1012, "drain")
		answering(backend)
		if s := <-closed; s.Duration != 50*time.Second {
			t.Errorf("left after %v", s.Duration)
		}
	})
	bubble(t, "served behind the time", func(t *testing.T) {
		p := &upgrade.Proxy{}
		client, backend, closed := open(t, p, upgrade.ConnectOptions{Group: "a", Turn: 0.5}, func(*upgrade.Tunnel) {
			p.DrainGroup("a", 1012, "drain", 100*time.Second)
			<-time.After(time.Hour)
			if n := upgrade.Drains(p); n != 1 {
				t.Errorf("%d drains are kept for one that has begun before", n)
			}
		})
		client.expectCloseFrame(1012, "drain")
		backend.expectCloseFrame(1012, "drain")
		answering(client, backend)
		if s := <-closed; s.Duration > time.Hour+time.Second {
			t.Errorf("left after %v", s.Duration)
		}
		<-time.After(2 * time.Second)
		if n := upgrade.Drains(p); n != 0 {
			t.Errorf("%d drains are kept", n)
		}
	})
	bubble(t, "nothing is kept", func(t *testing.T) {
		p := &upgrade.Proxy{}
		other := crowd(t, p, "other", 1)
		for i := range 100 {
			p.DrainGroup(fmt.Sprint(i), 1012, "drain", time.Duration(i+1)*time.Second)
		}
		came := crowd(t, p, "50", 2)
		<-time.After(time.Second)
		p.CloseGroup("99", 1012, "now")
		<-time.After(9 * time.Second)
		if n := upgrade.Drains(p); n < 88 || n > 90 {
			t.Errorf("%d drains are kept behind 10 s", n)
		}
		<-time.After(90 * time.Second)
		if n := upgrade.Drains(p); n != 0 {
			t.Errorf("%d drains are kept", n)
		}
		if got := collect(came); got != "[0s 25.5s]" {
			t.Errorf("they left at %v", got)
		}
		if p.Shutdown(t.Context()); collect(other) != "[1m40s]" {
			t.Error("one that was to stay left")
		}
		// Nor where there is no tunnel whose end could be waited for.
		p = &upgrade.Proxy{}
		p.DrainGroup("a", 1012, "drain", time.Second)
		<-time.After(2 * time.Second)
		if n := upgrade.Drains(p); n != 0 {
			t.Errorf("%d drains are kept without tunnels", n)
		}
	})
	bubble(t, "reopened", func(t *testing.T) {
		p := &upgrade.Proxy{}
		a := crowd(t, p, "a", 4)
		p.DrainGroup("a", 1012, "drain", 100*time.Second)
		<-time.After(30 * time.Second)
		p.UndrainGroup("a")
		late := crowd(t, p, "a", 2)
		<-time.After(time.Hour)
		if len(a) != 2 || len(late) != 0 {
			t.Errorf("%d and %d left", len(a), len(late))
		}
		p.CloseGroup("a", 1012, "now")
		if got := collect(a); got != "[0s 25s 1h0m30s 1h0m30s]" {
			t.Errorf("they left at %v", got)
		}
		collect(late)
		p.Shutdown(t.Context())
	})
}

func TestShutdown(t *testing.T) {
	bubble(t, "spread", func(t *testing.T) {
		p := &upgrade.Proxy{}
		came, sooner := crowd(t, p, "a", 4), crowd(t, p, "b", 2)
		p.DrainGroup("a", 1012, "drain", 1000*time.Second)
		p.DrainGroup("b", 1012, "drain", 10*time.Second)
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 102*time.Second)
		defer cancel()
		done := make(chan error)
		go func() { done <- p.Shutdown(ctx) }()
		synctest.Wait()
		p.UndrainGroup("a") // takes nothing back any more
		if _, _, _, err := tryOpen(t, p, upgrade.ConnectOptions{}); !errors.Is(err, upgrade.ErrClosed) {
			t.Errorf("a tunnel opened: %v", err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > 76*time.Second {
			t.Errorf("took %v", took)
		}
		if got := collect(came) + collect(sooner); got != "[0s 25s 50s 1m15s][0s 5s]" {
			t.Errorf("they left at %v", got)
		}
		if err := p.Shutdown(t.Context()); err != nil {
			t.Errorf("again: %v", err)
		}
	})
	bubble(t, "no deadline", func(t *testing.T) {
		p := &upgrade.Proxy{}
		came := crowd(t, p, "a", 2)
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if got := collect(came); got != "[0s 0s]" {
			t.Errorf("they left at %v", got)
		}
	})
	bubble(t, "cancelled", func(t *testing.T) {
		p := &upgrade.Proxy{}
		client, backend, closed := open(t, p, upgrade.ConnectOptions{})
		began := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.Shutdown(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		<-closed
		if took := time.Since(began); took > 0 {
			t.Errorf("took %v", took)
		}
		client.Close()
		backend.Close()
	})
}

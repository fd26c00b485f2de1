package upgrade_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/limpet-go/limpet/upgrade"
)

// A handshake that is under way when Shutdown begins is completed, wherever it is, and its
// tunnel closed with 1012.
func TestShutdownCompletesHandshakes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		within time.Duration // of Shutdown, 0: it has no deadline
		takes  time.Duration // the handshake, from the beginning of Shutdown on
		served bool          // Connect is over by then, and Serve isn't
		closed time.Duration
		err    error
	}{
		{"at its turn", 102 * time.Second, 10 * time.Second, false, 75 * time.Second, nil},
		{"behind its turn", 102 * time.Second, 80 * time.Second, false, 80 * time.Second, nil},
		{"no deadline", 0, 10 * time.Second, false, 10 * time.Second, nil},
		{"before Serve, at its turn", 102 * time.Second, 10 * time.Second, true, 75 * time.Second, nil},
		{"before Serve, no deadline", 0, 10 * time.Second, true, 10 * time.Second, nil},
		{"behind the end of Shutdown", 22 * time.Second, 30 * time.Second, false, 0, upgrade.ErrClosed},
		{"before Serve, behind the end of Shutdown", 22 * time.Second, 30 * time.Second, true, 0, upgrade.ErrClosed},
	} {
		bubble(t, tt.name, func(t *testing.T) {
			behind, b := newDuplex()
			front, c := newDuplex()
			client := &end{t, c, bufio.NewReader(c)}
			backend := &end{t, b, bufio.NewReader(b)}
			let := make(chan struct{})
			p := &upgrade.Proxy{HandshakeTimeout: time.Hour, Dial: func(context.Context, *http.Request) (net.Conn, error) {
				if !tt.served {
					<-let
				}
				return behind, nil
			}}
			go func() {
				if _, err := http.ReadRequest(backend.r); err == nil {
					io.WriteString(backend, switching)
				}
			}()
			served := make(chan error, 1)
			go func() {
				tunnel, err := p.Connect(request(t), upgrade.ConnectOptions{Turn: 0.75})
				if err == nil {
					if tt.served {
						<-let
					}
					err = tunnel.Serve(hijacked{httptest.NewRecorder(), front})
				}
				served <- err
			}()
			synctest.Wait()
			ctx := t.Context()
			if tt.within > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, tt.within)
				defer cancel()
			}
			began := time.Now()
			over := make(chan error, 1)
			go func() { over <- p.Shutdown(ctx) }()
			time.Sleep(tt.takes)
			close(let)
			if tt.err != nil {
				if err := <-served; !errors.Is(err, tt.err) {
					t.Errorf("the handshake: %v", err)
				}
				if err := <-over; !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown: %v", err)
				}
				c.Close()
				b.Close()
				return
			}
			if res, err := http.ReadResponse(client.r, nil); err != nil || res.StatusCode != 101 {
				t.Fatalf("the client got %v, %v", res, err)
			}
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
			client.expectClose(1012, "shutting down")
			if at := time.Since(began); at != tt.closed {
				t.Errorf("it was closed after %v, want %v", at, tt.closed)
			}
			answering(client, backend)
			if err := <-over; err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
}

// Behind DrainAll tunnels are opened as before, and each is closed at its moment.
func TestDrainAll(t *testing.T) {
	bubble(t, "", func(t *testing.T) {
		p := &upgrade.Proxy{}
		came := crowd(t, p, "a", 2)
		p.DrainAll(1012, "soon", 100*time.Second)
		p.DrainAll(1001, "later", 1000*time.Second)
		more := crowd(t, p, "b", 4)
		if got := collect(came) + collect(more); got != "[0s 50s][0s 25s 50s 1m15s]" {
			t.Errorf("they left at %v", got)
		}
		time.Sleep(time.Hour)
		late := crowd(t, p, "c", 2)
		if got := collect(late); got != "[0s 0s]" {
			t.Errorf("those who came late left after %v", got)
		}
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
	bubble(t, "Shutdown keeps the moments", func(t *testing.T) {
		p := &upgrade.Proxy{}
		came := crowd(t, p, "a", 4)
		p.DrainAll(1012, "soon", 100*time.Second)
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 92*time.Second)
		defer cancel()
		if err := p.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if got := collect(came); got != "[0s 25s 50s 1m15s]" {
			t.Errorf("they left at %v", got)
		}
	})
}

// To close all tunnels at once goes for those too that wait for a lull already.
func TestDrainEndsWaits(t *testing.T) {
	for name, closeAll := range map[string]func(*upgrade.Proxy){
		"DrainAll":            func(p *upgrade.Proxy) { p.DrainAll(1012, "", 0) },
		"Shutdown":            func(p *upgrade.Proxy) { p.Shutdown(context.Background()) },
		"DrainAll, a new one": func(p *upgrade.Proxy) { p.DrainAll(1012, "", time.Hour); p.DrainAll(1012, "", 0) },
		"CloseGroup":          func(p *upgrade.Proxy) { p.CloseGroup("a", 1012, "") },
	} {
		bubble(t, name, func(t *testing.T) {
			p := &upgrade.Proxy{}
			client, backend, closed := open(t, p, upgrade.ConnectOptions{Group: "a"})
			client.send(text("question", true))
			backend.expect(string(text("question", true)))
			began := time.Now()
			p.DrainGroup("a", 1012, "", time.Minute)
			time.Sleep(100 * time.Millisecond)
			go closeAll(p)
			if op, _, err := readFrame(client.r); err != nil || op != 0x88 {
				t.Errorf("the client got frame %x, %v", op, err)
			}
			if took := time.Since(began); took != 100*time.Millisecond {
				t.Errorf("closed after %v", took)
			}
			answering(client, backend)
			<-closed
		})
	}
}

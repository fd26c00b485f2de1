package upgrade_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/limpet-go/limpet/upgrade"
)

// send sends with patience.
func send(t *testing.T, tunnel *upgrade.Tunnel, frames ...[]byte) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return tunnel.Send(ctx, frames...)
}

// A message of the gateway's arrives while the backend is silent and while it
// talks, and a compressed conversation goes on beside it.
func TestSend(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		const mode = websocket.CompressionContextTakeover
		r := newRig(t, s, &upgrade.Proxy{}, echo(t, websocket.AcceptOptions{CompressionMode: mode, CompressionThreshold: 1}))
		client := r.dial(websocket.DialOptions{CompressionMode: mode, CompressionThreshold: 1})
		tunnel := wait(t, r.tunnels)
		expect := func(kind websocket.MessageType, want string) {
			t.Helper()
			if got, b, err := client.Read(t.Context()); err != nil || got != kind || string(b) != want {
				t.Fatalf("read %v %.100q, %v, want %.100q", got, b, err, want)
			}
		}
		var total int64
		for _, size := range []int{0, 1, 125, 126, 65_535, 65_536, 1 << 20} {
			pushed, said := strings.Repeat("p", size), strings.Repeat("said over and over", 1+size/100)
			text, data := upgrade.TextFrame(pushed), upgrade.BinaryFrame([]byte(pushed))
			total += int64(2*len(text) + len(data))
			sent := make(chan error, 1)
			go func() { sent <- errors.Join(send(t, tunnel, text, data), send(t, tunnel, text)) }()
			expect(websocket.MessageText, pushed)
			expect(websocket.MessageBinary, pushed)
			expect(websocket.MessageText, pushed)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if err := client.Write(t.Context(), websocket.MessageText, []byte(said)); err != nil {
				t.Fatal(err)
			}
			expect(websocket.MessageText, said)
		}
		told := make(chan bool, 1)
		tunnel.OnClosed(func(upgrade.Summary) { told <- true })
		client.Close(websocket.StatusNormalClosure, "")
		wait(t, told)
		if sum := r.wantSummary(upgrade.SideClient, 1000); sum.MessagesToClient != 4*7 || sum.MessagesToBackend != 7 || sum.ToClient < total {
			t.Errorf("%+v, want 28 and 7 messages and more than %d bytes", sum, total)
		}
		if err := send(t, tunnel, upgrade.TextFrame("late")); !errors.Is(err, upgrade.ErrClosed) {
			t.Errorf("sent after the end: %v", err)
		}
	})
}

// Senders get between the messages of a backend that never pauses, never between
// the frames of one, and each in its own order.
func TestSendIntoFirehose(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		const senders, messages = 4, 25
		r, client, backend := pair(t, s, &upgrade.Proxy{})
		tunnel := wait(t, r.tunnels)
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { // messages of three fragments with a ping among them, until the tunnel closes
			var held []byte // so that no packet ends where a message does
			for i := 0; ; i++ {
				part := strings.Repeat("y", i*7919%20_000)
				msg := append(frame(0x01, part, false), frame(0x00, part, false)...)
				msg = append(append(msg, frame(0x89, "ping", false)...), frame(0x80, part, false)...)
				msg = append(held, msg...)
				msg, held = msg[:len(msg)-1], msg[len(msg)-1:]
				if _, err := backend.Write(msg); err != nil {
					return
				}
			}
		})
		wg.Go(func() { io.Copy(io.Discard, backend.r) })
		var sending sync.WaitGroup
		for i := range senders {
			sending.Go(func() {
				for j := range messages {
					if err := send(t, tunnel, upgrade.BinaryFrame([]byte{byte(i), byte(j)})); err != nil {
						t.Errorf("sender %d, message %d: %v", i, j, err)
						return
					}
				}
			})
		}
		wg.Go(func() {
			sending.Wait()
			tunnel.Close(1012, "done")
		})
		var next [senders]byte
		for open := false; ; {
			op, payload, err := readFrame(client.r)
			switch {
			case err != nil:
				t.Fatalf("the stream ended in %v", err)
			case op == 0x88:
				for i, n := range next {
					if n != messages {
						t.Errorf("%d messages of sender %d arrived", n, i)
					}
				}
				client.Close()
				r.wantSummary(upgrade.SideGateway, 1012)
				return
			case op == 0x82:
				if open || len(payload) != 2 || next[payload[0]] != payload[1] {
					t.Fatalf("got %v, within a message: %v, want %v", payload, open, next)
				}
				next[payload[0]]++
			case op == 0x89:
			case op&0xf == 0 != open || strings.Trim(string(payload), "y") != "":
				t.Fatalf("a broken frame %x, within a message: %v", op, open)
			default:
				open = op&0x80 == 0
			}
		}
	})
}

// A message that is passing is waited for, as long as the sender likes.
func TestSendWaits(t *testing.T) {
	bubble(t, "for the message", func(t *testing.T) {
		p := &upgrade.Proxy{}
		var tunnel *upgrade.Tunnel
		client, backend, closed := open(t, p, upgrade.ConnectOptions{}, func(o *upgrade.Tunnel) { tunnel = o })
		first, last := frame(0x01, "hel", false), frame(0x80, "lo", false)
		for _, part := range [][]byte{first[:2], first[2:], frame(0x89, "", false), last[:3]} {
			backend.send(part)
			client.expect(string(part))
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := tunnel.Send(ctx, upgrade.TextFrame("x")); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("sent behind %q: %v", part, err)
			}
			cancel()
		}
		sent := make(chan error, 1)
		go func() { sent <- tunnel.Send(t.Context(), upgrade.TextFrame("now")) }()
		synctest.Wait()
		go backend.send(append(last[3:], text("next", false)...))
		client.expect(string(last[3:]) + "\x81\x03now\x81\x04next")
		if err := <-sent; err != nil {
			t.Error(err)
		}
		// Nobody waits for a message that can't end any more.
		backend.send(first)
		client.expect(string(first))
		go func() { sent <- tunnel.Send(t.Context(), upgrade.TextFrame("x")) }()
		synctest.Wait()
		tunnel.Close(1012, "")
		if err := tunnel.Send(t.Context(), upgrade.TextFrame("x")); !errors.Is(err, upgrade.ErrClosed) {
			t.Errorf("sent while closing: %v", err)
		}
		client.expectClose(1012, "")
		backend.expectClose(1012, "")
		if err := <-sent; !errors.Is(err, upgrade.ErrClosed) {
			t.Errorf("sent behind a close frame: %v", err)
		}
		<-closed
	})
	bubble(t, "for Serve", func(t *testing.T) {
		p := &upgrade.Proxy{}
		sent := make(chan error, 1)
		client, backend, _ := open(t, p, upgrade.ConnectOptions{}, func(tunnel *upgrade.Tunnel) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := tunnel.Send(ctx, upgrade.TextFrame("x")); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("sent before Serve: %v", err)
			}
			go func() { sent <- tunnel.Send(t.Context(), upgrade.TextFrame("hello")) }()
			synctest.Wait()
		})
		client.expect("\x81\x05hello")
		if err := <-sent; err != nil {
			t.Error(err)
		}
		client.Close()
		backend.Close()
		tryOpen(t, p, upgrade.ConnectOptions{}, func(tunnel *upgrade.Tunnel) {
			go func() { sent <- tunnel.Send(t.Context(), upgrade.TextFrame("x")) }()
			synctest.Wait()
			ended := 0
			tunnel.OnClosed(func(s upgrade.Summary) { ended += s.Code })
			tunnel.Close(1012, "")
			tunnel.OnClosed(func(s upgrade.Summary) { ended += s.Code })
			if ended != 2*1012 {
				t.Errorf("the end was told to %d of 2", ended/1012)
			}
		})
		if err := <-sent; !errors.Is(err, upgrade.ErrClosed) {
			t.Errorf("sent to a tunnel that was never served: %v", err)
		}
	})
}

// A client that doesn't read costs the sender its own time only, and the tunnel
// its life once a frame is torn.
func TestSendToSlowClient(t *testing.T) {
	bubble(t, "untouched", func(t *testing.T) {
		p := &upgrade.Proxy{}
		var tunnel *upgrade.Tunnel
		client, backend, closed := open(t, p, upgrade.ConnectOptions{}, func(o *upgrade.Tunnel) { tunnel = o })
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tunnel.Send(ctx, upgrade.TextFrame("x")); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		go tunnel.Send(t.Context(), upgrade.TextFrame("all"), upgrade.BinaryFrame([]byte("the")), upgrade.TextFrame("same"))
		client.expect("\x81\x03all\x82\x03the\x81\x04same")
		go backend.send(text("goes on", false))
		client.expect("\x81\x07goes on")
		client.Close()
		backend.Close()
		<-closed
	})
	bubble(t, "torn", func(t *testing.T) {
		p := &upgrade.Proxy{}
		var tunnel *upgrade.Tunnel
		client, backend, closed := open(t, p, upgrade.ConnectOptions{}, func(o *upgrade.Tunnel) { tunnel = o })
		ctx, cancel := context.WithCancel(t.Context())
		sent := make(chan error, 1)
		go func() { sent <- tunnel.Send(ctx, upgrade.TextFrame("hello")) }()
		if _, err := io.ReadFull(client.Conn, make([]byte, 4)); err != nil { // and no more, as client.r would
			t.Fatal(err)
		}
		cancel()
		if err := <-sent; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		client.expectEOF()
		backend.expectEOF()
		if s := <-closed; s.By != upgrade.SideGateway || !errors.Is(s.Err, context.Canceled) || s.ToClient != 4 || s.MessagesToClient != 0 {
			t.Errorf("%+v", s)
		}
	})
	bubble(t, "closed meanwhile", func(t *testing.T) {
		p := &upgrade.Proxy{}
		var tunnel *upgrade.Tunnel
		_, backend, closed := open(t, p, upgrade.ConnectOptions{}, func(o *upgrade.Tunnel) { tunnel = o })
		answering(backend)
		sent := make(chan error, 1)
		go func() { sent <- tunnel.Send(context.Background(), upgrade.TextFrame("hello")) }()
		synctest.Wait()
		began := time.Now()
		tunnel.Close(1012, "")
		if err := <-sent; !errors.Is(err, upgrade.ErrClosed) {
			t.Error(err)
		}
		<-closed
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
	})
	bubble(t, "client gone", func(t *testing.T) {
		p := &upgrade.Proxy{}
		var tunnel *upgrade.Tunnel
		client, backend, closed := open(t, p, upgrade.ConnectOptions{}, func(o *upgrade.Tunnel) { tunnel = o })
		client.Conn.(duplex).Conn.Close() // it still holds its other half
		began := time.Now()
		if err := tunnel.Send(t.Context(), upgrade.TextFrame("hello")); err == nil {
			t.Error("sent")
		}
		if err := tunnel.Send(t.Context(), upgrade.TextFrame("hello")); !errors.Is(err, upgrade.ErrClosed) {
			t.Error(err)
		}
		backend.expectEOF()
		if s := <-closed; s.By != upgrade.SideClient || s.Err == nil || time.Since(began) > time.Second {
			t.Errorf("%+v after %v", s, time.Since(began))
		}
	})
	bubble(t, "backend gone", func(t *testing.T) {
		p := &upgrade.Proxy{}
		var tunnel *upgrade.Tunnel
		client, backend, closed := open(t, p, upgrade.ConnectOptions{}, func(o *upgrade.Tunnel) { tunnel = o })
		client.closeWrite()
		backend.expectEOF()
		sent := make(chan error, 1)
		go func() { sent <- tunnel.Send(context.Background(), upgrade.TextFrame("hello")) }()
		synctest.Wait()
		began := time.Now()
		backend.Close()
		if err := <-sent; !errors.Is(err, upgrade.ErrClosed) {
			t.Error(err)
		}
		<-closed
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("took %v", took)
		}
	})
	t.Run("real", func(t *testing.T) {
		each(t, func(t *testing.T, s setup) {
			r, client, _ := pair(t, s, &upgrade.Proxy{})
			tunnel := wait(t, r.tunnels)
			const size = 1 << 20
			big := upgrade.BinaryFrame(make([]byte, size))
			sent := 0
			for {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				err := tunnel.Send(ctx, big)
				cancel()
				if err != nil {
					break
				}
				sent++
			}
			// Whatever was cut, nothing came behind it.
			tunnel.Close(1012, "")
			whole := 0
			for {
				op, payload, err := readFrame(client.r)
				if err != nil || op == 0x88 {
					break
				}
				if op != 0x82 || len(payload) != size {
					t.Fatalf("frame %x of %d bytes", op, len(payload))
				}
				whole++
			}
			if whole != sent && whole != sent+1 { // TLS: with its last record just written
				t.Errorf("%d frames arrived, %d were sent", whole, sent)
			}
			client.Close()
			// Only where the socket had no room for a single byte the stream was whole.
			if sum := wait(t, r.closed); sum.By != upgrade.SideGateway || sum.Code == 0 && sum.Err == nil {
				t.Errorf("%+v", sum)
			}
		})
	})
}

// Closing at any moment leaves the client a whole stream: messages, then a close
// frame.
func TestSendWhileClosing(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r := newRig(t, s, &upgrade.Proxy{}, echo(t, websocket.AcceptOptions{}))
		var wg sync.WaitGroup
		defer wg.Wait()
		for range 20 {
			client := r.client()
			tunnel := wait(t, r.tunnels)
			for i := range 3 {
				wg.Go(func() {
					for j := uint32(0); ; j++ {
						if err := send(t, tunnel, upgrade.BinaryFrame(binary.BigEndian.AppendUint32([]byte{byte(i)}, j))); err != nil {
							return
						}
						if i == 0 && j == 20 {
							tunnel.Close(1012, "")
						}
					}
				})
			}
			var next [3]uint32
			for {
				op, payload, err := readFrame(client.r)
				if err != nil {
					t.Fatalf("the stream ended in %v", err)
				}
				if op == 0x88 {
					break
				}
				if i, n := payload[0], binary.BigEndian.Uint32(payload[1:]); next[i] != n {
					t.Fatalf("message %d of sender %d, want %d", n, i, next[i])
				} else {
					next[i]++
				}
			}
			client.expectEOF()
			client.Close()
		}
	})
}

func TestSendRefuses(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{})
		tunnel := wait(t, r.tunnels)
		for _, bad := range []string{
			"", "\x81", "\x81\x02x", "\x81\x01xx", "\x81\x00\x81\x00", "\x01\x01x", "\x80\x01x", "\x89\x00", "\x88\x00", "\xc1\x01x", "\x81\x81\x00\x00\x00\x00x",
		} {
			if err := send(t, tunnel, upgrade.TextFrame("x"), []byte(bad)); err == nil {
				t.Errorf("%q was sent", bad)
			}
		}
		// After the close frame of an end there are no messages.
		client.send(frame(0x88, string(closing(1000, "")), true))
		backend.expectCloseFrame(1000, "")
		if err := send(t, tunnel, upgrade.TextFrame("x")); !errors.Is(err, upgrade.ErrClosed) {
			t.Errorf("behind the client's close frame: %v", err)
		}
		backend.Close()
		client.expectEOF()

		r, client, backend = pair(t, s, &upgrade.Proxy{})
		backend.send([]byte("\x87 reserved\x00"))
		client.expect("\x87 reserved\x00")
		if err := send(t, wait(t, r.tunnels), upgrade.TextFrame("x")); !errors.Is(err, upgrade.ErrClosed) {
			t.Errorf("to a stream that lost track: %v", err)
		}

		r = newRig(t, s, &upgrade.Proxy{Protocols: []string{"custom"}}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
				io.WriteString(conn, "HTTP/1.1 101 Custom\r\nConnection: upgrade\r\nUpgrade: custom\r\n\r\n")
				t.Cleanup(func() { conn.Close() })
			}
		}))
		req, _ := http.NewRequestWithContext(t.Context(), "GET", r.front.URL, nil)
		req.Header.Set("Connection", "upgrade")
		req.Header.Set("Upgrade", "custom")
		res, err := r.front.Client().Do(req)
		if err != nil || res.StatusCode != 101 {
			t.Fatal(res, err)
		}
		defer res.Body.Close()
		if err := send(t, wait(t, r.tunnels), upgrade.TextFrame("x")); err == nil || errors.Is(err, upgrade.ErrClosed) {
			t.Errorf("to another protocol: %v", err)
		}
	})
}

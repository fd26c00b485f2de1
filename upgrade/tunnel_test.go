package upgrade_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/limpet-go/limpet/upgrade"
)

// What a real client and a real server agree on passes, and what they say.
func TestEndToEnd(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r := newRig(t, s, &upgrade.Proxy{}, echo(t, websocket.AcceptOptions{
			Subprotocols:    []string{"v2.chat"},
			CompressionMode: websocket.CompressionContextTakeover,
		}))
		c := r.dial(websocket.DialOptions{
			Subprotocols:    []string{"v1.chat", "v2.chat"},
			CompressionMode: websocket.CompressionContextTakeover,
		})
		if c.Subprotocol() != "v2.chat" {
			t.Errorf("subprotocol %q", c.Subprotocol())
		}
		big := make([]byte, 16<<20)
		rand.NewChaCha8([32]byte{}).Read(big)
		for name, msg := range map[string][]byte{
			"empty": nil, "short": []byte("hello"), "16 MiB": big,
			"compressible": bytes.Repeat([]byte("limpet "), 100_000),
		} {
			go c.Write(t.Context(), websocket.MessageBinary, msg)
			if _, got, err := c.Read(t.Context()); err != nil || !bytes.Equal(got, msg) {
				t.Fatalf("%s: %d bytes came back, %v", name, len(got), err)
			}
		}
		fragments, _ := c.Writer(t.Context(), websocket.MessageText)
		for i := range 10 {
			fmt.Fprintf(fragments, "%d,", i)
		}
		fragments.Close()
		if _, got, err := c.Read(t.Context()); err != nil || string(got) != "0,1,2,3,4,5,6,7,8,9," {
			t.Fatalf("fragments: %q, %v", got, err)
		}
		ctx := c.CloseRead(t.Context())
		if err := c.Ping(ctx); err != nil {
			t.Error(err)
		}
		if err := c.Close(4321, "enough"); err != nil {
			t.Error(err)
		}
		sum := r.wantSummary(upgrade.SideClient, 4321)
		if sum.MessagesToBackend != 5 || sum.MessagesToClient != 5 || sum.Err != nil {
			t.Errorf("%+v", sum)
		}
		if sum.ToBackend < 16<<20 || sum.ToClient < 16<<20 || sum.Duration <= 0 {
			t.Errorf("%+v", sum)
		}
	})
}

func TestBackendCloses(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{})
		backend.send(frame(0x88, string(closing(4000, "bye")), false))
		client.expectCloseFrame(4000, "bye")
		client.send(frame(0x88, string(closing(4000, "")), true))
		backend.expectCloseFrame(4000, "")
		backend.Close()
		client.expectEOF()
		client.Close()
		r.wantSummary(upgrade.SideBackend, 4000)
	})
}

// Bytes right behind the handshake come first, in both directions.
func TestEarlyBytes(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		hello := text(strings.Repeat("from the backend", 200), false) // more than the handshake reads
		h, ends := backends(t, append(hello, 0x81)...)
		r := newRig(t, s, &upgrade.Proxy{}, h)
		client := r.client(append(text("from the client", true), 0x81)...)
		backend := wait(t, ends)
		client.expect(string(hello))
		backend.expect(string(text("from the client", true)))
		client.send(text("more", true)[1:])
		backend.send(text("more", false)[1:])
		client.expect(string(text("more", false)))
		backend.expect(string(text("more", true)))
		wait(t, r.tunnels).Close(1001, "")
		client.expectClose(1001, "")
		client.Close()
		backend.Close()
		if sum := r.wantSummary(upgrade.SideGateway, 1001); sum.MessagesToClient != 2 || sum.MessagesToBackend != 2 {
			t.Errorf("%+v", sum)
		}
	})
}

// However the bytes are cut, they arrive at once: a byte is never held back.
func TestSingleBytes(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		_, client, backend := pair(t, s, &upgrade.Proxy{})
		for _, b := range text("", false) {
			backend.send([]byte{b})
		}
		client.expect(string(text("", false)))
		msg := text("hi", false)
		backend.send(msg[:3])
		backend.send(msg[3:]) // the frame's last byte alone
		client.expect(string(msg))
	})
}

func TestHalfClose(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{})
		client.send(text("last words", true))
		client.closeWrite()
		backend.expect(string(text("last words", true)))
		backend.expectEOF()
		backend.send(text("answer", false))
		client.expect(string(text("answer", false)))
		backend.Close()
		client.expectEOF()
		if sum := r.wantSummary(upgrade.SideClient, 0); !errors.Is(sum.Err, io.ErrUnexpectedEOF) {
			t.Errorf("error %v", sum.Err)
		}
	})
}

// The client is told that its backend has gone, unless that would be within a frame.
func TestBackendDies(t *testing.T) {
	for name, die := range map[string]func(*end){"FIN": (*end).closeWrite, "RST": (*end).reset} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s setup) {
				for _, half := range []bool{false, true} {
					r, client, backend := pair(t, s, &upgrade.Proxy{})
					sent := text("hello", false)
					if half {
						sent = sent[:4]
					}
					backend.send(sent)
					client.expect(string(sent))
					die(backend)
					if half {
						client.expectEOF()
					} else {
						client.expectClose(1012, "backend lost")
					}
					client.Close()
					if sum := r.wantSummary(upgrade.SideBackend, 1012); sum.Err == nil {
						t.Error("no error")
					}
				}
			})
		})
	}
}

// A client that vanishes vanishes for the backend too, whether it was reading or not.
func TestClientResets(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{})
		client.send(text("x", true))
		backend.expect(string(text("x", true)))
		client.reset()
		if _, err := io.ReadAll(backend.r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the backend got %v instead of a reset", err)
		}
		if sum := r.wantSummary(upgrade.SideClient, 0); !errors.Is(sum.Err, syscall.ECONNRESET) {
			t.Errorf("error %v", sum.Err)
		}
	})
}

func TestClientResetsWhileWrittenTo(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{})
		flood := make(chan error, 1)
		go func() {
			msg := text(strings.Repeat("x", 60_000), false)
			for {
				if _, err := backend.Write(msg); err != nil {
					flood <- err
					return
				}
			}
		}()
		client.r.Discard(200_000)
		client.reset()
		if err := wait(t, flood); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the backend was not told")
		}
		r.wantSummary(upgrade.SideClient, 0)
	})
}

// A close frame goes between two frames, even of a stream without a pause.
func TestCloseWithinFirehose(t *testing.T) {
	t.Parallel()
	for _, s := range setups {
		t.Run(s.name, func(t *testing.T) { // not all at once: they would be too slow, see below
			for attempt := 1; !closeWithinFirehose(t, s); attempt++ {
				if attempt == 10 {
					t.Fatal("this machine is too slow: no tunnel was closed in time")
				}
			}
		})
	}
}

// closeWithinFirehose reports false if the ends were so slow that the tunnel has cut the streams
// when their time was over: a frame has a second to end, and an end another one to read what came
// before the close frame.
func closeWithinFirehose(t *testing.T, s setup) (inTime bool) {
	r, client, backend := pair(t, s, &upgrade.Proxy{})
	var wg sync.WaitGroup
	for _, e := range []*end{client, backend} {
		wg.Go(func() {
			for i := 0; ; i++ {
				msg := text(strings.Repeat("y", i*7919%60_000), e == client)
				if _, err := e.Write(msg); err != nil {
					return
				}
			}
		})
	}
	tunnel := wait(t, r.tunnels)
	var seen atomic.Int64
	var closed atomic.Pointer[time.Time]
	var cut atomic.Bool
	ended := func(want string, err error) {
		if at := closed.Load(); at != nil && time.Since(*at) > 900*time.Millisecond {
			cut.Store(true)
		} else {
			t.Errorf("the stream ended in %v, not in %s", err, want)
		}
	}
	for _, e := range []*end{client, backend} {
		wg.Go(func() {
			defer e.Close()
			for {
				op, payload, err := readFrame(e.r)
				switch {
				case err != nil:
					ended("a close frame", err)
					return
				case op == 0x88:
					if !bytes.Equal(payload, closing(1012, "drain")) {
						t.Errorf("close frame %q", payload)
					}
					if n, err := io.Copy(io.Discard, e.r); n > 0 {
						t.Errorf("%d bytes behind the close frame", n)
					} else if err != nil {
						ended("its end", err)
					}
					return
				case op != 0x81 || len(bytes.Trim(payload, "y")) > 0:
					t.Errorf("broken frame %x", op)
					return
				}
				if seen.Add(1) == 200 {
					now := time.Now()
					closed.Store(&now)
					tunnel.Close(1012, "drain")
					tunnel.Close(1001, "only the first counts")
				}
			}
		})
	}
	if sum := r.wantSummary(upgrade.SideGateway, 1012); sum.Reason != "drain" || sum.Err != nil {
		t.Errorf("%+v", sum)
	}
	wg.Wait()
	return !cut.Load()
}

// An end that doesn't read stops the other: nothing piles up in between.
func TestBackpressure(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{})
		for _, conn := range []*end{client, backend} {
			conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		}
		var sent int
		chunk := bytes.Repeat(text(strings.Repeat("z", 60_000), false), 10)
		for {
			n, err := backend.Write(chunk)
			sent += n
			if err != nil {
				break
			}
		}
		// Four socket buffers of the kernel's and a buffer of ours.
		if limit := 24 << 20; sent > limit {
			t.Errorf("%d bytes were taken that nobody read", sent)
		}
		// A client that doesn't read doesn't keep a tunnel from closing.
		wait(t, r.tunnels).Close(1012, "")
		r.wantSummary(upgrade.SideGateway, 1012)
	})
}

func TestMessageLimit(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{MessageLimit: 10})
		fits := string(frame(0x01, "12345", true)) + string(frame(0x80, "67890", true)) + string(text("1234567890", true))
		client.send([]byte(fits + string(frame(0x01, "12345", true)) + string(frame(0x80, "678901", true))))
		backend.expect(fits + string(frame(0x01, "12345", true)))
		backend.expectCloseFrame(1009, "message too big")
		client.expectCloseFrame(1009, "message too big")
		backend.Close()
		client.Close()
		if sum := r.wantSummary(upgrade.SideGateway, 1009); sum.MessagesToBackend != 2 {
			t.Errorf("%+v", sum)
		}
	})
}

// With a limit, nothing passes that nobody can count: a frame that makes no sense
// ends the tunnel, and no byte of it arrives.
func TestMessageLimitLostTrack(t *testing.T) {
	for name, nonsense := range map[string]func(masked bool) []byte{
		"reserved opcode":         func(masked bool) []byte { return frame(0x83, "x", masked) },
		"reserved control opcode": func(masked bool) []byte { return frame(0x8b, "x", masked) },
		"wrong masking":           func(masked bool) []byte { return frame(0x81, "x", !masked) },
		"nothing to continue":     func(masked bool) []byte { return frame(0x80, "x", masked) },
		"message within a message": func(masked bool) []byte {
			return append(frame(0x01, "x", masked), frame(0x81, "x", masked)...)
		},
		"fragment of a ping": func(masked bool) []byte { return frame(0x09, "x", masked) },
		"long ping":          func(masked bool) []byte { return frame(0x89, strings.Repeat("x", 126), masked) },
		"long close":         func(masked bool) []byte { return frame(0x88, strings.Repeat("x", 126), masked) },
		"negative length": func(masked bool) []byte {
			b := frame(0x81, "", masked)
			return append([]byte{b[0], b[1] | 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, b[2:]...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, s setup) {
				for _, fromClient := range []bool{true, false} {
					r, client, backend := pair(t, s, &upgrade.Proxy{MessageLimit: 1000})
					from, to := backend, client
					if fromClient {
						from, to = client, backend
					}
					fits := text("fits", fromClient)
					bad := nonsense(fromClient)
					arrives := string(fits)
					if name == "message within a message" { // whose first fragment is good
						arrives += string(bad[:len(bad)/2])
					}
					from.send(append(append(fits, bad...), text(strings.Repeat("x", 60_000), fromClient)...))
					to.expect(arrives)
					to.expectCloseFrame(1002, "protocol error")
					from.expectCloseFrame(1002, "protocol error")
					to.expectEOF()
					client.Close()
					backend.Close()
					if sum := r.wantSummary(upgrade.SideGateway, 1002); sum.Reason != "protocol error" || sum.Err != nil {
						t.Errorf("%+v", sum)
					}
				}
			})
		})
	}
}

// Where a header comes in pieces, the bad one of them ends the tunnel.
func TestMessageLimitLostTrackWithinHeader(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{MessageLimit: 1000})
		client.send([]byte{0x81})
		backend.expect("\x81")
		client.send([]byte("\x05hello")) // without a mask
		client.expectClose(1002, "protocol error")
		backend.expectEOF() // within a frame there is no place for another one
		client.Close()
		backend.Close()
		r.wantSummary(upgrade.SideGateway, 1002)
	})
}

// An end that has said goodbye may not send any more. With a limit nothing does
// arrive behind its close frame, and the other end can say goodbye too.
func TestMessageLimitBehindClose(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		for _, fromClient := range []bool{true, false} {
			r, client, backend := pair(t, s, &upgrade.Proxy{MessageLimit: 1000})
			from, to, by := backend, client, upgrade.SideBackend
			if fromClient {
				from, to, by = client, backend, upgrade.SideClient
			}
			bye := string(closing(1000, ""))
			big := text(strings.Repeat("x", 60_000), fromClient)
			from.send(append(frame(0x88, bye, fromClient), big...))
			to.expectCloseFrame(1000, "")
			from.send(big)
			to.send(append(text("still here", !fromClient), frame(0x88, bye, !fromClient)...))
			from.expect(string(text("still here", !fromClient)))
			from.expectCloseFrame(1000, "")
			from.send(big)
			from.closeWrite()
			to.expectEOF()
			to.Close()
			from.expectEOF()
			from.Close()
			sum := r.wantSummary(by, 1000)
			if passed := max(sum.ToBackend, sum.ToClient); passed > 100 {
				t.Errorf("%d bytes passed", passed)
			}
		}
	})
}

// A limit counts messages, and other protocols than WebSocket have none.
func TestMessageLimitOtherProtocol(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		_, client, backend := otherPair(t, s, &upgrade.Proxy{MessageLimit: 10})
		long := strings.Repeat("a", 1000)
		io.WriteString(client, long)
		backend.expect(long)
	})
}

// What is no WebSocket passes as it is, and never gets a close frame.
func TestLostTrack(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := pair(t, s, &upgrade.Proxy{})
		backend.send([]byte("\x87 reserved\x00"))
		client.expect("\x87 reserved\x00")
		wait(t, r.tunnels).Close(1012, "")
		backend.expectCloseFrame(1012, "") // the client's direction is still followed
		client.expectEOF()
	})
}

// otherPair opens a tunnel that is no WebSocket.
func otherPair(t *testing.T, s setup, proxy *upgrade.Proxy) (r *rig, client io.ReadWriteCloser, backend *end) {
	t.Helper()
	proxy.Protocols = []string{"Custom"}
	accepted := make(chan *end, 1)
	r = newRig(t, s, proxy, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		io.WriteString(conn, "HTTP/1.1 101 Custom\r\nConnection: upgrade\r\nUpgrade: custom\r\n\r\n")
		accepted <- newEnd(t, conn, rw.Reader)
	}))
	req, _ := http.NewRequestWithContext(t.Context(), "GET", r.front.URL, nil)
	req.Header.Set("Connection", "upgrade")
	req.Header.Set("Upgrade", "h2c, custom")
	res, err := r.front.Client().Do(req)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "custom" {
		t.Fatal(res, err)
	}
	return r, res.Body.(io.ReadWriteCloser), wait(t, accepted)
}

func TestOtherProtocol(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		r, client, backend := otherPair(t, s, &upgrade.Proxy{})
		for range 3 { // single bytes, which no read may wait behind
			client.Write([]byte("a"))
			backend.expect("a")
			backend.send([]byte("b"))
			if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		backend.closeWrite()
		if rest, err := io.ReadAll(client); len(rest) > 0 || err != nil {
			t.Errorf("%q, %v", rest, err)
		}
		client.Write([]byte("still open"))
		backend.expect("still open")
		client.Close()
		backend.expectEOF()
		if sum := r.wantSummary(upgrade.SideBackend, 0); sum.Err != nil || sum.ToBackend != 13 || sum.ToClient != 3 {
			t.Errorf("%+v", sum)
		}
	})
}

// hurried is a writer with the deadlines of an http.Server that are about to
// pass. Sooner, they would end the handshake.
type hurried struct{ http.ResponseWriter }

func (h hurried) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	rc := http.NewResponseController(h.ResponseWriter)
	soon := time.Now().Add(50 * time.Millisecond)
	if err := errors.Join(rc.SetReadDeadline(soon), rc.SetWriteDeadline(soon)); err != nil {
		return nil, nil, err
	}
	return rc.Hijack()
}

// The end of the handler, its context and the limits of http.Server have no hold
// over a tunnel.
func TestOutlivesHandler(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		h, ends := backends(t)
		r := newRig(t, s, &upgrade.Proxy{}, h)
		ended := make(chan struct{})
		serve := r.front.Config.Handler
		r.front.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
			ctx, cancel := context.WithCancel(in.Context())
			defer close(ended)
			defer cancel()
			serve.ServeHTTP(hurried{w}, in.WithContext(ctx))
		})
		client := r.client()
		backend := wait(t, ends)
		wait(t, ended)
		<-time.After(100 * time.Millisecond) // both have passed
		client.send(text("still here", true))
		backend.expect(string(text("still here", true)))
		backend.send(text("me too", false))
		client.expect(string(text("me too", false)))
	})
}

// Closing from everywhere at any moment ends every tunnel once.
func TestCloseAnyTime(t *testing.T) {
	each(t, func(t *testing.T, s setup) {
		h, ends := backends(t)
		r := newRig(t, s, &upgrade.Proxy{}, h)
		const n = 20
		for range n {
			client := r.client()
			backend := wait(t, ends)
			tunnel := wait(t, r.tunnels)
			for _, f := range []func(){
				func() { tunnel.Close(1001, "") }, func() { tunnel.Close(1012, "") },
				func() { client.reset() }, func() { backend.reset() },
				func() { client.Write(text("x", true)) }, func() { backend.Write(text("x", false)) },
			} {
				go f()
			}
		}
		for range n {
			wait(t, r.closed)
		}
		for tunnel := range r.proxy.Tunnels() {
			t.Errorf("%v is left", tunnel)
		}
		select {
		case sum := <-r.closed:
			t.Errorf("one more end: %+v", sum)
		default:
		}
	})
}

package hub_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/go-chi/chi/v5"

	"github.com/limpet-go/limpet/bus/hub"
	"github.com/limpet-go/limpet/internal/sockets"
)

// masked returns a frame as a client sends it.
func masked(head byte, payload string) []byte {
	b := []byte{head}
	switch n := len(payload); {
	case n < 126:
		b = append(b, 0x80|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 0x80|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 0x80|127), uint64(n))
	}
	key := []byte{1, 200, 30, 4}
	b = append(b, key...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

const handshake = "GET / HTTP/1.1\r\nHost: hub\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"

// rawClient sends a handshake and what comes right behind it, and returns the connection
// with a reader of what follows the answer.
func rawClient(t *testing.T, s *httptest.Server, behind []byte) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if s.TLS != nil {
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(append([]byte(handshake), behind...)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	return c, in
}

// A frame is one that a server has sent.
type frame struct {
	head    byte
	payload string
}

// readFrames reads the frames of a server up to the end of the connection.
func readFrames(t testing.TB, in io.Reader) (frames []frame) {
	t.Helper()
	for {
		f := readFrame(t, in)
		if f.head == 0 {
			return frames
		}
		frames = append(frames, f)
	}
}

// readFrame reads a frame of a server. At the end of the connection there is none.
func readFrame(t testing.TB, in io.Reader) frame {
	t.Helper()
	head := make([]byte, 2)
	if _, err := io.ReadFull(in, head); err != nil {
		if !errors.Is(err, io.EOF) {
			t.Errorf("the connection doesn't end well: %v", err)
		}
		return frame{}
	}
	n := uint64(head[1])
	if more := map[uint64]int{126: 2, 127: 8}[n]; more > 0 {
		long := make([]byte, 8)
		_, _ = io.ReadFull(in, long[8-more:])
		n = binary.BigEndian.Uint64(long)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(in, payload); err != nil {
		t.Error(err)
	}
	return frame{head[0], string(payload)}
}

// received reads the frames of a server up to the end of the connection. Each is its
// first byte in hex and its payload, decompressed if the bit for that is set; a close frame
// has the code as a number.
func received(t *testing.T, in io.Reader) (frames []string) {
	t.Helper()
	for _, f := range readFrames(t, in) {
		if f.head&compressed != 0 {
			f.payload = inflate(t, f.payload)
		}
		if f.head == closing && len(f.payload) >= 2 {
			f.payload = fmt.Sprint(binary.BigEndian.Uint16([]byte(f.payload)))
		}
		frames = append(frames, fmt.Sprintf("%x %.20s", f.head, f.payload))
	}
	return frames
}

// What clients send, and what becomes of it, in one piece and in single bytes, behind the
// handshake and with it, over all kinds of connections.
func TestHandlerFrames(t *testing.T) {
	t.Parallel()
	const more, last = text &^ part, goesOn
	bye := masked(closing, "\x03\xe8bye")
	long := strings.Repeat("long", 250)
	options := &hub.HandlerOptions{
		ReadLimit: 1000,
		Message:   func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
	}
	cases := []struct {
		name string
		sent [][]byte
		want []string
	}{
		{"messages", [][]byte{masked(text, "one"), masked(bin, "\xfftwo"), masked(text, ""), masked(text, "ninebytes"), bye},
			[]string{"81 one", "82 \xfftwo", "81 ", "81 ninebytes", "88 1000"}},
		{"parts", [][]byte{masked(more, "a\xc3"), masked(ping, "p"), masked(0, "\xa4b"), masked(pong, "x"), masked(last, "c"), bye},
			[]string{"8a p", "81 a\u00e4bc", "88 1000"}},
		{"as long as may be", [][]byte{masked(text, long), bye}, []string{"81 longlonglonglonglong", "88 1000"}},
		{"too long", [][]byte{masked(text, long+"x"), bye}, []string{"88 1009"}},
		{"too long in parts", [][]byte{masked(more, long), masked(last, "x"), bye}, []string{"88 1009"}},
		{"far too long", [][]byte{{text, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}}, []string{"88 1009"}},
		{"longer than can be", [][]byte{{text, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}}, []string{"88 1002"}},
		{"a short length of 16 bits", [][]byte{{text, 0xfe, 0, 125, 0, 0, 0, 0}}, []string{"88 1002"}},
		{"a short length of 64 bits", [][]byte{{text, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}}, []string{"88 1002"}},
		{"a ping whose length has 16 bits", [][]byte{{ping, 0xfe, 0, 5, 0, 0, 0, 0}}, []string{"88 1002"}},
		{"not UTF-8", [][]byte{masked(text, "\xff"), masked(text, "never"), bye}, []string{"88 1007"}},
		{"not masked", [][]byte{{text, 1, 'x'}}, []string{"88 1002"}},
		{"an extension", [][]byte{masked(text|0x40, "x")}, []string{"88 1002"}},
		{"an unknown kind", [][]byte{masked(0x83, "x")}, []string{"88 1002"}},
		{"an unknown control frame", [][]byte{masked(0x8b, "x")}, []string{"88 1002"}},
		{"a ping in parts", [][]byte{masked(0x09, "x")}, []string{"88 1002"}},
		{"a long ping", [][]byte{masked(ping, strings.Repeat("x", 126))}, []string{"88 1002"}},
		{"nothing to continue", [][]byte{masked(last, "x")}, []string{"88 1002"}},
		{"a message within a message", [][]byte{masked(more, "x"), masked(text, "y")}, []string{"88 1002"}},
		{"a close without a code", [][]byte{masked(closing, "")}, []string{"88 "}},
		{"a close with half a code", [][]byte{masked(closing, "\x03")}, []string{"88 1002"}},
		{"a close with a code that can't be", [][]byte{masked(closing, "\x03\xed")}, []string{"88 1002"}},
		{"a close with a code of its own", [][]byte{masked(closing, "\x0f\xa1")}, []string{"88 4001"}},
	}
	h := startHub(t, nil, nil)
	for _, over := range []string{"TCP", "TLS", "sockets of our own"} {
		s := httptest.NewUnstartedServer(h.Handler(options))
		switch over {
		case "TLS":
			s.StartTLS()
		case "sockets of our own":
			s.Listener = sockets.Listen(s.Listener)
			fallthrough
		default:
			s.Start()
		}
		t.Cleanup(s.Close)
		for _, tt := range cases {
			all := slices.Concat(tt.sent...)
			for way, send := range map[string]func() (net.Conn, *bufio.Reader){
				"in one piece": func() (net.Conn, *bufio.Reader) {
					c, in := rawClient(t, s, nil)
					_, _ = c.Write(all)
					return c, in
				},
				"in single bytes": func() (net.Conn, *bufio.Reader) {
					c, in := rawClient(t, s, nil)
					for _, b := range all {
						if _, err := c.Write([]byte{b}); err != nil {
							break // it has been closed already
						}
					}
					return c, in
				},
				"with the handshake": func() (net.Conn, *bufio.Reader) { return rawClient(t, s, all) },
				"half of it with the handshake": func() (net.Conn, *bufio.Reader) {
					c, in := rawClient(t, s, all[:len(all)/2])
					_, _ = c.Write(all[len(all)/2:])
					return c, in
				},
			} {
				t.Run(fmt.Sprintf("%s %s over %s", tt.name, way, over), func(t *testing.T) {
					c, in := send()
					_ = c // which the end of the test closes
					if got := received(t, in); !slices.Equal(got, tt.want) {
						t.Errorf("got %q, want %q", got, tt.want)
					}
				})
			}
		}
	}
}

// The handler returns once Opened has, so that nothing of net/http stays with a client.
// What a router gives to other requests then can't be seen by the callbacks any more.
func TestHandlerReturns(t *testing.T) {
	t.Parallel()
	type key struct{}
	h := startHub(t, nil, nil)
	said := make(chan string, 1)
	opened := false
	client := h.Handler(&hub.HandlerOptions{
		Opened: func(ctx context.Context, _ *hub.Member, r *http.Request) {
			opened = chi.URLParam(r, "name") == "ann" && r.Context().Value(key{}) == "value" && r.Context().Err() == nil
		},
		Message: func(ctx context.Context, _ *hub.Member, f *hub.Frame) {
			said <- fmt.Sprint(string(f.Payload()), ctx.Value(key{}), ctx.Err(), chi.URLParamFromCtx(ctx, "name"))
		},
	})
	returned := make(chan struct{})
	r := chi.NewRouter()
	r.Get("/{name}", func(w http.ResponseWriter, r *http.Request) {
		client.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), key{}, "value")))
		close(returned)
	})
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	c := dial(t, s, "/ann", nil)
	if <-returned; !opened {
		t.Error("Opened was not called with the request")
	}
	if err := s.Config.Shutdown(patient(t)); err != nil { // which ends with the handlers, not with the members
		t.Error(err)
	}
	if err := c.Write(patient(t), websocket.MessageText, []byte("text")); err != nil {
		t.Fatal(err)
	}
	if got := <-said; got != "text<nil> <nil>" {
		t.Errorf("Message has %q", got)
	}
}

// A callback that panics closes its own client and nothing else. net/http isn't there any
// more to catch it.
func TestHandlerPanics(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, &hub.Options{Logger: slog.New(slog.DiscardHandler)})
	ended := make(chan struct{})
	s := serveHub(t, h, &hub.HandlerOptions{
		Opened: func(_ context.Context, _ *hub.Member, r *http.Request) {
			if r.URL.Path == "/opened" {
				panic("in Opened")
			}
		},
		Message: func(context.Context, *hub.Member, *hub.Frame) { panic("in Message") },
		Closed: func(*hub.Member) {
			ended <- struct{}{}
			panic("in Closed")
		},
	})
	for _, path := range []string{"/opened", "/"} {
		c := dial(t, s, path, nil)
		_ = c.Write(patient(t), websocket.MessageText, []byte("x"))
		if code, _ := ends(t, c); code != websocket.StatusInternalError {
			t.Errorf("%s: closed with %d", path, code)
		}
		<-ended
	}
	dial(t, s, "/", nil).CloseNow()
	<-ended
	for h.Stats().Members > 0 {
		runtime.Gosched()
	}
}

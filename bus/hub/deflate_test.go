package hub_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus/hub"
)

const (
	compressed = 0x40 // the bit of frames that begin a compressed message
	deflate    = "permessage-deflate"
	agreed     = deflate + "; server_no_context_takeover; client_no_context_takeover"
)

// deflated returns a payload as a client compresses it.
func deflated(payload string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = io.WriteString(w, payload)
	_ = w.Flush()
	return string(b.Bytes()[:b.Len()-4])
}

// noise returns n bytes that can't be compressed.
func noise(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.N(256))
	}
	return string(b)
}

// offering opens a WebSocket with offers of extensions, and returns the answer to these, too.
func offering(t testing.TB, s *httptest.Server, offers ...string) (c net.Conn, in *bufio.Reader, answer []string) {
	t.Helper()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	lines := strings.TrimSuffix(handshake, "\r\n")
	for _, offer := range offers {
		lines += "Sec-WebSocket-Extensions: " + offer + "\r\n"
	}
	if _, err := io.WriteString(c, lines+"\r\n"); err != nil {
		t.Fatal(err)
	}
	in = bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(res, err)
	}
	return c, in, res.Header.Values("Sec-WebSocket-Extensions")
}

// An offer is answered with what the hub can do, or not at all.
func TestHandlerDeflateOffers(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, nil)
	on := serveHub(t, h, &hub.HandlerOptions{Compress: true})
	off := serveHub(t, h, nil)
	for _, tt := range []struct {
		name   string
		offers []string
		want   string
	}{
		{"nothing", nil, ""},
		{"the plain one", []string{deflate}, agreed},
		{"that of browsers", []string{deflate + "; client_max_window_bits"}, agreed},
		{"a small window of the client", []string{deflate + "; client_max_window_bits=8"}, agreed},
		{"both without context", []string{deflate + ";server_no_context_takeover ;\tclient_no_context_takeover"}, agreed},
		{"the largest window", []string{deflate + "; server_max_window_bits=15"}, agreed + "; server_max_window_bits=15"},
		{"the same, quoted", []string{deflate + `; server_max_window_bits = "15"`}, agreed + "; server_max_window_bits=15"},
		{"a smaller window", []string{deflate + "; server_max_window_bits=14"}, ""},
		{"a smaller window, or any", []string{deflate + "; server_max_window_bits=9, " + deflate}, agreed},
		{"the same on two lines", []string{deflate + "; server_max_window_bits=9", deflate + "; server_no_context_takeover"}, agreed},
		{"others before it", []string{"x-webkit-deflate-frame; no_context_takeover, foo;bar=baz", "," + deflate}, agreed},
		{"others only", []string{"permessage-bzip2, permessage-deflated"}, ""},
		{"no size", []string{deflate + "; server_max_window_bits"}, ""},
		{"a size that can't be", []string{deflate + "; client_max_window_bits=7"}, ""},
		{"a size with a zero", []string{deflate + "; client_max_window_bits=08"}, ""},
		{"an empty size", []string{deflate + "; client_max_window_bits="}, ""},
		{"a value too many", []string{deflate + "; client_no_context_takeover=1"}, ""},
		{"a parameter twice", []string{deflate + "; client_max_window_bits; client_max_window_bits"}, ""},
		{"an unknown parameter", []string{deflate + "; level=9"}, ""},
		{"an empty parameter", []string{deflate + ";"}, ""},
		{"half a quotation", []string{deflate + `; server_max_window_bits="15`}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, _, got := offering(t, on, tt.offers...); strings.Join(got, "|") != tt.want {
				t.Errorf("answered with %q, want %q", got, tt.want)
			}
			if _, _, got := offering(t, off, tt.offers...); got != nil {
				t.Errorf("without the option answered with %q", got)
			}
		})
	}
	r, _ := http.NewRequestWithContext(t.Context(), "GET", on.URL, nil)
	r.Header.Set("Sec-WebSocket-Extensions", deflate)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusUpgradeRequired || res.Header.Get("Sec-WebSocket-Extensions") != "" {
		t.Errorf("what isn't a handshake is answered with %s, %v", res.Status, res.Header)
	}
}

// inflate is the inverse of deflated.
func inflate(t *testing.T, payload string) string {
	t.Helper()
	b, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + "\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
	if err != nil {
		t.Errorf("a compressed message: %v", err)
	}
	return string(b)
}

// What clients send compressed, and what becomes of it, in one piece and in single bytes.
func TestHandlerDeflate(t *testing.T) {
	t.Parallel()
	const z, zbin, more, last = text | compressed, bin | compressed, text&^part | compressed, goesOn
	bye := masked(closing, closeOf(1000, ""))
	long, mixed := strings.Repeat("long", 250), noise(1000)
	const hello = "\xf2\x48\xcd\xc9\xc9\x07\x00" // this and others are those of RFC 7692, section 7.2.3
	small := deflated(long)
	bomb := deflated(strings.Repeat("\x00", 1<<20))
	if len(bomb) > 1100 {
		t.Fatalf("the bomb has %d bytes", len(bomb))
	}
	s := serveHub(t, startHub(t, nil, nil), &hub.HandlerOptions{
		Compress:  true,
		ReadLimit: 1000,
		Message:   func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
	})
	type testCase struct {
		name string
		sent [][]byte
		want []string
	}
	cases := []testCase{
		{"one block", [][]byte{masked(z, hello), bye}, []string{"81 Hello", "88 1000"}},
		{"fragments", [][]byte{masked(more, hello[:3]), masked(last, hello[3:]), bye}, []string{"81 Hello", "88 1000"}},
		{"fragments with a ping", [][]byte{masked(more, hello[:1]), masked(ping, "p"), masked(0, ""), masked(0, hello[1:6]), masked(last, hello[6:]), bye},
			[]string{"8a p", "81 Hello", "88 1000"}},
		{"a first fragment with nothing", [][]byte{masked(more, ""), masked(last, hello), bye}, []string{"81 Hello", "88 1000"}},
		{"a block that isn't compressed", [][]byte{masked(z, "\x00\x05\x00\xfa\xffHello\x00"), bye}, []string{"81 Hello", "88 1000"}},
		{"a last block", [][]byte{masked(z, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"), bye}, []string{"81 Hello", "88 1000"}},
		{"two blocks", [][]byte{masked(z, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"), bye}, []string{"81 Hello", "88 1000"}},
		{"two last blocks", [][]byte{masked(z, strings.Repeat("\xf3\x48\xcd\xc9\xc9\x07\x00", 2)+"\x00"), bye}, []string{"81 HelloHello", "88 1000"}},
		{"the window of the message before", [][]byte{masked(z, hello), masked(z, "\xf2\x00\x11\x00\x00"), bye}, []string{"81 Hello", "88 1007"}},
		{"an empty one", [][]byte{masked(z, "\x00"), masked(zbin, "\x02\x00"), bye}, []string{"81 ", "82 ", "88 1000"}},
		{"a plain one between", [][]byte{masked(z, hello), masked(text, "plain"), masked(text&^part, "fr"), masked(last, "ag"), masked(z, hello), bye},
			[]string{"81 Hello", "81 plain", "81 frag", "81 Hello", "88 1000"}},
		{"long ones, which come back compressed", [][]byte{masked(z, small), masked(bin, long), bye},
			[]string{"c1 longlonglonglonglong", "c2 longlonglonglonglong", "88 1000"}},
		{"as long as may be, and not to be compressed", [][]byte{masked(zbin, deflated(mixed)), bye}, []string{fmt.Sprintf("82 %.20s", mixed), "88 1000"}},
		{"too long", [][]byte{masked(z, deflated(long+"x")), bye}, []string{"88 1009"}},
		{"too long before it is decompressed", [][]byte{masked(z, noise(2000)), bye}, []string{"88 1009"}},
		{"a bomb", [][]byte{masked(zbin, bomb), bye}, []string{"88 1009"}},
		{"a bomb in fragments", append(chopped(zbin, bomb, 100), bye), []string{"88 1009"}},
		{"not UTF-8", [][]byte{masked(z, deflated("\xff")), masked(z, hello), bye}, []string{"88 1007"}},
		{"not UTF-8, binary", [][]byte{masked(zbin, deflated("\xff")), bye}, []string{"82 \xff", "88 1000"}},
		{"nothing at all", [][]byte{masked(z, ""), bye}, []string{"88 1007"}},
		{"nonsense", [][]byte{masked(z, "\xff\xff\xff"), bye}, []string{"88 1007"}},
		{"cut short", [][]byte{masked(z, small[:len(small)/2]), bye}, []string{"88 1007"}},
		{"a last block without what follows", [][]byte{masked(z, "\xf3\x48\xcd\xc9\xc9\x07\x00"), bye}, []string{"88 1007"}},
		{"a compressed ping", [][]byte{masked(ping|compressed, "x")}, []string{"88 1002"}},
		{"a compressed pong", [][]byte{masked(pong|compressed, "x")}, []string{"88 1002"}},
		{"a compressed close", [][]byte{masked(closing|compressed, closeOf(1000, ""))}, []string{"88 1002"}},
		{"a continuation with the bit", [][]byte{masked(more, hello[:3]), masked(last|compressed, hello[3:])}, []string{"88 1002"}},
		{"a compressed continuation of a plain one", [][]byte{masked(text&^part, "x"), masked(last|compressed, hello)}, []string{"88 1002"}},
		{"another bit", [][]byte{masked(text|0x20, "x")}, []string{"88 1002"}},
		{"another bit beside it", [][]byte{masked(z|0x10, hello)}, []string{"88 1002"}},
		{"an unknown kind", [][]byte{masked(0x83|compressed, hello)}, []string{"88 1002"}},
	}
	for _, tt := range cases {
		all := slices.Concat(tt.sent...)
		for _, n := range []int{len(all), 1} {
			t.Run(fmt.Sprint(tt.name, " by ", n), func(t *testing.T) {
				t.Parallel()
				c, in, _ := offering(t, s, deflate)
				for piece := range slices.Chunk(all, n) {
					if _, err := c.Write(piece); err != nil {
						break // it has been closed already
					}
				}
				if got := received(t, in); !slices.Equal(got, tt.want) {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			})
		}
	}
	t.Run("without an offer", func(t *testing.T) {
		t.Parallel()
		_, in := rawClient(t, s, masked(z, hello))
		if got := received(t, in); !slices.Equal(got, []string{"88 1002"}) {
			t.Errorf("got %q", got)
		}
	})
}

// inRoom returns the number of a hub's members in "room".
func inRoom(h *hub.Hub) (n int) {
	for range h.Local(inRooms("room")) {
		n++
	}
	return n
}

// A message to a room comes compressed to those who can read that, and plain to the others.
func TestHandlerDeflateRoom(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, nil)
	s := serveHub(t, h, &hub.HandlerOptions{Compress: true, Member: func(*http.Request) (hub.MemberOptions, error) {
		return hub.MemberOptions{Rooms: []string{"room"}}, nil
	}})
	one, plain, _ := offering(t, s)
	other, squeezed, _ := offering(t, s, deflate)
	await(t, "both", func() bool { return inRoom(h) == 2 })
	long := strings.Repeat("{\"long\":1}", 100)
	send(t, h, inRooms("room"), long)
	send(t, h, inRooms("room"), "short")
	if err := h.Disconnect(t.Context(), inRooms("room"), 4000, ""); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		in   io.Reader
		want string
		most int // bytes of the long message
	}{"plain": {plain, "81 81 88", len(long)}, "compressed": {squeezed, "c1 81 88", 100}} {
		var heads []string
		var frames []frame
		for range 3 {
			f := readFrame(t, tt.in)
			frames, heads = append(frames, f), append(heads, fmt.Sprintf("%x", f.head))
		}
		if got := strings.Join(heads, " "); got != tt.want || len(frames[0].payload) > tt.most {
			t.Errorf("%s: got %s, want %s; the first has %d bytes", name, got, tt.want, len(frames[0].payload))
		}
	}
	one.Close()
	other.Close()
}

// Clients of coder/websocket, with context takeover or without, exchange messages of all sizes
// with a hub. The first message of those that speak the hub's protocol is compressed, too.
func TestHandlerDeflateGo(t *testing.T) {
	t.Parallel()
	s := serveHub(t, startHub(t, nil, &hub.Options{QueueBytes: 4 << 20}), &hub.HandlerOptions{
		Compress:  true,
		ReadLimit: 2 << 20,
		Message:   func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
	})
	for name, mode := range map[string]websocket.CompressionMode{
		"disabled": websocket.CompressionDisabled, "takeover": websocket.CompressionContextTakeover, "no takeover": websocket.CompressionNoContextTakeover,
	} {
		for _, protocol := range []string{"", hub.Protocol} {
			t.Run(name+" "+protocol, func(t *testing.T) {
				t.Parallel()
				c, res, err := websocket.Dial(patient(t), s.URL, &websocket.DialOptions{
					CompressionMode: mode, CompressionThreshold: 1, Subprotocols: []string{protocol},
				})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { c.CloseNow() })
				c.SetReadLimit(-1)
				if got := res.Header.Get("Sec-WebSocket-Extensions"); (got == agreed) != (mode != websocket.CompressionDisabled) {
					t.Errorf("answered with %q", got)
				}
				line := ""
				if protocol != "" {
					positions := strings.Repeat(`"a room":"1-2",`, 100) + `"b":""`
					_ = c.Write(patient(t), websocket.MessageText, []byte(`{"positions":{`+positions+`}}`))
					for range 3 { // alive, and two rooms that it isn't in
						read(t, c)
					}
					line = "{}\n"
				}
				for _, n := range []int{0, 1, 100, 255, 256, 257, 5000, 70_000} {
					for _, payload := range []string{strings.Repeat("x", n), noise(n), strings.Repeat(`{"id":17,"text":"text"}`, n/20)} {
						if err := c.Write(patient(t), websocket.MessageBinary, []byte(payload)); err != nil {
							t.Fatal(err)
						}
						if got := read(t, c); got != "Binary "+line+payload {
							t.Fatalf("%.100q became %.100q", payload, got)
						}
					}
				}
			})
		}
	}
}

// What the cases 12 and 13 of Autobahn do: messages of many sizes, in one frame or in fragments,
// with each of the offers.
func TestHandlerDeflateAutobahn(t *testing.T) {
	t.Parallel()
	s := serveHub(t, startHub(t, nil, &hub.Options{QueueBytes: 4 << 20}), &hub.HandlerOptions{
		Compress:  true,
		ReadLimit: 1 << 20,
		Message:   func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
	})
	for i, offer := range []string{
		deflate + "; client_max_window_bits",
		deflate + "; server_no_context_takeover; client_max_window_bits",
		deflate + "; server_max_window_bits=9; client_max_window_bits",
		deflate + "; server_max_window_bits=15; client_max_window_bits",
		deflate + "; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits",
		deflate + "; server_no_context_takeover; server_max_window_bits=15; client_max_window_bits",
		deflate + "; server_no_context_takeover; server_max_window_bits=9, " + deflate + "; server_no_context_takeover, " + deflate,
	} {
		t.Run(fmt.Sprint("13.", i+1), func(t *testing.T) {
			t.Parallel()
			c, in, answer := offering(t, s, offer)
			var sent []byte
			var want []string
			for _, n := range []int{16, 64, 256, 1024, 4096, 8192, 32768, 65536} {
				payload := strings.Repeat(`{"name":"value","number":17},`, n/29+1)[:n]
				for _, size := range []int{n, 256, 4096} {
					head, body := byte(text), payload
					if answer != nil {
						head, body = text|compressed, deflated(payload)
					}
					sent = slices.Concat(sent, slices.Concat(chopped(head, body, size)...))
					want = append(want, payload)
				}
			}
			go func() { // ends with c
				_, _ = c.Write(append(sent, masked(closing, closeOf(1000, ""))...))
			}()
			frames := readFrames(t, in)
			if len(frames) != len(want)+1 {
				t.Fatalf("got %d messages of %d", len(frames)-1, len(want))
			}
			for i, payload := range want {
				f := frames[i]
				if f.head&compressed != 0 {
					f.payload = inflate(t, f.payload)
				}
				if f.payload != payload || (f.head == text|compressed) != (answer != nil && len(payload) >= 256) {
					t.Errorf("message %d: %x %.100s", i, f.head, f.payload)
				}
			}
		})
	}
}

package hub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/bus/hub"
)

// An autobahnCase is what a client sends, as in one of the cases of the Autobahn test suite
// (https://github.com/crossbario/autobahn-testsuite), and all that an echo server answers.
type autobahnCase struct {
	name string
	sent [][]byte
	want [][]byte
}

// Opcodes with the bit FIN. Without it, 0x80 is to be taken off.
const (
	text    = 0x81
	bin     = 0x82
	goesOn  = 0x80 // a continuation
	closing = 0x88
	ping    = 0x89
	pong    = 0x8a

	part = 0x80 // of a message: text&^part begins one, and 0 continues it
)

// plain returns a frame as a server sends it.
func plain(head byte, payload string) []byte {
	b := bytes.Clone(hub.Text([]byte(payload)).Bytes())
	b[0] = head
	return b
}

// closeOf returns the payload of a close frame.
func closeOf(code int, reason string) string {
	return string([]byte{byte(code >> 8), byte(code)}) + reason
}

// chopped returns the frames of a message in pieces of n bytes.
func chopped(head byte, payload string, n int) (frames [][]byte) {
	head &^= part
	for len(payload) > n {
		frames = append(frames, masked(head, payload[:n]))
		payload, head = payload[n:], 0
	}
	return append(frames, masked(head|part, payload))
}

// autobahnCases returns the cases without those of compression, which isn't negotiated.
func autobahnCases() (cases []autobahnCase) {
	bye, gone := masked(closing, closeOf(1000, "")), plain(closing, closeOf(1000, ""))
	violation, notText := plain(closing, closeOf(1002, "")), plain(closing, closeOf(1007, ""))
	add := func(name string, sent, want [][]byte) {
		cases = append(cases, autobahnCase{name, sent, want})
	}
	frames := func(f ...[]byte) [][]byte { return f }
	with := func(more [][]byte, last ...[]byte) [][]byte { return append(slices.Clip(more), last...) }

	for i, n := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		long := strings.Repeat("*", n)
		add(fmt.Sprint("1.1.", i+1), frames(masked(text, long), bye), frames(plain(text, long), gone))
		long = strings.Repeat("\xfe", n)
		add(fmt.Sprint("1.2.", i+1), frames(masked(bin, long), bye), frames(plain(bin, long), gone))
	}
	for i, payload := range []string{"", "Hello", "\x00\xff\xfe\xfd\xfc\xfb\x00\xff", strings.Repeat("\xfe", 125)} {
		add(fmt.Sprint("2.", i+1), frames(masked(ping, payload), bye), frames(plain(pong, payload), gone))
	}
	add("2.5", frames(masked(ping, strings.Repeat("\xfe", 126))), frames(violation))
	add("2.7", frames(masked(pong, ""), bye), frames(gone))
	add("2.8", frames(masked(pong, "unsolicited"), bye), frames(gone))
	add("2.9", frames(masked(pong, "unsolicited"), masked(ping, "asked"), bye), frames(plain(pong, "asked"), gone))

	add("3.1", frames(masked(text|0x10, "Hello"), bye), frames(violation))
	add("3.2", frames(masked(text, "Hello"), masked(text|0x20, "Hello"), masked(ping, "")), frames(plain(text, "Hello"), violation))
	add("3.4", frames(masked(text, "Hello"), masked(text|0x40, "Hello"), masked(ping, "")), frames(plain(text, "Hello"), violation))
	add("3.5", frames(masked(bin|0x50, "\x00\xff")), frames(violation))
	add("3.6", frames(masked(ping|0x60, "Hello")), frames(violation))
	add("3.7", frames(masked(closing|0x70, "")), frames(violation))
	for op := byte(3); op < 16; op++ {
		if op == 8 {
			op = 11
		}
		add(fmt.Sprint("4 with ", op), frames(masked(text, "Hello"), masked(0x80|op, "x"), masked(ping, "")), frames(plain(text, "Hello"), violation))
	}

	add("5.1", frames(masked(ping&^part, "frag"), masked(goesOn, "ment")), frames(violation))
	add("5.2", frames(masked(pong&^part, "frag"), masked(goesOn, "ment")), frames(violation))
	add("5.3", with(chopped(text, "fragment1fragment2", 9), bye), frames(plain(text, "fragment1fragment2"), gone))
	add("5.6", frames(masked(text&^part, "one"), masked(ping, "ping"), masked(goesOn, "two"), bye), frames(plain(pong, "ping"), plain(text, "onetwo"), gone))
	add("5.9", frames(masked(goesOn, "nothing"), masked(text, "Hello"), bye), frames(violation))
	add("5.12", frames(masked(0, "nothing"), masked(text, "Hello"), bye), frames(violation))
	add("5.15", frames(masked(text&^part, "one"), masked(goesOn, "two"), masked(0, "three"), masked(goesOn, "four")), frames(plain(text, "onetwo"), violation))
	add("5.18", frames(masked(text&^part, "one"), masked(text, "two")), frames(violation))
	add("5.20", frames(masked(text&^part, "one"), masked(0, "two"), masked(ping, "1"), masked(0, "three"), masked(goesOn, "four"), bye),
		frames(plain(pong, "1"), plain(text, "onetwothreefour"), gone))

	add("6.1.1", frames(masked(text, ""), bye), frames(plain(text, ""), gone))
	add("6.1.2", frames(masked(text&^part, ""), masked(0, ""), masked(goesOn, ""), bye), frames(plain(text, ""), gone))
	add("6.1.3", frames(masked(text&^part, ""), masked(0, "middle"), masked(goesOn, ""), bye), frames(plain(text, "middle"), gone))
	for _, good := range []string{
		"Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\x00", "\u0080", "\u0800", "\U00010000", "\x7f", "\u07ff", "\uffff",
		"\U0010ffff", "\ud7ff", "\ue000", "\ufffd", "\ufffe", "\U0001fffe", "\U0010fffe", "\ufdd0", "\ufeff",
	} {
		for _, n := range []int{1, 2, 100} {
			add(fmt.Sprintf("6.2 with %+q in %d", good, n), with(chopped(text, good, n), bye), frames(plain(text, good), gone))
		}
	}
	for _, bad := range []string{
		"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited",
		"\xce", "\xce\xba\xe1", "\xe1\xbd", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xf7\xbf\xbf\xbf", "\xf4\x90\x80\x80",
		"\x80", "\xbf", "\x80\xbf\x80", "\xc0 \xc1 ", "\xe0 \xe1 ", "\xf0 \xf1 ", "\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf",
		"\xf8\x80\x80\x80\xaf", "\xfe", "\xff", "\xfe\xfe\xff\xff", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xc0\x80",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\x80\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
	} {
		for _, n := range []int{1, 2, 100} {
			add(fmt.Sprintf("6.3 with %+q in %d", bad, n), with(chopped(text, bad, n), bye), frames(notText))
		}
	}

	add("7.1.1", frames(masked(text, "Hello"), bye), frames(plain(text, "Hello"), gone))
	add("7.1.2", frames(bye, bye), frames(gone))
	add("7.1.3", frames(bye, masked(ping, "")), frames(gone))
	add("7.1.4", frames(bye, masked(text, "Hello")), frames(gone))
	add("7.1.5", frames(masked(text&^part, "frag"), bye, masked(goesOn, "ment")), frames(gone))
	add("7.3.1", frames(masked(closing, "")), frames(plain(closing, "")))
	add("7.3.2", frames(masked(closing, "a")), frames(violation))
	add("7.3.4", frames(masked(closing, closeOf(1000, "Hello wörld"))), frames(plain(closing, closeOf(1000, "Hello wörld"))))
	full := strings.Repeat("*", 123)
	add("7.3.5", frames(masked(closing, closeOf(1000, full))), frames(plain(closing, closeOf(1000, full))))
	add("7.3.6", frames(masked(closing, closeOf(1000, full+"*"))), frames(violation))
	add("7.5.1", frames(masked(closing, closeOf(1000, "\xce\xba\xed\xa0\x80edited"))), frames(notText))
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		add(fmt.Sprint("7.7 with ", code), frames(masked(closing, closeOf(code, ""))), frames(plain(closing, closeOf(code, ""))))
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		add(fmt.Sprint("7.9 with ", code), frames(masked(closing, closeOf(code, ""))), frames(violation))
	}

	large := strings.Repeat("*", 1<<20)
	add("9.1", frames(masked(text, large), bye), frames(plain(text, large), gone))
	add("9.3", with(chopped(text, large, 4096), bye), frames(plain(text, large), gone))
	add("9.9", frames(masked(text, large+"*")), frames(plain(closing, closeOf(1009, ""))))
	add("10.1.1", frames(masked(text, strings.Repeat("*", 65536)), bye), frames(plain(text, strings.Repeat("*", 65536)), gone))
	return cases
}

// What the cases of Autobahn send is answered as they want it, to the byte but for reasons,
// whatever pieces it comes in.
func TestHandlerAutobahn(t *testing.T) {
	t.Parallel()
	h := startHub(t, nil, &hub.Options{QueueBytes: 4 << 20, WriteTimeout: time.Minute})
	s := serveHub(t, h, &hub.HandlerOptions{
		ReadLimit: 1 << 20,
		Message:   func(_ context.Context, m *hub.Member, f *hub.Frame) { m.Send(f) },
	})
	for _, tt := range autobahnCases() {
		all, want := slices.Concat(tt.sent...), slices.Concat(tt.want...)
		for _, n := range []int{len(all), 997, 1} {
			if n == 1 && len(all) > 1000 || n == 997 && len(all) < 1000 {
				continue
			}
			t.Run(fmt.Sprint(tt.name, " by ", n), func(t *testing.T) {
				t.Parallel()
				got := exchanged(t, s, all, n)
				if !bytes.Equal(withoutReason(got, want), want) {
					t.Errorf("got % x, want % x", got[:min(len(got), 200)], want[:min(len(want), 200)])
				}
			})
		}
	}
}

// exchanged sends n bytes at a time, and returns all that comes until the server closes the
// connection.
func exchanged(t *testing.T, s *httptest.Server, all []byte, n int) []byte {
	c, in := rawClient(t, s, nil)
	sent := make(chan struct{})
	go func() { // ends with c
		defer close(sent)
		for piece := range slices.Chunk(all, n) {
			if _, err := c.Write(piece); err != nil {
				return // it has been closed already
			}
		}
	}()
	got, err := io.ReadAll(in)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, net.ErrClosed) { // some send behind the close
		t.Error(err)
	}
	c.Close()
	<-sent
	return got
}

// withoutReason takes the reason off a close frame that want has none of.
func withoutReason(got, want []byte) []byte {
	i := len(want) - 4
	if i < 0 || len(got) <= len(want) || got[i] != closing || want[i+1] != 2 || int(got[i+1]) != len(got)-i-2 {
		return got
	}
	short := bytes.Clone(got[:len(want)])
	short[i+1] = 2
	return short
}

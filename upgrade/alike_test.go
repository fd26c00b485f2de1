package upgrade_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/limpet-go/limpet/upgrade"
)

// However a tunnel ends, both ends and the summary say the same on every engine.
func TestEnginesAlike(t *testing.T) {
	t.Parallel()
	hello, helloC := text("hello", false), text("hello", true)
	bye, byeC := frame(0x88, string(closing(1000, "")), false), frame(0x88, string(closing(1000, "")), true)
	big, bigC := text(strings.Repeat("b", 2000), false), text(strings.Repeat("b", 2000), true)
	for name, test := range map[string]struct {
		limit       int64
		early, sent []byte // behind the handshake, by backend and client
		play        func(client, backend *end, tunnel *upgrade.Tunnel)
	}{
		"client ends": {play: func(client, backend *end, _ *upgrade.Tunnel) {
			client.closeWrite()
			backend.expectEOF()
			backend.send(hello)
		}},
		"client resets":  {play: func(client, backend *end, _ *upgrade.Tunnel) { client.reset() }},
		"backend ends":   {play: func(client, backend *end, _ *upgrade.Tunnel) { backend.closeWrite() }},
		"backend resets": {play: func(client, backend *end, _ *upgrade.Tunnel) { backend.reset() }},
		"client ends within a frame": {sent: helloC[:5], play: func(client, backend *end, _ *upgrade.Tunnel) {
			backend.expect(string(helloC[:5]))
			client.closeWrite()
		}},
		"backend ends within a frame": {early: hello[:3], play: func(client, backend *end, _ *upgrade.Tunnel) { backend.closeWrite() }},
		"backend resets a half": {play: func(client, backend *end, _ *upgrade.Tunnel) {
			client.closeWrite()
			backend.expectEOF()
			backend.reset()
		}},
		"goodbye of the client": {sent: byeC, play: func(client, backend *end, _ *upgrade.Tunnel) {
			backend.expectCloseFrame(1000, "")
			backend.send(bye)
			backend.closeWrite()
		}},
		"goodbye of the backend": {early: bye, play: func(client, backend *end, _ *upgrade.Tunnel) {
			client.expectCloseFrame(1000, "")
			client.send(append(helloC, byeC...))
			backend.expect(string(helloC))
			backend.closeWrite()
		}},
		"goodbye and gone": {early: bye, play: func(client, backend *end, _ *upgrade.Tunnel) { backend.closeWrite() }},
		"closed": {play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			tunnel.Close(1012, "x")
			tunnel.Close(1001, "y")
		}},
		"closed behind a half": {play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			client.closeWrite()
			backend.expectEOF()
			tunnel.Close(1012, "x")
		}},
		"closed within frames": {early: hello[:3], sent: helloC[:3], play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			client.expect(string(hello[:3]))
			backend.expect(string(helloC[:3]))
			tunnel.Close(1012, "x")
			client.send(append(helloC[3:], helloC...))
			backend.send(append(hello[3:], hello...))
		}},
		"closed within a goodbye": {early: bye[:3], play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			client.expect(string(bye[:3]))
			tunnel.Close(1012, "x")
			backend.expectCloseFrame(1012, "x")
			backend.send(bye[3:])
		}},
		"closed behind a goodbye": {sent: byeC, play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			backend.expectCloseFrame(1000, "")
			tunnel.Close(1012, "x")
		}},
		"closed between fragments": {play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			part := frame(0x01, "part", false)
			backend.send(part)
			client.expect(string(part))
			tunnel.Close(1012, "x")
		}},
		"closed gracefully": {sent: helloC, play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			backend.expect(string(helloC))
			tunnel.CloseGracefully(1012, "x")
			tunnel.CloseGracefully(1001, "y")
			backend.send(hello)
			client.expect(string(hello))
			client.expectCloseFrame(1012, "x")
			client.send(append(helloC, frame(0x88, string(closing(1012, "x")), true)...))
			backend.expect(string(helloC))
			backend.expectCloseFrame(1012, "x")
		}},
		"closed gracefully, and the client ends": {play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			tunnel.CloseGracefully(1012, "x")
			client.expectCloseFrame(1012, "x")
			client.send(helloC)
			client.closeWrite()
			backend.expect(string(helloC))
		}},
		"closed gracefully, and the client says nothing": {play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			tunnel.CloseGracefully(1012, "x")
			client.expectCloseFrame(1012, "x")
			client.send(helloC)
			backend.expect(string(helloC))
			backend.send(hello) // is dropped
			backend.expectCloseFrame(1012, "x")
			client.send(helloC) // is dropped
		}},
		"closed gracefully, and the backend ends": {play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			tunnel.CloseGracefully(1012, "x")
			client.expectCloseFrame(1012, "x")
			backend.closeWrite()
			backend.expectCloseFrame(1012, "x")
			client.send(helloC) // is dropped
		}},
		"closed gracefully, and a message is too big": {limit: 1000, play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			tunnel.CloseGracefully(1012, "x")
			client.expectCloseFrame(1012, "x")
			client.send(append(helloC, bigC...))
			backend.expect(string(helloC))
		}},
		"closed while waiting for a lull": {sent: helloC, play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			backend.expect(string(helloC))
			tunnel.CloseGracefully(1012, "x")
			tunnel.Close(1001, "y")
		}},
		"backend lost while waiting for a lull": {sent: helloC, play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			backend.expect(string(helloC))
			tunnel.CloseGracefully(1012, "x")
			backend.closeWrite()
		}},
		"too big while waiting for a lull": {limit: 1000, sent: helloC, play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			backend.expect(string(helloC))
			tunnel.CloseGracefully(1012, "x")
			client.send(bigC)
		}},
		"goodbye while waiting for a lull": {sent: helloC, play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			backend.expect(string(helloC))
			tunnel.CloseGracefully(1012, "x")
			client.send(byeC)
			backend.expectCloseFrame(1000, "")
			backend.send(bye)
			client.expectCloseFrame(1000, "")
			backend.closeWrite()
		}},
		"lost track and closed": {early: []byte("\x87 reserved"), play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			client.expect("\x87 reserved")
			tunnel.Close(1012, "x")
		}},
		"too big from the client":  {limit: 1000, sent: append(helloC, bigC...), play: func(client, backend *end, _ *upgrade.Tunnel) {}},
		"too big from the backend": {limit: 1000, early: append(hello, big...), play: func(client, backend *end, _ *upgrade.Tunnel) {}},
		"too big within its header": {limit: 1000, early: big[:2], play: func(client, backend *end, _ *upgrade.Tunnel) {
			client.expect(string(big[:2]))
			backend.send(big[2:])
		}},
		"lost track with a limit":    {limit: 1000, sent: append(helloC, hello...), play: func(client, backend *end, _ *upgrade.Tunnel) {}},
		"backend loses track, limit": {limit: 1000, early: append(hello, "\x87 reserved"...), play: func(client, backend *end, _ *upgrade.Tunnel) {}},
		"lost track within its header, limit": {limit: 1000, early: big[:1], play: func(client, backend *end, _ *upgrade.Tunnel) {
			client.expect(string(big[:1]))
			backend.send(helloC[1:])
		}},
		"lost track while closing, limit": {limit: 1000, early: big[:1], play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			client.expect(string(big[:1]))
			tunnel.Close(1012, "x")
			backend.expectCloseFrame(1012, "x")
			backend.send(helloC[1:])
		}},
		"lost track behind a goodbye, limit": {limit: 1000, early: bye, play: func(client, backend *end, _ *upgrade.Tunnel) {
			client.expectCloseFrame(1000, "")
			client.send(append(helloC, hello...))
			backend.expect(string(helloC))
			backend.expectCloseFrame(1002, "protocol error")
		}},
		"more behind a goodbye, limit": {limit: 1000, sent: append(byeC, bigC...), play: func(client, backend *end, _ *upgrade.Tunnel) {
			backend.expectCloseFrame(1000, "")
			client.send(helloC)
			backend.send(bye)
			client.expectCloseFrame(1000, "")
			backend.closeWrite()
		}},
		"too big while closing": {limit: 1000, early: big[:2], play: func(client, backend *end, tunnel *upgrade.Tunnel) {
			client.expect(string(big[:2]))
			tunnel.Close(1012, "x")
			backend.expectCloseFrame(1012, "x")
			backend.send(big[2:])
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var first string
			for i, s := range setups {
				if s.tls { // what the backend's own crypto/tls says of a reset differs
					continue
				}
				h, ends := backends(t, test.early...)
				r := newRig(t, s, &upgrade.Proxy{MessageLimit: test.limit}, h)
				client := r.client(test.sent...)
				backend := wait(t, ends)
				test.play(client, backend, wait(t, r.tunnels))
				heard := make(chan string, 1)
				go func() { heard <- client.last() }()
				got := "backend: " + backend.last() + "\nclient: " + wait(t, heard)
				sum := wait(t, r.closed)
				got += fmt.Sprintf("\nby %v, %d %q, %s, %d messages of %d bytes, %d of %d", sum.By, sum.Code, sum.Reason, kind(sum.Err),
					sum.MessagesToClient, sum.ToClient, sum.MessagesToBackend, sum.ToBackend)
				if i == 0 {
					first = got
				} else if got != first {
					t.Errorf("%s\n%s\n\n%s\n%s", setups[0].name, first, s.name, got)
				}
			}
		})
	}
}

// last reads all that comes, and tells how it ended; then e ends too. It leaves out
// the payload of masked close frames, which is different each time.
func (e *end) last() string {
	defer e.Close()
	b, err := io.ReadAll(e.r)
	if at := strings.IndexByte(string(b), 0x88); at >= 0 && at+1 < len(b) && b[at+1]&0x80 != 0 {
		b = b[:at+2]
	}
	return fmt.Sprintf("%d %.100q, %s", len(b), b, kind(err))
}

// kind tells errors apart as far as an engine has to.
func kind(err error) string {
	for _, known := range []error{io.ErrUnexpectedEOF, syscall.ECONNRESET, os.ErrDeadlineExceeded} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	if err != nil {
		return "another error"
	}
	return "no error"
}

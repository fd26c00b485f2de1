package sockets_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// drained returns both ends of a connection whose first end has read all there is, which
// shows that nothing is there.
func drained(t *testing.T) (accepted *sockets.Conn, dialed net.Conn) {
	t.Helper()
	accepted, dialed = pair(t, "tcp")
	_, err := dialed.Write([]byte("request"))
	must(t, err)
	_, err = accepted.Read(make([]byte, 100))
	must(t, err)
	return accepted, dialed
}

// A Read of one byte, as net/http's server makes to hear that a client has left, doesn't add the
// connection to epoll if it ends soon.
func TestShortReadOfOneByte(t *testing.T) {
	t.Parallel()
	for range 50 { // others may have theirs woken just then
		c, _ := drained(t)
		must(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if !isWatched(t, c) {
			return
		}
	}
	t.Error("it is always added")
}

// One that goes on is told of all that happens.
func TestLongReadOfOneByte(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		event func(c, peer net.Conn)
		want  error
	}{
		"byte":   {func(_, peer net.Conn) { peer.Write([]byte("x")) }, nil},
		"end":    {func(_, peer net.Conn) { peer.Close() }, io.EOF},
		"closed": {func(c, _ net.Conn) { c.Close() }, net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, peer := drained(t)
			read := make(chan error, 1)
			go func() {
				_, err := c.Read(make([]byte, 1))
				read <- err
			}()
			for end := time.Now().Add(20 * time.Second); !isWatched(t, c); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("it waits without epoll")
				}
			}
			tt.event(c, peer)
			if err := <-read; !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
		})
	}
}

// isWatched reports whether c is in an epoll of this process.
func isWatched(t *testing.T, c *sockets.Conn) bool {
	t.Helper()
	raw, err := c.SyscallConn()
	must(t, err)
	line := ""
	must(t, raw.Control(func(fd uintptr) { line = fmt.Sprintf("tfd: %8d ", fd) }))
	files, err := os.ReadDir("/proc/self/fdinfo")
	must(t, err)
	for _, f := range files {
		info, err := os.ReadFile("/proc/self/fdinfo/" + f.Name())
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOENT) {
			continue
		}
		must(t, err)
		if strings.Contains(string(info), line) {
			return true
		}
	}
	return false
}

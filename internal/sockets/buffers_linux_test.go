package sockets_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// Buffers of any number and size arrive in their order, however full the socket is, and are
// consumed as by their own WriteTo.
func TestWriteBuffers(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		for _, sizes := range [][]int{{}, {0}, {5}, {0, 0, 3, 0, 2, 0}, {200_000, 1, 300_000}, make([]int, 300)} {
			c, peer := pair(t, network)
			var v net.Buffers
			var want []byte
			for i, n := range sizes {
				b := bytes.Repeat([]byte{byte(i)}, max(n, len(sizes)/300*rand.IntN(5000)))
				v, want = append(v, b), append(want, b...)
			}
			done := make(chan error, 1)
			go func() {
				n, err := sockets.WriteBuffers(c, &v)
				if err == nil && (n != int64(len(want)) || len(v) != 0) {
					err = fmt.Errorf("%d bytes were written, %d buffers are left", n, len(v))
				}
				done <- err
				c.Close()
			}()
			got, err := io.ReadAll(peer)
			must(t, err)
			must(t, <-done)
			if !bytes.Equal(got, want) {
				t.Errorf("buffers of %v: %d bytes arrived, want %d", sizes, len(got), len(want))
			}
		}
	})
}

// A write that ends early consumes what was written.
func TestWriteBuffersEndsEarly(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		c, peer := pair(t, network)
		var v net.Buffers
		for range 1000 {
			v = append(v, []byte(strings.Repeat("x", 64<<10)))
		}
		c.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, err := sockets.WriteBuffers(c, &v)
		if e, ok := err.(net.Error); !ok || !e.Timeout() {
			t.Errorf("it failed with %v", err)
		}
		left := int64(0)
		for _, b := range v {
			left += int64(len(b))
		}
		if n == 0 || n+left != 1000*64<<10 {
			t.Errorf("%d bytes were written, %d are left", n, left)
		}
		c.Close()
		got, _ := io.ReadAll(peer)
		if int64(len(got)) != n {
			t.Errorf("%d bytes arrived, want %d", len(got), n)
		}
		if _, err := sockets.WriteBuffers(c, &v); err == nil {
			t.Error("a closed connection takes more")
		}
	})
}

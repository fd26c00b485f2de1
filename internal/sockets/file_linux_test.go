package sockets_test

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
	"github.com/limpet-go/limpet/internal/switchable"
)

func file(t *testing.T, size int) (*os.File, []byte) {
	t.Helper()
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(rand.Uint32())
	}
	name := filepath.Join(t.TempDir(), "f")
	must(t, os.WriteFile(name, content, 0o600))
	f, err := os.Open(name)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f, content
}

// A file, a part of it, and what is no file arrive as they are.
func TestReadFrom(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		for name, tt := range map[string]struct {
			skip  int64
			limit int64 // 0: none
			other bool
		}{
			"file": {}, "from its middle": {skip: 1000}, "part": {skip: 7, limit: 1_500_000},
			"beyond its end": {skip: 100, limit: 1 << 40}, "no file": {other: true}, "part of no file": {limit: 100_000, other: true},
		} {
			c, peer := pair(t, network)
			f, content := file(t, 3_000_000)
			_, err := f.Seek(tt.skip, io.SeekStart)
			must(t, err)
			var src io.Reader = f
			if tt.other {
				src = struct{ io.Reader }{f}
			}
			want := content[tt.skip:]
			if tt.limit > 0 {
				src = &io.LimitedReader{R: src, N: tt.limit}
				want = want[:min(int64(len(want)), tt.limit)]
			}
			done := make(chan error, 1)
			go func() {
				n, err := c.ReadFrom(src)
				if err == nil && n != int64(len(want)) {
					t.Errorf("%s: %d bytes, want %d", name, n, len(want))
				}
				c.Close()
				done <- err
			}()
			got, err := io.ReadAll(peer)
			must(t, err)
			must(t, <-done)
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %d bytes arrived, want %d", name, len(got), len(want))
			}
			if l, ok := src.(*io.LimitedReader); ok && l.N != tt.limit-int64(len(want)) {
				t.Errorf("%s: the limit is %d then", name, l.N)
			}
		}
	})
}

// A file whose client takes nothing ends at the deadline, and when the connection is closed.
func TestReadFromEnds(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, network string) {
		f, content := file(t, 30_000_000)
		c, peer := pair(t, network)
		c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := c.ReadFrom(f)
		if e, ok := err.(net.Error); !ok || !e.Timeout() || n == 0 || n >= int64(len(content)) {
			t.Errorf("%d bytes, %v", n, err)
		}
		c.SetWriteDeadline(time.Time{})
		time.AfterFunc(10*time.Millisecond, func() { c.Close() })
		more, err := c.ReadFrom(f)
		if err == nil {
			t.Errorf("%d bytes were sent on a closed connection", more)
		}
		got, _ := io.ReadAll(peer)
		if int64(len(got)) != n+more || !bytes.HasPrefix(content, got) {
			t.Errorf("%d bytes arrived, want %d", len(got), n+more)
		}
	})
}

// What net/http's server serves of a file arrives, with a Listener's connection in between too.
func TestServeFile(t *testing.T) {
	t.Parallel()
	f, content := file(t, 2_000_000)
	for _, between := range []bool{false, true} {
		l := sockets.Listen(listen(t, "tcp"))
		if between {
			l = switching{l}
		}
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, f.Name()) })}
		go server.Serve(l)
		defer server.Close()
		res, err := http.Get("http://" + l.Addr().String())
		must(t, err)
		got, err := io.ReadAll(res.Body)
		must(t, err)
		if !bytes.Equal(got, content) {
			t.Errorf("%d bytes arrived, want %d", len(got), len(content))
		}
	}
}

type switching struct{ net.Listener }

func (l switching) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return switchable.New(conn), nil
}

package middleware

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// If net/http's fields have other names in a new version of Go, this fails: small bodies are
// sent as large ones are, at twice the cost.
func TestReadAhead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, request string
		change        func(w http.ResponseWriter, r *http.Request)
		want          int64
	}{
		{name: "a body", request: "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello", want: 5},
		{name: "over HTTP/1.0", request: "POST / HTTP/1.0\nContent-Length: 5\n\nhello", want: 5},
		{name: "another request behind it", request: "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhelloGET / HTTP/1.1\nHost: x\n\n", want: 5},
		{name: "the begin of a body", request: "POST / HTTP/1.1\nHost: x\nContent-Length: 9\n\nhello", want: 5},
		{name: "no byte of a body", request: "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\n"},
		{name: "chunks", request: "POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n"},
		{name: "no body", request: "GET / HTTP/1.1\nHost: x\n\n"},
		{name: "which is to be asked for", request: "POST / HTTP/1.1\nHost: x\nExpect: 100-continue\nContent-Length: 5\n\nhello"},
		{name: "of which a byte was read", request: "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello", want: 4, change: func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadFull(r.Body, make([]byte, 1))
		}},
		{name: "all of which was read", request: "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello", change: func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
		}},
		{name: "in a middleware's", request: "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello", change: func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, 100)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := make(chan int64, 2)
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tt.change != nil {
					tt.change(w, r)
				}
				got <- readAhead(r.Body)
			}))
			t.Cleanup(srv.Close)
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := io.WriteString(conn, strings.ReplaceAll(tt.request, "\n", "\r\n")); err != nil {
				t.Fatal(err)
			}
			if n := <-got; n != tt.want {
				t.Errorf("%d bytes, want %d", n, tt.want)
			}
		})
	}
}

// What the server has read ahead of a body is taken only if that is all of it, and if it may
// be kept for every attempt.
func TestTakeReadAhead(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		length int
		retry  int   // Retry.Body
		most   int64 // MaxBody
		taken  bool
	}{
		{"small", 5, 100, 0, true},
		{"as much as is kept", 5, 5, 0, true},
		{"more than is kept", 5, 4, 0, false},
		{"nothing is kept", 5, 0, 0, false},
		{"as much as is allowed", 5, 100, 5, true},
		{"more than is allowed", 5, 100, 4, false},
		{"more than is read ahead", 5000, 64 << 10, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := strings.Repeat("x", tt.length)
			in, err := http.ReadRequest(bufio.NewReader(strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + strconv.Itoa(tt.length) + "\r\n\r\n" + text)))
			if err != nil {
				t.Fatal(err)
			}
			out := *in
			p := newReplay(&router{retry: Retry{Body: tt.retry}, maxBody: tt.most}, in, &out)
			if p.complete() != tt.taken || tt.taken && p.received() != int64(tt.length) {
				t.Errorf("taken: %v, %d bytes", p.complete(), p.received())
			}
			for range 2 {
				r, err := p.open()
				if err != nil {
					t.Fatal(err)
				}
				if n := r.(*replayReader).Buffered(); n == tt.length != tt.taken {
					t.Errorf("%d bytes are there", n)
				}
				if !tt.taken {
					break
				}
				if got, err := io.ReadAll(r); string(got) != text || err != nil {
					t.Errorf("read %q, %v", got, err)
				}
			}
		})
	}
}

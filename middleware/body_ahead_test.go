package middleware_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A small POST reaches its backend in one piece. One whose body comes later reaches it at
// once, without the body, so that the backend can answer early.
func TestPostInOnePiece(t *testing.T) {
	t.Parallel()
	url := rawBackend(t, func(conn net.Conn, _ *bufio.Reader) {
		room := make([]byte, 8<<10)
		for {
			n, err := conn.Read(room)
			if err != nil {
				return
			}
			_, body, _ := strings.Cut(string(room[:n]), "\r\n\r\n")
			fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	})
	srv, _ := serve(t, balancer.Static("a="+url), nil)
	post := "POST / HTTP/1.1\nHost: x\nContent-Length: 5\n\n"
	for _, tt := range []struct {
		name, sent, want string
		kept             bool // the client's connection
	}{
		{"all of it", post + "hello", "hello", true},
		{"all of it, twice", post + "hello" + post + "hello", "hello", true},
		{"the head", post, "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, r := raw(t, srv, tt.sent)
			for range strings.Count(tt.sent, "POST") {
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if string(body) != tt.want || err != nil || res.Close == tt.kept {
					t.Errorf("answer %q, %v, the connection is closed: %v", body, err, res.Close)
				}
			}
		})
	}
}

// A backend dies when it has got all of a small POST that may be repeated: the next one gets
// all of it too.
func TestPostInOnePieceIsRepeated(t *testing.T) {
	t.Parallel()
	got := make(chan string, 2)
	backend := func(answer string) string {
		return rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
			if req, err := http.ReadRequest(r); err == nil {
				body, _ := io.ReadAll(req.Body)
				got <- string(body)
				io.WriteString(conn, answer)
			}
		})
	}
	pool := balancer.Static("a="+backend(""), "b="+backend(""))
	srv, _ := serve(t, pool, &limpet.Options{})
	for _, tt := range []struct {
		name, field string
		attempts    int
	}{
		{"may be repeated", "Idempotency-Key: 1\n", 2},
		{"must not be repeated", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\n"+tt.field+"Content-Length: 5\n\nhello")
			res, err := http.ReadResponse(r, nil)
			if err != nil || res.StatusCode != http.StatusBadGateway {
				t.Errorf("answer %v, %v", res, err)
			}
			for n := range tt.attempts {
				if body := <-got; body != "hello" {
					t.Errorf("attempt %d has sent %q", n, body)
				}
			}
			if len(got) > 0 {
				t.Error("it was sent once more")
			}
		})
	}
}

package middleware_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// noTrailers are fields that must not come in a trailer section.
var noTrailers = []string{
	"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Anything", "X_Forwarded_For", "X-Real-IP", "Forwarded", "Via", "Host", "Max-Forwards",
	"Cookie", "Set-Cookie", "Authorization", "Proxy-Authorization", "WWW-Authenticate", "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Upgrade", "X-Hop",
	"Cache-Control", "Expect", "Range", "If-Match", "Content-Type", "Content-Encoding", "Content-Range", "Location", "Age",
}

// section returns a trailer section with these fields and those that are fine.
func section(names ...string) string {
	var lines strings.Builder
	for _, name := range append([]string{"X-Sum", "Grpc-Status"}, names...) {
		fmt.Fprintf(&lines, "%s: 1\r\n", name)
	}
	return lines.String()
}

// names returns those of a trailer's fields that have values.
func names(trailer http.Header) []string {
	found := []string{}
	for _, name := range slices.Sorted(maps.Keys(trailer)) {
		if len(trailer[name]) > 0 {
			found = append(found, name)
		}
	}
	return found
}

func TestTrailersOfRequests(t *testing.T) {
	t.Parallel()
	seen := make(chan http.Header, 1)
	backend := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err == nil {
			_, err = io.Copy(io.Discard, req.Body)
		}
		if err != nil {
			return
		}
		seen <- req.Trailer
		io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	pool := balancer.Static("a=" + backend)
	srv, _ := serve(t, pool, nil)
	good := "X-Sum, Grpc-Status"
	for announced, want := range map[string][]string{good: {"Grpc-Status", "X-Sum"}, good + ", " + strings.Join(noTrailers, ", "): {"Grpc-Status", "X-Sum"}, "": {}} {
		_, r := raw(t, srv, "POST / HTTP/1.1\nHost: x\nConnection: x-hop\nTransfer-Encoding: chunked\nTrailer: "+announced+
			"\n\n4\nbody\n0\n"+strings.ReplaceAll(section(append(noTrailers, "Content-Length", "Transfer-Encoding", "Trailer")...), "\r", "")+"\n")
		res, err := http.ReadResponse(r, nil)
		if err != nil || res.StatusCode != 204 {
			t.Fatal(res, err)
		}
		if got := names(<-seen); !slices.Equal(got, want) {
			t.Errorf("announced %s: the backend got %v", announced, got)
		}
	}
}

func TestTrailersOfAnswers(t *testing.T) {
	t.Parallel()
	for name, announced := range map[string]string{
		"none announced": "", "good ones announced": "Trailer: X-Sum, Grpc-Status\r\n", "all announced": "Trailer: X-Sum, Grpc-Status, " + strings.Join(noTrailers, ", ") + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err == nil {
					io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Sum: in the header\r\nTransfer-Encoding: chunked\r\n"+announced+"\r\n4\r\nbody\r\n0\r\n"+
						section(append(noTrailers, "Content-Length", "Transfer-Encoding", "Trailer")...)+"\r\n")
				}
			})
			pool := balancer.Static("a=" + backend)
			srv, _ := serve(t, pool, &limpet.Options{Affinity: &affinity.Hash{Key: &affinity.ClientAddr{}}})
			for name, srv := range map[string]*httptest.Server{"gateway": srv, "sticky": behindReverseProxy(t, pool, &affinity.Hash{Key: &affinity.ClientAddr{}})} {
				_, r := raw(t, srv, "GET / HTTP/1.1\nHost: x\nTE: trailers\n\n")
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if got := names(res.Trailer); err != nil || string(body) != "body" || !slices.Equal(got, []string{"Grpc-Status", "X-Sum"}) {
					t.Errorf("%s: %q, trailers %v, %v", name, body, got, err)
				}
				if got := res.Trailer["X-Sum"]; name == "gateway" && len(got) != 1 {
					t.Errorf("%s: X-Sum %q, want what the trailer says", name, got)
				}
			}
		})
	}
}

func TestTE(t *testing.T) {
	t.Parallel()
	backend, seen := readingHeads(t)
	srv, _ := serve(t, balancer.Static("a="+backend), nil)
	for te, want := range map[string]bool{
		"trailers": true, "gzip, Trailers": true, "gzip\nTE: trailers": true,
		"xtrailers;q=0": false, "trailers;q=0": false, "trailersx": false, "gzip;x=trailers": false, "": false,
	} {
		if status, _ := overHTTP1(t, srv, "GET / HTTP/1.1\nHost: x\nTE: "+te+"\n\n"); status != 204 {
			t.Fatalf("status %d", status)
		}
		if got := strings.Contains(<-seen, "\r\nTe: trailers\r\n"); got != want {
			t.Errorf("TE: %s: passes as trailers: %v", te, got)
		}
	}
}

// HTTP/1.0 has no 101: neither a client nor a backend that speaks it opens a tunnel.
func TestHTTP10OpensNoTunnel(t *testing.T) {
	t.Parallel()
	backend := rawBackend(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if req.Header.Get("Upgrade") == "" {
			io.WriteString(conn, "HTTP/1.0 204 No Content\r\n\r\n")
			return
		}
		fmt.Fprintf(conn, "HTTP/1.0 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
	})
	pool := balancer.Static("a=" + backend)
	srv, _ := serve(t, pool, nil)
	sticky := behindReverseProxy(t, pool, &affinity.Hash{Key: &affinity.ClientAddr{}})
	request := "GET / HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n"
	for name, srv := range map[string]*httptest.Server{"gateway": srv, "sticky": sticky} {
		if status, _ := overHTTP1(t, srv, request); status != 502 {
			t.Errorf("%s, a backend's HTTP/1.0 101: status %d", name, status)
		}
	}
	if status, _ := overHTTP1(t, srv, strings.Replace(request, "HTTP/1.1", "HTTP/1.0", 1)); status != 204 {
		t.Errorf("a client's HTTP/1.0: status %d", status)
	}
}

// What is left to net/http, as ServeHTTP says: should these fail, that can be
// mended.
func TestLeftToNetHTTP(t *testing.T) {
	t.Parallel()
	waits := make(chan context.Context, 1)
	pool, _ := cluster(t, 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			waits <- r.Context()
			<-r.Context().Done()
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%v %q", r.Header["Content-Length"], body)
	}))
	srv, _ := serve(t, pool, nil)
	for request, want := range map[string]string{
		"POST / HTTP/1.1\nHost: x\nContent-Length: 9\nTransfer-Encoding: chunked\n\n4\nbody\n0\n\n":      `[] "body"`,
		"POST / HTTP/1.0\nConnection: keep-alive\nContent-Length: 4\nTransfer-Encoding: chunked\n\nbody": `[4] "body"`,
		"POST / HTTP/1.0\nConnection: keep-alive\nTransfer-Encoding: chunked\n\n":                        `[0] ""`,
		"POST / HTTP/1.1\nHost: x\nContent-Length: 4\nContent-Length: 4\n\nbody":                         `[4] "body"`,
		"POST / HTTP/1.1\nHost: x\nContent-Length: 4\nContent-Length: 5\n\nbody":                         "400",
		"POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n":      "501",
		"POST / HTTP/1.1\nHost: x\nTransfer-Encoding: gzip, chunked\n\n0\n\n":                            "501",
		"POST / HTTP/1.1\nHost: x\nHost: x\n\n":                                                          "400",
		"POST / HTTP/1.1\nHost: x\nX : y\n\n":                                                            "400",
		"POST / HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\nTrailer: Content-Length\n\n0\n\n":         "400",
		"POST http://x/ HTTP/1.1\nHost: elsewhere\nContent-Length: 4\n\nbody":                            `[4] "body"`,
	} {
		_, r := raw(t, srv, request)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != 200 {
			body = []byte(fmt.Sprint(res.StatusCode))
		}
		if string(body) != want {
			t.Errorf("%q: %s, want %s", request, body, want)
		}
	}
	conn, _ := raw(t, srv, "GET /wait HTTP/1.1\nHost: x\n\n")
	ctx := <-waits
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done() // given up
}

package metrics_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	"github.com/limpet-go/limpet/internal/process"
	limpet "github.com/limpet-go/limpet/middleware"
	"github.com/limpet-go/limpet/middleware/metrics"
)

// A small GET of a client with a cookie, with what the gateway does for it and the smallest
// backend: observed by nobody, by an observer that does nothing, and by a collector. What
// the server does for a request isn't in it.
func BenchmarkGateway(b *testing.B) {
	for _, tt := range []struct {
		name    string
		observe func(*limpet.Gateway)
	}{
		{"alone", func(*limpet.Gateway) {}},
		{"recorded", func(g *limpet.Gateway) { g.Observe(limpet.Observer{Request: func(*limpet.Record) {}}) }},
		{"collector", func(g *limpet.Gateway) { metrics.New(g, nil) }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			pool := balancer.Static("a=" + smallestBackend(b))
			gateway, err := limpet.NewGateway(pool, &limpet.Options{Affinity: &affinity.Cookie{Secrets: secrets}})
			if err != nil {
				b.Fatal(err)
			}
			defer pool.Transport().CloseIdleConnections()
			tt.observe(gateway)
			first := httptest.NewRecorder()
			gateway.ServeHTTP(first, httptest.NewRequest("GET", "/", nil))
			r := httptest.NewRequest("GET", "/path?query=value", nil)
			r.AddCookie(first.Result().Cookies()[0])
			w := &writer{header: make(http.Header)}
			b.ReportAllocs()
			before := process.CPU()
			for b.Loop() {
				clear(w.header)
				gateway.ServeHTTP(w, r)
			}
			b.ReportMetric(float64(process.CPU()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

// A writer is a ResponseWriter that costs nothing itself.
type writer struct{ header http.Header }

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) WriteHeader(int)             {}
func (w *writer) Write(p []byte) (int, error) { return len(p), nil }

// smallestBackend returns the URL of a backend that reads requests of one segment each, and
// gives them all the same answer.
func smallestBackend(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() { // ends with l
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends when the gateway closes the connection
				defer conn.Close()
				request, answer := make([]byte, 4<<10), []byte("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello")
				for {
					if _, err := conn.Read(request); err != nil {
						return
					}
					conn.Write(answer)
				}
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

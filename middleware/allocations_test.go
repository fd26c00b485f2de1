package middleware_test

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A writer is a ResponseWriter that costs nothing itself.
type writer struct {
	header http.Header
	status int
}

func (w *writer) Header() http.Header         { return w.header }
func (w *writer) WriteHeader(status int)      { w.status = status }
func (w *writer) Write(p []byte) (int, error) { return len(p), nil }

// The gateway's own part of a request of a client with a cookie, and parsing the
// backend's answer: what the server does for each request isn't in it. With the race
// detector it is some more, which the compiler doesn't save then. Another one should be worth
// it.
func TestAllocations(t *testing.T) {
	url := rawBackend(t, func(conn net.Conn, _ *bufio.Reader) {
		request, answer := make([]byte, 4<<10), []byte("HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 32\r\n\r\n"+`0{"sid":"lv_VI97HAXpY6yYWAAAC"} `)
		for {
			if _, err := conn.Read(request); err != nil {
				return
			}
			conn.Write(answer)
		}
	})
	cookie := newGateway(t, balancer.Static("a="+url), nil)
	byDefault := withoutAffinity(t, balancer.Static("a="+url), slog.New(slog.DiscardHandler))
	observed := newGateway(t, balancer.Static("a="+url), nil)
	status := 0
	observed.Observe(limpet.Observer{Request: func(rec *limpet.Record) { status = rec.Status }})
	for _, tt := range []struct {
		name    string
		gateway *limpet.Gateway
		body    string
		ahead   bool // the server has read the body ahead, as it does with most small ones
		most    float64
		raced   float64 // how many more with the race detector, 0: 4
	}{
		{"without a body", cookie, "", false, 9, 0},
		{"with a body", cookie, "hello", false, 17, 0},
		{"with a body that was read ahead", cookie, "hello", true, 12, 0},
		{"without a body, observed", observed, "", false, 9, 0}, // a record is used again
		{"without a body, default affinity", byDefault, "", false, 9, 0},
		{"with a body, default affinity", byDefault, "hello", false, 17, 0},
		{"a message of Engine.IO, default affinity", byDefault, "hello", true, 14, 0},
		{"a poll of Engine.IO, default affinity, with the session's tag", byDefault, "", false, 13, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first := httptest.NewRecorder()
			tt.gateway.ServeHTTP(first, httptest.NewRequest("GET", "/poll?EIO=4&transport=polling", nil))
			cookie := first.Result().Cookies()[0]
			body := strings.NewReader("")
			query := "x=y"
			if strings.Contains(tt.name, "Engine.IO") {
				query = "EIO=4&transport=polling&sid=lv_VI97HAXpY6yYWAAAC"
			}
			if strings.Contains(tt.name, "tag") {
				query = "EIO=4&transport=polling&sid=" + strings.Split(first.Body.String(), `"`)[3]
			}
			r := httptest.NewRequest("POST", "/poll?"+query, io.NopCloser(body))
			r.ContentLength = int64(len(tt.body))
			for name, value := range map[string]string{
				"Accept": "*/*", "Accept-Encoding": "gzip", "Connection": "keep-alive", "Cookie": "a=b; " + cookie.Name + "=" + cookie.Value, "User-Agent": "test",
			} {
				r.Header.Set(name, value)
			}
			var requests []*http.Request
			for range 1001 {
				in := r
				if tt.body == "" || tt.ahead { // with any other body of a middleware's the context is copied
					ctx, cancel := context.WithCancel(t.Context()) // each request of a server has one
					defer cancel()
					in = r.WithContext(ctx)
				}
				if tt.ahead {
					read, err := http.ReadRequest(bufio.NewReaderSize(strings.NewReader("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"+tt.body), 64))
					if err != nil {
						t.Fatal(err)
					}
					in.Body = read.Body
				}
				requests = append(requests, in)
			}
			w := &writer{header: make(http.Header)}
			n := testing.AllocsPerRun(1000, func() {
				body.Reset(tt.body)
				clear(w.header)
				tt.gateway.ServeHTTP(w, requests[0])
				requests = requests[1:]
			})
			if w.status != http.StatusOK {
				t.Fatalf("status %d", w.status)
			}
			if tt.gateway == observed && status != http.StatusOK {
				t.Errorf("the observer was told of status %d", status)
			}
			if raceDetector() {
				n -= cmp.Or(tt.raced, 4)
			}
			if n > tt.most {
				t.Errorf("%v allocations, want %v at most", n, tt.most)
			}
		})
	}
}

// raceDetector reports whether the tests were built with it. It allocates, and a sync.Pool
// drops some of what it is given.
func raceDetector() bool {
	info, _ := debug.ReadBuildInfo()
	return slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

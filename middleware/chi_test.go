package middleware_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/go-chi/chi/v5/middleware"

	limpet "github.com/limpet-go/limpet/middleware"
)

// onChi mounts a gateway in a chi router, below the given middlewares.
func onChi(t *testing.T, h http.Handler, around ...func(http.Handler) http.Handler) *httptest.Server {
	t.Helper()
	pool, _ := cluster(t, 2, h)
	gw := newGateway(t, pool, nil)
	r := chi.NewRouter()
	r.Use(around...)
	r.Use(gw.Middleware(func(r *http.Request) bool { return !strings.HasPrefix(r.URL.Path, "/own") }))
	r.Get("/own", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "the service's own") })
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	return srv
}

// app is an application with a page and a WebSocket.
var app = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "" {
		echo.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	io.WriteString(w, strings.Repeat("page ", 1000))
})

// Each of chi's middlewares lets pages and tunnels through.
func TestChi(t *testing.T) {
	t.Parallel()
	quiet := middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: log.New(io.Discard, "", 0), NoColor: true})
	for name, around := range map[string]func(http.Handler) http.Handler{
		"nothing":   func(h http.Handler) http.Handler { return h },
		"Logger":    quiet,
		"Recoverer": middleware.Recoverer,
		"Compress":  middleware.Compress(5),
		"Timeout":   middleware.Timeout(patience),
		"Throttle":  middleware.Throttle(10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := onChi(t, app, around)
			c := newClient(t)
			if _, body := get(t, c, srv.URL); body != strings.Repeat("page ", 1000) {
				t.Errorf("page of %d bytes", len(body))
			}
			if _, body := get(t, c, srv.URL+"/own"); body != "the service's own" {
				t.Errorf("beside the gateway: %q", body)
			}
			conn, _ := dial(t, c, srv)
			talk(t, conn)
			_ = conn.CloseNow()
		})
	}
}

func TestChiCompressCompresses(t *testing.T) {
	t.Parallel()
	srv := onChi(t, app, middleware.Compress(5))
	req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL, nil)
	req.Header.Set("Accept-Encoding", "gzip")
	res, err := newClient(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	zr, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(zr); err != nil || len(body) != 5000 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

// Logger's line is written when the tunnel is handed over, not at its end.
func TestChiLoggerEndsWithTheHandover(t *testing.T) {
	t.Parallel()
	lines := make(chan string, 1)
	logger := middleware.RequestLogger(&middleware.DefaultLogFormatter{Logger: log.New(lineWriter(lines), "", 0), NoColor: true})
	srv := onChi(t, app, logger)
	conn, _ := dial(t, newClient(t), srv)
	if line := <-lines; !strings.Contains(line, "GET") {
		t.Errorf("logged %q", line)
	}
	talk(t, conn) // and the tunnel lives on
}

type lineWriter chan string

func (w lineWriter) Write(b []byte) (int, error) {
	w <- string(bytes.TrimSpace(b))
	return len(b), nil
}

// Throttle's token is given back when the tunnel is handed over: it limits
// handshakes, not tunnels.
func TestChiThrottleCountsHandshakes(t *testing.T) {
	t.Parallel()
	done := make(chan struct{}, 1)
	signal := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.ServeHTTP(w, r)
			done <- struct{}{}
		})
	}
	srv := onChi(t, app, signal, middleware.Throttle(1))
	for range 3 {
		conn, _ := dial(t, newClient(t), srv)
		talk(t, conn)
		<-done // the 101 is there before the token is back
	}
}

// Timeout ends a long poll with 504, but no tunnel.
func TestChiTimeoutEndsPolls(t *testing.T) {
	t.Parallel()
	const limit = 200 * time.Millisecond
	srv := onChi(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echo.ServeHTTP(w, r)
			return
		}
		<-r.Context().Done()
	}), middleware.Timeout(limit))
	conn, _ := dial(t, newClient(t), srv)
	if res, _ := get(t, newClient(t), srv.URL); res.StatusCode != 504 {
		t.Errorf("the poll got %d", res.StatusCode)
	}
	talk(t, conn) // it is older than the limit by now
}

// An aborted answer stays aborted below Recoverer.
func TestChiRecovererLeavesAborts(t *testing.T) {
	t.Parallel()
	srv := onChi(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		io.WriteString(w, "short")
	}), middleware.Recoverer)
	res, err := newClient(t).Get(srv.URL)
	if err != nil {
		return
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a broken answer looks whole: %q", body)
	}
}

var _ http.Handler = (*limpet.Gateway)(nil)

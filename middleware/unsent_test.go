package middleware_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"github.com/limpet-go/limpet/affinity"
	"github.com/limpet-go/limpet/balancer"
	limpet "github.com/limpet-go/limpet/middleware"
)

// A mute is a connection that nothing can be written to, for no reason that
// package net knows.
type mute struct{ net.Conn }

func (mute) Write([]byte) (int, error) { return 0, errors.New("mute") }

// What was never sent goes to another backend, and health is told, whatever kept it
// from being sent.
func TestWhatWasNotSentGoesElsewhere(t *testing.T) {
	t.Parallel()
	good := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			echo.ServeHTTP(w, r)
			return
		}
		io.Copy(w, r.Body)
	}))
	good.Config.ErrorLog = log.New(io.Discard, "", 0)
	good.StartTLS()
	t.Cleanup(good.Close)
	quiet := func(s *httptest.Server) string {
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	// Signed by nobody who is trusted, for a name that isn't asked for.
	foreign := httptest.NewUnstartedServer(http.NotFoundHandler())
	foreign.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
	foreign.StartTLS()
	plain := httptest.NewServer(http.NotFoundHandler())
	config := good.Client().Transport.(*http.Transport).TLSClientConfig
	other := config.Clone()
	other.ServerName = "" // the host's

	dialer := &net.Dialer{}
	causes := []struct {
		name, addr string
		dial       func(ctx context.Context, network, addr string) (net.Conn, error)
	}{
		{"certificate", strings.Replace(quiet(foreign), "127.0.0.1", "localhost", 1), dialer.DialContext},
		{"no TLS at a plain port", quiet(plain), dialer.DialContext},
		{"refused", "127.0.0.1:1", dialer.DialContext},
		{"Dial fails", "bad.test:443", func(context.Context, string, string) (net.Conn, error) {
			return nil, errors.New("this error is of no known type")
		}},
		{"nothing can be written", "bad.test:443", func(ctx context.Context, network, _ string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, good.Listener.Addr().String())
			return mute{c}, err
		}},
	}
	type front func(pool *balancer.Pool, tr *balancer.Transport, keys [][]byte) http.Handler
	gateway := func(pool *balancer.Pool, _ *balancer.Transport, keys [][]byte) http.Handler {
		return newGateway(t, pool, &limpet.Options{Affinity: &affinity.Cookie{Secrets: keys}})
	}
	sticky := func(rt func(tr *balancer.Transport) http.RoundTripper) front {
		return func(pool *balancer.Pool, tr *balancer.Transport, keys [][]byte) http.Handler {
			return &httputil.ReverseProxy{
				Rewrite:  func(*httputil.ProxyRequest) {},
				ErrorLog: log.New(io.Discard, "", 0),
				Transport: &limpet.Sticky{
					Pool: pool, Affinity: &affinity.Cookie{Secrets: keys}, Transport: rt(tr), Logger: slog.New(slog.DiscardHandler),
				},
			}
		}
	}
	fronts := []struct {
		name string
		front
	}{
		{"Gateway", gateway},
		{"Sticky", sticky(func(tr *balancer.Transport) http.RoundTripper { return tr })},
		{"Sticky over net/http", sticky(func(tr *balancer.Transport) http.RoundTripper {
			theirs := &http.Transport{DialContext: tr.Dial, TLSClientConfig: tr.TLS.Clone()}
			t.Cleanup(theirs.CloseIdleConnections)
			return theirs
		})},
	}
	for _, cause := range causes {
		for _, f := range fronts {
			for _, method := range []string{"GET", "POST", "tunnel"} {
				t.Run(cause.name+", "+f.name+", "+method, func(t *testing.T) {
					t.Parallel()
					tr := &balancer.Transport{TLS: other, DialTimeout: time.Minute}
					tr.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
						if addr == good.Listener.Addr().String() {
							return dialer.DialContext(ctx, network, addr)
						}
						return cause.dial(ctx, network, addr)
					}
					t.Cleanup(tr.CloseIdleConnections)
					var bs []*balancer.Backend
					for id, addr := range map[string]string{"good": good.Listener.Addr().String(), "bad": cause.addr} {
						b, err := balancer.NewBackend(id, "https://"+addr, 1)
						if err != nil {
							t.Fatal(err)
						}
						bs = append(bs, b)
					}
					// Nothing but a report has a backend checked within minutes.
					pool, err := balancer.NewPool(&balancer.Options{
						Transport: tr, Check: &balancer.Check{Interval: time.Hour, Timeout: time.Minute}, Logger: slog.New(slog.DiscardHandler),
					}, bs...)
					if err != nil {
						t.Fatal(err)
					}
					run(t, pool)
					srv := httptest.NewServer(f.front(pool, tr, testKeys))
					t.Cleanup(srv.Close)
					for range 4 {
						if method == "tunnel" {
							conn, r := raw(t, srv, handshake)
							line, err := r.ReadString('\n')
							conn.Close()
							if !strings.HasPrefix(line, "HTTP/1.1 101 ") {
								t.Errorf("got %q, %v", line, err)
							}
							continue
						}
						req, err := http.NewRequestWithContext(t.Context(), method, srv.URL, io.MultiReader(strings.NewReader("hello")))
						if err != nil {
							t.Fatal(err)
						}
						res, err := srv.Client().Do(req)
						if err != nil {
							t.Fatal(err)
						}
						body, _ := io.ReadAll(res.Body)
						res.Body.Close()
						if res.StatusCode != 200 || string(body) != "hello" {
							t.Errorf("got %s with %q", res.Status, body)
						}
					}
					await(t, pool, "bad", balancer.Down)
				})
			}
		}
	}
}

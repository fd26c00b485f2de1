package middleware_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"

	"github.com/limpet-go/limpet/bus/hub"
	limpet "github.com/limpet-go/limpet/middleware"
)

// panicker is data that can't be marshalled.
type panicker struct{}

func (panicker) MarshalJSON() ([]byte, error) { panic("as it was told") }

// runHub returns a hub that runs until the test ends.
func runHub(t *testing.T) *hub.Hub {
	t.Helper()
	h, err := hub.New(nil, &hub.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return h
}

// A client of a hub counts as long as it is connected, although the hub's handler returns when
// it has become a member; and no longer, however it ends.
func TestLimitOfMembers(t *testing.T) {
	t.Parallel()
	h := runHub(t)
	working := make(chan chan struct{})
	clients := h.Handler(&hub.HandlerOptions{
		Member: func(r *http.Request) (opts hub.MemberOptions, err error) {
			switch r.URL.Path {
			case "/nobody":
				err = errors.New("nobody")
			case "/data":
				opts.Data = panicker{}
			}
			return opts, err
		},
		Opened: func(_ context.Context, _ *hub.Member, r *http.Request) {
			if r.URL.Path == "/opened" {
				panic("in Opened")
			}
		},
		Message: func(_ context.Context, m *hub.Member, f *hub.Frame) {
			switch string(f.Payload()) {
			case "panic":
				panic("in Message")
			case "close":
				m.Close(4000, "")
			case "work":
				done := make(chan struct{})
				working <- done
				<-done
			}
		},
	})
	l, outer := &limpet.Limit{Connections: 2, Logger: quiet}, &limpet.Limit{Logger: quiet}
	srv := httptest.NewUnstartedServer(outer.Handler(l.Handler(clients)))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // panics
	srv.Start()
	t.Cleanup(srv.Close)
	open := func(want int) func() bool {
		return func() bool {
			return l.Stats().Open == want && l.Stats().Tunnels == int64(want) && outer.Stats().Open == want
		}
	}

	stays, code := dialAs(t, srv.URL)
	if code != http.StatusSwitchingProtocols {
		t.Fatalf("the first one: %d", code)
	}
	for _, tt := range []struct{ name, path, message string }{
		{"it goes without a close frame", "/", ""},
		{"the hub closes it", "/", "close"},
		{"Message panics", "/", "panic"},
		{"Opened panics", "/opened", "x"},
		{"it can't become a member", "/data", "x"},
	} {
		c, code := dialAs(t, srv.URL+tt.path)
		if code != http.StatusSwitchingProtocols {
			t.Fatalf("%s: %d", tt.name, code)
		}
		if tt.path == "/" {
			if _, third := dialAs(t, srv.URL); third != http.StatusTooManyRequests {
				t.Errorf("%s: a third one gets %d", tt.name, third)
			}
		}
		if tt.message == "" {
			c.CloseNow()
		} else {
			_ = c.Write(t.Context(), websocket.MessageText, []byte(tt.message))
			_, _, _ = c.Read(t.Context()) // answers the close frame
		}
		eventually(t, tt.name, open(1))
	}
	for path, want := range map[string]int{"/nobody": http.StatusForbidden, "/": http.StatusBadRequest} {
		r, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+path, nil)
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "websocket") // and no key
		res, err := srv.Client().Do(r)
		if err != nil || res.StatusCode != want {
			t.Fatalf("%s: %v, %v, want %d", path, res, err, want)
		}
		res.Body.Close()
		eventually(t, "the end of a handshake that fails", open(1))
	}

	// A client that has gone counts for as long as the application is busy with it.
	busy, _ := dialAs(t, srv.URL)
	_ = busy.Write(t.Context(), websocket.MessageText, []byte("work"))
	done := <-working
	busy.CloseNow()
	if _, code := dialAs(t, srv.URL); code != http.StatusTooManyRequests {
		t.Errorf("while the application works for one that has gone: %d", code)
	}
	close(done)
	eventually(t, "the end of the work", open(1))
	stays.CloseNow()
	eventually(t, "the end of all", open(0))
}

// A client counts however oddly it asks for a WebSocket, if it gets one.
func TestLimitOfOddHandshakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, header string }{
		{"the first Upgrade is empty", "Connection: Upgrade\r\nUpgrade:\r\nUpgrade: websocket\r\n"},
		{"a space that is no ASCII", "Connection: \u00a0upgrade\r\nUpgrade: websocket\r\n"},
		{"in lists", "Connection: x,\tUPGRADE\r\nUpgrade: x, WebSocket\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := runHub(t)
			l := &limpet.Limit{Connections: 1, Logger: quiet}
			srv := httptest.NewServer(l.Handler(h.Handler(nil)))
			t.Cleanup(srv.Close)
			for i, want := range []int{http.StatusSwitchingProtocols, http.StatusTooManyRequests} {
				c, err := net.Dial("tcp", srv.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, _ = fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n%sSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", tt.header)
				res, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil || res.StatusCode != want {
					t.Fatalf("client %d: %v, %v, want %d", i, res, err, want)
				}
				if i == 0 {
					eventually(t, "the end of the handler", func() bool { return l.Stats().Tunnels == 1 })
				}
			}
		})
	}
}

package upgrade_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/limpet-go/limpet/upgrade"
)

// The 101 carries what middlewares set, what the backend sent and what the
// caller changed, and nothing that concerns the backend's connection.
func TestServeHeader(t *testing.T) {
	t.Parallel()
	p := answer(t, strings.NewReplacer("Connection: Upgrade", "Connection: Upgrade, X-Private", "\r\n\r\n",
		"\r\nKeep-Alive: timeout=5\r\nContent-Length: 5\r\nX-Private: 1\r\nSec-WebSocket-Protocol: chat\r\n"+
			"Set-Cookie: app=1\r\n\r\n").Replace(switching))
	s := start(t, false, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Scheme, r.URL.Host = "http", "backend.invalid"
		tunnel, err := p.Connect(r, upgrade.ConnectOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		w.Header().Set("X-Request-Id", "7")
		w.Header().Set("Set-Cookie", "outer=1")
		w.Header().Set("Content-Length", "3")
		w.Header().Set("X-Folded", " a\r\nSet-Cookie: b\n")
		w.Header()["No Name"] = []string{"1"}
		w.Header().Set("Sec-WebSocket-Protocol", "forged")
		tunnel.Response().Header.Add("Set-Cookie", "pin=1")
		if err := tunnel.Serve(wrapper{w}); err != nil {
			t.Error(err)
		}
	}))
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	e := newEnd(t, conn, bufio.NewReader(conn))
	e.send([]byte(shake))
	e.expect("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nSec-Websocket-Accept: " + accept + "\r\n" +
		"Sec-Websocket-Protocol: chat\r\nSet-Cookie: app=1\r\nSet-Cookie: pin=1\r\nSet-Cookie: outer=1\r\n" +
		"Upgrade: websocket\r\nX-Folded: a  Set-Cookie: b\r\nX-Request-Id: 7\r\n\r\n")
}

// A writer that can't be taken over costs the tunnel, and no connection is left.
func TestServeCannotHijack(t *testing.T) {
	t.Parallel()
	gone := make(chan error, 1)
	p := script(t, func(conn net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(conn, switching)
		_, err := r.ReadByte()
		gone <- err
	})
	closed := make(chan upgrade.Summary, 2)
	tunnel, err := p.Connect(request(t), upgrade.ConnectOptions{Closed: func(s upgrade.Summary) { closed <- s }})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	if err := tunnel.Serve(w); !errors.Is(err, http.ErrNotSupported) {
		t.Error(err)
	}
	if w.Body.Len() > 0 || w.Flushed {
		t.Error("the client was answered")
	}
	if s := wait(t, closed); !errors.Is(s.Err, http.ErrNotSupported) {
		t.Errorf("%+v", s)
	}
	if err := wait(t, gone); err != io.EOF {
		t.Errorf("the backend read %v", err)
	}
	tunnel.Close(1001, "")
	if err := tunnel.Serve(w); !errors.Is(err, upgrade.ErrClosed) || len(closed) > 0 {
		t.Error(err, len(closed))
	}
}

// A tunnel closed before it is served can't be served.
func TestCloseBeforeServe(t *testing.T) {
	t.Parallel()
	p := answer(t, switching)
	closed := make(chan upgrade.Summary, 2)
	tunnel, err := p.Connect(request(t), upgrade.ConnectOptions{Group: "a", Closed: func(s upgrade.Summary) { closed <- s }})
	if err != nil {
		t.Fatal(err)
	}
	p.CloseGroup("b", 1001, "other")
	if len(closed) > 0 {
		t.Error("closed with another group")
	}
	p.CloseGroup("a", 1012, "gone")
	if s := wait(t, closed); s.Code != 1012 || s.Reason != "gone" || s.By != upgrade.SideGateway {
		t.Errorf("%+v", s)
	}
	if err := tunnel.Serve(httptest.NewRecorder()); !errors.Is(err, upgrade.ErrClosed) {
		t.Error(err)
	}
}

// Package nodetest has a backend for tests that can die.
package nodetest

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// A Node is a real server, whose end can be that of a crash.
type Node struct {
	*httptest.Server

	mu    sync.Mutex
	conns []net.Conn
}

// New starts a node until the end of the test.
func New(t testing.TB, h http.Handler) *Node {
	t.Helper()
	n := &Node{}
	n.Server = httptest.NewUnstartedServer(h)
	n.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	n.Config.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.conns = append(n.conns, conn)
		return ctx
	}
	n.Start()
	t.Cleanup(n.Kill)
	return n
}

// Kill ends the node as a crash would: all connections break, those of WebSockets too, and
// new ones are refused.
func (n *Node) Kill() {
	n.Listener.Close()
	n.mu.Lock()
	for _, conn := range n.conns {
		conn.Close()
	}
	n.mu.Unlock()
	n.Server.Close()
}

// Echo sends each message of a WebSocket back.
func Echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	for ctx := context.Background(); ; { // the request's has ended with the hijacking
		kind, data, err := conn.Read(ctx)
		if err != nil || conn.Write(ctx, kind, data) != nil {
			return
		}
	}
}

package sockets_test

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/limpet-go/limpet/internal/sockets"
)

// networks are those of stream sockets.
var networks = []string{"tcp", "unix"}

// pair returns both ends of a connection, of which the first is a Conn.
func pair(t testing.TB, network string) (*sockets.Conn, net.Conn) {
	t.Helper()
	l := sockets.Listen(listen(t, network))
	defer l.Close()
	ours, theirs := connect(t, l)
	return ours.(*sockets.Conn), theirs
}

// plain is pair by package net.
func plain(t testing.TB, network string) (ours, theirs net.Conn) {
	t.Helper()
	l := listen(t, network)
	defer l.Close()
	return connect(t, l)
}

func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	must(t, err)
	return l
}

// connect returns both ends of a new connection.
func connect(t testing.TB, l net.Listener) (accepted, dialed net.Conn) {
	t.Helper()
	dialed, err := net.Dial(l.Addr().Network(), l.Addr().String())
	must(t, err)
	accepted, err = l.Accept()
	must(t, err)
	t.Cleanup(func() {
		accepted.Close()
		dialed.Close()
	})
	return accepted, dialed
}

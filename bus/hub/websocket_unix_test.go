//go:build unix

package hub

import (
	"crypto/tls"
	"net"
	"testing"

	netsockets "github.com/limpet-go/limpet/internal/sockets"
	"github.com/limpet-go/limpet/internal/switchable"
)

// A member waits in its socket, with no buffer and one call for what comes, whichever listener
// of ours has accepted it. What TLS or another package has is read by its own Read.
func TestRawConn(t *testing.T) {
	t.Parallel()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := netsockets.Listen(plain)
	defer l.Close()
	theirs, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	ours, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	for name, tt := range map[string]struct {
		conn net.Conn
		raw  bool
	}{
		"of package net":      {theirs, true},
		"of Gateway.Serve":    {ours, true},
		"of upgrade.Listener": {switchable.New(ours), true},
		"the same above net":  {switchable.New(theirs), true},
		"TLS":                 {tls.Server(switchable.New(ours), &tls.Config{}), false},
		"of another package":  {struct{ *net.TCPConn }{theirs.(*net.TCPConn)}, false},
		"wrapped by another":  {switchable.New(struct{ net.Conn }{theirs}), false},
	} {
		if raw := rawConn(below(tt.conn)); (raw != nil) != tt.raw {
			t.Errorf("%s: %v", name, raw)
		}
	}
}

//go:build !unix

package http1

import (
	"errors"
	"net"
)

type socket struct{ activity activity }

func newSocket(net.Conn) *socket { return &socket{activity: hidden} }

func (s *socket) peek() activity { return s.activity }

// direct reports whether writeRead works, which it does for none here.
func direct(net.Conn) bool { return false }

func (s *socket) writeRead(out, in []byte, reused bool) (sent, n int, err error) {
	return 0, 0, errors.ErrUnsupported
}

//go:build !unix

package http1

import (
	"errors"
	"net"
)

// A socket can't ask the kernel on systems that aren't Unix.
type socket struct{ activity activity }

func newSocket(net.Conn) *socket { return &socket{activity: hidden} }

func (s *socket) peek() activity { return s.activity }

// direct reports false: writeRead works for no connection here.
func direct(net.Conn) bool { return false }

func (s *socket) writeRead(out, in []byte, reused bool) (sent, n int, err error) {
	return 0, 0, errors.ErrUnsupported
}

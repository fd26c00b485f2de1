//go:build !unix

package http1

import (
	"errors"
	"net"
)

// A socket can't ask the kernel on systems that aren't Unix.
type socket struct {
	activity activity
	head     *[]byte
	sent     int
}

func newSocket(net.Conn) *socket { return &socket{activity: hidden} }

func (s *socket) peek() activity { return s.activity }

// direct reports false: await works for no connection here.
func direct(net.Conn) bool { return false }

func (s *socket) await(head *[]byte, reused bool) error { return errors.ErrUnsupported }

//go:build !linux

package handover

import (
	"context"
	"net"
)

// Open returns an error.
func Open(context.Context, string) (*Conn, *net.UnixListener, error) { return nil, nil, errSystem }

// SameUser returns an error.
func SameUser(*net.UnixConn) error { return errSystem }

// Room returns an error.
func Room(int) error { return errSystem }

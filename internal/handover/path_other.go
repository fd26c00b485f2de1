//go:build !linux

package handover

import (
	"context"
	"net"
	"syscall"
)

// Open returns an error.
func Open(context.Context, string) (*Conn, *net.UnixListener, error) { return nil, nil, errSystem }

// SameUser returns an error.
func SameUser(*net.UnixConn) error { return errSystem }

// Room returns an error.
func Room(int) error { return errSystem }

// Duplicate returns an error.
func Duplicate(syscall.Conn) (fd int, err error) { return -1, errSystem }

// Listener returns an error.
func Listener(int) (net.Listener, error) { return nil, errSystem }

// CloseAll does nothing.
func CloseAll([]int) {}

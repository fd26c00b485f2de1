//go:build race

package sockets

import "syscall"

// Package syscall tells the race detector that what one goroutine sends and another one
// receives puts them in order.

func receive(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

// Write writes to a socket that doesn't block.
func Write(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }

//go:build race || 386 || limpet_ordinary_syscalls

package sockets

import "syscall"

// The same calls by package syscall, which tells the scheduler of them, and the race
// detector: that one goroutine sends what another one receives puts them in order.

func receive(fd int, b []byte) (int, error) { return syscall.Read(fd, b) }

func send(fd int, b []byte) (int, error) { return syscall.Write(fd, b) }

func ready(epoll int, events []syscall.EpollEvent) (int, error) {
	return syscall.EpollWait(epoll, events, 0)
}

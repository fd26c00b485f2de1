package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
)

// listen returns the socket that systemd passes, or opens addr if there is none.
func listen(addr string) (net.Listener, error) {
	if l, err := activated(); l != nil || err != nil {
		return l, err
	}
	return net.Listen("tcp", addr)
}

// activated returns the socket that a service manager has opened for this process, nil if
// there is none. The protocol is that of sd_listen_fds(3): the sockets are open files from
// number 3 on, and variables say how many there are, and for which process.
func activated() (net.Listener, error) {
	pid, count := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	if pid != strconv.Itoa(os.Getpid()) || count == "" {
		return nil, nil
	}
	if count != "1" {
		return nil, fmt.Errorf("LISTEN_FDS=%s: want one socket, with one ListenStream", count)
	}
	f := os.NewFile(3, "socket of the service manager")
	defer f.Close() // FileListener has a copy
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("LISTEN_FDS: %w", err)
	}
	return l, nil
}

package sockets

import "syscall"

// options are the values of those options of a TCP socket that package net sets: see names.
type options [5]int

var names = [len(options{})]struct{ level, name int }{
	{syscall.IPPROTO_TCP, syscall.TCP_NODELAY},
	{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL},
	{syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT},
}

func optionsOf(fd int) (o options, err error) {
	for i, n := range names {
		if o[i], err = syscall.GetsockoptInt(fd, n.level, n.name); err != nil {
			return o, err
		}
	}
	return o, nil
}

func (o *options) set(fd int) {
	for i, n := range names {
		setOption(fd, n.level, n.name, o[i])
	}
}

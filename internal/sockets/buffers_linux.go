package sockets

import (
	"net"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// WriteBuffers is v.WriteTo(conn), which makes one system call of many buffers for connections
// of package net only.
func WriteBuffers(conn net.Conn, v *net.Buffers) (int64, error) {
	c, ok := conn.(*Conn)
	if !ok {
		return v.WriteTo(conn)
	}
	n, err := c.writeBuffers(v)
	if err != nil {
		return n, c.failed("write", err)
	}
	return n, nil
}

func (d *descriptor) writeBuffers(v *net.Buffers) (written int64, err error) {
	s := &d.out
	if err := d.begin(s); err != nil {
		return 0, err
	}
	defer d.end(s)
	for {
		consume(v, 0)
		if len(*v) == 0 {
			return written, nil
		}
		if !s.ready.Load() {
			if err := d.wait(s, syscall.EPOLLOUT); err != nil {
				return written, err
			}
		}
		s.ready.Store(false)
		n, errno := sendBuffers(d.fd, *v)
		if errno == syscall.EAGAIN {
			continue
		}
		s.ready.Store(true)
		switch errno {
		case 0:
			consume(v, n)
			written += int64(n)
		case syscall.EINTR:
		default:
			return written, os.NewSyscallError("writev", errno)
		}
	}
}

// sendBuffers writes some of the buffers, the first of which isn't empty.
func sendBuffers(fd int, v [][]byte) (int, syscall.Errno) {
	var parts [64]syscall.Iovec
	n := 0
	for _, b := range v[:min(len(v), len(parts))] {
		if len(b) > 0 {
			parts[n].Base = unsafe.SliceData(b)
			parts[n].SetLen(len(b))
			n++
		}
	}
	m, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&parts)), uintptr(n))
	runtime.KeepAlive(v)
	return int(m), errno
}

// consume removes n bytes from v, and empty buffers at its beginning.
func consume(v *net.Buffers, n int) {
	for len(*v) > 0 && n >= len((*v)[0]) {
		n -= len((*v)[0])
		(*v)[0] = nil
		*v = (*v)[1:]
	}
	if n > 0 {
		(*v)[0] = (*v)[0][n:]
	}
}

//go:build !limpet_ordinary_syscalls && !386

package sockets

import (
	"net"
	"syscall"
	"unsafe"
)

// These calls make and end a connection. They don't wait, and the scheduler isn't told of
// them: see call. Telling it would cost more here than elsewhere. When all processors of a
// process have been idle, the first call that the scheduler is told of wakes the runtime's
// monitor, which then wakes up every 20 microseconds to see how long the call takes. A gateway
// that is half idle paid for that with a twentieth of what a short tunnel costs.

// accept accepts a connection.
func accept(fd int) (int, net.Addr, error) {
	var sa syscall.RawSockaddrAny
	size := uint32(unsafe.Sizeof(sa))
	n, _, errno := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)),
		syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, nil, errno
	}
	switch sa.Addr.Family {
	case syscall.AF_INET:
		in := (*syscall.RawSockaddrInet4)(unsafe.Pointer(&sa))
		return int(n), address(&syscall.SockaddrInet4{Port: swapped(in.Port), Addr: in.Addr}), nil
	case syscall.AF_INET6:
		in := (*syscall.RawSockaddrInet6)(unsafe.Pointer(&sa))
		return int(n), address(&syscall.SockaddrInet6{Port: swapped(in.Port), ZoneId: in.Scope_id, Addr: in.Addr}), nil
	}
	from, err := syscall.Getpeername(int(n))
	if err != nil { // it has gone
		return int(n), &net.UnixAddr{Net: "unix"}, nil
	}
	return int(n), address(from), nil
}

// connect begins to connect a socket that doesn't block.
func connect(fd int, to syscall.Sockaddr) error {
	var errno syscall.Errno
	switch to := to.(type) {
	case *syscall.SockaddrInet4:
		sa := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: uint16(swapped(uint16(to.Port))), Addr: to.Addr}
		_, _, errno = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	case *syscall.SockaddrInet6:
		sa := syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: uint16(swapped(uint16(to.Port))), Scope_id: to.ZoneId, Addr: to.Addr}
		_, _, errno = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	default:
		return syscall.Connect(fd, to)
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// swapped returns a port in the order of bytes of the network, or one of those as a number.
func swapped(port uint16) int {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return int(b[0])<<8 | int(b[1])
}

// setOption sets an option of a socket that is a number.
func setOption(fd, level, name, value int) {
	v := int32(value)
	_, _, _ = syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
}

// Close closes a socket that is [Conn.Take]n and doesn't linger.
func Close(fd int) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

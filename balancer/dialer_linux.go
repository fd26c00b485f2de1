package balancer

import "syscall"

// bindWithoutPort sets IP_BIND_ADDRESS_NO_PORT (Linux 4.2, ip(7)), for IPv6
// sockets too: bind then leaves the port open until connect. Where the kernel
// doesn't know it, bind takes a port, and there are fewer.
func bindWithoutPort(fd uintptr) {
	const ipBindAddressNoPort = 24 // missing in package syscall
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
}

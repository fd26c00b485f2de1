package balancer

import "syscall"

// bindWithoutPort sets IP_BIND_ADDRESS_NO_PORT (Linux 4.2, ip(7)), which works for IPv6
// sockets too: bind then leaves the choice of the port to connect. If the kernel doesn't
// know the option bind chooses the port, and there are fewer of them.
func bindWithoutPort(fd uintptr) {
	const ipBindAddressNoPort = 24 // missing in package syscall
	_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IP, ipBindAddressNoPort, 1)
}

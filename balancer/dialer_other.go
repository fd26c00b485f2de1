//go:build !linux

package balancer

// bindWithoutPort does nothing: a port is taken at bind, and with it for all backends.
func bindWithoutPort(uintptr) {}

//go:build !linux

package balancer

// bindWithoutPort does nothing: bind chooses a port, which is taken for all backends.
func bindWithoutPort(uintptr) {}

//go:build !unix

package balancer

import "net"

// peerClosed can't tell here: net/http's reading goroutine notices a moment later.
func peerClosed(net.Conn) bool { return false }

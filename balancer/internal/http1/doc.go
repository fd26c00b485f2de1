// Package http1 is the client for HTTP/1.1 by which a balancer.Transport reaches
// one backend.
package http1

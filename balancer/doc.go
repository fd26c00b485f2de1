// Package balancer knows who can serve: backends, the pool that picks among
// them, and the health checks that keep the pool true.
package balancer

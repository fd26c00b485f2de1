package balancer

import "context"

// OnLost calls f in its own goroutine when the backend's Lost channel is closed,
// at once if it is already, and returns a function that ends the wait. It costs
// no goroutine while waiting.
func (b *Backend) OnLost(f func()) (stop func() bool) {
	return context.AfterFunc(b.life.Load(), f)
}

//go:build linux

package role

import (
	"sync"
	"time"
)

// A counter counts the messages that have come.
type counter struct {
	mu      sync.Mutex
	count   int
	times   []int64
	want    int           // closes reached
	reached chan struct{} // nil if nobody waits
}

func (c *counter) got(message []byte) {
	at, ok := sentAt(message)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if at > 0 {
		c.times = append(c.times, now()-at)
	}
	if c.count++; c.reached != nil && c.count >= c.want {
		close(c.reached)
		c.reached = nil
	}
}

// await waits until so many messages have come, or Patience is over. It returns how many
// there are, and the times since the last call.
func (c *counter) await(want int) (int, []int64) {
	c.mu.Lock()
	if c.count < want {
		reached := make(chan struct{})
		c.want, c.reached = want, reached
		c.mu.Unlock()
		select {
		case <-reached:
		case <-time.After(Patience):
		}
		c.mu.Lock()
	}
	defer c.mu.Unlock()
	c.reached = nil
	times := c.times
	c.times = nil
	return c.count, times
}

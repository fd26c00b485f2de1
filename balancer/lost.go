package balancer

import (
	"context"
	"errors"
)

// ErrLost is what a request fails with whose backend's [Backend.Lost] closed.
var ErrLost = errors.New("backend lost")

// A life lasts from when a backend can be used until it is lost.
type life struct {
	context.Context
	end context.CancelCauseFunc
}

// Lost returns a channel that is closed when the backend goes Down or is
// removed: what waits on it should go on elsewhere, and its tunnels end. Once
// the backend is back, Lost returns a new channel.
//
// Half rule: when health finds more than half of the pool dead, the channels of
// those beyond that half stay open until others are back, since then it may well
// be the check, or the network on this side, that fails. What the operator puts
// Down is always lost.
func (b *Backend) Lost() <-chan struct{} { return b.life.Load().Done() }

// OnLost calls f in its own goroutine when the channel that Lost returns now is
// closed, at once if it is already, and returns a function that ends the wait. It
// costs no goroutine while waiting. Stop reports whether it kept f from being called.
func (b *Backend) OnLost(f func()) (stop func() bool) {
	return context.AfterFunc(b.life.Load(), f)
}

// lost reports whether the channel that Lost returns is closed.
func (b *Backend) lost() bool { return b.life.Load().Err() != nil }

// over returns ErrLost once the life has ended.
func (l *life) over() error {
	if l.Err() != nil {
		return ErrLost
	}
	return nil
}

// revive gives the backend a new life.
func (b *Backend) revive() {
	ctx, end := context.WithCancelCause(b.gone)
	b.life.Store(&life{ctx, end})
}

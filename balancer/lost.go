package balancer

import (
	"context"
	"errors"
)

// ErrLost is the error of a request whose backend was lost: its [Backend.Lost] has
// closed.
var ErrLost = errors.New("backend lost")

// A life is the time from when a backend can be used until it is lost. The cause of its
// end is ErrLost.
type life struct {
	context.Context
	end context.CancelCauseFunc
}

// Lost returns a channel that is closed when the backend goes Down or is removed.
// Requests that wait for the backend should then be sent elsewhere, and its tunnels end.
// Once the backend is back, Lost returns a new channel.
//
// The half rule: when the checks find more than half of the pool dead, no more than half
// of the channels close. The others stay open until some of the lost backends are back,
// since it may well be the check, or the network on this side, that fails. A backend that
// the operator puts Down is always lost. Requests that wait at a backend whose channel stays
// open, and that may be repeated, needn't wait for its return: see [Transport.Release].
func (b *Backend) Lost() <-chan struct{} { return b.life.Load().Done() }

// OnLost calls f in a goroutine of its own when the channel that Lost returns now is
// closed, or at once if it is closed already. Waiting costs no goroutine. Stop ends the
// wait, and reports whether it has kept f from being called.
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

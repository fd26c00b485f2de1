package upgrade

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"
)

// turns decide who writes to the client of a tunnel on a pump: the flow, or those
// who send. The flow has the turn from the start of a message to its end, so that
// who gets it from the flow is between two messages. The runtime passes a channel
// on in the order of asking: neither can be kept out by the other.
type turns struct {
	turn    chan struct{} // full when taken; nil where nobody but the flow writes
	mine    bool          // the flow has the turn
	waiting atomic.Int32  // senders
	sealed  atomic.Bool   // senders may not write any more
	sent    int64         // messages, by senders
}

// take gives the flow the turn, if it needs one.
func (s *turns) take() {
	if s.turn != nil && !s.mine && !s.sealed.Load() {
		s.turn <- struct{}{}
		s.mine = true
	}
}

// release gives the flow's turn back.
func (s *turns) release() {
	if s.mine {
		s.mine = false
		<-s.turn
	}
}

// seal gives the flow the turn for good. A sender who is writing to a client that
// doesn't read has a moment to end.
func (f *flow) seal() {
	if f.turn == nil {
		return
	}
	f.sealed.Store(true)
	if f.mine {
		return
	}
	select {
	case f.turn <- struct{}{}:
	default:
		if f.closing.Load() == nil { // which has a deadline of its own
			f.dst.SetWriteDeadline(time.Now().Add(drainTime))
		}
		f.turn <- struct{}{}
	}
	f.mine = true
}

func (p *pumped) send(ctx context.Context, frames [][]byte) error {
	f := &p.down
	if f.turn == nil {
		return errors.New("not a WebSocket")
	}
	if f.refuses() {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case f.turn <- struct{}{}:
	default:
		f.waiting.Add(1)
		select {
		case f.turn <- struct{}{}:
			f.waiting.Add(-1)
		case <-ctx.Done():
			f.waiting.Add(-1)
			return context.Cause(ctx)
		}
	}
	defer func() { <-f.turn }()
	if f.refuses() {
		return ErrClosed
	}
	return f.insert(ctx, frames)
}

// refuses reports whether senders come too late.
func (f *flow) refuses() bool {
	return f.sealed.Load() || f.closing.Load() != nil || f.closeSeen.Load()
}

// insert writes frames in a sender's turn.
func (f *flow) insert(ctx context.Context, frames [][]byte) error {
	over := interrupt(ctx, f.dst)
	unsent := net.Buffers(slices.Clone(frames)) // WriteTo takes out what it has written
	n, err := unsent.WriteTo(f.dst)
	ended := over()
	f.bytes += n
	f.sent += int64(len(frames) - len(unsent))
	if ended {
		f.dst.SetWriteDeadline(time.Time{})
		if c := f.closing.Load(); c != nil {
			f.dst.SetWriteDeadline(c.goneBy)
		}
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		f.sealed.Store(true)
		f.lost(err)
		return err
	}
	err = ErrClosed
	if ended {
		err = context.Cause(ctx)
	}
	if _, layered := f.dst.(interface{ NetConn() net.Conn }); n > 0 || layered { // see raw
		f.sealed.Store(true)
		f.note(Summary{By: Gateway, Err: fmt.Errorf("a message was cut short: %w", err)})
		f.cut()
	}
	return err
}

// interrupt has writing to conn fail when ctx ends. That ends with the function
// returned, which reports whether it has come to it.
func interrupt(ctx context.Context, conn net.Conn) (over func() bool) {
	if ctx.Done() == nil {
		return func() bool { return false }
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetWriteDeadline(past)
		close(done)
	})
	return func() bool {
		if stop() {
			return false
		}
		<-done
		return true
	}
}

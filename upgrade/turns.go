package upgrade

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
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
	if f.turn == nil || f.mine && f.sealed.Swap(true) {
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

func (p *pumped) send(ctx context.Context, frame []byte) error {
	f := &p.down
	if f.turn == nil {
		return errors.New("not a WebSocket")
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
	if f.sealed.Load() || p.closing.Load() != nil || p.closeSeen.Load() {
		return ErrClosed
	}
	return f.insert(ctx, frame)
}

// insert writes frame in a sender's turn.
func (f *flow) insert(ctx context.Context, frame []byte) error {
	over := interrupt(ctx, f.dst)
	n, err := f.dst.Write(frame)
	ended := over()
	f.bytes += int64(n)
	if err == nil {
		f.sent++
	}
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
		f.note(Summary{By: Gateway, Err: fmt.Errorf("the client took %d of %d bytes of a message: %w", n, len(frame), err)})
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

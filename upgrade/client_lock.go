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

	"github.com/limpet-go/limpet/internal/sockets"
)

// A clientLock decides who writes to the client of a tunnel on a pump: the flow from
// the backend, or one of the senders. The flow holds the lock from the start of a
// message to its end, so a sender that gets the lock from the flow is always between
// two messages. The runtime hands a channel to its waiters in the order in which they
// came, so neither the flow nor a sender can be kept out by the others.
//
//	state    the flow's writes                      Send
//	free     takes the lock first                   takes the lock, writes and releases it
//	held     go on; released where a message ends   waits, until its context ends
//	sealed   none but a close frame                 fails with ErrClosed, for good
type clientLock struct {
	lock    chan struct{} // holds a value while the lock is taken; nil if nobody but the flow writes
	held    bool          // by the flow
	waiting atomic.Int32  // number of senders that wait
	sealed  atomic.Bool   // no sender may write any more
	sent    int64         // messages of the senders
}

// take takes the lock for the flow, unless it holds it already or there is none.
func (l *clientLock) take() {
	if l.lock != nil && !l.held {
		l.lock <- struct{}{}
		l.held = true
	}
}

// release releases the lock if the flow holds it.
func (l *clientLock) release() {
	if l.held {
		l.held = false
		<-l.lock
	}
}

// seal takes the lock for the flow and has all senders refused from then on. A sender
// that is writing to a client that doesn't read has discardTime to finish.
func (f *pumpFlow) seal() {
	if f.lock == nil {
		return
	}
	f.sealed.Store(true)
	if f.held {
		return
	}
	select {
	case f.lock <- struct{}{}:
	default:
		f.mu.Lock()
		if !f.course.closing { // a closing tunnel has a deadline of its own
			f.dst.SetWriteDeadline(time.Now().Add(discardTime))
		}
		f.mu.Unlock()
		f.lock <- struct{}{}
	}
	f.held = true
}

func (t *pumpTunnel) send(ctx context.Context, frames [][]byte) error {
	f := &t.down
	if f.lock == nil {
		return errors.New("not a WebSocket")
	}
	if f.refuses() {
		return ErrClosed
	}
	select {
	case f.lock <- struct{}{}:
	default:
		f.waiting.Add(1)
		select {
		case f.lock <- struct{}{}:
			f.waiting.Add(-1)
		case <-ctx.Done():
			f.waiting.Add(-1)
			return context.Cause(ctx)
		}
	}
	defer func() { <-f.lock }()
	if f.refuses() {
		return ErrClosed
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return f.insert(ctx, frames)
}

// refuses reports whether a sender comes too late.
func (f *pumpFlow) refuses() bool {
	if f.sealed.Load() {
		return true
	}
	if !f.ending.Load() {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return !f.course.takesMessages()
}

// insert writes a sender's frames while that holds the lock, until ctx ends.
func (f *pumpFlow) insert(ctx context.Context, frames [][]byte) error {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		f.dst.SetWriteDeadline(past)
		close(interrupted)
	})
	f.writing(true)
	n, whole, err := writeFrames(f.dst, frames)
	f.writing(false)
	f.bytes += n
	f.sent += whole
	ended := !stop()
	if ended {
		<-interrupted
		f.mu.Lock()
		by := time.Time{}
		if f.course.closing {
			by = f.began.Add(f.course.goneBy)
		}
		f.dst.SetWriteDeadline(by)
		f.mu.Unlock()
	}
	if err == nil {
		return nil
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		f.writeFailed(err)
		f.sealed.Store(true)
		return fmt.Errorf("%w: %w", ErrClosed, err)
	}
	err = ErrClosed
	if ended {
		err = context.Cause(ctx)
	}
	if _, layered := f.dst.(interface{ NetConn() net.Conn }); n > 0 || layered { // see raw
		f.end(tornError(err))
		f.sealed.Store(true)
	}
	return err
}

// writeFrames returns how many bytes and whole frames were written.
func writeFrames(conn net.Conn, frames [][]byte) (n, whole int64, err error) {
	if len(frames) == 1 { // the most frequent case; what follows allocates
		m, err := conn.Write(frames[0])
		if err == nil {
			whole = 1
		}
		return int64(m), whole, err
	}
	unsent := net.Buffers(slices.Clone(frames)) // WriteBuffers removes what it has written
	n, err = sockets.WriteBuffers(conn, &unsent)
	return n, int64(len(frames) - len(unsent)), err
}

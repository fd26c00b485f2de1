package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// sender is one who sends into a tunnel on a loop and has to wait: for the end of
// a message, for room at the client, or for those who came before.
type sender struct {
	frames [][]byte // not yet written
	at     int      // of the first of them
	begun  bool
	done   chan error // has room for the answer
	next   *sender
}

func (t *loopTunnel) send(ctx context.Context, frames [][]byte) error {
	if !t.websocket {
		return errors.New("not a WebSocket")
	}
	s, err := t.enter(ctx, frames)
	if s == nil {
		return err
	}
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
	}
	t.loop.lock()
	defer t.loop.mu.Unlock()
	select {
	case err := <-s.done:
		return err
	default:
	}
	if s.begun {
		t.tear(context.Cause(ctx))
	} else {
		t.withdraw(s)
	}
	t.update()
	return context.Cause(ctx)
}

// enter writes frames at once, or returns who waits for that.
func (t *loopTunnel) enter(ctx context.Context, frames [][]byte) (*sender, error) {
	t.loop.lock()
	defer t.loop.mu.Unlock()
	if t.gone {
		return nil, ErrClosed
	}
	t.activate()
	defer t.update()
	f := &t.flows[toClient]
	if t.ending != nil && !t.ending.takesMessages() || !f.frames.following() {
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s := sender{frames: frames}
	if t.senders == nil && f.pending == nil && f.frames.between() {
		if whole, err := t.writeSender(&s); whole || err != nil {
			return nil, err
		}
	}
	waiting := s
	waiting.done = make(chan error, 1)
	last := &t.senders
	for *last != nil {
		last = &(*last).next
	}
	*last = &waiting
	return &waiting, nil
}

// write writes what there is room for and reports whether that was all.
func (t *loopTunnel) writeSender(s *sender) (whole bool, err error) {
	f := &t.flows[toClient]
	for len(s.frames) > 0 {
		n, err := write(t.destination(f), s.frames[0][s.at:])
		switch {
		case err == syscall.EAGAIN:
			return false, nil
		case err == syscall.EINTR:
			continue
		case err != nil:
			err = os.NewSyscallError("write", err)
			t.writeFailed(f, err)
			return false, fmt.Errorf("%w: %w", ErrClosed, err)
		}
		f.bytes += int64(n)
		s.begun = true
		if s.at += n; s.at == len(s.frames[0]) {
			s.frames, s.at = s.frames[1:], 0
			f.frames.messages++
		}
	}
	return true, nil
}

// turn reports whether it is for a sender to write.
func (t *loopTunnel) senderDue() bool {
	return t.senders != nil && (t.senders.begun || t.flows[toClient].frames.between())
}

// serve lets those write whose turn it is, or one of them, and reports whether
// the lane may go on.
func (t *loopTunnel) serveSenders(one bool) bool {
	for t.senderDue() {
		if whole, _ := t.writeSender(t.senders); !whole {
			return false
		}
		if t.answerSender(nil); one {
			break
		}
	}
	return true
}

// answer sends the first sender away.
func (t *loopTunnel) answerSender(err error) {
	s := t.senders
	t.senders = s.next
	s.done <- err
}

// refuse sends those away who have not begun.
func (t *loopTunnel) refuseSenders() {
	for s := t.senders; s != nil; s = s.next {
		if !s.begun {
			t.withdraw(s)
			s.done <- ErrClosed
		}
	}
}

func (t *loopTunnel) withdraw(s *sender) {
	at := &t.senders
	for *at != s {
		at = &(*at).next
	}
	*at = s.next
}

// tear ends the tunnel because a message was cut short.
func (t *loopTunnel) tear(cause error) {
	t.carryOut(nil, t.ensureEnding().cut(tornError(cause)))
}

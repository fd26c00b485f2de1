package upgrade

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A sender is a call of Send into a tunnel on a loop that can't write all at once: it
// waits for the end of a message, for room at the client, or for the senders before
// it.
//
//	state     who moves it there                         how it leaves
//	waiting   enter, with the lock of the loop           its turn comes (senderDue): writing; its context
//	                                                     ends, or the tunnel begins to end: answered
//	writing   serveSenders, or enter at once             all is written, the client is lost or the tunnel
//	                                                     gone: answered; its context ends: the tunnel is torn
//	answered  answerSender, refuseSenders                send reads done and returns
type sender struct {
	frames [][]byte   // that are not yet written whole
	at     int        // how much of the first of them is written
	begun  bool       // a byte of it is written
	done   chan error // buffered: the loop doesn't wait for send to read it
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

// enter writes frames at once if it can, and returns nil and the error then. Otherwise
// it returns a sender that waits.
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
	if t.senders == nil && f.pending == nil && !t.unsent(f) && f.frames.between() && t.frozen == nil {
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

// writeSender writes as much of s as the client has room for, and reports whether that
// was all.
func (t *loopTunnel) writeSender(s *sender) (whole bool, err error) {
	f := &t.flows[toClient]
	for len(s.frames) > 0 {
		n, err := t.write(f, s.frames[0][s.at:])
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
		t.took(f)
		s.begun = true
		if s.at += n; s.at == len(s.frames[0]) {
			s.frames, s.at = s.frames[1:], 0
			f.frames.messages++
		}
	}
	return true, nil
}

// senderDue reports whether the first sender may write now.
func (t *loopTunnel) senderDue() bool {
	return t.senders != nil && (t.senders.begun || t.flows[toClient].frames.between())
}

// serveSenders lets the senders write that may, or only one of them. It reports
// whether bytes of the backend may follow, as nothing of a sender is left unwritten.
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

// answerSender ends the first sender with err.
func (t *loopTunnel) answerSender(err error) {
	s := t.senders
	t.senders = s.next
	s.done <- err
}

// refuseSenders ends all senders of which nothing is written.
func (t *loopTunnel) refuseSenders() {
	for s := t.senders; s != nil; s = s.next {
		if !s.begun {
			t.withdraw(s)
			s.done <- ErrClosed
		}
	}
}

// withdraw removes s from the list.
func (t *loopTunnel) withdraw(s *sender) {
	at := &t.senders
	for *at != s {
		at = &(*at).next
	}
	*at = s.next
}

// tear cuts the tunnel because cause has ended a sender within its message.
func (t *loopTunnel) tear(cause error) {
	t.carryOut(nil, t.ensureEnding().cut(tornError(cause)))
}

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

func (u *looped) send(ctx context.Context, frames [][]byte) error {
	if !u.websocket {
		return errors.New("not a WebSocket")
	}
	s, err := u.enter(ctx, frames)
	if s == nil {
		return err
	}
	select {
	case err := <-s.done:
		return err
	case <-ctx.Done():
	}
	u.loop.lock()
	defer u.loop.mu.Unlock()
	select {
	case err := <-s.done:
		return err
	default:
	}
	if s.begun {
		u.tear(context.Cause(ctx))
	} else {
		u.withdraw(s)
	}
	u.review()
	return context.Cause(ctx)
}

// enter writes frames at once, or returns who waits for that.
func (u *looped) enter(ctx context.Context, frames [][]byte) (*sender, error) {
	u.loop.lock()
	defer u.loop.mu.Unlock()
	if u.gone {
		return nil, ErrClosed
	}
	u.move()
	defer u.review()
	f := &u.lanes[toClient]
	if u.ending != nil && !u.ending.takesMessages() || !f.frames.following() {
		return nil, ErrClosed
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s := sender{frames: frames}
	if u.senders == nil && f.stock == nil && f.frames.between() {
		if whole, err := u.write(&s); whole || err != nil {
			return nil, err
		}
	}
	waiting := s
	waiting.done = make(chan error, 1)
	last := &u.senders
	for *last != nil {
		last = &(*last).next
	}
	*last = &waiting
	return &waiting, nil
}

// write writes what there is room for and reports whether that was all.
func (u *looped) write(s *sender) (whole bool, err error) {
	f := &u.lanes[toClient]
	for len(s.frames) > 0 {
		n, err := write(u.destination(f), s.frames[0][s.at:])
		switch {
		case err == syscall.EAGAIN:
			return false, nil
		case err == syscall.EINTR:
			continue
		case err != nil:
			err = os.NewSyscallError("write", err)
			u.lose(f, err)
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
func (u *looped) turn() bool {
	return u.senders != nil && (u.senders.begun || u.lanes[toClient].frames.between())
}

// serve lets those write whose turn it is, or one of them, and reports whether
// the lane may go on.
func (u *looped) serve(one bool) bool {
	for u.turn() {
		if whole, _ := u.write(u.senders); !whole {
			return false
		}
		if u.answer(nil); one {
			break
		}
	}
	return true
}

// answer sends the first sender away.
func (u *looped) answer(err error) {
	s := u.senders
	u.senders = s.next
	s.done <- err
}

// refuse sends those away who have not begun.
func (u *looped) refuse() {
	for s := u.senders; s != nil; s = s.next {
		if !s.begun {
			u.withdraw(s)
			s.done <- ErrClosed
		}
	}
}

func (u *looped) withdraw(s *sender) {
	at := &u.senders
	for *at != s {
		at = &(*at).next
	}
	*at = s.next
}

// tear ends the tunnel because a message was cut short.
func (u *looped) tear(cause error) {
	u.obey(nil, u.begins().cut(tornError(cause)))
}

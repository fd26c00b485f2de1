package upgrade

import (
	"syscall"
	"testing"
)

// A tunnel that epoll refuses while it is ending leaves no deadline behind, which
// its loop would look at for ever.
func TestNoDeadlineOfTheGone(t *testing.T) {
	l := handLoop(t)
	l.tunnel(t)
	l.lock()
	defer l.mu.Unlock()
	u := l.slots[0]
	u.activate()
	u.carryOut(&u.flows[toBackend], u.ensureEnding().sourceEnded(l.now, toBackend, nil))
	u.update()
	if len(l.due) != 1 {
		t.Fatalf("%d deadlines of a half", len(l.due))
	}
	backend := u.fds[1]
	u.fds[1] = -1
	u.interest[1] = 0 // so that the backend is to be waited for anew
	u.update()
	if !u.gone || len(l.due) > 0 {
		t.Errorf("gone: %v, %d deadlines", u.gone, len(l.due))
	}
	syscall.Close(int(backend))
}

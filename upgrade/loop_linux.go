package upgrade

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// loop is one event loop: a goroutine that waits for all sockets of its tunnels
// at once. Whoever holds mu may act on its tunnels: the goroutine, for one event
// at a time, and those who close a tunnel or send into one.
//
// The epoll descriptor itself waits in the runtime's poller. A thread blocked in
// epoll_wait would cost the scheduler a hand-over at each sleep, and something to
// wake it by; here the deadline of a read does that, and is all the timer there is.
// As long as there are tunnels it comes every pollTime at least: if ever the word
// that there are events got lost on its way through two pollers, the tunnels would
// wait for ever.
type loop struct {
	set     *loops
	tunnels atomic.Int64 // counted in under set.mu
	epoll   *os.File
	fd      int

	mu       sync.Mutex
	began    time.Time     // all times are since then
	now      time.Duration // as far as it matters
	slots    []*loopTunnel // what the events name
	free     []int32       // slots
	due      deadlines
	alarm    time.Duration // the deadline of epoll, 0 for none yet
	nextPoll time.Duration // when to look for events unasked
	retireAt time.Duration // the end, for want of tunnels
	spare    *activeState  // of a tunnel that is at rest again

	events [128]syscall.EpollEvent
	buf    [chunkSize]byte // for reading, in turn
}

// pollTime bounds how long an event waits whose wake-up was lost.
const pollTime = 2 * time.Second

func newLoop(set *loops) (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // or os.NewFile leaves it out of the poller
		syscall.Close(fd)
		return nil, os.NewSyscallError("fcntl", err)
	}
	l := &loop{set: set, began: time.Now(), nextPoll: pollTime, fd: fd, epoll: os.NewFile(uintptr(fd), "epoll")}
	if err := l.epoll.SetReadDeadline(time.Time{}); err != nil {
		l.epoll.Close()
		return nil, err
	}
	return l, nil
}

// start takes over a tunnel that is counted in.
func (l *loop) start(k link, client, backend int) *loopTunnel {
	l.lock()
	defer l.mu.Unlock()
	t := &loopTunnel{loop: l, tunnel: k.tunnel, fds: [2]int32{int32(client), int32(backend)}, last: l.now}
	if n := len(l.free); n > 0 {
		t.slot, l.free = l.free[n-1], l.free[:n-1]
		l.slots[t.slot] = t
	} else {
		t.slot, l.slots = int32(len(l.slots)), append(l.slots, t)
	}
	t.begin(k)
	if l.alarm == 0 {
		l.setAlarm()
	}
	return t
}

// remove takes out a tunnel that has ended.
func (l *loop) remove(t *loopTunnel) {
	l.slots[t.slot] = nil
	l.free = append(l.free, t.slot)
	if l.tunnels.Add(-1) == 0 {
		l.retireAt = l.now + linger
		l.setAlarm()
	}
}

// lock takes mu and looks at the clock.
func (l *loop) lock() {
	l.mu.Lock()
	l.now = time.Since(l.began)
}

func (l *loop) run() {
	defer l.epoll.Close()
	epoll, err := l.epoll.SyscallConn()
	if err != nil {
		panic(err) // only of a file that is nil
	}
	poll := l.poll
	for !l.expire() {
		epoll.Read(poll) // or until the alarm
	}
}

// poll deals with the events there are and reports whether there were any. Each
// socket gets one read's worth of attention, however much there is to read: the
// next time it is there again, behind the others.
func (l *loop) poll(uintptr) bool {
	n, err := ready(l.fd, l.events[:])
	if n == 0 {
		return err != nil // EINTR
	}
	l.lock()
	for _, ev := range l.events[:n] {
		// A tunnel may have ended since; one that has its place by now finds
		// nothing to do.
		if t := l.slots[ev.Fd]; t != nil {
			t.event(Side(ev.Pad), ev.Events)
		}
		l.mu.Unlock() // who comes from outside need not wait for all
		l.mu.Lock()
	}
	l.mu.Unlock()
	return true
}

// expire deals with the deadlines that have passed and reports whether the loop
// has ended.
func (l *loop) expire() bool {
	l.lock()
	if l.alarm == 0 || l.now < l.alarm {
		l.mu.Unlock()
		return false
	}
	for len(l.due) > 0 && l.due[0].at <= l.now {
		l.due[0].tunnel.expired()
	}
	l.nextPoll = l.now + pollTime
	idle := l.tunnels.Load() == 0 && l.retireAt <= l.now
	l.alarm = -1 // has passed, so it has to be set anew
	l.setAlarm()
	l.mu.Unlock()
	return idle && l.set.retire(l)
}

// wind sets the alarm for the first deadline.
func (l *loop) setAlarm() {
	first := l.nextPoll
	if l.tunnels.Load() == 0 {
		first = l.retireAt
	} else if len(l.due) > 0 {
		first = min(first, l.due[0].at)
	}
	if first != l.alarm {
		l.alarm = first
		l.epoll.SetReadDeadline(l.began.Add(first))
	}
}

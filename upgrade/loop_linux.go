package upgrade

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/limpet-go/limpet/internal/sockets"
)

// A loop is one event loop: a goroutine that waits for the sockets of all its tunnels
// at once. Whoever holds mu may act on its tunnels: the goroutine, for one event at a
// time, and callers that close a tunnel or send into one.
//
// The epoll descriptor itself waits in the runtime's poller. A thread that blocks in
// epoll_wait would cost a hand-over in the scheduler each time it goes to sleep, and
// would need something to wake it. Here the deadline of a read wakes the loop, and
// that is the only timer it has.
//
// While there are tunnels, that deadline is at most pollTime away. Should a wake-up
// ever get lost on its way through the two pollers, the tunnels would wait forever
// without it.
//
//	the goroutine is  until                        then
//	in epoll.Read     there are events, or alarm   poll, or expire
//	in poll           no events are left           back to epoll.Read
//	in expire         nothing is due               back to epoll.Read, or retire and end if it
//	                                               has had no tunnel for linger
type loop struct {
	set     *loops
	tunnels atomic.Int64 // raised under set.mu
	epoll   *os.File
	fd      int

	mu       sync.Mutex
	began    time.Time       // all times are counted from here
	now      time.Duration   // the time when mu was taken, about
	slots    []*loopTunnel   // by the number that an event carries
	free     []int32         // numbers of slots that are nil
	full     []time.Duration // by slot, that of its pacer while the tunnel is idle; nil without a MessageRate
	asked    []question      // by slot
	secure   [][2]*secureEnd // by slot, those of client and backend; as long as the last slot with TLS needs it
	due      deadlines
	alarm    time.Duration // the deadline of epoll's reads, 0 before the first
	nextPoll time.Duration // when to poll without a wake-up
	retireAt time.Duration // when to end, if there are no tunnels
	spare    *activeState  // what the last tunnel to become idle has left

	events [128]syscall.EpollEvent
	buf    [chunkSize]byte // for one read at a time

	cipher  []byte // for one read of a secureEnd at a time, nil before the first
	records []byte // what a secureEnd is about to send
}

// pollTime is how long an event may wait whose wake-up got lost.
const pollTime = 2 * time.Second

func newLoop(set *loops) (*loop, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // else os.NewFile would not add it to the runtime's poller
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

// start takes over a tunnel that least has counted already.
func (l *loop) start(k link, ends [2]base) *loopTunnel {
	l.lock()
	defer l.mu.Unlock()
	t := &loopTunnel{loop: l, tunnel: k.tunnel}
	for i, end := range ends {
		t.fds[i] = int32(end.fd)
		if end.alone {
			t.interest[i] = alone
		}
	}
	t.last = stampOf(l.now)
	t.spoken = t.last
	l.place(t)
	if secure := [2]*secureEnd{ends[0].secure, ends[1].secure}; secure != [2]*secureEnd{} {
		if l.cipher == nil {
			l.cipher = make([]byte, largeBudget)
		}
		for len(l.secure) < len(l.slots) {
			l.secure = append(l.secure, [2]*secureEnd{})
		}
		l.secure[t.slot] = secure
	}
	t.begin(k)
	if l.alarm == 0 {
		l.setAlarm()
	}
	return t
}

// place gives t a slot.
func (l *loop) place(t *loopTunnel) {
	if n := len(l.free); n > 0 {
		t.slot, l.free = l.free[n-1], l.free[:n-1]
		l.slots[t.slot], l.asked[t.slot] = t, 0
	} else {
		t.slot, l.slots, l.asked = int32(len(l.slots)), append(l.slots, t), append(l.asked, 0)
	}
	if t.tunnel.proxy.MessageRate > 0 {
		for len(l.full) < len(l.slots) {
			l.full = append(l.full, 0)
		}
		l.full[t.slot] = 0
	}
}

// remove removes a tunnel that has ended.
func (l *loop) remove(t *loopTunnel) {
	l.slots[t.slot] = nil
	if int(t.slot) < len(l.secure) {
		l.secure[t.slot] = [2]*secureEnd{}
	}
	l.free = append(l.free, t.slot)
	if l.tunnels.Add(-1) == 0 {
		l.retireAt = l.now + linger
		l.setAlarm()
	}
}

// lock takes mu and reads the clock.
func (l *loop) lock() {
	l.mu.Lock()
	l.now = time.Since(l.began)
}

// run is the loop's goroutine.
func (l *loop) run() {
	defer l.epoll.Close()
	epoll, err := l.epoll.SyscallConn()
	if err != nil {
		panic(err) // it fails for a nil file only
	}
	poll := l.poll
	for !l.expire() {
		epoll.Read(poll) // returns when poll has dealt with events, or at the alarm
	}
}

// poll deals with the events that there are, and reports whether there were any. Each
// socket is read once, however much there is to read. It is reported again the next
// time, behind the others, so that no tunnel holds up the rest.
func (l *loop) poll(uintptr) bool {
	n, err := sockets.Ready(l.fd, l.events[:])
	if n == 0 {
		return err != nil // EINTR
	}
	l.lock()
	for _, ev := range l.events[:n] {
		// The tunnel may have ended since the event was reported. A new one that
		// has taken its slot finds nothing to do.
		if t := l.slots[ev.Fd]; t != nil {
			t.event(Side(ev.Pad), ev.Events)
		}
		l.mu.Unlock() // so that a caller from outside need not wait for all events
		l.mu.Lock()
	}
	l.mu.Unlock()
	return true
}

// expire does what is due, and reports whether the loop has ended for want of tunnels.
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
	l.alarm = -1 // the deadline has passed: setAlarm has to set it, even to the same time
	l.setAlarm()
	l.mu.Unlock()
	return idle && l.set.retire(l)
}

// setAlarm has epoll.Read return at the first time at which something is due.
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

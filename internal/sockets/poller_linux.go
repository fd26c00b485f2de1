package sockets

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A poller has the epoll of all descriptors of the process. There is one at most, and it ends
// shortly after the last of them. While a call waits it has a goroutine:
//
//	asleep  goroutine                   until
//	false   in epoll.Read               there are events, or its deadline
//	false   in poll                     no events are left
//	true    in needed                   it has looked: the goroutine ends, or goes on
//	true    none                        a call is about to wait, or no descriptor is left
//
// The epoll descriptor itself waits in the runtime's poller: a thread that blocks in
// epoll_wait would cost a hand-over in the scheduler each time. Since all descriptors are
// edge-triggered, an epoll that was read to the end is empty, and the runtime is told of
// what comes later. A read of the epoll's RawConn goes on forever, so that it never resets
// what the runtime has been told.
type poller struct {
	epoll  *os.File
	fd     int
	events [128]syscall.EpollEvent
	batch  [128]*descriptor // of events
	asleep atomic.Bool      // whoever makes it false again runs the poller

	// Guarded by running.Mutex:
	table    []*descriptor // by the number that an event carries, nil for a free one
	free     []int32
	turn     int32         // of the last descriptor that was added
	open     int           // descriptors in table
	borrowed []*descriptor // those of them that have an owner
	leaving  bool          // the deadline of epoll is soon, as there were no descriptors
}

// running has the poller, nil if there are no descriptors.
var running struct {
	sync.Mutex
	poller *poller
}

const (
	linger = 100 * time.Millisecond // how long a poller stays after its last descriptor

	// pollTime is how long the goroutine stays while no call waits, and an event whose wake-up
	// got lost between the two pollers.
	pollTime = time.Second
)

// register adds d to the poller, whose events it waits for. The caller holds d.mu.
func register(d *descriptor, events uint32) error {
	running.Lock()
	p := running.poller
	if p == nil {
		var err error
		if p, err = newPoller(); err != nil {
			running.Unlock()
			return err
		}
		running.poller = p
		go p.run()
	}
	p.open++
	if d.owner != nil {
		p.borrowed = append(p.borrowed, d)
	}
	var slot int32
	if n := len(p.free); n > 0 {
		slot, p.free = p.free[n-1], p.free[:n-1]
		p.table[slot] = d
	} else {
		slot, p.table = int32(len(p.table)), append(p.table, d)
	}
	p.turn++
	d.poller, d.slot, d.turn = p, slot, p.turn
	running.Unlock()
	if err := d.control(syscall.EPOLL_CTL_ADD, events); err != nil {
		d.poller = nil
		p.remove(slot)
		return err
	}
	return nil
}

func newPoller() (*poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := syscall.SetNonblock(fd, true); err != nil { // else os.NewFile would not add it to the runtime's poller
		syscall.Close(fd)
		return nil, err
	}
	p := &poller{fd: fd, epoll: os.NewFile(uintptr(fd), "epoll")}
	if err := p.epoll.SetReadDeadline(time.Now().Add(pollTime)); err != nil {
		p.epoll.Close()
		return nil, err
	}
	return p, nil
}

// remove frees a slot. An event of the descriptor that had it may still come, and carries
// another turn than that of whichever is in the slot then.
func (p *poller) remove(slot int32) {
	running.Lock()
	defer running.Unlock()
	if d := p.table[slot]; d.owner != nil {
		p.borrowed = slices.DeleteFunc(p.borrowed, func(b *descriptor) bool { return b == d })
	}
	p.table[slot] = nil
	p.free = append(p.free, slot)
	if p.open--; p.open == 0 && !p.leaving {
		p.leaving = true
		p.epoll.SetReadDeadline(time.Now().Add(linger))
		p.rouse()
	}
}

// rouse starts the goroutine if there is none. A call does that when others see that it waits.
// A descriptor that has no poller yet, or was closed just now, needs none.
func (p *poller) rouse() {
	if p != nil && p.asleep.Load() && p.asleep.CompareAndSwap(true, false) {
		go p.run()
	}
}

// run is the poller's goroutine.
func (p *poller) run() {
	epoll, err := p.epoll.SyscallConn()
	if err != nil {
		panic(err) // it fails for a nil file only
	}
	for {
		epoll.Read(p.poll) // until the deadline
		running.Lock()
		if p.open == 0 {
			running.poller = nil
			running.Unlock()
			p.epoll.Close()
			return
		}
		p.leaving = false
		p.epoll.SetReadDeadline(time.Now().Add(pollTime))
		borrowed := slices.Clone(p.borrowed)
		running.Unlock()
		for _, d := range borrowed {
			if d.owner.Control(func(uintptr) {}) != nil {
				d.close() // as its owner has, of which epoll reports nothing
			}
		}
		p.asleep.Store(true) // before it looks: see rouse
		if !p.needed() || !p.asleep.CompareAndSwap(true, false) {
			return
		}
	}
}

// needed reports whether a call waits for one of the descriptors, or there are none any more,
// so that the poller has to end.
func (p *poller) needed() bool {
	for i := 0; ; i++ {
		running.Lock()
		if p.open == 0 || i == len(p.table) {
			defer running.Unlock()
			return p.open == 0
		}
		d := p.table[i]
		running.Unlock()
		if d != nil && d.waits() { // most often it is the first
			return true
		}
	}
}

// poll deals with the events that there are.
func (p *poller) poll(uintptr) (done bool) {
	for {
		n, err := Ready(p.fd, p.events[:])
		if err == syscall.EINTR {
			continue
		}
		events := p.events[:max(n, 0)]
		running.Lock()
		for i, e := range events {
			if d := p.table[e.Fd]; d != nil && d.turn == e.Pad {
				p.batch[i] = d
			}
		}
		running.Unlock()
		for i, e := range events {
			if d := p.batch[i]; d != nil {
				d.event(e.Events)
				p.batch[i] = nil
			}
		}
		if n < len(p.events) {
			return false
		}
	}
}

// control changes what epoll does for d, which has a poller. Fd and Pad of an event are ours to
// choose.
func (d *descriptor) control(op int, events uint32) error {
	return syscall.EpollCtl(d.poller.fd, op, d.fd, &syscall.EpollEvent{Events: events, Fd: d.slot, Pad: d.turn})
}

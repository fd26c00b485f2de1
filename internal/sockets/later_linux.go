package sockets

import (
	"sync"
	"time"
)

// later has the descriptors whose call waits without epoll: see postpone.
var later struct {
	sync.Mutex
	waiting []*descriptor
}

// delay is how long such a wait may go on without epoll.
const delay = 10 * time.Millisecond

// postpone has a Read that is about to wait for the first event of d woken after delay. It adds
// d to epoll then. The caller holds d.mu.
//
// While a handler runs net/http's server reads one byte from the connection, to hear that the
// client has left. That Read ends when the handler is done, or takes the connection over. To
// add the connection to epoll for it and remove it again would be a twentieth of the system
// calls of a tunnel that is opened and used once.
func postpone(d *descriptor) {
	later.Lock()
	defer later.Unlock()
	if later.waiting = append(later.waiting, d); len(later.waiting) == 1 {
		time.AfterFunc(delay, wakeLater)
	}
}

// wakeLater wakes the calls that postpone was called for.
func wakeLater() {
	later.Lock()
	waiting := later.waiting
	later.waiting = nil
	later.Unlock()
	for _, d := range waiting {
		d.mu.Lock()
		d.in.signal() // if it has ended meanwhile, another one looks in vain
		d.mu.Unlock()
	}
}

package upgrade

import (
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// Advance lets time pass for the loops of p, as synctest does for what is in
// memory.
func Advance(p *Proxy, by time.Duration) {
	defer p.closeDue()
	p.loops.mu.Lock()
	defer p.loops.mu.Unlock()
	for _, l := range p.loops.all {
		if l != nil {
			l.mu.Lock()
			l.began = l.began.Add(-by)
			l.alarm = -1
			l.setAlarm()
			l.mu.Unlock()
		}
	}
}

// OnLoops returns how many tunnels each loop has.
func OnLoops(p *Proxy) (tunnels []int64) {
	p.loops.mu.Lock()
	defer p.loops.mu.Unlock()
	for _, l := range p.loops.all {
		if l == nil {
			tunnels = append(tunnels, 0)
		} else {
			tunnels = append(tunnels, l.tunnels.Load())
		}
	}
	return tunnels
}

// Deafen has the runtime's poller forget the loop of a tunnel, as if each wake-up
// was lost, and reports whether that was possible.
func Deafen(t *Tunnel) bool {
	loop := t.engine.(*loopTunnel).loop.fd
	files, _ := os.ReadDir("/proc/self/fd")
	for _, f := range files { // only the poller's own epoll knows the loop's
		fd, _ := strconv.Atoi(f.Name())
		if syscall.EpollCtl(fd, syscall.EPOLL_CTL_DEL, loop, nil) == nil {
			return true
		}
	}
	return false
}

// OnLoop reports whether a tunnel is on a loop.
func OnLoop(t *Tunnel) bool {
	_, ok := t.engine.(*loopTunnel)
	return ok
}

// Waiting waits until so many are waiting to send.
func Waiting(t *Tunnel, n int) {
	u := t.engine.(*loopTunnel)
	for {
		u.loop.mu.Lock()
		have := 0
		if u.activeState != nil {
			for s := u.senders; s != nil; s = s.next {
				have++
			}
		}
		u.loop.mu.Unlock()
		if have >= n {
			return
		}
		runtime.Gosched()
	}
}

// Unsent returns how many encrypted bytes wait for room at the client of a tunnel.
func Unsent(t *Tunnel) int {
	unsent, _ := secureClient(t)
	return unsent
}

// Budget returns how many encrypted bytes are taken from the client of a tunnel at a time.
func Budget(t *Tunnel) int {
	_, budget := secureClient(t)
	return budget
}

func secureClient(t *Tunnel) (unsent, budget int) {
	u := t.engine.(*loopTunnel)
	u.loop.mu.Lock()
	defer u.loop.mu.Unlock()
	e := u.loop.secure[u.slot][0]
	if e.out != nil {
		unsent = len(e.out.b)
	}
	return unsent, int(e.budget)
}

// Stalled returns for how long the client of a tunnel has taken nothing.
func Stalled(t *Tunnel) time.Duration { return t.engine.stalled() }

// Pending returns how many bytes of a tunnel wait for room.
func Pending(t *Tunnel) (n int) {
	u := t.engine.(*loopTunnel)
	u.loop.mu.Lock()
	defer u.loop.mu.Unlock()
	if u.activeState != nil {
		for i := range u.flows {
			if p := u.flows[i].pending; p != nil {
				n += len(p.b)
			}
		}
	}
	return n
}
